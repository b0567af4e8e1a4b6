import { add, type Int64 } from './int64.ts'
import type { Commit, GroupView, MirrorView } from './mirror.ts'
import type { ConsumerGroup } from './records.ts'

/** The lag of a group on several partitions, and what its sum leaves out. */
export interface Lag {
  /** The exact sum of the known lags, in which a partition past the end counts as 0; `null` if none is known. */
  total: Int64 | null
  /** Partitions with a known lag. */
  partitions: number
  /** Of these, the partitions whose committed offset is past the log end offset, so that their lag is negative. */
  pastEnd: number
  /** Partitions with an unknown lag; `null` if nobody knows which partitions are assigned. */
  unknown: number | null
}

/** Sums the lags of committed offsets. `undefined` stands for a partition without one, whose lag is unknown. */
export function sumLag (commits: Iterable<Commit | undefined>): Lag & { unknown: number } {
  const sum: Lag & { unknown: number } = { total: null, partitions: 0, pastEnd: 0, unknown: 0 }
  for (const commit of commits) {
    const lag = commit?.lag ?? null
    if (lag === null) {
      sum.unknown++
    } else {
      sum.partitions++
      if (lag < 0) sum.pastEnd++
      sum.total = add(sum.total ?? 0, lag > 0 ? lag : 0)
    }
  }
  return sum
}

/** The lag of a group on the partitions, of all topics or of one, that it has committed or that are assigned to it. */
export function groupLag (mirror: MirrorView, group: GroupView, topic?: string): Lag {
  const { unknown, ...sum } = sumLag(commitsOn(group, topic))
  return { ...sum, unknown: group.metadata === null ? null : unknown + uncommitted(mirror, group, topic) }
}

/** A group's committed offsets, on all topics or on one. */
export function commitsOn (group: GroupView, topic: string | undefined): readonly Commit[] {
  return topic === undefined ? group.commits : group.commits.filter(({ partition }) => partition.topic.name === topic)
}

/** Whether a group has a committed offset on a topic, or is assigned a partition of it. */
export function consumes (group: GroupView, topic: string): boolean {
  return group.commits.some(({ partition }) => partition.topic.name === topic) ||
    [...group.metadata?.members.values() ?? []].some(({ assignments }) => (assignments.get(topic)?.length ?? 0) > 0)
}

/**
 * What {@link uncommitted} last counted on all topics, because counting takes longer than everything else here. The
 * count depends on a group's metadata and on which partitions it has committed. Both objects are replaced when that
 * changes, and never modified.
 */
const counts = new WeakMap<ConsumerGroup, { commits: readonly Commit[], count: number }>()

function uncommitted (mirror: MirrorView, group: GroupView, topic: string | undefined): number {
  const { metadata, commits } = group
  if (!metadata) return 0
  if (topic !== undefined) return countUncommitted(mirror, group, topic)
  const known = counts.get(metadata)
  if (known?.commits === commits) return known.count
  const count = countUncommitted(mirror, group)
  counts.set(metadata, { commits, count })
  return count
}

/** How many partitions are assigned to members, but have no committed offset. During a rebalance, two may have one. */
function countUncommitted (mirror: MirrorView, group: GroupView, topic?: string): number {
  const found = new Map<string, Set<number>>()
  for (const { assignments } of group.metadata?.members.values() ?? []) {
    for (const [name, numbers] of assignments) {
      if (topic !== undefined && name !== topic) continue
      const partitions = mirror.topic(name)?.partitions
      const ofTopic = found.get(name) ?? new Set()
      found.set(name, ofTopic)
      for (const number of numbers) if (!group.commitOn(partitions?.get(number))) ofTopic.add(number)
    }
  }
  return found.values().reduce((count, { size }) => count + size, 0)
}
