import { createPrivateKey } from 'node:crypto'
import {
  appendFileSync,
  copyFileSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { FileMedium, type FileOptions } from '../../../plugins/audit/sinks/file.ts'
import { Sink } from '../../../plugins/audit/sinks/sink.ts'
import { verifyFiles, type VerifyOptions } from '../../../plugins/audit/verify/index.ts'
import { body, buildAudit, entry, recordsOf, signingKey, startAuditCollector } from '../../support/audit.ts'

/** A signed log, and the service's log with its heads. */
function setUp (t: Test) {
  const dir = t.testdir({ logs: {} })
  const { keyFile, publicKey } = signingKey(dir)
  const path = join(dir, 'logs', 'audit.jsonl')
  const serviceLog: string[] = []
  const key = createPrivateKey(readFileSync(keyFile, 'utf8'))
  const { log } = Fastify({ logger: { level: 'info', stream: { write: line => serviceLog.push(line) } } })
  const excerpt = join(dir, 'service.log')

  /** One run of the service. */
  async function run (count: number, options: FileOptions = {}, at = path) {
    const sink = new Sink(new FileMedium(at, options), { key, log })
    for (let written = 0; written < count; written++) await sink.write(body(), false)
    await sink.close()
  }
  /** The verdict on the files at `path`, with these lines of the service's log. */
  async function verdict (lines = serviceLog, options: VerifyOptions = { headFiles: [excerpt] }) {
    writeFileSync(excerpt, lines.join(''))
    const files = readdirSync(dirname(path)).map(name => join(dirname(path), name))
    const { exitCode, findings, problems } = await verifyFiles(files, { publicKeys: [publicKey], ...options })
    return { exitCode, text: findings.join('\n'), what: problems.map(({ what }) => what).join('\n'), problems }
  }
  return { dir, path, serviceLog, run, verdict, excerpt, publicKey, log }
}

t.test('each checkpoint is in the service\'s log, and vouches for the end of each run', async t => {
  const { path, run, verdict, serviceLog } = setUp(t)
  await run(3)
  const { sequence } = recordsOf(path).at(-1)!
  await run(3)
  const lines = readFileSync(path, 'utf8').split('\n')
  const heads = serviceLog.map(line => JSON.parse(line))
  t.match(heads.at(-1), { level: 30, msg: 'the audit log was sealed', head: lines.at(-2) })
  const { exitCode, text } = await verdict()
  t.equal(exitCode, 0, text)
  t.match(text, /The head of ".+" in .+service\.log vouches that record \d+ was the last/)
  t.match(text, /\d heads vouch for the records up to \d+\./)
  t.match(
    (await verdict(serviceLog.filter(line => JSON.parse(JSON.parse(line).head).sequence < sequence))).text,
    `nothing outside the files vouches that no other came after record ${sequence}`
  )
  const prefixed = serviceLog.map(line => `2026-11-27T18:00:00Z stderr F ${line}`)
  t.match((await verdict(['{"other":"line"}\n', ...prefixed])).text, 'heads vouch', 'as a container runtime keeps it')
})

t.test('records that are gone are found by the heads', async t => {
  t.test('an older copy that was continued', async t => {
    const { dir, path, run, verdict } = setUp(t)
    await run(3)
    copyFileSync(path, join(dir, 'copy'))
    const { sequence } = recordsOf(path).at(-1)!
    await run(30)
    copyFileSync(join(dir, 'copy'), path)
    t.match(await verdict(), { exitCode: 1, what: /^the log ends with record \d+, but .* \d+ records are missing$/ })
    await run(40)
    const verdictNow = await verdict()
    t.match(verdictNow, { exitCode: 1, what: /the log was set back to an earlier end and continued from there/ })
    t.ok(Number(verdictNow.problems[0]?.line) > sequence)
  })

  t.test('a file that was cut off at a checkpoint', async t => {
    const { path, run, verdict } = setUp(t)
    await run(1_010)
    const lines = readFileSync(path, 'utf8').split('\n')
    const at = recordsOf(path).findLastIndex(({ event, ends_run: ends }) => event === 'checkpoint' && ends !== true)
    truncateSync(path, Buffer.byteLength(lines.slice(0, at + 1).join('\n')) + 1)
    await run(3)
    await run(20)
    t.match(await verdict(), { exitCode: 1 })
  })

  t.test('the current file, with a rotated one left', async t => {
    const { path, run, verdict } = setUp(t)
    await run(30, { maxBytes: 10_000 })
    rmSync(path)
    t.match(await verdict(), { exitCode: 1, what: /records are missing/ }, 'also when it was only left out')
    await run(40)
    t.match(await verdict(), { exitCode: 1, what: /set back/ })
  })

  t.test('the whole log', async t => {
    const { path, run, verdict } = setUp(t)
    await run(30)
    rmSync(path)
    await run(40)
    t.match(await verdict(), { exitCode: 1, what: /of another log in the same place, written by the same instance/ })
  })
})

t.test('heads of other logs alone vouch for nothing', async t => {
  const { dir, path, run, verdict, serviceLog } = setUp(t)
  await run(3)
  const genuine = [...serviceLog]
  const { log } = recordsOf(path)[0]!
  serviceLog.length = 0
  await run(3, {}, join(dir, 'other.jsonl'))
  const { log: other } = recordsOf(join(dir, 'other.jsonl'))[0]!
  const { exitCode, text } = await verdict()
  t.equal(exitCode, 2, text)
  t.match(text, `cannot be compared with the heads: none of them is about this log, ${log}`)
  t.match(text, new RegExp(`2 heads are about log ${other}, written by ".+", up to record \\d+, in .+service\\.log`))
  t.notMatch(text, 'intact')
  t.match(await verdict([...genuine, ...serviceLog]), { exitCode: 0 }, 'beside heads of this log')

  const chain = await buildAudit(t, { auditSinks: [{ kind: 'file', path: join(dir, 'unsigned.jsonl') }] })
  await chain.close()
  const unsigned = readFileSync(join(dir, 'unsigned.jsonl'), 'utf8').split('\n').map(line => `${line}\n`)
  t.match(await verdict(unsigned), { exitCode: 2, text: /none of them is about this log/ }, 'heads that do not count')
})

t.test('a file that was removed while the service was writing to it is missing', async t => {
  const { dir, path, log, verdict, serviceLog, run } = setUp(t)
  await run(0)
  const key = createPrivateKey(readFileSync(join(dir, 'audit.key'), 'utf8'))
  const moved = join(dir, 'moved')
  for (
    const [what, damage, how] of [
      ['removed', () => renameSync(path, moved), /^records 1 to 7 are missing: .* file 1, which was moved or/],
      ['altered', () => appendFileSync(path, 'junk'), /file 1, which was altered .* set aside as "audit\.jsonl\.alt/],
    ] as const
  ) {
    rmSync(dirname(path), { recursive: true })
    serviceLog.length = 0
    const sink = new Sink(new FileMedium(path), { key, log })
    for (let written = 0; written < 5; written++) await sink.write(body(), false)
    damage()
    await sink.write(body(), false)
    await sink.close()
    for (const name of readdirSync(dirname(path))) {
      if (name.includes('.altered-')) renameSync(join(dirname(path), name), moved)
    }
    t.match(await verdict([], {}), { exitCode: 1, what: how, problems: [{ path, line: 2 }] }, what)
    t.match(await verdict(), { exitCode: 1, what: how }, `${what}, with heads`)
    t.match(await verdict([], { fromFile: 2 }), { exitCode: 0 }, `${what} on purpose`)
    t.match(await verdict([], { fromFile: 1 }), { exitCode: 1, what: /records up to 7 are missing/ })

    // The operator kept the file, or removed what was added to it.
    writeFileSync(join(dirname(path), 'kept'), readFileSync(moved, 'utf8').replace('junk', ''))
    t.match(await verdict(), { exitCode: 0 }, `${what}, and kept`)
  }
})

t.test('heads that vouch for records before the first file show which are missing', async t => {
  const { path, run, verdict, serviceLog } = setUp(t)
  await run(30, { maxBytes: 10_000 })
  const [oldest = '', next = ''] = readdirSync(dirname(path)).filter(name => name !== 'audit.jsonl').sort()
  const { sequence: last } = recordsOf(join(dirname(path), oldest)).at(-1)!
  t.not(next, '', 'two rotated files')
  rmSync(join(dirname(path), oldest))
  t.match(await verdict([], {}), { exitCode: 0, text: 'earlier files were not given' }, 'retention, without heads')
  t.match(await verdict(), {
    exitCode: 1,
    what: new RegExp(`^records 1 to ${last} are missing: .* begins with file 2, .*or --from-file 2 if they were`),
  })
  const options = { headFiles: [join(dirname(dirname(path)), 'service.log')] }
  t.match(await verdict(serviceLog, { ...options, fromFile: 2 }), {
    exitCode: 0,
    text: `heads are about records 1 to ${last}, before the files that were given`,
  })
  t.match(await verdict(serviceLog, { ...options, fromFile: 1 }), { exitCode: 1, what: /expected from file 1 on/ })
  rmSync(join(dirname(path), next))
  t.match(await verdict(serviceLog, { ...options, fromFile: 2 }), { exitCode: 1, what: /expected from file 2 on/ })
})

t.test('a log that is open, or ended in a crash, is not called incomplete', async t => {
  const { dir, path, run, verdict, serviceLog } = setUp(t)
  await run(1_010)
  const lines = readFileSync(path, 'utf8').split('\n')
  // Without the last checkpoint and its head, as a crash leaves it.
  serviceLog.pop()
  writeFileSync(path, `${lines.slice(0, -2).join('\n')}\n`)
  t.match(await verdict(), { exitCode: 0, text: /and for none of the 10 after it/ })
  await run(3)
  t.match(await verdict(), { exitCode: 0, text: /has no closing record.*vouches for the records up to/ })
  t.ok(dir)
})

t.test('heads that cannot vouch for the log are left out, and said to be', async t => {
  const { dir, path, run, verdict, serviceLog, excerpt, log } = setUp(t)
  await run(3)
  const genuine = [...serviceLog]
  serviceLog.length = 0
  await run(3, {}, join(dir, 'other.jsonl'))
  t.match(await verdict([...genuine, ...serviceLog]), { exitCode: 0, text: /heads are about 1 other logs/ })
  const forger = createPrivateKey(readFileSync(signingKey(dir, 'forger').keyFile, 'utf8'))
  copyFileSync(path, join(dir, 'forged'))
  serviceLog.length = 0
  const sink = new Sink(new FileMedium(join(dir, 'forged')), { key: forger, log })
  await sink.write(body(), false)
  await sink.close()
  t.match(await verdict([...genuine, ...serviceLog]), { exitCode: 0, text: /skipped: .* is not signed with a/ })
  const changed = serviceLog.map(line => line.replace('\\"sequence\\":', '\\"sequence\\":9'))
  t.match(await verdict([...genuine, ...changed]), { exitCode: 0, text: /skipped: the checkpoint was changed/ })
  t.match(await verdict(['no heads']), { exitCode: 2, text: `${excerpt}: there is no head in it` })
  t.match(await verifyFiles([path], { headFiles: [join(dir, 'missing')] }), { exitCode: 2 })
})

t.test('a collector receives each head of the audit file, and vouches for it', async t => {
  const dir = t.testdir()
  const { keyFile, publicKey } = signingKey(dir)
  const path = join(dir, 'audit.jsonl')
  const received: string[] = []
  const collector = await startAuditCollector(t, (_, body, response) => {
    received.push(body)
    response.end()
  })
  const verdict = async () => {
    const excerpt = join(dir, 'collector.ndjson')
    writeFileSync(excerpt, received.join(''))
    const { exitCode, findings } = await verifyFiles([path], { publicKeys: [publicKey], headFiles: [excerpt] })
    return { exitCode, text: findings.join('\n') }
  }
  const run = async () => {
    const app = await buildAudit(t, {
      auditSinks: [{ kind: 'http', url: collector }, { kind: 'file', path }],
      auditSigningKeyFile: keyFile,
    })
    await app.audit.record(entry())
    await app.close()
  }
  await run()
  const { size } = statSync(path)
  await run()
  const heads = received.join('').trim().split('\n').map(line => JSON.parse(line)).filter(({ event }) =>
    event === 'file_head'
  )
  const checkpoints = readFileSync(path, 'utf8').trim().split('\n').filter(line => line.startsWith('{"checkpoint"'))
  t.strictSame(heads.map(({ head }) => head), checkpoints, 'including the closing one of each run')
  t.match(await verdict(), { exitCode: 0, text: /vouches that record \d+ was the last[^]*4 heads vouch for the rec/ })
  truncateSync(path, size)
  t.match(await verdict(), { exitCode: 1, text: /records are missing/ })
  rmSync(path)
  await run()
  t.match(await verdict(), { exitCode: 1, text: /of another log in the same place/ })
})

t.test('a collector that does not answer holds up neither the audit file nor its heads', async t => {
  const dir = t.testdir()
  const collector = await startAuditCollector(t, (_, __, response) => { response.writeHead(500).end() })
  const path = join(dir, 'audit.jsonl')
  const app = await buildAudit(t, {
    auditSinks: [{ kind: 'http', url: collector }, { kind: 'file', path }],
    auditHeadFile: join(dir, 'heads', 'head'),
  })
  await app.audit.record(entry())
  await app.close()
  const last = readFileSync(path, 'utf8').trim().split('\n').at(-1)
  t.equal(readFileSync(join(dir, 'heads', 'head'), 'utf8'), `${last}\n`)
})
