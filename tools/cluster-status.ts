import { Type } from '@sinclair/typebox'
import type { MirrorView } from '../kafscale/mirror.ts'
import type { MetricsSnapshot } from '../plugins/broker-metrics.ts'
import { summarize, topicSummary } from './list-topics.ts'
import { observedAt } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  input,
  int64,
  integer,
  integerOrNull,
  list,
  numberOrNull,
  object,
  observed,
  page,
  paged,
  text,
  words,
} from './shared/schema.ts'
import { defineTool, type Host } from './tool.ts'

export default defineTool({
  name: 'cluster_status',
  title: 'Cluster status',
  description:
    'The cluster at a glance: brokers and whether their metrics answer, S3 and etcd state, counts, topics. Start here. etcd stale: the answer is as old as age_ms says. Figures: cluster_metrics.',
  operation: 'observe',
  input: input({ ...page }),
  output: object({
    ...observed,
    cluster_name: Type.Optional(Type.String()),
    cluster_id: Type.Optional(Type.String()),
    controller_id: integerOrNull,
    brokers_reachable: integerOrNull,
    brokers: list(object({
      node_id: integer,
      host: text,
      port: integer,
      partitions_owned: integer,
      metrics: words('ok', 'unreachable', 'invalid', 'not_configured'),
      s3_state: words('healthy', 'degraded', 'unavailable', 'unknown'),
    })),
    topic_count: integerOrNull,
    partition_count: integerOrNull,
    group_count: integer,
    topics: list(topicSummary),
    s3: object({ state: words('healthy', 'degraded', 'unavailable', 'unknown'), latency_ms: numberOrNull }),
    etcd: object({ state: words('connected', 'stale'), age_ms: integer, revision: int64 }),
    ...paged,
  }),
  async answer (host, query, context) {
    const metrics = host.brokerMetrics.configured ? await host.brokerMetrics.scrape().catch(() => undefined) : undefined
    const mirror = context.mirror()
    const { snapshot } = mirror
    const { rows, ...rest } = paginate('cluster_status', query, mirror.topics, topic => [topic.name])
    return {
      ...observedAt(host, mirror),
      ...(snapshot?.clusterName && { cluster_name: snapshot.clusterName }),
      ...(snapshot?.clusterId && { cluster_id: snapshot.clusterId }),
      controller_id: snapshot?.controllerId ?? null,
      brokers_reachable: metrics ? metrics.brokers.filter(({ state }) => state === 'ok').length : null,
      brokers: brokers(mirror, metrics),
      topic_count: snapshot ? mirror.topics.length : null,
      partition_count: snapshot
        ? mirror.topics.reduce((count, { info }) => count + (info?.partitions.length ?? 0), 0)
        : null,
      group_count: mirror.groups.length,
      topics: rows.map(summarize),
      s3: { state: metrics?.whole?.s3State ?? 'unknown' as const, latency_ms: metrics?.whole?.s3LatencyMs ?? null },
      etcd: { state: etcdState(host), age_ms: host.metadata.ageMs, revision: mirror.revision },
      ...rest,
    }
  },
})

function etcdState ({ metadata }: Host): 'connected' | 'stale' {
  return metadata.state === 'synced' ? 'connected' : 'stale'
}

function brokers (mirror: MirrorView, metrics: MetricsSnapshot | undefined) {
  const owned = new Map<number | null, number>()
  for (const topic of mirror.topics) {
    for (const { info, ownerId } of topic.partitions.values()) {
      if (info) owned.set(ownerId, (owned.get(ownerId) ?? 0) + 1)
    }
  }
  return (mirror.snapshot?.brokers ?? []).toSorted((a, b) => a.nodeId - b.nodeId).map(({ nodeId, host, port }) => {
    const result = metrics?.brokers.find(broker => broker.nodeId === nodeId)
    return {
      node_id: nodeId,
      host,
      port,
      partitions_owned: owned.get(nodeId) ?? 0,
      metrics: result?.state ?? 'not_configured' as const,
      s3_state: result?.state === 'ok' ? result.page.s3State : 'unknown' as const,
    }
  })
}
