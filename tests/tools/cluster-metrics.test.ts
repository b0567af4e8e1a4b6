import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { recording } from '../support/paths.ts'
import { buildSyncedApp, callTool, fill } from '../support/service.ts'

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

async function build (t: Test, pages: (string | undefined)[]) {
  const etcd = await startEtcd(t)
  const Brokers = pages.map((_, NodeID) => ({ NodeID, Host: `broker-${NodeID}`, Port: 9092 }))
  await fill(etcd, [{ key: '/kafscale/metadata/snapshot', value: JSON.stringify({ Brokers }) }])
  const address = await serve(t, pages)
  return {
    app: await buildSyncedApp(t, etcd, { KAFSCALE_MCP_BROKER_METRICS_URL: `http://${address}/{node_id}/metrics` }),
    address,
  }
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
