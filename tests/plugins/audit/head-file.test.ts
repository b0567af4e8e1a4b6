/** The file with the newest head finds what somebody with access to the log removed while the service was stopped. */
import { execFile } from 'node:child_process'
import {
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
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { chain, header, sha256 } from '../../../plugins/audit/chain.ts'
import type { LogRecord } from '../../../plugins/audit/record.ts'
import type { ToolResult } from '../../../tools/tool.ts'
import { auditApp, type AuditConfig, entry, recordsOf, signingKey } from '../../support/audit.ts'
import { ROOT } from '../../support/paths.ts'
import { modern, type Service, startService } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

t.jobs = 2 // some of the time is waiting

const WITHIN_MS = 10_000

/** A signed log and its head file, in two folders that stand for two volumes. */
function setUp (t: Test) {
  const dir = t.testdir()
  const { keyFile, publicKeyFile } = signingKey(dir)
  const path = join(dir, 'log', 'audit.jsonl')
  const head = join(dir, 'heads', 'of', 'this', 'replica')
  const start = (more: Record<string, string> = {}) =>
    startService(t, {
      KAFSCALE_MCP_AUDIT_SINKS: `file:${path}`,
      KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE: keyFile,
      KAFSCALE_MCP_AUDIT_HEAD_FILE: head,
      ...more,
    })
  /** An earlier run of the service, with this many calls. */
  async function run (calls = 1, more: Partial<AuditConfig> = {}): Promise<void> {
    const app = auditApp({
      auditSinks: [{ kind: 'file', path }],
      auditSigningKeyFile: keyFile,
      auditHeadFile: head,
      ...more,
    })
    await app.ready()
    for (let made = 0; made < calls; made++) await app.audit.record(entry())
    await app.close()
  }
  const files = () => readdirSync(join(dir, 'log')).map(name => join(dir, 'log', name))
  /** The exit code of `audit verify`, with the head file as it is. */
  const verify = async (paths = files()) =>
    await cli('verify', '--public-key', publicKeyFile, '--heads', head, ...paths)
  return { dir, path, head, start, run, verify, files }
}

async function cli (...args: string[]): Promise<{ code: number, output: string }> {
  return await new Promise(resolve => {
    execFile(process.execPath, [join(ROOT, 'bin/kafscale-mcp.js'), 'audit', ...args], (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), output: stdout + stderr })
    })
  })
}

const acknowledge = async (head: string) =>
  await cli('acknowledge', head, '--by', 'alice', '--reason', 'restored after a disk failure')

/** Calls a tool that needs no metadata. Resolves to the code of the error, or `ok`. */
async function call ({ url }: Service): Promise<string> {
  const { headers, payload } = modern('tools/call', { name: 'explain_access', arguments: {} })
  const response = await fetch(await url, {
    method: 'POST',
    headers: headers as Record<string, string>,
    body: JSON.stringify(payload),
  })
  const { result } = await response.json() as { result: ToolResult }
  return result.isError ? (result._meta?.['kafscale-mcp/error'] as { code: string }).code : 'ok'
}

async function stop (service: Service): Promise<void> {
  await service.url
  service.process.kill('SIGTERM')
  await service.exit
}

async function healthOf ({ url }: Service) {
  const response = await fetch(new URL('/healthz', await url))
  const { dependencies: { audit } } = await response.json() as {
    dependencies: { audit: { state: string, lost: number, head_file: { state: string, reason?: string } } }
  }
  return audit
}

const lastLine = (path: string) => readFileSync(path, 'utf8').trimEnd().split('\n').at(-1)
const ofEvent = (path: string, event: string): LogRecord[] => recordsOf(path).filter(record => record.event === event)

/** The service refuses calls, also after a restart, until an operator acknowledges that. */
async function refused (
  t: Test,
  { path, head, start, verify }: ReturnType<typeof setUp>,
  reason: RegExp,
  { restarts = false } = {}
): Promise<void> {
  const before = existsSync(head) ? readFileSync(head, 'utf8') : undefined
  for (const attempt of restarts ? ['at first', 'after a restart'] : ['at first']) {
    const service = start()
    t.equal(await call(service), 'AUDIT_UNAVAILABLE', attempt)
    t.match(await healthOf(service), { state: 'unavailable', lost: 0, head_file: { state: 'contradiction', reason } })
    t.match(service.output.stderr, /"level":50,.*"reason":".*","msg":"the audit log contradicts its head file"/)
    t.match(ofEvent(path, 'head_check').at(-1), { outcome: 'error', warning: reason })
    t.strictSame(ofEvent(path, 'tool_call').filter(({ when }) => Date.parse(when!.received) >= startedAt(path)), [])
    t.equal(existsSync(head) ? readFileSync(head, 'utf8') : undefined, before, 'the head file stays as it is')
    if (before !== undefined) t.equal((await verify()).code, 1, 'and verify finds what is missing')
    await stop(service)
  }
  const service = start()
  await service.url
  t.match(await acknowledge(head), { code: 0, output: 'The service has taken it' })
  t.equal(await call(service), 'ok')
  t.match(await healthOf(service), { state: 'ok', head_file: { state: 'ok' } })
  t.match(ofEvent(path, 'head_acknowledgement').at(-1), {
    who: { subject: 'alice', method: 'command' },
    warning: /^restored after a disk failure \(acknowledged: /,
  })
  await stop(service)
  t.equal(readFileSync(head, 'utf8'), `${lastLine(path)}\n`)
  t.match((await verify()).output, /"alice" acknowledged that: "restored after/)
}

const startedAt = (path: string) => Date.parse(ofEvent(path, 'start').at(-1)?.time ?? '')

t.test('the newest head is kept, and verify accepts it', async t => {
  const { dir, path, head, run, start, verify } = setUp(t)
  await run()
  t.equal(readFileSync(head, 'utf8'), `${lastLine(path)}\n`)
  t.equal(statSync(head).mode & 0o777, 0o600)
  t.equal(statSync(join(dir, 'heads', 'of')).mode & 0o777, 0o700, 'folders are created')
  t.strictSame(readdirSync(join(head, '..')), ['replica'])
  t.match(ofEvent(path, 'head_check'), [{ outcome: 'ok', warning: /^there was no head file yet/ }])
  await run()
  t.match(ofEvent(path, 'head_check')[1], { outcome: 'ok', warning: null })
  t.match(await verify(), { code: 0, output: /1 heads vouch for the records up to/ })
  const crashed = start()
  t.equal(await call(crashed), 'ok')
  crashed.process.kill('SIGKILL')
  await crashed.exit
  t.equal((await verify()).code, 0, 'a crash is not a contradiction')
  await run()
  t.equal((await verify()).code, 0)
})

t.test('with the service down and without the key', async t => {
  t.test('an older copy that ends with a checkpoint is put back', async t => {
    const given = setUp(t)
    const { dir, path, run } = given
    await run()
    copyFileSync(path, join(dir, 'copy'))
    await run(30)
    copyFileSync(join(dir, 'copy'), path)
    await refused(t, given, /^the log ends with record \d+, but the head of .* vouches for record \d+: \d+ records/, {
      restarts: true,
    })
  })

  t.test('an older copy is put back and continued for longer than before, without the head file', async t => {
    const given = setUp(t)
    const { dir, path, run } = given
    await run()
    copyFileSync(path, join(dir, 'copy'))
    await run()
    copyFileSync(join(dir, 'copy'), path)
    await run(20, { auditHeadFile: undefined })
    await refused(t, given, /but another record \d+ is in the log: it was changed, or set back and continued/)
  })

  t.test('the file is cut off at a checkpoint', async t => {
    const given = setUp(t)
    const { path, run } = given
    await run()
    const { size } = statSync(path)
    await run(3)
    truncateSync(path, size)
    await refused(t, given, /records are missing/)
  })

  t.test('the current file is deleted, and a rotated one kept', async t => {
    const given = setUp(t)
    const { path, run, verify } = given
    await run()
    renameSync(path, `${path}.2026-07-28.000001`)
    await run(2)
    t.equal((await verify()).code, 0)
    t.equal((await verify([`${path}.2026-07-28.000001`])).code, 1, 'verify also finds that the newest file is left out')
    rmSync(path)
    await refused(t, given, /^the log ends with record \d+, but/)
  })

  t.test('only the forged beginning of the next file is left', async t => {
    const given = setUp(t)
    const { path, run } = given
    await run()
    const { log, sequence } = recordsOf(path).at(-1)!
    const hash = sha256(lastLine(path)!)
    const end = { hash, sequence }
    const forged = chain(end, { ...header(2, end, String(log)), time: new Date().toISOString() }).line
    writeFileSync(path, `${forged}\n`)
    const service = given.start()
    t.equal(await call(service), 'AUDIT_UNAVAILABLE')
    t.match((await healthOf(service)).head_file.reason, /but the file that contains it is missing$/)
  })

  t.test('the log is deleted', async t => {
    const given = setUp(t)
    const { path, run } = given
    await run(2)
    rmSync(path)
    await refused(t, given, /but there is no log/)
  })

  t.test('the log of another place is put there', async t => {
    const given = setUp(t)
    const { dir, path, run } = given
    await run()
    const other = join(dir, 'other.jsonl')
    await run(5, { auditSinks: [{ kind: 'file', path: other }], auditHeadFile: undefined })
    copyFileSync(other, path)
    const service = given.start()
    t.equal(await call(service), 'AUDIT_UNAVAILABLE')
    t.match((await healthOf(service)).head_file.reason, /of another log than the one that is there/)
  })

  t.test('the log is rewritten, and signed with another key', async t => {
    const given = setUp(t)
    const { dir, run, path, head } = given
    await run()
    rmSync(path)
    rmSync(head)
    await run(3, { auditSigningKeyFile: signingKey(dir, 'forger').keyFile })
    const service = given.start()
    t.equal(await call(service), 'AUDIT_UNAVAILABLE')
    t.match((await healthOf(service)).head_file.reason, /is not signed with a trusted key/)
  })
})

t.test('the head file is removed or changed', async t => {
  t.test('removed: the log states that there was one', async t => {
    const given = setUp(t)
    await given.run()
    await given.run()
    rmSync(given.head)
    await refused(t, given, /^the head file is missing, but the log states that there was one$/)
  })

  const changes = { emptied: () => '', changed: (text: string) => text.replace('"closing":true', '"closing":false') }
  for (const [what, change] of Object.entries(changes)) {
    t.test(what, async t => {
      const { head, run, start } = setUp(t)
      await run()
      writeFileSync(head, change(readFileSync(head, 'utf8')))
      const service = start()
      t.equal(await call(service), 'AUDIT_UNAVAILABLE')
      t.match((await healthOf(service)).head_file.reason, /^the head file (?:is empty|does not fit)/)
    })
  }

  t.test('a log that had no head file before is not a contradiction', async t => {
    const { path, head, run } = setUp(t)
    await run(1, { auditHeadFile: undefined })
    await run()
    t.match(ofEvent(path, 'head_check'), [{ outcome: 'ok', warning: /^there was no head file yet: nothing outside/ }])
    t.ok(existsSync(head))
  })
})

t.test('in the mode open, calls are answered, and the contradiction stays visible', async t => {
  const { dir, path, head, run, start } = setUp(t)
  await run()
  copyFileSync(path, join(dir, 'copy'))
  await run(3)
  copyFileSync(join(dir, 'copy'), path)
  const before = readFileSync(head, 'utf8')
  const service = start({ KAFSCALE_MCP_AUDIT_FAIL_MODE: 'open' })
  t.equal(await call(service), 'ok')
  t.match(await healthOf(service), { state: 'degraded', head_file: { state: 'contradiction' } })
  await stop(service)
  t.equal(readFileSync(head, 'utf8'), before)
})

t.test('an acknowledgement', async t => {
  t.test('of a stopped service is recorded at its next start', async t => {
    const { path, head, run, start } = setUp(t)
    await run(3)
    rmSync(path)
    t.match(await acknowledge(head), { code: 0, output: 'the next start records it' })
    const service = start()
    t.equal(await call(service), 'ok')
    t.match(recordsOf(path).map(({ event }) => event).filter(event => event.startsWith('head_')), [
      'head_check',
      'head_acknowledgement',
    ])
    await waitFor(() => !existsSync(`${head}.acknowledged`), WITHIN_MS, 'the acknowledgement is used up')
    await stop(service)
  })

  t.test('is about one contradiction only', async t => {
    const { path, head, run, start } = setUp(t)
    await run()
    await acknowledge(head)
    await run()
    t.notOk(existsSync(`${head}.acknowledged`), 'without a contradiction, it is removed')
    await acknowledge(head)
    const saved = readFileSync(`${head}.acknowledged`)
    await run()
    rmSync(path)
    writeFileSync(`${head}.acknowledged`, saved)
    const service = start()
    t.equal(await call(service), 'AUDIT_UNAVAILABLE')
    t.match(service.output.stderr, 'an acknowledgement is about another head file, and was removed')
    t.notOk(existsSync(`${head}.acknowledged`))
  })

  t.test('needs a name and a reason', async t => {
    const { head, run } = setUp(t)
    await run()
    for (const args of [[], [head], [head, '--by', 'alice'], [head, '--by', ' ', '--reason', 'x'], [head, head]]) {
      t.match(await cli('acknowledge', ...args), { code: 2, output: /Usage/ })
    }
    t.notOk(existsSync(`${head}.acknowledged`))
  })
})

t.test('what is not a head file is left alone', async t => {
  t.test('a foreign file, until it is moved away', async t => {
    const { head, start } = setUp(t)
    mkdirSync(join(head, '..'), { recursive: true })
    writeFileSync(head, 'root:x:0:0\n', { mode: 0o644 })
    const service = start()
    t.equal(await call(service), 'AUDIT_UNAVAILABLE')
    t.match((await healthOf(service)).head_file, { reason: /is not a head: move it away/ })
    t.match(await acknowledge(head), { code: 2, output: 'move it away' }, 'nobody can acknowledge that')
    t.equal(readFileSync(head, 'utf8'), 'root:x:0:0\n')
    t.equal(statSync(head).mode & 0o777, 0o644)
    rmSync(head)
    await waitFor(async () => await call(service) === 'ok', WITHIN_MS, 'calls are answered')
    await stop(service)
    t.ok(existsSync(head))
  })

  t.test('a symbolic link, to a head or to nothing', async t => {
    for (const target of ['genuine', 'missing']) {
      const { dir, head, run, start } = setUp(t)
      await run()
      const genuine = readFileSync(head, 'utf8')
      renameSync(head, join(dir, 'genuine'))
      symlinkSync(join(dir, target), head)
      const service = start()
      t.equal(await call(service), 'AUDIT_UNAVAILABLE')
      t.match((await healthOf(service)).head_file, { reason: /symbolic link.*in KAFSCALE_MCP_AUDIT_HEAD_FILE/ })
      await stop(service)
      t.equal(readFileSync(join(dir, 'genuine'), 'utf8'), genuine)
      t.notOk(existsSync(join(dir, 'missing')))
      rmSync(dir, { recursive: true })
      mkdirSync(dir)
    }
  })
})

t.test('a head that cannot be kept shows in the log and in /healthz, and calls are answered', async t => {
  const { head, run, start } = setUp(t)
  await run()
  const service = start()
  t.equal(await call(service), 'ok')
  const folder = join(head, '..')
  renameSync(folder, `${folder}-gone`)
  writeFileSync(folder, 'in the way')
  await stop(service)
  t.match(service.output.stderr, /"level":50,.*"msg":"the head of the audit log cannot be kept"/)
  const next = start()
  t.equal(await call(next), 'AUDIT_UNAVAILABLE', 'what cannot be compared is not trusted')
  t.match((await healthOf(next)).head_file, { reason: 'the log cannot be compared with its head file: open: ENOTDIR' })
  rmSync(folder)
  renameSync(`${folder}-gone`, folder)
  await waitFor(async () => await call(next) === 'ok', WITHIN_MS, 'the volume is back')
})
