import { Type } from '@sinclair/typebox'
import type { MirrorView } from '../kafscale/mirror.ts'
import type { MetricsSnapshot } from '../plugins/broker-metrics/index.ts'
import { summarize, topicSummary } from './list-topics.ts'
import { ignored, ignoredJson } from './shared/ignored.ts'
import { worstS3 } from './shared/metrics-figures.ts'
import { observedAt } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  input, int64, integer, integerOrNull, list, means, numberOrNull, object, observed, page, paged, text, words
} from './shared/schema.ts'
import { defineTool, type Host } from './tool.ts'

export default defineTool({
  name: 'cluster_status',
  title: 'Cluster status',
  description: 'Start here: brokers and whether their metrics pages answer, S3 and etcd state, counts, topics. ' +
    'While etcd is stale, the answer is age_ms old. For figures, use cluster_metrics.',
  operation: 'observe',
  input: input({ ...page }),
  listed: { limit: null },
  output: object({
    ...observed,
    cluster_name: means(Type.Optional(Type.String()), 'Absent if the snapshot has none'),
    cluster_id: means(Type.Optional(Type.String()), 'Absent if the snapshot has none'),
    controller_id: means(integerOrNull, 'Node id of the controller; `null` if the snapshot cannot be decoded'),
    brokers_reachable: means(
      integerOrNull,
      'Brokers whose metrics page answered; `null` if metrics are not configured or the brokers are unknown'
    ),
    brokers: list(object({
      node_id: integer,
      host: text,
      port: integer,
      partitions_owned: means(integer, 'Partitions whose lease the broker holds, so that it writes them now'),
      metrics: means(
        words('ok', 'unreachable', 'invalid', 'unknown', 'not_configured'),
        'How the metrics page of this broker answered; `invalid` if it is not a page of a KafScale broker; `unknown` ' +
        'if no scraped page is known to be its own'
      ),
      s3_state: means(words('healthy', 'degraded', 'unavailable', 'unknown'), 'S3 as this broker sees it'),
    })),
    topic_count: means(integerOrNull, '`null` if the snapshot cannot be decoded'),
    partition_count: means(integerOrNull, '`null` if the snapshot cannot be decoded'),
    topics_not_in_snapshot: means(
      integerOrNull,
      'Topics that the snapshot lacks although other keys in etcd have them, so that `topic_count` leaves them out; ' +
        '`null` if the snapshot cannot be decoded'
    ),
    partitions_not_in_snapshot: means(integerOrNull, 'Likewise, partitions, of these topics and of others'),
    brokers_not_in_snapshot: means(list(integer), 'Node ids that hold leases but are not in `brokers`'),
    group_count: means(integer, 'Groups with members or committed offsets'),
    topics: means(list(topicSummary), 'One page of the topics in the snapshot, sorted by name'),
    s3: object({
      state: means(words('healthy', 'degraded', 'unavailable', 'unknown'), 'The worst state that any broker reports'),
      latency_ms: means(
        numberOrNull,
        'Mean latency of S3 calls, weighted by the load of the brokers; `null` without calls in the last 60 s'
      ),
      worst_latency_ms: means(numberOrNull, 'The same of the broker for which S3 works worst'),
    }),
    etcd: object({
      state: means(words('connected', 'stale'), '`stale` while etcd does not answer'),
      age_ms: means(integer, 'Time since the answer was last known to be current'),
      revision: int64,
    }),
    ...ignored,
    ...paged,
  }),
  rows: { list: 'topics' },
  errors: ['METADATA_UNAVAILABLE', 'INVALID_CURSOR'],
  async answer (host, query, context) {
    const metrics = host.brokerMetrics.configured ? await host.brokerMetrics.scrape().catch(() => undefined) : undefined
    const mirror = context.mirror()
    const { snapshot, unlisted } = mirror
    const { rows, ...rest } = paginate('cluster_status', query, mirror.topics, topic => [topic.name])
    return {
      ...observedAt(host, mirror),
      ...(snapshot?.clusterName && { cluster_name: snapshot.clusterName }),
      ...(snapshot?.clusterId && { cluster_id: snapshot.clusterId }),
      controller_id: snapshot?.controllerId ?? null,
      brokers_reachable: metrics ? metrics.brokers.filter(({ state }) => state === 'ok').length : null,
      brokers: brokers(mirror, metrics, host.brokerMetrics.configured),
      topic_count: snapshot ? mirror.topics.length : null,
      partition_count: snapshot
        ? mirror.topics.reduce((count, { info }) => count + (info?.partitions.length ?? 0), 0)
        : null,
      topics_not_in_snapshot: snapshot ? unlisted.filter(({ isUnlisted }) => isUnlisted).length : null,
      partitions_not_in_snapshot: snapshot
        ? unlisted.reduce((count, { unlistedPartitions }) => count + unlistedPartitions, 0)
        : null,
      brokers_not_in_snapshot: [...mirror.unlistedBrokers],
      group_count: mirror.groups.length,
      topics: rows.map(summarize),
      s3: {
        state: metrics?.whole?.s3State ?? 'unknown' as const,
        latency_ms: metrics?.whole?.s3LatencyMs ?? null,
        worst_latency_ms: worstS3(metrics?.brokers ?? [])?.page.s3LatencyMs ?? null,
      },
      etcd: { state: etcdState(host), age_ms: host.metadata.ageMs, revision: mirror.revision },
      ...ignoredJson(mirror),
      ...rest,
    }
  },
})

function etcdState ({ metadata }: Host): 'connected' | 'stale' {
  return metadata.state === 'synced' ? 'connected' : 'stale'
}

function brokers (mirror: MirrorView, metrics: MetricsSnapshot | undefined, configured: boolean) {
  const owned = new Map<number | null, number>()
  for (const topic of new Set([...mirror.topics, ...mirror.unlisted])) {
    for (const { info, isUnlisted, ownerId } of topic.partitions.values()) {
      if (info || isUnlisted) owned.set(ownerId, (owned.get(ownerId) ?? 0) + 1)
    }
  }
  return (mirror.snapshot?.brokers ?? []).toSorted((a, b) => a.nodeId - b.nodeId).map(({ nodeId, host, port }) => {
    const result = metrics?.brokers.find(broker => broker.nodeId === nodeId)
    return {
      node_id: nodeId,
      host,
      port,
      partitions_owned: owned.get(nodeId) ?? 0,
      metrics: result?.state ?? (configured ? 'unknown' as const : 'not_configured' as const),
      s3_state: result?.state === 'ok' ? result.page.s3State : 'unknown' as const,
    }
  })
}
