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

/** Matches in the obvious way: the last star takes one more character whenever what follows it does not match. */
function reference (pattern: string, name: string): boolean {
  const [glob, text] = [[...pattern], [...name]]
  let p = 0
  let n = 0
  let star: { p: number, n: number } | undefined
  while (n < text.length) {
    if (glob[p] === '*') {
      star = { p: ++p, n }
    } else if (p < glob.length && (glob[p] === '?' || glob[p] === text[n])) {
      p++
      n++
    } else if (star) {
      p = star.p
      n = ++star.n
    } else {
      return false
    }
  }
  return glob.slice(p).every(character => character === '*')
}

t.test('matches like a matcher that tries every position', async t => {
  const name = fc.string({ unit: fc.constantFrom('a', 'b', '\u{1f600}'), maxLength: 150 })
  const unit = fc.constantFrom('a', 'a', 'b', '\u{1f600}', '*', '?')
  /** Patterns made from the name, so that long ones match too. */
  const fromName = fc.tuple(name, fc.array(fc.tuple(fc.nat(150), unit), { maxLength: 8 })).map(([text, changes]) => {
    const characters = [...text]
    for (const [at, character] of changes) characters.splice(at, at % 3, character)
    return [characters.join(''), text] as const
  })
  holds(
    t,
    'for every name',
    fc.oneof(fromName, fc.tuple(fc.string({ unit, maxLength: 100 }), name)),
    ([pattern, name]) => matcher(pattern)(name) === reference(pattern, name),
    5000
  )
})

t.test('takes steps proportional to the length of the name, whatever the pattern', async t => {
  const steps = (pattern: string, name: string) => {
    const steps = { count: 0 }
    matcher(pattern, steps)(name)
    return steps.count
  }
  const bound = (pattern: string, name: string) => pattern.length + name.length * Math.ceil(pattern.length / 32)
  for (const pattern of [
    `*${'a'.repeat(254)}b`,
    `*${'a'.repeat(253)}b*`,
    `*b${'a'.repeat(253)}*`,
    `*${'a?'.repeat(126)}b*`,
    `${'*a'.repeat(127)}b`,
    `${'*a'.repeat(126)}*b*`,
    `*${'?'.repeat(254)}b`,
    `${'*?'.repeat(127)}b`,
  ]) {
    const name = 'a'.repeat(100_000)
    const count = steps(pattern, name)
    t.ok(count <= bound(pattern, name), `${pattern.slice(0, 8)}: ${count} steps`)
  }
  const unit = fc.constantFrom('a', 'a', 'a', 'b', '*', '?')
  holds(
    t,
    'for every pattern',
    fc.tuple(
      fc.string({ unit, maxLength: 256 }),
      fc.string({ unit: fc.constantFrom('a', 'a', 'b'), maxLength: 2_000 })
    ),
    ([pattern, name]) => steps(pattern, name) <= bound(pattern, name),
    2000
  )
})
