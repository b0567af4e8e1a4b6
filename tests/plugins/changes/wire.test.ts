/** Changes through the real client to brokers over TCP, which prove that they received nothing without the right to. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Change, ChangeTool } from '../../../plugins/changes/change.ts'
import { kafkaAdminOf } from '../../../plugins/kafka-admin/index.ts'
import { type BrokerDouble, startBroker } from '../../support/brokers/broker.ts'
import { CLUSTER_ID } from '../../support/change-broker.ts'
import { type Etcd, needsEtcd, startEtcd } from '../../support/etcd.ts'
import { buildReplica, caller, NO_PROGRESS, type Replica, TestPolicy } from '../../support/replica.ts'
import { temporaryFolder } from '../../support/run.ts'
import { fill } from '../../support/service.ts'
import { commit, end, group, member } from '../../support/stored.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice')
const BOB = caller('bob')
const SOON_MS = 4_000

interface Setup { etcd: Etcd, brokers: BrokerDouble[], replicas: Replica[], policy: TestPolicy }

/** A cluster with a topic, and replicas that change it through its brokers. */
async function setUp (t: Test, counts: { brokers?: number, replicas?: number } = {}): Promise<Setup> {
  const etcd = await startEtcd(t)
  const nodeIds = Array.from({ length: counts.brokers ?? 1 }, (_, index) => index)
  await fill(etcd, [{
    key: '/kafscale/metadata/snapshot',
    value: JSON.stringify({
      Brokers: nodeIds.map(NodeID => ({ NodeID, Host: `broker-${NodeID}`, Port: 9092 })),
      ControllerID: 0,
      Topics: [{ Topic: 'orders', Partitions: [{ Partition: 0 }] }],
      ClusterName: 'test',
      ClusterID: CLUSTER_ID,
    }),
  }])
  const dir = temporaryFolder(t)
  const auditFiles = Array.from({ length: counts.replicas ?? 1 }, (_, index) => join(dir, `audit-${index}.jsonl`))
  const policy = new TestPolicy()
  const addresses: string[] = []
  const replicas: Replica[] = []
  for (const auditFile of auditFiles) {
    const kafka = { brokers: addresses, clientId: 'kafscale-mcp', tls: undefined, sasl: undefined }
    const admin = kafkaAdminOf(kafka)
    replicas.push(await buildReplica(t, { endpoints: etcd.endpoints, admin, auditFile, policy }))
    t.teardown(async () => { await admin.close() })
  }
  const brokers: BrokerDouble[] = []
  for (const nodeId of nodeIds) brokers.push(await startBroker(t, etcd, { nodeId, checked: { auditFiles } }))
  addresses.push(...brokers.map(({ address }) => address))
  return { etcd, brokers, replicas, policy }
}

async function propose ({ changes }: Replica, tool: ChangeTool, args: Record<string, unknown>): Promise<Change> {
  return (await changes.propose(ALICE, tool, args, new AbortController().signal)).change
}

async function apply ({ changes }: Replica, { change_id: id }: Change): Promise<Change> {
  return (await changes.apply(ALICE, id, undefined, NO_PROGRESS)).change
}

const create = async (replica: Replica, topic = 'payments') =>
  await propose(replica, 'create_topic', { topic, partitions: 2 })

t.test('each change of a broker is one request after one look at its view', needsEtcd(), async t => {
  const { etcd, brokers: [broker], replicas: [replica] } = await setUp(t)
  await fill(etcd, [end('orders', 0, 9), group('stale', member('m', {})), commit('stale', 'orders', 0, 3)])
  const changes: [ChangeTool, Record<string, unknown>, api: string][] = [
    ['create_topic', { topic: 'payments', partitions: 2 }, 'CreateTopics'],
    ['create_partitions', { topic: 'orders', partitions: 3 }, 'CreatePartitions'],
    ['update_topic_config', { topic: 'orders', config: { 'retention.ms': '604800000' } }, 'AlterConfigs'],
    ['delete_group', { group_id: 'stale' }, 'DeleteGroups'],
    ['delete_topic', { topic: 'orders' }, 'DeleteTopics'],
  ]
  for (const [tool, args, api] of changes) {
    const planned = await propose(replica!, tool, args)
    const before = broker!.log.length
    t.match(await apply(replica!, planned), { state: 'applied', outcome: { error: null } }, tool)
    t.strictSame(broker!.log.slice(before).map(({ api }) => api), ['ApiVersions', 'Metadata', api], tool)
  }
  t.equal(broker!.mutations.length, changes.length)
})

t.test('an approved change is proven as well', needsEtcd(), async t => {
  const { brokers: [broker], replicas: [replica], policy } = await setUp(t)
  policy.mode = 'approval'
  const planned = await create(replica!)
  await t.rejects(apply(replica!, planned), { code: 'APPROVAL_REQUIRED' })
  await replica!.changes.approve(BOB, planned.change_id, planned.digest, null)
  t.match(await apply(replica!, planned), { state: 'applied' })
  t.equal(broker!.mutations.length, 1)
})

t.test('two replicas that apply the same change at once send it once', needsEtcd(), async t => {
  const { brokers: [broker], replicas } = await setUp(t, { replicas: 2 })
  const planned = await create(replicas[0]!)
  const results = await Promise.allSettled(replicas.map(async replica => await apply(replica, planned)))
  t.ok(results.some(result => result.status === 'fulfilled' && result.value.state === 'applied'))
  t.equal(broker!.mutations.length, 1)
})

t.test('nothing is sent to a broker of another cluster, or with another view', needsEtcd(), async t => {
  const { brokers: [first, second], replicas: [replica] } = await setUp(t, { brokers: 2 })
  const planned = await create(replica!)
  first!.goStale()
  first!.view.ClusterID = 'another'
  await t.rejects(apply(replica!, planned), { code: 'CLUSTER_MISMATCH' })
  first!.view.ClusterID = CLUSTER_ID
  await second!.store.createTopic('refunds', 1, 1)
  await waitFor(
    () => replica!.parts.metadata.mirror?.topic('refunds') !== undefined,
    SOON_MS,
    'the mirror shows what another broker wrote'
  )
  await t.rejects(apply(replica!, planned), { code: 'BROKER_STALE', message: /it lacks the topic "refunds"/ })
  t.strictSame([...first!.mutations, ...second!.mutations], [])
  await first!.store.refresh()
  t.match(await apply(replica!, planned), { state: 'applied' })
})

t.test('what a broker refuses, denies or silently leaves out has failed', needsEtcd(), async t => {
  const { brokers: [broker], replicas: [replica] } = await setUp(t)
  const refused = async (code: string, message: RegExp, refuse: () => unknown) => {
    const planned = await create(replica!)
    refuse()
    t.match(await apply(replica!, planned), { state: 'failed', outcome: { error: { code, message } } }, code)
  }
  await refused('BROKER_REFUSED', /without the result of this change/, () =>
    broker!.inject({ api: 'CreateTopics', what: 'missing' }))
  await refused('BROKER_REFUSED', /etcd unavailable/, () =>
    broker!.inject({ api: 'CreateTopics', what: 7, message: 'etcd unavailable' }))
  await refused('BROKER_DENIED', /kafscale-mcp/, () => broker!.denied.add('kafscale-mcp'))
  t.equal(broker!.mutations.length, 3)
})

t.test('a change that was answered with −1 is applied with the next one on that broker', needsEtcd(), async t => {
  const { brokers: [broker], replicas: [replica] } = await setUp(t)
  replica!.settler.start()
  const planned = await create(replica!)
  broker!.inject({ api: 'CreateTopics', what: 'ghost' })
  const ghost = await apply(replica!, planned)
  t.equal(ghost.state, 'ambiguous')
  await broker!.store.createTopic('refunds', 1, 1)
  await waitFor(async () => {
    const { change } = await replica!.changes.get(ALICE, ghost.change_id)
    return change.state === 'applied' || change.state
  }, SOON_MS, 'settled')
  t.equal(broker!.mutations.length, 1)
})
