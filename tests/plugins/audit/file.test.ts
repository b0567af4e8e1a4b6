import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { canonical, chain, sha256 } from '../../../plugins/audit/chain.ts'
import type { LogRecord } from '../../../plugins/audit/record.ts'
import type { Sink } from '../../../plugins/audit/sinks/sink.ts'
import { verifyFiles } from '../../../plugins/audit/verify/index.ts'
import { body, events, fileSink, recordsOf, startService } from '../../support/audit.ts'
import { ROOT } from '../../support/paths.ts'
import { waitFor } from '../../support/wait-for.ts'

const WITHIN_MS = 5_000

function logIn (t: Test): string {
  return join(t.testdir(), 'logs', 'mcp', 'audit.jsonl')
}

/** The files of a log, in order. */
function filesOf (path: string): string[] {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return readdirSync(join(path, '..')).filter(file => file.startsWith(`${name}.2`)).sort().map(file =>
    join(path, '..', file)
  ).concat(path)
}

/** The one file set aside as altered. */
function alteredOf (path: string): string {
  const [aside = '', ...more] = readdirSync(join(path, '..')).filter(file =>
    file.startsWith(`${basename(path)}.altered-`)
  )
  if (aside === '' || more.length > 0) throw new Error('expected one altered file')
  return join(path, '..', aside)
}

async function intact (t: Test, path: string): Promise<void> {
  const { exitCode, findings } = await verifyFiles(filesOf(path))
  t.equal(exitCode, 0, findings.join('\n'))
}

async function writeAll (sink: Sink, count: number): Promise<void> {
  for (let written = 0; written < count; written++) await sink.write(body(), false)
}

t.test('an accepted record is in the file, which only its owner can read', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  const line = await sink.write(body(), false)
  t.equal(readFileSync(path, 'utf8').split('\n').at(-2), line)
  t.strictSame(events(path), ['header', 'tool_call'])
  t.equal(statSync(path).mode & 0o777, 0o600)
  t.equal(statSync(join(path, '..')).mode & 0o777, 0o700, 'missing folders are created')
  t.equal(statSync(join(path, '../..')).mode & 0o777, 0o700)
  await sink.close()
  t.strictSame(events(path), ['header', 'tool_call', 'checkpoint'])
  await intact(t, path)
})

t.test('a file that others can read is made private', async t => {
  const path = logIn(t)
  await fileSink(path).close()
  chmodSync(path, 0o644)
  await fileSink(path).close()
  t.equal(statSync(path).mode & 0o777, 0o600)
})

t.test('records of one batch keep their order', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  const lines = await Promise.all(Array.from({ length: 2_500 }, () => sink.write(body(), false)))
  const records = recordsOf(path)
  t.strictSame(
    records.filter(({ event }) => event === 'tool_call').map(({ sequence }) => sequence),
    lines.map(line => JSON.parse(line).sequence)
  )
  t.strictSame(
    records.flatMap(({ event, sequence }) => event === 'checkpoint' ? [sequence] : []),
    [2, 1_003, 2_004],
    'a checkpoint every 1,000 records'
  )
  await sink.close()
  await intact(t, path)
})

t.test('the next run continues the chain in the same file', async t => {
  const path = logIn(t)
  for (let run = 0; run < 3; run++) {
    const sink = fileSink(path)
    await writeAll(sink, 2)
    await sink.close()
  }
  t.strictSame(events(path), [
    'header',
    'tool_call',
    'tool_call',
    'checkpoint',
    'tool_call',
    'tool_call',
    'checkpoint',
    'tool_call',
    'tool_call',
    'checkpoint',
  ])
  t.strictSame(filesOf(path), [path])
  await intact(t, path)
})

t.test('a full file is rotated, and the next one begins with its end', async t => {
  const path = logIn(t)
  const sink = fileSink(path, { maxBytes: 3_000 })
  await writeAll(sink, 30)
  await sink.close()
  const files = filesOf(path)
  t.ok(files.length > 5)
  for (const [index, file] of files.entries()) {
    const records = recordsOf(file)
    t.match(records[0], { event: 'header', file: { number: index + 1 } })
    t.match(records.at(-1), { event: 'checkpoint', checkpoint: { closing: true } })
    t.equal(statSync(file).mode & 0o777, 0o600)
    t.ok(statSync(file).size < 5_000)
  }
  t.equal(files.flatMap(events).filter(event => event === 'tool_call').length, 30)
  t.match(files[0], /audit\.jsonl\.\d{4}-\d\d-\d\d\.000001$/)
  await intact(t, path)
})

t.test('a file is rotated at the end of its day', async t => {
  const path = logIn(t)
  let now = new Date('2026-07-28T23:59:59Z')
  const sink = fileSink(path, { now: () => now })
  await writeAll(sink, 2)
  now = new Date('2026-07-29T00:00:01Z')
  await writeAll(sink, 2)
  await sink.close()
  t.strictSame(filesOf(path), [`${path}.2026-07-28.000001`, path])
  t.strictSame(events(path), ['header', 'tool_call', 'tool_call', 'checkpoint'])
  await intact(t, path)
})

t.test('a crash between rotating a file and creating the next does not break the chain', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  await writeAll(sink, 2)
  await sink.close()
  renameSync(path, `${path}.2026-07-28.000001`)
  writeFileSync(`${path}.torn-2026`, 'not a file of the log')
  const next = fileSink(path)
  await writeAll(next, 1)
  await next.close()
  t.match(recordsOf(path)[0], { event: 'header', file: { number: 2 } })
  await intact(t, path)
})

t.test('a name that is taken prevents the rotation, not the records', async t => {
  const path = logIn(t)
  let now = new Date('2026-07-28T12:00:00Z')
  const sink = fileSink(path, { now: () => now })
  await writeAll(sink, 1)
  writeFileSync(`${path}.2026-07-28.000001`, 'something else')
  now = new Date('2026-07-29T12:00:00Z')
  await writeAll(sink, 2)
  await sink.close()
  t.equal(readFileSync(`${path}.2026-07-28.000001`, 'utf8'), 'something else')
  t.strictSame(events(path), ['header', 'tool_call', 'checkpoint', 'tool_call', 'tool_call', 'checkpoint'])
  t.equal((await verifyFiles([path])).exitCode, 0)
})

t.test('records that a crash left without a checkpoint are sealed at the next start, and verify says so', async t => {
  const found = /:4: records 3 to 3 had no checkpoint when the service started/
  const crashed = async (name: string) => {
    const path = logIn(t)
    const sink = fileSink(path)
    await writeAll(sink, 1)
    const left = `${path}.${name}`
    copyFileSync(path, left)
    await sink.close()
    return left
  }
  const verdict = async (path: string) =>
    await verifyFiles(
      readdirSync(dirname(path)).map(name => join(dirname(path), name)).filter(other => other.startsWith(path))
    )

  t.test('on the same day', async t => {
    const path = await crashed('same-day')
    const sink = fileSink(path)
    await writeAll(sink, 2)
    await sink.close()
    t.strictSame(events(path), ['header', 'tool_call', 'tool_call', 'tool_call', 'checkpoint'])
    const { exitCode, findings } = await verdict(path)
    t.equal(exitCode, 0, findings.join('\n'))
    t.match(findings.join('\n'), found)
  })

  for (
    const [when, options] of [['on the next day', { now: () => new Date(Date.now() + 86_400_000) }], [
      'in a file that is full',
      { maxBytes: 10 },
    ]] as const
  ) {
    t.test(when, async t => {
      const path = await crashed(when.replaceAll(' ', '-'))
      for (const runs of [1, 2]) {
        const sink = fileSink(path, options)
        await writeAll(sink, 1)
        await sink.close()
        const { exitCode, findings } = await verdict(path)
        t.equal(exitCode, 0, findings.join('\n'))
        t.match(findings.join('\n'), found, `run ${runs}`)
      }
      t.equal(events(path)[0], 'header')
    })
  }

  t.test('even if somebody added them while the service was down', async t => {
    const path = logIn(t)
    const sink = fileSink(path)
    await writeAll(sink, 1)
    await sink.close()
    const last = recordsOf(path).at(-1) as LogRecord
    const end = { hash: sha256(readFileSync(path, 'utf8').trim().split('\n').at(-1) ?? ''), sequence: last.sequence }
    appendFileSync(path, `${chain(end, { ...body(), event: 'tool_call' }).line}\n`)
    const next = fileSink(path)
    await writeAll(next, 1)
    await next.close()
    t.match(await verdict(path), {
      exitCode: 1,
      problems: [{ line: 5, what: /^record 5 was added while the service was stopped: record 4 closed the log/ }],
    })
  })
})

t.test('a torn last line is set aside and recorded', async t => {
  for (const torn of ['{"decision":"allowed","di', '\0\0\0\0\0\n', '{"event":"no record"}\n{"half']) {
    const path = logIn(t)
    rmSync(join(path, '..'), { recursive: true, force: true })
    const sink = fileSink(path)
    await writeAll(sink, 2)
    await sink.close()
    appendFileSync(path, torn)
    t.equal((await verifyFiles([path])).exitCode, 1, 'before the service starts again')

    const next = fileSink(path)
    await writeAll(next, 1)
    await next.close()
    const aside = readdirSync(join(path, '..')).filter(file => file.includes('.torn-'))
    t.equal(aside.length, 1)
    const kept = join(path, '..', aside[0] ?? '')
    t.equal(readFileSync(kept, 'utf8'), torn)
    t.equal(statSync(kept).mode & 0o777, 0o600)
    t.strictSame(recordsOf(path).find(({ event }) => event === 'torn_line')?.['torn'], {
      bytes: torn.length,
      set_aside: aside[0],
      sha256: sha256(torn),
    })
    t.strictSame(events(path), [
      'header',
      'tool_call',
      'tool_call',
      'checkpoint',
      'torn_line',
      'tool_call',
      'checkpoint',
    ])
    const { exitCode, findings } = await verifyFiles([path, kept])
    t.equal(exitCode, 0, 'the torn line is not part of the chain')
    t.match(
      findings.join('\n'),
      `a torn line of ${torn.length} bytes was at the end of the file when the service started: it was set aside as "${
        aside[0]
      }"`
    )
    t.match(findings.join('\n'), /torn-.*: skipped: a torn line left by a crash/)
  }
})

t.test('a file whose first line is torn is started again', async t => {
  const path = logIn(t)
  mkdirSync(join(path, '..'), { recursive: true })
  writeFileSync(path, '{"event":"header","file":{"num')
  const sink = fileSink(path)
  await writeAll(sink, 1)
  await sink.close()
  t.strictSame(events(path), ['header', 'torn_line', 'tool_call', 'checkpoint'])
  await intact(t, path)
})

t.test('a file that is not an audit log is left alone', async t => {
  for (const content of ['root:x:0:0\n', 'root:x:0:0', '{"event":"header"}\n']) {
    const path = join(t.testdir({ passwd: content }), 'passwd')
    chmodSync(path, 0o644)
    const sink = fileSink(path)
    await t.rejects(sink.write(body(), false), { message: 'the file is not an audit log: move it away' })
    t.match(sink.state, { state: 'failed', reason: 'the file is not an audit log: move it away', missed: 1 })
    await sink.close()
    t.equal(readFileSync(path, 'utf8'), content)
    t.equal(statSync(path).mode & 0o777, 0o644)
  }
})

t.test('a symbolic link is not followed', async t => {
  const link = /^the file is a symbolic link, .*: remove it, or name the file itself in KAFSCALE_MCP_AUDIT_SINKS$/
  const refused = async (path: string) => {
    const sink = fileSink(path)
    await t.rejects(sink.write(body(), false), { message: link })
    t.match(sink.state, { state: 'failed', reason: link })
    await sink.close()
  }

  t.test('to a log, to another file, to an empty file or to none', async t => {
    const dir = t.testdir({ passwd: 'root:x:0:0\n', empty: '' })
    await fileSink(join(dir, 'log')).close()
    for (const target of ['log', 'passwd', 'empty', 'missing']) {
      const file = join(dir, target)
      const before = existsSync(file) ? readFileSync(file, 'utf8') : undefined
      if (before !== undefined) chmodSync(file, 0o644)
      symlinkSync(file, join(dir, `link-to-${target}`))
      await refused(join(dir, `link-to-${target}`))
      t.equal(existsSync(file), before !== undefined, 'nothing is created')
      if (before === undefined) continue
      t.equal(readFileSync(file, 'utf8'), before)
      t.equal(statSync(file).mode & 0o777, 0o644)
    }
  })

  t.test('in the place of a rotated file', async t => {
    const dir = t.testdir()
    await fileSink(join(dir, 'log')).close()
    symlinkSync(join(dir, 'log'), join(dir, 'audit.jsonl.2026-07-28.000001'))
    await refused(join(dir, 'audit.jsonl'))
  })

  t.test('that replaces the file while the service runs, even with a link to the same file', async t => {
    const path = logIn(t)
    const sink = fileSink(path)
    await writeAll(sink, 1)
    const before = readFileSync(path, 'utf8')
    renameSync(path, `${path}.moved`)
    symlinkSync(`${path}.moved`, path)
    await t.rejects(sink.write(body(), false), { message: link })
    await sink.close()
    t.equal(readFileSync(`${path}.moved`, 'utf8'), before)
  })
})

t.test('a device or a folder cannot be a log', async t => {
  const folder = fileSink(t.testdir())
  await t.rejects(folder.write(body(), false), { code: 'EISDIR' })
  t.equal(folder.state.reason, 'open: EISDIR', 'the reason contains no path')
  const device = fileSink('/dev/full')
  await t.rejects(device.write(body(), false), { message: 'not a regular file' })
  await Promise.all([folder.close(), device.close()])
})

t.test('a file that is moved away is replaced by a new one, and the chain records it', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  await writeAll(sink, 2)
  renameSync(path, `${path}.2026-07-28.moved`)
  await writeAll(sink, 2)
  await sink.close()
  t.strictSame(events(path), ['header', 'gap', 'tool_call', 'tool_call', 'checkpoint'])
  t.match(recordsOf(path)[1], { gap: { records: null, reason: /moved or removed/ } })
  await intact(t, path)
})

t.test('a copy that replaces the file is written to', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  await writeAll(sink, 2)
  copyFileSync(path, `${path}.copy`)
  renameSync(`${path}.copy`, path)
  await writeAll(sink, 1)
  await sink.close()
  t.strictSame(events(path), ['header', 'tool_call', 'tool_call', 'tool_call', 'checkpoint'])
  await intact(t, path)
})

t.test('records cut off while the service runs are detected', async t => {
  const path = logIn(t)
  const sink = fileSink(path)
  await writeAll(sink, 5)
  const lines = readFileSync(path, 'utf8').split('\n')
  truncateSync(path, lines.slice(0, 4).join('\n').length + 1)
  await writeAll(sink, 1)
  await sink.close()
  const aside = alteredOf(path)
  t.strictSame(events(aside), ['header', 'tool_call', 'tool_call'])
  t.strictSame(events(path), ['header', 'gap', 'tool_call', 'checkpoint'])
  t.match(recordsOf(path)[1], { gap: { records: 3, reason: /records written earlier are missing from it/ } })
  t.match(await verifyFiles([aside, path]), { exitCode: 1, problems: [{ path: aside, line: 4, what: /cut off/ }] })
})

t.test('a file that somebody else writes to is set aside, and the chain continues from its own last line', async t => {
  const forge = (lines: string[]) => canonical({ ...JSON.parse(lines.at(-1) ?? ''), rule: 'forged, and longer' })
  const append = (lines: string[]) => chain({ hash: sha256(lines.at(-1) ?? ''), sequence: lines.length }, body()).line
  for (const [what, change] of Object.entries<(lines: string[]) => string>({
    'a changed last line': lines => [...lines.slice(0, -1), forge(lines), ''].join('\n'),
    'an appended line that fits': lines => [...lines, append(lines), ''].join('\n'),
    'a part of a line': lines => [...lines, '{"half'].join('\n'),
    'something that is not a log': () => 'root:x:0:0\n',
  })) {
    const path = logIn(t)
    rmSync(join(path, '..'), { recursive: true, force: true })
    const sink = fileSink(path)
    await writeAll(sink, 3)
    const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1)
    const altered = change(lines)
    writeFileSync(path, altered)
    await writeAll(sink, 1)
    await sink.close()
    const aside = alteredOf(path)
    t.equal(readFileSync(aside, 'utf8'), altered, what)
    t.strictSame(events(path), ['header', 'gap', 'tool_call', 'checkpoint'], what)
    t.match(recordsOf(path)[0], {
      file: { number: 2, previous_hash: sha256(lines.at(-1) ?? ''), previous_sequence: 5 },
    })
    t.match(recordsOf(path)[1], { gap: { records: null, reason: /altered/, set_aside: basename(aside) } })
    t.equal((await verifyFiles([aside, path])).exitCode, 1, what)
  }
})

t.test('without its folder a file accepts nothing, and the chain records how much is missing', async t => {
  const path = logIn(t)
  const folder = join(path, '..')
  const sink = fileSink(path)
  await writeAll(sink, 2)
  renameSync(folder, `${folder}-gone`)
  await t.rejects(sink.write(body(), false), { code: 'ENOENT' })
  await t.rejects(sink.write(body(), true), { code: 'ENOENT' })
  t.match(sink.state, { state: 'failed', reason: 'stat: ENOENT', missed: 2 })
  t.notOk(existsSync(folder), 'nothing is written to the mount point')
  renameSync(`${folder}-gone`, folder)
  await writeAll(sink, 1)
  t.strictSame(sink.state, { kind: 'file', state: 'ok', written: 3, missed: 2, gaps: 1 })
  await sink.close()
  t.strictSame(events(path), ['header', 'tool_call', 'tool_call', 'gap', 'tool_call', 'checkpoint'])
  t.match(recordsOf(path)[4], { gap: { records: 2, reason: 'stat: ENOENT' } })
  await intact(t, path)
})

t.test('a full disk refuses whole records, and accepts them again when there is room', async t => {
  const path = logIn(t)
  mkdirSync(join(path, '..'), { recursive: true })
  // A file size limit acts like a full disk for one process. NODE_OPTIONS from tap would make it end at the limit.
  const service = startService(t, { auditSinks: [{ kind: 'file', path }] }, {
    wrapper: ['bash', '-c', 'unset NODE_OPTIONS; ulimit -S -f 16; exec "$@"', '-'],
  })
  const answers = new Map<string, string>()
  createInterface({ input: service.stdio[3] as NodeJS.ReadableStream }).on('line', line => {
    const [id = '', outcome = ''] = line.split(' ')
    answers.set(id, outcome)
  })
  let next = 0
  const record = async () => {
    const id = `${next++}`
    service.stdin?.write(`${id}\n`)
    await waitFor(() => answers.has(id), WITHIN_MS, `an answer to ${id}`)
    return answers.get(id)
  }
  let accepted = 0
  let outcome = await record()
  for (; outcome === 'ok' && accepted < 1_000; outcome = await record()) accepted++
  t.equal(outcome, 'AUDIT_UNAVAILABLE')
  t.equal(await record(), 'AUDIT_UNAVAILABLE')
  t.equal(events(path).length, accepted + 2, 'only whole records: the header, the start and those accepted')
  t.ok(statSync(path).size > 15_000)

  execFileSync('prlimit', ['--pid', String(service.pid), '--fsize=1000000:'])
  t.equal(await record(), 'ok')
  t.match(recordsOf(path).find(({ event }) => event === 'gap'), { gap: { records: 2, reason: 'write: EFBIG' } })
  service.stdin?.end()
  await once(service, 'exit')
  await intact(t, path)
})

// Needs a mount namespace. Where the kernel does not allow one, the two tests above have to suffice.
const mounts = spawnSync('unshare', ['-Urm', 'true']).status === 0
if (mounts) {
  t.test('a full file system and an unmounted volume', async t => {
    const script = join(ROOT, 'tests/support/audit-volume.ts')
    const output = execFileSync('unshare', ['-Urm', process.execPath, script, t.testdir()], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const { full, afterwards, gone, onRoot, findings } = JSON.parse(output)
    t.equal(full, 'ENOSPC')
    t.equal(afterwards, 'ok')
    t.equal(gone, 'the volume is gone')
    t.equal(onRoot, false, 'nothing is written to the mount point')
    t.match(findings.at(-1), /^intact/)
  })
}
