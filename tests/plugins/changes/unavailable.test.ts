/** What a change needs besides the ledger: a current mirror, and an audit log that takes each step. */
import t from 'tap'
import { AuditUnavailable } from '../../../errors.ts'
import type { AuditEvent } from '../../../plugins/audit/record.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { startProxy } from '../../support/proxy.ts'
import { buildReplica, caller, NO_PROGRESS, proposeTopic, type Replica, setUp } from '../../support/replica.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice')
const BOUND_MS = 10_000

const apply = async ({ changes }: Replica, id: string) =>
  (await changes.apply(ALICE, id, undefined, NO_PROGRESS)).change.state

t.test('nothing is planned or applied with a mirror that may be old', needsEtcd(), async t => {
  const { etcd, broker, replica: other } = await setUp(t)
  const proxy = await startProxy(t, etcd.endpoints[0] as string)
  const replica = await buildReplica(t, {
    endpoints: [proxy.endpoint], ledgerEndpoints: etcd.endpoints, admin: broker.admin(),
  })
  const { change_id: id } = await proposeTopic(other, ALICE)
  const { metadata } = replica.parts

  await t.test('of an etcd that does not answer', async t => {
    proxy.cut()
    await waitFor(() => metadata.state === 'stale' || metadata.state, BOUND_MS, 'stale')
    const stale = { code: 'METADATA_STALE', message: /changes nothing/ }
    await t.rejects(proposeTopic(replica, ALICE, 'other'), stale)
    await t.rejects(apply(replica, id), stale)
    t.strictSame(broker.sent, [])
    proxy.heal()
    await waitFor(() => metadata.state === 'synced' || metadata.state, BOUND_MS, 'synced')
  })

  await t.test('that has not seen what the plan was made from', async t => {
    const key = `/kafscale-mcp/changes/by-id/${id}`
    const text = String(await etcd.client.get(key).string())
    await etcd.client.put(key).value(text.replace(/"revision":\d+/, '"revision":1000000'))
    await t.rejects(apply(replica, id), { code: 'METADATA_STALE', message: /older than the plan/ })
    t.strictSame(broker.sent, [])
    await etcd.client.put(key).value(text)
  })

  t.equal(await apply(replica, id), 'applied', 'the plan is as good as before')
})

t.test('no step is taken that the audit log does not take', needsEtcd(), async t => {
  const { broker, replica } = await setUp(t)
  const { audit } = replica.parts
  let refused: AuditEvent | undefined
  replica.parts.audit = {
    async recordDurably (entry) {
      if (entry.event === refused) throw new AuditUnavailable()
      await audit.recordDurably(entry)
    },
  }
  const unavailable = { code: 'AUDIT_UNAVAILABLE' }

  await t.test('no plan', async t => {
    refused = 'plan'
    await t.rejects(proposeTopic(replica, ALICE), unavailable)
    t.strictSame(await replica.changes.list(ALICE, {}), [])
  })

  refused = undefined
  const { change_id: id } = await proposeTopic(replica, ALICE)

  await t.test('nothing is sent without a durable intent', async t => {
    refused = 'intent'
    await t.rejects(apply(replica, id), unavailable)
    t.strictSame(broker.sent, [])
    t.match(await replica.changes.get(ALICE, id), { change: { state: 'planned', execution: null } })
  })

  await t.test('no cancellation', async t => {
    refused = 'cancellation'
    await t.rejects(replica.changes.cancel(ALICE, id), unavailable)
    t.match(await replica.changes.get(ALICE, id), { change: { state: 'planned' } })
  })

  await t.test('an outcome is stored once it can be recorded', async t => {
    refused = 'outcome'
    await t.rejects(apply(replica, id), unavailable)
    t.equal(broker.sent.length, 1)
    t.match(await replica.changes.get(ALICE, id), { change: { state: 'applying' } }, 'nobody sends it again')
    refused = undefined
    replica.settler.start()
    await waitFor(async () => (await replica.changes.get(ALICE, id)).change.state === 'applied', BOUND_MS, 'settled')
    t.equal(broker.sent.length, 1)
    t.match(replica.records(id).at(-1), { event: 'outcome', who: { subject: 'alice' }, outcome: 'ok' })
  })
})
