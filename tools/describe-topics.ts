import { Type } from '@sinclair/typebox'
import { compare, type MirrorView, type Topic } from '../kafscale/mirror.ts'
import { exists, inSnapshot, observedAt, partitionsOf, topicsOf } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  flag, input, inSnapshotFlag, int64OrNull, int64OrNullJson, integer, integerOrNull, list, means, names, object,
  observed, page, paged, text
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

const UNKNOWN_TOPIC_OR_PARTITION = 3
const NOT_IN_SNAPSHOT = 'missing from the snapshot, although other keys in etcd have the topic: a broker that could ' +
  'not read etcd may have overwritten the snapshot'

/** A partition, or a topic without partitions. */
type Row = { name: string, topic: Topic | undefined, partition?: number }

export default defineTool({
  name: 'describe_topics',
  title: 'Describe topics',
  description:
    'Partitions of topics: leader_id (static, from the snapshot), owner_id (the broker that writes it now; null: ' +
    'none), replicas, log_end_offset (next offset; null: unknown, as before the first flush). Without names, ' +
    'describes all topics. For names only, use list_topics.',
  operation: 'observe',
  input: input({ names, ...page }),
  crowdedOut: ['limit'],
  output: object({
    ...observed,
    topics: list(object({
      name: text,
      error_code: means(integer, 'Kafka error code; 3 if the snapshot lacks the topic'),
      error: means(Type.Optional(Type.String()), 'Present if the topic does not exist or the snapshot lacks it'),
      in_snapshot: means(
        Type.Optional(flag),
        '`false` if the snapshot lacks the topic although other keys in etcd have it, otherwise absent'
      ),
      partition_count: means(integer, 'Partitions of the topic on all pages'),
      partitions: means(list(object({
        partition: integer,
        in_snapshot: inSnapshotFlag,
        leader_id: means(integerOrNull, 'Node id from the snapshot, which KafScale does not update'),
        owner_id: means(integerOrNull, 'Node id of the broker that holds the lease and writes; `null` if none does'),
        leader_epoch: integerOrNull,
        replica_nodes: means(list(integer), 'Node ids of the replicas'),
        isr_nodes: means(list(integer), 'Node ids of the in-sync replicas'),
        offline_replicas: means(list(integer), 'Node ids of the offline replicas'),
        error_code: means(integer, 'Kafka error code of the partition; 0 if there is none, 3 if the snapshot lacks it'),
        log_end_offset: means(
          int64OrNull,
          'Offset of the next record, as of the last flush; `null` if nothing was flushed or it cannot be decoded'
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
      ({ name, partition }) => [name, partition ?? -1]
    )
    const byTopic = Map.groupBy(rows, ({ name }) => name)
    const topics = [...byTopic].map(([name, rows]) => describe(mirror, name, rows))
    return { ...observedAt(host, mirror), topics, ...rest }
  },
})

function rowsOf (mirror: MirrorView, names: string[] = []): Row[] {
  const topics = topicsOf(mirror)
  const asked: { name: string, topic: Topic | undefined }[] = names.length === 0
    ? [...new Set([...topics, ...mirror.unlisted])].map(topic => ({ name: topic.name, topic }))
    : [...new Set(names)].map(name => ({ name, topic: mirror.topic(name) }))
  return asked.sort((a, b) => compare(a.name, b.name)).flatMap(({ name, topic }): Row[] => {
    const partitions = partitionsOf(topic)
    return partitions.length === 0 ? [{ name, topic }] : partitions.map(partition => ({ name, topic, partition }))
  })
}

function describe (mirror: MirrorView, name: string, rows: Row[]) {
  const topic = rows[0]?.topic
  if (!exists(topic)) {
    return { name, error_code: UNKNOWN_TOPIC_OR_PARTITION, error: 'unknown topic', partition_count: 0, partitions: [] }
  }
  return {
    name,
    error_code: topic.info?.errorCode ?? UNKNOWN_TOPIC_OR_PARTITION,
    ...(!topic.info && { error: NOT_IN_SNAPSHOT, in_snapshot: false }),
    partition_count: partitionsOf(topic).length,
    partitions: rows.flatMap(({ partition }) =>
      partition === undefined ? [] : [describePartition(mirror, topic, partition)]),
  }
}

function describePartition (mirror: MirrorView, topic: Topic, number: number) {
  const partition = topic.partitions.get(number)
  const info = partition?.info
  return {
    partition: number,
    ...inSnapshot(mirror, partition),
    leader_id: info?.leaderId ?? null,
    owner_id: partition?.ownerId ?? null,
    leader_epoch: info?.leaderEpoch ?? null,
    replica_nodes: info?.replicaNodes ?? [],
    isr_nodes: info?.isrNodes ?? [],
    offline_replicas: info?.offlineReplicas ?? [],
    error_code: info?.errorCode ?? UNKNOWN_TOPIC_OR_PARTITION,
    log_end_offset: int64OrNullJson(partition?.logEndOffset ?? null),
  }
}
