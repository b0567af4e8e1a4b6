import t from 'tap'
import { encodeSnapshot, encodeTopicConfig, formatKey } from '../../demo/encode.ts'
import type { TopicConfig } from '../../kafscale/records.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { ask, buildSyncedApp, fill } from '../support/service.ts'

const alteredAtMs = Date.parse('2026-11-23T13:20:55Z')

function config (topic: string, values: Partial<TopicConfig>) {
  return {
    key: formatKey({ kind: 'topic-config', topic }),
    value: encodeTopicConfig(topic, {
      partitions: 1,
      replicationFactor: 1,
      retentionMs: -1,
      retentionBytes: -1,
      segmentBytes: 0,
      createdAtMs: alteredAtMs,
      config: new Map(),
      ...values,
    }),
  }
}

t.test('settings are what a broker reports, and each names its source', needsEtcd(), async t => {
  const stored = {
    'only-retention': { retentionMs: 3_600_000 },
    zero: { retentionMs: 0, retentionBytes: 0, segmentBytes: 0 },
    'no-limit': { retentionMs: -1, retentionBytes: -1 },
    negative: { retentionMs: -2, segmentBytes: -1 },
    all: { retentionMs: 1, retentionBytes: 2, segmentBytes: 4_194_304 },
  }
  const etcd = await startEtcd(t)
  await fill(etcd, [
    {
      key: formatKey({ kind: 'snapshot' }),
      value: encodeSnapshot({
        clusterName: null,
        clusterId: null,
        controllerId: 0,
        brokers: [],
        topics: [...Object.keys(stored), 'never-altered'].map(name => ({ name, errorCode: 0, partitions: [] })),
      }),
    },
    ...Object.entries(stored).map(([topic, values]) => config(topic, values)),
  ])
  const app = await buildSyncedApp(t, etcd)
  const { configs } = await ask(app, 'describe_configs') as { configs: Record<string, unknown>[] }
  const shown = Object.fromEntries(configs.map(({ name, sources, ...values }) => {
    const { retention_ms: ms, retention_bytes: bytes, segment_bytes: segment } = values
    return [name, [ms, bytes, segment, Object.values(sources as object).join()]]
  }))
  t.strictSame(shown, {
    'only-retention': [3_600_000, -1, 4_194_304, 'stored,default,default'],
    zero: [-1, -1, 4_194_304, 'default,default,default'],
    'no-limit': [-1, -1, 4_194_304, 'default,default,default'],
    negative: [-2, -1, 4_194_304, 'stored,default,default'],
    all: [1, 2, 4_194_304, 'stored,stored,stored'],
    'never-altered': [-1, -1, 4_194_304, 'default,default,default'],
  })
  t.match(configs, [
    { name: 'all', config_created_at: '2026-11-23T13:20:55.000Z' },
    {},
    { name: 'never-altered', config_created_at: null },
  ])
  t.notOk(configs.some(topic => 'created_at' in topic), 'it is not when the topic was created')
})
