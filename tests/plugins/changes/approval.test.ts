/** Changes that need the approval of somebody else, and break-glass. */
import t from 'tap'
import { LedgerUnavailable } from '../../../errors.ts'
import type { Change } from '../../../plugins/changes/change.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { buildReplica, caller, NO_PROGRESS, proposeTopic, type Replica, setUp } from '../../support/replica.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice')
const BOB = caller('bob')
const CAROL = caller('carol')
const EMERGENCY = { reason: 'orders are lost', ticket: 'INC-1' }

const apply = async ({ changes }: Replica, { change_id: id }: Change, by = ALICE, glass?: typeof EMERGENCY) =>
  await changes.apply(by, id, glass, NO_PROGRESS)
const get = async ({ changes }: Replica, { change_id: id }: Change) => (await changes.get(ALICE, id)).change
const events = (replica: Replica, { change_id: id }: Change) => replica.records(id).map(({ event }) => event)

t.test('a change is applied once somebody else has approved it', needsEtcd(), async t => {
  const { replica, policy, broker } = await setUp(t)
  policy.mode = 'approval'
  const planned = await proposeTopic(replica, ALICE)
  const id = planned.change_id
  t.match(planned.requires, { mode: 'approval', approvals_needed: 1 })
  const early = replica.changes.approve(BOB, id, planned.digest, null)
  await t.rejects(early, { code: 'CHANGE_ENDED', message: /is planned/ }, 'nobody has asked for it yet')
  t.strictSame(replica.told, [], 'plans bother nobody')

  const link = `https://mcp.example/changes/${id}`
  await t.rejects(apply(replica, planned), { code: 'APPROVAL_REQUIRED', message: new RegExp(`1 approval .*${link}`) })
  await t.rejects(apply(replica, planned), { code: 'APPROVAL_REQUIRED' }, 'called again, it waits')
  t.match(replica.told, [{ what: 'approval_requested', view: { approvalUrl: link, change: { state: 'pending' } } }],
    'approvers are told once')

  const approved = await replica.changes.approve(BOB, id, planned.digest, 'fine')
  t.match(approved.change, { state: 'approved', approvals: [{ by: { subject: 'bob' }, comment: 'fine' }] })
  t.strictSame(broker.sent, [], 'an approval applies nothing')
  t.match(await apply(replica, planned), { change: { state: 'applied' } })
  t.equal(broker.sent.length, 1)
  t.strictSame(events(replica, planned), ['plan', 'approval_request', 'approval', 'intent', 'outcome'])
  t.match(replica.records(id)[2], { who: { subject: 'bob' }, what: { operation: 'approve' }, warning: 'fine' })
})

t.test('an approval does not count', needsEtcd(), async t => {
  const { replica, policy } = await setUp(t)
  policy.mode = 'approval'
  policy.approvals = 2
  const planned = await proposeTopic(replica, ALICE)
  const id = planned.change_id
  await t.rejects(apply(replica, planned), { code: 'APPROVAL_REQUIRED', message: /2 approvals/ })
  const { approve } = replica.changes
  const denied = (needs: RegExp) => ({ code: 'PERMISSION_DENIED', message: needs })

  await t.rejects(approve(ALICE, id, planned.digest, null), denied(/other than the requester/), 'of the requester')
  await t.rejects(approve(caller('alice', { clientId: 'page' }), id, planned.digest, null), denied(/the requester/),
    'of the requester through another client')
  await t.rejects(approve(caller('bob', { method: 'jwks' }), id, planned.digest, null), denied(/OpenID Connect/),
    'of whoever is not signed in on a page')
  await t.rejects(approve(BOB, id, 'another', null), { code: 'PLAN_STALE' }, 'of something else')
  policy.denied.add('bob approve')
  await t.rejects(approve(BOB, id, planned.digest, null), denied(/a role that allows approve/), 'without the role')
  policy.denied.clear()
  t.match(await approve(BOB, id, planned.digest, null), { change: { state: 'pending' }, next: /1 approval / })
  await t.rejects(approve(BOB, id, planned.digest, null), denied(/not approved it yet/), 'twice')
  await t.rejects(apply(replica, planned), { code: 'APPROVAL_REQUIRED', message: /1 approval / })
  t.match(await approve(CAROL, id, planned.digest, null), { change: { state: 'approved' } })
})

t.test('two approvers at once both count', needsEtcd(), async t => {
  const { replica, policy, etcd, broker } = await setUp(t)
  const other = await buildReplica(t, { endpoints: etcd.endpoints, admin: broker.admin(), policy })
  policy.mode = 'approval'
  policy.approvals = 2
  const planned = await proposeTopic(replica, ALICE)
  await t.rejects(apply(replica, planned), { code: 'APPROVAL_REQUIRED' })
  await Promise.all([
    replica.changes.approve(BOB, planned.change_id, planned.digest, null),
    other.changes.approve(CAROL, planned.change_id, planned.digest, null),
  ])
  t.match(await get(replica, planned), { state: 'approved', approvals: [{}, {}] })
})

t.test('what was approved is what is applied', needsEtcd(), async t => {
  const { replica, policy, broker, etcd } = await setUp(t)
  policy.mode = 'approval'
  const planned = await proposeTopic(replica, ALICE)
  await t.rejects(apply(replica, planned), { code: 'APPROVAL_REQUIRED' })
  await replica.changes.approve(BOB, planned.change_id, planned.digest, null)

  await t.test('a ledger that somebody has altered is not believed', async t => {
    const key = `/kafscale-mcp/changes/by-id/${planned.change_id}`
    const text = await etcd.client.get(key).string() as string
    await etcd.client.put(key).value(text.replace('"partitions":3', '"partitions":4'))
    await t.rejects(apply(replica, planned), { code: /PLAN_STALE|APPROVAL_REQUIRED/ })
    t.strictSame(broker.sent, [])
  })
})

t.test('a stricter policy counts for what was approved before', needsEtcd(), async t => {
  const { replica, policy, broker } = await setUp(t)
  const direct = await proposeTopic(replica, ALICE, 'direct')
  policy.mode = 'approval'
  await t.rejects(apply(replica, direct), { code: 'APPROVAL_REQUIRED' })
  t.match(await get(replica, direct), { state: 'pending', requires: { mode: 'approval', approvals_needed: 1 } })
  await replica.changes.approve(BOB, direct.change_id, direct.digest, null)
  policy.approvals = 2
  await t.rejects(apply(replica, direct), { code: 'PLAN_STALE', message: /requires 2 approvals now/ })
  t.equal((await get(replica, direct)).state, 'stale')
  t.strictSame(broker.sent, [])
})

t.test('an approver rejects a change', needsEtcd(), async t => {
  const { replica, policy, broker } = await setUp(t)
  policy.mode = 'approval'
  for (const isApproved of [false, true]) {
    const planned = await proposeTopic(replica, ALICE, `topic-${isApproved}`)
    await t.rejects(apply(replica, planned), { code: 'APPROVAL_REQUIRED' })
    if (isApproved) await replica.changes.approve(BOB, planned.change_id, planned.digest, null)
    await t.rejects(replica.changes.reject(ALICE, planned.change_id, null), { code: 'PERMISSION_DENIED' })
    t.match(await replica.changes.reject(CAROL, planned.change_id, 'not now'), {
      change: { state: 'rejected', rejection: { by: { subject: 'carol' }, comment: 'not now' } },
    })
    await t.rejects(apply(replica, planned), { code: 'CHANGE_ENDED', message: /is rejected/ })
  }
  t.strictSame(broker.sent, [])
})

t.test('a page shows what would happen now', needsEtcd(), async t => {
  const { replica, policy, broker } = await setUp(t)
  policy.mode = 'approval'
  const planned = await proposeTopic(replica, ALICE)
  t.match(await replica.changes.recompute(BOB, planned.change_id), { plan: { diff: planned.diff }, drift: [] })
  await broker.carryOut({ api: 'create_topic', topic: 'orders', partitions: 1, replicationFactor: 1 })
  await waitFor(async () => (await replica.changes.recompute(BOB, planned.change_id)).plan === null, 4_000, 'drift')
  t.match(await replica.changes.recompute(BOB, planned.change_id), { plan: null, drift: [/exists/] })
})

t.test('break-glass', needsEtcd(), async t => {
  const { replica, policy, broker, etcd } = await setUp(t)
  policy.mode = 'approval'
  const planned = await proposeTopic(replica, ALICE)

  await t.test('needs its own operation', async t => {
    policy.denied.add('alice break-glass')
    await t.rejects(apply(replica, planned, ALICE, EMERGENCY), {
      code: 'PERMISSION_DENIED', message: /apply_change with break_glass/,
    })
    policy.denied.clear()
  })

  await t.test('applies a change without an approval, and everybody learns of it first', async t => {
    let toldBefore: number | undefined
    broker.onSend = () => {
      toldBefore = replica.told.length
      return {}
    }
    const { change, next } = await apply(replica, planned, ALICE, EMERGENCY)
    t.match(change, {
      state: 'applied',
      break_glass: { by: { subject: 'alice' }, ...EMERGENCY, notified: true, review: null },
    })
    t.equal(toldBefore, 1)
    t.match(next, /must review/)
    t.match(replica.told, [{ what: 'break_glass' }])
    t.strictSame(events(replica, planned), ['plan', 'break_glass', 'intent', 'outcome'])
    t.match(replica.records(planned.change_id)[1], {
      who: { subject: 'alice' }, what: { operation: 'break-glass' }, warning: /orders are lost.*INC-1/,
    })
  })

  await t.test('nobody does it again before the first is reviewed', async t => {
    const second = await proposeTopic(replica, BOB, 'second')
    const refused = { code: 'BREAK_GLASS_UNREVIEWED', message: new RegExp(planned.change_id) }
    await t.rejects(apply(replica, second, BOB, EMERGENCY), refused)
    const other = await buildReplica(t, { endpoints: etcd.endpoints, admin: broker.admin(), policy })
    await t.rejects(apply(other, second, BOB, EMERGENCY), refused, 'through no replica')
    await t.rejects(replica.changes.reviewBreakGlass(ALICE, planned.change_id, null), { code: 'PERMISSION_DENIED' },
      'nor reviews an own one')
    const reviewed = await replica.changes.reviewBreakGlass(CAROL, planned.change_id, 'justified')
    t.match(reviewed.change.break_glass?.review, { by: { subject: 'carol' }, comment: 'justified' })
    await t.rejects(replica.changes.reviewBreakGlass(CAROL, planned.change_id, null), { code: 'CHANGE_ENDED' })
    t.match(await apply(replica, second, BOB, EMERGENCY), { change: { state: 'applied' } })
    await replica.changes.reviewBreakGlass(CAROL, second.change_id, null)
  })

  await t.test('what is closed stays closed, and the emergency stop holds', async t => {
    const third = await proposeTopic(replica, ALICE, 'third')
    policy.mode = 'closed'
    await t.rejects(apply(replica, third, ALICE, EMERGENCY), { code: 'PERMISSION_DENIED' })
    policy.mode = 'approval'
    policy.changesClosed = true
    await t.rejects(apply(replica, third, ALICE, EMERGENCY), { code: 'CHANGES_CLOSED' })
    policy.changesClosed = false
  })

  await t.test('a message that is not delivered is recorded before the change runs', async t => {
    replica.parts.tell = async () => 'it answered with status 500'
    const fourth = await proposeTopic(replica, ALICE, 'fourth')
    let recordedBefore: unknown[] = []
    broker.onSend = () => {
      recordedBefore = replica.records(fourth.change_id).map(({ event, outcome }) => `${event} ${outcome}`)
      return {}
    }
    const { change } = await apply(replica, fourth, ALICE, EMERGENCY)
    t.match(change.break_glass, { notified: 'it answered with status 500' })
    t.strictSame(recordedBefore, ['plan ok', 'break_glass ok', 'break_glass error', 'intent ok'])
  })

  await t.test('one that cannot be stored is recorded as an error', async t => {
    const planned = await proposeTopic(replica, ALICE, 'unstored')
    await replica.changes.reviewBreakGlass(CAROL, (await replica.parts.ledger.unreviewed()) ?? '', null)
    const { ledger } = replica.parts
    const replace = ledger.replace.bind(ledger)
    ledger.replace = async () => { throw new LedgerUnavailable('its etcd failed') }
    await t.rejects(apply(replica, planned, ALICE, EMERGENCY), { code: 'LEDGER_UNAVAILABLE' })
    ledger.replace = replace
    t.strictSame(replica.records(planned.change_id).map(({ event, error_code: code }) => [event, code]), [
      ['plan', null], ['break_glass', null], ['break_glass', 'LEDGER_UNAVAILABLE'],
    ])
  })

  await t.test('it is not used where it is not needed', async t => {
    policy.mode = 'direct'
    const fifth = await proposeTopic(replica, ALICE, 'fifth')
    t.match(await apply(replica, fifth, ALICE, EMERGENCY), { change: { state: 'applied', break_glass: null } })
  })
})
