/** The ledger of changes, against a real etcd. */
import { readFileSync } from 'node:fs'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { Range } from 'etcd3'
import t from 'tap'
import { Ledger, Lock, type Stored } from '../../../plugins/changes/ledger/index.ts'
import { Secret } from '../../../plugins/config/secret.ts'
import { ALICE, change, LIFETIMES, openLedger } from '../../support/changes.ts'
import { type Etcd, needsEtcd, startEtcd } from '../../support/etcd.ts'
import { startProxy } from '../../support/proxy.ts'
import { scaled } from '../../support/run.ts'
import { waitFor } from '../../support/wait-for.ts'

const PREFIX = '/kafscale-mcp/changes/'
const EXPIRY_BOUND_MS = 6_000

const create = async (ledger: Ledger, id: string, more = {}): Promise<Stored> =>
  await ledger.create(change(id, more), 200) as Stored
const read = async (ledger: Ledger, id: string): Promise<Stored> => await ledger.read(id) as Stored
const keysOf = async ({ client }: Etcd) => (await client.getAll().prefix('').keys()).sort()
const leaseMs = async ({ client }: Etcd, key: string) => {
  const { kvs: [kv] } = await client.kv.range({ key: Buffer.from(`${PREFIX}${key}`) })
  if (kv === undefined || kv.lease === '0') return null
  return Number((await client.leaseClient.leaseTimeToLive({ ID: kv.lease })).grantedTTL) * 1_000
}
const take = async (ledger: Ledger, id: string): Promise<Lock> => await ledger.lock(id, 'a') as Lock

t.test('a change is stored under the prefix of the ledger, and nowhere else', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  const stored = await create(ledger, 'c1')
  t.ok((await keysOf(etcd)).every(key => key.startsWith(PREFIX)))
  t.strictSame(await ledger.read('c1'), stored)
  t.strictSame(stored.change, change('c1'))
  t.equal(await ledger.read('c2'), undefined)
})

t.test('of two steps from the same version, one is stored', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const [one, other] = [openLedger(t, etcd), openLedger(t, etcd)]
  const stored = await create(one, 'c1')
  const steps = await Promise.all([
    one.replace(stored, { ...stored.change, state: 'pending' }),
    other.replace(stored, { ...stored.change, state: 'cancelled' }),
  ])
  t.equal(steps.filter(step => step !== undefined).length, 1)
  t.strictSame(await read(one, 'c1'), steps.find(step => step !== undefined))
})

t.test('a step that is no transition is a defect', needsEtcd(), async t => {
  const ledger = openLedger(t, await startEtcd(t))
  const stored = await create(ledger, 'c1')
  await t.rejects(ledger.replace(stored, { ...stored.change, state: 'applied' }), /from planned to applied/)
})

t.test('a lease decides when an open change has expired', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd, { planned: 1_000 })
  const stored = await create(ledger, 'c1')
  const expired = { ...stored.change, state: 'expired' as const }
  t.equal(await ledger.isAlive(stored.change), true)
  t.equal(await ledger.replace(stored, expired), undefined, 'not yet')
  await waitFor(async () => !await ledger.isAlive(stored.change), EXPIRY_BOUND_MS, 'expired')
  t.equal(await ledger.replace(stored, { ...stored.change, state: 'pending' }), undefined, 'too late')
  t.equal(await ledger.replace(stored, { ...stored.change, state: 'cancelled' }), undefined, 'too late')
  t.match(await ledger.replace(stored, expired), { change: { state: 'expired' } })
})

t.test('each open state has its own lifetime, and an ended change is kept for its retention', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  const alive = async () => {
    const key = (await keysOf(etcd)).find(key => key.startsWith(`${PREFIX}alive/`))
    return key === undefined ? null : await leaseMs(etcd, key.slice(PREFIX.length))
  }
  let stored = await create(ledger, 'c1')
  t.equal(await alive(), 600_000, 'planned: 10 minutes')
  t.equal(await leaseMs(etcd, 'by-id/c1'), null)
  const go = async (state: 'pending' | 'approved' | 'applying' | 'ambiguous' | 'applied' | 'reverted') => {
    stored = await ledger.replace(stored, { ...stored.change, state }) as Stored
  }
  await go('pending')
  t.equal(await alive(), 86_400_000, 'pending: 24 hours')
  await go('approved')
  t.equal(await alive(), 3_600_000, 'approved: 1 hour')
  await go('applying')
  t.equal(await alive(), null, 'nothing expires while it is applied')
  await go('ambiguous')
  t.equal(await leaseMs(etcd, 'watch/c1'), 900_000, 'ambiguous: watched for 15 minutes')
  t.equal(await leaseMs(etcd, 'by-id/c1'), null)
  await go('applied')
  t.equal(await leaseMs(etcd, 'watch/c1'), 60_000, 'applied: watched for a minute')
  t.equal(await leaseMs(etcd, 'by-id/c1'), 90 * 86_400_000, 'kept for 90 days')
  await go('reverted')
  t.equal(await leaseMs(etcd, 'by-id/c1'), 90 * 86_400_000)
  t.strictSame((await ledger.overview()).active, [])
})

t.test('a plan that nobody asked to apply is not kept for long', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  const stored = await create(ledger, 'c1')
  await ledger.replace(stored, { ...stored.change, state: 'cancelled' })
  t.equal(await leaseMs(etcd, 'by-id/c1'), 3_600_000, 'or a caller could fill etcd with plans')
})

t.test('a principal cannot fill etcd with plans that it cancels', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  const cancel = async (id: string, more = {}) => {
    const stored = await create(ledger, id, more)
    await ledger.replace(stored, { ...stored.change, state: 'cancelled' })
  }
  await cancel('c1')
  t.equal(await leaseMs(etcd, 'by-id/c1'), 3_600_000)
  const [unused] = (await keysOf(etcd)).filter(key => key.includes('/unused/'))
  t.match(unused, /\/c1$/)
  t.equal(await leaseMs(etcd, String(unused).slice(PREFIX.length)), 3_600_000, 'counted as long as it is kept')
  for (let at = 1; at < 1_000; at += 100) {
    const puts = Array.from({ length: 100 }, (_, index) => etcd.client.put(`${unused}-${at + index}`).value(''))
    await Promise.all(puts)
  }
  await cancel('c2')
  t.equal(await leaseMs(etcd, 'by-id/c2'), 1_000, 'the audit log keeps the others')
  await cancel('c3', { requested_by: { ...ALICE, subject: 'bob' } })
  t.equal(await leaseMs(etcd, 'by-id/c3'), 3_600_000, 'those of another principal do not count')
})

t.test('a principal has a limited number of open changes, whichever replicas it asks', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledgers = [openLedger(t, etcd), openLedger(t, etcd)]
  const plans = Array.from({ length: 12 }, async (_, index) =>
    await ledgers[index % 2]!.create(change(`c${index}`), 5))
  t.equal((await Promise.all(plans)).filter(stored => stored !== undefined).length, 5)
  const bob = change('bob', { requested_by: { ...ALICE, subject: 'bob' } })
  t.ok(await ledgers[0]!.create(bob, 5), 'the others have their own')
  const otherClient = change('other', { requested_by: { ...ALICE, client_id: 'another' } })
  t.equal(await ledgers[0]!.create(otherClient, 5), undefined, 'another client is the same principal')
  const [first] = (await ledgers[0]!.all()).filter((stored): stored is Stored =>
    'change' in stored && stored.change.requested_by.subject === 'alice')
  await ledgers[0]!.replace(first!, { ...first!.change, state: 'cancelled' })
  t.ok(await ledgers[0]!.create(change('again'), 5), 'a cancelled change counts no more')
})

t.test('all changes are listed, the newest first', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  for (const id of ['b', 'c', 'a']) await create(ledger, id)
  const b = await read(ledger, 'b')
  await ledger.replace(b, { ...b.change, state: 'pending' })
  const ids = async () => (await ledger.all()).map(stored => 'change' in stored && stored.change.change_id)
  t.strictSame(await ids(), ['a', 'c', 'b'])
  const reads = async () => await etcd.metric('etcd_mvcc_range_total')
  const before = await reads()
  t.strictSame(await ids(), ['a', 'c', 'b'])
  t.equal(await reads() - before, 1, 'what has not changed is not read again')
  const c = await read(ledger, 'c')
  await ledger.replace(c, { ...c.change, state: 'cancelled' })
  t.match((await ledger.all())[1], { change: { change_id: 'c', state: 'cancelled' } })
  await etcd.client.delete().key(`${PREFIX}by-id/a`)
  t.strictSame(await ids(), ['c', 'b'])
})

t.test('a change of another version is shown and left alone', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  await create(ledger, 'c1')
  await etcd.client.put(`${PREFIX}by-id/c2`).value(JSON.stringify({ version: 2, id: 'c2' }))
  await etcd.client.put(`${PREFIX}by-id/c3`).value('{')
  t.strictSame(await ledger.read('c2'), { change_id: 'c2', version: 2 })
  t.strictSame(await ledger.read('c3'), { change_id: 'c3', version: 0 })
  t.equal((await ledger.all()).length, 3)
})

t.test('a value that somebody has altered is shown as version 0', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  const altered: unknown[] = [
    [], null, 1, 'text', {}, { version: 1 }, { version: 'next' }, { version: {} }, { version: 1.5 }, { version: -3 },
    { ...change('c1'), tool: 'alter_quota' },
    { ...change('c1'), tool: 'toString' },
    { ...change('c1'), state: 'done' },
    { ...change('c1'), change_id: 'c2' },
    { ...change('c1'), requested_by: { subject: 'alice' } },
    { ...change('c1'), requested_at: 'yesterday' },
    { ...change('c1'), arguments: { partitions: 3 } },
    { ...change('c1'), tool: 'drain_broker' },
    { ...change('c1'), approvals: [{}] },
    { ...change('c1'), preconditions: [null] },
    { ...change('c1'), requires: { mode: 'direct' } },
  ]
  for (const value of altered) {
    await etcd.client.put(`${PREFIX}by-id/c1`).value(JSON.stringify(value))
    t.strictSame(await ledger.read('c1'), { change_id: 'c1', version: 0 }, JSON.stringify(value).slice(0, 60))
  }
  await etcd.client.put(`${PREFIX}by-id/c1`).value(JSON.stringify({ ...change('c1'), added_later: 1 }))
  t.match(await ledger.read('c1'), { change: change('c1') }, 'a field of a newer release does no harm')
})

t.test('the lock', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const [one, other] = [openLedger(t, etcd), openLedger(t, etcd)]

  await t.test('one change at a time has it, across replicas', async t => {
    const taken = await Promise.all([one.lock('c1', 'a'), other.lock('c2', 'b')])
    const lock = taken.find(each => each instanceof Lock) as Lock
    const [holder] = taken.filter(each => typeof each === 'string')
    t.ok(lock.held)
    t.ok(lock.value.includes(`"change_id":"${holder}"`), 'whoever comes second learns which change has it')
    t.equal((await one.overview()).locked, holder)
    t.ok(await leaseMs(etcd, 'lock') as number <= 20_000, 'with a lease of at most 20 s')
    await lock.release()
    t.equal(lock.held, false)
    t.equal((await one.overview()).locked, undefined)
  })

  await t.test('a step that requires it is not stored without it', async t => {
    const stored = await create(one, 'c3')
    const lock = await take(one, 'c3')
    await etcd.client.delete().key(`${PREFIX}lock`)
    const taken = await take(other, 'c4')
    t.equal(await one.replace(stored, { ...stored.change, state: 'applying' }, { lock }), undefined)
    await lock.release()
    t.ok(taken.held)
    t.equal((await one.overview()).locked, 'c4', 'whoever lost it does not take it from the next one')
    await taken.release()
  })

  await t.test('a holder that cannot renew it does not count as a holder before the lease ends', async t => {
    const proxy = await startProxy(t, etcd.endpoints[0]!)
    const cut = openLedger(t, { endpoints: [proxy.endpoint] })
    const lock = await take(cut, 'c5')
    await waitFor(async () => {
      proxy.cut()
      return !lock.held
    }, 20_000, 'lost')
    t.equal((await one.overview()).locked, 'c5', 'the lease has not ended yet')
    await waitFor(async () => (await one.overview()).locked === undefined, 5_000, 'the lease has ended')
    proxy.heal()
    await lock.release()
  })
})

t.test('the glass is broken once until the change is reviewed', needsEtcd(), async t => {
  const ledger = openLedger(t, await startEtcd(t))
  const [first, second] = [await create(ledger, 'c1'), await create(ledger, 'c2')]
  const again = await ledger.replace(first, first.change, { breakGlass: 'mark' }) as Stored
  t.equal(await ledger.unreviewed(), 'c1')
  t.equal(await ledger.replace(second, second.change, { breakGlass: 'mark' }), undefined)
  const broken = await ledger.replace(again, again.change, { breakGlass: 'mark' }) as Stored
  t.ok(broken, 'the same change may be tried again')
  t.ok(await ledger.replace(broken, broken.change, { breakGlass: 'unmark' }))
  t.equal(await ledger.unreviewed(), undefined)
  t.ok(await ledger.replace(second, second.change, { breakGlass: 'mark' }))
})

t.test('the broker that was used last is known to every replica', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  t.equal(await ledger.lastBroker(), undefined)
  const stored = await create(ledger, 'c1')
  await ledger.replace(stored, { ...stored.change, state: 'applying' }, { broker: 'b:9092' })
  t.equal(await openLedger(t, etcd).lastBroker(), 'b:9092')
})

t.test('one replica settles changes at a time', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const [one, other] = [openLedger(t, etcd), openLedger(t, etcd)]
  const hold = await one.becomeSettler('a')
  t.equal(await other.becomeSettler('b'), undefined)
  await hold?.release()
  t.ok(await other.becomeSettler('b'))
})

t.test('without etcd', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  const stored = await create(ledger, 'c1')
  const next = { ...stored.change, state: 'pending' as const }
  const unavailable = { code: 'LEDGER_UNAVAILABLE' }

  await t.test('every step says so', async t => {
    await etcd.kill()
    const steps = await Promise.allSettled([
      ledger.read('c1'), ledger.all(), ledger.create(change('c2'), 5), ledger.replace(stored, next),
      ledger.lock('c1', 'a'), ledger.overview(), ledger.probe(),
    ])
    for (const step of steps) {
      t.match(step, { reason: { ...unavailable, message: /its etcd can't be reached/ } })
    }
  })

  await t.test('and works again as soon as etcd is back', async t => {
    await etcd.restart()
    t.match(await read(ledger, 'c1'), { change: { change_id: 'c1' } })
    t.match(await ledger.replace(stored, next), { change: { state: 'pending' } })
  })

  await t.test('an etcd that does not answer is told from one that is away', async t => {
    etcd.pause()
    t.teardown(() => etcd.resume())
    await t.rejects(ledger.read('c1'), { ...unavailable, message: /does not answer in time/ })
  })
})

t.test('a step whose answer is lost is not taken twice', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const proxy = await startProxy(t, etcd.endpoints[0]!)
  const ledger = openLedger(t, { endpoints: [proxy.endpoint] })
  const stored = await create(ledger, 'c1')
  // Answers get lost, and the connection breaks: the transaction is repeated on a new one.
  const step = ledger.replace(stored, { ...stored.change, state: 'pending' })
  await waitFor(async () => {
    const { change } = await read(openLedger(t, etcd), 'c1')
    return change.state === 'pending'
  }, 2_000, 'stored')
  proxy.cut()
  proxy.heal()
  t.match(await step, { change: { state: 'pending' } })
})

t.test('one of three members may be away', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { members: 3 })
  const ledger = openLedger(t, etcd)
  await create(ledger, 'c1')
  await etcd.kill(0)
  await new Promise(resolve => setTimeout(resolve, scaled(300)))
  for (let round = 0; round < 10; round++) t.match(await read(ledger, 'c1'), { change: { change_id: 'c1' } })
})

t.test('the ledger has its own credentials, and needs only its own prefix', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  const role = await etcd.client.role('changes').create()
  await role.grant({ permission: 'Readwrite', range: Range.prefix(PREFIX) })
  const user = await etcd.client.user('changes').create('secret')
  await user.addRole(role)
  const as = (username: string, password: string) => {
    const ledger = new Ledger({ endpoints: etcd.endpoints, username, password: new Secret(password) }, LIFETIMES)
    t.teardown(() => ledger.close())
    return ledger
  }
  const ledger = as('changes', 'secret')
  const stored = await create(ledger, 'c1')
  const lock = await take(ledger, 'c1')
  t.ok(await ledger.replace(stored, { ...stored.change, state: 'applying' }, { lock, broker: 'b:9092' }))
  await lock.release()
  t.equal((await ledger.overview()).active.length, 1)
  const refused = { code: 'LEDGER_UNAVAILABLE', message: /refuses the credentials or the permission/ }
  await t.rejects(as('changes', 'wrong').probe(), refused)
  await t.rejects(as('kafscale', 'read-only').probe(), refused, 'the user of the mirror')

  const reads = await etcd.client.role('reads-changes').create()
  await reads.grant({ permission: 'Read', range: Range.prefix(PREFIX) })
  const reader = await etcd.client.user('reader').create('secret')
  await reader.addRole(reads)
  await t.rejects(as('reader', 'secret').probe(), refused, 'a user that cannot write')
  const before = await etcd.client.kv.range({ key: Buffer.from(PREFIX) })
  await ledger.probe()
  const after = await etcd.client.kv.range({ key: Buffer.from(PREFIX) })
  t.equal(after.header.revision, before.header.revision, 'a probe writes nothing')
})

t.test('the ledger presents a client certificate, with a CA of its own or without', needsEtcd(), async t => {
  const { endpoints, env } = await startEtcd(t, { tls: 'mutual' })
  const [caFile = '', certFile, keyFile] = ['CA', 'CERT', 'KEY'].map(file => env[`KAFSCALE_MCP_ETCD_${file}_FILE`])
  const probe = async (files: { caFile?: string | undefined, certFile?: string | undefined }) => {
    const ledger = new Ledger({ endpoints, keyFile, ...files }, LIFETIMES)
    t.teardown(() => ledger.close())
    await ledger.probe()
  }
  await t.resolves(probe({ caFile, certFile }))
  await t.rejects(probe({ caFile }), { code: 'LEDGER_UNAVAILABLE' }, 'a certificate is required')
  await t.rejects(probe({ certFile }), { code: 'LEDGER_UNAVAILABLE' }, 'nobody else vouches for this etcd')
  const usual = getCACertificates()
  t.teardown(() => setDefaultCACertificates(usual))
  setDefaultCACertificates([readFileSync(caFile, 'utf8')])
  await t.resolves(probe({ certFile }), "the system's CAs are trusted")
})

t.test('the ledger connects over TLS, with a client certificate', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { tls: 'mutual' })
  const file = (name: string) => String(etcd.env[`KAFSCALE_MCP_ETCD_${name}_FILE`])
  const open = (files: { caFile?: string, certFile?: string, keyFile?: string }) => {
    const ledger = new Ledger({ endpoints: etcd.endpoints, ...files }, LIFETIMES)
    t.teardown(() => ledger.close())
    return ledger
  }
  const pair = { certFile: file('CERT'), keyFile: file('KEY') }
  await t.resolves(open({ caFile: file('CA'), ...pair }).probe())
  await t.rejects(open({ caFile: file('CA') }).probe(), { code: 'LEDGER_UNAVAILABLE' }, 'without the certificate')
  await t.rejects(open(pair).probe(), { code: 'LEDGER_UNAVAILABLE' }, 'with the CAs of the system')
})

t.test('a change whose break-glass nobody has reviewed is kept until somebody has', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const ledger = openLedger(t, etcd)
  const at = '2026-07-28T12:00:00.000Z'
  const glass = { by: ALICE, at, reason: 'r', ticket: 't', notified: true as const, review: null }
  const stored = await create(ledger, 'c1')
  const next = { ...stored.change, break_glass: glass }
  const broken = await ledger.replace(stored, next, { breakGlass: 'mark' }) as Stored
  const ended = await ledger.replace(broken, { ...broken.change, state: 'cancelled' }) as Stored
  t.equal(await leaseMs(etcd, 'by-id/c1'), null)
  const review = { by: { ...ALICE, subject: 'carol' }, at, comment: null }
  await ledger.replace(ended, { ...ended.change, break_glass: { ...glass, review } }, { breakGlass: 'unmark' })
  t.equal(await leaseMs(etcd, 'by-id/c1'), 90 * 86_400_000)
})

t.test('a step that requires that nobody is applying is not stored while somebody is', needsEtcd(), async t => {
  const ledger = openLedger(t, await startEtcd(t))
  const stored = await create(ledger, 'c1')
  const lock = await take(ledger, 'c2')
  const next = { ...stored.change, revision: 2 }
  t.equal(await ledger.replace(stored, next, { unlocked: true }), undefined)
  await lock.release()
  t.ok(await ledger.replace(stored, next, { unlocked: true }))
})
