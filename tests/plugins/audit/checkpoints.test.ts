import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { BEGINNING, parseRecord } from '../../../plugins/audit/chain.ts'
import { Checkpoints } from '../../../plugins/audit/sinks/checkpoints.ts'
import type { Draft } from '../../../plugins/audit/sinks/draft.ts'
import { body } from '../../support/audit.ts'

function build (t: Test) {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const due = t.captureFn(() => {})
  const checkpoints = new Checkpoints(undefined, due)
  t.teardown(() => checkpoints.stop())
  return { checkpoints, due: () => due.calls.length }
}

const eventsOf = ({ text }: Draft) =>
  text.split('\n').slice(0, -1).map(line => parseRecord(Buffer.from(line))?.event)

t.test('a checkpoint is due a minute after the first record without one', async t => {
  const { checkpoints, due } = build(t)
  const first = checkpoints.draft(BEGINNING)
  first.add(body())
  checkpoints.appended(first)
  mock.timers.tick(30_000)
  const second = checkpoints.draft(first.end)
  t.equal(second.unsealed, 1, 'the count continues from draft to draft')
  second.add(body())
  checkpoints.sealIfDue(second)
  t.strictSame(eventsOf(second), ['tool_call'])
  checkpoints.appended(second)
  mock.timers.tick(29_999)
  t.equal(due(), 0)
  mock.timers.tick(1)
  t.equal(due(), 1)
  t.ok(checkpoints.due)
  const third = checkpoints.draft(second.end)
  checkpoints.sealIfDue(third)
  t.strictSame(eventsOf(third), ['checkpoint'])
  checkpoints.appended(third)
  t.notOk(checkpoints.due)
  mock.timers.tick(600_000)
  t.equal(due(), 1, 'nothing is left to seal')
})

t.test('a checkpoint that was not appended is due again a minute later', async t => {
  const { checkpoints, due } = build(t)
  const draft = checkpoints.draft(BEGINNING)
  draft.add(body())
  checkpoints.appended(draft)
  mock.timers.tick(60_000)
  checkpoints.postpone()
  t.notOk(checkpoints.due)
  mock.timers.tick(60_000)
  t.equal(due(), 2)
})

t.test('1,000 records get a checkpoint at once, across drafts', async t => {
  const { checkpoints } = build(t)
  const first = checkpoints.draft(BEGINNING)
  for (let records = 0; records < 999; records++) first.add(body())
  checkpoints.appended(first)
  const second = checkpoints.draft(first.end)
  second.add(body())
  second.add(body())
  t.strictSame(eventsOf(second), ['tool_call', 'checkpoint', 'tool_call'])
  t.equal(second.unsealed, 1)
})
