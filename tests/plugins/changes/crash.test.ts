/** A replica that dies at any step of applying a change, as by `kill -9`, and another one that takes over. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { LogRecord } from '../../../plugins/audit/record.ts'
import { recordsOf } from '../../support/audit.ts'
import type { ChangeBroker } from '../../support/change-broker.ts'
import type { Answer, Order, Question } from '../../support/change-replica.ts'
import { type Etcd, needsEtcd } from '../../support/etcd.ts'
import { caller, NO_PROGRESS, proposeTopic, type Replica, setUp } from '../../support/replica.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice')
const LOCK = '/kafscale-mcp/changes/lock'
const BOUND_MS = 8_000

/** Runs a replica that applies a change. Resolves to the outcome, unless it dies before, and to what it recorded. */
async function applyElsewhere (
  t: Test,
  broker: ChangeBroker,
  order: Omit<Order, 'auditFile'>,
  clockShiftMs = 0
): Promise<{ outcome: string | undefined, records: LogRecord[], signal: NodeJS.Signals | null }> {
  const auditFile = join(t.testdir({}), 'audit.jsonl')
  const child = fork(join(import.meta.dirname, '../../support/change-replica.ts'), [
    JSON.stringify({ ...order, auditFile }),
  ], {
    execArgv: [`--import=${join(import.meta.dirname, '../../support/shift-clock.ts')}`],
    env: { PATH: process.env['PATH'], CLOCK_SHIFT_MS: `${clockShiftMs}` },
  })
  t.teardown(() => child.kill('SIGKILL'))
  let outcome: string | undefined
  child.on('message', (question: Question) => {
    if ('outcome' in question) {
      outcome = question.outcome
      return
    }
    const answer = async (): Promise<Answer> => {
      if (question.ask === 'send') return { result: await broker.send(question.call) }
      const view = await broker.view()
      return { view: { ...view, topics: [...view.topics] } }
    }
    void answer().then(answer => { if (child.connected) child.send(answer, () => {}) })
  })
  const [, signal] = await once(child, 'exit')
  return { outcome, records: recordsOf(auditFile), signal }
}

/** Runs a replica that applies a change until it dies. Resolves to what it recorded. */
async function applyAndDie (t: Test, broker: ChangeBroker, order: Omit<Order, 'auditFile'>): Promise<LogRecord[]> {
  const { outcome, records, signal } = await applyElsewhere(t, broker, order)
  if (signal !== 'SIGKILL') throw new Error(`not killed at ${order.killAt}, but ${outcome}`)
  return records
}

/** Ends the lease of a lock whose replica is dead, which takes up to 20 s otherwise. */
async function endLock ({ client }: Etcd): Promise<void> {
  const { kvs: [lock] } = await client.kv.range({ key: Buffer.from(LOCK) })
  if (lock) await client.leaseClient.leaseRevoke({ ID: lock.lease })
}

/** Proposes a topic, which a replica applies until it is killed, and ends its lock. `earlier`: what was sent before. */
async function proposeAndDie (
  t: Test,
  { etcd, broker, replica }: { etcd: Etcd, broker: ChangeBroker, replica: Replica },
  killAt: string
) {
  const { change_id: changeId } = await proposeTopic(replica, ALICE, killAt.replaceAll(' ', '-'))
  const earlier = broker.sent.length
  const records = await applyAndDie(t, broker, { endpoints: etcd.endpoints, changeId, mode: 'direct', killAt })
  await endLock(etcd)
  return { id: changeId, earlier, records }
}

const get = async ({ changes }: Replica, id: string) => (await changes.get(ALICE, id)).change
const settled = async (replica: Replica, id: string) => {
  await waitFor(async () => {
    const { state, execution } = await get(replica, id)
    return (state !== 'applying' && (state !== 'planned' || execution === null)) || state
  }, BOUND_MS, 'settled')
  return await get(replica, id)
}

/** The events of a change in the logs of both replicas. */
const story = (records: LogRecord[], survivor: Replica, id: string) =>
  [...records.filter(record => record.change_id === id), ...survivor.records(id)]
    .toSorted((a, b) => a.time < b.time ? -1 : 1).map(({ event }) => event)

/** Before these points, nothing can have been sent: the change is as it was, and can be applied. */
const BEFORE = {
  'checking the plan': [],
  locked: [],
  'before the attempt is stored': [],
  'after the attempt is stored': ['settlement'],
  'before the record intent': ['settlement'],
  'after the record intent': ['intent', 'settlement'],
  connect: ['intent', 'settlement'],
  view: ['intent', 'settlement'],
  'before applying is stored': ['intent', 'settlement'],
}

t.test('killed before it was sent, the change can be applied later', needsEtcd(), async t => {
  const cluster = await setUp(t)
  const { broker, replica } = cluster
  replica.settler.start()
  for (const [killAt, expected] of Object.entries(BEFORE)) {
    await t.test(killAt, async t => {
      const { id, earlier, records } = await proposeAndDie(t, cluster, killAt)
      t.match(await settled(replica, id), { state: 'planned', execution: null, outcome: null })
      t.equal(broker.sent.length, earlier, 'nothing was sent')
      t.strictSame(story(records, replica, id), ['plan', ...expected])
      t.match(await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS), { change: { state: 'applied' } })
      t.equal(broker.sent.length, earlier + 1)
    })
  }
})

/** From these points on, it may have been sent. `true`: it was. */
const AFTER = {
  'after applying is stored': false,
  'sending it': false,
  send: false,
  answered: true,
  'waiting until': true,
  'recording the outcome': true,
  'before the record outcome': true,
  'after the record outcome': true,
  'before applied is stored': true,
}

t.test('killed when it may have been sent, the cluster shows what happened', needsEtcd(), async t => {
  const cluster = await setUp(t)
  const { broker, replica } = cluster
  replica.settler.start()
  for (const [killAt, wasSent] of Object.entries(AFTER)) {
    await t.test(killAt, async t => {
      const { id, earlier, records } = await proposeAndDie(t, cluster, killAt)
      t.equal((await settled(replica, id)).state, wasSent ? 'applied' : 'ambiguous')
      const isRecorded = killAt === 'after the record outcome' || killAt === 'before applied is stored'
      t.strictSame(story(records, replica, id), ['plan', 'intent', ...isRecorded ? ['outcome'] : [], 'settlement'])
      const again = await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS)
      t.equal(again.change.state, wasSent ? 'applied' : 'ambiguous', 'called again, it returns the outcome')
      t.equal(broker.sent.length, earlier + Number(wasSent), 'nothing was sent twice')
    })
  }
})

t.test('killed after the outcome was stored, there is nothing to settle', needsEtcd(), async t => {
  const { etcd, broker, replica } = await setUp(t)
  const { change_id: id } = await proposeTopic(replica, ALICE)
  const records = await applyAndDie(t, broker, {
    endpoints: etcd.endpoints, changeId: id, mode: 'direct', killAt: 'after applied is stored',
  })
  t.equal((await get(replica, id)).state, 'applied')
  t.strictSame(story(records, replica, id), ['plan', 'intent', 'outcome'])
  await t.rejects(proposeTopic(replica, ALICE, 'next').then(async ({ change_id: next }) =>
    await replica.changes.apply(ALICE, next, undefined, NO_PROGRESS)), { code: 'CHANGE_IN_PROGRESS' })
  const isFree = async () => (await replica.parts.ledger.overview()).locked === undefined
  await waitFor(isFree, 25_000, 'the lock ends with its lease')
})

t.test('killed while it waits for the broker, the effect that appears later settles it', needsEtcd(), async t => {
  const { etcd, broker, replica } = await setUp(t)
  replica.settler.start()
  const { change_id: id } = await proposeTopic(replica, ALICE)
  broker.onSend = async () => ({ effect: false })
  await applyAndDie(t, broker, { endpoints: etcd.endpoints, changeId: id, mode: 'direct', killAt: 'answered' })
  await endLock(etcd)
  t.equal((await settled(replica, id)).state, 'ambiguous')
  await broker.carryOut(broker.sent[0]!)
  await waitFor(async () => (await get(replica, id)).state === 'applied', BOUND_MS, 'applied')
  t.equal(broker.sent.length, 1)
})

t.test('killed with the glass broken, the next use waits for the review', needsEtcd(), async t => {
  const { etcd, broker, replica, policy } = await setUp(t)
  replica.settler.start()
  policy.mode = 'approval'
  const glass = { reason: 'orders are lost', ticket: 'INC-1' }
  const { change_id: id } = await proposeTopic(replica, ALICE)
  const records = await applyAndDie(t, broker, {
    endpoints: etcd.endpoints, changeId: id, mode: 'approval', breakGlass: glass, killAt: 'connect',
  })
  await endLock(etcd)
  await settled(replica, id)
  t.strictSame(story(records, replica, id), ['plan', 'break_glass', 'intent', 'settlement'])
  const other = await proposeTopic(replica, caller('bob'), 'other')
  await t.rejects(replica.changes.apply(caller('bob'), other.change_id, glass, NO_PROGRESS), {
    code: 'BREAK_GLASS_UNREVIEWED',
  })
  t.match(await replica.changes.apply(ALICE, id, glass, NO_PROGRESS), { change: { state: 'applied' } })
  t.equal(broker.sent.length, 1)
})

t.test('clocks that are a minute apart decide nothing', needsEtcd(), async t => {
  for (const shiftMs of [60_000, -60_000]) {
    const { etcd, broker, replica } = await setUp(t, { lifetimes: { planned: 20_000 } })
    const order = { endpoints: etcd.endpoints, mode: 'direct' as const, lifetimes: { planned: 20_000 } }
    const { change_id: id } = await proposeTopic(replica, ALICE)
    const elsewhere = await applyElsewhere(t, broker, { ...order, changeId: id }, shiftMs)
    t.equal(elsewhere.outcome, 'applied', 'a plan that is alive')
    const wrongMs = Date.parse(elsewhere.records[0]?.time ?? '') - Date.now()
    t.ok(Math.abs(wrongMs) > 30_000, 'its clock is wrong')
    t.equal((await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS)).change.state, 'applied')
    t.equal(broker.sent.length, 1)

    const late = await proposeTopic(replica, ALICE, 'late')
    await etcd.client.delete().all().prefix('/kafscale-mcp/changes/alive/')
    const expired = await applyElsewhere(t, broker, { ...order, changeId: late.change_id }, shiftMs)
    t.equal(expired.outcome, 'CHANGE_EXPIRED', 'a plan whose lease has ended')
  }
})
