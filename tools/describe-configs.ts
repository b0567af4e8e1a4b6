import { Type } from '@sinclair/typebox'
import { toJson } from '../kafscale/int64.ts'
import type { MirrorView, Topic } from '../kafscale/mirror.ts'
import { observedAt, topicsOf } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  cut, flag, input, int64OrNull, integer, list, means, names, object, observed, page, paged, text, textOrNull, time
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

type Source = 'stored' | 'default' | null
const source = Type.Unsafe<Source>({ type: ['string', 'null'], enum: ['stored', 'default', null] })

export default defineTool({
  name: 'describe_configs',
  title: 'Describe topic configs',
  description:
    'Settings of topics: retention_ms and retention_bytes (-1: no limit), segment_bytes (0: the broker default), ' +
    'and whether each is stored or a default. exists is false for an unknown topic. Without topics, describes all.',
  operation: 'observe',
  input: input({ topics: names, ...page }),
  listed: { limit: null },
  output: object({
    ...observed,
    configs: list(object({
      name: text,
      exists: means(flag, 'Whether the snapshot contains the topic; a config can outlive its topic'),
      partitions: means(integer, 'Partitions of the topic in the snapshot'),
      replication_factor: means(integer, 'Replicas of the first partition in the snapshot'),
      retention_ms: means(int64OrNull, 'How long records are kept; -1 for no limit'),
      retention_bytes: means(int64OrNull, 'How much of a partition is kept; -1 for no limit'),
      segment_bytes: means(int64OrNull, 'Size of a segment; 0 for the broker default'),
      created_at: means(textOrNull, 'As stored with the config'),
      config: means(
        Type.Unsafe<Record<string, string> | null>({
          type: ['object', 'null'],
          additionalProperties: { type: 'string' },
        }),
        'Other stored settings, by name'
      ),
      sources: means(
        object({ retention_ms: source, retention_bytes: source, segment_bytes: source }),
        'Where each value comes from; `null`, like the values, if the stored config cannot be decoded'
      ),
    })),
    ...paged,
  }),
  rows: { list: 'configs' },
  errors: ['METADATA_UNAVAILABLE', 'INVALID_CURSOR'],
  answer (host, query, context) {
    const mirror = context.mirror()
    const { rows, ...rest } = paginate('describe_configs', query, namesOf(mirror, query.topics), name => [name])
    return { ...observedAt(host, mirror), configs: rows.map(name => describe(name, mirror.topic(name))), ...rest }
  },
})

function namesOf (mirror: MirrorView, asked: string[] = []): string[] {
  const topics = topicsOf(mirror)
  if (asked.length > 0) return [...new Set(asked)].sort()
  return [...new Set([...topics, ...mirror.topicsWithConfig()].map(topic => topic.name))].sort()
}

function describe (name: string, topic: Topic | undefined) {
  const { info, config } = topic ?? {}
  return {
    name,
    exists: info !== undefined,
    // Not from the stored config, whose copies of these two go stale.
    partitions: info?.partitions.length ?? 0,
    replication_factor: info?.partitions[0]?.replicaNodes.length ?? 0,
    ...settings(config),
  }
}

function settings (config: Topic['config']) {
  if (config === null) {
    return {
      retention_ms: null,
      retention_bytes: null,
      segment_bytes: null,
      created_at: null,
      config: null,
      sources: sources(null),
    }
  }
  if (config === undefined) {
    return {
      retention_ms: -1,
      retention_bytes: -1,
      segment_bytes: 0,
      created_at: null,
      config: {},
      sources: sources('default'),
    }
  }
  return {
    retention_ms: toJson(config.retentionMs),
    retention_bytes: toJson(config.retentionBytes),
    segment_bytes: toJson(config.segmentBytes),
    created_at: time(config.createdAtMs),
    config: Object.fromEntries(
      [...config.config].sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => [key, cut(value)])
    ),
    sources: sources('stored'),
  }
}

function sources (source: Source) {
  return { retention_ms: source, retention_bytes: source, segment_bytes: source }
}
