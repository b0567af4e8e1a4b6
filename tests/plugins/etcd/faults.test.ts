/** The service while a real etcd, or the network to it, fails. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import * as grpc from '@grpc/grpc-js'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { CompactedError } from '../../../errors.ts'
import { EtcdConnection } from '../../../plugins/etcd/connection.ts'
import { etcdVersions, needsEtcd, startEtcd } from '../../support/etcd.ts'
import {
  ages,
  askEveryTool,
  becomes,
  buildAskedApp,
  CLOSED_BOUND_MS,
  fillCluster,
  inSync,
  SILENCE_BOUND_MS,
  SYNC_BOUND_MS,
  writeGeneration,
} from '../../support/faults.ts'
import { startProxy } from '../../support/proxy.ts'
import { buildSyncedApp, buildTestApp } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

t.jobs = 3 // most of the time is waiting

const CUT_MS = 15_000

t.test('a network that refuses connections for 15 s', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fillCluster(etcd)
  const proxy = await startProxy(t, etcd.endpoints[0] as string)
  const { app, caller } = await buildAskedApp(t, etcd, { KAFSCALE_MCP_ETCD_ENDPOINTS: proxy.endpoint })

  proxy.cut()
  caller.away(CLOSED_BOUND_MS)
  await becomes(app, 'stale', CLOSED_BOUND_MS)
  await writeGeneration(etcd, 1)
  await ages(app, CUT_MS)

  caller.back()
  proxy.heal()
  await inSync(app, etcd)
  t.equal(app.metadata.counters.loads, 2)
  t.strictSame(await caller.stop(), [])
})

t.test('a network that is silent for 15 s: connections stay open, and nothing arrives', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fillCluster(etcd)
  const proxy = await startProxy(t, etcd.endpoints[0] as string)
  const env = { KAFSCALE_MCP_ETCD_ENDPOINTS: proxy.endpoint }
  const { app, caller } = await buildAskedApp(t, etcd, env)
  // Their retries are out of step, so that the network heals at different moments of an attempt.
  const others: FastifyInstance[] = []
  for (let index = 0; index < 4; index++) {
    await setTimeout(300)
    others.push(await buildSyncedApp(t, etcd, env))
  }

  proxy.halfOpen()
  caller.away(SILENCE_BOUND_MS)
  await writeGeneration(etcd, 1)
  await Promise.all([app, ...others].map(async app => await becomes(app, 'stale', SILENCE_BOUND_MS)))
  t.equal(app.metadata.reason, 'etcd does not answer in time')
  await ages(app, CUT_MS)

  caller.back()
  proxy.heal()
  await Promise.all([app, ...others].map(async app => await inSync(app, etcd)))
  t.strictSame(await caller.stop(), [])
})

t.test('etcd paused', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fillCluster(etcd)
  const { app, caller } = await buildAskedApp(t, etcd)
  for (const ageMs of [0, 8_000]) {
    etcd.pause()
    caller.away(SILENCE_BOUND_MS)
    await becomes(app, 'stale', SILENCE_BOUND_MS)
    await ages(app, ageMs)

    caller.back()
    etcd.resume()
    await inSync(app, etcd)
  }
  t.strictSame(await caller.stop(), [])
})

for (const version of etcdVersions) {
  t.test(`etcd ${version} killed and started again`, needsEtcd(), async t => {
    const etcd = await startEtcd(t, { version })
    await fillCluster(etcd)
    const { app, caller } = await buildAskedApp(t, etcd)
    await writeGeneration(etcd, 1)
    await inSync(app, etcd)

    await etcd.kill()
    caller.away(CLOSED_BOUND_MS)
    await becomes(app, 'stale', CLOSED_BOUND_MS)
    const before = await askEveryTool(app)
    const write = writeGeneration(etcd, 2)
    write.catch(() => {}) // awaited below, unless the test fails before
    await ages(app, 3_000)
    t.strictSame(await askEveryTool(app), before, 'tools go on answering from the last state')
    t.match((await app.inject('/healthz')).json(), {
      status: 'ok',
      dependencies: { etcd: { state: 'stale', reason: "etcd can't be reached" } },
    })

    caller.back()
    await etcd.restart()
    await becomes(app, 'synced', SYNC_BOUND_MS)
    await write
    await inSync(app, etcd)
    t.notSame(await askEveryTool(app), before, 'what was written meanwhile is there')
    t.strictSame(await caller.stop(), [])
  })

  t.test(`etcd ${version} compacted past the mirror's revision while it was unreachable`, needsEtcd(), async t => {
    const etcd = await startEtcd(t, { version })
    await fillCluster(etcd)
    const proxy = await startProxy(t, etcd.endpoints[0] as string)
    const { app, caller } = await buildAskedApp(t, etcd, { KAFSCALE_MCP_ETCD_ENDPOINTS: proxy.endpoint })

    for (let round = 1; round <= 3; round++) {
      const known = app.metadata.mirror
      proxy.cut()
      caller.away(CLOSED_BOUND_MS)
      await becomes(app, 'stale', CLOSED_BOUND_MS)
      for (let write = 0; write < 3; write++) await writeGeneration(etcd, round * 10 + write)
      await etcd.client.delete().key(`/kafscale/group-leases/${round - 1}`).exec()
      await etcd.client.put(`/kafscale/group-leases/${round}`).value('1')
      t.ok(Number(await etcd.compact()) > (known?.revision ?? Infinity))
      t.equal(app.metadata.mirror, known, 'the old mirror stays until the new one is complete')

      caller.back()
      proxy.heal()
      await inSync(app, etcd)
      t.equal(app.metadata.counters.loads, round + 1)
    }
    t.strictSame(await caller.stop(), [])
  })

  t.test(`etcd ${version} tells a watch that its revision is compacted`, needsEtcd(), async t => {
    const etcd = await startEtcd(t, { version })
    await fillCluster(etcd)
    await etcd.compact()
    const connection = new EtcdConnection(etcd.endpoints[0] as string, grpc.credentials.createInsecure(), undefined)
    t.teardown(() => connection.close())
    const error = await new Promise(resolve =>
      connection.watch(2, { onOpen: () => {}, onEvents: resolve, onEnd: resolve })
    )
    t.type(error, CompactedError)
  })
}

t.test('an etcd that accepts connections and never answers', async t => {
  const open = new Set<Socket>()
  let attempts = 0
  const server = createServer(socket => {
    attempts++
    open.add(socket)
    socket.on('error', () => {}).on('close', () => open.delete(socket)).resume()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of open) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const endpoints = [`http://127.0.0.1:${port}`, `https://localhost:${port}`, 'http://127.0.0.1:1']
  const written = t.capture(process.stderr, 'write', () => true)
  const app = await buildTestApp(t, { KAFSCALE_MCP_ETCD_ENDPOINTS: endpoints.join(), KAFSCALE_MCP_LOG_LEVEL: 'info' })
  await app.ready()
  await waitFor(() => attempts > 4 || attempts, 15_000, 'attempts')
  await waitFor(() => open.size <= 1 || open.size, 1_000, 'the sockets of attempts that were given up to close')
  t.strictSame(
    written().map(({ args }) => JSON.parse(String(args[0])).endpoint),
    endpoints,
    'the log tells of each endpoint once'
  )
  written.restore()
  await app.close()
  await waitFor(() => open.size === 0 || open.size, 1_000, 'the last socket to close')
  t.equal(app.metadata.state, 'unavailable')
})

t.test('etcd absent at start', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fillCluster(etcd)
  for (
    const [how, { leave, comeBack, reason }] of Object.entries({
      'nothing listens': { leave: etcd.kill, comeBack: etcd.restart, reason: "etcd can't be reached" },
      'it accepts connections and does not answer': {
        leave: etcd.pause,
        comeBack: etcd.resume,
        reason: 'etcd does not answer in time',
      },
    })
  ) {
    t.test(how, async t => {
      await leave()
      const app = await buildTestApp(t, etcd.env)
      const url = await app.listen({ host: '127.0.0.1', port: 0 })
      t.equal((await fetch(`${url}/healthz`)).status, 200, 'the service starts')
      await waitFor(() => app.metadata.reason === reason || app.metadata.reason, SILENCE_BOUND_MS, 'the reason')

      const ready = await app.inject('/readyz')
      t.equal(ready.statusCode, 503)
      t.strictSame(ready.json(), { status: 'not ready', reason })
      const { etcd: dependency } = (await app.inject('/healthz')).json().dependencies
      t.match(dependency, { state: 'unavailable', reason })
      t.notOk('age_ms' in dependency || 'revision' in dependency, 'there is no age of what was never known')
      const { cluster_metrics: metrics, explain_access: _, ...answers } = await askEveryTool(app)
      t.match(metrics, /^METRICS_NOT_CONFIGURED: /)
      t.equal(Object.keys(answers).length, 8)
      for (const [tool, answer] of Object.entries(answers)) {
        t.equal(
          answer,
          `METADATA_UNAVAILABLE: The cluster metadata is not available: ${reason}. ` +
          'Call again in a few seconds; operators can find the reason at /healthz or with kafscale-mcp check.',
          tool
        )
      }

      await comeBack()
      await inSync(app, etcd)
      t.equal((await app.inject('/readyz')).statusCode, 200)
    })
  }
})

t.test('/readyz', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fillCluster(etcd)
  const strict = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_MAX_STALENESS: '4s' })
  const lenient = await buildSyncedApp(t, etcd)
  const never = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_MAX_STALENESS: '0' })
  const statuses = async () =>
    await Promise.all([strict, lenient, never].map(async app => (await app.inject('/readyz')).statusCode))
  t.strictSame(await statuses(), [200, 200, 200], 'synced')

  await etcd.kill()
  await becomes(strict, 'stale', CLOSED_BOUND_MS)
  t.strictSame(await statuses(), [200, 200, 200], 'stale, and not too old')
  await ages(strict, 4_001)
  t.strictSame(await statuses(), [503, 200, 200], 'too old; not so old; never too old')
  const { status, reason } = (await strict.inject('/readyz')).json()
  t.equal(status, 'not ready')
  t.match(reason, /^the metadata is \d{4} ms old, more than KAFSCALE_MCP_MAX_STALENESS: etcd can't be reached$/)

  await etcd.restart()
  await becomes(strict, 'synced', SYNC_BOUND_MS)
  t.strictSame(await statuses(), [200, 200, 200], 'synced again')
})
