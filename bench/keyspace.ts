import {
  encodeCommittedOffset,
  encodeConsumerGroup,
  encodeSnapshot,
  encodeTopicConfig,
  formatKey,
} from '../demo/encode.ts'
import type { Key } from '../kafscale/keyspace.ts'
import type { GroupMember } from '../kafscale/records.ts'

/** A stored key. `session` names its etcd lease: each broker has two, one for partitions and one for groups. */
export interface Entry { key: string, value: Buffer, session?: string }

/** The snapshot of 9,000 partitions is the largest that fits into etcd's default request size. */
export const TOPICS = 500
export const PARTITIONS = 18
export const GROUPS = 1_000
export const GROUPS_WITH_MEMBERS = 700
export const MEMBERS = 3
export const COMMITTED_OFFSETS = 50_000
const BROKERS = [0, 1, 2]
const PARTITION_NUMBERS = Array.from({ length: PARTITIONS }, (_, partition) => partition)
const TOPICS_PER_GROUP = 3
const HOUR_MS = 3_600_000

/** The group with committed offsets on every partition and no members. */
export const WIDE_GROUP = name('group', GROUPS_WITH_MEMBERS)
/** A group with members, and with committed offsets on `GROUP_TOPICS` and more. */
export const GROUP = name('group', 0)
export const GROUP_TOPICS = [0, 1].map(topicName)
export const TOPIC_WITHOUT_CONFIG = topicName(1)

const nowMs = Date.now()

/** Every key of the cluster. Only the timestamps differ from run to run. */
export function * keyspace (): Generator<Entry> {
  yield snapshot()
  for (let topic = 0; topic < TOPICS; topic++) {
    if (topic % 5 === 0) yield storedConfig(topic)
    for (const partition of PARTITION_NUMBERS) {
      yield nextOffset(topic, partition, 0)
      const owner = (topic + partition) % BROKERS.length
      yield entry(
        { kind: 'partition-lease', topic: topicName(topic), partition },
        String(owner),
        `partitions of broker ${owner}`
      )
    }
  }
  for (let group = 0; group < GROUPS; group++) {
    const coordinator = group % BROKERS.length
    yield entry(
      { kind: 'group-lease', group: name('group', group) },
      String(coordinator),
      `groups of broker ${coordinator}`
    )
    if (group < GROUPS_WITH_MEMBERS) yield groupMetadata(group)
    for (const [topic, partition] of committedPartitions(group)) yield committedOffset(group, topic, partition, 0)
  }
}

/** What consumers and producers keep writing, endlessly: nine committed offsets, then one log end offset. */
export function * progress (): Generator<Entry> {
  for (let turn = 1; ; turn++) {
    let commits = 0
    for (let group = 0; group < GROUPS_WITH_MEMBERS; group++) {
      for (const [topic, partition] of committedPartitions(group)) {
        yield committedOffset(group, topic, partition, turn)
        if (++commits % 9 === 0) yield nextOffset(topic, partition, turn)
      }
    }
  }
}

/** The numbers of the partitions on which a group has committed offsets: `COMMITTED_OFFSETS` over all groups. */
function committedPartitions (group: number): [topic: number, partition: number][] {
  const all = TOPICS * PARTITIONS
  const wide = group === GROUPS_WITH_MEMBERS
  const share = (groups: number) => Math.floor((COMMITTED_OFFSETS - all) * groups / (GROUPS - 1))
  const order = group < GROUPS_WITH_MEMBERS ? group : group - 1
  const count = wide ? all : share(order + 1) - share(order)
  const first = wide ? 0 : firstTopic(group)
  return Array.from(
    { length: count },
    (_, index) => [(first + Math.floor(index / PARTITIONS)) % TOPICS, index % PARTITIONS]
  )
}

function firstTopic (group: number): number {
  return group * 7 % TOPICS
}

function logEndOffset (topic: number, partition: number, turn: number): number {
  return 100_000 + (topic * PARTITIONS + partition) * 7_919 % 900_000 + turn * 500
}

function nextOffset (topic: number, partition: number, turn: number): Entry {
  return entry(
    { kind: 'next-offset', topic: topicName(topic), partition },
    String(logEndOffset(topic, partition, turn))
  )
}

function committedOffset (group: number, topic: number, partition: number, turn: number): Entry {
  const lag = (group * 31 + partition * 17) % 400
  return entry(
    { kind: 'committed-offset', group: name('group', group), topic: topicName(topic), partition },
    encodeCommittedOffset({
      offset: logEndOffset(topic, partition, turn) - lag,
      metadata: '',
      committedAtMs: nowMs - (group * 977 + partition * 101) % HOUR_MS,
    })
  )
}

function groupMetadata (group: number): Entry {
  const topics = Array.from(
    { length: TOPICS_PER_GROUP },
    (_, index) => topicName((firstTopic(group) + index) % TOPICS)
  )
  const memberIds = Array.from({ length: MEMBERS }, (_, member) => `${name('group', group)}-member-${member}`)
  const member = (_: string, index: number): GroupMember => ({
    clientId: '',
    clientHost: '',
    heartbeatAtMs: nowMs,
    assignments: new Map(
      topics.map(topic => [topic, PARTITION_NUMBERS.filter(partition => partition % MEMBERS === index)])
    ),
    subscriptions: topics,
    sessionTimeoutMs: 10_000,
  })
  return entry({ kind: 'group-metadata', group: name('group', group) }, encodeConsumerGroup(name('group', group), {
    state: 'stable',
    protocolType: 'consumer',
    protocol: 'range',
    leader: `${name('group', group)}-member-0`,
    generationId: 1 + group % 9,
    rebalanceTimeoutMs: 60_000,
    members: new Map(memberIds.map((memberId, index) => [memberId, member(memberId, index)])),
  }))
}

function storedConfig (topic: number): Entry {
  return entry({ kind: 'topic-config', topic: topicName(topic) }, encodeTopicConfig(topicName(topic), {
    partitions: PARTITIONS,
    replicationFactor: PARTITIONS,
    retentionMs: 604_800_000,
    retentionBytes: -1,
    segmentBytes: 0,
    createdAtMs: nowMs - 24 * HOUR_MS,
    config: new Map(),
  }))
}

function snapshot (): Entry {
  return entry({ kind: 'snapshot' }, encodeSnapshot({
    clusterName: 'bench',
    clusterId: '0d5b0f2e-6f3b-4a5c-9f43-1f1c1f7f3c11',
    controllerId: 0,
    brokers: BROKERS.map(nodeId =>
      ({ nodeId, host: `bench-broker-${nodeId}.bench-broker-headless.kafscale.svc.cluster.local`, port: 9092 })),
    topics: Array.from({ length: TOPICS }, (_, topic) => ({
      name: topicName(topic),
      errorCode: 0,
      partitions: PARTITION_NUMBERS.map(partition => ({
        partition,
        leaderId: (topic + partition) % BROKERS.length,
        leaderEpoch: 0,
        replicaNodes: BROKERS,
        isrNodes: BROKERS,
        offlineReplicas: [],
        errorCode: 0,
      })),
    })),
  }))
}

function topicName (topic: number): string {
  return name('topic', topic)
}

function name (kind: string, number: number): string {
  return `${kind}-${String(number).padStart(4, '0')}`
}

function entry (key: Key, value: Buffer | string, session?: string): Entry {
  return { key: formatKey(key), value: Buffer.from(value), ...session !== undefined && { session } }
}
