import fc from 'fast-check'
import t from 'tap'
import { formatKey } from '../../demo/encode.ts'
import { type Key, parseKey } from '../../kafscale/keyspace.ts'
import { holds, same } from '../support/property.ts'

t.test('parses every kind of key', async t => {
  const cases: [string, Key][] = [
    ['/kafscale/metadata/snapshot', { kind: 'snapshot' }],
    ['/kafscale/topics/orders/config', { kind: 'topic-config', topic: 'orders' }],
    ['/kafscale/topics/orders/partitions/3', { kind: 'partition-state', topic: 'orders', partition: 3 }],
    ['/kafscale/topics/orders/partitions/3/next_offset', { kind: 'next-offset', topic: 'orders', partition: 3 }],
    ['/kafscale/consumers/billing/metadata', { kind: 'group-metadata', group: 'billing' }],
    ['/kafscale/consumers/billing/offsets/orders/3', {
      kind: 'committed-offset',
      group: 'billing',
      topic: 'orders',
      partition: 3,
    }],
    ['/kafscale/partition-leases/orders/3', { kind: 'partition-lease', topic: 'orders', partition: 3 }],
    ['/kafscale/group-leases/billing', { kind: 'group-lease', group: 'billing' }],
  ]
  for (const [text, key] of cases) {
    t.strictSame(parseKey(text), key, text)
    t.equal(formatKey(key), text)
  }
})

t.test('accepts slashes in names where brokers do', async t => {
  t.strictSame(parseKey('/kafscale/topics/a/b c/partitions/0/next_offset'), {
    kind: 'next-offset',
    topic: 'a/b c',
    partition: 0,
  })
  t.strictSame(parseKey('/kafscale/partition-leases/a/b/0'), { kind: 'partition-lease', topic: 'a/b', partition: 0 })
  t.strictSame(parseKey('/kafscale/topics/x/partitions/0/config'), { kind: 'topic-config', topic: 'x/partitions/0' })
  t.strictSame(parseKey('/kafscale/group-leases/a/b'), { kind: 'group-lease', group: 'a/b' })
  t.strictSame(parseKey('/kafscale/consumers/dc-1/pending/metadata'), { kind: 'group-metadata', group: 'dc-1/pending' })
  t.strictSame(parseKey('/kafscale/consumers/g/offsets/t/metadata'), {
    kind: 'group-metadata', group: 'g/offsets/t'
  }, 'a committed offset ends with a number')
  for (const [group, topic] of [
    ['dc-1/pending', 'a/b'],
    ['/', '/'],
    ['a/', '/b/'],
    ['offsets', 'offsets'],
    ['metadata', 'metadata'],
    ['g/metadata', '0/1'],
  ] as const) {
    t.strictSame(
      parseKey(`/kafscale/consumers/${group}/offsets/${topic}/7`),
      { kind: 'committed-offset', group, topic, partition: 7 }
    )
  }
})

t.test('names every group and topic that an ambiguous key can mean', async t => {
  const candidates = (path: string) => {
    const key = parseKey(`/kafscale/consumers/${path}/7`)
    return key?.kind === 'ambiguous-offset' ? key.candidates.map(({ group, topic }) => [group, topic]) : key
  }
  t.strictSame(candidates('a/offsets/b/offsets/c'), [['a', 'b/offsets/c'], ['a/offsets/b', 'c']])
  t.strictSame(candidates('a/offsets/offsets/b'), [['a', 'offsets/b'], ['a/offsets', 'b']])
  t.match(candidates('/offsets/a/offsets/b'), { group: '/offsets/a', topic: 'b' }, 'a group id is not empty')
  const many = (count: number) => candidates(`a${'/offsets/b'.repeat(count)}`)
  t.match(many(16), { length: 16 })
  t.strictSame(many(17), [], 'or none if there are too many')
  t.strictSame(many(100_000), [])
})

t.test('rejects keys of unknown patterns', async t => {
  for (
    const key of [
      '',
      '/kafscale/',
      '/kafscale/metadata/snapshot/x',
      '/kafscale/brokers/0',
      '/kafscale/assignments/orders/0',
      '/other/topics/a/config',
      '/kafscale/topics//config',
      '/kafscale/topics/config',
      '/kafscale/topics/orders',
      '/kafscale/topics/orders/partitions/',
      '/kafscale/topics/orders/partitions/-1',
      '/kafscale/topics/orders/partitions/01',
      '/kafscale/topics/orders/partitions/2147483648',
      '/kafscale/topics/orders/partitions/1/other',
      '/kafscale/topics//partitions/0',
      '/kafscale/topics/partitions/0/next_offset',
      '/kafscale/consumers/g',
      '/kafscale/consumers//metadata',
      '/kafscale/consumers/g/metadata/x',
      '/kafscale/consumers/g/offsets/t',
      '/kafscale/consumers/g/offsets//0',
      '/kafscale/consumers/g/offsets/t/x',
      '/kafscale/consumers/g/other/t/0',
      '/kafscale/consumersX/g/metadata',
      '/kafscale/partition-leases/orders',
      '/kafscale/partition-leases//0',
      '/kafscale/partition-leases/orders/x',
      '/kafscale/group-leases/',
    ]
  ) t.equal(parseKey(key), undefined, key)
})

t.test('parses what formatKey writes', async t => {
  const name = fc.string({ minLength: 1, unit: 'grapheme' })
  const slashed = fc.array(fc.oneof(name, fc.constantFrom('offsets', 'metadata', '0')), { minLength: 1, maxLength: 4 })
    .map(parts => parts.join('/'))
  const partition = fc.integer({ min: 0, max: 2 ** 31 - 1 })
  const plain = { noNullPrototype: true }
  const anyKey: fc.Arbitrary<Key> = fc.oneof(
    fc.record({ kind: fc.constant('topic-config' as const), topic: name }, plain),
    fc.record({
      kind: fc.constantFrom('partition-state' as const, 'next-offset' as const, 'partition-lease' as const),
      topic: name,
      partition,
    }, plain),
    fc.record({ kind: fc.constant('group-lease' as const), group: name }, plain),
    fc.record({ kind: fc.constant('group-metadata' as const), group: slashed }, plain),
    fc.record({ kind: fc.constant('committed-offset' as const), group: slashed, topic: slashed, partition }, plain)
  )
  holds(t, 'for every key', anyKey, key => {
    const parsed = parseKey(formatKey(key))
    if (parsed?.kind !== 'ambiguous-offset') return same(parsed, key)
    return key.kind === 'committed-offset' && parsed.partition === key.partition &&
      parsed.candidates.filter(({ group, topic }) => group === key.group && topic === key.topic).length === 1
  }, 1000)
})
