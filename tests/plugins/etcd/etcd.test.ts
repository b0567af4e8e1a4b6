/** The etcd that the other tests use, `support/etcd.ts`. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { noop } from 'cockatiel'
import { Etcd3 } from 'etcd3'
import t, { type Test } from 'tap'
import { type Etcd, etcdVersions, needsEtcd, startEtcd } from '../../support/etcd.ts'
import { ROOT } from '../../support/paths.ts'
import { scaled, TIME_SCALE } from '../../support/run.ts'
import { spawnClean } from '../../support/spawn.ts'
import { waitFor } from '../../support/wait-for.ts'

t.jobs = 4 // most of the time is waiting

/**
 * A client that connects to one endpoint with the service's credentials. It does not retry, and gives up after half a
 * second without an answer.
 */
function serviceClient (t: Test, { env }: Etcd, endpoint = env['KAFSCALE_MCP_ETCD_ENDPOINTS']!): Etcd3 {
  const pem = (name: string) => readFileSync(env[`KAFSCALE_MCP_ETCD_${name}_FILE`]!)
  const client = new Etcd3({
    hosts: endpoint,
    ...env['KAFSCALE_MCP_ETCD_USERNAME'] &&
      { auth: { username: env['KAFSCALE_MCP_ETCD_USERNAME'], password: env['KAFSCALE_MCP_ETCD_PASSWORD']! } },
    ...env['KAFSCALE_MCP_ETCD_CA_FILE'] &&
      {
        credentials: {
          rootCertificate: pem('CA'),
          ...env['KAFSCALE_MCP_ETCD_CERT_FILE'] && { certChain: pem('CERT'), privateKey: pem('KEY') },
        },
      },
    defaultCallOptions: () => ({ deadline: Date.now() + scaled(500) }),
    grpcOptions: { 'grpc.use_local_subchannel_pool': 1 },
    faultHandling: { global: noop, host: () => noop },
  })
  t.teardown(() => client.close())
  return client
}

for (const version of etcdVersions) {
  t.test(`etcd ${version}`, needsEtcd(), async t => {
    const etcd = await startEtcd(t, { version })
    const { client } = etcd
    await client.put('/kafscale/a').value('1')

    t.test('counts requests', async t => {
      const puts = async () => await etcd.metric('grpc_server_handled_total', { grpc_method: 'Put', grpc_code: 'OK' })
      const before = await puts()
      await client.put('/kafscale/a').value('2')
      t.equal(await puts(), before + 1)
      t.equal(await etcd.metric('grpc_server_handled_total', { grpc_method: 'None' }), 0)
    })

    t.test('does not answer after a kill, and keeps address and data over a restart', async t => {
      await etcd.kill()
      await t.rejects(serviceClient(t, etcd).get('/kafscale/a').string())
      await etcd.restart()
      t.equal(await client.get('/kafscale/a').string(), '2')
      t.equal(await serviceClient(t, etcd).get('/kafscale/a').string(), '2')
    })

    t.test('completes a write that began while it was down', async t => {
      await etcd.kill()
      const write = client.put('/kafscale/a').value('3')
      await etcd.restart()
      await write
      t.equal(await client.get('/kafscale/a').string(), '3')
    })

    t.test('does not answer while paused', async t => {
      etcd.pause()
      await t.rejects(serviceClient(t, etcd).get('/kafscale/a').string(), /DEADLINE_EXCEEDED/)
      etcd.resume()
      t.equal(await client.get('/kafscale/a').string(), '3')
    })

    t.test('has no revisions before the one that it is compacted to', async t => {
      const revision = await etcd.compact()
      t.equal(await client.get('/kafscale/a').revision(revision).string(), '3')
      await t.rejects(client.get('/kafscale/a').revision(Number(revision) - 1).string(), /compacted/)
    })
  })

  t.test(`etcd ${version} with users`, needsEtcd(), async t => {
    const etcd = await startEtcd(t, { version, auth: true })
    await etcd.client.put('/kafscale/a').value('1')
    await etcd.client.put('/other').value('1')
    const client = serviceClient(t, etcd)
    t.equal(await client.get('/kafscale/a').string(), '1')
    await t.rejects(client.get('/other').string(), /PERMISSION_DENIED/)
    await t.rejects(client.put('/kafscale/a').value('2').exec(), /PERMISSION_DENIED/)
    await etcd.restart()
    await etcd.client.put('/kafscale/a').value('2')
    t.equal(await client.get('/kafscale/a').string(), '2', 'after tokens are lost')
  })

  t.test(`etcd ${version} over TLS`, needsEtcd(), async t => {
    const etcd = await startEtcd(t, { version, tls: 'mutual' })
    await etcd.client.put('/kafscale/a').value('1')
    t.equal(await serviceClient(t, etcd).get('/kafscale/a').string(), '1')
    const { KAFSCALE_MCP_ETCD_CERT_FILE: _, ...env } = etcd.env
    await t.rejects(serviceClient(t, { ...etcd, env }).get('/kafscale/a').string(), 'without a client certificate')
  })
}

t.test('a cluster works without one of its members, which can rejoin', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { members: 3 })
  const { client, endpoints } = etcd
  t.equal(endpoints.length, 3)
  const leader = await etcd.moveLeader()
  t.equal(await etcd.leader(), leader)
  await etcd.kill(leader)
  await client.put('/kafscale/a').value('1')
  await t.rejects(serviceClient(t, etcd, endpoints[leader]).get('/kafscale/a').string())
  await etcd.restart(leader)
  t.equal(await serviceClient(t, etcd, endpoints[leader]).get('/kafscale/a').string(), '1')
})

t.test('an etcd ends with its test, even when it is paused', needsEtcd(), async t => {
  let left: Etcd | undefined
  await t.test('its test', async t => {
    left = await startEtcd(t)
    t.equal(await left.client.get('/kafscale/a').string(), null)
    left.pause()
  })
  await t.rejects(fetch(left!.endpoints[0]!, { signal: AbortSignal.timeout(scaled(1_000)) }), {
    cause: { code: 'ECONNREFUSED' },
  })
})

t.test('an etcd ends with the process of its test, even when that is killed', needsEtcd(), async t => {
  const script = `
    import { startEtcd } from './tests/support/etcd.ts'
    console.log((await startEtcd({ teardown () {} })).endpoints[0])
  `
  const child = spawnClean(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], TEST_FOLDER: t.testdir(), TEST_TIME_SCALE: `${TIME_SCALE}` },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [endpoint] = await once(child.stdout!, 'data')
  child.kill('SIGKILL')
  const outcome = async () =>
    await fetch(String(endpoint).trim()).then(({ status }) => status, ({ cause }) => cause.code)
  await t.resolves(waitFor(async () => await outcome() === 'ECONNREFUSED' || outcome(), 2_000, 'the end of etcd'))
})
