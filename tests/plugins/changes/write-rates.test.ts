import t from 'tap'
import { WriteRates } from '../../../plugins/changes/write-rates.ts'
import { cluster, mirrorOf } from '../../support/cluster-model.ts'

const withEnds = (ends: Record<string, Record<number, number>>) => mirrorOf(cluster({
  topics: Object.fromEntries(Object.entries(ends).map(([name, ends]) => [name, { partitions: 2, ends }])),
}))

t.test('the rate of a topic is what its log end offsets grew by between the last two samples', async t => {
  const rates = new WriteRates()
  t.equal(rates.of('orders'), null, 'without samples')
  rates.sample(withEnds({ orders: { 0: 100, 1: 5 }, idle: { 0: 7 } }), 1_000)
  t.equal(rates.of('orders'), null, 'one sample tells nothing')
  rates.sample(withEnds({ orders: { 0: 150, 1: 6 }, idle: { 0: 7 }, later: { 0: 1 } }), 11_000)
  t.equal(rates.of('orders'), 5.1)
  t.equal(rates.of('idle'), 0)
  for (const topic of ['later', 'unknown', '__proto__']) t.equal(rates.of(topic), null, topic)
  rates.sample(withEnds({ orders: { 0: 10, 1: 6 }, idle: { 0: 7, 1: 900 }, later: {} }), 21_000)
  t.equal(rates.of('orders'), null, 'created again')
  t.equal(rates.of('idle'), null, 'a log end offset that was unknown before says nothing')
  t.equal(rates.of('later'), null)
})
