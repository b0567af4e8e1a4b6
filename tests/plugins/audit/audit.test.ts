import { once } from 'node:events'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { canonical, sha256 } from '../../../plugins/audit/chain.ts'
import type { AuditEntry, LogRecord } from '../../../plugins/audit/record.ts'
import { FileMedium } from '../../../plugins/audit/sinks/file.ts'
import { verifyFiles } from '../../../plugins/audit/verify/index.ts'
import {
  auditApp,
  type AuditConfig,
  buildAudit,
  entry,
  events,
  recordsOf,
  signingKey,
  startAuditCollector,
  startService,
} from '../../support/audit.ts'
import { authority, clientOf } from '../../support/authorization.ts'
import { scaled } from '../../support/run.ts'
import { buildTestApp } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** An app that records to a file of its own. */
async function buildWithFile (t: Test, config: Partial<AuditConfig> = {}, dir = t.testdir()) {
  const folder = join(dir, 'log')
  const path = join(folder, 'audit.jsonl')
  return { app: await buildAudit(t, { auditSinks: [{ kind: 'file', path }], ...config }), folder, path }
}

const last = (path: string) => recordsOf(path).at(-1) as LogRecord

t.test('a record has every field, and no other', async t => {
  const { app, path } = await buildWithFile(t)
  const given: AuditEntry = {
    event: 'tool_call',
    who: {
      subject: 'alice',
      issuer: 'https://id.example',
      client_id: 'agent',
      roles: ['observer', 'auditor'],
      method: 'oidc',
      token_id: 'jti-1',
      client_certificate: 'CN=agent',
    },
    what: {
      tool: 'create_topics',
      operation: 'apply',
      arguments: { topics: [{ name: 'orders', partitions: 3 }] },
      resources: { topics: ['orders'], groups: ['g'] },
    },
    when: { received: '2026-07-28T12:00:00.000Z', finished: '2026-07-28T12:00:00.012Z', duration_ms: 12.3456789 },
    where: {
      remote_address: '10.0.0.1',
      user_agent: 'agent/1',
      mcp_client: 'agent 1',
      request_id: 'req-1',
      trace_id: '0af7651916cd43dd8448eb211c80319c',
    },
    decision: 'allowed',
    rule: 'roles.writer.allow[0]',
    outcome: 'error',
    error_code: 'INTERNAL',
    result: { bytes: 100, sha256: 'ab'.repeat(32) },
    diff: { before: null, after: { partitions: 3 } },
    warning: 'something else',
  }
  await app.audit.record(given)
  const before = readFileSync(path, 'utf8').split('\n').at(-3) ?? ''
  const record = last(path)
  t.match(record.time, TIME)
  t.strictSame(record, {
    ...given,
    when: { ...given.when, duration_ms: 12.346 },
    where: { ...given.where, replica: hostname() },
    schema: 1,
    sequence: 4,
    prev: sha256(before),
    time: record.time,
  })
})

t.test('start and stop are recorded, and so is a missing signing key', async t => {
  const { app, path } = await buildWithFile(t)
  await app.close()
  t.strictSame(events(path), ['header', 'start', 'stop', 'checkpoint'])
  t.match(recordsOf(path)[2], { event: 'start', warning: /not signed/, outcome: 'ok', who: null, what: null })
})

t.test('a signing key signs the checkpoints', async t => {
  const dir = t.testdir()
  const { keyFile, publicKey } = signingKey(dir)
  const { app, path } = await buildWithFile(t, { auditSigningKeyFile: keyFile }, dir)
  await app.close()
  t.equal(recordsOf(path)[2]?.warning, null)
  const { exitCode, findings } = await verifyFiles([path], { publicKeys: [publicKey] })
  t.equal(exitCode, 0, findings.join('\n'))
})

t.test('the service does not start with a key other than Ed25519', async t => {
  const dir = t.testdir({ none: 'no key' })
  for (const file of [join(dir, 'none'), join(dir, 'missing'), signingKey(dir).publicKeyFile]) {
    const app = auditApp({ auditSinks: [{ kind: 'none' }], auditSigningKeyFile: file })
    await t.rejects(async () => await app.ready(), {
      name: 'ConfigError',
      message:
        /^KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE is .*: expected a file with an unencrypted Ed25519 private key in PEM$/,
    })
  }
})

t.test('secrets are removed from arguments and diffs, and large values are replaced by digests', async t => {
  const { app, path } = await buildWithFile(t, { auditRedact: ['card'] })
  const names = Array.from({ length: 2_000 }, (_, index) => `topic-${index}`)
  await app.audit.record(entry({
    what: {
      tool: 'x',
      operation: 'observe',
      arguments: { password: 'hidden', card_number: 'hidden', names },
      resources: { topics: names },
    },
    diff: [{ name: 'sasl.jaas.config', before: 'hidden', after: 'hidden' }],
  }))
  t.notMatch(readFileSync(path, 'utf8'), 'hidden')
  const digest = { bytes: canonical(names).length, sha256: sha256(canonical(names)) }
  t.strictSame(last(path).what, {
    tool: 'x',
    operation: 'observe',
    arguments: { password: '[redacted]', card_number: '[redacted]', names: digest },
    resources: { topics: digest },
  })
  t.strictSame(last(path).diff, [{ name: 'sasl.jaas.config', before: '[redacted]', after: '[redacted]' }])
  await app.audit.record(entry({ where: { ...entry().where, user_agent: 'x'.repeat(10_000) } }))
  t.match(last(path).where?.user_agent, { bytes: 10_002 })
})

t.test('when no sink accepts a record, the call is refused; with AUDIT_FAIL_MODE=open, only a mutation is', async t => {
  for (const mode of ['closed', 'open'] as const) {
    const { app, path, folder } = await buildWithFile(t, { auditFailMode: mode })
    t.strictSame(app.audit.state, {
      state: 'ok',
      lost: 0,
      sinks: [{ kind: 'file', state: 'ok', written: 1, missed: 0, gaps: 0 }],
    })
    renameSync(folder, `${folder}-gone`)
    await t.rejects(
      app.audit.recordDurably(entry()),
      { code: 'AUDIT_UNAVAILABLE', statusCode: 503 },
      `${mode}: a mutation`
    )
    if (mode === 'closed') await t.rejects(app.audit.record(entry()), { code: 'AUDIT_UNAVAILABLE' }, 'closed: a read')
    else await t.resolves(app.audit.record(entry()), 'open: a read')
    t.match(app.audit.state, { state: 'unavailable', lost: 2, sinks: [{ state: 'failed', missed: 2 }] })
    renameSync(`${folder}-gone`, folder)
    await t.resolves(app.audit.recordDurably(entry()))
    t.match(app.audit.state, { state: 'ok', lost: 2 })
    t.match(recordsOf(path).at(-2), { event: 'gap', gap: { records: 2 } })
    await app.close()
    t.equal((await verifyFiles([path])).exitCode, 0)
  }
})

t.test('one working sink is enough, and each sink has a chain of its own', async t => {
  const paths = ['a', 'b'].map(name => join(t.testdir(), name, 'audit.jsonl')) as [string, string]
  const app = await buildAudit(t, { auditSinks: paths.map(path => ({ kind: 'file' as const, path })) })
  await app.audit.recordDurably(entry())
  renameSync(join(paths[0], '..'), `${join(paths[0], '..')}-gone`)
  await t.resolves(app.audit.record(entry()))
  await t.resolves(app.audit.recordDurably(entry()))
  t.match(app.audit.state, {
    state: 'degraded',
    lost: 0,
    sinks: [{ state: 'failed', missed: 2 }, { state: 'ok', missed: 0 }],
  })
  renameSync(`${join(paths[0], '..')}-gone`, join(paths[0], '..'))
  await app.close()
  t.strictSame(events(paths[0]), ['header', 'start', 'tool_call', 'gap', 'stop', 'checkpoint'])
  t.strictSame(events(paths[1]), ['header', 'start', 'tool_call', 'tool_call', 'tool_call', 'stop', 'checkpoint'])
  for (const path of paths) t.equal((await verifyFiles([path])).exitCode, 0)
})

t.test('a record that only standard output has accepted is not durable', async t => {
  const folder = join(t.testdir(), 'log')
  const service = startService(t, {
    auditSinks: [{ kind: 'stdout' }, { kind: 'file', path: join(folder, 'audit.jsonl') }],
    auditFailMode: 'open',
  })
  service.stdout?.resume()
  const outcomes = new Map<string, string>()
  createInterface({ input: service.stdio[3] as NodeJS.ReadableStream }).on('line', line => {
    const [id = '', outcome = ''] = line.split(' ')
    outcomes.set(id, outcome)
  })
  const outcomeOf = async (id: string, line: string) => {
    service.stdin?.write(`${line}\n`)
    await waitFor(() => outcomes.has(id), 10_000, id)
    return outcomes.get(id)
  }
  await waitFor(() => outcomes.has('ready'), 10_000, 'a start')
  t.equal(await outcomeOf('a', 'durable a'), 'ok')
  renameSync(folder, `${folder}-gone`)
  t.equal(await outcomeOf('b', 'durable b'), 'AUDIT_UNAVAILABLE', 'a change is refused')
  t.equal(await outcomeOf('c', 'c'), 'ok', 'a read is answered')
  service.stdin?.end()
  await once(service, 'close')
})

t.test('a mutation waits until its intent is durable in all files', async t => {
  const dir = t.testdir()
  const app = await buildAudit(t, {
    auditSinks: ['a', 'b'].map(name => ({ kind: 'file' as const, path: join(dir, name) })),
  })
  await app.audit.recordDurably(entry()) // leaves nothing to sync
  const slow = Promise.withResolvers<void>()
  let syncs = 0
  const sync = mock.method(FileMedium.prototype, 'sync', async () => { if (++syncs === 2) await slow.promise })
  t.teardown(() => sync.mock.restore())
  let durable = false
  const recorded = app.audit.recordDurably(entry({ event: 'intent' })).then(() => { durable = true })
  await waitFor(() => syncs === 2 || syncs, 2_000, 'both fsyncs')
  await app.audit.record(entry())
  t.notOk(durable)
  slow.resolve()
  await recorded
})

t.test('the sink `none` accepts everything and keeps nothing', async t => {
  const app = await buildAudit(t, { auditSinks: [{ kind: 'none' }] })
  await t.resolves(app.audit.record(entry()))
  await t.resolves(app.audit.recordDurably(entry()))
  t.strictSame(app.audit.state, { state: 'ok', lost: 0, sinks: [] })
})

t.test('a redacted argument does not appear among the resources either', async t => {
  const { env, token, recorded } = await authority(t)
  for (const redact of ['group_id', 'GROUP-ID', 'group']) {
    const app = await buildTestApp(t, { ...env, KAFSCALE_MCP_AUDIT_REDACT: redact })
    await clientOf(app, await token('alice')).call('describe_group', { group_id: 'hush-hush' })
    t.match(recorded('tool_call').at(-1)?.what, {
      tool: 'describe_group',
      arguments: { group_id: '[redacted]' },
      resources: {},
    }, redact)
    t.notOk(JSON.stringify(recorded('tool_call').at(-1)?.what).includes('hush-hush'))
    await app.close()
  }
})

t.test('failed sign-ins are recorded, and only counted when there are many', async t => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const { app, path } = await buildWithFile(t)
  const failure = (number: number) =>
    entry({
      event: 'authentication_failure',
      who: null,
      what: null,
      outcome: 'denied',
      error_code: 'UNAUTHENTICATED',
      where: { ...entry().where, remote_address: '10.0.0.1', request_id: `req-${number}` },
    })
  const failures = () => recordsOf(path).filter(({ event }) => event === 'authentication_failure')
  for (let number = 1; number <= 100; number++) await app.audit.authenticationFailure(failure(number))
  t.equal(failures().length, 20)
  mock.timers.tick(10_000)
  await waitFor(() => failures().length === 21 || failures().length, 2_000, 'the count')
  t.match(failures().at(-1), {
    count: 80,
    warning: /^80 failures within 10 s/,
    where: { remote_address: '10.0.0.1', request_id: 'req-100' },
  })
  await app.audit.authenticationFailure(failure(1))
  t.match(failures().at(-1), { where: { request_id: 'req-1' } }, 'the next interval starts from zero')
  t.notOk('count' in (failures().at(-1) as object))
  for (let number = 1; number <= 30; number++) await app.audit.authenticationFailure(failure(number))
  await app.close()
  t.match(failures().at(-1), { count: 11 }, 'a close records those counted so far')
  t.equal(failures().reduce((sum, { count = 1 }) => sum + count, 0), 131)
})

t.test('recording a failed sign-in never fails', async t => {
  const { app, folder } = await buildWithFile(t)
  renameSync(folder, `${folder}-gone`)
  await t.resolves(app.audit.authenticationFailure(entry({ event: 'authentication_failure' })))
  t.equal(app.audit.state.lost, 1)
  renameSync(`${folder}-gone`, folder)
})

t.test('stdout has one JSON object per line and nothing else; logs go to stderr', async t => {
  const path = join(t.testdir(), 'stdout.jsonl')
  const running = startService(t, { auditSinks: [{ kind: 'stdout' }], logLevel: 'info' })
  running.stderr?.resume()
  const output: Buffer[] = []
  running.stdout?.on('data', chunk => output.push(chunk))
  running.stdin?.end(Array.from({ length: 100 }, (_, id) => `${id}\n`).join(''))
  await once(running, 'close')
  writeFileSync(path, Buffer.concat(output))
  t.strictSame(events(path), [
    'header',
    'start',
    ...Array.from({ length: 100 }, () => 'tool_call'),
    'stop',
    'checkpoint',
  ])
  t.equal((await verifyFiles([path])).exitCode, 0)
})

t.test('records on stdout that nobody reads delay no call for long', async t => {
  const service = startService(t, { auditSinks: [{ kind: 'stdout' }] })
  service.stdout?.pause()
  const outcomes = new Map<string, number>()
  createInterface({ input: service.stdio[3] as NodeJS.ReadableStream }).on('line', line => {
    const outcome = line.split(' ')[1] ?? 'ready'
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  })
  await waitFor(() => outcomes.has('ready'), 10_000, 'a start')
  service.stdin?.write(Array.from({ length: 2_000 }, (_, id) => `${id}\n`).join(''))
  await waitFor(
    () => (outcomes.get('ok') ?? 0) + (outcomes.get('AUDIT_UNAVAILABLE') ?? 0) === 2_000 || outcomes,
    10_000,
    'answers'
  )
  t.ok((outcomes.get('AUDIT_UNAVAILABLE') ?? 0) > 0)
  const output: Buffer[] = []
  service.stdout?.on('data', chunk => output.push(chunk)).resume()
  service.stdin?.end()
  await once(service, 'close')
  const path = join(t.testdir(), 'stdout.jsonl')
  writeFileSync(path, Buffer.concat(output))
  t.equal(events(path).filter(event => event === 'tool_call').length, 2_000, 'refused records arrive nevertheless')
  t.equal((await verifyFiles([path])).exitCode, 0)
})

t.test('a collector gets batches, and a record is accepted once the collector says so', async t => {
  const batches: string[] = []
  let status = 200
  let refused = 0
  const url = await startAuditCollector(t, ({ method, headers }, body, response) => {
    if (method !== 'POST' || headers['content-type'] !== 'application/x-ndjson') status = 400
    if (status === 200) batches.push(body)
    else refused++
    response.writeHead(status).end()
  })
  const app = await buildAudit(t, { auditSinks: [{ kind: 'http', url }] })
  await Promise.all(Array.from({ length: 100 }, () => app.audit.record(entry())))
  t.ok(batches.length <= 3, `${batches.length} batches`)

  status = 503
  const waiting = app.audit.record(entry())
  await waitFor(() => refused > 1 || refused, 2_000, 'a second attempt')
  status = 200
  await t.resolves(waiting, 'the batch is sent until it is accepted')
  await app.close()
  const path = join(t.testdir(), 'collected.jsonl')
  writeFileSync(path, batches.join(''))
  t.equal(events(path).filter(event => event === 'tool_call').length, 101)
  t.equal((await verifyFiles([path])).exitCode, 0)
})

t.test('a slow collector next to a file delays no call; as the only sink it refuses in time', async t => {
  const path = join(t.testdir(), 'audit.jsonl')
  const pending: (() => void)[] = []
  const collected: string[] = []
  const url = await startAuditCollector(t, (_, body, response) => {
    pending.push(() => { collected.push(body); response.writeHead(204).end() })
  })
  const both = await buildAudit(t, { auditSinks: [{ kind: 'file', path }, { kind: 'http', url }] })
  const startedMs = performance.now()
  for (let calls = 0; calls < 50; calls++) await both.audit.record(entry())
  await both.audit.recordDurably(entry())
  t.ok(performance.now() - startedMs < scaled(4_000))

  const alone = auditApp({ auditSinks: [{ kind: 'http', url }] })
  t.teardown(() => alone.close())
  alone.ready(() => {})
  await waitFor(() => pending.length === 2 || pending.length, 2_000, 'a batch from each app')
  await t.rejects(alone.audit.record(entry()), { code: 'AUDIT_UNAVAILABLE' })
  t.match(alone.audit.state, { state: 'unavailable', sinks: [{ reason: 'records were not accepted in time' }] })

  const answering = setInterval(() => { for (const answer of pending.splice(0)) answer() }, 10)
  t.teardown(() => clearInterval(answering))
  await waitFor(() => alone.audit.state.state === 'ok' || alone.audit.state, 5_000, 'a sink that works again')
  await Promise.all([both.close(), alone.close()])
  t.equal(
    collected.join('').split('\n').filter(line => line.includes('"tool_call"')).length,
    52,
    'everything arrived'
  )
  t.equal(both.audit.state.sinks[1]?.missed, 0)
})
