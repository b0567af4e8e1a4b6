import fc from 'fast-check'
import t from 'tap'
import { add, int64, parseInt64, subtract, toJson } from '../../kafscale/int64.ts'
import { holds } from '../support/property.ts'

const anyInt64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })

t.test('parses -?[0-9]+ within int64, and nothing else', async t => {
  t.equal(parseInt64('0'), 0)
  t.equal(parseInt64('-1'), -1)
  t.ok(Object.is(parseInt64('-0'), 0))
  t.equal(parseInt64('007'), 7)
  t.equal(parseInt64('0'.repeat(1000) + '9223372036854775807'), 9223372036854775807n)
  t.equal(parseInt64('9007199254740991'), 9007199254740991)
  t.equal(parseInt64('9007199254740993'), 9007199254740993n)
  t.equal(parseInt64('9223372036854775807'), 9223372036854775807n)
  t.equal(parseInt64('-9223372036854775808'), -9223372036854775808n)
  for (
    const text of [
      '',
      '-',
      '+1',
      ' 1',
      '1 ',
      '1\n',
      '1.0',
      '1e3',
      '0x1',
      '١',
      '9223372036854775808',
      '-9223372036854775809',
      '1'.repeat(5000),
      '0x' + '0'.repeat(20),
    ]
  ) {
    t.equal(parseInt64(text), undefined, JSON.stringify(text.slice(0, 30)))
  }
})

t.test('parses what bigint writes', async t => {
  holds(t, 'for every int64', anyInt64, value => parseInt64(value.toString()) === int64(value))
})

t.test('adds and subtracts exactly, even beyond int64', async t => {
  holds(t, 'for every pair', fc.tuple(anyInt64, anyInt64), ([a, b]) =>
    add(int64(a), int64(b)) === int64(a + b) && subtract(int64(a), int64(b)) === int64(a - b))
  t.equal(add(9223372036854775807n, 9223372036854775807n), 18446744073709551614n)
  t.equal(subtract(Number.MIN_SAFE_INTEGER, 1), -9007199254740992n)
})

t.test('becomes a JSON integer within ±(2^53−1) and a decimal string beyond', async t => {
  holds(t, 'for every int64', anyInt64, value => {
    const json = toJson(int64(value))
    return (typeof json === 'number') === (value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER) &&
      BigInt(json) === value
  })
  t.equal(toJson(int64(9223372036854775807n)), '9223372036854775807')
})
