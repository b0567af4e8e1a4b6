import fc from 'fast-check'
import t from 'tap'
import { encodeCommittedOffset, encodeConsumerGroup, encodeSnapshot, encodeTopicConfig } from '../../demo/encode.ts'
import { int64 } from '../../kafscale/int64.ts'
import {
  type ConsumerGroup,
  decodeCommittedOffset,
  decodeConsumerGroup,
  decodeLease,
  decodeNextOffset,
  decodePartitionState,
  decodeSnapshot,
  decodeTopicConfig,
  type TopicConfig,
  UndecodableError,
} from '../../kafscale/records.ts'
import { holds, same } from '../support/property.ts'

// Records as written by KafScale.
const TOPIC_CONFIG =
  '0a066f726465727310031803208088b2a00228ffffffffffffffffff013a14323032362d30372d31365430383a35313a34305a'
const CONSUMER_GROUP =
  '0a0267311206737461626c651a08636f6e73756d6572220572616e67652a0567312d343230013a420a0567312d343212391a1e' +
  '323032362d30372d31365430383a35313a34302e3132333435363738395a220c0a066f7264657273120200012a066f7264657273' +
  '30904e40e0d403'
const PARTITION_STATE = '0a066f726465727310031a0130'

const refused = { name: 'UndecodableError' }
const hex = (text: string) => Buffer.from(text, 'hex')

t.test('decodes a topic config', async t => {
  const config = decodeTopicConfig(hex(TOPIC_CONFIG))
  t.strictSame(config, {
    partitions: 3,
    replicationFactor: 3,
    retentionMs: 604800000,
    retentionBytes: -1,
    segmentBytes: 0,
    createdAtMs: Date.parse('2026-07-16T08:51:40Z'),
    config: new Map(),
  })
  t.equal(encodeTopicConfig('orders', config).toString('hex'), TOPIC_CONFIG)
})

t.test('decodes a consumer group', async t => {
  const defects: string[] = []
  t.strictSame(decodeConsumerGroup(hex(CONSUMER_GROUP), defects), {
    state: 'stable',
    protocolType: 'consumer',
    protocol: 'range',
    leader: 'g1-42',
    generationId: 1,
    rebalanceTimeoutMs: 60000,
    members: new Map([['g1-42', {
      clientId: '',
      clientHost: '',
      heartbeatAtMs: Date.parse('2026-07-16T08:51:40.123Z'),
      assignments: new Map([['orders', [0, 1]]]),
      subscriptions: ['orders'],
      sessionTimeoutMs: 10000,
    }]]),
  })
  t.strictSame(defects, [])
})

t.test('decodes a partition state', async t => {
  t.strictSame(decodePartitionState(hex(PARTITION_STATE)), { topic: 'orders', partition: 3, leaderBroker: '0' })
})

t.test('a truncated protobuf is undecodable or a shorter message, and never fails in another way', async t => {
  const decoders: [string, (value: Buffer) => unknown][] = [
    [TOPIC_CONFIG, decodeTopicConfig],
    [CONSUMER_GROUP, value => decodeConsumerGroup(value, [])],
    [PARTITION_STATE, decodePartitionState],
  ]
  for (const [vector, decode] of decoders) {
    const whole = hex(vector)
    const failures = [...whole.keys()].flatMap(length => {
      try {
        decode(whole.subarray(0, length))
        return []
      } catch (error) {
        return [error]
      }
    })
    t.ok(failures.every(error => error instanceof UndecodableError))
    t.ok(failures.length > whole.length / 2)
  }
  t.throws(() => decodeTopicConfig(hex('0a02c328')), refused, 'text that is not UTF-8')
})

t.test('skips fields with an unknown number or an unexpected wire type, like Go', async t => {
  t.strictSame(decodePartitionState(hex('f80501' + PARTITION_STATE)).topic, 'orders')
  t.strictSame(decodePartitionState(hex('0801' + '1201ff' + PARTITION_STATE)), {
    topic: 'orders',
    partition: 3,
    leaderBroker: '0',
  })
  t.strictSame(decodeTopicConfig(hex('f80501')).partitions, 0)
})

t.test('accepts packed and unpacked partitions, and leaves out negative ones', async t => {
  const group = (assignment: string) => {
    const bytes = assignment.length / 2
    const member = '22' + bytes.toString(16).padStart(2, '0') + assignment
    const entry = '0a016d12' + (member.length / 2).toString(16).padStart(2, '0') + member
    return hex('3a' + (entry.length / 2).toString(16).padStart(2, '0') + entry)
  }
  const defects: string[] = []
  t.strictSame(
    decodeConsumerGroup(group('0a0174' + '10051002'), defects).members.get('m')?.assignments,
    new Map([['t', [2, 5]]])
  )
  t.strictSame(defects, [])
  t.strictSame(
    decodeConsumerGroup(group('0a0174' + '120b' + '01' + 'ffffffffffffffffff01'), defects).members.get('m')
      ?.assignments,
    new Map([['t', [1]]])
  )
  t.match(defects, [/negative/])
})

const anyInt64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(int64)
const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const text = fc.string({ unit: 'grapheme' })
const instant = fc.option(
  fc.date({ min: new Date('1971-01-01'), max: new Date('2099-12-31'), noInvalidDate: true }).map(Number)
)
const partitions = fc.uniqueArray(fc.nat(2 ** 31 - 1)).map(list => list.sort((a, b) => a - b))

t.test('decodes what was encoded, without rounding integers', async t => {
  const plain = { noNullPrototype: true }
  const config: fc.Arbitrary<TopicConfig> = fc.record({
    partitions: int32,
    replicationFactor: int32,
    retentionMs: anyInt64,
    retentionBytes: anyInt64,
    segmentBytes: anyInt64,
    createdAtMs: instant.map(ms => ms === null ? null : Math.floor(ms / 1000) * 1000),
    config: fc.array(fc.tuple(text, text)).map(entries => new Map(entries)),
  }, plain)
  holds(t, 'topic config', config, record => same(decodeTopicConfig(encodeTopicConfig('t', record)), record))

  const member = fc.record({
    clientId: text,
    clientHost: text,
    heartbeatAtMs: instant,
    subscriptions: fc.array(text),
    sessionTimeoutMs: int32,
    assignments: fc.array(fc.tuple(text, partitions)).map(entries => new Map(entries)),
  }, plain)
  const group: fc.Arbitrary<ConsumerGroup> = fc.record({
    state: text,
    protocolType: text,
    protocol: text,
    leader: text,
    generationId: int32,
    rebalanceTimeoutMs: int32,
    members: fc.array(fc.tuple(text, member)).map(entries => new Map(entries)),
  }, plain)
  holds(t, 'consumer group', group, record => same(decodeConsumerGroup(encodeConsumerGroup('g', record), []), record))

  const committed = fc.record({ offset: anyInt64, metadata: text, committedAtMs: instant }, plain)
  holds(t, 'committed offset', committed, record => same(decodeCommittedOffset(encodeCommittedOffset(record)), record))
})

t.test('arbitrary bytes are decoded or undecodable, and never fail in another way', async t => {
  const decoders = [
    decodeNextOffset, decodeLease, decodeCommittedOffset, decodeTopicConfig, decodePartitionState,
    (value: Buffer) => decodeConsumerGroup(value, []), (value: Buffer) => decodeSnapshot(value, []),
  ]
  holds(t, 'every decoder', fc.uint8Array({ maxLength: 200 }), bytes => decoders.every(decode => {
    try {
      decode(Buffer.from(bytes))
      return true
    } catch (error) {
      return error instanceof UndecodableError
    }
  }), 2000)
})

t.test('decodes a committed offset', async t => {
  const decode = (json: string) => decodeCommittedOffset(Buffer.from(json))
  const committedAtMs = Date.parse('2026-11-23T13:20:32.608Z')
  t.strictSame(decode('{"offset":2,"metadata":"","committed_at":"2026-11-23T13:20:32.608073016Z"}'), {
    offset: 2,
    metadata: '',
    committedAtMs,
  })
  t.strictSame(
    decode(
      '{"offset":9223372036854775807,"metadata":"\\u003cm\\u003e","committed_at":"2026-11-23T15:20:32.608+02:00"}'
    ),
    { offset: 9223372036854775807n, metadata: '<m>', committedAtMs }
  )
  t.strictSame(decode('{ "committed_at": "yesterday", "offset": -0 }'), {
    offset: 0,
    metadata: '',
    committedAtMs: null,
  })
  t.strictSame(decode('{"offset":1,"committed_at":{}}'), { offset: 1, metadata: '', committedAtMs: null })
  t.strictSame(decode('{"Offset":7,"metadata":null,"x":{"offset":1}}'), {
    offset: 7,
    metadata: '',
    committedAtMs: null,
  })
  for (
    const json of [
      '',
      'null',
      '[]',
      '7',
      '{}',
      '{"offset":"5"}',
      '{"offset":1.0}',
      '{"offset":1e3}',
      '{"offset":9223372036854775808}',
      '{"offset":null}',
      '{"offset":1,"metadata":5}',
      '{"offset":1',
      '{"offset":01,"metadata":"","committed_at":""}',
    ]
  ) t.throws(() => decode(json), refused, json)
})

t.test('a time is valid and no placeholder, or null', async t => {
  const read = (time: string) =>
    decodeCommittedOffset(Buffer.from(JSON.stringify({ offset: 1, committed_at: time }))).committedAtMs
  t.equal(read('2024-02-29T23:59:59.999999999Z'), Date.parse('2024-02-29T23:59:59.999Z'))
  t.equal(read('1971-01-01T00:00:00Z'), Date.parse('1971-01-01T00:00:00Z'))
  t.equal(read('2099-12-31T23:59:59.999Z'), Date.parse('2099-12-31T23:59:59.999Z'))
  for (
    const time of [
      '2026-02-30T00:00:00Z',
      '2025-02-29T00:00:00Z',
      '2026-01-01T24:00:00Z',
      '2026-13-01T00:00:00Z',
      '2026-01-01T00:60:00Z',
      '2026-00-01T00:00:00Z',
      '2026-01-00T00:00:00Z',
      '2026-01-01 00:00:00Z',
      '2026-01-01T00:00:00',
      '2026-01-01',
      '0001-01-01T00:00:00Z', // Go's zero time
      '1970-01-01T00:00:00Z',
      '1970-12-31T23:59:59.999Z',
      '1971-01-01T00:00:00+00:01',
      '2100-01-01T00:00:00Z',
      '2262-04-11T23:47:16.854775807Z', // the largest number of nanoseconds in an int64
      '9999-12-31T23:59:59Z',
      '0000-01-01T00:00:00+01:00',
      '9999-12-31T23:59:59-01:00',
      '12026-01-01T00:00:00Z',
    ]
  ) {
    t.equal(read(time), null, time)
  }
})

t.test('an int64 that is truncated anywhere is undecodable', async t => {
  for (const varint of ['ff', 'ffff', 'ffffff', 'ffffffff', 'ffffffffff', 'ffffffffffffffffffff01', '']) {
    t.throws(() => decodeTopicConfig(hex('20' + varint)), refused, varint)
  }
  t.equal(decodeTopicConfig(hex('20ffffffffffffffffff01')).retentionMs, -1)
})

t.test('a field with number 0, and a group without an end, are undecodable', async t => {
  for (const bytes of ['0001', '0b', '0b14', '0c', '0b0801', '0b'.repeat(100_000)]) {
    t.throws(() => decodePartitionState(hex(bytes)), refused, bytes.slice(0, 10))
  }
  t.equal(
    decodePartitionState(hex('0b' + '0801' + '1b' + '1c' + '0c' + PARTITION_STATE)).partition,
    3,
    'a complete group is skipped'
  )
})

t.test('decodes leases to a broker id and next_offset to an int64', async t => {
  t.equal(decodeLease(Buffer.from('2')), 2)
  t.equal(decodeNextOffset(Buffer.from('9223372036854775807')), 9223372036854775807n)
  for (const text of ['', 'broker-2', '2.0', ' 2', '2\n', '4294967296']) {
    t.throws(() => decodeLease(Buffer.from(text)), refused, text)
  }
  for (const text of ['', '12x', '１２', '9223372036854775808']) {
    t.throws(() => decodeNextOffset(Buffer.from(text)), refused, text)
  }
})

t.test('decodes the snapshot with the field names of both versions', async t => {
  const now = JSON.stringify({
    Brokers: [{ NodeID: 1, Host: 'b1', Port: 9092, Rack: null, UnknownTags: {} }],
    ControllerID: 1,
    Topics: [{
      ErrorCode: 0,
      Topic: 'orders',
      TopicID: [],
      IsInternal: false,
      Partitions: [{
        ErrorCode: 0,
        Partition: 1,
        Leader: 1,
        LeaderEpoch: 0,
        Replicas: [1],
        ISR: [1],
        OfflineReplicas: null,
        UnknownTags: {},
      }],
      AuthorizedOperations: 0,
      UnknownTags: {},
    }],
    ClusterName: 'prod',
    ClusterID: null,
  })
  const before = JSON.stringify({
    Brokers: [{ NodeID: 1, Host: 'b1', Port: 9092, Rack: null }],
    ControllerID: 1,
    Topics: [{
      ErrorCode: 0,
      Name: 'orders',
      TopicID: [],
      IsInternal: false,
      Partitions: [{
        ErrorCode: 0,
        PartitionIndex: 1,
        LeaderID: 1,
        LeaderEpoch: 0,
        ReplicaNodes: [1],
        ISRNodes: [1],
        OfflineReplicas: null,
      }],
      TopicAuthorizedOperations: 0,
    }],
    ClusterName: 'prod',
    ClusterID: null,
  })
  const anyCase = now.toLowerCase()
  const expected = {
    clusterName: 'prod',
    clusterId: null,
    controllerId: 1,
    brokers: [{ nodeId: 1, host: 'b1', port: 9092 }],
    topics: [{
      name: 'orders',
      errorCode: 0,
      partitions: [{
        partition: 1,
        leaderId: 1,
        leaderEpoch: 0,
        replicaNodes: [1],
        isrNodes: [1],
        offlineReplicas: [],
        errorCode: 0,
      }],
    }],
  }
  for (const json of [now, before, anyCase]) {
    const defects: string[] = []
    t.strictSame(decodeSnapshot(Buffer.from(json), defects), expected)
    t.strictSame(defects, [])
  }
  t.strictSame(decodeSnapshot(encodeSnapshot(expected), []), expected)
  t.strictSame(
    JSON.parse(encodeSnapshot(expected).toString()).Topics[0].TopicID,
    [150, 88, 64, 56, 22, 64, 158, 102, 235, 162, 23, 95, 142, 255, 139, 83],
    'the topic id that KafScale generates'
  )
})

t.test('a missing field of the snapshot has its zero value', async t => {
  const zero = { clusterName: null, clusterId: null, controllerId: 0, brokers: [], topics: [] }
  t.strictSame(decodeSnapshot(Buffer.from('{}'), []), zero)
  t.strictSame(
    decodeSnapshot(
      Buffer.from('{"Brokers":null,"ControllerID":0,"Topics":null,"ClusterName":null,"ClusterID":null}'),
      []
    ),
    zero
  )
})

t.test('an undecodable part of the snapshot does not affect the rest', async t => {
  const defects: string[] = []
  const snapshot = decodeSnapshot(
    Buffer.from(JSON.stringify({
      Brokers: [{ NodeID: 'one' }, { NodeID: 2 }, 5, { NodeID: 2, Host: 'again' }],
      Topics: [
        { Topic: null },
        {
          Topic: 'orders',
          Partitions: [{ Partition: -1 }, { Partition: 2 }, { Partition: 0 }, { Partition: 0, Leader: 9 }, {
            Partition: 3,
            Replicas: ['x'],
          }],
        },
        { Topic: 'odd', Partitions: {} },
        { Topic: 'orders', Partitions: [] },
        'topic',
        { Topic: 'wrong', ErrorCode: 2 ** 40 },
      ],
    })),
    defects
  )
  t.strictSame(snapshot.brokers, [{ nodeId: 2, host: '', port: 0 }])
  t.strictSame(snapshot.topics.map(({ name, partitions }) => [name, partitions.map(({ partition }) => partition)]), [[
    'orders',
    [0, 2],
  ]])
  t.equal(defects.length, 8)
  t.match(defects.join('\n'), /topic 0: it has no name\n/)
  t.match(defects.join('\n'), /topic "orders": partition 0: its number is negative\n/)
})

t.test('an undecodable name or controller does not affect the rest', async t => {
  const defects: string[] = []
  t.strictSame(
    decodeSnapshot(
      Buffer.from('{"ClusterName":5,"ClusterID":[],"ControllerID":"x","Topics":[{"Topic":"a"}]}'),
      defects
    ),
    {
      clusterName: null,
      clusterId: null,
      controllerId: null,
      brokers: [],
      topics: [{ name: 'a', errorCode: 0, partitions: [] }],
    }
  )
  t.strictSame(defects, ['ClusterName is not a string', 'ClusterID is not a string', 'ControllerID is not an int32'])
})

t.test('a snapshot that is not a JSON object, or has other values for its lists, is undecodable', async t => {
  for (const json of ['', '{', 'null', '[]', '"x"', '{"Topics":{}}', '{"Brokers":5}']) {
    t.throws(() => decodeSnapshot(Buffer.from(json), []), refused, json)
  }
})
