/** Noise from one address hides no other. */
import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { countFailures } from '../../../plugins/audit/count-failures.ts'
import type { AuditEntry } from '../../../plugins/audit/record.ts'
import { entry } from '../../support/audit.ts'

const INTERVAL_MS = 10_000

/** Counts failures in an interval that ends when the test says so. */
function counting (t: Test) {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const records: AuditEntry[] = []
  const failures = countFailures(async entry => { records.push(entry) })
  return {
    records,
    failures,
    of: (address: string) => records.filter(({ where }) => where.remote_address === address),
    fail: async (address: string | null, count = 1) => {
      const { where } = entry()
      for (let made = 0; made < count; made++) {
        await failures.add(entry({
          event: 'authentication_failure',
          where: { ...where, remote_address: address, request_id: `${made}` },
          warning: 'the token is wrong',
        }))
      }
    },
    endInterval: () => mock.timers.tick(INTERVAL_MS),
  }
}

const total = (records: AuditEntry[]) => records.reduce((sum, { count = 1 }) => sum + count, 0)

t.test('while one address makes noise, each failure of another has a record of its own', async t => {
  const { fail, of, records, endInterval } = counting(t)
  await fail('10.0.0.1', 5_000)
  await fail('192.0.2.7', 3)
  await fail('10.0.0.1', 5_000)
  t.strictSame(of('192.0.2.7').map(({ count }) => count), [undefined, undefined, undefined])
  t.equal(of('10.0.0.1').length, 20)
  endInterval()
  t.equal(of('10.0.0.1').length, 21)
  t.match(of('10.0.0.1').at(-1), {
    count: 9_980,
    where: { request_id: '4999' },
    warning: '9980 failures within 10 s from this address, of which this is the last: the token is wrong',
  })
  t.equal(total(records), 10_003)
  await fail('10.0.0.1')
  t.equal(of('10.0.0.1').length, 22, 'the next interval starts from zero')
})

t.test('each address has a record of its own, also when many make noise', async t => {
  const { fail, of, records, endInterval } = counting(t)
  for (let address = 0; address < 200; address++) await fail(`10.0.0.${address}`, 100)
  t.equal(records.length, 1_000, 'so many are recorded one by one in all')
  await fail('192.0.2.7')
  await fail('192.0.2.8', 2)
  t.equal(records.length, 1_000)
  endInterval()
  t.strictSame(of('192.0.2.7').map(({ count, warning }) => [count, warning]), [[undefined, 'the token is wrong']])
  t.strictSame(of('192.0.2.8').map(({ count }) => count), [2])
  t.equal(records.length, 1_000 + 202)
  t.equal(total(records), 20_003)
})

t.test('addresses beyond the bound share one record', async t => {
  const { fail, records, endInterval } = counting(t)
  for (let address = 0; address < 3_000; address++) await fail(`10.0.${address >> 8}.${address & 255}`, 2)
  endInterval()
  t.equal(records.length, 1_000 + 500 + 1)
  t.match(records.at(-1), {
    count: 4_000,
    warning: /^4000 failures within 10 s from addresses beyond the first 1000, of which this is the last/,
  })
  t.equal(total(records), 6_000)
})

t.test('the addresses of one IPv6 network, which a client can choose freely, count as one', async t => {
  const { fail, records, endInterval } = counting(t)
  for (let address = 0; address < 2_000; address++) await fail(`2001:db8:1:2::${address.toString(16)}`)
  await fail('2001:db8:1:3::1')
  await fail(null)
  t.equal(records.length, 22)
  endInterval()
  t.strictSame(records.slice(22).map(({ count }) => count), [1_980])
})

t.test('a close records what was counted so far', async t => {
  const { fail, failures, records } = counting(t)
  await fail('10.0.0.1', 31)
  await failures.close()
  t.match(records.at(-1), { count: 11 })
  await failures.close()
  t.equal(records.length, 21)
})
