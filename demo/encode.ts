/** Encodes keys and values as a KafScale broker does, to fill the etcd of the demo, the benchmark and the tests. */
import { createHash } from 'node:crypto'
import protobuf from 'protobufjs/minimal.js'
import type { Int64 } from '../kafscale/int64.ts'
import { type Key, PREFIX } from '../kafscale/keyspace.ts'
import { ASSIGNMENT, CONSUMER_GROUP, GROUP_MEMBER, MAP_ENTRY, TOPIC_CONFIG } from '../kafscale/protobuf.ts'
import type { CommittedOffset, ConsumerGroup, GroupMember, Snapshot, TopicConfig } from '../kafscale/records.ts'

/** The inverse of `parseKey`. */
export function formatKey (key: Key): string {
  switch (key.kind) {
    case 'snapshot': return `${PREFIX}metadata/snapshot`
    case 'topic-config': return `${PREFIX}topics/${key.topic}/config`
    case 'partition-state': return `${PREFIX}topics/${key.topic}/partitions/${key.partition}`
    case 'next-offset': return `${PREFIX}topics/${key.topic}/partitions/${key.partition}/next_offset`
    case 'group-metadata': return `${PREFIX}consumers/${key.group}/metadata`
    case 'committed-offset': return `${PREFIX}consumers/${key.group}/offsets/${key.topic}/${key.partition}`
    case 'partition-lease': return `${PREFIX}partition-leases/${key.topic}/${key.partition}`
    case 'group-lease': return `${PREFIX}group-leases/${key.group}`
  }
}

export function encodeCommittedOffset ({ offset, metadata, committedAtMs }: CommittedOffset): Buffer {
  return Buffer.from(
    `{"offset":${offset},"metadata":${JSON.stringify(metadata)},"committed_at":"${formatTime(committedAtMs)}"}`
  )
}

/** Encodes a snapshot with the field names of KafScale v1.6. */
export function encodeSnapshot (snapshot: Snapshot): Buffer {
  return Buffer.from(JSON.stringify({
    Brokers: snapshot.brokers.map(({ nodeId, host, port }) =>
      ({ NodeID: nodeId, Host: host, Port: port, Rack: null, UnknownTags: {} })),
    ControllerID: snapshot.controllerId,
    Topics: snapshot.topics.map(topic => ({
      ErrorCode: topic.errorCode,
      Topic: topic.name,
      TopicID: [...createHash('sha1').update(topic.name).digest().subarray(0, 16)],
      IsInternal: false,
      Partitions: topic.partitions.map(partition => ({
        ErrorCode: partition.errorCode,
        Partition: partition.partition,
        Leader: partition.leaderId,
        LeaderEpoch: partition.leaderEpoch,
        Replicas: partition.replicaNodes,
        ISR: partition.isrNodes,
        OfflineReplicas: partition.offlineReplicas.length === 0 ? null : partition.offlineReplicas,
        UnknownTags: {},
      })),
      AuthorizedOperations: 0,
      UnknownTags: {},
    })),
    ClusterName: snapshot.clusterName,
    ClusterID: snapshot.clusterId,
  }))
}

export function encodeTopicConfig (topic: string, record: TopicConfig): Buffer {
  const writer = new protobuf.Writer()
  writer.uint32(TOPIC_CONFIG.name).string(topic)
  writeInt32(writer, TOPIC_CONFIG.partitions, record.partitions)
  writeInt32(writer, TOPIC_CONFIG.replicationFactor, record.replicationFactor)
  writeInt64(writer, TOPIC_CONFIG.retentionMs, record.retentionMs)
  writeInt64(writer, TOPIC_CONFIG.retentionBytes, record.retentionBytes)
  writeInt64(writer, TOPIC_CONFIG.segmentBytes, record.segmentBytes)
  writeString(writer, TOPIC_CONFIG.createdAt, formatTime(record.createdAtMs).replace(/\.\d+/, ''))
  for (const [key, value] of record.config) {
    writer.uint32(TOPIC_CONFIG.config).fork()
      .uint32(MAP_ENTRY.key).string(key)
      .uint32(MAP_ENTRY.value).string(value)
      .ldelim()
  }
  return Buffer.from(writer.finish())
}

export function encodeConsumerGroup (group: string, record: ConsumerGroup): Buffer {
  const writer = new protobuf.Writer()
  writer.uint32(CONSUMER_GROUP.groupId).string(group)
  writeString(writer, CONSUMER_GROUP.state, record.state)
  writeString(writer, CONSUMER_GROUP.protocolType, record.protocolType)
  writeString(writer, CONSUMER_GROUP.protocol, record.protocol)
  writeString(writer, CONSUMER_GROUP.leader, record.leader)
  writeInt32(writer, CONSUMER_GROUP.generationId, record.generationId)
  for (const [memberId, member] of record.members) {
    writer.uint32(CONSUMER_GROUP.members).fork()
      .uint32(MAP_ENTRY.key).string(memberId)
      .uint32(MAP_ENTRY.value).fork()
    writeMember(writer, member)
    writer.ldelim().ldelim()
  }
  writeInt32(writer, CONSUMER_GROUP.rebalanceTimeoutMs, record.rebalanceTimeoutMs)
  return Buffer.from(writer.finish())
}

function writeMember (writer: protobuf.Writer, member: GroupMember): void {
  writeString(writer, GROUP_MEMBER.clientId, member.clientId)
  writeString(writer, GROUP_MEMBER.clientHost, member.clientHost)
  writeString(writer, GROUP_MEMBER.heartbeatAt, formatTime(member.heartbeatAtMs))
  for (const [topic, partitions] of member.assignments) {
    writer.uint32(GROUP_MEMBER.assignments).fork().uint32(ASSIGNMENT.topic).string(topic)
    if (partitions.length > 0) {
      writer.uint32(ASSIGNMENT.packedPartitions).fork()
      for (const partition of partitions) writer.int32(partition)
      writer.ldelim()
    }
    writer.ldelim()
  }
  for (const topic of member.subscriptions) writer.uint32(GROUP_MEMBER.subscriptions).string(topic)
  writeInt32(writer, GROUP_MEMBER.sessionTimeoutMs, member.sessionTimeoutMs)
}

// proto3 leaves out a field that has its zero value.

function writeString (writer: protobuf.Writer, tag: number, value: string): void {
  if (value !== '') writer.uint32(tag).string(value)
}

function writeInt32 (writer: protobuf.Writer, tag: number, value: number): void {
  if (value !== 0) writer.uint32(tag).int32(value)
}

function writeInt64 (writer: protobuf.Writer, tag: number, value: Int64): void {
  if (value === 0) return
  writer.uint32(tag)
  const bits = BigInt.asUintN(64, BigInt(value))
  writer.int64(new protobuf.util.LongBits(Number(bits & 0xffffffffn), Number(bits >> 32n)).toLong(true))
}

function formatTime (ms: number | null): string {
  return ms === null ? '' : new Date(ms).toISOString()
}
