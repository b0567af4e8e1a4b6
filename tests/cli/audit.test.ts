import { execFile } from 'node:child_process'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { buildAudit, entry, recordsOf, signingKey } from '../support/audit.ts'
import { ROOT } from '../support/paths.ts'

const CLI = join(ROOT, 'cli/audit.ts')

/** Runs the command in a process of its own. */
async function run (...args: string[]): Promise<{ code: number, stdout: string, stderr: string }> {
  const script = `import { audit } from ${JSON.stringify(CLI)}; process.exitCode = await audit(process.argv.slice(1))`
  return await new Promise(resolve => {
    execFile(process.execPath, ['--input-type=module', '-e', script, '--', ...args], (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), stdout, stderr })
    })
  })
}

/** A signed, closed log of two calls and a failed sign-in. */
async function writeLog (t: Test) {
  const dir = t.testdir()
  const keys = signingKey(dir)
  const path = join(dir, 'audit.jsonl')
  const app = await buildAudit(t, { auditSinks: [{ kind: 'file', path }], auditSigningKeyFile: keys.keyFile })
  await app.audit.record(entry())
  await app.audit.record(
    entry({
      who: { ...entry().who!, subject: 'bob\u001b[2J\nline' },
      what: { ...entry().what!, tool: 'list_groups' },
      outcome: 'denied',
      error_code: 'PERMISSION_DENIED',
      rule: 'no role',
    })
  )
  await app.audit.record(entry({ event: 'authentication_failure', who: null, what: null, outcome: 'denied', count: 7 }))
  await app.close()
  return { ...keys, dir, path }
}

t.test('verify: 0 and what is known about an intact log', async t => {
  const { path, publicKeyFile } = await writeLog(t)
  const { code, stdout, stderr } = await run('verify', path)
  t.equal(code, 0)
  t.match(stdout, 'audit.jsonl: file 1, records 1 to 8 on 8 lines, closed\n')
  t.match(stdout, /Signed by key [0-9a-f]{64}: compare it, or pass --public-key\.\n/)
  t.ok(stdout.endsWith('\nintact: records 1 to 8\n'))
  t.equal(stderr, '')
  t.match(await run('verify', '--public-key', publicKeyFile, '--expect-sequence', '8', path), {
    code: 0,
    stdout: 'which is trusted',
  })
})

t.test('verify: 1 with file and line for an altered log', async t => {
  const { dir, path } = await writeLog(t)
  const other = signingKey(dir, 'other')
  t.match(await run('verify', '--public-key', other.publicKeyFile, path), {
    code: 1,
    stdout: '',
    stderr: /audit\.jsonl:2: altered: the checkpoint is signed by another key/,
  })
  t.match(await run('verify', '--expect-sequence', '9', path), {
    code: 1,
    stderr: /audit\.jsonl:8: altered: the log ends with record 8, but record 9 is expected/,
  })
  writeFileSync(path, readFileSync(path, 'utf8').replace('"limit":3', '"limit":4'))
  t.match(await run('verify', path), {
    code: 1,
    stdout: '',
    stderr: /audit\.jsonl:4: altered: the record was changed\n/,
  })
})

t.test('verify: 2 when no head is about the log', async t => {
  const { dir, path, publicKeyFile } = await writeLog(t)
  const other = join(dir, 'other.jsonl')
  const keyFile = publicKeyFile.replace('.pub', '.key')
  const app = await buildAudit(t, { auditSinks: [{ kind: 'file', path: other }], auditSigningKeyFile: keyFile })
  await app.close()
  const { code, stdout, stderr } = await run('verify', '--public-key', publicKeyFile, '--heads', other, path)
  t.equal(code, 2)
  t.equal(stdout, '')
  t.match(stderr, /none of them is about this log/)
  t.notMatch(stderr, 'intact')
  t.match(await run('verify', '--public-key', publicKeyFile, '--from-file', '1', path), { code: 0 })
})

t.test('verify: 2 when files or options cannot be read', async t => {
  const { dir, path } = await writeLog(t)
  t.match(await run('verify', join(dir, 'missing')), { code: 2, stderr: /missing: unreadable: ENOENT/ })
  t.match(await run('verify', '--public-key', join(dir, 'missing'), path), { code: 2, stderr: 'ENOENT' })
  t.match(await run('verify', '--public-key', path, path), { code: 2, stderr: 'the public key cannot be read' })
  for (
    const args of [
      ['verify'],
      ['verify', path, '--expect-sequence', 'many'],
      ['verify', path, '--from-file', '0'],
      ['verify', path, '--deep'],
      ['prove'],
      [],
      ['show'],
      ['show', path, '--since', 'yesterday'],
    ]
  ) {
    t.match(await run(...args), { code: 2, stdout: '', stderr: 'Usage:' }, args.join(' '))
  }
  t.match(await run('--help'), { code: 0, stdout: 'Usage:' })
})

t.test('show: a table in which no record can pass for another line', async t => {
  const { path } = await writeLog(t)
  const { code, stdout } = await run('show', path)
  t.equal(code, 0)
  const lines = stdout.trimEnd().split('\n')
  t.equal(lines.length, 9)
  t.match(lines[0], /^TIME +SEQUENCE +EVENT +WHO +TOOL +OUTCOME +CODE +MS +RULE +ON$/)
  t.match(lines[4], / tool_call +alice +list_topics +ok +- +1\.5 +observer +orders$/)
  t.match(lines[5], / bob\\u001b\[2J\\u000aline +list_groups +denied +PERMISSION_DENIED /)
  t.match(lines[6], / authentication_failure ×7 /)
  t.notMatch(stdout, '\u001b')
})

t.test('show: names too large to record appear as their digest', async t => {
  const path = join(t.testdir(), 'audit.jsonl')
  const app = await buildAudit(t, { auditSinks: [{ kind: 'file', path }] })
  const topics = Array.from({ length: 2_000 }, (_, index) => `topic-${index}`)
  await app.audit.record(entry({ what: { ...entry().what!, resources: { topics, groups: ['billing'] } } }))
  await app.close()
  const { code, stdout } = await run('show', path)
  t.equal(code, 0)
  t.match(stdout.split('\n')[4], / \{"bytes":\d+,"sha256":"[0-9a-f]{64}"\} billing$/)
})

t.test('show: filtered by who, tool, event, outcome and time, as JSON', async t => {
  const { path } = await writeLog(t)
  const shown = async (...filter: string[]) =>
    (await run('show', path, '--json', ...filter)).stdout.split('\n').slice(0, -1).map(line => JSON.parse(line))
  const records = recordsOf(path)
  const sequences = async (...filter: string[]) => (await shown(...filter)).map(({ sequence }) => sequence)
  t.strictSame(await shown(), records)
  t.strictSame(await sequences('--who', 'alice'), [4])
  t.strictSame(await sequences('--who', 'agent'), [4, 5], 'a client id')
  t.strictSame(await sequences('--tool', 'list_groups'), [5])
  t.strictSame(await sequences('--event', 'start'), [3])
  t.strictSame(await sequences('--outcome', 'denied'), [5, 6])
  t.strictSame(await sequences('--outcome', 'denied', '--who', 'alice'), [])
  t.strictSame(await sequences('--since', '2100-01-01'), [])
  t.strictSame(await sequences('--until', '2100-01-01T00:00:00Z', '--tool', 'list_topics'), [4])
})

t.test('show: a line that is not a record is reported', async t => {
  const { path } = await writeLog(t)
  appendFileSync(path, '{"torn')
  t.match(await run('show', path, '--who', 'alice'), {
    code: 1,
    stdout: 'list_topics',
    stderr: /audit\.jsonl:9: not a valid record: run audit verify/,
  })
})
