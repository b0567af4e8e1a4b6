/** How many partitions the cluster can have: its brokers store all of them in a single value of etcd. */
import { ChangeImpossible } from '../../../errors.ts'
import type { MirrorView } from '../../../kafscale/mirror.ts'
import type { SnapshotPartition } from '../../../kafscale/records.ts'
import { snapshotOf } from './cluster.ts'

/**
 * etcd refuses a request of more than 1.5 MiB by default. A broker keeps a topic that did not fit in its memory, and
 * then fails to create any other. The rest is for what brokers and the operator add by themselves.
 */
const MAX_SNAPSHOT_BYTES = 1_400_000

const PARTITION_BYTES =
  '{"ErrorCode":0,"Partition":,"Leader":,"LeaderEpoch":0,"Replicas":,"ISR":,"OfflineReplicas":null,"UnknownTags":{}},'
    .length
const TOPIC_BYTES =
  '{"ErrorCode":0,"Topic":,"TopicID":[],"IsInternal":false,"Partitions":[],"AuthorizedOperations":0,"UnknownTags":{}},'
    .length + 16 * '255,'.length
const BROKER_BYTES = '{"NodeID":,"Host":,"Port":65535,"Rack":null,"UnknownTags":{}},'.length

/** The partitions that a broker would write: it gives each of them a single replica. */
export interface NewPartitions {
  /** The name of the topic, if that is new too. */
  topic?: string
  /** Partitions that the topic has already. */
  from: number
  to: number
  leaderId: number
}

/** @throws {ChangeImpossible} if etcd would not take the snapshot with these partitions */
export function checkCapacity (cluster: MirrorView, { topic, from, to, leaderId }: NewPartitions): void {
  const bytes = snapshotBytes(cluster) + (topic === undefined ? 0 : topicBytes(topic))
  const perPartition = partitionBytes({ partition: to - 1, leaderId, replicaNodes: [leaderId], isrNodes: [leaderId] })
  const fitting = Math.max(0, Math.floor((MAX_SNAPSHOT_BYTES - bytes) / perPartition))
  if (to - from <= fitting) return
  throw new ChangeImpossible(
    `etcd could not hold ${to - from} more partitions: the brokers store all topics in one value, of which ` +
    `${MAX_SNAPSHOT_BYTES} bytes are safe, and ${fitting} more partitions fit`
  )
}

/** About how many bytes the stored snapshot has, rounded up. */
export function snapshotBytes (cluster: MirrorView): number {
  let bytes = 100
  for (const { nodeId, host } of snapshotOf(cluster).brokers) {
    bytes += BROKER_BYTES + String(nodeId).length + textBytes(host)
  }
  for (const { name, info } of cluster.topics) {
    bytes += topicBytes(name)
    for (const partition of info?.partitions ?? []) bytes += partitionBytes(partition)
  }
  return bytes
}

function topicBytes (name: string): number {
  return TOPIC_BYTES + textBytes(name)
}

type PartitionNodes = Pick<SnapshotPartition, 'partition' | 'leaderId' | 'replicaNodes' | 'isrNodes'>

function partitionBytes ({ partition, leaderId, replicaNodes, isrNodes }: PartitionNodes): number {
  return PARTITION_BYTES + String(partition).length + String(leaderId).length + listBytes(replicaNodes) +
    listBytes(isrNodes)
}

/** Brokers write JSON with Go's encoder, which escapes `<`, `>` and `&` too. */
function textBytes (text: string): number {
  return Buffer.byteLength(JSON.stringify(text)) + 5 * (text.match(/[<>&\u2028\u2029]/g)?.length ?? 0)
}

function listBytes (list: readonly number[]): number {
  return list.reduce((bytes, item) => bytes + String(item).length + 1, 1) + Number(list.length === 0)
}
