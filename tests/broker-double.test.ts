/** The double of a broker that the tests of changes run against: it answers and stores what a KafScale broker does. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  alterConfigsV1,
  ConfigResourceTypes,
  Connection,
  createPartitionsV3,
  createTopicsV2,
  createTopicsV7,
  deleteGroupsV2,
  deleteTopicsV2,
  deleteTopicsV6,
  describeConfigsV4,
  incrementalAlterConfigsV1,
  metadataV12,
  ResponseError,
} from '@platformatic/kafka'
import t, { type Test } from 'tap'
import { channelCredentials } from '../lib/grpc-channel.ts'
import { rpcClient } from '../plugins/broker-control/rpc.ts'
import type { Change } from '../plugins/changes/change.ts'
import { type BrokerDouble, type BrokerOptions, startBroker } from './support/brokers/broker.ts'
import { startControl } from './support/brokers/control.ts'
import { type Etcd, needsEtcd, startEtcd } from './support/etcd.ts'
import { encodeConsumerGroup, encodePartitionState, encodeTopicConfig } from './support/generate.ts'
import { scaled, temporaryFolder } from './support/run.ts'
import { fill } from './support/service.ts'
import { commit, end, group, lease, member, snapshot } from './support/stored.ts'
import { waitFor } from './support/wait-for.ts'

const EXEMPT: BrokerOptions = { checked: { exempt: 'no service takes part' } }
const SOON_MS = 2_000

async function startBrokers (t: Test, topics: Record<string, number[]>, nodeIds = [0]) {
  const etcd = await startEtcd(t)
  await fill(etcd, [snapshot(topics, nodeIds)])
  const brokers = await Promise.all(nodeIds.map(async nodeId => await startBroker(t, etcd, { ...EXEMPT, nodeId })))
  return { etcd, broker: brokers[0]!, brokers }
}

async function connect (t: Test, { address }: BrokerDouble, clientId = 'test'): Promise<Connection> {
  const [host = '', port] = address.split(':')
  const connection = new Connection(clientId)
  connection.on('error', () => {})
  await connection.connect(host, Number(port))
  t.teardown(async () => { await connection.close() })
  return connection
}

/** The codes of a response's items: 0, or those that the client throws. */
async function codes (response: Promise<unknown>): Promise<number[]> {
  return await response.then(() => [0], (error: unknown) => {
    if (!(error instanceof ResponseError)) throw error
    return error.errors.map(({ apiCode }: { apiCode?: number }) => Number(apiCode))
  })
}

const topic = (name: string, numPartitions = 1, replicationFactor = 1) =>
  ({ name, numPartitions, replicationFactor, assignments: [], configs: [] })
const create = async (connection: Connection, name: string, partitions = 1, replication = 1, validateOnly = false) =>
  await codes(createTopicsV2.api.async(connection, [topic(name, partitions, replication)], 1_000, validateOnly))
const extend = async (connection: Connection, name: string, count: number, validateOnly = false) =>
  await codes(createPartitionsV3.api.async(connection, [{ name, count, assignments: [] }], 1_000, validateOnly))
const remove = async (connection: Connection, name: string) =>
  await codes(deleteTopicsV2.api.async(connection, [{ name }], 1_000))
const removeGroup = async (connection: Connection, groupId: string) =>
  await codes(deleteGroupsV2.api.async(connection, [groupId]))
const alter = async (connection: Connection, name: string, config: Record<string, string | null>, type = 2) =>
  await codes(alterConfigsV1.api.async(
    connection,
    [{
      resourceType: type,
      resourceName: name,
      configs: Object.entries(config).map(([name, value]) => ({ name, value })),
    }],
    false
  ))

async function topicsIn ({ client }: Etcd): Promise<Record<string, number>> {
  const stored = JSON.parse(await client.get('/kafscale/metadata/snapshot').string() ?? '{}')
  return Object.fromEntries((stored.Topics ?? []).map(
    ({ Topic, Partitions }: { Topic: string, Partitions: unknown[] }) => [Topic, Partitions.length]
  ))
}
const keys = async ({ client }: Etcd, prefix: string) => (await client.getAll().prefix(prefix).keys()).sort()

t.test('creates topics', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0] })
  const connection = await connect(t, broker)
  t.strictSame(await create(connection, 'payments', 3, 1, true), [0], 'validate_only')
  t.strictSame(await topicsIn(etcd), { orders: 1 }, 'changes nothing')
  t.strictSame(await create(connection, 'a&b', 2), [0])
  t.strictSame(await topicsIn(etcd), { orders: 1, 'a&b': 2 })
  t.match(await etcd.client.get('/kafscale/metadata/snapshot').string(), '"Topic":"a\\u0026b","TopicID":[')
  t.strictSame(await keys(etcd, '/kafscale/topics/'), [], 'no other key')

  t.strictSame(await create(connection, 'orders'), [36])
  t.strictSame(await create(connection, 'orders', 1, 1, true), [36])
  t.strictSame(await create(connection, 'other', 1, 2), [17], 'more replicas than brokers')
  t.strictSame(await create(connection, 'other', 0), [17])
  t.strictSame(await create(connection, ''), [17])
  t.strictSame(await create(connection, 'other', 1, -1), [0], 'one replica')
})

t.test('answers an unsupported version with an empty success, and does nothing', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0] })
  const connection = await connect(t, broker)
  t.strictSame((await createTopicsV7.api.async(connection, [topic('payments')], 1_000, false)).topics, [])
  t.strictSame((await deleteTopicsV6.api.async(connection, [{ name: 'orders' }], 1_000)).responses, [])
  const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: 'orders', configs: [] }
  t.strictSame((await incrementalAlterConfigsV1.api.async(connection, [resource], false)).responses, [])
  t.strictSame(await topicsIn(etcd), { orders: 1 })
  t.equal(broker.mutations.length, 3, 'the log counts them as mutations even so')
})

t.test('creates a topic that Metadata names', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0, 1] })
  const connection = await connect(t, broker)
  const all = await metadataV12.api.async(connection, null, false)
  t.match(all, { clusterId: null, brokers: [{ nodeId: 0 }], topics: [{ name: 'orders', partitions: [{}, {}] }] })
  t.strictSame((await metadataV12.api.async(connection, [], false)).topics.length, 1, 'an empty list is all topics')
  t.strictSame(broker.mutations, [])
  t.match(await metadataV12.api.async(connection, ['typo'], false), { topics: [{ name: 'typo', partitions: [{}] }] })
  t.strictSame(await topicsIn(etcd), { orders: 2, typo: 1 })
  t.equal(broker.mutations.length, 1)
})

t.test('deletes a topic with its config, its ends and its commits', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0], other: [0] })
  const connection = await connect(t, broker)
  await fill(etcd, [
    end('orders', 0, 5), end('other', 0, 5), lease('orders', 0, 0),
    commit('g', 'orders', 0, 3), commit('g', 'other', 0, 3), commit('h', 'orders', 0, 1),
    { key: '/kafscale/topics/orders/config', value: encodeTopicConfig({ name: 'orders' }) },
  ])
  t.strictSame(await remove(connection, 'unknown'), [3])
  t.strictSame(await remove(connection, 'orders'), [0])
  t.strictSame(await topicsIn(etcd), { other: 1 })
  t.strictSame(await keys(etcd, '/kafscale/topics/'), ['/kafscale/topics/other/partitions/0/next_offset'])
  t.strictSame(await keys(etcd, '/kafscale/consumers/'), ['/kafscale/consumers/g/offsets/other/0'])
  t.strictSame(await keys(etcd, '/kafscale/partition-leases/'), ['/kafscale/partition-leases/orders/0'])
})

t.test('a producer with an open log brings a deleted topic back', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0, 1] })
  const connection = await connect(t, broker)
  broker.keepProducing('orders', 1, 700)
  t.strictSame(await remove(connection, 'orders'), [0])
  await waitFor(async () => {
    const end = await etcd.client.get('/kafscale/topics/orders/partitions/1/next_offset').string()
    return end === '700' || end
  }, SOON_MS, 'the end is back')
  t.strictSame(await topicsIn(etcd), { orders: 1 }, 'with one partition')
})

t.test('adds partitions', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0] })
  const connection = await connect(t, broker)
  t.strictSame(await extend(connection, 'orders', 3, true), [0])
  t.strictSame(await topicsIn(etcd), { orders: 1 })
  t.strictSame(await extend(connection, 'orders', 3), [0])
  t.strictSame(await topicsIn(etcd), { orders: 3 })
  t.strictSame(
    await keys(etcd, '/kafscale/topics/'),
    ['/kafscale/topics/orders/partitions/1', '/kafscale/topics/orders/partitions/2']
  )
  const state = await etcd.client.get('/kafscale/topics/orders/partitions/2').buffer()
  t.strictSame(state, encodePartitionState('orders', 2, '0'))
  t.strictSame(await extend(connection, 'orders', 3), [37])
  t.strictSame(await extend(connection, 'orders', 0), [37])
  t.strictSame(await extend(connection, 'unknown', 2), [3])
  t.strictSame(await extend(connection, ' ', 2), [17])
  const twice = Array.from({ length: 2 }, () => ({ name: 'orders', count: 4, assignments: [] }))
  t.strictSame(await codes(createPartitionsV3.api.async(connection, twice, 1_000, true)), [42], 'named twice')
  const assigned = { name: 'orders', count: 4, assignments: [{ brokerIds: [0] }] }
  t.strictSame(await codes(createPartitionsV3.api.async(connection, [assigned], 1_000, true)), [42])
})

t.test('alters configs', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0, 1] })
  const connection = await connect(t, broker)
  const described = async () => {
    const answer = await describeConfigsV4.api.async(
      connection,
      [{ resourceType: 2, resourceName: 'orders', configurationKeys: null }],
      false,
      false
    )
    return answer.results[0]?.configs.map(({ name, value, configSource }) => `${name}=${value} (${configSource})`)
  }
  t.strictSame(await described(), ['retention.ms=-1 (5)', 'retention.bytes=-1 (5)', 'segment.bytes=4194304 (5)'])
  t.strictSame(await alter(connection, 'orders', { 'retention.ms': ' 5 ' }), [0])
  t.strictSame(await alter(connection, 'orders', { 'segment.bytes': '1024' }), [0], 'merges')
  t.strictSame(await described(), ['retention.ms=5 (1)', 'retention.bytes=-1 (5)', 'segment.bytes=1024 (1)'])
  t.strictSame(await keys(etcd, '/kafscale/topics/'), ['/kafscale/topics/orders/config'])

  for (const config of [
    { 'retention.ms': '-2' }, { 'retention.ms': 'a week' }, { 'retention.ms': null }, { 'segment.bytes': '0' },
    { 'cleanup.policy': 'compact' }, { 'retention.bytes': '9223372036854775808' },
  ]) t.strictSame(await alter(connection, 'orders', config), [40], JSON.stringify(config))
  t.strictSame(await alter(connection, 'orders', { 'retention.ms': '9', 'cleanup.policy': 'x' }), [40])
  t.match(await described(), ['retention.ms=5 (1)'], 'nothing of it is stored')
  t.strictSame(await alter(connection, 'unknown', {}), [3])
  t.strictSame(await alter(connection, '0', {}, 4), [42], 'a broker')
})

t.test('deletes groups without their offsets, and members join again', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0] })
  const connection = await connect(t, broker)
  await fill(etcd, [group('stale', member('m', { orders: [0] })), commit('stale', 'orders', 0, 1)])
  await fill(etcd, [commit('idle', 'orders', 0, 1)])
  t.strictSame(await removeGroup(connection, 'stale'), [0])
  t.strictSame(await removeGroup(connection, 'stale'), [69])
  t.strictSame(await removeGroup(connection, 'idle'), [69], 'a group that has only offsets')
  t.strictSame(await removeGroup(connection, ' '), [42])
  await fill(etcd, [group('twice')])
  t.strictSame(await codes(deleteGroupsV2.api.async(connection, ['twice', 'twice'])), [69, 69], 'named twice')
  t.strictSame(await keys(etcd, '/kafscale/consumers/'), [
    '/kafscale/consumers/idle/offsets/orders/0', '/kafscale/consumers/stale/offsets/orders/0',
  ])

  await broker.keepMembers('live', encodeConsumerGroup({ groupId: 'live', state: 'stable' }))
  t.strictSame(await removeGroup(connection, 'live'), [0])
  await waitFor(
    async () => (await etcd.client.get('/kafscale/consumers/live/metadata').buffer()) !== null,
    SOON_MS,
    'its members are back'
  )
})

t.test('the ACL and the admin switch refuse changes with the codes of each API', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0] })
  broker.denied.add('agent')
  const connection = await connect(t, broker, 'agent')
  t.strictSame(await create(connection, 'payments'), [29])
  t.strictSame(await remove(connection, 'orders'), [29])
  t.strictSame(await extend(connection, 'orders', 2), [29])
  t.strictSame(await alter(connection, 'orders', {}), [29])
  t.strictSame(await alter(connection, '0', {}, 4), [31])
  t.strictSame(await removeGroup(connection, 'g'), [30])

  const other = await startBroker(t, etcd, { ...EXEMPT, allowAdminApis: false })
  const allowed = await connect(t, other)
  t.strictSame(await create(allowed, 'payments'), [29])
  t.strictSame(await remove(allowed, 'orders'), [29])
  t.strictSame(await extend(allowed, 'orders', 2), [0], 'the switch does not apply to partitions')
})

t.test('a change that was answered with −1 comes with the next one', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0] })
  const connection = await connect(t, broker)
  broker.inject({ api: 'CreateTopics', what: 'ghost' })
  t.strictSame(await create(connection, 'payments'), [-1])
  t.strictSame(await create(connection, 'payments'), [36], 'it stays in memory')
  t.strictSame(await topicsIn(etcd), { orders: 1 })
  t.strictSame(await create(connection, 'refunds'), [0])
  t.strictSame(await topicsIn(etcd), { orders: 1, payments: 1, refunds: 1 })
})

t.test('without etcd, the first change is answered with −1 and the next ones with 7', needsEtcd(), async t => {
  const { etcd, brokers: [broker, second, third] } = await startBrokers(t, { orders: [0] }, [0, 1, 2])
  const connection = await connect(t, broker!)
  const [other, another] = [await connect(t, second!), await connect(t, third!)]
  await etcd.kill()
  t.strictSame(await alter(other, 'orders', {}), [3], 'a config that cannot be read is that of an unknown topic')
  t.strictSame(await removeGroup(another, 'g'), [-1])
  t.strictSame(await extend(connection, 'orders', 2), [-1])
  t.strictSame(await create(connection, 'payments'), [7])
  t.strictSame(await alter(connection, 'orders', {}), [7])
  await etcd.restart()
  await waitFor(() => broker!.store.available, 10_000, 'the broker has noticed that etcd is back')
  t.strictSame(await create(connection, 'payments'), [0])
  t.strictSame(await topicsIn(etcd), { orders: 2, payments: 1 })
})

t.test('a broker with a stale view overwrites what another one wrote', needsEtcd(), async t => {
  const { etcd, brokers: [one, two] } = await startBrokers(t, { orders: [0] }, [0, 1])
  const [first, second] = [await connect(t, one!), await connect(t, two!)]
  t.strictSame(await create(first, 'a'), [0])
  await waitFor(() => two!.store.topic('a') !== undefined, SOON_MS, 'the other broker follows')
  two!.goStale()
  t.strictSame(await create(first, 'b'), [0])
  t.strictSame(await create(second, 'c'), [0])
  t.strictSame(await topicsIn(etcd), { orders: 1, a: 1, c: 1 })
})

t.test('a broker that was stopped acts upon its view from before', needsEtcd(), async t => {
  const { etcd, brokers: [one, two] } = await startBrokers(t, { orders: [0] }, [0, 1])
  const [first, second] = [await connect(t, one!), await connect(t, two!)]
  two!.freeze()
  const waiting = create(second, 'b')
  await waitFor(() => two!.log.length === 1, SOON_MS, 'the request has arrived')
  t.strictSame(await create(first, 'a'), [0])
  two!.thaw()
  t.strictSame(await waiting, [0])
  t.strictSame(await topicsIn(etcd), { orders: 1, b: 1 })
})

t.test('a broker that was started without etcd replaces the snapshot', needsEtcd(), async t => {
  const { etcd } = await startBrokers(t, { orders: [0, 1], payments: [0] })
  const broker = await startBroker(t, etcd, { ...EXEMPT, nodeId: 5, withoutEtcd: true })
  const connection = await connect(t, broker)
  t.match(await metadataV12.api.async(connection, null), {
    clusterId: 'kafscale-cluster',
    brokers: [{ nodeId: 5 }],
    topics: [{ name: 'orders', partitions: [{ leaderId: 5 }] }],
  })
  t.strictSame(await create(connection, 'refunds'), [0])
  t.strictSame(await topicsIn(etcd), { orders: 1, refunds: 1 })
})

t.test('injects faults before or after the broker acts', needsEtcd(), async t => {
  const { etcd, broker } = await startBrokers(t, { orders: [0] })
  broker.inject({ api: 'CreateTopics', what: 'drop' })
  await t.rejects(create(await connect(t, broker), 'before'), { code: 'PLT_KFK_NETWORK' })
  broker.inject({ api: 'CreateTopics', what: 'drop', when: 'after' })
  await t.rejects(create(await connect(t, broker), 'after'), { code: 'PLT_KFK_NETWORK' })
  t.strictSame(await topicsIn(etcd), { orders: 1, after: 1 })

  const connection = await connect(t, broker)
  broker.inject({ api: 'CreateTopics', what: 'missing' })
  t.strictSame(await create(connection, 'missing'), [0])
  broker.inject({ api: 'CreateTopics', what: -1 })
  t.strictSame(await create(connection, 'refused'), [-1])
  t.strictSame(await topicsIn(etcd), { orders: 1, after: 1 })
  const held = broker.inject({ api: 'CreateTopics', what: 'hold', when: 'after' })
  const answer = create(connection, 'held')
  await held.reached
  t.strictSame(await topicsIn(etcd), { orders: 1, after: 1, held: 1 }, 'it has acted')
  held.release()
  t.strictSame(await answer, [0])
})

t.test('knows a change that the service had no right to send', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, [snapshot({ orders: [0] }, [0])])
  const auditFile = join(temporaryFolder(t), 'audit.jsonl')
  let end: () => unknown = () => {}
  const teardown = (handler: () => unknown) => { end = handler }
  const broker = await startBroker({ teardown }, etcd, { checked: { auditFiles: [auditFile] } })
  const lock = etcd.client.lease(60)
  t.teardown(async () => { await lock.revoke() })

  const proven = (id: string): Change => ({
    version: 1,
    change_id: id,
    state: 'applying',
    tool: 'create_topic',
    arguments: { topic: id, partitions: 2, replication_factor: 1 },
    environment: 'dev',
    cluster_id: 'c-1',
    requested_by: { subject: 'alice', issuer: 'https://id.example', client_id: 'agent' },
    requested_at: '2026-01-01T00:00:00Z',
    expires_at: null,
    revision: 1,
    preconditions: [],
    diff: [],
    effects: {},
    warnings: [],
    undo: null,
    undo_note: '',
    requires: { mode: 'direct', approvals_needed: 0 },
    approvals: [],
    rejection: null,
    break_glass: null,
    execution: {
      by: { subject: 'alice', issuer: 'https://id.example', client_id: 'agent' },
      replica: 'r',
      started_at: '2026-01-01T00:00:00Z',
      broker: broker.address,
      sent_at_revision: 7,
    },
    outcome: null,
    digest: '',
  })
  const approval = (subject: string) => ({
    by: { subject, issuer: 'https://id.example', client_id: null },
    at: '2026-01-01T00:00:00Z',
    comment: null,
    digest: '',
  })

  /** Sends what a change with these differences would send, and resolves to what was missing. */
  async function send (
    id: string,
    differences: Partial<Change> = {},
    without: Partial<Record<'lock' | 'intent' | 'plan' | 'policy' | 'fence' | 'ledger', true>> = {}
  ): Promise<string[]> {
    const before = broker.violations().length
    const change = { ...proven(id), ...differences }
    broker.view.ClusterID = 'c-1'
    await etcd.client.delete().all().prefix('/kafscale-mcp/').exec()
    if (!without.ledger) await etcd.client.put(`/kafscale-mcp/changes/by-id/${id}`).value(JSON.stringify(change)).exec()
    if (!without.lock) {
      await lock.put('/kafscale-mcp/changes/lock').value(JSON.stringify({ change_id: id })).exec()
    }
    const record = (event: string) => ({
      event,
      change_id: id,
      decision: without.policy ? null : 'allowed',
      what: { tool: 'create_topic', arguments: change.arguments },
    })
    const records = [
      ...without.plan ? [] : [record('plan')],
      ...without.intent ? [] : [record('intent')],
    ]
    writeFileSync(auditFile, records.map(record => `${JSON.stringify(record)}\n`).join(''))
    const connection = await connect(t, broker)
    if (!without.fence) await metadataV12.api.async(connection, null, false)
    await create(connection, id, 2)
    return broker.violations().slice(before).map(violation => violation.replace(/^.*?: /, ''))
  }

  t.strictSame(await send('proven'), [])
  t.strictSame(await send('approved', {
    requires: { mode: 'approval', approvals_needed: 1 },
    approvals: [approval('bob')],
  }), [])
  t.strictSame(await send('no-lock', {}, { lock: true }), ['no change holds the lock'])
  t.strictSame(await send('no-change', {}, { ledger: true }), ['no change holds the lock'])
  t.strictSame(await send('no-intent', {}, { intent: true }), ['no intent is recorded'])
  t.strictSame(await send('no-plan', {}, { plan: true }), ['no plan is recorded'])
  t.strictSame(await send('no-policy', {}, { policy: true }), ['the policy did not allow the plan'])
  t.strictSame(
    await send('no-fence', {}, { fence: true }),
    ['the broker was not asked just before what it knows of the cluster']
  )
  t.strictSame(await send('other-cluster', { cluster_id: 'c-2' }), ['the broker is of another cluster'])
  t.strictSame(await send('too-early', { state: 'approved' }), ['the change is approved instead of applying'])
  t.match(
    await send('not-planned', { arguments: { topic: 'not-planned', partitions: 3, replication_factor: 1 } }),
    ['it is not what was planned']
  )
  t.strictSame(await send('own-approval', {
    requires: { mode: 'approval', approvals_needed: 1 },
    approvals: [approval('alice')],
  }), ['its approvals are missing'])
  t.match(await send('proven'), [/^the same change was sent before: CreateTopics/])
  await t.rejects(async () => { await end() }, { message: /no change holds the lock/ }, 'its test fails')
})

t.test('knows a drain or a flush that the service had no right to ask for', async t => {
  let end: () => unknown = () => {}
  const { address } = await startControl({ teardown: handler => { end = handler } })
  const client = rpcClient(address, channelCredentials(undefined), '127.0.0.1')
  t.teardown(() => client.close())
  await client.call('GetStatus', {}, scaled(SOON_MS))
  await client.call('TriggerFlush', { partitions: [], all_assigned: true }, scaled(SOON_MS))
  await client.call('DrainPartitions', { partitions: [], reason: '', deadline_seconds: 3 }, scaled(SOON_MS))
  await t.rejects(async () => { await end() }, {
    message: /^TriggerFlush at .*: no intent is recorded\nDrainPartitions at .*: no intent is recorded$/,
  })
})
