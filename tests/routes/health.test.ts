import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import packageJson from '../../package.json' with { type: 'json' }
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import {
  buildSyncedApp, buildTestApp, caughtUp, fill, modern, recordedKeyspace, startService
} from '../support/service.ts'
import { waitFor } from '../support/wait-for.ts'

/** An outage is noticed within two probes. */
const OUTAGE_BOUND_MS = 6_000
const SYNC_BOUND_MS = 2_000

/** A port on which nothing listens. `fetch` refuses those that are reserved. */
async function closedPort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function get (app: FastifyInstance, url: string) {
  const response = await app.inject(url)
  return { status: response.statusCode, body: response.json() }
}

t.test('before the first load, it is alive but not ready, and the reason reveals no address', async t => {
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1',
    KAFSCALE_MCP_MAX_STALENESS: '0',
  })
  await app.ready()
  await waitFor(
    () => !/yet/.test(app.metadata.reason ?? 'yet') || app.metadata.reason,
    SYNC_BOUND_MS,
    'etcd cannot be reached'
  )
  const health = await get(app, '/healthz')
  t.match(health, {
    status: 200,
    body: {
      status: 'ok',
      version: packageJson.version,
      uptime_seconds: Number,
      dependencies: {
        etcd: { state: 'unavailable', reason: /./ },
        brokers: { state: 'not_configured' },
        audit: { state: 'ok', lost: 0, sinks: [] },
      },
    },
  })
  const ready = await get(app, '/readyz')
  t.strictSame(ready, { status: 503, body: { status: 'not ready', reason: health.body.dependencies.etcd.reason } })
  t.notMatch(JSON.stringify([health, ready]), /127\.0\.0\.1/)
})

t.test('an issuer that cannot be reached is shown, and no request logs it as an error', async t => {
  const issuer = `http://127.0.0.1:${await closedPort()}/realms/main`
  const service = startService(t, { KAFSCALE_MCP_OIDC_ISSUER: issuer })
  const url = await service.url
  const health = async () => {
    const response = await fetch(new URL('/healthz', url))
    return JSON.stringify((await response.json() as { dependencies: { issuers: object } }).dependencies.issuers)
  }
  const unreachable = { issuer, state: 'unreachable', reason: 'the token issuer cannot be reached: ECONNREFUSED' }
  const expected = JSON.stringify([unreachable])
  await waitFor(async () => await health() === expected || await health(), SYNC_BOUND_MS, 'the issuer is shown')
  const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const token = `${encoded({ alg: 'ES256', kid: 'a' })}.${encoded({ iss: issuer })}.AAAA`
  const { headers, payload } = modern('tools/list')
  const response = await fetch(url, {
    method: 'POST',
    headers: { ...headers, authorization: `Bearer ${token}` },
    body: JSON.stringify(payload),
  })
  t.equal(response.status, 503)
  service.process.kill('SIGTERM')
  await service.exit
  const logged = service.output.stderr.trim().split('\n').map(line => JSON.parse(line) as { level: number })
  t.match(logged.filter(line => JSON.stringify(line).includes('the token issuer cannot be reached')), [
    { level: 40, code: 'ECONNREFUSED', issuer },
  ])
  t.strictSame(logged.filter(({ level }) => level >= 50), [])
})

t.test('with a running etcd', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, [...recordedKeyspace(), { key: '/kafscale/topics/broken/partitions/0/next_offset', value: 'many' }])
  const app = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_MAX_STALENESS: '2500ms' })
  const patient = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_MAX_STALENESS: '0' })

  t.test('the service is ready, and describes the mirror', async t => {
    t.strictSame(await get(app, '/readyz'), { status: 200, body: { status: 'ready' } })
    await etcd.client.put('/kafscale/topics/broken/partitions/1/next_offset').value('5')
    await caughtUp(app, etcd)
    const { mirror } = app.metadata
    t.match(await get(app, '/healthz'), {
      status: 200,
      body: {
        dependencies: {
          etcd: {
            state: 'connected',
            revision: mirror?.revision,
            age_ms: Number,
            keys: recordedKeyspace().length + 2,
            undecodable: 1,
            events: 1,
            loads: 1,
            verifications: 0,
            differences: 0,
          },
        },
      },
    })
  })

  t.test('during an outage, it is ready until the mirror is too old', async t => {
    await etcd.kill()
    await waitFor(
      async () => (await get(app, '/healthz')).body.dependencies.etcd.state === 'stale',
      OUTAGE_BOUND_MS,
      'stale'
    )
    await waitFor(async () => (await get(app, '/readyz')).status === 503, OUTAGE_BOUND_MS, 'not ready')
    t.ok(app.metadata.ageMs > 2_500)
    t.match(await get(app, '/readyz'), {
      status: 503,
      body: { status: 'not ready', reason: /^the metadata is \d+ ms old, more than KAFSCALE_MCP_MAX_STALENESS: ./ },
    })
    t.match(await get(app, '/healthz'), {
      status: 200,
      body: { status: 'ok', dependencies: { etcd: { state: 'stale', reason: /./, age_ms: Number } } },
    })
    t.match(
      await get(patient, '/readyz'),
      { status: 200, body: { status: 'ready' } },
      'with no limit on the age'
    )
  })

  t.test('after the outage, it is ready again', async t => {
    await etcd.restart()
    await waitFor(async () => (await get(app, '/readyz')).status === 200, SYNC_BOUND_MS, 'ready')
    await waitFor(
      async () => (await get(app, '/healthz')).body.dependencies.etcd.state === 'connected',
      SYNC_BOUND_MS,
      'connected'
    )
    t.equal((await get(app, '/readyz')).status, 200)
  })
})
