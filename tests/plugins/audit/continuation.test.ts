import { copyFileSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { BEGINNING, sha256 } from '../../../plugins/audit/chain.ts'
import type { FileOptions } from '../../../plugins/audit/sinks/file.ts'
import { verifyFiles } from '../../../plugins/audit/verify/index.ts'
import { body, fileSink, recordsOf } from '../../support/audit.ts'

function logIn (t: Test): string {
  return join(t.testdir(), 'audit.jsonl')
}

function filesOf (path: string): string[] {
  return readdirSync(dirname(path)).map(name => join(dirname(path), name)).filter(file => file.startsWith(path))
}

/** One run of the service: writes `count` records and closes the log. */
async function run (path: string, count = 3, options: FileOptions = {}): Promise<void> {
  const sink = fileSink(path, options)
  for (let written = 0; written < count; written++) await sink.write(body(), false)
  await sink.close()
}

/** What verify says about the log at `path`. */
async function findings (t: Test, path: string): Promise<string> {
  const { exitCode, findings } = await verifyFiles(filesOf(path))
  t.equal(exitCode, 0, findings.join('\n'))
  return findings.join('\n')
}

const lastHash = (path: string) => sha256(readFileSync(path, 'utf8').trimEnd().split('\n').at(-1) ?? '')
const continuations = (path: string) => recordsOf(path).flatMap(({ continues }) => continues ?? [])

t.test('each run records what it continues from, in a checkpoint before its first record', async t => {
  const path = logIn(t)
  await run(path)
  t.strictSame(recordsOf(path).map(({ event }) => event).slice(0, 3), ['header', 'checkpoint', 'tool_call'])
  t.strictSame(continuations(path), [{ file: 0, ...BEGINNING, closed: null }])
  const { sequence } = recordsOf(path).at(-1)!
  const hash = lastHash(path)
  await run(path)
  t.strictSame(continuations(path)[1], { file: 1, sequence, hash, closed: true })
  t.match(recordsOf(path)[sequence], { event: 'checkpoint', sequence: sequence + 1 })
  const said = await findings(t, path)
  t.match(said, /:2: a run of the service began at ".+", with a new log\. Nothing outside the files vouches/)
  t.match(said, `It continues after record ${sequence} of file 1, where the run before it had closed the log.`)
  t.match(said, `Nothing outside the files vouches that record ${sequence} was the last`)
})

t.test('a run that does not close its log is listed at the next start', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  await sink.write(body(), false)
  copyFileSync(path, `${path}.crashed`)
  await sink.close()
  renameSync(`${path}.crashed`, path)
  await run(path)
  t.match(continuations(path)[1], { sequence: 3, closed: false })
  t.match(recordsOf(path)[3], { found: true, continues: { sequence: 3 } }, 'one checkpoint seals both')
  t.match(await findings(t, path), 'after record 3 of file 1, but the run before it has no closing record')
})

t.test('a log that was put back while the service was down shows where it was continued', async t => {
  t.test('an older copy that ends with a closing checkpoint', async t => {
    const path = logIn(t)
    await run(path)
    const copy = join(t.testdir(), 'copy')
    await run(path)
    copyFileSync(path, copy)
    const { sequence } = recordsOf(path).at(-1)!
    await run(path, 30)
    copyFileSync(copy, path)
    await run(path, 40)
    t.match(await findings(t, path), `Nothing outside the files vouches that record ${sequence} was the last`)
  })

  t.test('a file that was cut off at a checkpoint within a run', async t => {
    const path = logIn(t)
    await run(path, 1_010)
    const lines = readFileSync(path, 'utf8').split('\n')
    const at = recordsOf(path).findLastIndex(({ event, ends_run: ends }) => event === 'checkpoint' && ends !== true)
    truncateSync(path, Buffer.byteLength(lines.slice(0, at + 1).join('\n')) + 1)
    await run(path)
    t.match(continuations(path)[1], { sequence: at + 1, closed: false })
    t.match(await findings(t, path), `after record ${at + 1} of file 1, but the run before it has no closing record`)
  })

  t.test('a current file that was deleted, with a rotated one left', async t => {
    const path = logIn(t)
    await run(path, 30, { maxBytes: 10_000 })
    rmSync(path)
    const before = await findings(t, path)
    t.match(before, /File \d was closed to begin file \d, which was not given/, 'before the service starts')
    await run(path)
    t.match(continuations(path), [{ closed: false }])
    t.match(await findings(t, path), /after record \d+ of file \d, but the run before it has no closing record/)
  })
})

t.test('a run that begins with a rotation states the end that it found in the file that it closes', async t => {
  const path = logIn(t)
  await run(path)
  const { sequence } = recordsOf(path).at(-1)!
  await run(path, 1, { maxBytes: 10 })
  const [rotated = ''] = filesOf(path).filter(file => file !== path)
  t.match(recordsOf(rotated).at(-1), { checkpoint: { closing: true }, continues: { sequence, closed: true } })
  t.strictSame(continuations(path), [], 'once for each run')
})
