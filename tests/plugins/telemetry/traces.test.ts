/** Traces as a collector receives them, and the caller's trace context where none are sent. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { tracesAskedFor } from '../../../plugins/telemetry/otel.ts'
import { callerContext, traceContext } from '../../../plugins/telemetry/trace-context.ts'
import { type CollectedSpan, startCollector } from '../../support/collector.ts'
import { ROOT } from '../../support/paths.ts'
import { scaled } from '../../support/run.ts'
import { buildTestApp, callTool, legacy, modern, type Service, startService } from '../../support/service.ts'
import { spawnClean } from '../../support/spawn.ts'
import { waitFor } from '../../support/wait-for.ts'

t.jobs = 3 // some of the time is waiting

const ACT_BOUND_MS = 5_000
const TOKEN = 'hunter2'.repeat(5)
const [TRACE, OTHER_TRACE] = ['0af7651916cd43dd8448eb211c80319c', '4bf92f3577b34da6a3ce929d0e0e4736'] as const
const [SPAN, OTHER_SPAN] = ['b7ad6b7169203331', '00f067aa0ba902b7'] as const
const parent = (trace: string, span: string, flags = '01') => `00-${trace}-${span}-${flags}`

/** A broker whose page has no metrics. */
async function startBroker (t: Test): Promise<string> {
  const server = createServer((_, response) => response.end('no metrics\n')).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`
}

/** A service that sends traces, and records calls on standard output. */
async function traced (t: Test, more: Record<string, string> = {}) {
  const collector = await startCollector(t)
  const service = startService(t, {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: '20',
    KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
    KAFSCALE_MCP_AUDIT_SINKS: 'stdout',
    KAFSCALE_MCP_LOG_LEVEL: 'debug',
    KAFSCALE_MCP_BROKER_METRICS_URL: await startBroker(t),
    KAFSCALE_MCP_METRICS_MAX_AGE: '0',
    ...more,
  })
  await service.url
  return { ...collector, service }
}

type Request = ReturnType<typeof modern> | ReturnType<typeof legacy>

/** Sends a request to a service with its token. */
async function send (
  service: Service,
  { headers, payload }: Request,
  more: Record<string, string> = {},
  query = ''
): Promise<number> {
  const response = await fetch(`${await service.url}${query}`, {
    method: 'POST',
    headers: { ...headers, authorization: `Bearer ${TOKEN}`, ...more },
    body: JSON.stringify(payload),
  })
  await response.text()
  return response.status
}

/** Waits until this many spans have arrived; a parent arrives after its children. */
async function arrived (spans: CollectedSpan[], count: number): Promise<CollectedSpan[]> {
  await waitFor(() => spans.length >= count || spans.map(({ name }) => name), ACT_BOUND_MS, `${count} spans`)
  return spans
}

const named = (spans: CollectedSpan[], name: string): CollectedSpan =>
  spans.find(span => span.name === name) as CollectedSpan
const lines = (output: string) => output.trim().split('\n').map(line => JSON.parse(line))
const calls = ({ output }: Service) => lines(output.stdout).filter(({ event }) => event === 'tool_call')

t.test('a call is a span between that of its caller and those of its own requests', async t => {
  const { service, spans } = await traced(t, { OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test' })
  await send(service, modern('tools/call', { name: 'cluster_metrics', arguments: {} }), {
    traceparent: parent(TRACE, SPAN),
    tracestate: 'vendor=1',
  })
  await arrived(spans, 3)
  const [http, tool, scrape] = ['POST /mcp', 'tools/call cluster_metrics', 'scrape'].map(name =>
    named(spans, name)
  ) as [CollectedSpan, CollectedSpan, CollectedSpan]
  for (const span of [http, tool, scrape]) {
    t.match(span, {
      traceId: TRACE,
      traceState: 'vendor=1',
      resource: { 'service.name': 'kafscale-mcp', 'service.version': /^\d/, 'deployment.environment.name': 'test' },
    })
  }
  t.match(http, {
    kind: 'server',
    parentSpanId: SPAN,
    failed: false,
    attributes: { 'http.request.method': 'POST', 'http.route': '/mcp', 'http.response.status_code': 200 },
  })
  t.match(tool, {
    kind: 'internal',
    parentSpanId: http.spanId,
    failed: true,
    attributes: {
      'mcp.method.name': 'tools/call',
      'gen_ai.tool.name': 'cluster_metrics',
      'error.type': 'METRICS_UNAVAILABLE',
    },
  })
  t.match(scrape, {
    kind: 'client',
    parentSpanId: tool.spanId,
    failed: true,
    attributes: { 'server.address': /^127\.0\.0\.1:\d+$/, 'error.type': 'invalid' },
  })
  t.ok(http.durationMs >= tool.durationMs - 1 && tool.durationMs >= scrape.durationMs && scrape.durationMs > 0)

  t.test('whose IDs are in the audit record and in the log', async t => {
    const [call] = calls(service)
    t.match(call, {
      what: { tool: 'cluster_metrics' },
      where: { trace_id: TRACE, request_id: http.attributes['kafscale_mcp.request_id'] },
    })
    const log = lines(service.output.stderr)
    t.match(log.find(({ msg }) => msg === 'tool called'), {
      reqId: call.where.request_id,
      trace_id: TRACE,
      span_id: http.spanId,
    })
    t.match(log.find(({ msg }) => msg === 'broker scraped'), { trace_id: TRACE, span_id: tool.spanId })
  })
})

t.test('the trace of a call', async t => {
  const { service, spans } = await traced(t)
  const call = async (meta: object, headers: Record<string, string>, form: typeof modern | typeof legacy = modern) => {
    spans.length = 0
    service.output.stdout = ''
    await send(service, form('tools/call', { name: 'explain_access', arguments: {}, _meta: meta }), headers)
    await arrived(spans, 2)
    const [http, tool] = [named(spans, 'POST /mcp'), named(spans, 'tools/call explain_access')]
    t.equal(tool.parentSpanId, http.spanId)
    t.equal(tool.traceId, http.traceId)
    await waitFor(() => calls(service).length === 1 || service.output.stdout, ACT_BOUND_MS, 'the record')
    t.equal(calls(service)[0].where.trace_id, http.traceId)
    return http
  }
  const meta = { traceparent: parent(OTHER_TRACE, OTHER_SPAN), tracestate: 'agent=1' }

  t.test('is that of _meta if the headers have none, in every form of a call', async t => {
    for (const [what, http] of Object.entries({
      plain: await call(meta, {}),
      legacy: await call(meta, {}, legacy),
      'by the SDK\'s own entry': await call({ ...meta, progressToken: 1 }, {}),
      'headers that say nothing valid': await call(meta, { traceparent: 'nonsense' }),
    })) {
      t.match(http, { traceId: OTHER_TRACE, parentSpanId: OTHER_SPAN, traceState: 'agent=1' }, what)
      t.strictSame(http.links, [])
    }
  })
  t.test('is that of the headers, which a proxy has written, with a link to that of _meta', async t => {
    t.match(await call(meta, { traceparent: parent(TRACE, SPAN) }), {
      traceId: TRACE,
      parentSpanId: SPAN,
      links: [{ traceId: OTHER_TRACE, spanId: OTHER_SPAN }],
    })
    const http = await call(meta, { traceparent: parent(OTHER_TRACE, SPAN) })
    t.match(http, { traceId: OTHER_TRACE, parentSpanId: SPAN })
    t.strictSame(http.links, [], 'and none within one trace')
  })
  t.test('is a new one if neither has one', async t => {
    t.match(await call({}, {}), { traceId: /^[0-9a-f]{32}$/, parentSpanId: '' })
    t.match(await call({ traceparent: 1 }, {}), { parentSpanId: '' })
  })
  t.test('is recorded but not sent if the caller does not sample it', async t => {
    spans.length = 0
    service.output.stdout = ''
    await send(service, modern('tools/call', { name: 'explain_access', arguments: {} }), {
      traceparent: parent(OTHER_TRACE, SPAN, '00'),
    })
    await send(service, modern('tools/call', { name: 'explain_access', arguments: {} }), {
      traceparent: parent(TRACE, SPAN),
    })
    await arrived(spans, 2)
    t.strictSame(spans.map(({ traceId }) => traceId), [TRACE, TRACE])
    await waitFor(() => calls(service).length === 2 || service.output.stdout, ACT_BOUND_MS, 'the records')
    t.equal(calls(service)[0].where.trace_id, OTHER_TRACE)
  })
  t.test('is the same for all calls of a batch', async t => {
    spans.length = 0
    const one = legacy('tools/call', { name: 'explain_access', arguments: {} })
    const payload = [one.payload, { ...one.payload, id: 2 }]
    const response = await fetch(await service.url, {
      method: 'POST',
      headers: { ...one.headers, 'mcp-protocol-version': '2025-03-26', authorization: `Bearer ${TOKEN}` },
      body: JSON.stringify(payload),
    })
    t.equal(response.status, 200)
    await response.text()
    await arrived(spans, 3)
    t.strictSame(spans.map(({ name }) => name).sort(), [
      'POST /mcp',
      'tools/call explain_access',
      'tools/call explain_access',
    ])
    t.equal(new Set(spans.map(({ traceId }) => traceId)).size, 1)
  })
})

t.test('spans contain no secrets and no personal data', async t => {
  const { service, spans, bodies, authorization } = await traced(t, {
    OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer of-the-collector',
  })
  const secret = 'a-topic-that-is-secret'
  await send(service, modern('tools/call', { name: 'list_topics', arguments: { pattern: secret } }), {
    baggage: `user=${secret}`,
  }, `?key=${secret}`)
  t.equal(
    await send(service, modern('tools/call', { name: 'list_topics', arguments: {} }), {
      traceparent: parent(TRACE, SPAN),
    }, `?access_token=${TOKEN}`),
    401
  )
  await fetch(new URL('/healthz', await service.url))
  await arrived(spans, 3)
  t.match(spans.find(({ traceId }) => traceId === TRACE), {
    name: 'POST /mcp',
    parentSpanId: SPAN,
    failed: false,
    attributes: { 'http.response.status_code': 401 },
  }, 'a failed authentication')
  t.match(lines(service.output.stdout).find(({ event }) => event === 'authentication_failure'), {
    where: { trace_id: TRACE },
  })
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
  t.equal(spans.length, 3, 'probes are not traced')
  const sent = Buffer.concat(bodies).toString('latin1')
  for (const hidden of [secret, TOKEN, 'access_token', 'static-token', 'hunter2', 'of-the-collector']) {
    t.notMatch(sent, hidden)
  }
  t.equal(authorization(), 'Bearer of-the-collector', 'a collector may require a token')
  t.notMatch(service.output.stderr, 'of-the-collector')
  t.notMatch(service.output.stderr, secret)
})

t.test('a request whose client has disconnected is a span too', async t => {
  const asked = Promise.withResolvers<void>()
  const broker = createServer(() => asked.resolve()).listen(0, '127.0.0.1')
  await once(broker, 'listening')
  t.teardown(() => {
    broker.closeAllConnections()
    broker.close()
  })
  const { service, spans } = await traced(t, {
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:${(broker.address() as AddressInfo).port}/metrics`,
  })
  const { headers, payload } = modern('tools/call', { name: 'cluster_metrics', arguments: {} })
  const client = new AbortController()
  const call = fetch(await service.url, {
    method: 'POST',
    headers: { ...headers, authorization: `Bearer ${TOKEN}`, traceparent: parent(TRACE, SPAN) },
    body: JSON.stringify(payload),
    signal: client.signal,
  })
  await asked.promise
  client.abort()
  await t.rejects(call)
  await arrived(spans, 1)
  t.match(spans[0], { name: 'POST /mcp', traceId: TRACE, parentSpanId: SPAN })
  t.notOk(Object.hasOwn(spans[0]?.attributes ?? {}, 'http.response.status_code'))
})

t.test('pending spans are sent at shutdown', async t => {
  const { service, spans } = await traced(t, { OTEL_BSP_SCHEDULE_DELAY: '600000' })
  await send(service, modern('tools/call', { name: 'explain_access', arguments: {} }))
  t.equal(spans.length, 0)
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
  t.equal(spans.length, 2)
})

t.test('a failing collector delays neither calls nor the shutdown, and is logged once', async t => {
  const silent = createServer(() => {}).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => {
    silent.closeAllConnections()
    silent.close()
  })
  const refusing = createServer((_, response) => response.writeHead(400).end()).listen(0, '127.0.0.1')
  await once(refusing, 'listening')
  t.teardown(() => {
    refusing.closeAllConnections()
    refusing.close()
  })
  for (const [server, warnings] of [[silent, 0], [refusing, 1]] as const) {
    const { service } = await traced(t, {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    })
    const warned = () =>
      service.output.stderr.split('\n').filter(line => line.includes('traces could not be sent')).length
    for (let call = 0; call < 3; call++) {
      t.equal(await send(service, modern('tools/call', { name: 'explain_access', arguments: {} })), 200)
      await waitFor(() => warned() === warnings || service.output.stderr, ACT_BOUND_MS, 'the warning')
    }
    const endedAtMs = performance.now()
    service.process.kill('SIGTERM')
    t.equal(await service.exit, 0)
    t.ok(performance.now() - endedAtMs < scaled(ACT_BOUND_MS))
    t.equal(warned(), warnings)
  }
})

t.test('several services in one process send their own spans', async t => {
  const { url, spans } = await startCollector(t)
  const variables = { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_BSP_SCHEDULE_DELAY: '20' }
  Object.assign(process.env, variables)
  t.teardown(() => { for (const name of Object.keys(variables)) delete process.env[name] })
  const apps = [await buildTestApp(t, variables), await buildTestApp(t, variables)] as const
  for (const app of apps) await callTool(app, 'explain_access')
  await arrived(spans, 4)
  t.equal(new Set(spans.map(({ traceId }) => traceId)).size, 2)
  await apps[0].close()
  await callTool(apps[1], 'explain_access')
  await arrived(spans, 6)
  t.strictSame(spans.map(({ name }) => name).sort(), [
    ...Array(3).fill('POST /mcp'),
    ...Array(3).fill('tools/call explain_access'),
  ])
})

t.test('without tracing', async t => {
  t.test('the trace of the caller is recorded', async t => {
    const service = startService(t, { KAFSCALE_MCP_AUTH_TOKEN: TOKEN, KAFSCALE_MCP_AUDIT_SINKS: 'stdout' })
    const call = (meta: object) => modern('tools/call', { name: 'explain_access', arguments: {}, _meta: meta })
    await send(service, call({ traceparent: parent(OTHER_TRACE, OTHER_SPAN) }), { traceparent: parent(TRACE, SPAN) })
    await send(service, call({ traceparent: parent(OTHER_TRACE, OTHER_SPAN) }))
    await send(service, call({}))
    await send(service, call({}), { traceparent: parent(TRACE, SPAN), authorization: 'Bearer of-nobody' })
    service.process.kill('SIGTERM')
    t.equal(await service.exit, 0)
    t.strictSame(calls(service).map(({ where }) => where.trace_id), [TRACE, OTHER_TRACE, null])
    t.match(lines(service.output.stdout).find(({ event }) => event === 'authentication_failure'), {
      where: { trace_id: TRACE },
    })
  })

  t.test('the modules that send spans are not loaded', async t => {
    const loads = async (env: Record<string, string>) => {
      const script = `
        import { createRequire } from 'node:module'
        import { buildApp } from './app.ts'
        const app = await buildApp()
        await app.close()
        const loaded = Object.keys(createRequire(import.meta.url).cache)
        console.log(loaded.filter(path => /opentelemetry.(?:sdk|exporter|otlp|resources)/.test(path)).length)
      `
      const child = spawnClean(process.execPath, ['--input-type=module', '--eval', script], {
        cwd: ROOT,
        env: {
          KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1',
          KAFSCALE_MCP_LOG_LEVEL: 'silent',
          KAFSCALE_MCP_AUDIT_SINKS: 'none',
          KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
          ...env,
        },
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      t.teardown(() => child.kill('SIGKILL'))
      let output = ''
      child.stdout?.on('data', chunk => { output += chunk })
      await once(child, 'close')
      return Number(output)
    }
    t.equal(await loads({}), 0)
    t.ok(await loads({ OTEL_TRACES_EXPORTER: 'otlp' }) > 10)
  })
})

t.test('the variables that enable tracing', async t => {
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' }
  const on = [
    endpoint,
    { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://collector:4318/v1/traces' },
    { OTEL_TRACES_EXPORTER: 'otlp' },
    { OTEL_TRACES_EXPORTER: 'console, otlp' },
    { ...endpoint, OTEL_SDK_DISABLED: 'false' },
    { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' },
    { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/protobuf' },
  ]
  for (const env of on) t.strictSame(tracesAskedFor(env), { tracing: true, warnings: [] }, JSON.stringify(env))
  const off = [
    {},
    { OTEL_EXPORTER_OTLP_ENDPOINT: '' },
    { OTEL_SERVICE_NAME: 'a' },
    { ...endpoint, OTEL_SDK_DISABLED: 'true' },
    { ...endpoint, OTEL_SDK_DISABLED: 'TRUE' },
    { ...endpoint, OTEL_TRACES_EXPORTER: 'none' },
  ]
  for (const env of off) t.strictSame(tracesAskedFor(env), { tracing: false, warnings: [] }, JSON.stringify(env))
  t.strictSame(tracesAskedFor({ ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }), {
    tracing: false,
    warnings: [
      'OTEL_EXPORTER_OTLP_PROTOCOL is "grpc": no traces are sent; ' +
      'expected http/protobuf, which collectors take on port 4318',
    ],
  })
  t.strictSame(tracesAskedFor({ ...endpoint, OTEL_TRACES_EXPORTER: 'zipkin' }), {
    tracing: false,
    warnings: ['OTEL_TRACES_EXPORTER is "zipkin": no traces are sent; expected otlp or none'],
  })
  const service = startService(t, { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' })
  await service.url
  t.match(service.output.stderr, /"level":40,.*OTEL_EXPORTER_OTLP_PROTOCOL is/, 'it is logged')
})

t.test('valid and invalid trace contexts', async t => {
  const context = { traceId: TRACE, spanId: SPAN, sampled: true, state: undefined }
  t.strictSame(traceContext({ traceparent: parent(TRACE, SPAN) }), context)
  t.strictSame(traceContext({ traceparent: parent(TRACE, SPAN, '02') }), { ...context, sampled: false })
  t.strictSame(traceContext({ traceparent: `01-${TRACE}-${SPAN}-01-what-comes-later` }), context)
  t.strictSame(traceContext({ traceparent: parent(TRACE, SPAN), tracestate: 'a=1,b=2' }), {
    ...context,
    state: 'a=1,b=2',
  })
  for (const state of [1, 'a'.repeat(513)]) {
    t.strictSame(
      traceContext({ traceparent: parent(TRACE, SPAN), tracestate: state }),
      context,
      'no state, and the trace all the same'
    )
  }
  for (
    const wrong of [
      undefined,
      null,
      1,
      '',
      'x',
      [parent(TRACE, SPAN)],
      parent(TRACE.toUpperCase(), SPAN),
      parent('0'.repeat(32), SPAN),
      parent(TRACE, '0'.repeat(16)),
      parent(TRACE, SPAN, '1'),
      `ff-${TRACE}-${SPAN}-01`,
      `00-${TRACE}-${SPAN}-01-more`,
      ` ${parent(TRACE, SPAN)}`,
      `${parent(TRACE, SPAN)}, ${parent(TRACE, SPAN)}`,
      `${parent(TRACE, SPAN)}\n`,
    ]
  ) {
    t.equal(traceContext({ traceparent: wrong }), undefined, JSON.stringify(wrong))
  }
  for (
    const message of [undefined, null, 1, 'a', [], {}, { params: null }, { params: [] }, { params: { _meta: null } }, {
      params: { _meta: 'a' },
    }, [{ params: { _meta: { traceparent: parent(TRACE, SPAN) } } }]]
  ) {
    t.equal(callerContext({}, message), undefined, JSON.stringify(message))
  }
})
