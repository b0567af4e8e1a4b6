import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { authority, clientOf } from '../support/authorization.ts'
import { startControl } from '../support/brokers/control.ts'
import { initialSnapshot, SNAPSHOT_KEY } from '../support/brokers/store.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { buildSyncedApp } from '../support/service.ts'

/** A service whose two brokers have one control plane, on which only broker 0 answers. */
async function setUp (t: Test, more: Record<string, string> = {}) {
  const etcd = await startEtcd(t)
  const control = await startControl(t)
  const { dir, env, token, policyFile } = await authority(t)
  writeFileSync(join(dir, 'audit.jsonl'), '')
  const snapshot = initialSnapshot(0, '127.0.0.1', 9092)
  const [broker] = snapshot.Brokers ?? []
  await etcd.client.put(SNAPSHOT_KEY).value(JSON.stringify({
    ...snapshot, ClusterID: 'cluster-1', Brokers: [broker, { ...broker, NodeID: 1, Host: '127.0.0.2' }],
  }))
  const app = await buildSyncedApp(t, etcd, {
    ...env,
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_ENVIRONMENT: 'dev',
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: 'cluster-1',
    KAFSCALE_MCP_KAFKA_BROKERS: '127.0.0.1:1',
    KAFSCALE_MCP_METRICS_ALLOWED_HOSTS: '127.0.0.0/8',
    KAFSCALE_MCP_POLICY_FILE: policyFile({
      bindings: [{ role: 'observer', claim: 'sub', value: 'alice' }],
      changes: [{ mode: 'direct' }],
    }),
    KAFSCALE_MCP_BROKER_CONTROL_ADDR: `{host}:${control.address.split(':')[1]}`,
    ...more,
  })
  return clientOf(app, await token('alice', { scope: 'kafscale:observe' }))
}

t.test('broker_status returns what each broker says, and why one does not answer', needsEtcd(), async t => {
  const alice = await setUp(t)
  const { brokers } = await alice.ask('broker_status')
  t.match(brokers, [
    {
      node_id: 0,
      host: '127.0.0.1',
      reachable: true,
      version: 'dev',
      ready: true,
      s3_state: 'healthy',
      s3_latency_ms: 23,
      s3_error_rate: 0.015,
    },
    { node_id: 1, host: '127.0.0.2', reachable: false, ready: null, error: /control plane of broker 1/ },
  ])

  t.test('or only one broker, which the snapshot must list', async t => {
    t.match(await alice.ask('broker_status', { node_id: 0 }), { brokers: [{ node_id: 0 }] })
    await t.rejects(alice.ask('broker_status', { node_id: 7 }), { message: /"node_id" must be one of 0, 1/ })
  })
})

t.test('broker_status does not exist without an address of the control plane', needsEtcd(), async t => {
  const alice = await setUp(t, { KAFSCALE_MCP_BROKER_CONTROL_ADDR: '' })
  await t.rejects(alice.ask('broker_status'), { message: /broker_status/ })
})
