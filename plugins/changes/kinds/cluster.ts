/** What the kinds of changes read from the cluster: facts, the fields of differences, and warnings on all of them. */
import { isDeepStrictEqual } from 'node:util'
import { ChangeImpossible, MetadataUnavailable } from '../../../errors.ts'
import { toJson } from '../../../kafscale/int64.ts'
import type { MirrorView, Topic } from '../../../kafscale/mirror.ts'
import type { Broker, SnapshotTopic } from '../../../kafscale/records.ts'
import { quote } from '../../../lib/printable.ts'
import type { Change, Fact, FieldDiff } from '../change.ts'
import type { PlanContext } from './kind.ts'

/** A topic of the snapshot. */
export type ListedTopic = Topic & { info: SnapshotTopic }

/** @throws {MetadataUnavailable} if the snapshot cannot be decoded, so that nobody knows what the cluster has */
export function snapshotOf ({ snapshot }: MirrorView): NonNullable<MirrorView['snapshot']> {
  if (!snapshot) {
    throw new MetadataUnavailable("the stored snapshot can't be decoded, so nobody knows what a change would do")
  }
  return snapshot
}

/** @throws {ChangeImpossible} if the snapshot lacks the topic */
export function listedTopic (cluster: MirrorView, name: string): ListedTopic {
  snapshotOf(cluster)
  const topic = cluster.topic(name)
  if (topic?.info) return topic as ListedTopic
  throw new ChangeImpossible(
    topic?.isUnlisted
      ? `the snapshot lacks the topic ${quote(name)}, although other keys in etcd have it, and brokers change only ` +
        'topics of the snapshot: create it again first'
      : `the topic ${quote(name)} does not exist: call list_topics for those that do`
  )
}

/** @throws {ChangeImpossible} if the snapshot lacks the broker */
export function listedBroker (cluster: MirrorView, nodeId: number): Broker {
  const { brokers } = snapshotOf(cluster)
  const broker = brokers.find(broker => broker.nodeId === nodeId)
  if (broker) return broker
  const known = brokers.length === 0 ? 'none' : brokers.map(({ nodeId }) => nodeId).join(', ')
  throw new ChangeImpossible(`the snapshot lists no broker ${nodeId}, so its address is not known: it lists ${known}`)
}

export function clusterFact (cluster: MirrorView): Fact {
  return { fact: 'cluster_id', subject: 'cluster', value: snapshotOf(cluster).clusterId }
}

/** Whether the topic is in the snapshot, and whether etcd has anything of it. */
export function topicFacts (cluster: MirrorView, name: string): Fact[] {
  const topic = cluster.topic(name)
  const inSnapshot = topic?.info !== undefined
  return [
    { fact: 'topic_exists', subject: name, value: inSnapshot || (topic?.isUnlisted ?? false) },
    { fact: 'topic_in_snapshot', subject: name, value: inSnapshot },
  ]
}

export const SETTINGS = ['retention.ms', 'retention.bytes', 'segment.bytes'] as const
export type Setting = typeof SETTINGS[number]

/** The stored settings of a topic; `null` for each when none are stored, or when they cannot be decoded. */
export function settingsOf (topic: Topic | undefined): Record<Setting, number | string | null> {
  const config = topic?.config
  return {
    'retention.ms': config ? toJson(config.retentionMs) : null,
    'retention.bytes': config ? toJson(config.retentionBytes) : null,
    'segment.bytes': config ? toJson(config.segmentBytes) : null,
  }
}

/**
 * The stored settings of a topic. Their values are facts besides the mod revision, because an etcd that was restored
 * from a backup counts again.
 */
export function configFacts (topic: Topic, settings: readonly Setting[]): Fact[] {
  const stored = settingsOf(topic)
  return [
    { fact: 'config_mod_revision', subject: topic.name, value: topic.configModRevision },
    ...settings.map(setting => ({ fact: setting, subject: topic.name, value: stored[setting] })),
  ]
}

/**
 * What has changed since a plan was made, of what it was to change.
 * @param now the fields of the plan's difference, as they are
 */
export function observedDiff ({ diff }: Change, now: Readonly<Record<string, unknown>>): FieldDiff[] {
  return diff.map(({ field, before }) => ({ field, before, after: now[field] ?? null }))
    .filter(({ before, after }) => !isDeepStrictEqual(before, after))
}

/** Whether the mirror shows the cluster of the change: an empty or undecodable snapshot shows no effect of anything. */
export function isSameCluster ({ cluster_id: id }: Change, { snapshot }: MirrorView): boolean {
  return snapshot !== null && snapshot.clusterId === id
}

/** A warning, if it applies. */
export function when (applies: boolean, warning: string): string[] {
  return applies ? [warning] : []
}

/** Nothing else is known to the requester, so the plan may concern more than it counts. */
export function visibilityWarnings ({ cluster, visible }: PlanContext): string[] {
  return visible === cluster ? [] : ['The effects count only the groups that the requester may see.']
}

export const CONCURRENT_CHANGES =
  'Every broker writes the whole snapshot: a change through another broker or by the operator at the same time may ' +
  'overwrite this one, although both report success.'

export const OPERATOR_RESTORES =
  'If a KafscaleTopic resource declares this topic, the operator restores it as declared: change the resource instead.'
