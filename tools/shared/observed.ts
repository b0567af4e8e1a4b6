import { MetadataUnavailable } from '../../errors.ts'
import type { MirrorView, Partition, Topic } from '../../kafscale/mirror.ts'
import type { Broker } from '../../kafscale/records.ts'
import type { Host } from '../tool.ts'

/** The topics of the snapshot. @throws {MetadataUnavailable} if it can't be decoded, so that they are not known */
export function topicsOf (mirror: MirrorView): readonly Topic[] {
  snapshotOf(mirror, 'topics')
  return mirror.topics
}

/** The brokers of the snapshot. @throws {MetadataUnavailable} if it can't be decoded, so that they are not known */
export function brokersOf (mirror: MirrorView): readonly Broker[] {
  return snapshotOf(mirror, 'brokers').brokers
}

function snapshotOf ({ snapshot }: MirrorView, wanted: 'topics' | 'brokers') {
  if (snapshot) return snapshot
  throw new MetadataUnavailable(`the stored snapshot can't be decoded, so the ${wanted} are not known`)
}

/** Whether a topic is in the snapshot, or in etcd although the snapshot lacks it. */
export function exists (topic: Topic | undefined): topic is Topic {
  return topic !== undefined && (topic.info !== undefined || topic.isUnlisted)
}

/** The numbers of a topic's partitions, in ascending order, with those that the snapshot lacks. */
export function partitionsOf (topic: Topic | undefined): number[] {
  const listed = topic?.info?.partitions.map(({ partition }) => partition) ?? []
  if (!topic?.unlistedPartitions) return listed
  const unlisted = topic.partitions.values().filter(({ isUnlisted }) => isUnlisted).map(({ number }) => number)
  return [...listed, ...unlisted].sort((a, b) => a - b)
}

/** Adds `in_snapshot: false` to a row whose partition the snapshot lacks. Nothing if the snapshot can't be decoded. */
export function inSnapshot (mirror: MirrorView, partition: Partition | undefined): { in_snapshot?: boolean } {
  return mirror.snapshot === null || partition?.info ? {} : { in_snapshot: false }
}

/** Which revision of the cluster an answer shows, and when that was last known to be current. */
export function observedAt (host: Host, mirror: MirrorView): { observed_at: string, revision: number } {
  return { observed_at: host.metadata.observedAt.toISOString(), revision: mirror.revision }
}
