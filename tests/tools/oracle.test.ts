import t from 'tap'
import { encodeConsumerGroup, encodeTopicConfig, history } from '../support/generate.ts'
import type { Arguments, Keyspace, KeyValue } from '../support/oracle.ts'
import {
  answerable, anyText, consumerGroup, expected, groupIds, keyspace, topicConfig, topicNames
} from '../support/oracle.ts'
import { recording } from '../support/paths.ts'

const observedAt = new Date('2026-11-23T13:25:00.000Z')

function keys (entries: Record<string, string | Buffer>): Keyspace {
  const kvs = Object.entries(entries).map(([key, value]): KeyValue => ({
    key: Buffer.from(key),
    value: Buffer.from(value),
    modRevision: '7',
  }))
  return keyspace({ revision: '7', kvs })
}

function ask (space: Keyspace, tool: string, args: Arguments = {}, from = 0): Record<string, unknown> {
  const answer = expected(space, tool, args, observedAt, from)
  if (answer.kind === 'failure') return { failure: answer.code }
  const { observed_at: at, revision, ...content } = answer.content
  if (at !== observedAt.toISOString() || revision === undefined) {
    throw new Error('an answer must have observed_at and revision')
  }
  return answer.more ? { ...content, more: true } : content
}

const snapshotOf = (...topics: unknown[]): string => JSON.stringify({ Brokers: null, ControllerID: 0, Topics: topics })
const topicOf = (name: unknown, ...partitions: number[]): unknown => ({
  Topic: name,
  Partitions: partitions.map(Partition => ({
    Partition,
    Leader: 1,
    Replicas: [1, 0],
    ISR: [1],
    OfflineReplicas: null,
  })),
})

t.test('decodes records as written by KafScale', async t => {
  const config = Buffer.from(
    '0a066f726465727310031803208088b2a00228ffffffffffffffffff013a14323032362d30372d31365430383a35313a34305a',
    'hex'
  )
  t.strictSame(topicConfig(config), {
    retentionMs: 604800000n,
    retentionBytes: -1n,
    segmentBytes: 0n,
    createdAt: Date.UTC(2026, 6, 16, 8, 51, 40),
    config: new Map(),
  })
  t.strictSame(
    encodeTopicConfig({
      name: 'orders',
      partitions: 3,
      replicationFactor: 3,
      retentionMs: 604800000n,
      retentionBytes: -1n,
      createdAt: '2026-07-16T08:51:40Z',
    }),
    config
  )

  const group = Buffer.from(
    '0a0267311206737461626c651a08636f6e73756d6572220572616e67652a0567312d343230013a420a0567312d343212391a1e' +
    '323032362d30372d31365430383a35313a34302e3132333435363738395a220c0a066f7264657273120200012a066f7264657273' +
    '30904e40e0d403',
    'hex'
  )
  t.strictSame(consumerGroup(group), {
    state: 'stable',
    protocolType: 'consumer',
    protocol: 'range',
    leader: 'g1-42',
    generationId: 1,
    members: [{
      memberId: 'g1-42',
      clientId: '',
      clientHost: '',
      heartbeatAt: Date.UTC(2026, 6, 16, 8, 51, 40, 123),
      assignments: [{ topic: 'orders', partitions: [0, 1] }],
      subscriptions: ['orders'],
      sessionTimeoutMs: 10000
    }],
    rebalanceTimeoutMs: 60000
  })
  t.strictSame(encodeConsumerGroup({
    groupId: 'g1',
    state: 'stable',
    protocolType: 'consumer',
    protocol: 'range',
    leader: 'g1-42',
    generationId: 1,
    rebalanceTimeoutMs: 60000,
    members: [{
      memberId: 'g1-42',
      heartbeatAt: '2026-07-16T08:51:40.123456789Z',
      assignments: [{ topic: 'orders', partitions: [0, 1] }],
      subscriptions: ['orders'],
      sessionTimeoutMs: 10000
    }]
  }), group)

  t.test('a truncated message decodes only if it ends between fields', async t => {
    const decodable = Array.from({ length: config.length }, (_, length) => length).filter(length => {
      try {
        topicConfig(config.subarray(0, length))
        return true
      } catch {
        return false
      }
    })
    t.strictSame(decodable, [0, 8, 10, 12, 18, 29])
  })
})

t.test('the protobuf reader', async t => {
  const decode = (hex: string): ReturnType<typeof topicConfig> => topicConfig(Buffer.from(hex, 'hex'))
  t.equal(
    decode('2005a00601a20600a50601020304a1060102030405060708').retentionMs,
    5n,
    'skips unknown fields'
  )
  t.equal(decode('a3060801a4062005').retentionMs, 5n, 'skips groups')
  t.equal(decode('20052006').retentionMs, 6n, 'takes the last of two values')
  t.equal(decode('220105').retentionMs, 0n, 'skips a field with an unexpected wire type')
  t.equal(decode('20ffffffffffffffffff01').retentionMs, -1n)
  t.throws(() => decode('20ffffffffffffffffff02'), 'rejects a varint over 64 bits')
  t.throws(() => decode('20ffffffffffffffffffff01'))
  t.throws(() => decode('0a02c328'), 'rejects text that is not UTF-8')
  t.throws(() => decode('0001'), 'rejects field number 0')
  t.throws(() => decode('0e'), 'rejects wire type 6')
  t.throws(() => decode('a306'), 'rejects a group without an end')
  t.throws(() => decode('a406'), 'rejects the end of a group that was not started')
  t.strictSame(
    [...decode('42080a0161120162780142080a016112016378014200').config],
    [['a', 'c'], ['', '']],
    'takes the last of two map entries'
  )
  const members = consumerGroup(encodeConsumerGroup({
    groupId: 'g', unpacked: true, members: [{ memberId: 'm', assignments: [{ topic: 't', partitions: [3, -1, 0, 3] }] }]
  })).members
  t.strictSame(members[0]?.assignments, [{ topic: 't', partitions: [0, 3] }], 'accepts unpacked numbers')
})

t.test('reads the snapshot with the field names of both versions', async t => {
  const current = keys({
    '/kafscale/metadata/snapshot':
      '{"Brokers":[{"NodeID":1,"Host":"b","Port":9092,"Rack":null,"UnknownTags":{}}],"ControllerID":1,' +
      '"Topics":[{"ErrorCode":0,"Topic":"t","Partitions":[{"ErrorCode":0,"Partition":0,"Leader":1,"LeaderEpoch":4,' +
      '"Replicas":[1,0],"ISR":[1],"OfflineReplicas":[0]}]}],' +
      '"ClusterName":"prod","ClusterID":null}'
  })
  const legacy = keys({
    '/kafscale/metadata/snapshot': '{"Brokers":[{"NodeID":1,"Host":"b","Port":9092,"Rack":null}],"ControllerID":1,' +
      '"Topics":[{"ErrorCode":0,"Name":"t","Partitions":[{"ErrorCode":0,"PartitionIndex":0,"LeaderID":1,' +
      '"LeaderEpoch":4,"ReplicaNodes":[1,0],"ISRNodes":[1],"OfflineReplicas":[0]}]}],' +
      '"ClusterName":"prod","ClusterID":null}'
  })
  for (const space of [current, legacy]) {
    t.strictSame(ask(space, 'cluster_status'), {
      cluster_name: 'prod',
      controller_id: 1,
      brokers: [{ node_id: 1, host: 'b', port: 9092, partitions_owned: 0 }],
      topic_count: 1,
      partition_count: 1,
      topics_not_in_snapshot: 0,
      partitions_not_in_snapshot: 0,
      brokers_not_in_snapshot: [],
      group_count: 0,
      topics: [{ name: 't', partition_count: 1, error_code: 0 }],
      total: 1
    })
    t.strictSame(ask(space, 'describe_topics'), {
      topics: [{
        name: 't',
        error_code: 0,
        partition_count: 1,
        partitions: [{
          partition: 0,
          leader_id: 1,
          owner_id: null,
          leader_epoch: 4,
          replica_nodes: [1, 0],
          isr_nodes: [1],
          offline_replicas: [0],
          error_code: 0,
          log_end_offset: null,
        }],
      }],
      total: 1
    })
  }
})

t.test('a snapshot that is absent, undecodable, or undecodable in part', async t => {
  t.strictSame(ask(keys({}), 'cluster_status'), {
    controller_id: 0,
    brokers: [],
    topic_count: 0,
    partition_count: 0,
    topics_not_in_snapshot: 0,
    partitions_not_in_snapshot: 0,
    brokers_not_in_snapshot: [],
    group_count: 0,
    topics: [],
    total: 0
  })
  t.strictSame(ask(keys({}), 'list_topics'), { topics: [], total: 0 })

  for (const broken of ['', '[]', 'null', '5', '{"Topics":', '\ufeff{}']) {
    const space = keys({
      '/kafscale/metadata/snapshot': broken,
      '/kafscale/topics/t/partitions/0/next_offset': '9',
      '/kafscale/partition-leases/t/0': '3',
      '/kafscale/consumers/g/offsets/t/0': '{"offset":4,"metadata":""}'
    })
    t.strictSame(ask(space, 'cluster_status'), {
      controller_id: null,
      brokers: [],
      topic_count: null,
      partition_count: null,
      topics_not_in_snapshot: null,
      partitions_not_in_snapshot: null,
      brokers_not_in_snapshot: [3],
      group_count: 1,
      topics: [],
      total: 0
    })
    for (const tool of ['list_topics', 'describe_topics', 'describe_configs']) {
      t.strictSame(ask(space, tool), { failure: 'METADATA_UNAVAILABLE' })
    }
    t.match(ask(space, 'fetch_offsets', { group_id: 'g' }), {
      offsets: [{ offset: 4, log_end_offset: 9, lag: 5, in_snapshot: undefined }],
    })
  }

  const space = keys({
    '/kafscale/metadata/snapshot':
      '{"Brokers":[{"NodeID":"1"},{"nodeid":2}],"controllerID":"x",' +
      '"Topics":[null,{"Topic":null},{"Topic":5},{"Topic":""},{},' +
      '{"Topic":"b","topic":"ignored","Partitions":[{"Partition":2,"Replicas":null},{"Partition":0,"Leader":"1"},' +
      '{"Partition":-1},{"Partition":1.5},{"Partition":2,"Leader":7},{"Partition":2147483648},{}]},' +
      '{"Topic":"b"},{"Topic":"c","ErrorCode":"3"},{"Topic":"a","ErrorCode":3,"Partitions":null}]}'
  })
  t.match(ask(space, 'cluster_status'), {
    controller_id: null,
    brokers: [{ node_id: 2, host: '', port: 0 }],
    partition_count: 2,
  })
  t.strictSame(ask(space, 'list_topics'), {
    topics: [{ name: 'a', partition_count: 0, error_code: 3 }, { name: 'b', partition_count: 2, error_code: 0 }],
    total: 2,
  })
  t.match(ask(space, 'describe_topics', { names: ['b'] }), {
    topics: [{ partitions: [{ partition: 0, leader_id: 0 }, { partition: 2, leader_id: 0, replica_nodes: [] }] }]
  })
})

t.test('keys are parsed from both ends, and keys of unknown patterns are ignored', async t => {
  const offset = '{"offset":1,"metadata":""}'
  const space = keyspace({
    revision: '7',
    kvs: Object.entries({
      '/kafscale/metadata/snapshot': snapshotOf(topicOf('a/b', 0), topicOf('x/config', 0), topicOf('t', 0)),
      '/kafscale/topics/a/b/partitions/0/next_offset': '5',
      '/kafscale/topics/x/config/partitions/0/next_offset': '6',
      '/kafscale/topics/t/partitions/00/next_offset': '7',
      '/kafscale/partition-leases/a/b/0': '2',
      '/kafscale/topics//config': '',
      '/kafscale/topics/config': '',
      '/kafscale/topics/a/b/config': '',
      '/kafscale/topics/gone/config': '',
      '/kafscale/consumers/by-offset/offsets/t/0': offset,
      '/kafscale/consumers/by-metadata/metadata': '',
      '/kafscale/consumers/slash/offsets/a/b/0': offset,
      '/kafscale/consumers/a/b/metadata': '',
      '/kafscale/consumers/settled/offsets/x/offsets/t/0': offset,
      '/kafscale/consumers/ambiguous/offsets/x/offsets/y/0': offset,
      '/kafscale/consumers//metadata': '',
      '/kafscale/consumers//offsets/t/0': offset,
      '/kafscale/consumers/no-topic/offsets//0': offset,
      '/kafscale/consumers/no-number/offsets/t/': offset,
      '/kafscale/consumers/zeros/offsets/t/01': offset,
      '/kafscale/consumers/minus/offsets/t/-1': offset,
      '/kafscale/consumers/large/offsets/t/2147483648': offset,
      '/kafscale/consumersX/sibling/metadata': '',
      '/kafscale/group-leases/lease-only': '1'
    }).map(([key, value]) => ({ key: Buffer.from(key), value: Buffer.from(value), modRevision: '7' }))
      .concat([{
        key: Buffer.from('/kafscale/consumers/\xff/metadata', 'latin1'),
        value: Buffer.alloc(0),
        modRevision: '7',
      }]),
  })
  t.strictSame(groupIds(space), ['a/b', 'by-metadata', 'by-offset', 'settled/offsets/x', 'slash'])
  t.equal(space.ignored, 13)
  t.match(ask(space, 'fetch_offsets', { group_id: 'slash' }), { offsets: [{ topic: 'a/b', partition: 0, offset: 1 }] })
  t.match(ask(space, 'fetch_offsets', { group_id: 'settled/offsets/x' }), { offsets: [{ topic: 't', offset: 1 }] })
  t.equal(ask(space, 'list_groups')['ignored_keys'], 1)
  t.equal(ask(space, 'describe_group', { group_id: 'slash' })['ignored_keys'], undefined)
  t.equal(ask(space, 'consumer_lag', { topic: 'y' })['ignored_keys'], 1)
  t.equal(ask(space, 'consumer_lag', { topic: 'x' })['ignored_keys'], undefined)
  t.strictSame(topicNames(space), ['a/b', 't', 'x/config'])
  t.match(ask(space, 'describe_topics'), {
    topics: [
      { name: 'a/b', partitions: [{ owner_id: 2, log_end_offset: 5 }] },
      { name: 'gone', in_snapshot: false, partitions: [] },
      { name: 't', partitions: [{ owner_id: null, log_end_offset: null }] },
      { name: 'x/config', partitions: [{ owner_id: null, log_end_offset: 6 }] }
    ]
  })
  t.strictSame(
    (ask(space, 'describe_configs')['configs'] as Array<{ name: string, exists: boolean }>).map((
      { name, exists }
    ) => [name, exists]),
    [['a/b', true], ['gone', true], ['t', true], ['x/config', true]]
  )
})

t.test('numbers as text', async t => {
  const end = (text: string): unknown =>
    (ask(
      keys({
        '/kafscale/metadata/snapshot': snapshotOf(topicOf('t', 0)),
        '/kafscale/topics/t/partitions/0/next_offset': text,
      }),
      'describe_topics'
    )['topics'] as Array<{ partitions: Array<{ log_end_offset: unknown }> }>)[0]?.partitions[0]?.log_end_offset
  t.strictSame(
    ['5', '-5', '007', '-0', '9007199254740991', '9007199254740992', '9223372036854775807', '-9223372036854775808'].map(
      end
    ),
    [5, -5, 7, 0, 9007199254740991, '9007199254740992', '9223372036854775807', '-9223372036854775808']
  )
  t.strictSame(
    ['', ' 5', '5 ', '5\n', '+5', '5.0', '1e3', '0x5', '٣', '\ufeff5', '9223372036854775808', '-9223372036854775809']
      .map(end),
    Array(12).fill(null)
  )
  const owner = (text: string): unknown =>
    ask(
      keys({
        '/kafscale/consumers/g/metadata': '',
        '/kafscale/group-leases/g': text,
      }),
      'describe_group',
      { group_id: 'g' }
    )['coordinator_id']
  t.strictSame(['2', '-1', '2147483647', '2147483648', 'b', ''].map(owner), [2, -1, 2147483647, null, null, null])
})

t.test('timestamps', async t => {
  const time = (text: string): unknown => (ask(keys({
    '/kafscale/consumers/g/offsets/t/0': JSON.stringify({ offset: 1, metadata: '', committed_at: text })
  }), 'list_groups')['groups'] as Array<{ last_commit_at: unknown }>)[0]?.last_commit_at
  t.equal(time('2026-07-16T08:51:40Z'), '2026-07-16T08:51:40.000Z')
  t.equal(time('2026-07-16T08:51:40.123999999Z'), '2026-07-16T08:51:40.123Z')
  t.equal(time('2026-07-16T08:51:40.5+02:30'), '2026-07-16T06:21:40.500Z')
  t.equal(time('1971-01-01T00:00:00Z'), '1971-01-01T00:00:00.000Z')
  t.equal(time('2099-12-31T23:59:59.9999Z'), '2099-12-31T23:59:59.999Z')
  t.equal(time('2024-02-29T00:00:00Z'), '2024-02-29T00:00:00.000Z')
  t.strictSame(
    [
      '',
      '2026-07-16',
      '2026-07-16 08:51:40Z',
      '2026-07-16T08:51:40',
      '2025-02-29T00:00:00Z',
      '2026-07-16T24:00:00Z',
      '2026-07-16T08:51:60Z',
      '2026-07-16T08:51:40+24:00',
      '0000-01-01T00:00:00+01:00',
      '9999-12-31T23:59:59-01:00',
      '2026-07-16T08:51:40Z\n',
      '0001-01-01T00:00:00Z',
      '1970-12-31T23:59:59.999Z',
      '2100-01-01T00:00:00Z',
    ].map(time),
    Array(14).fill(null)
  )
})

t.test('committed offsets, lag and total lag', async t => {
  const max = '9223372036854775807'
  const space = keys({
    '/kafscale/metadata/snapshot': snapshotOf(topicOf('t', 0, 1, 2, 3, 4)),
    '/kafscale/topics/t/partitions/0/next_offset': max,
    '/kafscale/topics/t/partitions/1/next_offset': '10',
    '/kafscale/topics/t/partitions/2/next_offset': 'x',
    '/kafscale/topics/t/partitions/4/next_offset': '10',
    '/kafscale/topics/lost/partitions/0/next_offset': '10',
    '/kafscale/consumers/g/offsets/t/0': `{"offset":-${max},"metadata":"m","committed_at":"2026-11-23T13:24:59Z"}`,
    '/kafscale/consumers/g/offsets/t/1': '{"OFFSET":12,"committed_at":"2026-11-23T13:25:01Z"}',
    '/kafscale/consumers/g/offsets/t/2': '{"offset":1,"metadata":null,"committed_at":5}',
    '/kafscale/consumers/g/offsets/t/3': '{"offset":"1","metadata":"m","committed_at":"2026-11-23T13:24:59Z"}',
    '/kafscale/consumers/g/offsets/gone/0': '{"offset":2}',
    '/kafscale/consumers/g/metadata': encodeConsumerGroup({
      groupId: 'g',
      state: 'stable',
      members: [
        { memberId: 'b', assignments: [{ topic: 't', partitions: [1, 0, 4] }], subscriptions: ['t', 'a'] },
        { memberId: 'a', assignments: [{ topic: 't', partitions: [1] }, { topic: 'new', partitions: [0] }] }
      ]
    })
  })
  const lag = '18446744073709551614'
  t.strictSame(ask(space, 'fetch_offsets', { group_id: 'g' }), {
    group_id: 'g',
    offsets: [
      {
        topic: 'gone',
        partition: 0,
        offset: 2,
        metadata: '',
        committed_at: null,
        log_end_offset: null,
        lag: null,
        in_snapshot: false,
      },
      {
        topic: 'new',
        partition: 0,
        offset: null,
        metadata: null,
        committed_at: null,
        log_end_offset: null,
        lag: null,
        in_snapshot: false,
      },
      {
        topic: 't',
        partition: 0,
        offset: `-${max}`,
        metadata: 'm',
        committed_at: '2026-11-23T13:24:59.000Z',
        log_end_offset: max,
        lag,
      },
      {
        topic: 't',
        partition: 1,
        offset: 12,
        metadata: '',
        committed_at: '2026-11-23T13:25:01.000Z',
        log_end_offset: 10,
        lag: -2,
      },
      { topic: 't', partition: 2, offset: 1, metadata: '', committed_at: null, log_end_offset: null, lag: null },
      {
        topic: 't',
        partition: 3,
        offset: null,
        metadata: null,
        committed_at: null,
        log_end_offset: null,
        lag: null,
        error: anyText,
      },
      { topic: 't', partition: 4, offset: null, metadata: null, committed_at: null, log_end_offset: 10, lag: null }
    ],
    unknown_topics: [],
    total: 7
  })
  const some = ask(space, 'fetch_offsets', { group_id: 'g', topics: ['zz', 'gone', 'new', 'aa'], limit: 1 }, 1)
  t.match(some, { offsets: [{ topic: 'new' }], unknown_topics: ['aa', 'zz'], total: 2 })
  t.strictSame(ask(space, 'fetch_offsets', { group_id: 'h' }), { failure: 'GROUP_NOT_FOUND' })

  t.strictSame(ask(space, 'consumer_lag'), {
    lag: [
      {
        group_id: 'g',
        topic: 't',
        partition: 0,
        committed_offset: `-${max}`,
        log_end_offset: max,
        lag,
        committed_at: '2026-11-23T13:24:59.000Z',
        commit_age_ms: 1000,
        member_id: 'b',
      },
      {
        group_id: 'g',
        topic: 't',
        partition: 1,
        committed_offset: 12,
        log_end_offset: 10,
        lag: -2,
        committed_at: '2026-11-23T13:25:01.000Z',
        commit_age_ms: 0,
        member_id: 'a',
      },
    ],
    groups: [{ group_id: 'g', total_lag: lag, partitions_unknown: 5, partitions_past_end: 1, partitions: 2 }],
    unknown_topics: [],
    total: 2
  })
  t.match(ask(space, 'consumer_lag', { topic: 't', min_lag: 0 }), {
    lag: [{ partition: 0 }, { partition: 1, lag: -2 }],
    groups: [{ partitions: 2, partitions_unknown: 3 }],
    total: 2,
  })
  for (const topic of ['gone', 'new']) {
    t.strictSame(ask(space, 'consumer_lag', { topic }), {
      lag: [],
      groups: [{ group_id: 'g', total_lag: null, partitions_unknown: 1, partitions_past_end: 0, partitions: 0 }],
      unknown_topics: [],
      total: 0
    })
  }
  t.match(ask(space, 'consumer_lag', { topic: 'a' }), { groups: [{ partitions_unknown: 0 }] }, 'is subscribed')
  t.strictSame(
    ask(space, 'consumer_lag', { topic: 'nowhere' }),
    { lag: [], groups: [], unknown_topics: ['nowhere'], total: 0 }
  )
  t.match(ask(space, 'consumer_lag', { topic: 'lost' }), { unknown_topics: [] })

  t.match(ask(space, 'list_groups', { state: 'STABLE' }), {
    groups: [{
      group_id: 'g',
      stale: true,
      member_count: 2,
      committed_partitions: 5,
      total_lag: lag,
      partitions_unknown: 5,
      partitions_past_end: 1,
      last_commit_at: '2026-11-23T13:25:01.000Z',
    }],
  })
  t.match(ask(space, 'describe_group', { group_id: 'g', limit: 1 }), {
    members: [{
      member_id: 'a',
      assignments: [
        { topic: 'new', partitions: [0], lag: null, partitions_unknown: 1, partitions_past_end: 0 },
        { topic: 't', partitions: [1], lag: 0, partitions_unknown: 0, partitions_past_end: 1 },
      ],
    }],
    total: 2,
    more: true,
  })
  t.match(ask(space, 'describe_group', { group_id: 'g', limit: 1 }, 1), {
    members: [{
      member_id: 'b',
      subscriptions: ['a', 't'],
      assignments: [{ topic: 't', partitions: [0, 1, 4], lag, partitions_unknown: 1, partitions_past_end: 1 }],
    }],
    total: 2,
  })
})

t.test('topics and partitions that the snapshot lacks', async t => {
  const space = keys({
    '/kafscale/metadata/snapshot': '{"Brokers":[{"NodeID":5}],"Topics":[{"Topic":"t","Partitions":[{}]}]}',
    '/kafscale/topics/t/partitions/0/next_offset': '10',
    '/kafscale/topics/t/partitions/2/next_offset': '7',
    '/kafscale/topics/lost/partitions/1/next_offset': 'x',
    '/kafscale/topics/lost/partitions/0': '',
    '/kafscale/topics/configured/config': '',
    '/kafscale/partition-leases/t/2': '1',
    '/kafscale/partition-leases/deleted/0': '5',
    '/kafscale/group-leases/g': '0',
    '/kafscale/consumers/g/offsets/t/2': '{"offset":4}',
    '/kafscale/consumers/g/offsets/deleted/0': '{"offset":4}',
  })
  t.match(ask(space, 'cluster_status'), {
    topic_count: 1,
    partition_count: 1,
    topics_not_in_snapshot: 2,
    partitions_not_in_snapshot: 3,
    brokers_not_in_snapshot: [0, 1],
    brokers: [{ node_id: 5, partitions_owned: 0 }],
  })
  const [configured, lost, listed] = ask(space, 'describe_topics')['topics'] as object[]
  t.strictSame(configured, {
    name: 'configured', error_code: 3, error: anyText, in_snapshot: false, partition_count: 0, partitions: []
  })
  const unlisted = {
    in_snapshot: false,
    leader_id: null,
    owner_id: null,
    leader_epoch: null,
    replica_nodes: [],
    isr_nodes: [],
    offline_replicas: [],
    error_code: 3,
    log_end_offset: null,
  }
  t.strictSame(lost, {
    name: 'lost',
    error_code: 3,
    error: anyText,
    in_snapshot: false,
    partition_count: 2,
    partitions: [{ partition: 0, ...unlisted }, { partition: 1, ...unlisted }]
  })
  t.match(listed, {
    name: 't',
    error_code: 0,
    error: undefined,
    in_snapshot: undefined,
    partition_count: 2,
    partitions: [
      { partition: 0, leader_id: 0, in_snapshot: undefined },
      { partition: 2, ...unlisted, owner_id: 1, log_end_offset: 7 },
    ],
  })
  t.match(
    ask(space, 'describe_topics', { names: ['deleted'] }),
    { topics: [{ error_code: 3, in_snapshot: undefined }] }
  )
  t.match(ask(space, 'consumer_lag'), { lag: [{ topic: 't', partition: 2, lag: 3, in_snapshot: false }] })
  t.match(ask(space, 'fetch_offsets', { group_id: 'g', topics: ['lost', 'deleted', 'nowhere'] }), {
    offsets: [{ topic: 'deleted' }, { topic: 'lost', partition: 0 }, { topic: 'lost', partition: 1 }],
    unknown_topics: ['nowhere'],
  })
})

t.test('groups: only committed offsets, undecodable metadata, no members, stale', async t => {
  const beating = (heartbeatAt: string, sessionTimeoutMs = 0): Buffer =>
    encodeConsumerGroup({ groupId: 'g', state: 'stable', members: [{ memberId: 'm', heartbeatAt, sessionTimeoutMs }] })
  const space = keys({
    '/kafscale/consumers/committed/offsets/t/0': 'garbage',
    '/kafscale/consumers/garbage/metadata': 'garbage',
    '/kafscale/consumers/memberless/metadata': encodeConsumerGroup({ groupId: 'g', state: 'Dead', generationId: -1 }),
    '/kafscale/consumers/in-time/metadata': beating('2026-11-23T13:24:30Z'),
    '/kafscale/consumers/late/metadata': beating('2026-11-23T13:24:29.999Z'),
    '/kafscale/consumers/late-early/metadata': beating('2026-11-23T13:24:49.999Z', 10_000),
    '/kafscale/consumers/never/metadata': beating('')
  })
  const groups = ask(space, 'list_groups')['groups'] as Array<Record<string, unknown>>
  t.strictSame(
    groups.map(
      group => [
        group['group_id'],
        group['state'],
        group['stale'],
        group['protocol_type'],
        group['member_count'],
        group['committed_partitions'],
      ]
    ),
    [
      ['committed', 'empty', false, '', 0, 1],
      ['garbage', null, null, null, null, 0],
      ['in-time', 'stable', false, '', 1, 0],
      ['late', 'stable', true, '', 1, 0],
      ['late-early', 'stable', true, '', 1, 0],
      ['memberless', 'Dead', false, '', 0, 0],
      ['never', 'stable', true, '', 1, 0],
    ]
  )
  t.match(ask(space, 'list_groups', { state: 'Empty' }), { groups: [{ group_id: 'committed' }], total: 1 })
  t.match(ask(space, 'list_groups', { state: 'PreparingRebalance' }), { groups: [], total: 0 })
  t.strictSame(ask(space, 'list_groups', { state: 'rebalancing' }), { failure: 'INVALID_ARGUMENT' })
  t.match(ask(space, 'list_groups', { pattern: 'late*' }), { total: 2 })
  t.match(ask(space, 'list_groups', { pattern: '?ate' }), { groups: [{ group_id: 'late' }], total: 1 })
  t.strictSame(ask(space, 'describe_group', { group_id: 'garbage' }), {
    group_id: 'garbage',
    state: null,
    stale: null,
    protocol_type: null,
    protocol: null,
    leader: null,
    generation_id: null,
    rebalance_timeout_ms: null,
    coordinator_id: null,
    total_lag: null,
    partitions_unknown: null,
    partitions_past_end: 0,
    members: [],
    total: 0
  })
  t.match(ask(space, 'describe_group', { group_id: 'in-time' }), {
    members: [{ heartbeat_age_ms: 30_000, session_timeout_ms: 0, stale: false }],
  })
  t.match(ask(space, 'describe_group', { group_id: 'never' }), {
    members: [{ heartbeat_at: null, heartbeat_age_ms: null, stale: true }],
  })
})

t.test('configs: stored, default, undecodable, without a topic', async t => {
  const long = '€'.repeat(1366)
  const space = keys({
    '/kafscale/metadata/snapshot': snapshotOf(topicOf('stored', 0, 1), topicOf('plain'), topicOf('garbage', 0)),
    '/kafscale/topics/stored/config': encodeTopicConfig({
      name: 'stored',
      partitions: 9,
      retentionMs: 2n ** 63n - 1n,
      retentionBytes: 1_000n,
      config: [['__proto__', long], ['a', long.slice(1)]],
    }),
    '/kafscale/topics/garbage/config': 'garbage',
    '/kafscale/topics/gone/config': encodeTopicConfig({
      name: 'gone',
      retentionBytes: -1n,
      createdAt: '2026-07-16T08:51:40Z',
    }),
  })
  const nothing = {
    partitions: 0,
    replication_factor: 0,
    retention_ms: -1,
    retention_bytes: -1,
    segment_bytes: 4_194_304,
    config_created_at: null,
    config: {},
  }
  const sources = (source: string | null): Record<string, string | null> => ({
    retention_ms: source,
    retention_bytes: source,
    segment_bytes: source,
  })
  const answer = ask(space, 'describe_configs')
  t.strictSame(
    JSON.stringify(answer),
    JSON.stringify({
      configs: [
        {
          name: 'garbage',
          exists: true,
          partitions: 1,
          replication_factor: 2,
          retention_ms: null,
          retention_bytes: null,
          segment_bytes: null,
          config_created_at: null,
          config: null,
          sources: sources(null),
        },
        {
          name: 'gone',
          exists: true,
          in_snapshot: false,
          partitions: 0,
          replication_factor: null,
          retention_ms: -1,
          retention_bytes: -1,
          segment_bytes: 4_194_304,
          config_created_at: '2026-07-16T08:51:40.000Z',
          config: {},
          sources: sources('default'),
        },
        { name: 'plain', exists: true, ...nothing, sources: sources('default') },
        {
          name: 'stored',
          exists: true,
          partitions: 2,
          replication_factor: 2,
          retention_ms: '9223372036854775807',
          retention_bytes: 1_000,
          segment_bytes: 4_194_304,
          config_created_at: null,
          config: { ['__proto__']: `${'€'.repeat(1358)}… [cut, 4098 bytes]`, a: long.slice(1) },
          sources: { ...sources('stored'), segment_bytes: 'default' },
        },
      ],
      total: 4,
    })
  )
  t.strictSame(ask(space, 'describe_configs', { topics: ['nowhere'] }), {
    configs: [{ name: 'nowhere', exists: false, ...nothing, sources: sources('default') }],
    total: 1,
  })
})

t.test('a page has `limit` rows, grouped by topic', async t => {
  const space = keys({
    '/kafscale/metadata/snapshot': snapshotOf(topicOf('b', 1, 0), topicOf('a'), topicOf('\u{1f600}'), topicOf('\uff5e'))
  })
  const pages = [0, 2].map(from => ask(space, 'describe_topics', { names: ['b', 'c', 'a'], limit: 2 }, from))
  t.match(pages, [
    {
      topics: [{ name: 'a', error_code: 0, partition_count: 0, partitions: [] }, {
        name: 'b',
        partition_count: 2,
        partitions: [{ partition: 0 }],
      }],
      total: 4,
      more: true,
    },
    {
      topics: [{ name: 'b', partition_count: 2, partitions: [{ partition: 1 }] }, {
        name: 'c',
        error_code: 3,
        partition_count: 0,
        partitions: [],
      }],
      total: 4,
    },
  ])
  t.strictSame(
    pages.map(page => (page['topics'] as Array<{ partitions: unknown[] }>).map(topic => topic.partitions.length)),
    [[0, 1], [1, 0]]
  )
  t.strictSame(topicNames(space), ['a', 'b', '\u{1f600}', '\uff5e'], 'by code unit, not by code point')
  t.match(ask(space, 'list_topics', { pattern: '?' }), { total: 4 }, 'one character, whatever its number of code units')
})

t.test('the recording', async t => {
  interface Line { revision: string, key: string, value: string, mod_revision: string, type?: string, events: Line[] }
  const keysOf = (name: string): Keyspace => {
    const [head, ...lines] = recording<Line>(name)
    const kvs = lines.map(({ key, value, mod_revision: modRevision }) => ({
      key: Buffer.from(key),
      value: Buffer.from(value, 'base64'),
      modRevision,
    }))
    return keyspace({ revision: head?.revision ?? '', kvs })
  }
  const figures = (space: Keyspace): unknown[] =>
    (ask(space, 'list_groups')['groups'] as Array<Record<string, unknown>>)
      .map(
        group => [
          group['group_id'],
          group['state'],
          group['member_count'],
          group['coordinator_id'],
          group['committed_partitions'],
          group['total_lag'],
          group['last_commit_at'],
        ]
      )

  const start = keysOf('keyspace.jsonl')
  t.equal(start.revision, 15936n)
  t.match(ask(start, 'cluster_status'), {
    cluster_name: 'prod',
    brokers: [{ node_id: 0, port: 19092, partitions_owned: 5 }, { node_id: 1, port: 29092, partitions_owned: 4 }],
    partition_count: 10,
    group_count: 4,
  })
  t.strictSame(figures(start), [
    ['analytics', 'stable', 2, 0, 9, 7929, '2026-11-23T13:20:44.639Z'],
    ['billing', 'stable', 1, 0, 9, 679, '2026-11-23T13:20:42.863Z'],
    ['nightly', 'empty', 0, 0, 6, 3222, '2026-11-23T13:19:35.062Z'],
    ['stuck', 'empty', 0, 1, 3, 2524, '2026-11-23T13:19:44.620Z']
  ])

  const end = keysOf('keyspace-end.jsonl')
  t.equal(end.revision, 26438n)
  t.strictSame(ask(end, 'list_topics'), {
    topics: [
      { name: 'audit-events', partition_count: 1, error_code: 0 },
      { name: 'orders', partition_count: 3, error_code: 0 },
      { name: 'payments', partition_count: 6, error_code: 0 },
      { name: 'shipments', partition_count: 6, error_code: 0 },
    ],
    total: 4
  })
  t.strictSame(figures(end), [
    ['analytics', 'empty', 0, 0, 9, 11017, '2026-11-23T13:22:42.510Z'],
    ['billing', 'empty', 0, 0, 9, 945, '2026-11-23T13:22:06.036Z'],
    ['nightly', 'empty', 0, 0, 6, 1224, '2026-11-23T13:21:10.397Z'],
    ['stuck', 'empty', 0, null, 3, 4154, '2026-11-23T13:19:44.620Z']
  ])
  t.match(ask(end, 'describe_configs', { topics: ['orders', 'shipments'] }), {
    configs: [
      {
        name: 'orders',
        retention_ms: '9223372036854775807',
        retention_bytes: -1,
        replication_factor: 2,
        config_created_at: '2026-11-23T13:20:55.000Z',
        sources: { retention_ms: 'stored', retention_bytes: 'default', segment_bytes: 'default' },
      },
      { name: 'shipments', partitions: 6, replication_factor: 1 },
    ],
  })
})

t.test('generated histories', async t => {
  const now = new Date('2026-11-23T13:25:00Z')
  const written = (seed: number): string => JSON.stringify(history(seed, 300, now))
  t.equal(written(5), written(5), 'depend on the seed only')
  t.not(written(6), written(5))

  const answers = Array.from({ length: 40 }, (_, seed) => {
    const { operations } = history(seed, 400, now)
    const live = new Map<string, KeyValue>()
    for (const operation of operations) {
      if ('put' in operation) {
        live.set(operation.put.toString('hex'), { key: operation.put, value: operation.value, modRevision: '1' })
      } else live.delete(operation.delete.toString('hex'))
    }
    const space = keyspace({ revision: '1', kvs: [...live.values()] })
    return answerable.flatMap(tool =>
      (['describe_group', 'fetch_offsets'].includes(tool) ? groupIds(space) : ['']).map(groupId =>
        ask(space, tool, groupId === '' ? { limit: 1000 } : { limit: 1000, group_id: groupId })
      )
    )
  })
  const text = JSON.stringify(answers)
  for (const [what, example] of Object.entries({
    'an undecodable snapshot': '"failure":"METADATA_UNAVAILABLE"',
    'undecodable group metadata': '"state":null',
    'an undecodable config': '"sources":{"retention_ms":null',
    'a stored config without a topic': '"exists":true,"in_snapshot":false',
    'a stale member': '"stale":true',
    'a live member': '"stale":false,"session_timeout_ms"',
    'an int64 beyond a JSON number': '"9223372036854775807"',
    'a truncated text': '… [cut, 41',
    'a known lag': '"lag":1',
    'a negative lag': '"lag":-1',
    'an owner': '"owner_id":1',
    'a topic with a slash': '"name":"a/b c"',
    'a group with slashes': '"group_id":"a/offsets"',
    'an ambiguous key': '"ignored_keys":',
    'a partition past the end': '"partitions_past_end":1',
    'an odd name': '"__proto__"'
  })) t.ok(text.includes(example), `contain ${what}`)
})
