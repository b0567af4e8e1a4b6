import t from 'tap'
import { Outages } from '../../kafscale/outages.ts'

t.test('an outage counts as long again, because brokers take as long to reconnect', async t => {
  const outages = new Outages()
  outages.add(10_000, 30_000)
  t.equal(outages.within(0, 5_000), 0, 'before')
  t.equal(outages.within(0, 15_000), 5_000, 'its begin')
  t.equal(outages.within(20_000, 31_000), 11_000)
  t.equal(outages.within(9_000, 100_000), 40_000, 'all of it')
  t.equal(outages.within(50_000, 100_000), 0, 'after')
})

t.test('at most two minutes are added', async t => {
  const outages = new Outages()
  outages.add(0, 3_600_000)
  t.equal(outages.within(0, 10_000_000), 3_720_000)
})

t.test('several outages add up, and no time counts twice', async t => {
  const outages = new Outages()
  outages.add(0, 10_000)
  outages.add(15_000, 25_000)
  outages.add(100_000, 101_000)
  t.equal(outages.within(0, 1_000_000), 35_000 + 2_000)
})

t.test('the oldest outages are forgotten', async t => {
  const outages = new Outages()
  for (let index = 0; index < 40; index++) outages.add(index * 10_000, index * 10_000 + 1_000)
  t.equal(outages.within(0, 1_000_000), 32 * 2_000)
})
