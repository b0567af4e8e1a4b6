import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { needsEtcd, startEtcd } from '../../support/etcd.ts'
import { recording } from '../../support/paths.ts'
import { scaled } from '../../support/run.ts'
import { buildTestApp } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const page = recording<{ body?: string }>('metrics.jsonl.gz')[9]?.body as string

/** Serves a metrics port; resolves to its `host:port`. */
async function serve (t: Test, answer: RequestListener): Promise<string> {
  const server = createServer(answer).listen(0, '127.0.0.1')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

const text = (body: string): RequestListener => (_, response) =>
  response.setHeader('content-type', 'text/plain; version=0.0.4').end(body)

/** An address on which nothing listens. */
async function closedPort (): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return `127.0.0.1:${port}`
}

t.test('brokers are scraped together, and one that fails affects no other', async t => {
  const good = await serve(t, text(page))
  const html = await serve(t, text('<html></html>\n'))
  const moved = await serve(t, (_, response) => response.writeHead(302, { location: `http://${good}/metrics` }).end())
  const broken = await serve(t, (_, response) => response.writeHead(500).end('out of order'))
  const large = await serve(t, text('#\n'.repeat(4 * 1024 * 1024 + 1)))
  const cut = await serve(
    t,
    (_, response) =>
      response.writeHead(200, { 'content-length': page.length }).write(page.slice(0, 1000), () => response.destroy())
  )
  const gone = await closedPort()
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_BROKER_METRICS_URL: [good, html, moved, broken, large, cut, gone].map(address =>
      `http://${address}/metrics`
    ).join(', '),
  })
  t.equal(app.brokerMetrics.state, 'not_scraped')

  const { brokers, whole } = await app.brokerMetrics.scrape()
  t.match(brokers, [
    { nodeId: null, address: good, state: 'ok', page: { goroutines: 39 } },
    { address: html, state: 'invalid', error: 'kafscale_admin_requests_total is missing' },
    { address: moved, state: 'invalid', error: 'it did not answer with a metrics page' },
    { address: broken, state: 'invalid', error: 'it did not answer with a metrics page' },
    { address: large, state: 'invalid', error: 'it is larger than 8 MB' },
    { address: cut, state: 'unreachable' },
    { address: gone, state: 'unreachable', error: 'ECONNREFUSED' },
  ])
  t.equal(whole?.consumerLagMax, 1873)
  t.equal(app.brokerMetrics.state, 'partial')
})

t.test('concurrent callers share one scrape, whose result is reused for METRICS_MAX_AGE', async t => {
  let scrapes = 0
  let release = () => {}
  const address = await serve(t, (request, response) => {
    scrapes++
    release = () => text(page)(request, response)
  })
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://${address}/metrics`,
    KAFSCALE_MCP_METRICS_MAX_AGE: '300ms',
  })
  const callers = Array.from({ length: 50 }, () => app.brokerMetrics.scrape())
  await waitFor(() => scrapes === 1, 2000, 'the scrape')
  release()
  const answers = await Promise.all(callers)
  t.equal(scrapes, 1)
  t.ok(answers.every(({ whole, ageMs }) => whole !== undefined && ageMs >= 0))
  t.equal(app.brokerMetrics.state, 'ok')

  await app.brokerMetrics.scrape()
  t.equal(scrapes, 1, 'young enough')
  await waitFor(() => {
    void app.brokerMetrics.scrape()
    return scrapes === 2
  }, 2000, 'a second scrape, once the first is too old')
  release()
})

t.test('a broker that does not answer is abandoned after 3 s', async t => {
  const silent = await serve(t, () => {})
  const app = await buildTestApp(t, { KAFSCALE_MCP_BROKER_METRICS_URL: `http://${silent}/metrics` })
  const before = performance.now()
  const { brokers, whole } = await app.brokerMetrics.scrape()
  t.match(brokers, [{ state: 'unreachable', error: 'no answer within 3 s' }])
  t.equal(whole, undefined)
  t.ok(performance.now() - before < 3_000 + scaled(1_000))
  t.equal(app.brokerMetrics.state, 'unavailable')
})

t.test('without URLs nothing is scraped', async t => {
  const app = await buildTestApp(t, {})
  await t.rejects(app.brokerMetrics.scrape(), { code: 'METRICS_NOT_CONFIGURED' })
  t.equal(app.brokerMetrics.configured, false)
})

t.test('placeholders stand for each broker of the snapshot', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const paths: string[] = []
  const address = await serve(t, (request, response) => {
    paths.push(String(request.url))
    text(page)(request, response)
  })
  const [host, port] = address.split(':') as [string, string]
  const brokers = [{ NodeID: 0, Host: host }, { NodeID: 7, Host: host }, { NodeID: 8, Host: `${host}:1/x?` }, {
    NodeID: 9,
    Host: '::1',
  }]
  await etcd.client.put('/kafscale/metadata/snapshot').value(JSON.stringify({ Brokers: brokers }))
  const unavailable = await buildTestApp(t, { KAFSCALE_MCP_BROKER_METRICS_URL: 'auto' })
  await t.rejects(unavailable.brokerMetrics.scrape(), { code: 'METADATA_UNAVAILABLE' }, 'before there is a snapshot')

  const app = await buildTestApp(t, {
    ...etcd.env,
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://{host}:${port}/{node_id}/metrics`,
    KAFSCALE_MCP_METRICS_ALLOWED_HOSTS: '127.0.0.0/8, ::1',
  })
  await app.ready()
  await waitFor(() => app.metadata.state === 'synced', 5000, 'the mirror to sync')
  const { brokers: results } = await app.brokerMetrics.scrape()
  t.match(results, [
    { nodeId: 0, address, state: 'ok' },
    { nodeId: 7, address, state: 'ok' },
    { nodeId: 8, address: 'broker 8', state: 'invalid', error: 'the host in the snapshot is not a host name' },
    { nodeId: 9, address: `[::1]:${port}`, state: 'unreachable' },
  ])
  t.strictSame(paths.sort(), ['/0/metrics', '/7/metrics'])
})

t.test('at most 32 brokers are scraped at once, and at most 1,000 in all', needsEtcd(), async t => {
  const [snapshotted, extra] = [1_000, 200]
  let [requests, inFlight, most] = [0, 0, 0]
  const held: (() => void)[] = []
  const address = await serve(t, (request, response) => {
    const first = requests++ === 0
    most = Math.max(most, ++inFlight)
    const answer = () => {
      inFlight--
      if (first) text(page)(request, response)
      else response.writeHead(404).end()
    }
    // The first 32 are held, so that others start too if nothing bounds them.
    if (requests <= 32) held.push(answer)
    else setImmediate(answer)
  })
  const [host, port] = address.split(':') as [string, string]
  const etcd = await startEtcd(t)
  const Brokers = Array.from({ length: snapshotted + extra }, (_, NodeID) => ({ NodeID, Host: host }))
  await etcd.client.put('/kafscale/metadata/snapshot').value(JSON.stringify({ Brokers }))
  const app = await buildTestApp(t, {
    ...etcd.env,
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://{host}:${port}/metrics`,
    KAFSCALE_MCP_METRICS_ALLOWED_HOSTS: host,
    KAFSCALE_MCP_METRICS_MAX_AGE: '0',
    KAFSCALE_MCP_AUDIT_SINKS: 'none',
  })
  await app.ready()
  await waitFor(() => app.metadata.state === 'synced', 5000, 'the mirror to sync')
  const warnings = t.capture(app.log, 'warn')
  const scrape = app.brokerMetrics.scrape()
  await waitFor(() => held.length === 32 || held.length, 2000, '32 scrapes')
  for (const answer of held) answer()
  const { brokers, omitted } = await scrape
  t.equal(most, 32)
  t.strictSame([requests, brokers.length, omitted], [snapshotted, snapshotted, extra])
  t.strictSame(brokers.map(({ nodeId }) => nodeId), Brokers.slice(0, snapshotted).map(({ NodeID }) => NodeID))
  t.equal(app.brokerMetrics.state, 'partial')
  await app.brokerMetrics.scrape()
  t.strictSame(warnings().map(({ args }) => args), [
    [{ scraped: snapshotted, omitted: extra }, 'too many brokers: some are not scraped'],
  ], 'once')
})
