import { Type } from '@sinclair/typebox'
import { type Int64, toJson } from '../kafscale/int64.ts'
import type { MirrorView, Topic } from '../kafscale/mirror.ts'
import { exists, observedAt, partitionsOf, topicsOf } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  cut, flag, input, int64OrNull, integer, integerOrNull, list, means, names, object, observed, page, paged, text,
  textOrNull, time
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

/** What a broker reports for a setting that is stored as 0 or not at all, unless `KAFSCALE_SEGMENT_BYTES` is set. */
const BROKER_DEFAULTS = { retention_ms: -1, retention_bytes: -1, segment_bytes: 4_194_304 } as const

type Source = 'stored' | 'default' | null
const source = Type.Unsafe<Source>({ type: ['string', 'null'], enum: ['stored', 'default', null] })

export default defineTool({
  name: 'describe_configs',
  title: 'Describe topic configs',
  description:
    'Settings of topics as brokers report them: retention_ms and retention_bytes (-1: no limit), segment_bytes. ' +
    'sources: stored, or the default of the brokers, whose segment_bytes is 4194304 unless they set ' +
    'KAFSCALE_SEGMENT_BYTES. exists is false for an unknown topic. Without topics, describes all.',
  operation: 'observe',
  input: input({ topics: names, ...page }),
  listed: { limit: null },
  output: object({
    ...observed,
    configs: list(object({
      name: text,
      exists: means(flag, 'Whether the topic is in the snapshot, or in etcd although the snapshot lacks it'),
      in_snapshot: means(
        Type.Optional(flag),
        '`false` if the snapshot lacks the topic although other keys in etcd have it, otherwise absent'
      ),
      partitions: means(integer, 'Partitions of the topic, with those that the snapshot lacks'),
      replication_factor: means(
        integerOrNull,
        'Replicas of the first partition in the snapshot; `null` if the snapshot lacks the topic'
      ),
      retention_ms: means(int64OrNull, 'How long records are kept; -1 for no limit'),
      retention_bytes: means(int64OrNull, 'How much of a partition is kept; -1 for no limit'),
      segment_bytes: means(
        int64OrNull,
        'Size of a segment. The default is that of a broker whose `KAFSCALE_SEGMENT_BYTES` is not set'
      ),
      config_created_at: means(
        textOrNull,
        'When the config was first altered, which is not when the topic was created; `null` without a stored config'
      ),
      config: means(
        Type.Unsafe<Record<string, string> | null>({
          type: ['object', 'null'],
          additionalProperties: { type: 'string' },
        }),
        'Other stored settings, by name'
      ),
      sources: means(
        object({ retention_ms: source, retention_bytes: source, segment_bytes: source }),
        '`stored` with the topic, or the `default` of the brokers, which also applies to a stored 0 and a stored ' +
        'retention of -1; `null`, like the values, if the stored config cannot be decoded'
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
  return [...new Set([...topics, ...mirror.unlisted].map(topic => topic.name))].sort()
}

function describe (name: string, topic: Topic | undefined) {
  const { info, config } = topic ?? {}
  const isLost = exists(topic) && !info
  return {
    name,
    exists: exists(topic),
    ...(isLost && { in_snapshot: false }),
    // Not from the stored config, whose copies of these two go stale.
    partitions: partitionsOf(topic).length,
    replication_factor: isLost ? null : info?.partitions[0]?.replicaNodes.length ?? 0,
    ...settings(config),
  }
}

function settings (config: Topic['config']) {
  if (config === null) {
    return {
      retention_ms: null,
      retention_bytes: null,
      segment_bytes: null,
      config_created_at: null,
      config: null,
      sources: { retention_ms: null, retention_bytes: null, segment_bytes: null },
    }
  }
  const retentionMs = limit(config?.retentionMs)
  const retentionBytes = limit(config?.retentionBytes)
  const segmentBytes = config && config.segmentBytes > 0 ? config.segmentBytes : undefined
  return {
    retention_ms: toJson(retentionMs ?? BROKER_DEFAULTS.retention_ms),
    retention_bytes: toJson(retentionBytes ?? BROKER_DEFAULTS.retention_bytes),
    segment_bytes: toJson(segmentBytes ?? BROKER_DEFAULTS.segment_bytes),
    config_created_at: time(config?.createdAtMs ?? null),
    config: Object.fromEntries(
      [...config?.config ?? []].sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => [key, cut(value)])
    ),
    sources: {
      retention_ms: sourceOf(retentionMs),
      retention_bytes: sourceOf(retentionBytes),
      segment_bytes: sourceOf(segmentBytes),
    },
  }
}

/** A stored limit; `undefined` for what a broker takes for its default: no config, 0, and even a stored −1. */
function limit (stored: Int64 | undefined): Int64 | undefined {
  return stored === 0 || stored === -1 ? undefined : stored
}

function sourceOf (stored: Int64 | undefined): Source {
  return stored === undefined ? 'default' : 'stored'
}
