/** The metrics for Prometheus, and their listener. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Unauthenticated, Unverifiable } from '../../../errors.ts'
import packageJson from '../../../package.json' with { type: 'json' }
import { authenticationFailure } from '../../../plugins/telemetry/authentication-failure.ts'
import { startAuditCollector } from '../../support/audit.ts'
import { needsEtcd, startEtcd } from '../../support/etcd.ts'
import { ROOT } from '../../support/paths.ts'
import { scaled } from '../../support/run.ts'
import {
  buildSyncedApp,
  buildTestApp,
  CALLER,
  callTool,
  caughtUp,
  modern,
  type Service,
  startService,
  tool,
} from '../../support/service.ts'
import { experienced, needsPromtool, promtool, samples } from '../../support/telemetry.ts'
import { waitFor } from '../../support/wait-for.ts'

const ACT_BOUND_MS = 5_000

/** The URL of a service's metrics. */
async function metricsUrl ({ output, url }: Service): Promise<string> {
  await url
  const served = /"url":"([^"]+)","msg":"metrics are served"/
  await waitFor(() => served.test(output.stderr) || output.stderr, ACT_BOUND_MS, 'metrics are served')
  return served.exec(output.stderr)?.[1] ?? ''
}

t.test('a page with every metric', needsEtcd(), async t => {
  const app = await experienced(t)
  const { text: page, contentType } = await app.telemetry.page()
  const sample = (name: string) => samples(page).get(`kafscale_mcp_${name}`)
  t.match(contentType, /^text\/plain; version=0\.0\.4/)

  t.test('passes promtool', needsPromtool(), async t => {
    t.doesNotThrow(() => promtool(['check', 'metrics'], page))
    t.throws(() => promtool(['check', 'metrics'], page.replaceAll('_total', '')), 'promtool finds mistakes')
  })

  t.test('has prefixed names, each with a help text and a row in the runbook', async t => {
    const helped = [...page.matchAll(/^# HELP (\S+) .*\.$/gm)].map(([, name = '']) => name)
    const typed = [...page.matchAll(/^# TYPE (\S+) /gm)].map(([, name = '']) => name)
    t.not(helped.length, 0)
    t.strictSame(helped, typed)
    for (const name of helped) t.match(name, /^kafscale_mcp_[a-z_]+$/)
    const told = [...readFileSync(join(ROOT, 'docs/runbook.md'), 'utf8').matchAll(/^\| `(kafscale_mcp_\w+)` \|/gm)].map(
      ([, name = '']) => name
    )
    t.strictSame(told.sort(), helped.sort())
  })

  t.test('counts calls by outcome', async t => {
    t.equal(sample('tool_calls_total{tool="list_topics",outcome="ok"}'), 1)
    t.equal(
      sample('tool_calls_total{tool="list_topics",outcome="denied"}'),
      2,
      'by the policy, and for want of a scope'
    )
    t.equal(sample('tool_calls_total{tool="describe_group",outcome="error"}'), 1)
    t.equal(
      sample('tool_calls_total{tool="consumer_lag",outcome="ok"}'),
      0,
      'nothing yet is 0, so that the first one is an increase'
    )
    t.equal(sample('tool_errors_total{tool="describe_group",code="INVALID_ARGUMENT"}'), 1)
    t.equal(sample('tool_errors_total{tool="list_topics",code="PERMISSION_DENIED"}'), 1)
    t.equal(sample('tool_errors_total{tool="list_topics",code="INSUFFICIENT_SCOPE"}'), 1)
    t.equal(sample('denied_calls_total{rule="no-role"}'), 1)
    t.equal(sample('denied_calls_total{rule="no-scope"}'), 1)
    t.equal(
      sample('tool_call_duration_seconds_count{tool="list_topics"}'),
      2,
      'what is refused before it begins took no time'
    )
    t.ok((sample('tool_call_duration_seconds_sum{tool="list_topics"}') ?? 0) > 0)
    t.equal(sample('tool_call_duration_seconds_bucket{le="10",tool="list_topics"}'), 2)
    t.equal(sample('tool_calls_in_flight'), 0)
  })

  t.test('counts failed authentications, and responses', async t => {
    t.equal(sample('authentication_failures_total{reason="no_token"}'), 1)
    t.equal(sample('authentication_failures_total{reason="invalid_token"}'), 1)
    t.equal(sample('authentication_failures_total{reason="expired_token"}'), 0)
    t.equal(sample('http_responses_total{route="/mcp",status="401"}'), 2)
    t.equal(sample('http_responses_total{route="/mcp",status="200"}'), 4)
  })

  t.test('covers audit, mirror, brokers, event loop and build', async t => {
    t.equal(sample('audit_sink_up{sink="file"}'), 1)
    t.equal(sample('audit_records_total{sink="file",state="written"}'), app.audit.state.sinks[0]?.written)
    t.ok((app.audit.state.sinks[0]?.written ?? 0) >= 8, 'the start, five calls, two failed sign-ins')
    t.equal(sample('audit_records_total{sink="file",state="missed"}'), 0)
    t.equal(sample('audit_gaps_total{sink="file"}'), 0)
    t.equal(sample('audit_records_lost_total'), 0)
    t.equal(sample('mirror_state{state="synced"}'), 1)
    t.equal(sample('mirror_state{state="stale"}'), 0)
    t.equal(sample('mirror_revision'), app.metadata.mirror?.revision)
    t.ok((sample('mirror_age_seconds') ?? Infinity) < 5)
    t.equal(sample('mirror_resyncs_total'), 0)
    t.ok(
      [...samples(page)].some(([name, value]) =>
        value === 1 && /^kafscale_mcp_broker_scrapes_total\{broker="127\.0\.0\.1:\d+",result="invalid"\}$/.test(name)
      )
    )
    for (const statistic of ['mean', 'p99', 'max']) {
      t.ok(Number.isFinite(sample(`event_loop_delay_seconds{statistic="${statistic}"}`) ?? 0))
    }
    t.equal(sample(`build_info{version="${packageJson.version}",node_version="${process.version}"}`), 1)
  })

  t.test('contains nothing that a caller can choose, and no principals', async t => {
    t.notMatch(page, /no_such_tool|nobody-in-particular|static-token|audit\.jsonl/)
  })
})

t.test('the answers of a collector are counted by status', async t => {
  const statuses = [503, 429]
  const url = await startAuditCollector(t, (_, __, response) => response.writeHead(statuses.shift() ?? 200).end())
  const app = await buildTestApp(t, { KAFSCALE_MCP_AUDIT_SINKS: url })
  await app.ready()
  const page = samples((await app.telemetry.page()).text)
  for (const [status, count] of [[503, 1], [429, 1], [200, 1]]) {
    t.equal(page.get(`kafscale_mcp_audit_collector_answers_total{sink="http",status="${status}"}`), count)
  }
  t.match((await app.inject('/healthz')).json(), {
    dependencies: { audit: { state: 'ok', sinks: [{ kind: 'http', answers: { 200: 1, 429: 1, 503: 1 } }] } },
  })
})

t.test('the delay of the event loop is that since the previous scrape', async t => {
  const app = await buildTestApp(t, { KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0' })
  await app.ready()
  const max = async () =>
    samples((await app.telemetry.page()).text).get('kafscale_mcp_event_loop_delay_seconds{statistic="max"}') ?? 0
  await waitFor(async () => await max() > 0 || 'no sample', ACT_BOUND_MS, 'it is measured')
  let seen = 0
  await waitFor(async () => {
    const untilMs = performance.now() + 300
    await new Promise(resolve => { setTimeout(resolve, 50) })
    while (performance.now() < untilMs);
    await new Promise(resolve => { setTimeout(resolve, 50) })
    seen = await max()
    return seen >= 0.2 || seen
  }, ACT_BOUND_MS, 'it is seen')
  await waitFor(async () => {
    seen = await max()
    return (seen > 0 && seen < 0.2) || seen
  }, ACT_BOUND_MS, 'it is forgotten')
  t.ok(seen < 0.2)
})

t.test('a pending call is in flight', async t => {
  const app = await buildTestApp(t)
  const released = Promise.withResolvers<void>()
  app.tools.declare(tool({
    name: 'wait',
    answer: async () => {
      await released.promise
      throw new Error('which no tool should')
    },
  }))
  await app.ready()
  const inFlight = async () => samples((await app.telemetry.page()).text).get('kafscale_mcp_tool_calls_in_flight')
  const call = app.tools.call('wait', {}, CALLER, new AbortController().signal)
  t.equal(await inFlight(), 1)
  released.resolve()
  t.match(await call, { isError: true })
  t.equal(await inFlight(), 0, 'and is none when it fails')
  t.equal(
    samples((await app.telemetry.page()).text).get('kafscale_mcp_tool_errors_total{tool="wait",code="INTERNAL"}'),
    1
  )
})

t.test('the metrics of the mirror follow etcd, and have no revision before there is one', needsEtcd(), async t => {
  const unsynced = await buildTestApp(t)
  await unsynced.ready()
  const { text } = await unsynced.telemetry.page()
  t.equal(samples(text).get('kafscale_mcp_mirror_state{state="unavailable"}'), 1)
  t.notMatch(text, /^kafscale_mcp_mirror_(?:revision|age_seconds|keys) /m)

  const etcd = await startEtcd(t)
  const app = await buildSyncedApp(t, etcd)
  await etcd.client.put('/kafscale/topics/broken/partitions/0/next_offset').value('many')
  await caughtUp(app, etcd)
  const sample = async (name: string) => samples((await app.telemetry.page()).text).get(`kafscale_mcp_mirror_${name}`)
  t.equal(await sample('events_total'), 1)
  t.equal(await sample('keys'), 1)
  t.equal(await sample('undecodable_values'), 1)
  await etcd.kill()
  await waitFor(async () => await sample('state{state="stale"}') === 1, 10_000, 'stale')
  await etcd.restart()
  await waitFor(async () => await sample('state{state="synced"}') === 1, 10_000, 'synced')
  t.ok((await sample('resyncs_total') ?? 0) >= 1)
})

t.test('a record that no sink accepts is missed and lost', async t => {
  const dir = t.testdir({ taken: 'no audit log\n' })
  const sinks = `file:${dir}/taken,file:${dir}/taken`
  const app = await buildTestApp(t, { KAFSCALE_MCP_AUDIT_SINKS: sinks })
  await app.ready()
  await callTool(app, 'explain_access')
  const page = samples((await app.telemetry.page()).text)
  for (const sink of ['file', 'file-2']) {
    t.equal(page.get(`kafscale_mcp_audit_sink_up{sink="${sink}"}`), 0)
    t.equal(page.get(`kafscale_mcp_audit_records_total{sink="${sink}",state="written"}`), 0)
    t.equal(page.get(`kafscale_mcp_audit_records_total{sink="${sink}",state="missed"}`), 2, 'the start and the call')
  }
  t.equal(page.get('kafscale_mcp_audit_records_lost_total'), 2)
  t.equal(page.get('kafscale_mcp_tool_errors_total{tool="explain_access",code="AUDIT_UNAVAILABLE"}'), 1)
  t.equal(
    page.get('kafscale_mcp_tool_calls_total{tool="explain_access",outcome="error"}'),
    1,
    'the caller has got no answer'
  )
})

t.test('the number of labels is bounded, whatever rules a policy has', async t => {
  const app = await buildTestApp(t)
  await app.ready()
  const decision = (rule: string) => ({ kind: 'denied', rule, needs: '' } as const)
  const denied = { content: [], isError: true as const, _meta: { 'kafscale-mcp/error': { code: 'PERMISSION_DENIED' } } }
  for (let number = 0; number < 300; number++) {
    await app.telemetry.call('list_topics', CALLER, decision(`role-${number}.deny[0]`), async () => denied)
  }
  await app.telemetry.call('list_topics', CALLER, decision('role-7.deny[0]'), async () => denied)
  await app.telemetry.call('list_topics', CALLER, decision('"\n\ud800'.repeat(1_000)), async () => denied)
  const { text } = await app.telemetry.page()
  const rules = [...samples(text)].filter(([name]) => name.startsWith('kafscale_mcp_denied_calls_total'))
  t.equal(rules.length, 201)
  t.equal(samples(text).get('kafscale_mcp_denied_calls_total{rule="other"}'), 101)
  t.equal(samples(text).get('kafscale_mcp_denied_calls_total{rule="role-7.deny[0]"}'), 2)
  const long = await buildTestApp(t)
  await long.ready()
  await long.telemetry.call('list_topics', CALLER, decision('"\n\ud800'.repeat(1_000)), async () => denied)
  const page = (await long.telemetry.page()).text
  t.ok(page.split('\n').every(line => line.length < 1_000))
  if (!needsPromtool().skip) t.doesNotThrow(() => promtool(['check', 'metrics'], page))
})

t.test('the reasons of failed authentications are a fixed set', async t => {
  t.equal(authenticationFailure(new Unauthenticated('no bearer token was sent')), 'no_token')
  t.equal(authenticationFailure(new Unauthenticated('twice', 'invalid_request')), 'invalid_request')
  t.equal(authenticationFailure(new Unauthenticated('forged', 'invalid_token')), 'invalid_token')
  t.equal(authenticationFailure(new Unauthenticated('expired', 'invalid_token', true)), 'expired_token')
  t.equal(authenticationFailure(new Unverifiable('its issuer does not answer')), 'unverifiable')
  t.equal(authenticationFailure(new TypeError('a defect')), 'internal')
})

t.test('several services in one process count separately', async t => {
  const [one, other] = [await buildTestApp(t), await buildTestApp(t)]
  await callTool(one, 'explain_access')
  await other.ready()
  const calls = 'kafscale_mcp_tool_calls_total{tool="explain_access",outcome="ok"}'
  t.equal(samples((await one.telemetry.page()).text).get(calls), 1)
  t.equal(samples((await other.telemetry.page()).text).get(calls), 0)
})

t.test('the listener of the metrics', async t => {
  const service = startService(t, { KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0' })
  const url = await metricsUrl(service)

  t.test('serves GET /metrics to anyone, and nothing else', async t => {
    const response = await fetch(url)
    t.equal(response.status, 200)
    t.match(response.headers.get('content-type'), /^text\/plain/)
    t.match(await response.text(), /^kafscale_mcp_build_info\{/m)
    t.equal((await fetch(`${url}?name=a`)).status, 200)
    const head = await fetch(url, { method: 'HEAD' })
    t.strictSame([head.status, await head.text()], [200, ''])
    for (const method of ['POST', 'DELETE', 'OPTIONS']) {
      const refused = await fetch(url, { method })
      t.strictSame([refused.status, refused.headers.get('allow'), await refused.text()], [405, 'GET, HEAD', ''], method)
    }
    for (
      const path of [
        '/',
        '/mcp',
        '/healthz',
        '/readyz',
        '/audit/stream',
        '/metrics/',
        '/metrics/a',
        '/.well-known/oauth-protected-resource',
      ]
    ) {
      const missing = await fetch(new URL(path, url))
      t.strictSame([missing.status, await missing.text()], [404, ''], path)
    }
    const { headers, payload } = modern('tools/list')
    t.equal((await fetch(new URL('/mcp', url), { method: 'POST', headers, body: JSON.stringify(payload) })).status, 404)
  })

  t.test('does not serve /mcp', async t => {
    t.equal((await fetch(new URL('/metrics', await service.url))).status, 404)
  })

  t.test('closes with the service, even during a request', async t => {
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname)
    await once(socket, 'connect')
    socket.on('error', () => {}) // it is cut
    t.teardown(() => socket.destroy())
    socket.write('GET /metrics HTTP/1.1\r\n')
    await (await fetch(url)).text()
    const endedAtMs = performance.now()
    service.process.kill('SIGTERM')
    t.equal(await service.exit, 0)
    t.ok(performance.now() - endedAtMs < scaled(ACT_BOUND_MS))
    await t.rejects(fetch(url))
  })
})

t.test('a port that is in use is a warning, and the service continues', async t => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  const service = startService(t, { KAFSCALE_MCP_TELEMETRY_ADDR: `127.0.0.1:${(other.address() as AddressInfo).port}` })
  t.equal((await fetch(new URL('/healthz', await service.url))).status, 200)
  const warning = /"level":40,.*"code":"EADDRINUSE".*cannot listen on KAFSCALE_MCP_TELEMETRY_ADDR/
  await waitFor(() => warning.test(service.output.stderr) || service.output.stderr, ACT_BOUND_MS, 'the warning')
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
})

t.test('if both addresses are the same, /mcp gets it', async t => {
  const port = await freePort(t)
  const address = `127.0.0.1:${port}`
  const service = startService(t, { KAFSCALE_MCP_HTTP_ADDR: address, KAFSCALE_MCP_TELEMETRY_ADDR: address })
  t.equal(await service.url, `http://${address}/mcp`)
  await waitFor(
    () => service.output.stderr.includes('cannot listen on') || service.output.stderr,
    ACT_BOUND_MS,
    'the warning'
  )
})

t.test('off is off', async t => {
  const service = startService(t, { KAFSCALE_MCP_TELEMETRY_ADDR: 'off' })
  await service.url
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
  t.notMatch(service.output.stderr, 'metrics are served')
})

t.test('a call is logged at debug, with its request and trace, and not at info', async t => {
  const trace = 'a'.repeat(32)
  for (const [level, lines] of [['debug', 1], ['info', 0]] as const) {
    const service = startService(t, { KAFSCALE_MCP_LOG_LEVEL: level })
    const url = await service.url
    const { headers, payload } = modern('tools/call', {
      name: 'list_topics',
      arguments: { pattern: 'a-secret-of-the-caller' },
    })
    await (await fetch(url, {
      method: 'POST',
      headers: { ...headers, traceparent: `00-${trace}-${'b'.repeat(16)}-01` },
      body: JSON.stringify(payload),
    })).text()
    await waitFor(
      () => service.output.stderr.includes('etcd lost') || service.output.stderr,
      ACT_BOUND_MS,
      'etcd is lost'
    )
    service.process.kill('SIGTERM')
    await service.exit
    const log = service.output.stderr.trim().split('\n').map(line => JSON.parse(line))
    t.match(
      log.find(({ msg }) => msg === 'etcd lost'),
      { level: 40, endpoint: /^http:/, reason: /./ },
      'the loss of etcd is logged with its cause'
    )
    const called = log.filter(({ tool }) => tool !== undefined)
    t.match(
      called,
      [{
        level: 20,
        reqId: /^req-/,
        trace_id: trace,
        tool: 'list_topics',
        outcome: 'error',
        code: 'METADATA_UNAVAILABLE',
        duration_ms: Number,
        msg: 'tool called',
      }].slice(0, lines)
    )
    t.equal(called.length, lines)
    t.notMatch(service.output.stderr, 'a-secret-of-the-caller')
  }
})

/** A port that was free just now. */
async function freePort (t: Test): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  t.not(port, 0)
  return port
}
