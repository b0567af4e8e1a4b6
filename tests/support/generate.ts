/**
 * Random histories of a `/kafscale/` keyspace: what KafScale writes, in both of its versions, and what no one should
 * write.
 *
 * The same seed always gives the same history. Nothing is imported from the service, so the encoders are an independent
 * implementation of the formats, which makes round trips meaningful.
 */

/** One write of a history. */
export type Operation = { put: Buffer, value: Buffer } | { delete: Buffer }

/** Group ids and topics with slashes. Together, some of them make keys that can be read in several ways. */
const slashedGroups = ['dc-1/pending', '/', 'a/metadata', 'a/offsets', 'a/offsets/b', 'offsets', 'a'] as const
const slashedTopics = ['offsets/b', 'b/offsets/c', '/b', 'b/', 'metadata', 'offsets'] as const

/** A reproducible source of random choices. */
export interface Random {
  /** An integer from 0 to `below` − 1. */
  int: (below: number) => number
  chance: (probability: number) => boolean
  /** One of the values, which must not be empty. */
  pick: <T>(values: readonly T[]) => T
  /** Up to `count` of the values, without repetition and in random order. */
  some: <T>(values: readonly T[], count: number) => T[]
}

/** The Mulberry32 generator. */
export function random (seed: number): Random {
  let state = seed >>> 0
  function next (): number {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (below: number): number => Math.floor(next() * below)
  return {
    int,
    chance: probability => next() < probability,
    pick: <T>(values: readonly T[]) => values[int(values.length)] as T,
    some (values, count) {
      const left = [...values]
      return Array.from({ length: Math.min(count, left.length) }, () => left.splice(int(left.length), 1)).flat()
    }
  }
}

/** Names that a careless implementation sorts, matches, escapes or confuses. */
export const oddNames = [
  'orders',
  'Orders',
  'orders.dlq',
  'payments',
  'Zebra',
  'apple',
  'Äpfel',
  'zulu',
  '10',
  '9',
  '-1',
  '01',
  'a',
  'A',
  'a.b',
  'a*b',
  'a?b',
  '[a]',
  'é',
  'e\u0301',
  'ß',
  'ﬁ',
  '\uff5e',
  '😀',
  '😀😀',
  '\ufffd',
  '\ufeffbom',
  '\u202egnp.exe',
  '\u0085',
  '\u2028',
  'a\u0000b',
  'two\nlines',
  ' ',
  'tab\t',
  '"quoted"',
  '<b>&amp;</b>',
  '\\',
  '{}',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'length',
  'null',
  'undefined',
  'metadata',
  'offsets',
  'config',
  'partitions',
  'next_offset',
  'empty',
  'n'.repeat(200),
] as const

const slashedNames = [
  'a/b c',
  'x/partitions/0',
  'x/config',
  '/',
  '//',
  'orders/',
  '/orders',
  'a/partitions/1/next_offset',
] as const

// Wire formats

function varint (value: bigint): Buffer {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, value)
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0))
    rest >>= 7n
  } while (rest > 0n)
  return Buffer.from(bytes)
}

const integerField = (number: number, value: bigint): Buffer =>
  value === 0n ? Buffer.alloc(0) : Buffer.concat([varint(BigInt(number << 3)), varint(value)])

const bytesField = (number: number, value: Buffer): Buffer =>
  Buffer.concat([varint(BigInt(number << 3 | 2)), varint(BigInt(value.length)), value])

const textField = (number: number, value: string): Buffer =>
  value === '' ? Buffer.alloc(0) : bytesField(number, Buffer.from(value))

/** The fields of a `kafscale.metadata.TopicConfig`. */
export interface TopicConfigFields {
  name: string
  partitions?: number
  replicationFactor?: number
  retentionMs?: bigint
  retentionBytes?: bigint
  segmentBytes?: bigint
  createdAt?: string
  config?: Array<[string, string]>
}

export function encodeTopicConfig (fields: TopicConfigFields): Buffer {
  return Buffer.concat([
    textField(1, fields.name),
    integerField(2, BigInt(fields.partitions ?? 0)),
    integerField(3, BigInt(fields.replicationFactor ?? 0)),
    integerField(4, fields.retentionMs ?? 0n),
    integerField(5, fields.retentionBytes ?? 0n),
    integerField(6, fields.segmentBytes ?? 0n),
    textField(7, fields.createdAt ?? ''),
    ...(fields.config ?? []).map(([key, value]) =>
      bytesField(8, Buffer.concat([textField(1, key), textField(2, value)]))
    ),
  ])
}

/** A `kafscale.metadata.PartitionState` as it is when the partition is created. */
export function encodePartitionState (topic: string, partition: number, leaderBroker: string): Buffer {
  return Buffer.concat([textField(1, topic), integerField(2, BigInt(partition)), textField(3, leaderBroker)])
}

/**
 * The fields of a `kafscale.metadata.ConsumerGroup`. `unpacked` writes partitions one by one, which proto3 readers must
 * accept.
 */
export interface ConsumerGroupFields {
  groupId: string
  state?: string
  protocolType?: string
  protocol?: string
  leader?: string
  generationId?: number
  rebalanceTimeoutMs?: number
  unpacked?: boolean
  members?: Array<{
    memberId: string
    clientId?: string
    clientHost?: string
    heartbeatAt?: string
    sessionTimeoutMs?: number
    subscriptions?: string[]
    assignments?: Array<{ topic: string, partitions: number[] }>
  }>
}

export function encodeConsumerGroup (fields: ConsumerGroupFields): Buffer {
  const partitionsField = (partitions: number[]): Buffer =>
    fields.unpacked === true
      ? Buffer.concat(partitions.flatMap(partition => [varint(BigInt(2 << 3)), varint(BigInt(partition))]))
      : partitions.length === 0
        ? Buffer.alloc(0)
        : bytesField(2, Buffer.concat(partitions.map(partition => varint(BigInt(partition)))))
  return Buffer.concat([
    textField(1, fields.groupId),
    textField(2, fields.state ?? ''),
    textField(3, fields.protocolType ?? ''),
    textField(4, fields.protocol ?? ''),
    textField(5, fields.leader ?? ''),
    integerField(6, BigInt(fields.generationId ?? 0)),
    ...(fields.members ?? []).map(member => bytesField(7, Buffer.concat([
      textField(1, member.memberId),
      bytesField(2, Buffer.concat([
        textField(1, member.clientId ?? ''),
        textField(2, member.clientHost ?? ''),
        textField(3, member.heartbeatAt ?? ''),
        ...(member.assignments ?? []).map(({ topic, partitions }) =>
          bytesField(4, Buffer.concat([textField(1, topic), partitionsField(partitions)]))),
        ...(member.subscriptions ?? []).map(topic => bytesField(5, Buffer.from(topic))),
        integerField(6, BigInt(member.sessionTimeoutMs ?? 0))
      ]))
    ]))),
    integerField(8, BigInt(fields.rebalanceTimeoutMs ?? 0))
  ])
}

/** JSON as written by Go's encoder, or with all non-ASCII characters escaped. */
function json (value: unknown, ascii: boolean): string {
  const text = JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, escaped)
  return ascii ? text.replace(/[^\x20-\x7e]/g, escaped) : text
}

const escaped = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`

// Values

const int64s = [
  '0',
  '1',
  '-1',
  '5',
  '42',
  '1000',
  '9007199254740991',
  '9007199254740992',
  '9007199254740993',
  '-9007199254740991',
  '-9007199254740993',
  '9223372036854775807',
  '-9223372036854775808',
] as const

const int32s = [0, 0, 0, 1, 2, 3, -1, 2147483647, -2147483648] as const

const nonNumbers = [
  '',
  ' ',
  '-',
  '+5',
  ' 5',
  '5 ',
  '5\n',
  '1e3',
  '5.0',
  '0x10',
  '1_000',
  'null',
  'NaN',
  '9223372036854775808',
  '-9223372036854775809',
  '٣',
  '\ufeff5',
  '\u0000',
] as const

function decimal (from: Random): string {
  if (from.chance(0.25)) return from.pick(nonNumbers)
  if (from.chance(0.2)) return from.pick(int64s)
  return from.chance(0.05) ? from.pick(['007', '-0', '-007', '00']) : String(from.int(500))
}

/**
 * A stored time: usually within the last minutes, with or without nanoseconds, sometimes unusual, sometimes invalid.
 */
function time (from: Random, now: Date): string {
  if (from.chance(0.1)) {
    return from.pick([
      '',
      'yesterday',
      '2026-07-16',
      '2026-07-16 08:51:40Z',
      '2026-07-16T08:51:40',
      '2026-07-16T08:51Z',
      '2026-02-30T00:00:00Z',
      '2025-02-29T00:00:00Z',
      '2026-13-01T00:00:00Z',
      '2026-07-16T24:00:00Z',
      '2026-07-16T08:60:00Z',
      '2026-07-16T08:51:40.Z',
      '2026-07-16T08:51:40,5Z',
      '20260716T085140Z',
      '2026-07-16T08:51:40+0200',
      '2026-07-16T08:51:40+24:00',
      '+012026-07-16T08:51:40Z',
      '0000-01-01T00:00:00+01:00',
      '9999-12-31T23:59:59-01:00',
      ' 2026-07-16T08:51:40Z',
      '2026-07-16T08:51:40Z\n',
      'Thu, 16 Jul 2026 08:51:40 GMT',
    ])
  }
  if (from.chance(0.1)) {
    return from.pick([
      '0001-01-01T00:00:00Z',
      '2024-02-29T23:59:59Z',
      '2026-07-16T08:51:40+02:00',
      '2026-07-16T08:51:40.5-11:30',
      '1970-01-01T00:00:00Z',
      '1971-01-01T00:00:00+00:01',
      '2038-01-19T03:14:07Z',
      '2099-12-31T23:59:59.9999Z',
      '2026-07-16T08:51:40.1Z',
      '2026-07-16T08:51:40.123456789123Z',
      '9999-12-31T23:59:59.999999999Z',
    ])
  }
  const moment = new Date(now.getTime() - from.int(120_000) + 10_000).toISOString()
  return from.chance(0.5)
    ? moment.replace('Z', `${String(from.int(1_000_000)).padStart(6, '0')}Z`)
    : moment.replace(/\.\d+/, '')
}

/**
 * A text that tools return as it is: mostly short, sometimes about 4 KB long with multi-byte characters at the limit.
 */
function text (from: Random): string {
  if (from.chance(0.8)) return from.pick(['', '', 'consumer', 'range', '/10.0.0.7', 'client-1', ...oddNames])
  const wide = from.pick(['x', 'é', '€', '😀'])
  return 'x'.repeat(from.int(4)) + wide.repeat(Math.floor(4096 / Buffer.byteLength(wide)) - 1 + from.int(4))
}

const brokenFields = [
  [0x0f], // an invalid wire type
  [0xff], // a truncated varint
  [0x07, 0x01], // an invalid wire type
  [0x0a, 0x05, 0x61], // truncated bytes
  [0x00, 0x00], // field number 0
  [0x12, 0x02, 0xc3, 0x28], // text that is not UTF-8
  [0x0b, 0x14], // the end of a different group
]

/** Damages a value, which may make it undecodable. */
function damaged (from: Random, value: Buffer): Buffer {
  switch (from.int(4)) {
    case 0:
      return Buffer.from(from.pick(['', 'null', '[]', '{', '{}', '42', '"text"', 'garbage', '\u0000', '\ufeff{}']))
    case 1:
      return value.subarray(0, from.int(value.length + 1))
    case 2:
      return Buffer.concat([value, Buffer.from(from.pick(brokenFields))])
    default:
      return Buffer.from(Array.from({ length: from.int(12) }, () => from.int(256)))
  }
}

/** Fields that a newer version could add. Readers skip them. */
const unknownFields = [
  Buffer.from([0xa0, 0x06, 0x01]), Buffer.from([0xa2, 0x06, 0x01, 0x78]), Buffer.from([0xa5, 0x06, 1, 2, 3, 4]),
  Buffer.from([0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]), Buffer.from([0xa3, 0x06, 0x08, 0x01, 0xa4, 0x06])
] as const

function protobuf (from: Random, value: Buffer): Buffer {
  if (from.chance(0.1)) return damaged(from, value)
  return from.chance(0.1) ? Buffer.concat([value, from.pick(unknownFields)]) : value
}

function committedOffset (from: Random, now: Date): Buffer {
  if (from.chance(0.06)) {
    return damaged(from, Buffer.from('{"offset":12,"metadata":"é","committed_at":"2026-07-16T08:51:40Z"}'))
  }
  const offset = from.chance(0.06)
    ? from.pick([
      '"5"',
      '5.0',
      '5e0',
      '1E400',
      'null',
      'true',
      '[5]',
      '{}',
      '9223372036854775808',
      '-9223372036854775809',
    ])
    : from.chance(0.2)
      ? from.pick(int64s)
      : String(from.int(500))
  const exact = from.chance(0.95)
  const names = exact ? ['offset', 'metadata', 'committed_at'] : ['OFFSET', 'Metadata', 'COMMITTED_AT']
  const members = [
    from.chance(0.03) ? null : `"${names[0]}":${offset}`,
    from.chance(0.05) ? null : `"${names[1]}":${json(text(from), from.chance(0.3))}`,
    from.chance(0.05)
      ? null
      : `"${names[2]}":${from.chance(0.03) ? from.pick(['null', '0', '{}']) : json(time(from, now), false)}`,
    from.chance(0.05) ? '"leader_epoch":{"deep":[1,2.5,"x"]}' : null,
    exact && from.chance(0.03) ? '"Offset":777' : null
  ].filter(member => member !== null)
  return Buffer.from(from.chance(0.1) ? `{ ${members.reverse().join(' ,\n')} }` : `{${members.join(',')}}`)
}

function snapshot (from: Random, topics: readonly string[]): Buffer {
  if (from.chance(0.1)) return damaged(from, Buffer.from('{"Brokers":null,"ControllerID":0,"Topics":[]}'))
  const legacy = from.chance(0.4)
  const nodes = from.some([0, 1, 2, 7, 2147483647], from.int(4))
  const nodeList = (): number[] | null => from.chance(0.1) ? null : from.some([0, 1, 2, 7], from.int(4))

  function partition (number: unknown): unknown {
    const leader = from.chance(0.02) ? from.pick<unknown>(['0', 1.5, 2147483648, [], true]) : from.pick(int32s)
    const replicas: unknown = from.chance(0.02) ? from.pick<unknown>(['0', { 0: 1 }, ['0'], [0.5], 7]) : nodeList()
    const rest = {
      ...(from.chance(0.9) ? { LeaderEpoch: from.pick(int32s) } : {}),
      ErrorCode: from.chance(0.9) ? 0 : from.pick([3, 5, -1]),
    }
    return legacy
      ? {
          ...rest,
          PartitionIndex: number,
          LeaderID: leader,
          ReplicaNodes: replicas,
          ISRNodes: nodeList(),
          OfflineReplicas: nodeList(),
        }
      : {
          ...rest,
          Partition: number,
          Leader: leader,
          Replicas: replicas,
          ISR: nodeList(),
          OfflineReplicas: nodeList(),
          UnknownTags: {},
        }
  }

  function topic (name: unknown): unknown {
    const numbers: unknown[] = Array.from({ length: from.int(5) }, (_, index) => index)
    if (from.chance(0.3)) {
      numbers.splice(
        from.int(numbers.length + 1),
        0,
        from.pick<unknown>([-1, -1, 1.5, '1', 2147483648, 2147483647, 0, 1, 100, true, [0]])
      )
    }
    const partitions = from.chance(0.03)
      ? null
      : from.chance(0.3)
        ? from.some(numbers, 9).map(partition)
        : numbers.map(partition)
    const errorCode = from.chance(0.02)
      ? from.pick<unknown>(['0', 0.5, {}])
      : from.chance(0.1)
        ? from.pick([3, 29, -1])
        : 0
    const spelled = name === undefined ? {} : legacy ? { Name: name } : { Topic: name }
    return {
      ErrorCode: errorCode,
      ...spelled,
      TopicID: Array(16).fill(7),
      IsInternal: false,
      Partitions: partitions,
      AuthorizedOperations: 0,
    }
  }

  const names: unknown[] = from.some(topics, from.int(topics.length + 1))
  if (from.chance(0.15)) {
    names.splice(from.int(names.length + 1), 0, from.pick<unknown>([undefined, null, 5, '', {}, names[0] ?? 'twice']))
  }
  const hosts = ['127.0.0.1', 'prod-broker-0.svc', '', 'ひ.example']
  const broker = (id: unknown): unknown => ({
    NodeID: id,
    Host: from.pick(hosts),
    Port: from.pick([9092, 0, 65535]),
    Rack: null,
  })
  const brokers = nodes.map(broker)
  if (from.chance(0.1)) {
    brokers.push(
      from.pick<unknown>([broker('1'), broker(0.5), { NodeID: 9, Port: '9092' }, { NodeID: 9, Host: 7 }, 'broker', {
        Host: 'zero',
      }])
    )
  }
  const document = {
    Brokers: from.chance(0.05)
      ? null
      : brokers.filter((it, at) => brokers.findIndex(other => nodeId(other) === nodeId(it)) === at),
    ...(from.chance(0.05) ? {} : { ControllerID: from.pick(int32s) }),
    Topics: from.chance(0.05) ? null : names.map(topic),
    ...(from.chance(0.3)
      ? {}
      : { ClusterName: from.pick([null, 'prod', '\u202egnp']), ClusterID: from.pick([null, 'kafscale-cluster']) }),
    Later: { Topics: [1, 2] },
  }
  const stored = json(document, from.chance(0.3))
  const members = /"(Topic|Name|Partition|PartitionIndex|Leader|Replicas|ISR|Partitions|ControllerID)":/g
  return Buffer.from(from.chance(0.1) ? stored.replace(members, name => name.toLowerCase()) : stored)
}

const nodeId = (broker: unknown): unknown =>
  typeof broker === 'object' && broker !== null && 'NodeID' in broker ? broker.NodeID : 0

/** Keys of a map, sometimes with one that occurs twice: the last one counts. */
const sometimesTwice = (from: Random, keys: string[]): string[] =>
  from.chance(0.15) ? [...keys, ...from.some(keys, 1)] : keys

function group (from: Random, now: Date, groupId: string, topics: readonly string[]): Buffer {
  return protobuf(
    from,
    encodeConsumerGroup({
      groupId: from.chance(0.9) ? groupId : 'another',
      state: from.pick(['stable', 'stable', 'preparing_rebalance', 'completing_rebalance', 'empty', 'Dead', '']),
      protocolType: from.chance(0.8) ? 'consumer' : text(from),
      protocol: from.chance(0.8) ? 'range' : text(from),
      leader: from.pick(oddNames),
      generationId: from.pick(int32s),
      rebalanceTimeoutMs: from.pick(int32s),
      unpacked: from.chance(0.2),
      members: sometimesTwice(from, from.some([...oddNames, 'm-1', 'm-2', 'm-3'], from.int(4))).map(memberId => ({
        memberId,
        clientId: text(from),
        clientHost: text(from),
        heartbeatAt: time(from, now),
        sessionTimeoutMs: from.pick([0, 10_000, 30_000, 45_000, 60_000, 1, 2147483647]),
        subscriptions: from.some(topics, from.int(4)),
        assignments: from.some(topics, from.int(5)).map(topic => ({
          topic,
          partitions: [
            ...from.some([0, 1, 2, 3, 4], 1 + from.int(4)),
            ...(from.chance(0.1) ? [from.pick([-1, 0, 0, 2147483647])] : []),
          ],
        })),
      })),
    })
  )
}

function config (from: Random, now: Date, name: string): Buffer {
  return protobuf(
    from,
    encodeTopicConfig({
      name,
      partitions: from.pick(int32s),
      replicationFactor: from.pick(int32s),
      retentionMs: BigInt(from.pick(int64s)),
      retentionBytes: BigInt(from.pick(int64s)),
      segmentBytes: BigInt(from.pick(int64s)),
      createdAt: time(from, now),
      config: from.chance(0.6)
        ? []
        : sometimesTwice(from, from.some(['cleanup.policy', 'zeta', '10', '9', ...oddNames], 1 + from.int(4))).map(
          key => [key, text(from)]
        ),
    })
  )
}

/** A key that matches no known pattern, in some cases only just. */
function strayKey (from: Random, groupId: string, topic: string): Buffer {
  const bytes = Buffer.from([0xff])
  return from.pick([
    ...[
      '/kafscale/',
      '/kafscale/brokers/1',
      `/kafscale/assignments/${topic}/0`,
      '/kafscale/metadata/snapshot2',
      '/kafscale/metadata/snapshot/x',
      '/kafscale/metadata',
      '/kafscale/topics/config',
      '/kafscale/topics//config',
      `/kafscale/topics/${topic}`,
      `/kafscale/topics/${topic}/Config`,
      `/kafscale/topics/${topic}/config/`,
      `/kafscale/topics/${topic}/partitions/00/next_offset`,
      `/kafscale/topics/${topic}/partitions/-1/next_offset`,
      `/kafscale/topics/${topic}/partitions/2147483648/next_offset`,
      `/kafscale/topics/${topic}/partitions/0/next_offset/`,
      `/kafscale/topics/${topic}/partitions//next_offset`,
      `/kafscale/topics/${topic}/partition/0/next_offset`,
      '/kafscale/topics/partitions/0/next_offset',
      `/kafscale/consumersX/${groupId}/metadata`,
      '/kafscale/consumers//metadata',
      '/kafscale/consumers/metadata',
      `/kafscale/consumers/${groupId}/x/metadata`,
      `/kafscale/consumers/${groupId}/metadata/`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/x/0`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/0/x`,
      `/kafscale/consumers/${groupId}/offsets//0`,
      `/kafscale/consumers//offsets/${topic}/0`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/00`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/+1`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/-1`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/1e0`,
      `/kafscale/consumers/${groupId}/offsets/${topic}/2147483648`,
      `/kafscale/consumers/${groupId}/offsets/${topic}`,
      `/kafscale/consumers/${groupId}/offset/${topic}/0`,
      '/kafscale/partition-leases/0',
      '/kafscale/partition-leases',
      `/kafscale/partition-leases/${topic}/00`,
      `/kafscale/partition-leases/${topic}/`,
      '/kafscale/group-leases/',
      '/kafscale/group-leases',
      `/kafscale/group-leases/${groupId}/x`,
    ].map(key => Buffer.from(key)),
    Buffer.concat([Buffer.from('/kafscale/consumers/'), bytes, Buffer.from('/metadata')]),
    Buffer.concat([Buffer.from('/kafscale/topics/'), bytes, Buffer.from('/config')]),
    Buffer.concat([Buffer.from(`/kafscale/consumers/${groupId}/offsets/`), bytes, Buffer.from('/0')]),
    Buffer.concat([Buffer.from('/kafscale/topics/'), bytes, Buffer.from('/partitions/0/next_offset')])
  ])
}

/** A history, and most of the topic and group names that occur in it. */
export interface History { operations: Operation[], topics: string[], groups: string[] }

/**
 * A history of at least `length` writes that is determined by the arguments. Most stored times are within two minutes
 * of `now`, so that some members are stale and some are not.
 */
export function history (seed: number, length: number, now: Date): History {
  const from = random(seed)
  const plain = from.some(oddNames, 6)
  const topics = [...plain, ...from.some(slashedNames, 2)]
  const groups = from.some(oddNames, 5)
  const live = new Map<string, Buffer>()
  const operations: Operation[] = []

  function put (key: string | Buffer, value: string | Buffer): void {
    const bytes = Buffer.from(key)
    live.set(bytes.toString('latin1'), bytes)
    operations.push({ put: bytes, value: Buffer.from(value) })
  }

  function remove (key: Buffer): void {
    live.delete(key.toString('latin1'))
    operations.push({ delete: key })
  }

  /** What groups with slashes store, or on such topics. Its own source of choices leaves the others as they are. */
  const other = random(seed + 1_000_000)
  const others = new Map<string, Buffer>()
  const allTopics = [...new Set([...topics, ...slashedTopics])]
  function slashed (): void {
    const groupId = other.pick(slashedGroups)
    const topic = other.pick(allTopics)
    const key = Buffer.from(
      other.chance(0.25)
        ? `/kafscale/consumers/${groupId}/metadata`
        : `/kafscale/consumers/${groupId}/offsets/${topic}/${other.int(3)}`
    )
    const [gone] = other.chance(0.2) ? other.some([...others.values()], 1) : []
    if (other.chance(0.08)) {
      const value = snapshot(other, allTopics)
      operations.push({ put: Buffer.from('/kafscale/metadata/snapshot'), value })
    } else if (gone) {
      others.delete(gone.toString())
      operations.push({ delete: gone })
    } else {
      others.set(key.toString(), key)
      const value = key.toString().endsWith('/metadata')
        ? group(other, now, groupId, allTopics)
        : committedOffset(other, now)
      operations.push({ put: key, value })
    }
  }

  let slashedWrites = 0
  while (operations.length - slashedWrites < length) {
    const topic = from.pick(topics)
    const groupId = from.pick(groups)
    const partition = from.chance(0.97) ? from.int(4) : from.pick([100, 2147483647])
    const kind = from.int(100)
    if (kind < 8 || operations.length === 0) {
      put('/kafscale/metadata/snapshot', snapshot(from, topics))
    } else if (kind < 30) {
      put(`/kafscale/topics/${topic}/partitions/${partition}/next_offset`, decimal(from))
    } else if (kind < 56) {
      put(`/kafscale/consumers/${groupId}/offsets/${from.pick(plain)}/${partition}`, committedOffset(from, now))
    } else if (kind < 68) {
      put(`/kafscale/consumers/${groupId}/metadata`, group(from, now, groupId, topics))
    } else if (kind < 74) {
      put(`/kafscale/topics/${topic}/config`, config(from, now, topic))
    } else if (kind < 82) {
      put(`/kafscale/partition-leases/${topic}/${partition}`, from.chance(0.8) ? String(from.int(3)) : decimal(from))
    } else if (kind < 86) {
      put(
        `/kafscale/group-leases/${groupId}`,
        from.chance(0.8) ? String(from.int(3)) : from.pick(['2147483647', '2147483648', '-1', 'x', ''])
      )
    } else if (kind < 88) {
      put(`/kafscale/topics/${topic}/partitions/${partition}`, Buffer.from('0a066f726465727310031a0130', 'hex'))
    } else if (kind < 91) {
      put(strayKey(from, groupId, from.pick(plain)), from.pick(['', '5', '{"offset":5}', '0']))
    } else if (kind < 99) {
      for (const key of from.some([...live.values()], 1)) remove(key)
    } else {
      const prefixes = [
        `/kafscale/topics/${topic}/`,
        `/kafscale/consumers/${groupId}/`,
        '/kafscale/partition-leases/',
        '/kafscale/nothing',
      ]
      const prefix = Buffer.from(from.pick(prefixes))
      for (const key of live.values()) if (key.subarray(0, prefix.length).equals(prefix)) remove(key)
    }
    if (other.chance(0.3)) {
      slashed()
      slashedWrites++
    }
  }
  return { operations, topics: allTopics, groups: [...groups, ...slashedGroups] }
}
