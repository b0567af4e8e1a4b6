import { Type } from '@sinclair/typebox'
import { matcher } from '../kafscale/glob.ts'
import { groupLag } from '../kafscale/lag.ts'
import { ignored, ignoredJson } from './shared/ignored.ts'
import { lagTotals, lagTotalsJson } from './shared/lag.ts'
import { groupState, heartbeatsAt, inState, STATES } from './shared/members.ts'
import { observedAt } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  flagOrNull, input, integer, integerOrNull, list, means, object, observed, page,
  paged, pattern, text, textOrNull, time
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'list_groups',
  title: 'List consumer groups',
  description:
    'Consumer groups, including those with only committed offsets (state empty), with member count and total lag ' +
    '(records). stale: no member has sent a heartbeat in time. For members, use describe_group; for lag by ' +
    'partition, use consumer_lag.',
  operation: 'observe',
  input: input({
    state: Type.Optional(
      Type.String({ maxLength: 256, description: STATES.join(', ') })
    ),
    pattern,
    ...page,
  }),
  crowdedOut: ['state', 'limit'],
  output: object({
    ...observed,
    groups: list(object({
      group_id: text,
      state: means(textOrNull, 'As stored; `empty` without stored metadata; `null` if the metadata cannot be decoded'),
      stale: means(flagOrNull, 'Whether every member missed its session timeout; `false` without members'),
      protocol_type: means(textOrNull, '`consumer`, `connect` or another type; empty without stored metadata'),
      member_count: means(integerOrNull, '`null` if the metadata cannot be decoded'),
      coordinator_id: means(integerOrNull, 'Node id of the broker that coordinates the group; `null` if there is none'),
      committed_partitions: means(integer, 'Partitions with a committed offset'),
      ...lagTotals,
      last_commit_at: means(textOrNull, 'Time of the latest commit'),
    })),
    ...ignored,
    ...paged,
  }),
  rows: { list: 'groups' },
  errors: ['METADATA_UNAVAILABLE', 'INVALID_CURSOR'],
  answer (host, query, context) {
    const mirror = context.mirror()
    const heartbeatOf = heartbeatsAt(host)
    const matching = matcher(query.pattern)
    const all = mirror.groups
    const matchingState = query.state ? inState(query.state, all) : () => true
    const found = all.filter(group => matching(group.id) && matchingState(group))
    const { rows, ...rest } = paginate('list_groups', query, found, group => [group.id])
    const groups = rows.map(group => {
      const { metadata, commits } = group
      return {
        group_id: group.id,
        ...groupState(group, heartbeatOf),
        member_count: metadata === null ? null : metadata?.members.size ?? 0,
        coordinator_id: mirror.coordinatorId(group.id),
        committed_partitions: commits.length,
        ...lagTotalsJson(groupLag(mirror, group)),
        last_commit_at: time(
          commits.reduce<number | null>(
            (last, { committedAtMs: at }) => at !== null && (last === null || at > last) ? at : last,
            null
          )
        ),
      }
    })
    return { ...observedAt(host, mirror), groups, ...ignoredJson(mirror), ...rest }
  },
})
