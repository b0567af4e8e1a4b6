import { GroupNotFound } from '../errors.ts'
import { groupLag, sumLag } from '../kafscale/lag.ts'
import { compare, type GroupView, type MirrorView } from '../kafscale/mirror.ts'
import { quote } from '../lib/printable.ts'
import { ignored, ignoredJson, ignoredKeys } from './shared/ignored.ts'
import { lagTotals, lagTotalsJson } from './shared/lag.ts'
import { groupState, heartbeatsAt } from './shared/members.ts'
import { observedAt } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  cut, flag, flagOrNull, groupId, input, int64OrNull, int64OrNullJson, integer, integerOrNull, list, means, object,
  observed, page, paged, text, textOrNull, time
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

/** @throws {GroupNotFound} */
export function groupOf (mirror: MirrorView, id: string): GroupView {
  const group = mirror.group(id)
  if (!group) throw new GroupNotFound(quote(id.slice(0, 256)), apartFrom(ignoredKeys(mirror, { group: id })))
  return group
}

function apartFrom (keys: number): string {
  const counted = keys === 1 ? '1 key' : `${keys} keys`
  return keys === 0 ? '' : `, apart from ${counted} that may be its own or another group's`
}

export default defineTool({
  name: 'describe_group',
  title: 'Describe a consumer group',
  description:
    'One consumer group and its members: heartbeat age (ms), subscriptions, assigned partitions and their lag ' +
    '(records). Without members, the state is empty. For offsets by partition, use fetch_offsets.',
  operation: 'observe',
  input: input({ group_id: groupId, ...page }),
  crowdedOut: ['limit'],
  output: object({
    ...observed,
    group_id: text,
    state: means(textOrNull, 'As stored; `empty` without stored metadata; `null` if the metadata cannot be decoded'),
    stale: means(flagOrNull, 'Whether every member missed its session timeout; `false` without members'),
    protocol_type: means(textOrNull, '`consumer`, `connect` or another type; empty without stored metadata'),
    protocol: means(textOrNull, 'The assignment strategy that the members agreed on'),
    leader: means(textOrNull, 'Id of the member that assigns partitions'),
    generation_id: means(integerOrNull, 'Increases with each rebalance; `null` without members'),
    rebalance_timeout_ms: means(integerOrNull, '`null` without members'),
    coordinator_id: means(integerOrNull, 'Node id of the broker that coordinates the group; `null` if there is none'),
    ...lagTotals,
    members: list(object({
      member_id: text,
      client_id: text,
      client_host: text,
      heartbeat_at: means(textOrNull, '`null` if no heartbeat is stored'),
      heartbeat_age_ms: means(
        integerOrNull,
        'Without the time in which etcd was away, as long as only that can explain a missed session timeout'
      ),
      stale: means(flag, 'Whether the last heartbeat is missing or older than the session timeout (30 s if that is 0)'),
      session_timeout_ms: integer,
      subscriptions: means(list(text), 'Topics that the member has subscribed to'),
      assignments: list(object({
        topic: text,
        partitions: means(list(integer), 'Partitions assigned to the member'),
        lag: means(int64OrNull, 'Their `total_lag`'),
        partitions_unknown: means(integer, 'Of these partitions, those whose lag is unknown'),
        partitions_past_end: means(integer, 'Of these partitions, those committed past the log end offset'),
      })),
    })),
    ...ignored,
    ...paged,
  }),
  rows: { list: 'members' },
  errors: ['METADATA_UNAVAILABLE', 'GROUP_NOT_FOUND', 'INVALID_CURSOR'],
  answer (host, query, context) {
    const mirror = context.mirror()
    const group = groupOf(mirror, query.group_id)
    const { metadata } = group
    const heartbeatOf = heartbeatsAt(host)
    const members = [...metadata?.members ?? []].sort(([a], [b]) => compare(a, b))
    const { rows, ...rest } = paginate('describe_group', query, members, ([memberId]) => [memberId])

    const none = metadata === null ? null : ''
    return {
      ...observedAt(host, mirror),
      group_id: group.id,
      ...groupState(group, heartbeatOf),
      protocol: metadata ? cut(metadata.protocol) : none,
      leader: metadata?.leader ?? none,
      generation_id: metadata?.members.size ? metadata.generationId : null,
      rebalance_timeout_ms: metadata?.members.size ? metadata.rebalanceTimeoutMs : null,
      coordinator_id: mirror.coordinatorId(group.id),
      ...lagTotalsJson(groupLag(mirror, group)),
      members: rows.map(([memberId, member]) => ({
        member_id: memberId,
        client_id: cut(member.clientId),
        client_host: cut(member.clientHost),
        heartbeat_at: time(member.heartbeatAtMs),
        heartbeat_age_ms: heartbeatOf(member).ageMs,
        stale: heartbeatOf(member).stale,
        session_timeout_ms: member.sessionTimeoutMs,
        subscriptions: member.subscriptions.toSorted(compare),
        assignments: [...member.assignments].sort(([a], [b]) => compare(a, b)).map(([topicName, partitions]) => {
          const topic = mirror.topic(topicName)
          const sum = sumLag(partitions.map(number => group.commitOn(topic?.partitions.get(number))))
          return {
            topic: topicName,
            partitions,
            lag: int64OrNullJson(sum.total),
            partitions_unknown: sum.unknown,
            partitions_past_end: sum.pastEnd,
          }
        }),
      })),
      ...ignoredJson(mirror, { group: group.id }),
      ...rest,
    }
  },
})
