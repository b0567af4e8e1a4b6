/** Whole services, over the wire. The brokers check that a service had the right to send a change. */
import t, { type Test } from 'tap'
import { authority } from '../../support/authorization.ts'
import { type BrokerDouble, startBroker } from '../../support/brokers/broker.ts'
import { normalize, SNAPSHOT_KEY } from '../../support/brokers/store.ts'
import { CLUSTER_ID } from '../../support/change-broker.ts'
import { type Etcd, needsEtcd, startEtcd } from '../../support/etcd.ts'
import { caller, NO_PROGRESS } from '../../support/replica.ts'
import { buildSyncedApp, caughtUp } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice', { method: 'jwks', issuer: 'https://issuer.example', claims: { sub: 'alice' } })
const POLICY = {
  roles: { operator: { allow: [{ operations: ['observe', 'propose', 'apply'] }] } },
  bindings: [{ role: 'operator', claim: 'sub', value: 'alice' }],
  changes: [{ environments: ['dev'], mode: 'direct' }],
}
const BOUND_MS = 8_000

/** Starts brokers, which log to `files` what they check against, and replicas of the service. */
async function start (t: Test, etcd: Etcd, { brokers: brokerCount = 1, replicas = 1 } = {}) {
  const files: string[] = []
  const brokers: BrokerDouble[] = []
  for (let nodeId = 0; nodeId < brokerCount; nodeId++) {
    brokers.push(await startBroker(t, etcd, { nodeId, checked: { auditFiles: files } }))
  }
  // As the operator writes it.
  await etcd.client.put(SNAPSHOT_KEY).value(JSON.stringify(normalize({
    Brokers: brokers.map(({ nodeId: NodeID, address }) => {
      const [Host = '', port] = address.split(':')
      return { NodeID, Host, Port: Number(port) }
    }),
    Topics: [],
    ClusterID: CLUSTER_ID,
  })))
  const apps = []
  for (let replica = 0; replica < replicas; replica++) {
    const { dir, env, policyFile } = await authority(t)
    files.push(`${dir}/audit.jsonl`)
    apps.push(await buildSyncedApp(t, etcd, {
      ...env,
      KAFSCALE_MCP_POLICY_FILE: policyFile(POLICY),
      KAFSCALE_MCP_ENVIRONMENT: 'dev',
      KAFSCALE_MCP_CHANGES: 'enabled',
      KAFSCALE_MCP_KAFKA_BROKERS: brokers.map(({ address }) => address).join(','),
      KAFSCALE_MCP_EXPECTED_CLUSTER_ID: CLUSTER_ID,
    }))
  }
  return { brokers, apps }
}

const propose = async ({ changes }: Awaited<ReturnType<typeof buildSyncedApp>>, topic: string) =>
  (await changes.propose(ALICE, 'create_topic', { topic, partitions: 3 }, new AbortController().signal)).change

t.test('a change goes through one broker, once, and the mirror proves it', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers, apps: [app] } = await start(t, etcd, { brokers: 2 })
  for (const topic of ['orders', 'payments']) {
    const { change_id: id } = await propose(app!, topic)
    t.match(await app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), {
      change: { state: 'applied', execution: { broker: brokers[0]!.address } },
    })
    await caughtUp(app!, etcd)
    t.equal(app!.metadata.mirror?.topic(topic)?.info?.partitions.length, 3)
  }
  t.strictSame(brokers.map(({ mutations }) => mutations.length), [2, 0], 'always the same one while it answers')
  await brokers[0]!.close()
  const { change_id: id } = await propose(app!, 'refunds')
  t.match(await app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), {
    change: { state: 'applied', execution: { broker: brokers[1]!.address } },
  })
})

t.test('two services that apply the same change at once send it once', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers: [broker], apps } = await start(t, etcd, { replicas: 2 })
  const { change_id: id } = await propose(apps[0]!, 'orders')
  await Promise.allSettled(apps.map(async ({ changes }) => await changes.apply(ALICE, id, undefined, NO_PROGRESS)))
  t.equal(broker!.mutations.length, 1)
  t.equal((await apps[1]!.changes.get(ALICE, id)).change.state, 'applied')
})

t.test('a broker with a stale view gets nothing', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers: [broker], apps: [app] } = await start(t, etcd)
  const { change_id: id } = await propose(app!, 'orders')
  broker!.goStale()
  await etcd.client.put(SNAPSHOT_KEY).value(JSON.stringify({ ...broker!.view, Topics: [{ Topic: 'other' }] }))
  await caughtUp(app!, etcd)
  const lacks = { code: 'BROKER_STALE', message: /it lacks the topic "other"/ }
  await t.rejects(app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), lacks)
  broker!.view.ClusterID = 'another'
  await t.rejects(app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), { code: 'CLUSTER_MISMATCH' })
  t.strictSame(broker!.mutations, [])
})

t.test('a lost answer and a ghost are ambiguous, and settled by the mirror', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers: [broker], apps: [app] } = await start(t, etcd)
  const stateOf = async (id: string) => (await app!.changes.get(ALICE, id)).change.state

  const lost = await propose(app!, 'lost')
  broker!.inject({ api: 'CreateTopics', when: 'after', what: 'drop' })
  const { change } = await app!.changes.apply(ALICE, lost.change_id, undefined, NO_PROGRESS)
  t.equal(change.state, 'ambiguous')
  await waitFor(async () => await stateOf(lost.change_id) === 'applied', BOUND_MS, 'settled')

  const ghost = await propose(app!, 'ghost')
  broker!.inject({ api: 'CreateTopics', what: 'ghost' })
  t.match(await app!.changes.apply(ALICE, ghost.change_id, undefined, NO_PROGRESS), { change: { state: 'ambiguous' } })
  t.equal(broker!.mutations.length, 2)
})
