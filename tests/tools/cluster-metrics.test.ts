import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { recording } from '../support/paths.ts'
import { buildSyncedApp, buildTestApp, CALLER, callTool, fill } from '../support/service.ts'

interface Scrape {
  at_ms: number
  broker: number
  body?: string
}
const scrapes = recording<Scrape>('metrics.jsonl.gz')

/** The last page that a broker of the recording served before a point in time. */
const pageOf = (broker: number, beforeMs: number) =>
  scrapes.findLast(scrape => scrape.broker === broker && scrape.at_ms < beforeMs)?.body as string

/** Serves these pages at `/{node_id}/metrics`, and disconnects if a broker has none. */
async function serve (t: Test, pages: (string | undefined)[]): Promise<string> {
  const server = createServer(({ url, socket }, response) => {
    const page = pages[Number(url?.split('/')[1])]
    if (page === undefined) socket.destroy()
    else response.end(page)
  }).listen(0, '127.0.0.1')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function build (t: Test, pages: (string | undefined)[], env: Record<string, string> = {}) {
  const etcd = await startEtcd(t)
  const Brokers = pages.map((_, NodeID) => ({ NodeID, Host: `broker-${NodeID}`, Port: 9092 }))
  await fill(etcd, [{ key: '/kafscale/metadata/snapshot', value: JSON.stringify({ Brokers }) }])
  const address = await serve(t, pages)
  return {
    app: await buildSyncedApp(t, etcd, {
      KAFSCALE_MCP_BROKER_METRICS_URL: `http://${address}/{node_id}/metrics`,
      ...env,
    }),
    address,
  }
}

function outputSchemaOf (app: FastifyInstance): object {
  return app.tools.list(CALLER.principal).find(({ name }) => name === 'cluster_metrics')?.outputSchema ?? {}
}

t.test('the answer has the figures of the cluster and of each broker', needsEtcd(), async t => {
  const { app } = await build(t, [pageOf(0, 20_000), pageOf(1, 20_000)])
  const { structuredContent: metrics } = await callTool(app, 'cluster_metrics')
  t.match(metrics, {
    s3_state: 'healthy',
    partial: false,
    brokers_omitted: 0,
    consumer_lag_max: Number,
    authz_denied_total: 0,
    admin_error_rate: 0,
  })
  const brokers = metrics?.brokers as Record<string, number>[]
  t.strictSame(brokers.map(({ node_id: id, state }) => [id, state]), [[0, 'ok'], [1, 'ok']])
  for (const figure of ['produce_rps', 'fetch_rps', 'admin_requests_total']) {
    t.equal(metrics?.[figure], brokers.reduce((sum, broker) => sum + Number(broker[figure]), 0), figure)
  }
  const quantiles = metrics?.produce_latency_ms as { p50: number, p95: number, p99: number }
  t.ok(quantiles.p50 > 0 && quantiles.p50 < quantiles.p95 && quantiles.p95 <= quantiles.p99)
  t.ok(brokers.every(({ goroutines, uptime_seconds: uptime }) => Number(goroutines) > 0 && Number(uptime) > 0))
})

t.test('the answer can be limited to one broker, beside the figures of the cluster', needsEtcd(), async t => {
  const { app, address } = await build(t, [pageOf(0, 20_000), pageOf(1, 20_000), undefined])
  const { structuredContent: whole } = await callTool(app, 'cluster_metrics')
  const all = whole?.['brokers'] as object[]
  for (const [broker, expected] of [
    ['1', [all[1]]],
    [1, [all[1]]],
    ['2', [all[2]]],
    [address, all],
    ['', all],
    [null, all],
  ] as const) {
    const { structuredContent: metrics } = await callTool(app, 'cluster_metrics', { broker })
    t.strictSame({ ...metrics, age_ms: 0 }, { ...whole, age_ms: 0, brokers: expected }, JSON.stringify(broker))
  }
  for (const broker of ['7', -1, 'null', 'broker-0']) {
    const { content: [{ text } = { text: '' }] } = await callTool(app, 'cluster_metrics', { broker })
    t.match(text, 'INVALID_ARGUMENT: The arguments do not match the tool\'s input schema: ' +
      '"broker" must be one of 0, 1, 2. Correct them')
  }
})

t.test('the S3 state of the cluster is the worst state of a broker', needsEtcd(), async t => {
  const { app } = await build(t, [pageOf(0, 130_000), pageOf(1, 130_000)])
  const { structuredContent: metrics } = await callTool(app, 'cluster_metrics')
  t.match(metrics, { s3_state: 'unavailable', brokers: [{ s3_state: 'healthy' }, { s3_state: 'unavailable' }] })
  const { structuredContent: status } = await callTool(app, 'cluster_status')
  t.match(status, {
    s3: { state: 'unavailable' },
    brokers_reachable: 2,
    brokers: [{ metrics: 'ok', s3_state: 'healthy' }, { metrics: 'ok', s3_state: 'unavailable' }],
  })
})

t.test('a broker that does not answer is listed, with unknown figures', needsEtcd(), async t => {
  const { app, address } = await build(t, [undefined, pageOf(1, 20_000)])
  const { structuredContent: metrics } = await callTool(app, 'cluster_metrics')
  t.match(metrics, { partial: true, s3_state: 'healthy' })
  const [gone] = metrics?.brokers as Record<string, unknown>[]
  const { node_id: id, address: where, state, error, ...figures } = gone as Record<string, unknown>
  t.match({ id, where, state, error }, { id: 0, where: address, state: 'unreachable', error: /\w/ })
  t.strictSame(new Set(Object.values(figures)), new Set([null]))
  const { structuredContent: status } = await callTool(app, 'cluster_status')
  t.match(status, {
    brokers_reachable: 1,
    brokers: [{ metrics: 'unreachable', s3_state: 'unknown' }, { metrics: 'ok' }],
  })
})

/** A page of a broker with other figures. */
function pageWith (figures: Record<string, number>): string {
  const missing = new Set(Object.keys(figures))
  const lines = pageOf(0, 20_000).split('\n').map(line => {
    const name = line.replace(/ [^ ]*$/, '')
    return missing.delete(name) ? `${name} ${figures[name]}` : line
  })
  if (missing.size > 0) throw new Error(`the page lacks ${[...missing].join(', ')}`)
  return lines.join('\n')
}

/** Latencies of produce requests as figures of a page: how many took at most 5, 50 and 5000 ms, and how many in all. */
function latencies (upTo5: number, upTo50: number, upTo5000: number, all: number): Record<string, number> {
  const upTo = (le: number) => le < 5 ? 0 : le < 50 ? upTo5 : le < 5000 ? upTo50 : upTo5000
  const buckets = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 5000].map(le =>
    [`kafscale_produce_latency_ms_bucket{le="${le}"}`, upTo(le)])
  return {
    ...Object.fromEntries(buckets) as Record<string, number>,
    'kafscale_produce_latency_ms_bucket{le="+Inf"}': all,
    kafscale_produce_latency_ms_count: all,
  }
}

t.test('a broker whose S3 is down is named next to the mean, in which it hardly counts', needsEtcd(), async t => {
  const down = {
    'kafscale_s3_health_state{state="healthy"}': 0,
    'kafscale_s3_health_state{state="unavailable"}': 1,
    kafscale_s3_error_rate: 1,
    kafscale_s3_latency_ms_avg: 2_300,
    kafscale_s3_state_duration_seconds: 90,
    kafscale_produce_rps: 0,
    kafscale_fetch_rps: 1,
  }
  const busy = { kafscale_s3_error_rate: 0, kafscale_s3_latency_ms_avg: 20, kafscale_produce_rps: 99 }
  const { app, address } = await build(t, [
    pageWith({ ...busy, kafscale_fetch_rps: 0 }), pageWith(down), undefined,
  ])
  const { structuredContent: metrics = {} } = await callTool(app, 'cluster_metrics')
  const since = new Date(Date.parse(String(metrics.observed_at)) - 90_000).toISOString()
  t.match(metrics, {
    s3_state: 'unavailable',
    s3_latency_ms: (20 * 99 + 2_300) / 100,
    s3_error_rate: 0.01,
    s3_worst_broker: {
      node_id: 1,
      address,
      s3_state: 'unavailable',
      s3_state_since: since,
      s3_latency_ms: 2_300,
      s3_error_rate: 1,
    },
    brokers: [{ s3_state_since: /^2/ }, { s3_state_since: since }, { s3_state_since: null }],
  })
  const fromZeroTime = await build(t, [pageWith({ kafscale_s3_state_duration_seconds: 63_899_000_000 })])
  t.match((await callTool(fromZeroTime.app, 'cluster_metrics')).structuredContent, {
    s3_worst_broker: { s3_state_since: null },
  }, 'a duration since Go\'s zero time')
  const { structuredContent: status } = await callTool(app, 'cluster_status')
  t.match(status, { s3: { state: 'unavailable', latency_ms: 42.8, worst_latency_ms: 2_300 } })
})

t.test('produce latency is that since the broker started, and that since the previous scrape', needsEtcd(), async t => {
  const uptime = 1_000
  const pages: (string | undefined)[] = [
    pageWith({ ...latencies(0, 900, 1_000, 1_000), kafscale_broker_uptime_seconds: uptime }),
  ]
  const { app } = await build(t, pages, { KAFSCALE_MCP_METRICS_MAX_AGE: '0' })
  const scrape = async () => (await callTool(app, 'cluster_metrics')).structuredContent ?? {}
  const both = (figures: unknown) => {
    const window = { produce_latency_window_ms: figures }
    return { ...window, brokers: [window] }
  }

  t.match(await scrape(), { produce_latency_ms: { p50: Number, p99: Number }, ...both(null) }, 'no scrape before')

  // Of ten further requests, one took more than 5 s.
  pages[0] = pageWith({ ...latencies(0, 905, 1_009, 1_010), kafscale_broker_uptime_seconds: uptime + 1 })
  const slow = await scrape()
  t.match(slow, {
    produce_latency_ms: { p50: Number, p95: Number, p99: Number },
    ...both({ p50: 50, p95: 'over 5000 ms', p99: 'over 5000 ms', requests: 10, window_seconds: Number }),
  })
  t.ok(new Ajv2020({ allowUnionTypes: true }).validate(outputSchemaOf(app), slow), 'matches the published schema')

  t.match(await scrape(), both({ p50: null, p95: null, p99: null, requests: 0 }), 'no request since')

  pages[0] = pageWith({ ...latencies(2, 2, 2, 2), kafscale_broker_uptime_seconds: 0.001 })
  t.match(await scrape(), both({ p50: 3.5, requests: 2, window_seconds: 0.001 }), 'the broker has restarted')

  pages[0] = undefined
  t.match((await callTool(app, 'cluster_metrics')).isError, true)
  pages[0] = pageWith({ ...latencies(3, 3, 3, 3), kafscale_broker_uptime_seconds: 500 })
  t.match(await scrape(), both({ requests: 1 }), 'a scrape that failed makes the window longer')
})

t.test('a URL that several brokers answer has no window between two of them', needsEtcd(), async t => {
  const pages = [pageWith({ ...latencies(0, 900, 1_000, 1_000), kafscale_broker_uptime_seconds: 1_000 })]
  const address = await serve(t, pages)
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://${address}/0/metrics`,
    KAFSCALE_MCP_METRICS_MAX_AGE: '0',
  })
  const windows: unknown[] = []
  for (const [requests, uptime] of [[1_000, 1_000], [2_000, 5_000], [2_001, 5_000]] as const) {
    pages[0] = pageWith({ ...latencies(0, 900, requests, requests), kafscale_broker_uptime_seconds: uptime })
    windows.push((await app.brokerMetrics.scrape()).window?.latencyMs.at(-1)?.count ?? null)
  }
  t.strictSame(windows, [null, null, 1])
})

t.test('a broker behind a plain URL is not one without metrics', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const address = await serve(t, [pageOf(0, 20_000)])
  const status = async (hosts: string[], url: string) => {
    const Brokers = hosts.map((Host, NodeID) => ({ NodeID, Host, Port: 9092 }))
    await fill(etcd, [{ key: '/kafscale/metadata/snapshot', value: JSON.stringify({ Brokers }) }])
    const app = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_BROKER_METRICS_URL: url })
    return (await callTool(app, 'cluster_status')).structuredContent
  }
  t.match(await status(['broker-0', 'broker-1'], `http://${address}/0/metrics`), {
    brokers_reachable: 1,
    s3: { state: 'healthy' },
    brokers: [{ metrics: 'unknown', s3_state: 'unknown' }, { metrics: 'unknown', s3_state: 'unknown' }],
  }, 'the page may be that of either')
  t.match(await status(['127.0.0.1', 'broker-1'], `http://${address}/0/metrics`), {
    brokers: [{ metrics: 'ok', s3_state: 'healthy' }, { metrics: 'unknown' }],
  }, 'the URL has the host of one broker')
  t.match(await status(['127.0.0.1', '127.0.0.1'], `http://${address}/0/metrics`), {
    brokers: [{ metrics: 'unknown' }, { metrics: 'unknown' }],
  }, 'the host of two brokers')
})

t.test('admin requests by API, and denials by action and resource', needsEtcd(), async t => {
  const [before = '', after = ''] = pageOf(0, 20_000).split(/^kafscale_a(?:dmin|uthz).*\n/m)
  const page = `${before}kafscale_admin_requests_total{api="DescribeConfigs"} 4
kafscale_admin_request_errors_total{api="DescribeConfigs"} 1
kafscale_admin_request_latency_ms_avg{api="DescribeConfigs"} 2.500
kafscale_authz_denied_total 3
kafscale_authz_denied_total{action="admin",resource="cluster"} 1
kafscale_authz_denied_total{action="fetch",resource="topic"} 2
${after.replaceAll(/^kafscale_a(?:dmin|uthz).*\n/gm, '')}`
  const { app } = await build(t, [page, page])
  t.match((await callTool(app, 'cluster_metrics')).structuredContent, {
    admin_requests_total: 8,
    admin_requests: [{ api: 'DescribeConfigs', requests: 8, errors: 2, latency_ms: 2.5 }],
    authz_denied_total: 6,
    authz_denials: [
      { action: 'admin', resource: 'cluster', requests: 2 },
      { action: 'fetch', resource: 'topic', requests: 4 },
    ],
  })
})

t.test('without samples there are no quantiles, and without requests no error rate', needsEtcd(), async t => {
  const idle = pageOf(1, 20_000).split('\n').filter(line => !line.startsWith('kafscale_admin_'))
    .map(line => /^kafscale_produce_latency_ms_(bucket|count)/.test(line) ? line.replace(/\d+$/, '0') : line).join('\n')
  const { app } = await build(t, [idle])
  const { structuredContent: metrics } = await callTool(app, 'cluster_metrics')
  t.match(metrics, {
    produce_latency_ms: null,
    admin_requests_total: 0,
    admin_error_rate: null,
    admin_request_latency_ms: null,
  })
})

t.test('if no broker answers, cluster_metrics fails and names each; cluster_status answers', needsEtcd(), async t => {
  const { app, address } = await build(t, [undefined, '<html></html>\n'])
  const { isError, content: [{ text } = { text: '' }] } = await callTool(app, 'cluster_metrics')
  t.equal(isError, true)
  t.ok(text.startsWith(`METRICS_UNAVAILABLE: No broker returned its metrics: ${address} unreachable (`))
  t.match(text, `${address} invalid (kafscale_admin_requests_total is missing)`)
  t.match((await callTool(app, 'cluster_status')).structuredContent, {
    s3: { state: 'unknown', latency_ms: null },
    brokers_reachable: 0,
  })
  t.equal((await app.inject('/healthz')).json().dependencies.brokers.state, 'unavailable')
})

t.test('cluster_metrics fails for a cluster without brokers', needsEtcd(), async t => {
  const { app } = await build(t, [])
  t.match(
    (await callTool(app, 'cluster_metrics')).content[0]?.text,
    /^METRICS_UNAVAILABLE: .*the snapshot lists no broker/
  )
})

t.test('if the snapshot cannot be decoded, the brokers are unknown', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, [{ key: '/kafscale/metadata/snapshot', value: '{' }])
  const app = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_BROKER_METRICS_URL: 'auto' })
  t.match((await callTool(app, 'cluster_metrics')).content[0]?.text, /^METADATA_UNAVAILABLE: .*can't be decoded/)
  t.match((await callTool(app, 'cluster_status')).structuredContent, {
    topic_count: null,
    brokers_reachable: null,
    s3: { state: 'unknown' },
  })
})
