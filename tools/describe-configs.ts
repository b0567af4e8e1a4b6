import { Type } from '@sinclair/typebox'
import { toJson } from '../kafscale/int64.ts'
import type { MirrorView, Topic } from '../kafscale/mirror.ts'
import { observedAt, topicsOf } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  cut,
  flag,
  input,
  int64OrNull,
  integer,
  list,
  names,
  object,
  observed,
  page,
  paged,
  text,
  textOrNull,
  time,
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

type Source = 'stored' | 'default' | null
const source = Type.Unsafe<Source>({ enum: ['stored', 'default', null] })

export default defineTool({
  name: 'describe_configs',
  title: 'Describe topic configs',
  description:
    "Topic settings: retention_ms, retention_bytes (-1: no limit), segment_bytes (0: the broker's own), and whether each is stored or a default. exists false: no such topic. All topics without topics.",
  operation: 'observe',
  input: input({ topics: names, ...page }),
  output: object({
    ...observed,
    configs: list(object({
      name: text,
      exists: flag,
      partitions: integer,
      replication_factor: integer,
      retention_ms: int64OrNull,
      retention_bytes: int64OrNull,
      segment_bytes: int64OrNull,
      created_at: textOrNull,
      config: Type.Unsafe<Record<string, string> | null>({
        type: ['object', 'null'],
        additionalProperties: { type: 'string' },
      }),
      sources: object({ retention_ms: source, retention_bytes: source, segment_bytes: source }),
    })),
    ...paged,
  }),
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
    // The stored copy of these two goes stale; the snapshot's don't.
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
