import { execFile } from 'node:child_process'
import { appendFileSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { BEGINNING, type Body, chain, header } from '../../plugins/audit/chain.ts'
import { body, buildAudit, entry, fileSink, recordsOf, signingKey } from '../support/audit.ts'
import { ROOT } from '../support/paths.ts'

const CLI = join(ROOT, 'cli/audit.ts')

/** Runs the command in a process of its own. */
async function run (...args: string[]): Promise<{ code: number, stdout: string, stderr: string }> {
  return await runIn({}, ...args)
}

async function runIn (
  env: Record<string, string>,
  ...args: string[]
): Promise<{ code: number, stdout: string, stderr: string }> {
  const script = `import { audit } from ${JSON.stringify(CLI)}; process.exitCode = await audit(process.argv.slice(1))`
  return await new Promise(resolve => {
    const command = ['--input-type=module', '-e', script, '--', ...args]
    execFile(process.execPath, command, { env: { ...process.env, ...env } }, (error, stdout, stderr) => {
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
      ['show', path, '--until', '2026-13-01'],
      ['show', path, '--until', '2026-02-29'],
      ['show', path, '--since', '2026-06-31T12:00:00+02:00'],
      ['show', path, '--since', '2026-07-02', '--until', '2026-07-01'],
      ['show', path, '--since', '2026-07-01T02:00+02:00', '--until', '2026-07-01'],
      ['show', path, '--local', '--json'],
      ['show', path, '--event', 'policy_relaod'],
      ['show', path, '--outcome', 'refused'],
      ['show', path, '--method', 'jwt'],
    ]
  ) {
    t.match(await run(...args), { code: 2, stdout: '', stderr: 'Usage:' }, args.join(' '))
  }
  t.match(await run('show', path, '--since', '2024-02-29'), { code: 0, stdout: /^TIME/ }, 'a leap day')
  for (const command of ['show', 'verify']) {
    t.match(await run(command, dir), { code: 2, stdout: '', stderr: `${dir} is a folder: name the files in it` })
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
  t.match(lines[5], / "bob\\u001b\[2J\\nline" +list_groups +denied +PERMISSION_DENIED /)
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

/** The sequence numbers that `audit show --json` prints. */
async function sequences (...args: string[]): Promise<number[]> {
  const { stdout } = await run('show', '--json', ...args)
  return stdout.split('\n').slice(0, -1).map(line => JSON.parse(line).sequence)
}

/** Lines as a collector may get them, where the clock of the replica says `seconds`. */
function linesOf (replica: string, ...seconds: number[]): string[] {
  const bodies: Body[] = [
    header(1, BEGINNING),
    ...seconds.map(second => entry({ when: { ...entry().when, duration_ms: second } })),
  ].map((given, index) => ({
    ...given,
    time: new Date(Date.UTC(2026, 6, 28, 12, 0, seconds[index - 1] ?? seconds[0])).toISOString(),
    where: { ...entry().where, replica },
  }))
  let end = BEGINNING
  return bodies.map(given => {
    const chained = chain(end, given)
    end = chained.end
    return `${chained.line}\n`
  })
}

t.test('show: filtered by topic, group, rule and method; one of the values of an option is enough', async t => {
  const path = join(t.testdir(), 'audit.jsonl')
  const app = await buildAudit(t, { auditSinks: [{ kind: 'file', path }] })
  const on = async (topics: string[], groups: string[], more = {}) =>
    await app.audit.record(entry({ what: { ...entry().what!, resources: { topics, groups } }, ...more }))
  await on(['orders'], [], { rule: 'observer.allow[0]' })
  await on(['orders-eu', 'payments'], ['billing'], { rule: 'sre.deny[1]', outcome: 'denied' })
  await on([], ['orders'], { who: { ...entry().who!, method: 'token' } })
  const many = Array.from({ length: 2_000 }, (_, index) => `topic-${index}`)
  await on(many, ['other'])
  await app.audit.record(entry({ event: 'authentication_failure', who: null, what: null }))
  await app.close()
  t.strictSame(await sequences(path, '--topic', 'orders'), [4, 7], 'a list that was too large to record may have it')
  t.strictSame(await sequences(path, '--topic', 'payments', '--topic', 'orders'), [4, 5, 7])
  t.strictSame(await sequences(path, '--group', 'billing'), [5])
  t.strictSame(await sequences(path, '--group', 'billing', '--topic', 'orders'), [])
  t.strictSame(await sequences(path, '--rule', 'sre.deny[1]'), [5])
  t.strictSame(await sequences(path, '--method', 'token', '--method', 'none'), [6])
})

t.test('show: nothing found is not an empty answer', async t => {
  const { path } = await writeLog(t)
  const records = recordsOf(path)
  const span = `from ${records.at(0)?.time} to ${records.at(-1)?.time}`
  t.match(await run('show', path, '--who', 'nobody'), {
    code: 0,
    stdout: /^TIME.*\n$/,
    stderr: `no record matches: the files contain 8 records, ${span}\n`,
  })
  const altered = join(t.testdir(), 'audit.jsonl')
  const sink = fileSink(altered)
  await sink.write(body(), false)
  appendFileSync(altered, 'altered\n')
  await sink.write(body(), false)
  await sink.close()
  t.match(await run('show', altered, '--who', 'alice'), {
    stderr: 'records are missing: audit show --event gap lists 1 ',
  })
  t.match(await run('show', altered, '--who', 'alice', '--until', '2026-01-01'), {
    stderr: /^no record matches:[^\n]*\n$/,
  })
})

t.test('show: rotated and compressed files in the order of the log, and copies once', async t => {
  const dir = t.testdir()
  const path = join(dir, 'audit.jsonl')
  const sink = fileSink(path, { maxBytes: 3_000 })
  for (let count = 0; count < 12; count++) await sink.write(body(), false)
  await sink.close()
  const all = (paths: string[]) => paths.flatMap(recordsOf).map(({ sequence }) => sequence).sort((a, b) => a - b)
  const [first = '', second = '', ...others] = globSync(`${path}*`)
    .sort((a, b) => a.length - b.length || (a < b ? 1 : -1))
  const expected = all([first, second, ...others])
  t.ok(others.length > 0, 'there are more files')
  writeFileSync(`${first}.gz`, gzipSync(readFileSync(first)))
  writeFileSync(`${second}.zst`, zstdCompressSync(readFileSync(second)))
  rmSync(second)
  const files = [`${second}.zst`, ...others, `${first}.gz`]
  t.strictSame(await sequences(...files), expected)
  t.strictSame(await sequences(first, ...files.reverse()), expected, 'a file that is there twice')
  t.match(await run('verify', ...files), { code: 0, stdout: `intact: records 1 to ${expected.at(-1)}` })
  for (const compressed of [`${first}.gz`, `${second}.zst`]) {
    writeFileSync(compressed, readFileSync(compressed).subarray(0, -20))
    t.match(await run('show', compressed), { code: 2, stderr: compressed }, 'a file that is cut off')
  }
})

t.test('show: what collectors received from several replicas, by time', async t => {
  const dir = t.testdir()
  const [a = [], b = []] = [linesOf('a', 1, 4, 5), linesOf('b', 2, 3, 6)]
  const write = (name: string, lines: string[]) => {
    writeFileSync(join(dir, name), lines.join(''))
    return join(dir, name)
  }
  const replicas = async (...paths: string[]) =>
    (await run('show', '--json', '--event', 'tool_call', ...paths)).stdout.split('\n').slice(0, -1)
      .map(line => JSON.parse(line)).map(({ where, when }) => `${where.replica}${when.duration_ms}`)
  const expected = ['a1', 'b2', 'b3', 'a4', 'a5', 'b6']
  t.strictSame(await replicas(write('b', b), write('a', a)), expected)
  const twice = [a, b].flatMap(([head = '', ...lines]) => [head, ...lines.slice(0, 2), ...lines])
  t.strictSame((await replicas(write('twice', twice))).sort(), expected.sort(), 'batches that were sent twice')
})

t.test('show: times in UTC, or in the zone of the machine', async t => {
  const path = join(t.testdir(), 'audit.jsonl')
  writeFileSync(path, linesOf('a', 0).join(''))
  const zone = { TZ: 'Asia/Kolkata' }
  const times = async (...args: string[]) =>
    (await runIn(zone, 'show', path, '--event', 'tool_call', ...args)).stdout.split('\n').slice(1, -1)
      .map(line => line.split(' ')[0])
  t.strictSame(await times(), ['2026-07-28T12:00:00.000Z'])
  t.strictSame(await times('--local'), ['2026-07-28T17:30:00.000+05:30'])
  t.equal((await times('--since', '2026-07-28T12:00', '--until', '2026-07-28 12:00:01')).length, 1)
  t.strictSame(await times('--since', '2026-07-28T12:01'), [])
  t.equal((await times('--local', '--since', '2026-07-28T17:30')).length, 1)
  t.equal((await times('--local', '--until', '2026-07-28T17:30')).length, 0)
  t.equal((await times('--since', '2026-07-28T14:00:00+02:00')).length, 1)
  const { stderr } = await runIn(zone, 'show', path, '--local', '--since', '2100-01-01')
  t.match(stderr, /^no record matches: the files contain \d+ records, from 2026-07-28T17:\S+\+05:30 to \S+\+05:30$/m)
})

t.test('show: a table of any length, and a reader that stops early', async t => {
  const path = join(t.testdir(), 'audit.jsonl')
  writeFileSync(path, linesOf('a', ...Array.from({ length: 2_500 }, (_, index) => index)).join(''))
  const { stdout } = await run('show', path)
  const lines = stdout.trimEnd().split('\n')
  t.equal(lines.length, 2_502)
  t.equal(lines.filter(line => line.startsWith('TIME')).length, 1)
  const command = `import { audit } from ${JSON.stringify(CLI)}; process.exitCode = await audit(process.argv.slice(1))`
  const piped = ['-o', 'pipefail', '-c', '"$0" --input-type=module -e "$1" -- show "$2" | head -1; echo $?']
  const seen = await new Promise(resolve => {
    execFile('bash', [...piped, process.execPath, command, path], (_, stdout, stderr) => resolve({ stdout, stderr }))
  })
  t.match(seen, { stdout: /^TIME.*\n0\n$/, stderr: '' })
})
