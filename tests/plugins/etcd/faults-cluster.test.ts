/** The service while members of an etcd cluster fail, and with an etcd that requires authentication or TLS. */
import { Etcd3 } from 'etcd3'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { type Etcd, etcdVersions, needsEtcd, startEtcd } from '../../support/etcd.ts'
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
import { buildTestApp } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

t.jobs = 3 // most of the time is waiting

/** Probes are sent every 2 s: one is answered within this time. */
const PROBED_BOUND_MS = 4_000

/**
 * Waits for as many probes, each of which found the mirror current. Nothing may be written meanwhile, for that makes it
 * current too.
 */
async function probed (app: FastifyInstance, times = 2): Promise<void> {
  for (let time = 0; time < times; time++) {
    const observedAt = app.metadata.observedAt
    await waitFor(
      () => app.metadata.observedAt > observedAt || app.metadata.reason || app.metadata.ageMs,
      PROBED_BOUND_MS,
      'a probe'
    )
  }
}

/** The endpoints in another order. The service tries the first one first. */
const startingAt = ({ endpoints }: Etcd, first: number) =>
  ({ KAFSCALE_MCP_ETCD_ENDPOINTS: [...endpoints.slice(first), ...endpoints.slice(0, first)].join(',') })

t.test('a cluster of three', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { members: 3 })
  await fillCluster(etcd)
  let generation = 0

  t.test('changes its leader, to and from the member that the service is connected to', async t => {
    const { app, caller } = await buildAskedApp(t, etcd)
    for (let change = 0; change < 3; change++) {
      await etcd.moveLeader()
      await writeGeneration(etcd, ++generation)
      await inSync(app, etcd)
    }
    t.strictSame(await caller.stop(), [])
  })

  t.test('loses a member that the service is not connected to, which has no effect', async t => {
    const leader = await etcd.leader()
    const { app, caller } = await buildAskedApp(t, etcd, startingAt(etcd, leader))
    await etcd.kill((leader + 1) % 3)
    await probed(app)
    await writeGeneration(etcd, ++generation)
    await inSync(app, etcd)
    t.equal(app.metadata.counters.loads, 1, 'the connection is still the first')
    t.strictSame(await caller.stop(), [])
    await etcd.restart((leader + 1) % 3)
  })

  t.test('loses the member that the service is connected to, which connects to another', async t => {
    const connected = (await etcd.leader() + 1) % 3
    const { app, caller } = await buildAskedApp(t, etcd, startingAt(etcd, connected))
    await etcd.kill(connected)
    await waitFor(
      () => app.metadata.counters.loads === 2 || app.metadata.counters.loads,
      SYNC_BOUND_MS,
      'another connection'
    )
    await writeGeneration(etcd, ++generation)
    await inSync(app, etcd)
    t.strictSame(await caller.stop(), [])
    await etcd.restart(connected)
  })

  t.test('loses its leader, which the service is connected to', async t => {
    const leader = await etcd.leader()
    const { app, caller } = await buildAskedApp(t, etcd, startingAt(etcd, leader))
    await etcd.kill(leader)
    await becomes(app, 'stale', CLOSED_BOUND_MS)
    await writeGeneration(etcd, ++generation) // succeeds once there is another leader
    await inSync(app, etcd)
    t.strictSame(await caller.stop(), [])
    await etcd.restart(leader)
  })

  t.test('has a paused member, which the service is connected to', async t => {
    const paused = (await etcd.leader() + 1) % 3
    const { app, caller } = await buildAskedApp(t, etcd, startingAt(etcd, paused))
    etcd.pause(paused)
    await becomes(app, 'stale', SILENCE_BOUND_MS)
    await becomes(app, 'synced', SYNC_BOUND_MS)
    await writeGeneration(etcd, ++generation)
    await inSync(app, etcd)
    t.strictSame(await caller.stop(), [])
    etcd.resume(paused)
  })

  t.test('has no majority: what one member still knows is not current', async t => {
    const alone = await etcd.leader()
    const others = [(alone + 1) % 3, (alone + 2) % 3]
    const { app, caller } = await buildAskedApp(t, etcd, {
      KAFSCALE_MCP_ETCD_ENDPOINTS: etcd.endpoints[alone] as string,
    })
    for (const other of others) etcd.pause(other)
    caller.away(SILENCE_BOUND_MS)
    await becomes(app, 'stale', SILENCE_BOUND_MS)
    await ages(app, 5_000)
    t.equal(app.metadata.reason, 'etcd does not answer in time')

    caller.back()
    for (const other of others) etcd.resume(other)
    await writeGeneration(etcd, ++generation) // succeeds once there is a majority
    await inSync(app, etcd)
    t.strictSame(await caller.stop(), [])
  })
})

t.test('a first endpoint that is cut off from its majority delays nothing', needsEtcd(), async t => {
  // One endpoint is a member that has lost the others; the other endpoint stands for the rest of its cluster.
  const [lonely, majority] = await Promise.all([startEtcd(t, { members: 3 }), startEtcd(t)])
  await fillCluster(majority)
  await lonely.kill(1)
  await lonely.kill(2)
  const app = await buildTestApp(t, { KAFSCALE_MCP_ETCD_ENDPOINTS: `${lonely.endpoints[0]},${majority.endpoints[0]}` })
  await app.ready()
  await becomes(app, 'synced', SYNC_BOUND_MS)
  await t.resolves(inSync(app, majority))
})

for (const version of etcdVersions) {
  t.test(`etcd ${version} with authentication, as a user that can only read /kafscale/`, needsEtcd(), async t => {
    const etcd = await startEtcd(t, { version, auth: true, authTokenTtlSeconds: 1 })
    await fillCluster(etcd)
    const { app, caller } = await buildAskedApp(t, etcd)
    const tokens = async () =>
      await etcd.metric('grpc_server_handled_total', { grpc_method: 'Authenticate', grpc_code: 'OK' })

    t.test('continues when tokens expire', async t => {
      const before = await tokens()
      await probed(app, 3)
      t.ok(await tokens() >= before + 2, 'tokens had expired')
      await writeGeneration(etcd, 1)
      await inSync(app, etcd)
      t.equal(app.metadata.counters.loads, 1, 'on the same connection')
    })

    t.test('continues when users change, which invalidates tokens', async t => {
      await etcd.client.user('another').create('password')
      await probed(app)
      await writeGeneration(etcd, 2)
      await inSync(app, etcd)
      t.equal(app.metadata.counters.loads, 1, 'on the same connection')
    })

    t.test('reconnects after a restart, which invalidates all tokens', async t => {
      await etcd.kill()
      await becomes(app, 'stale', CLOSED_BOUND_MS)
      await etcd.restart()
      await becomes(app, 'synced', SYNC_BOUND_MS)
      await writeGeneration(etcd, 3)
      await inSync(app, etcd)
      t.equal(app.metadata.counters.loads, 2)
      t.strictSame(await caller.stop(), [], 'answers were right all along')
    })
  })
}

t.test('credentials that etcd requires only later', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  await fillCluster(etcd)
  await etcd.client.auth.authDisable()
  const { app, caller } = await buildAskedApp(t, etcd)
  const anybody = new Etcd3({ hosts: etcd.endpoints })
  t.teardown(() => anybody.close())
  await anybody.auth.authEnable()
  await waitFor(
    () => app.metadata.counters.loads === 2 || app.metadata.reason,
    SILENCE_BOUND_MS,
    'a connection with a token'
  )
  await writeGeneration(etcd, 1)
  await t.resolves(inSync(app, etcd))
  t.strictSame(await caller.stop(), [])
})

t.test('a wrong password', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  await fillCluster(etcd)
  const password = 'wr0ng-Passw0rd'
  const written = t.capture(process.stderr, 'write', () => true)
  const app = await buildTestApp(t, {
    ...etcd.env,
    KAFSCALE_MCP_ETCD_PASSWORD: password,
    KAFSCALE_MCP_LOG_LEVEL: 'trace',
  })
  await app.ready()
  const reason = 'etcd refuses the credentials'
  await waitFor(() => app.metadata.reason === reason || app.metadata.reason, SYNC_BOUND_MS, 'the reason')

  const ready = await app.inject('/readyz')
  t.equal(ready.statusCode, 503)
  t.strictSame(ready.json(), { status: 'not ready', reason })
  const { cluster_metrics: _, explain_access: __, ...answers } = await askEveryTool(app)
  t.equal(Object.keys(answers).length, 8)
  for (const answer of Object.values(answers)) {
    t.match(answer, `METADATA_UNAVAILABLE: The cluster metadata is not available: ${reason}.`)
  }
  const health = await app.inject('/healthz')
  t.match(health.json().dependencies.etcd, { state: 'unavailable', reason })

  // Once the password is right, the metadata is read: nothing else was refused.
  await etcd.client.user('kafscale').setPassword(password)
  await inSync(app, etcd)
  const log = written().map(({ args }) => String(args[0])).join('')
  written.restore()
  t.match(log, 'etcd lost')
  t.match(log, 'etcd loaded')
  for (const text of [log, health.body, ready.body, JSON.stringify(answers)]) {
    t.notMatch(text, password)
    t.notMatch(text, Buffer.from(password).toString('base64'))
  }
})

async function outlastsRestart (t: Test, etcd: Etcd): Promise<void> {
  const { app, caller } = await buildAskedApp(t, etcd)
  await writeGeneration(etcd, 1)
  await inSync(app, etcd)
  await etcd.kill()
  caller.away(CLOSED_BOUND_MS)
  await becomes(app, 'stale', CLOSED_BOUND_MS)
  caller.back()
  await etcd.restart()
  await becomes(app, 'synced', SYNC_BOUND_MS)
  await writeGeneration(etcd, 2)
  await inSync(app, etcd)
  t.strictSame(await caller.stop(), [])
}

async function neverSynced (t: Test, env: Record<string, string>): Promise<void> {
  const app = await buildTestApp(t, env)
  await app.ready()
  await waitFor(
    () => app.metadata.reason === "etcd can't be reached" || app.metadata.reason,
    SYNC_BOUND_MS,
    'the reason'
  )
  t.equal(app.metadata.state, 'unavailable')
}

t.test('TLS', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { tls: true })
  await fillCluster(etcd)
  await t.test('is used again after a restart', async t => await outlastsRestart(t, etcd))
  t.test('rejects a certificate of another CA', async t => {
    const { KAFSCALE_MCP_ETCD_CA_FILE: _, ...env } = etcd.env
    await neverSynced(t, env)
  })
  t.test('is required by etcd', async t => {
    await neverSynced(t, {
      KAFSCALE_MCP_ETCD_ENDPOINTS: etcd.env['KAFSCALE_MCP_ETCD_ENDPOINTS']!.replace('https:', 'http:'),
    })
  })
})

t.test('mutual TLS', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { tls: 'mutual' })
  await fillCluster(etcd)
  await t.test('is used again after a restart', async t => await outlastsRestart(t, etcd))
  t.test('requires a client certificate', async t => {
    const { KAFSCALE_MCP_ETCD_CERT_FILE: _, KAFSCALE_MCP_ETCD_KEY_FILE: __, ...env } = etcd.env
    await neverSynced(t, env)
  })
})
