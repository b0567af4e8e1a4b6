import t from 'tap'
import { sumLag } from '../../kafscale/lag.ts'
import { compare, IGNORED, type KeyEvent, Mirror } from '../../kafscale/mirror.ts'
import { recording } from '../support/paths.ts'

const put = (key: string | Buffer, value: string | Buffer, modRevision = 1): KeyEvent => ({
  type: 'put',
  key: Buffer.from(key),
  value: Buffer.from(value),
  modRevision,
})
const remove = (key: string, modRevision = 1): KeyEvent => ({
  type: 'delete',
  key: Buffer.from(key),
  value: Buffer.alloc(0),
  modRevision,
})

function mirrorOf (...events: KeyEvent[]): Mirror {
  const mirror = new Mirror()
  for (const event of events) mirror.apply(event)
  return mirror
}

const snapshot = (...topics: [string, number][]) =>
  put(
    '/kafscale/metadata/snapshot',
    JSON.stringify({
      Topics: topics.map(([Topic, count]) => ({
        Topic,
        Partitions: Array.from({ length: count }, (_, Partition) => ({ Partition })),
      })),
    })
  )
const committed = (group: string, topic: string, partition: number, offset: number) =>
  put(
    `/kafscale/consumers/${group}/offsets/${topic}/${partition}`,
    `{"offset":${offset},"metadata":"","committed_at":""}`
  )
const end = (topic: string, partition: number, offset: string) =>
  put(`/kafscale/topics/${topic}/partitions/${partition}/next_offset`, offset)

interface StoredKey { key: string, value: string, mod_revision: string }
const stored = ({ key, value, mod_revision: modRevision }: StoredKey) =>
  put(key, Buffer.from(value, 'base64'), Number(modRevision))

t.test('replaying the recording gives exactly the keyspace that was read at its end', async t => {
  const mirror = mirrorOf(...recording<StoredKey>('keyspace.jsonl').slice(1).map(stored))
  let events = 0
  for (const response of recording<{ events: (StoredKey & { type: string })[] }>('watch.jsonl.gz')) {
    for (const event of response.events) {
      mirror.apply(event.type === 'put' ? stored(event) : remove(event.key, Number(event.mod_revision)))
      events++
    }
  }
  t.ok(events > 10_000)
  const atEnd = mirrorOf(...recording<StoredKey>('keyspace-end.jsonl').filter(line => 'key' in line).map(stored))
  t.ok(atEnd.groups.length > 0)
  t.strictSame(mirror.differences(atEnd), [])
  t.equal(mirror.undecodable.size, 0)
})

t.test('a topic has the mod revision of its stored config, as long as one is stored', async t => {
  const mirror = mirrorOf(snapshot(['orders', 1]), put('/kafscale/topics/orders/config', '', 4))
  const revision = () => mirror.topic('orders')?.configModRevision
  t.equal(revision(), 4)
  mirror.apply(put('/kafscale/topics/orders/config', 'undecodable', 6))
  t.equal(revision(), 6)
  mirror.apply(snapshot(['orders', 2]))
  t.equal(revision(), 6)
  mirror.apply(remove('/kafscale/topics/orders/config', 7))
  t.equal(revision(), null)
})

t.test('lag is the log end offset minus the committed offset', async t => {
  const mirror = mirrorOf(
    snapshot(['orders', 3]),
    end('orders', 0, '10'),
    end('orders', 1, '5'),
    committed('g', 'orders', 0, 4),
    committed('g', 'orders', 1, 8),
    committed('g', 'orders', 2, 1),
    committed('g', 'gone', 0, 1)
  )
  const commits = mirror.group('g')?.commits ?? []
  t.strictSame(commits.map(({ partition, lag }) => [partition.topic.name, partition.number, lag]), [
    ['gone', 0, null],
    ['orders', 0, 6],
    ['orders', 1, -3],
    ['orders', 2, null],
  ], 'null when either side is unknown; may be negative')
  t.strictSame(sumLag(commits), { total: 6, partitions: 2, pastEnd: 1, unknown: 2 })
  t.strictSame(
    sumLag([undefined, ...commits.filter(({ lag }) => lag === null)]),
    { total: null, partitions: 0, pastEnd: 0, unknown: 3 },
    'no total without a known lag'
  )
})

t.test('total lag is exact and may exceed int64', async t => {
  const most = '9223372036854775807'
  const mirror = mirrorOf(
    snapshot(['orders', 2]),
    end('orders', 0, most),
    end('orders', 1, most),
    committed('g', 'orders', 0, -1),
    committed('g', 'orders', 1, 0)
  )
  t.equal(sumLag(mirror.group('g')?.commits ?? []).total, 18446744073709551615n)
})

t.test('the log end offset counts whether the snapshot has the partition or not', async t => {
  const mirror = mirrorOf(end('orders', 0, '10'), committed('g', 'orders', 0, 4))
  const [commit] = mirror.group('g')?.commits ?? []
  t.equal(commit?.lag, 6)
  for (const event of [snapshot(['orders', 1]), snapshot(['other', 1]), remove('/kafscale/metadata/snapshot')]) {
    mirror.apply(event)
    t.equal(commit?.lag, 6)
  }
  t.strictSame(mirror.topics, [])
  mirror.apply(remove('/kafscale/topics/orders/partitions/0/next_offset'))
  t.equal(commit?.lag, null)
})

t.test('a topic or partition is unlisted if the snapshot lacks it, but keys that go with it exist', async t => {
  const unlisted = (mirror: Mirror) =>
    Object.fromEntries(mirror.unlisted.map(topic => [topic.name, [topic.isUnlisted, topic.unlistedPartitions]]))
  const state = (topic: string, partition: number) => `/kafscale/topics/${topic}/partitions/${partition}`
  const events = [
    snapshot(['a', 1], ['b', 2], ['whole', 1]),
    end('a', 0, '1'),
    end('a', 1, '1'),
    end('whole', 0, '1'),
    end('lost', 0, 'undecodable'),
    end('lost', 1, '1'),
    put(state('b', 7), ''),
    put('/kafscale/topics/config-only/config', ''),
    put('/kafscale/partition-leases/deleted/0', '1'),
    committed('g', 'deleted', 1, 1),
  ]
  const expected = { a: [false, 1], b: [false, 1], 'config-only': [true, 0], lost: [true, 2] }
  for (const order of [events, events.toReversed()]) t.strictSame(unlisted(mirrorOf(...order)), expected)

  const mirror = mirrorOf(...events)
  mirror.apply(snapshot(['a', 2], ['lost', 1]))
  t.strictSame(unlisted(mirror), { 'config-only': [true, 0], b: [true, 1], lost: [false, 1], whole: [true, 1] })
  mirror.apply(snapshot(['a', 2], ['b', 8], ['lost', 2], ['config-only', 1], ['whole', 1]))
  t.strictSame(unlisted(mirror), {})
  mirror.apply(remove('/kafscale/metadata/snapshot'))
  t.strictSame(unlisted(mirror), {
    a: [true, 2], b: [true, 1], 'config-only': [true, 0], lost: [true, 2], whole: [true, 1]
  })
  for (const key of mirror.modRevisions.keys()) if (key.startsWith('/kafscale/topics/')) mirror.apply(remove(key))
  t.strictSame(unlisted(mirror), {})
})

t.test('a broker is unlisted if it holds a lease and is not in the snapshot', async t => {
  const lease = (topic: string, nodeId: string) => put(`/kafscale/partition-leases/${topic}/0`, nodeId)
  const mirror = mirrorOf(
    lease('a', '12'),
    lease('b', '0'),
    put('/kafscale/group-leases/g', '7'),
    put('/kafscale/metadata/snapshot', '{"Brokers":[{"NodeID":0}]}')
  )
  t.strictSame(mirror.unlistedBrokers, [7, 12])
  mirror.apply(lease('a', '0'))
  t.strictSame(mirror.unlistedBrokers, [7], 'another broker has taken the lease')
  mirror.apply(lease('b', '9'))
  mirror.apply(lease('b', 'broker-9'))
  mirror.apply(remove('/kafscale/group-leases/g'))
  t.strictSame(mirror.unlistedBrokers, [])
  mirror.apply(put('/kafscale/metadata/snapshot', 'damaged'))
  t.strictSame(mirror.unlistedBrokers, [0], 'an undecodable snapshot lists none')
})

t.test('a topic exists if it is in the snapshot, a group if it has metadata or a committed offset', async t => {
  const mirror = mirrorOf(
    end('a', 0, '1'),
    put('/kafscale/partition-leases/a/0', '1'),
    put('/kafscale/group-leases/g', '1')
  )
  t.strictSame([mirror.topics, mirror.groups], [[], []])
  t.equal(mirror.coordinatorId('g'), 1)
  mirror.apply(put('/kafscale/consumers/g/metadata', ''))
  t.ok(mirror.group('g')?.exists)
  mirror.apply(committed('g', 'a', 0, 1))
  mirror.apply(remove('/kafscale/consumers/g/metadata'))
  t.ok(mirror.group('g')?.exists, 'because of its committed offset')
  mirror.apply(remove('/kafscale/consumers/g/offsets/a/0'))
  t.equal(mirror.group('g'), undefined)
})

t.test('keeps nothing in memory once all keys are deleted', async t => {
  const keys = [
    '/kafscale/topics/a/partitions/0/next_offset',
    '/kafscale/partition-leases/a/0',
    '/kafscale/topics/a/config',
    '/kafscale/consumers/g/offsets/a/0',
    '/kafscale/metadata/snapshot',
    '/kafscale/group-leases/g',
    '/kafscale/consumers/g/metadata',
    '/kafscale/topics/a/partitions/0',
    '/kafscale/consumers/h/offsets/b/0',
  ]
  const mirror = mirrorOf(
    snapshot(['a', 1]),
    end('a', 0, '1'),
    put('/kafscale/partition-leases/a/0', '1'),
    put('/kafscale/topics/a/config', ''),
    committed('g', 'a', 0, 1),
    put('/kafscale/group-leases/g', '1'),
    put('/kafscale/consumers/g/metadata', ''),
    put('/kafscale/topics/a/partitions/0', ''),
    committed('h', 'b', 0, 1)
  )
  t.equal(mirror.modRevisions.size, keys.length)
  for (const key of keys) mirror.apply(remove(key))
  for (const key of keys) mirror.apply(remove(key))
  t.equal(mirror.modRevisions.size, 0)
  t.strictSame([mirror.topic('a'), mirror.topic('b'), mirror.groups, mirror.topics, mirror.coordinatorId('g')], [
    undefined,
    undefined,
    [],
    [],
    null,
  ])
  t.strictSame(mirror.differences(new Mirror()), [])
})

t.test('an undecodable value becomes unknown, does not keep the previous one, and affects nothing else', async t => {
  const cases: [string, string, string, (mirror: Mirror) => unknown][] = [
    [
      '/kafscale/consumers/g/offsets/orders/0',
      '{"offset":4,"metadata":"m","committed_at":""}',
      '{',
      mirror => mirror.group('g')?.commits[0]?.offset,
    ],
    [
      '/kafscale/topics/orders/partitions/0/next_offset',
      '10',
      '10 ',
      mirror => mirror.topic('orders')?.partitions.get(0)?.logEndOffset,
    ],
    ['/kafscale/partition-leases/orders/0', '1', 'one', mirror => mirror.topic('orders')?.partitions.get(0)?.ownerId],
    ['/kafscale/group-leases/g', '1', '', mirror => mirror.coordinatorId('g')],
    ['/kafscale/consumers/g/metadata', '', '\x0a\x05g', mirror => mirror.group('g')?.metadata],
    ['/kafscale/topics/orders/config', '', '\x0a\x7f', mirror => mirror.topic('orders')?.config],
    ['/kafscale/metadata/snapshot', '{}', '{"Topics":', mirror => mirror.snapshot],
  ]
  for (const [key, good, bad, read] of cases) {
    const mirror = mirrorOf(snapshot(['orders', 1]), put(key, good))
    t.not(read(mirror), null, key)
    mirror.apply(put(key, bad))
    t.equal(read(mirror), null, `${key} is unknown`)
    t.strictSame([...mirror.undecodable.keys()], [key])
    mirror.apply(put(key, good))
    t.not(read(mirror), null)
    t.equal(mirror.undecodable.size, 0)
  }
  t.strictSame(
    mirrorOf(put('/kafscale/topics/a/partitions/0', '\x0a\x05a')).undecodable.size,
    1,
    'even if nothing uses the value'
  )
})

t.test('a group with an undecodable committed offset still exists', async t => {
  const group = mirrorOf(put('/kafscale/consumers/g/offsets/a/0', 'x')).group('g')
  t.match(group?.commits[0], { offset: null, metadata: null, committedAtMs: null, lag: null })
})

t.test('keys of unknown patterns are counted and otherwise ignored', async t => {
  const mirror = mirrorOf(
    put('/kafscale/brokers/0', 'x'),
    put(Buffer.from('/kafscale/group-leases/\xff', 'latin1'), '1')
  )
  t.equal(mirror.modRevisions.size, 2)
  t.equal(mirror.undecodable.size, 0)
  t.equal(mirror.coordinatorId('\ufffd'), null, 'a key that is not UTF-8 does not collide with another')
  t.strictSame(
    [...mirror.ignored],
    [['/kafscale/brokers/0', IGNORED.unknown], ['\0/kafscale/group-leases/\xff', IGNORED.unknown]]
  )
  mirror.apply(remove('/kafscale/brokers/0'))
  t.equal(mirror.ignored.size, 1)
})

t.test('the topics in the snapshot settle which group and topic an ambiguous key means', async t => {
  const key = '/kafscale/consumers/a/offsets/b/offsets/c/0'
  const value = '{"offset":4,"metadata":"","committed_at":""}'
  const owners = (mirror: Mirror) =>
    mirror.groups.flatMap(({ id, commits }) =>
      commits.map(({ partition, offset }) => `${id}: ${partition.topic.name} ${offset}`))
  for (const events of [[put(key, value), snapshot(['c', 1])], [snapshot(['c', 1]), put(key, value)]]) {
    const mirror = mirrorOf(...events)
    t.strictSame(owners(mirror), ['a/offsets/b: c 4'])
    t.strictSame([mirror.ignored.size, mirror.unattributed], [0, []])

    mirror.apply(snapshot(['b/offsets/c', 1]))
    t.strictSame(owners(mirror), ['a: b/offsets/c 4'], 'another snapshot settles it differently')
    mirror.apply(put(key, value.replace('4', '5')))
    t.strictSame(owners(mirror), ['a: b/offsets/c 5'])

    for (const unsettling of [
      snapshot(['c', 1], ['b/offsets/c', 1]),
      snapshot(['other', 1]),
      put('/kafscale/metadata/snapshot', '{'),
      remove('/kafscale/metadata/snapshot'),
    ]) {
      mirror.apply(snapshot(['c', 1]))
      t.equal(mirror.groups.length, 1)
      mirror.apply(unsettling)
      t.strictSame(owners(mirror), [], 'both topics, or none, settle nothing')
      t.strictSame([...mirror.ignored], [[key, IGNORED.ambiguous]])
      t.match(mirror.unattributed, [{ partition: 0, candidates: [{ group: 'a' }, { group: 'a/offsets/b' }] }])
    }

    mirror.apply(put(key, '{'))
    t.equal(mirror.undecodable.size, 0)
    mirror.apply(snapshot(['c', 1]))
    t.strictSame(owners(mirror), ['a/offsets/b: c null'])
    t.strictSame([...mirror.undecodable.keys()], [key])
    mirror.apply(remove(key))
    t.strictSame([mirror.groups, mirror.ignored.size, mirror.undecodable.size, mirror.unattributed], [[], 0, 0, []])
    mirror.apply(remove('/kafscale/metadata/snapshot'))
    t.strictSame(mirror.differences(new Mirror()), [])
  }
  t.strictSame(
    mirrorOf(put(key, value), snapshot(['c', 1])).differences(mirrorOf(put(key, '{"offset":5}'), snapshot(['c', 1]))),
    [key]
  )
})

t.test('lists are sorted by code unit', async t => {
  const names = ['b', 'a', 'B', 'ä', 'z', '\u{1f600}', '\uffee']
  const mirror = mirrorOf(
    snapshot(...names.map((name): [string, number] => [name, 1])),
    ...names.map(name => committed(name, 'a', 0, 1))
  )
  const sorted = ['B', 'a', 'b', 'z', 'ä', '\u{1f600}', '\uffee']
  t.strictSame(mirror.topics.map(({ name }) => name), sorted)
  t.strictSame(mirror.groups.map(({ id }) => id), sorted)
  t.equal(compare('a', 'a'), 0)
})

t.test('names of JavaScript built-ins have no special meaning', async t => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty']
  const mirror = mirrorOf(
    snapshot(...names.map((name): [string, number] => [name, 1])),
    ...names.map(name => committed(name, name, 0, 1))
  )
  t.equal(mirror.topics.length, names.length)
  t.strictSame(names.map(name => mirror.group(name)?.commits[0]?.partition.topic.name), names)
  t.equal(mirror.topic('valueOf'), undefined)
})

t.test('compares mirrors by their contents', async t => {
  const events = [
    snapshot(['a', 1]),
    end('a', 0, '5'),
    committed('g', 'a', 0, 1),
    put('/kafscale/consumers/g/metadata', ''),
    put('/kafscale/topics/a/config', ''),
    put('/kafscale/partition-leases/a/0', '1'),
    put('/kafscale/group-leases/g', '1'),
    put('/kafscale/other', ''),
    put('/kafscale/topics/a/partitions/0', ''),
  ]
  t.strictSame(
    mirrorOf(...events).differences(mirrorOf(...events.toReversed())),
    [],
    'regardless of the order of events'
  )
  for (const [index, { key }] of events.entries()) {
    t.strictSame(mirrorOf(...events).differences(mirrorOf(...events.toSpliced(index, 1))), [key.toString()])
  }
  t.strictSame(mirrorOf(end('a', 0, '5')).differences(mirrorOf(end('a', 0, '6'))), [
    '/kafscale/topics/a/partitions/0/next_offset',
  ], 'even if only the value differs')
})
