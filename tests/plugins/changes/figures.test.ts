/** What operators see of changes in `/healthz` and `/metrics`, over a real ledger. */
import t, { type Test } from 'tap'
import { ChangeFigures, type ChangesState } from '../../../plugins/changes/figures.ts'
import type { Ledger, Lock, Stored } from '../../../plugins/changes/ledger/index.ts'
import { change, openLedger } from '../../support/changes.ts'
import { needsEtcd, startEtcd } from '../../support/etcd.ts'
import { readPage } from '../../support/pages.ts'
import { startProxy } from '../../support/proxy.ts'
import { buildReplica, caller, NO_PROGRESS, proposeTopic, setUp } from '../../support/replica.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice')
/** More than two looks at the ledger. */
const BOUND_MS = 15_000
const HOUR_MS = 3_600_000

const NOTHING: ChangesState = {
  state: 'ok', pending: 0, oldest_pending_seconds: null, ambiguous: 0, locked: false, break_glass_unreviewed: false,
}

function watch (t: Test, ledger: Ledger): ChangeFigures {
  const figures = new ChangeFigures(ledger)
  t.teardown(async () => await figures.stop())
  figures.start()
  return figures
}

const shows = async (figures: ChangeFigures, expected: Partial<ChangesState>) =>
  await waitFor(() => {
    const { state } = figures
    return Object.entries(expected).every(([key, value]) => state[key as keyof ChangesState] === value) || state
  }, BOUND_MS, JSON.stringify(expected))

t.test('changes are counted by tool and by each state that they reach', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t)
  const figures = new ChangeFigures(replica.parts.ledger)
  replica.parts.onState = view => figures.reached(view)
  const applyOne = async (topic: string) => {
    const { change_id: id } = await proposeTopic(replica, ALICE, topic)
    await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS)
  }
  const counts = () => Object.fromEntries(figures.counters.reached.flatMap(({ tool, state, count }) =>
    count > 0 ? [[`${tool} ${state}`, count]] : []))
  t.equal(figures.counters.reached.length, 7 * 12, 'each is 0 before the first, so that the first is an increase')
  t.strictSame(counts(), {})
  await applyOne('one')
  await applyOne('two')
  broker.onSend = () => ({ result: { kind: 'refused', code: 17, name: 'INVALID_TOPIC_EXCEPTION', message: null } })
  await applyOne('three')
  await replica.changes.cancel(ALICE, (await proposeTopic(replica, ALICE, 'four')).change_id)
  t.strictSame(counts(), {
    'create_topic planned': 4,
    'create_topic applying': 3,
    'create_topic applied': 2,
    'create_topic failed': 1,
    'create_topic cancelled': 1,
  })
})

t.test('messages of the webhook are counted by whether they were delivered, and every use of break-glass', async t => {
  const figures = new ChangeFigures({} as Ledger)
  figures.told('approval_requested', true)
  figures.told('break_glass', true)
  figures.told('break_glass', 'it did not answer')
  figures.told('ambiguous', 'KAFSCALE_MCP_WEBHOOK_URL is not set')
  t.match(figures.counters, { breakGlass: 2, told: { delivered: 2, undelivered: 2 } })
})

t.test('what waits, what is not known, the lock and break-glass are as the ledger says', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd, { ambiguous: 600_000 })
  const create = async (id: string, more = {}) => await ledger.create(change(id, more), 200) as Stored
  const figures = watch(t, ledger)
  await shows(figures, NOTHING)

  const ago = (ms: number) => ({ requested_at: new Date(Date.now() - ms).toISOString() })
  const planned = await create('planned', ago(9 * HOUR_MS))
  const older = await create('older', ago(3 * HOUR_MS))
  const newer = await create('newer', ago(2 * HOUR_MS))
  const pending = await Promise.all([older, newer].map(async stored =>
    await ledger.replace(stored, { ...stored.change, state: 'pending' }) as Stored))
  const lock = await ledger.lock('sent', 'a') as Lock
  const sent = await ledger.replace(await create('sent'), { ...change('sent'), state: 'applying' }, {
    lock, broker: 'broker-0:9092', breakGlass: 'mark',
  }) as Stored
  await shows(figures, { pending: 2, locked: true, ambiguous: 0, break_glass_unreviewed: true })
  t.ok(Math.abs(Number(figures.state.oldest_pending_seconds) - 3 * 3_600) < 120, 'a plan waits for nobody')

  await lock.release()
  const [first] = pending
  await ledger.replace(first!, { ...first!.change, state: 'cancelled' })
  const ambiguous = await ledger.replace(sent, { ...sent.change, state: 'ambiguous' }) as Stored
  await shows(figures, { pending: 1, locked: false, ambiguous: 1 })
  t.ok(Math.abs(Number(figures.state.oldest_pending_seconds) - 2 * 3_600) < 120, 'the next one is the oldest')

  // The lease of the change that is pending has ended, and nobody has settled it yet.
  await etcd.client.delete().all().prefix('/kafscale-mcp/changes/alive/')
  await ledger.replace(ambiguous, { ...ambiguous.change, state: 'applied' }, { breakGlass: 'unmark' })
  await shows(figures, NOTHING)
  t.equal(planned.change.state, 'planned')
})

t.test('a change that nobody can tell about is not counted as one that is watched', needsEtcd(), async t => {
  const { replica, broker } = await setUp(t, { lifetimes: { ambiguous: 1_000 } })
  broker.onSend = () => ({ result: { kind: 'unknown', reason: 'the connection was lost' } })
  const { change_id: id } = await proposeTopic(replica, ALICE)
  await replica.changes.apply(ALICE, id, undefined, NO_PROGRESS)
  const figures = watch(t, replica.parts.ledger)
  await shows(figures, { ambiguous: 1 })
  replica.settler.start()
  await shows(figures, { ambiguous: 0 })
  t.match(await replica.changes.list(ALICE, { state: 'ambiguous' }), [{ change: { outcome: { abandoned: true } } }])
})

t.test('a ledger that is away is not one in which nothing waits', needsEtcd(), async t => {
  const { etcd, broker, policy } = await setUp(t)
  const proxy = await startProxy(t, etcd.endpoints[0] as string)
  policy.mode = 'approval'
  const replica = await buildReplica(t, {
    endpoints: etcd.endpoints, ledgerEndpoints: [proxy.endpoint], admin: broker.admin(), policy,
  })
  const { change_id: id } = await proposeTopic(replica, ALICE)
  await t.rejects(replica.changes.apply(ALICE, id, undefined, NO_PROGRESS), { code: 'APPROVAL_REQUIRED' })
  const figures = watch(t, replica.parts.ledger)
  await shows(figures, { state: 'ok', pending: 1 })
  proxy.cut()
  await shows(figures, { state: 'unavailable', pending: 1 })
  t.match(figures.state.reason, /./)
  proxy.heal()
  await shows(figures, { state: 'ok', pending: 1 })
  t.notOk('reason' in figures.state)
})

t.test('the runbook explains each figure of /healthz', async t => {
  const rows = readPage('runbook.md').rows('`dependencies.changes`')
  const { state, ...figures } = NOTHING
  t.strictSame(rows.map(([name = '']) => name.slice(1, -1)), Object.keys({ state, reason: '', ...figures }))
})
