/** What becomes of changes whose effect is not known, or whose replica is gone. */
import t from 'tap'
import { AuditUnavailable } from '../../../errors.ts'
import { Mirror } from '../../../kafscale/mirror.ts'
import type { AdminCall } from '../../../plugins/kafka-admin/index.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { encodeTopicConfig } from '../../support/generate.ts'
import { startProxy } from '../../support/proxy.ts'
import { buildReplica, caller, NO_PROGRESS, proposeTopic, type Replica, setUp } from '../../support/replica.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice')
const BOUND_MS = 5_000
const UNKNOWN = { kind: 'unknown', reason: 'the connection was lost' } as const

const get = async ({ changes }: Replica, id: string) => (await changes.get(ALICE, id)).change
const reaches = async (replica: Replica, id: string, state: string) => {
  const seen = async () => (await get(replica, id)).state
  await waitFor(async () => await seen() === state || await seen(), BOUND_MS, state)
}
const apply = async (replica: Replica, topic = 'orders') => {
  const { change_id: id } = await proposeTopic(replica, ALICE, topic)
  return (await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS)).change
}

t.test('an ambiguous change whose effect appears later is applied, whichever replica sees it', needsEtcd(), async t => {
  const { etcd, replica, broker } = await setUp(t)
  broker.onSend = () => ({ result: UNKNOWN })
  const { change_id: id, state } = await apply(replica)
  t.equal(state, 'ambiguous')
  const other = await buildReplica(t, { endpoints: etcd.endpoints, admin: broker.admin() })
  other.settler.start()
  // The next change on that broker persists it.
  await broker.carryOut(broker.sent[0] as AdminCall)
  await reaches(replica, id, 'applied')
  t.equal(broker.sent.length, 1)
  t.match(other.records(id), [{ event: 'settlement', who: null, outcome: 'ok', warning: 'applied' }])
  t.strictSame(other.records(id)[0]?.diff, (await get(replica, id)).outcome?.observed_diff)
})

t.test('an ambiguous change that its broker has forgotten has failed', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t, { requestEndsMs: 100 })
  broker.onSend = () => ({ result: UNKNOWN })
  const { change_id: id } = await apply(replica)

  await t.test('not while the broker has it in memory', async t => {
    let looks = 0
    const { view } = broker
    broker.view = async () => {
      looks++
      return { ...await view.call(broker), topics: new Map([['orders', 3]]) }
    }
    replica.settler.start()
    await waitFor(() => looks >= 2 || looks, BOUND_MS, 'asked')
    t.equal((await get(replica, id)).state, 'ambiguous')
    broker.view = view
  })

  await t.test('nor while the broker does not answer', async t => {
    broker.reachable = false
    const { attempts } = broker
    await waitFor(() => broker.attempts >= attempts + 2 || broker.attempts, BOUND_MS, 'asked')
    t.equal((await get(replica, id)).state, 'ambiguous')
  })

  broker.reachable = true
  await reaches(replica, id, 'failed')
  t.match((await get(replica, id)).outcome?.error, { code: 'UNKNOWN', message: /Neither the broker/ })
  t.match(replica.records(id).at(-1), { event: 'settlement', outcome: 'error', warning: /^failed: / })
  t.equal(broker.sent.length, 1)
})

t.test('a broker behind an address that the snapshot does not list is not asked', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t, { requestEndsMs: 1, lifetimes: { ambiguous: 2_000 } })
  broker.address = 'kafscale-broker:9092'
  broker.onSend = () => ({ result: UNKNOWN })
  const { change_id: id } = await apply(replica)
  const { attempts } = broker
  replica.settler.start()
  await waitFor(async () => (await get(replica, id)).outcome?.abandoned === true, BOUND_MS, 'abandoned')
  t.equal(broker.attempts, attempts, 'another broker might answer')
})

t.test('a topic that was to be deleted and exists may have been created again', needsEtcd(), async t => {
  const { etcd, replica, broker } = await setUp(t, { requestEndsMs: 100 })
  const { client } = etcd
  for (const topic of ['bare', 'configured', 'recreated']) {
    await broker.carryOut({ api: 'create_topic', topic, partitions: 1, replicationFactor: 1 })
    const config = encodeTopicConfig({ name: topic, partitions: 1, replicationFactor: 1, retentionMs: 60_000n })
    if (topic !== 'bare') await client.put(`/kafscale/topics/${topic}/config`).value(config)
  }
  broker.onSend = async call => {
    const { topic } = call as Extract<AdminCall, { api: 'delete_topic' }>
    // The deletion begins, and a client brings the topic back before anybody has seen it gone.
    if (topic === 'recreated') await client.delete().key(`/kafscale/topics/${topic}/config`)
    return { result: UNKNOWN }
  }
  const ids = new Map<string, string>()
  for (const topic of ['bare', 'configured', 'recreated']) {
    const { change } = await replica.changes.propose(ALICE, 'delete_topic', { topic }, new AbortController().signal)
    await replica.changes.apply(ALICE, change.change_id, undefined, NO_PROGRESS)
    ids.set(topic, change.change_id)
  }
  replica.settler.start()
  await reaches(replica, ids.get('configured') as string, 'failed')
  const { attempts } = broker
  await waitFor(() => broker.attempts >= attempts + 4 || broker.attempts, BOUND_MS, 'asked about the others')
  for (const topic of ['bare', 'recreated']) {
    t.equal((await get(replica, ids.get(topic) as string)).state, 'ambiguous', topic)
  }
})

t.test('a change of another cluster is not judged by this one', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t, { lifetimes: { applied: 3_000 }, requestEndsMs: 100 })
  const other = { ...replica.parts.settings, expectedClusterId: 'cluster-2' }
  const applied = await apply(replica)
  broker.onSend = () => ({ result: UNKNOWN })
  const ambiguous = await apply(replica, 'payments')
  replica.parts.settings = other
  replica.settler.start()
  await broker.carryOut({ api: 'delete_topic', topic: 'orders' })
  await broker.carryOut(broker.sent[1] as AdminCall)
  const isWatched = async () =>
    (await replica.parts.ledger.overview()).active.some(({ id }) => id === applied.change_id)
  await waitFor(async () => !await isWatched(), BOUND_MS, 'no longer watched')
  t.equal((await get(replica, applied.change_id)).state, 'applied', 'not reverted')
  t.equal((await get(replica, ambiguous.change_id)).state, 'ambiguous', 'and not settled')
})

t.test('after the watch, nobody can tell', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t, { lifetimes: { ambiguous: 1_000 } })
  replica.settler.start()
  broker.onSend = () => ({ result: UNKNOWN })
  const { change_id: id } = await apply(replica)
  await waitFor(async () => (await get(replica, id)).outcome?.abandoned === true, BOUND_MS, 'abandoned')
  t.match(await replica.changes.get(ALICE, id), { change: { state: 'ambiguous' }, next: /Nobody can tell/ })
  t.match(replica.records(id).at(-1), { event: 'settlement', outcome: 'error', warning: /nobody can tell/ })
  t.strictSame((await replica.parts.ledger.overview()).active, [], 'and nobody looks any more')
  t.strictSame(replica.told.map(({ what }) => what), ['ambiguous'], 'people are told once')
})

t.test('an effect that somebody undoes soon is reverted, with an alert', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t)
  replica.settler.start()
  const { change_id: id, state } = await apply(replica)
  t.equal(state, 'applied')
  await broker.carryOut({ api: 'delete_topic', topic: 'orders' })
  await reaches(replica, id, 'reverted')
  await waitFor(() => replica.told.length === 1, BOUND_MS, 'told')
  t.match(replica.told, [{ what: 'reverted', view: { change: { change_id: id } } }])
  t.match(replica.records(id).at(-1), { event: 'settlement', outcome: 'error', warning: /Another writer/ })
})

t.test('a replica that has not seen the effect yet does not take it for undone', needsEtcd(), async t => {
  const { etcd, replica, broker } = await setUp(t)
  let looks = 0
  const behind = await buildReplica(t, {
    endpoints: etcd.endpoints,
    admin: broker.admin(),
    more: {
      metadata: {
        state: 'synced',
        reason: undefined,
        get mirror () {
          looks++
          return new Mirror()
        },
      },
    },
  })
  const { change_id: id } = await apply(replica)
  behind.settler.start()
  await waitFor(() => looks >= 3 || looks, BOUND_MS, 'looked')
  t.equal((await get(replica, id)).state, 'applied')
})

t.test('an effect that another change of ours undoes is not reverted', needsEtcd(), async t => {
  const { replica } = await setUp(t)
  replica.settler.start()
  const { change_id: id } = await apply(replica)
  const { signal } = new AbortController()
  const { change } = await replica.changes.propose(ALICE, 'delete_topic', { topic: 'orders' }, signal)
  const deleted = await replica.changes.apply(ALICE, change.change_id, undefined, NO_PROGRESS)
  t.equal(deleted.change.state, 'applied')
  await waitFor(async () => !(await replica.parts.ledger.overview()).active.some(each => each.id === id),
    BOUND_MS, 'no longer watched')
  t.equal((await get(replica, id)).state, 'applied')
  t.strictSame(replica.told, [])
})

t.test('an effect that lasts is not watched for ever', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t, { lifetimes: { applied: 1_000 } })
  replica.settler.start()
  const { change_id: id } = await apply(replica)
  await waitFor(async () => (await replica.parts.ledger.overview()).active.length === 0, BOUND_MS, 'not watched')
  await broker.carryOut({ api: 'delete_topic', topic: 'orders' })
  t.equal((await get(replica, id)).state, 'applied')
})

t.test('changes of another version are left alone', needsEtcd(), async t => {
  const { replica, etcd } = await setUp(t)
  const { change_id: id } = await proposeTopic(replica, ALICE)
  const key = `/kafscale-mcp/changes/by-id/${id}`
  const value = JSON.stringify({ version: 2, change_id: id, state: 'planned' })
  await etcd.client.put(key).value(value)
  await etcd.client.delete().all().prefix('/kafscale-mcp/changes/alive/')
  replica.settler.start()
  const other = await proposeTopic(replica, ALICE, 'other')
  await etcd.client.delete().all().prefix('/kafscale-mcp/changes/alive/')
  await reaches(replica, other.change_id, 'expired')
  await waitFor(() => replica.records(other.change_id).at(-1)?.event === 'expiry', BOUND_MS, 'recorded')
  t.equal(await etcd.client.get(key).string(), value)
  t.strictSame((await replica.changes.list(ALICE, {})).find(each => 'version' in each), { change_id: id, version: 2 })
  for (const step of ['get', 'cancel'] as const) {
    await t.rejects(replica.changes[step](ALICE, id), { code: 'CHANGE_UNREADABLE', message: /version 2/ })
  }
})

t.test('a value that somebody has altered stops nobody else', needsEtcd(), async t => {
  const { replica, etcd } = await setUp(t)
  const { change_id: id } = await proposeTopic(replica, ALICE)
  const value = JSON.stringify({ version: 1, change_id: id, state: 'applied', tool: 'none' })
  await etcd.client.put(`/kafscale-mcp/changes/by-id/${id}`).value(value)
  const other = await proposeTopic(replica, ALICE, 'other')
  // The settler looks at them in the order of their ids.
  await etcd.client.put('/kafscale-mcp/changes/by-id/chg-0').value(value)
  await etcd.client.put('/kafscale-mcp/changes/active/chg-0').value('applied')
  await etcd.client.delete().all().prefix('/kafscale-mcp/changes/alive/')
  replica.settler.start()
  await waitFor(() => replica.records(other.change_id).at(-1)?.event === 'expiry', BOUND_MS, 'recorded')
  t.match(await replica.changes.list(ALICE, {}), [
    { change_id: 'chg-0', version: 0 }, { change: { change_id: other.change_id } }, { change_id: id, version: 0 },
  ])
  await t.rejects(replica.changes.get(ALICE, id), { code: 'CHANGE_UNREADABLE' })
})

t.test('without the ledger, nothing is sent, and what is known is not lost', needsEtcd(), async t => {
  const { etcd, broker, replica: other } = await setUp(t)
  const proxy = await startProxy(t, etcd.endpoints[0] as string)
  const replica = await buildReplica(t, {
    endpoints: etcd.endpoints, ledgerEndpoints: [proxy.endpoint], admin: broker.admin(),
  })
  const unavailable = { code: 'LEDGER_UNAVAILABLE' }

  await t.test('before anything was sent', async t => {
    const { change_id: id } = await proposeTopic(replica, ALICE, 'first')
    await t.rejects(replica.changes.apply(ALICE, id, undefined, step => {
      if (step.startsWith('comparing')) proxy.cut()
    }), unavailable)
    t.strictSame(broker.sent, [])
    proxy.heal()
    replica.settler.start()
    await waitFor(async () => (await get(other, id)).execution === null, BOUND_MS, 'given up')
    t.equal((await get(other, id)).state, 'planned', 'it can be tried again')
  })

  await t.test('after it was sent', async t => {
    const isFree = async () => (await other.parts.ledger.overview()).locked === undefined
    await waitFor(isFree, 20_000, 'the lock of the first attempt has ended')
    const { change_id: id } = await proposeTopic(replica, ALICE, 'second')
    broker.onSend = () => {
      proxy.cut()
      return { result: { kind: 'refused', code: 17, name: 'INVALID_TOPIC_EXCEPTION', message: null } }
    }
    await t.rejects(replica.changes.apply(ALICE, id, undefined, NO_PROGRESS), unavailable)
    t.equal((await get(other, id)).state, 'applying')
    proxy.heal()
    await reaches(other, id, 'failed')
    t.match((await get(other, id)).outcome?.error, { code: 'BROKER_REFUSED' })
    t.strictSame(replica.records(id).map(({ event }) => event), ['plan', 'intent', 'outcome'])
    t.equal(broker.sent.length, 1)
  })
})

t.test('without the audit log, nothing is sent, and every intent gets its outcome later', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t)
  const { audit } = replica.parts
  let isAway = false
  replica.parts.audit = {
    async recordDurably (entry) {
      if (isAway) throw new AuditUnavailable()
      await audit.recordDurably(entry)
    },
  }
  const { change_id: id } = await proposeTopic(replica, ALICE)
  broker.reachable = false
  const first = replica.changes.apply(ALICE, id, undefined, step => { isAway ||= step.startsWith('connecting') })
  await t.rejects(first, { code: 'BROKER_UNREACHABLE' })
  broker.reachable = true
  await t.rejects(replica.changes.apply(ALICE, id, undefined, NO_PROGRESS), { code: 'AUDIT_UNAVAILABLE' })
  isAway = false
  replica.settler.start()
  await waitFor(() => replica.records(id).length === 4 || replica.records(id), BOUND_MS, 'recorded')
  t.strictSame(replica.records(id).map(({ event, error_code: code }) => [event, code]), [
    ['plan', null], ['intent', null], ['outcome', 'BROKER_UNREACHABLE'], ['outcome', 'AUDIT_UNAVAILABLE'],
  ])
  await waitFor(async () => (await get(replica, id)).execution === null, BOUND_MS, 'given up')
  t.match(await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS), { change: { state: 'applied' } })
  t.equal(broker.sent.length, 1)
})

t.test('etcd is lost while the broker works', needsEtcd(), async t => {
  const { etcd, broker, replica } = await setUp(t)
  const { change_id: id } = await proposeTopic(replica, ALICE)
  broker.onSend = async () => {
    await etcd.kill()
    return { result: UNKNOWN }
  }
  await t.rejects(replica.changes.apply(ALICE, id, undefined, NO_PROGRESS), { code: 'LEDGER_UNAVAILABLE' })
  await t.rejects(replica.changes.list(ALICE, {}), { code: 'LEDGER_UNAVAILABLE' })
  await t.rejects(proposeTopic(replica, ALICE, 'other'), { code: /LEDGER_UNAVAILABLE|METADATA_STALE/ })
  await etcd.restart()
  replica.settler.start()
  await reaches(replica, id, 'ambiguous')
  t.match(replica.records(id).at(-1), { event: 'outcome', error_code: 'UNKNOWN' })
  await broker.carryOut(broker.sent[0] as AdminCall)
  await reaches(replica, id, 'applied')
  t.equal(broker.sent.length, 1)
})
