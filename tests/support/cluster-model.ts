/** A small cluster as a value: what etcd has of it, as a mirror, and what a broker does with a call. */
import {
  encodeCommittedOffset, encodeConsumerGroup, encodeSnapshot, encodeTopicConfig, formatKey
} from '../../demo/encode.ts'
import { type Int64, parseInt64 } from '../../kafscale/int64.ts'
import { type KeyEvent, Mirror } from '../../kafscale/mirror.ts'
import type { AdminCall } from '../../plugins/kafka-admin/index.ts'

export interface TopicModel {
  partitions: number
  /** Known log end offsets, by partition. */
  ends?: Record<number, number>
  config?: { retentionMs: Int64, retentionBytes: Int64, segmentBytes: Int64 }
  /** Node ids of the brokers that hold leases, by partition. */
  owners?: Record<number, number>
  /** Whether the snapshot lacks it, as after a deletion with live producers. */
  unlisted?: boolean
}

export interface GroupModel {
  state?: string
  /** Topics, by member. Without members, the group has no metadata. */
  members?: Record<string, string[]>
  /** Offsets, by topic and partition. */
  commits?: Record<string, Record<number, number>>
  coordinator?: number
}

export interface ClusterModel {
  clusterId: string | null
  brokers: { nodeId: number, host: string, port: number }[]
  topics: Record<string, TopicModel>
  groups: Record<string, GroupModel>
  /** The mod revision of every key. */
  revision: number
}

export function cluster (more: Partial<ClusterModel> = {}): ClusterModel {
  return {
    clusterId: 'cluster-1',
    brokers: [0, 1, 2].map(nodeId => ({ nodeId, host: `broker-${nodeId}`, port: 9092 })),
    topics: {},
    groups: {},
    revision: 7,
    ...more,
  }
}

export function mirrorOf (model: ClusterModel, more: [key: string, value: string | Buffer][] = []): Mirror {
  const mirror = new Mirror()
  const put = (key: string, value: string | Buffer): void => {
    const event: KeyEvent = {
      type: 'put', key: Buffer.from(key), value: Buffer.from(value), modRevision: model.revision
    }
    mirror.apply(event)
  }
  for (const [key, value] of [...keysOf(model), ...more]) put(key, value)
  mirror.revision = model.revision
  return mirror
}

function * keysOf ({ clusterId, brokers, topics, groups }: ClusterModel): Generator<[string, string | Buffer]> {
  const leaderId = brokers[0]?.nodeId ?? 0
  yield [formatKey({ kind: 'snapshot' }), encodeSnapshot({
    clusterName: null,
    clusterId,
    controllerId: 0,
    brokers,
    topics: Object.entries(topics).filter(([, { unlisted }]) => !unlisted).map(([name, { partitions }]) => ({
      name,
      errorCode: 0,
      partitions: Array.from({ length: partitions }, (_, partition) => ({
        partition,
        leaderId,
        leaderEpoch: 0,
        replicaNodes: [leaderId],
        isrNodes: [leaderId],
        offlineReplicas: [],
        errorCode: 0,
      })),
    })),
  })]
  for (const [topic, { partitions, config, ends = {}, owners = {} }] of Object.entries(topics)) {
    if (config) {
      yield [formatKey({ kind: 'topic-config', topic }), encodeTopicConfig(topic, {
        partitions, replicationFactor: 1, createdAtMs: null, config: new Map(), ...config
      })]
    }
    for (const [partition, end] of Object.entries(ends)) {
      yield [formatKey({ kind: 'next-offset', topic, partition: Number(partition) }), String(end)]
    }
    for (const [partition, owner] of Object.entries(owners)) {
      yield [formatKey({ kind: 'partition-lease', topic, partition: Number(partition) }), String(owner)]
    }
  }
  for (const [group, { state = 'stable', members, commits = {}, coordinator }] of Object.entries(groups)) {
    if (members) {
      yield [formatKey({ kind: 'group-metadata', group }), encodeConsumerGroup(group, {
        state,
        protocolType: 'consumer',
        protocol: 'range',
        leader: '',
        generationId: 1,
        rebalanceTimeoutMs: 60_000,
        members: new Map(Object.entries(members).map(([id, topics]) => [id, {
          clientId: '',
          clientHost: '',
          heartbeatAtMs: null,
          assignments: new Map(topics.map(topic => [topic, [0]])),
          subscriptions: topics,
          sessionTimeoutMs: 10_000,
        }])),
      })]
    }
    if (coordinator !== undefined) yield [formatKey({ kind: 'group-lease', group }), String(coordinator)]
    for (const [topic, offsets] of Object.entries(commits)) {
      for (const [partition, offset] of Object.entries(offsets)) {
        yield [
          formatKey({ kind: 'committed-offset', group, topic, partition: Number(partition) }),
          encodeCommittedOffset({ offset, metadata: '', committedAtMs: null })
        ]
      }
    }
  }
}

/** What a broker writes for a call that it accepts. */
export function afterCall (model: ClusterModel, call: AdminCall): ClusterModel {
  const { topics, groups } = structuredClone(model)
  switch (call.api) {
    case 'create_topic':
      topics[call.topic] = { ...topics[call.topic], partitions: call.partitions, unlisted: false }
      break
    case 'delete_topic':
      delete topics[call.topic]
      for (const { commits } of Object.values(groups)) delete commits?.[call.topic]
      break
    case 'create_partitions':
      Object.assign(topics[call.topic] ?? {}, { partitions: call.partitions })
      break
    case 'alter_configs': {
      const topic = topics[call.topic]
      const value = (name: string, before: Int64) => parseInt64(call.config[name] ?? '') ?? before
      const { retentionMs, retentionBytes, segmentBytes } =
        topic?.config ?? { retentionMs: -1, retentionBytes: -1, segmentBytes: 0 }
      if (!topic) break
      topic.config = {
        retentionMs: value('retention.ms', retentionMs),
        retentionBytes: value('retention.bytes', retentionBytes),
        segmentBytes: value('segment.bytes', segmentBytes),
      }
      break
    }
    case 'delete_group':
      delete groups[call.groupId]?.members
  }
  return { ...model, topics, groups, revision: model.revision + 1 }
}
