/** Changes that need no approval, from the proposal to the outcome. */
import t from 'tap'
import type { BrokerControl, ControlResult } from '../../../plugins/broker-control/index.ts'
import type { Lock } from '../../../plugins/changes/ledger/index.ts'
import { type ChangeBroker, CLUSTER_ID } from '../../support/change-broker.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { buildReplica, caller, NO_PROGRESS, proposeTopic, type Replica, setUp } from '../../support/replica.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice')
const BOB = caller('bob')

const stateOf = async ({ changes }: Replica, id: string) => (await changes.get(ALICE, id)).change.state
const topics = async (broker: ChangeBroker) => (await broker.snapshot()).Topics.map(({ Topic }) => Topic)

t.test('a change is planned, applied once, and proven', needsEtcd(), async t => {
  const { broker, replica } = await setUp(t)
  const planned = await proposeTopic(replica, ALICE)
  t.match(planned, {
    state: 'planned',
    tool: 'create_topic',
    arguments: { topic: 'orders', partitions: 3, replication_factor: 1 },
    environment: 'dev',
    cluster_id: CLUSTER_ID,
    requested_by: { subject: 'alice', issuer: 'https://id.example' },
    requires: { mode: 'direct', approvals_needed: 0 },
    digest: /^[0-9a-f]{64}$/,
    outcome: null,
  })
  t.strictSame(broker.sent, [], 'a proposal sends nothing')

  const steps: string[] = []
  const { change, next } = await replica.changes.apply(ALICE, planned.change_id, undefined, step => steps.push(step))
  t.equal(change.state, 'applied')
  t.strictSame(change.outcome?.observed_diff.find(({ field }) => field === 'exists'),
    { field: 'exists', before: false, after: true })
  t.ok(Number(change.outcome?.revision) > Number(change.execution?.sent_at_revision))
  t.match(next, /delete_topic/)
  t.strictSame(await topics(broker), ['orders'])
  t.strictSame(steps, [
    'checking the plan', 'taking the lock', 'recording the intent', 'connecting to a broker',
    'comparing the view of broker-0:9092 with etcd', 'sending it to broker-0:9092',
    'waiting until the cluster shows it', 'recording the outcome',
  ])

  const again = await replica.changes.apply(ALICE, planned.change_id, undefined, NO_PROGRESS)
  t.strictSame(again.change, change, 'called again, it returns the outcome')
  t.equal(broker.sent.length, 1, 'and sends nothing')

  const records = replica.records(planned.change_id)
  t.strictSame(records.map(({ event, outcome, who }) => [event, outcome, who?.subject]), [
    ['plan', 'ok', 'alice'], ['intent', 'ok', 'alice'], ['outcome', 'ok', 'alice'],
  ])
  t.strictSame(records[0]?.diff, planned.diff)
  t.strictSame(records[2]?.diff, change.outcome?.observed_diff)
  t.match(records[0]?.what, { tool: 'create_topic', operation: 'propose', resources: { topics: ['orders'] } })
})

t.test('a change is refused', needsEtcd(), async t => {
  const { broker, policy, replica, etcd } = await setUp(t)
  const { changes } = replica
  const apply = async (id: string, by = ALICE) => await changes.apply(by, id, undefined, NO_PROGRESS)
  const planned = await proposeTopic(replica, ALICE)
  const id = planned.change_id

  await t.test('if it belongs to someone else', async t => {
    await t.rejects(apply(id, BOB), { code: 'CHANGE_NOT_YOURS' })
    await t.rejects(changes.cancel(BOB, id), { code: 'CHANGE_NOT_YOURS' })
    await t.rejects(apply(id, caller('alice', { issuer: 'https://other.example' })), { code: 'CHANGE_NOT_YOURS' })
    t.match(await changes.get(caller('alice', { clientId: 'other' }), id), { change: { state: 'planned' } })
  })

  await t.test('if it does not exist, or must not be seen', async t => {
    await t.rejects(apply('chg-0'), { code: 'CHANGE_NOT_FOUND' })
    await t.rejects(apply('../lock'), { code: 'CHANGE_NOT_FOUND' })
    policy.blind.add('bob')
    policy.denied.add('bob approve')
    await t.rejects(changes.get(BOB, id), { code: 'CHANGE_NOT_FOUND' })
    t.strictSame(await changes.list(BOB, {}), [])
    policy.blind.clear()
    t.equal((await changes.list(BOB, {})).length, 1)
  })

  await t.test('by the emergency stop', async t => {
    policy.changesClosed = true
    await t.rejects(apply(id), { code: 'CHANGES_CLOSED' })
    await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: 'CHANGES_CLOSED' })
    policy.changesClosed = false
  })

  await t.test('if the policy does not allow it any more', async t => {
    policy.denied.add('alice apply')
    await t.rejects(apply(id), { code: 'PERMISSION_DENIED', message: /apply_change for create_topic/ })
    policy.denied.clear()
    policy.mode = 'closed'
    await t.rejects(apply(id), { code: 'PERMISSION_DENIED', message: /changes\[0\]/ })
    await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: 'PERMISSION_DENIED', message: /changes\[0\]/ })
    policy.mode = 'direct'
    policy.denied.add('alice propose')
    await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: 'PERMISSION_DENIED' })
    policy.denied.clear()
  })

  await t.test('if it is for another cluster or environment', async t => {
    const { settings } = replica.parts
    replica.parts.settings = { ...settings, expectedClusterId: 'cluster-2' }
    await t.rejects(apply(id), { code: 'CLUSTER_MISMATCH' })
    await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: 'CLUSTER_MISMATCH' })
    replica.parts.settings = { ...settings, environment: 'production' }
    await t.rejects(apply(id), { code: 'CLUSTER_MISMATCH' })
    replica.parts.settings = settings
  })

  await t.test('if no broker can be reached, and stays as it was', async t => {
    broker.reachable = false
    await t.rejects(apply(id), { code: 'BROKER_UNREACHABLE' })
    await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: 'BROKER_UNREACHABLE' })
    broker.reachable = true
  })

  await t.test('if the broker is of another cluster, or has a stale view', async t => {
    broker.viewed = { clusterId: 'cluster-2' }
    await t.rejects(apply(id), { code: 'CLUSTER_MISMATCH', message: /broker-0:9092.*"cluster-2"/ })
    broker.viewed = { topics: new Map([['orders', 1]]) }
    await t.rejects(apply(id), { code: 'BROKER_STALE', message: /only it has the topic "orders"/ })
    broker.viewed = { brokers: [] }
    await t.rejects(apply(id), { code: 'BROKER_STALE', message: /it lacks the broker 0 at broker-0:9092/ })
    broker.viewed = { brokers: [{ nodeId: 0, host: 'proxy', port: 9092 }] }
    await t.rejects(apply(id), { code: 'BROKER_STALE', message: /only it has the broker 0 at proxy:9092/ },
      'or is the proxy, which may send a request again')
    broker.viewed = {}
  })

  await t.test('if a broker says at the proposal that it is not possible', async t => {
    broker.validation = { kind: 'refused', code: 36, name: 'TOPIC_ALREADY_EXISTS', message: 'topic already exists' }
    await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: 'BROKER_REFUSED', message: /topic already exists/ })
    broker.validation = { kind: 'refused', code: 29, name: 'TOPIC_AUTHORIZATION_FAILED', message: null }
    await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: 'BROKER_DENIED', message: /kafscale-mcp/ })
    broker.validation = { kind: 'ok' }
  })

  await t.test('while another change is being applied', async t => {
    const other = await proposeTopic(replica, ALICE, 'other')
    const lock = await replica.parts.ledger.lock(other.change_id, 'another')
    if (typeof lock === 'string') throw new Error('not taken')
    await t.rejects(apply(id), { code: 'CHANGE_IN_PROGRESS', message: new RegExp(other.change_id) })
    await lock.release()
    await changes.cancel(ALICE, other.change_id)
    await t.rejects(apply(other.change_id), { code: 'CHANGE_ENDED', message: /is cancelled/ })
    await t.rejects(changes.cancel(ALICE, other.change_id), { code: 'CHANGE_ENDED' })
  })

  await t.test('nothing was sent for any of them, and each intent has its outcome', async t => {
    t.strictSame(broker.sent, [])
    t.equal(await stateOf(replica, id), 'planned')
    const attempts = replica.records(id).filter(({ event }) => event === 'intent' || event === 'outcome')
    t.strictSame(attempts.map(({ event, error_code: code }) => `${event} ${code}`), [
      'intent null', 'outcome BROKER_UNREACHABLE', 'intent null', 'outcome CLUSTER_MISMATCH',
      'intent null', 'outcome BROKER_STALE', 'intent null', 'outcome BROKER_STALE',
      'intent null', 'outcome BROKER_STALE',
    ])
    t.equal((await changes.get(ALICE, id)).change.execution, null)
  })

  await t.test('if the cluster is no longer as the plan expects, and ends', async t => {
    await broker.carryOut({ api: 'create_topic', topic: 'orders', partitions: 1, replicationFactor: 1 })
    const revision = (await etcd.client.get('x').exec()).header.revision
    await waitFor(() => replica.parts.metadata.mirror!.revision >= Number(revision), 4_000, 'seen')
    await t.rejects(apply(id), { code: 'PLAN_STALE', message: /exists/ })
    t.equal(await stateOf(replica, id), 'stale')
    await t.rejects(apply(id), { code: 'CHANGE_ENDED' })
    t.match(replica.records(id).at(-1), { event: 'stale', error_code: 'PLAN_STALE', warning: /exists/ })
  })
})

t.test('a change expires by its lease', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t, { lifetimes: { planned: 1_000 } })
  const { change_id: id } = await proposeTopic(replica, ALICE)
  await waitFor(async () => await stateOf(replica, id) === 'expired', 6_000, 'expired')
  await t.rejects(replica.changes.apply(ALICE, id, undefined, NO_PROGRESS), { code: 'CHANGE_EXPIRED' })
  await t.rejects(replica.changes.cancel(ALICE, id), { code: 'CHANGE_EXPIRED' })
  replica.settler.start()
  await waitFor(() => replica.records(id).some(({ event }) => event === 'expiry'), 4_000, 'recorded')
  t.match(replica.records(id).at(-1), { event: 'expiry', who: null })
  t.strictSame(broker.sent, [])
})

t.test('what a broker answers', needsEtcd(), async t => {
  const { broker, replica } = await setUp(t)
  const applied = async (topic: string) => {
    const { change_id: id } = await proposeTopic(replica, ALICE, topic)
    const { change } = await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS)
    return change
  }
  const answers = {
    'a denial': [
      { kind: 'refused', code: 29, name: 'TOPIC_AUTHORIZATION_FAILED', message: 'unauthorized' },
      { state: 'failed', outcome: { error: { code: 'BROKER_DENIED', message: /kafscale-mcp.*unauthorized/ } } },
    ],
    'another refusal': [
      { kind: 'refused', code: 17, name: 'INVALID_TOPIC_EXCEPTION', message: 'invalid topic configuration' },
      { state: 'failed', outcome: { error: { code: 'BROKER_REFUSED', message: /INVALID_TOPIC_EXCEPTION \(17\)/ } } },
    ],
    'a success without the item': [
      { kind: 'missing' },
      { state: 'failed', outcome: { error: { code: 'BROKER_REFUSED', message: /without the result/ } } },
    ],
    'no answer': [
      { kind: 'unknown', reason: 'no answer within 15 s' },
      { state: 'ambiguous', outcome: { error: { code: 'UNKNOWN', message: /no answer within 15 s/ } } },
    ],
  } as const
  for (const [what, [result, expected]] of Object.entries(answers)) {
    broker.onSend = () => ({ result })
    const change = await applied(`topic-${result.kind}-${'code' in result ? result.code : ''}`)
    t.match(change, expected, what)
    t.match(replica.records(change.change_id).at(-1), { event: 'outcome', outcome: 'error' }, what)
  }
  t.equal(broker.sent.length, 4)
  t.strictSame(replica.told.map(({ what }) => what), ['ambiguous'], 'people are told what nobody knows')

  broker.onSend = () => ({ effect: false })
  t.match(await applied('never-seen'), { state: 'ambiguous', outcome: { error: { message: /reported success/ } } },
    'a reported success that does not appear')
})

t.test('a change without a trace in etcd is as the broker says', needsEtcd(), async t => {
  let result: ControlResult = { kind: 'unsupported' }
  let nodeId = 0
  let sent = 0
  const brokerControl: BrokerControl = {
    configured: true,
    status: async () => ({ nodeId, version: 'dev', ready: true, s3: null }),
    async send () {
      sent++
      return result
    },
  }
  const { replica } = await setUp(t, { more: { brokerControl } })
  const { signal } = new AbortController()
  const apply = async (tool: 'flush_broker' | 'drain_broker') => {
    const { change } = await replica.changes.propose(ALICE, tool, { node_id: 0 }, signal)
    return (await replica.changes.apply(ALICE, change.change_id, undefined, NO_PROGRESS)).change
  }
  t.match(await apply('flush_broker'), {
    state: 'failed', outcome: { error: { code: 'BROKER_UNSUPPORTED', message: /UNIMPLEMENTED/ } },
  })
  result = { kind: 'ok', figures: { drained_partitions: 3 } }
  t.match(await apply('drain_broker'), {
    state: 'applied', outcome: { observed_diff: [{ field: 'drained_partitions', before: 0, after: 3 }], error: null },
  })
  result = { kind: 'missing' }
  t.match(await apply('drain_broker'), { state: 'failed', outcome: { error: { code: 'BROKER_REFUSED' } } })
  result = { kind: 'unknown', reason: 'the broker has drained 1 of 2 partitions' }
  t.match(await apply('drain_broker'), { state: 'ambiguous', outcome: { error: { message: /drained 1 of 2/ } } })
  t.equal(sent, 4)

  nodeId = 2
  await t.rejects(apply('drain_broker'), {
    code: 'BROKER_UNREACHABLE', message: /broker 0 says that it is broker 2.*KAFSCALE_MCP_BROKER_CONTROL_ADDR/,
  })
  t.equal(sent, 4, 'another broker gets nothing')
})

t.test('the emergency stop stops what has not been sent, and lets the rest finish', needsEtcd(), async t => {
  const { broker, policy, replica } = await setUp(t)
  const late = await proposeTopic(replica, ALICE, 'late')
  const inTime = await proposeTopic(replica, ALICE, 'in-time')
  broker.onSend = () => {
    policy.changesClosed = true
    return {}
  }
  const { change } = await replica.changes.apply(ALICE, inTime.change_id, undefined, NO_PROGRESS)
  t.equal(change.state, 'applied')
  t.match(replica.records(inTime.change_id).at(-1), { event: 'outcome', outcome: 'ok' })
  policy.changesClosed = false
  const stop = (step: string) => { policy.changesClosed ||= step.startsWith('comparing') }
  await t.rejects(replica.changes.apply(ALICE, late.change_id, undefined, stop), { code: 'CHANGES_CLOSED' })
  t.equal(broker.sent.length, 1)
  t.equal(await stateOf(replica, late.change_id), 'planned')
})

t.test('a replica that has lost the lock sends nothing', needsEtcd(), async t => {
  const { broker, replica } = await setUp(t)
  const { change_id: id } = await proposeTopic(replica, ALICE)
  const { ledger } = replica.parts
  const lock = ledger.lock.bind(ledger)
  // As after a pause that is longer than the lease: the last step before it was still stored.
  ledger.lock = async (...args) => Object.defineProperty(await lock(...args) as Lock, 'held', { value: false })
  const { change } = await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS)
  t.match(change, { state: 'failed', outcome: { error: { message: /lock was lost before anything was sent/ } } })
  t.strictSame(broker.sent, [])
})

t.test('two replicas that apply the same change at once send it once', needsEtcd(), async t => {
  const { etcd, broker, replica: one } = await setUp(t)
  const other = await buildReplica(t, { endpoints: etcd.endpoints, admin: broker.admin() })
  for (let round = 0; round < 5; round++) {
    const { change_id: id } = await proposeTopic(one, ALICE, `topic-${round}`)
    const results = await Promise.allSettled([one, other, one, other].map(async ({ changes }) =>
      await changes.apply(ALICE, id, undefined, NO_PROGRESS)))
    t.equal(broker.sent.length, round + 1)
    t.ok(results.some(result => result.status === 'fulfilled' && result.value.change.state === 'applied'))
    for (const result of results) {
      if (result.status === 'rejected') t.equal(result.reason.code, 'CHANGE_IN_PROGRESS')
    }
  }
})

t.test('a principal has at most 200 open changes', needsEtcd(), async t => {
  const { replica } = await setUp(t)
  for (let batch = 0; batch < 10; batch++) {
    await Promise.all(Array.from({ length: 20 }, async (_, index) =>
      await proposeTopic(replica, ALICE, `topic-${batch}-${index}`)))
  }
  await t.rejects(proposeTopic(replica, ALICE), { code: 'TOO_MANY_PLANS', message: /200/ })
  t.ok(await proposeTopic(replica, BOB))
})
