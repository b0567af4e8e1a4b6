/** Keys and values as a KafScale broker writes them: what the demo, the bench and the tests fill an etcd with. */
import { createHash } from 'node:crypto'
import protobuf from 'protobufjs/minimal.js'
import type { Int64 } from '../kafscale/int64.ts'
import { type Key, PREFIX } from '../kafscale/keyspace.ts'
import type { CommittedOffset, ConsumerGroup, Snapshot, TopicConfig } from '../kafscale/records.ts'

/** Writes the key of an identity: the inverse of `parseKey`. */
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

/** Writes a committed offset as brokers do. */
export function encodeCommittedOffset ({ offset, metadata, committedAtMs }: CommittedOffset): Buffer {
  return Buffer.from(
    `{"offset":${offset},"metadata":${JSON.stringify(metadata)},"committed_at":"${formatTime(committedAtMs)}"}`
  )
}

/** Writes a snapshot in the spelling of KafScale v1.6. */
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

/** Writes a topic's config as brokers do. */
export function encodeTopicConfig (topic: string, record: TopicConfig): Buffer {
  const writer = new protobuf.Writer()
  writer.uint32(0x0a).string(topic)
  if (record.partitions !== 0) writer.uint32(0x10).int32(record.partitions)
  if (record.replicationFactor !== 0) writer.uint32(0x18).int32(record.replicationFactor)
  writeVarint64(writer, 0x20, record.retentionMs)
  writeVarint64(writer, 0x28, record.retentionBytes)
  writeVarint64(writer, 0x30, record.segmentBytes)
  if (record.createdAtMs !== null) writer.uint32(0x3a).string(formatTime(record.createdAtMs).replace(/\.\d+/, ''))
  for (const [key, value] of record.config) {
    writer.uint32(0x42).fork().uint32(0x0a).string(key).uint32(0x12).string(value).ldelim()
  }
  return Buffer.from(writer.finish())
}

/** Writes a group's metadata as its coordinator does. */
export function encodeConsumerGroup (group: string, record: ConsumerGroup): Buffer {
  const writer = new protobuf.Writer()
  writer.uint32(0x0a).string(group)
  writeString(writer, 0x12, record.state)
  writeString(writer, 0x1a, record.protocolType)
  writeString(writer, 0x22, record.protocol)
  writeString(writer, 0x2a, record.leader)
  if (record.generationId !== 0) writer.uint32(0x30).int32(record.generationId)
  for (const [memberId, member] of record.members) {
    writer.uint32(0x3a).fork().uint32(0x0a).string(memberId).uint32(0x12).fork()
    writeString(writer, 0x0a, member.clientId)
    writeString(writer, 0x12, member.clientHost)
    writeString(writer, 0x1a, formatTime(member.heartbeatAtMs))
    for (const [topic, partitions] of member.assignments) {
      writer.uint32(0x22).fork().uint32(0x0a).string(topic)
      if (partitions.length > 0) {
        writer.uint32(0x12).fork()
        for (const partition of partitions) writer.int32(partition)
        writer.ldelim()
      }
      writer.ldelim()
    }
    for (const topic of member.subscriptions) writer.uint32(0x2a).string(topic)
    if (member.sessionTimeoutMs !== 0) writer.uint32(0x30).int32(member.sessionTimeoutMs)
    writer.ldelim().ldelim()
  }
  if (record.rebalanceTimeoutMs !== 0) writer.uint32(0x40).int32(record.rebalanceTimeoutMs)
  return Buffer.from(writer.finish())
}

function writeString (writer: protobuf.Writer, tag: number, value: string): void {
  if (value !== '') writer.uint32(tag).string(value)
}

function writeVarint64 (writer: protobuf.Writer, tag: number, value: Int64): void {
  if (value === 0) return
  writer.uint32(tag)
  const bits = BigInt.asUintN(64, BigInt(value))
  writer.int64(new protobuf.util.LongBits(Number(bits & 0xffffffffn), Number(bits >> 32n)).toLong(true))
}

function formatTime (ms: number | null): string {
  return ms === null ? '' : new Date(ms).toISOString()
}
