import { Type } from '@sinclair/typebox'
import type { MirrorView, Partition, Topic } from '../kafscale/mirror.ts'
import type { SnapshotPartition } from '../kafscale/records.ts'
import { observedAt, topicsOf } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  input, int64OrNull, int64OrNullJson, integer, integerOrNull, list, means, names, object, observed, page, paged,
  text
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

const UNKNOWN_TOPIC_OR_PARTITION = 3

/** A partition, or a topic without partitions. */
type Row = { name: string, topic: Topic | undefined, info?: SnapshotPartition }

export default defineTool({
  name: 'describe_topics',
  title: 'Describe topics',
  description:
    'Partitions of topics: leader_id (static, from the snapshot), owner_id (the broker that writes it now; null: ' +
    'none), replicas, log_end_offset (next offset; null: nothing flushed). Without names, describes all topics. ' +
    'For names only, use list_topics.',
  operation: 'observe',
  input: input({ names, ...page }),
  output: object({
    ...observed,
    topics: list(object({
      name: text,
      error_code: means(integer, 'Kafka error code; 3 if the topic does not exist'),
      error: means(Type.Optional(Type.String()), 'Present if the topic does not exist'),
      partition_count: means(integer, 'Partitions of the topic on all pages'),
      partitions: means(list(object({
        partition: integer,
        leader_id: means(integer, 'Node id from the snapshot, which KafScale does not update'),
        owner_id: means(integerOrNull, 'Node id of the broker that holds the lease and writes; `null` if none does'),
        leader_epoch: integer,
        replica_nodes: means(list(integer), 'Node ids of the replicas'),
        isr_nodes: means(list(integer), 'Node ids of the in-sync replicas'),
        offline_replicas: means(list(integer), 'Node ids of the offline replicas'),
        error_code: means(integer, 'Kafka error code of the partition; 0 if there is none'),
        log_end_offset: means(
          int64OrNull,
          'Offset of the next record, as of the last flush; `null` if nothing was flushed'
        ),
      })), 'The partitions on this page'),
    })),
    total: means(integer, 'Partitions on all pages; a topic without partitions counts as one'),
    next_cursor: paged.next_cursor,
  }),
  rows: { list: 'topics', nested: 'partitions' },
  errors: ['METADATA_UNAVAILABLE', 'INVALID_CURSOR'],
  answer (host, query, context) {
    const mirror = context.mirror()
    const { rows, ...rest } = paginate(
      'describe_topics',
      query,
      rowsOf(mirror, query.names),
      ({ name, info }) => [name, info?.partition ?? -1]
    )
    const byTopic = Map.groupBy(rows, ({ name }) => name)
    return { ...observedAt(host, mirror), topics: [...byTopic].map(([name, rows]) => describe(name, rows)), ...rest }
  },
})

function rowsOf (mirror: MirrorView, names: string[] = []): Row[] {
  const topics = topicsOf(mirror)
  const asked: { name: string, topic: Topic | undefined }[] = names.length === 0
    ? topics.map(topic => ({ name: topic.name, topic }))
    : [...new Set(names)].sort().map(name => ({ name, topic: mirror.topic(name) }))
  return asked.flatMap(({ name, topic }): Row[] => {
    const partitions = topic?.info?.partitions ?? []
    return partitions.length === 0 ? [{ name, topic }] : partitions.map(info => ({ name, topic, info }))
  })
}

function describe (name: string, rows: Row[]) {
  const topic = rows[0]?.topic
  if (!topic?.info) {
    return { name, error_code: UNKNOWN_TOPIC_OR_PARTITION, error: 'unknown topic', partition_count: 0, partitions: [] }
  }
  return {
    name,
    error_code: topic.info.errorCode,
    partition_count: topic.info.partitions.length,
    partitions: rows.flatMap(({ info }) => info ? [describePartition(info, topic.partitions.get(info.partition))] : []),
  }
}

function describePartition (info: SnapshotPartition, partition: Partition | undefined) {
  return {
    partition: info.partition,
    leader_id: info.leaderId,
    owner_id: partition?.ownerId ?? null,
    leader_epoch: info.leaderEpoch,
    replica_nodes: info.replicaNodes,
    isr_nodes: info.isrNodes,
    offline_replicas: info.offlineReplicas,
    error_code: info.errorCode,
    log_end_offset: int64OrNullJson(partition?.logEndOffset ?? null),
  }
}
