/** The blast radius of a change: figures that move all the time, so that a plan does not rely on them. */
import { add, type Int64, toJson } from '../../../kafscale/int64.ts'
import { commitsOn, groupLag } from '../../../kafscale/lag.ts'
import type { GroupView, MirrorView, Topic } from '../../../kafscale/mirror.ts'
import type { GroupMember } from '../../../kafscale/records.ts'
import type { Plan } from '../change.ts'
import type { PlanContext } from './kind.ts'

type Effects = Plan['effects']

/** What is on a topic: records, groups and members. */
export function topicEffects (name: string, { cluster, visible, writeRate }: PlanContext): Effects {
  const topic = cluster.topic(name)
  const groups = visible.groups.filter(group => uses(group, name))
  const rebalancing = groups.filter(({ metadata }) => [...metadata?.members.values() ?? []].some(isOn(name)))
  return {
    ...recordEffects(topic),
    records_per_second: writeRate(name),
    groups_with_commits: groups.filter(group => commitsOn(group, name).length > 0).length,
    groups_with_members: rebalancing.length,
    ...lagEffects(visible, groups, name),
    members_rejoining: rebalancing.reduce((count, { metadata }) => count + (metadata?.members.size ?? 0), 0),
  }
}

/**
 * Records between the known ends: nothing deletes records, so a log starts at 0.
 */
function recordEffects (topic: Topic | undefined): Effects {
  const partitions = [...topic?.partitions.values() ?? []].filter(({ info, isUnlisted }) => info || isUnlisted)
  const ends = partitions.flatMap(({ logEndOffset }) => logEndOffset ?? [])
  return {
    partitions: partitions.length,
    records: sum(ends),
    partitions_without_known_end: partitions.length - ends.length,
  }
}

/** What a group has: members, and committed offsets, which outlive it. */
export function groupEffects (id: string, { visible, cluster }: PlanContext): Effects {
  const members = cluster.group(id)?.metadata?.members.size ?? 0
  const group = visible.group(id)
  return {
    members_rejoining: members,
    partitions_with_commits: group?.commits.length ?? 0,
    ...lagEffects(visible, group ? [group] : []),
  }
}

/** What a broker serves: the partitions that it has leases of, and the groups that it coordinates. */
export function brokerEffects (nodeId: number, { visible }: PlanContext): Effects {
  const partitions = visible.topics.flatMap(({ partitions }) =>
    partitions.values().filter(({ ownerId }) => ownerId === nodeId).toArray())
  const groups = visible.groups.filter(({ id }) => visible.coordinatorId(id) === nodeId)
  return {
    partitions: partitions.length,
    groups_coordinated: groups.length,
    members: groups.reduce((count, { metadata }) => count + (metadata?.members.size ?? 0), 0),
  }
}

function lagEffects (view: MirrorView, groups: readonly GroupView[], topic?: string): Effects {
  const lags = groups.map(group => groupLag(view, group, topic))
  return {
    total_lag: sum(lags.flatMap(({ total }) => total ?? [])),
    partitions_with_unknown_lag: lags.some(({ unknown }) => unknown === null)
      ? null
      : lags.reduce((count, { unknown }) => count + (unknown ?? 0), 0),
  }
}

function uses (group: GroupView, topic: string): boolean {
  return commitsOn(group, topic).length > 0 || [...group.metadata?.members.values() ?? []].some(isOn(topic))
}

function isOn (topic: string): (member: GroupMember) => boolean {
  return ({ assignments, subscriptions }) => assignments.has(topic) || subscriptions.includes(topic)
}

/** The exact sum; `null` if there is nothing to sum. */
function sum (values: readonly Int64[]): number | string | null {
  return values.length === 0 ? null : toJson(values.reduce(add))
}
