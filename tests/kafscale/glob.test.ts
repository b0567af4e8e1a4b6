import fc from 'fast-check'
import t from 'tap'
import { matcher } from '../../kafscale/glob.ts'
import { holds } from '../support/property.ts'

t.test('matches the whole name', async t => {
  const cases: [string, string[], string[]][] = [
    ['orders', ['orders'], ['order', 'orders2', 'Orders', '']],
    ['orders*', ['orders', 'orders.eu'], ['my-orders']],
    ['*', ['', 'a', 'a/b\nc'], []],
    ['?', ['a', '\u{1f600}'], ['', 'ab']],
    ['a?c*', ['abc', 'a.cd'], ['ac', 'abd']],
    ['*.dlq', ['.dlq', 'a.dlq', 'a.dlq.dlq'], ['a.dlqx', 'adlq']],
    ['a*b*c', ['abc', 'aXbYc', 'abcbc'], ['acb', 'ab']],
    ['[a]+(b)', ['[a]+(b)'], ['ab', 'aab']],
    ['', [''], ['a']],
  ]
  for (const [pattern, yes, no] of cases) {
    for (const name of yes) t.ok(matcher(pattern)(name), `${pattern} matches ${JSON.stringify(name)}`)
    for (const name of no) t.notOk(matcher(pattern)(name), `${pattern} does not match ${JSON.stringify(name)}`)
  }
  t.ok(matcher(undefined)('anything'))
})

t.test('matches like the equivalent regular expression', async t => {
  const alphabet = fc.string({ unit: fc.constantFrom('a', 'b', '\u{1f600}'), maxLength: 8 })
  const glob = fc.string({ unit: fc.constantFrom('a', 'b', '\u{1f600}', '*', '?'), maxLength: 8 })
  holds(
    t,
    'for every name',
    fc.tuple(glob, alphabet),
    ([pattern, name]) =>
      matcher(pattern)(name) === new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`, 'u').test(name),
    3000
  )
})

t.test('takes time proportional to the pattern times the name', async t => {
  t.notOk(matcher('*a'.repeat(127) + 'b')('a'.repeat(5000)), 'backtracking would take forever')
})
