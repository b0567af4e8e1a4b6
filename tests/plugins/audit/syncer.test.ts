import { mock } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Syncer } from '../../../plugins/audit/sinks/syncer.ts'
import { body, pending } from '../../support/audit.ts'

function build (t: Test, sync?: () => Promise<void>) {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const failures: Error[] = []
  const settled: string[] = []
  const syncer = new Syncer(sync ? { sync } : {}, error => { failures.push(error) })
  const record = (name: string, durable: boolean) => ({
    ...pending(body(), durable),
    line: name,
    resolve: (line: string) => { settled.push(line) },
    reject: ({ message }: Error) => { settled.push(`${name}: ${message}`) },
  })
  return { syncer, record, settled, failures }
}

t.test('a record is settled at once, or after a sync if it must be durable', async t => {
  let syncs = 0
  const { syncer, record, settled } = build(t, async () => { syncs++ })
  syncer.settle([record('a', false), record('b', true), record('c', false)])
  t.strictSame(settled, ['a', 'c'])
  t.strictSame(syncer.pending.map(({ line }) => line), ['b'])
  await turn()
  t.strictSame(settled, ['a', 'c', 'b'])
  t.equal(syncs, 1)
  t.ok(syncer.isIdle)

  syncer.settle([record('d', false)])
  mock.timers.tick(100)
  await turn()
  t.equal(syncs, 2, 'the others are synced within 100 ms')
})

t.test('without a sync every record is settled at once', async t => {
  const { syncer, record, settled } = build(t)
  t.notOk(syncer.isNeeded)
  syncer.settle([record('a', false), record('b', true)])
  t.strictSame(settled, ['a', 'b'])
  await syncer.flush()
})

t.test('a failed sync rejects the records that waited for it, and no other', async t => {
  let broken = true
  const { syncer, record, settled, failures } = build(t, async () => { if (broken) throw new Error('EIO') })
  syncer.settle([record('a', true)])
  await turn()
  broken = false
  syncer.settle([record('b', true)])
  await turn()
  t.strictSame(settled, ['a: EIO', 'b'])
  t.match(failures, [{ message: 'EIO' }])
})

t.test('a flush with nothing to sync does not prevent later ones', async t => {
  let syncs = 0
  const { syncer } = build(t, async () => { syncs++ })
  await syncer.flush()
  t.equal(syncs, 0)
  syncer.schedule()
  await syncer.flush()
  t.equal(syncs, 1)
  t.ok(syncer.isIdle)
})
