import t from 'tap'
import { BEGINNING } from '../../../plugins/audit/chain.ts'
import { Draft } from '../../../plugins/audit/sinks/draft.ts'
import { RecordQueue } from '../../../plugins/audit/sinks/record-queue.ts'
import { body, pending } from '../../support/audit.ts'

t.test('a batch has at most 500 records, in order', async t => {
  const queue = new RecordQueue()
  for (let rule = 0; rule < 700; rule++) queue.add(pending(body({ rule: `${rule}` })))
  const batches = [500, 200].map(count => {
    const { text } = fill(queue)
    const appended = queue.takeAppended()
    t.equal(appended.length, count)
    t.equal(text, appended.map(({ line }) => `${line}\n`).join(''))
    return appended
  })
  t.strictSame(batches.flat().map(({ body }) => body['rule']), Array.from({ length: 700 }, (_, rule) => `${rule}`))
  t.ok(queue.isEmpty)
  t.strictSame(queue.pending, [])
})

t.test('a batch ends at about 1 MB', async t => {
  const queue = new RecordQueue()
  for (let records = 0; records < 10; records++) queue.add(pending(body({ rule: 'x'.repeat(300_000) })))
  t.ok(fill(queue).text.length < 1.5 * 1024 * 1024)
  t.equal(queue.takeAppended().length, 4)
  t.notOk(queue.isEmpty)
})

t.test('a refused batch leaves the other records waiting; without a batch all are refused', async t => {
  const queue = new RecordQueue()
  for (let records = 0; records < 600; records++) queue.add(pending(body()))
  fill(queue)
  t.equal(queue.pending.length, 600)
  t.equal(queue.takeRefused().length, 500)
  t.equal(queue.takeRefused().length, 100)
  t.equal(queue.takeRefused().length, 0)
})

t.test('5,000 records can wait, besides those in flight', async t => {
  const queue = new RecordQueue()
  for (let records = 0; records < 5_000; records++) queue.add(pending(body()))
  t.ok(queue.isFull)
  fill(queue)
  t.notOk(queue.isFull)
})

function fill (queue: RecordQueue): Draft {
  const draft = new Draft(BEGINNING, 0, undefined)
  queue.fill(draft)
  return draft
}
