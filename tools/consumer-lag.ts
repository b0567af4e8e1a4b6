import { Type } from '@sinclair/typebox'
import { InvalidArgument, InvalidCursor } from '../errors.ts'
import { type Int64, int64 as exact, parseInt64, toJson } from '../kafscale/int64.ts'
import { type Commit, compare, type GroupView, type MirrorView, totalLag } from '../kafscale/mirror.ts'
import { groupOf } from './describe-group.ts'
import { ageMs } from './shared/members.ts'
import { observedAt } from './shared/observed.ts'
import { DEFAULT_LIMIT, firstAfter, readCursor, type RowPosition, writeCursor } from './shared/paging.ts'
import {
  input, int64, int64OrNull, int64OrNullJson, integer, integerOrNull, list, means, nameOf, object, observed, page,
  paged, text, textOrNull, time
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

const MIN_LAG = 'Only partitions with at least this lag, in records'

/** A committed offset with a known lag. Rows are ordered by these fields: largest lag first, then by name. */
interface Row { lag: Int64, group: string, topic: string, partition: number }
type CommitRow = Row & { of: GroupView, commit: Commit }

export default defineTool({
  name: 'consumer_lag',
  title: 'Consumer lag, worst first',
  description:
    'Where consumers are behind: lag (records) by group, topic and partition across the cluster, largest first, ' +
    'including groups without members. Filter by group_id, topic or min_lag. groups: totals of the groups on the page.',
  operation: 'observe',
  input: input({
    group_id: Type.Optional(nameOf('Only this group')),
    topic: Type.Optional(nameOf('Only this topic')),
    min_lag: Type.Optional(Type.Unsafe<number | string>({
      type: ['integer', 'string'],
      pattern: '^-?[0-9]+$',
      maxLength: 20,
      minimum: Number.MIN_SAFE_INTEGER,
      maximum: Number.MAX_SAFE_INTEGER,
      description: MIN_LAG,
    })),
    ...page,
  }),
  listed: { min_lag: Type.Integer({ description: MIN_LAG }) },
  output: object({
    ...observed,
    lag: list(object({
      group_id: text,
      topic: text,
      partition: integer,
      committed_offset: means(int64, 'Offset of the next record that the group will consume'),
      log_end_offset: means(int64, 'Offset of the next record, as of the last flush'),
      lag: means(int64, 'Log end offset minus committed offset, in records'),
      committed_at: textOrNull,
      commit_age_ms: integerOrNull,
      member_id: means(textOrNull, 'The member that the partition is assigned to; `null` if there is none'),
    })),
    groups: means(list(object({
      group_id: text,
      total_lag: means(int64OrNull, 'Sum of the known lags, in records; `null` if none is known'),
      partitions: means(integer, 'Partitions with a known lag'),
      partitions_unknown: means(integer, 'Partitions with a committed offset and an unknown lag'),
    })), 'Totals of each group on this page, over the given topic; `min_lag` does not apply'),
    total: means(integer, 'Partitions with a known lag that match the filters, on all pages'),
    next_cursor: paged.next_cursor,
  }),
  rows: { list: 'lag', per: { list: 'groups', field: 'group_id' } },
  errors: ['METADATA_UNAVAILABLE', 'GROUP_NOT_FOUND', 'INVALID_CURSOR'],
  answer (host, query, context) {
    const mirror = context.mirror()
    const observedAtMs = host.metadata.observedAt.getTime()
    const groups = query.group_id === undefined ? mirror.groups : [groupOf(mirror, query.group_id)]
    const minLag = query.min_lag === undefined ? undefined : parseInt64(String(query.min_lag))
    if (minLag === undefined && query.min_lag !== undefined) throw new InvalidArgument('"min_lag" must be an int64')
    const after = readCursor('consumer_lag', query)

    const { rows, total, more } = worst(
      groups,
      query.topic,
      minLag,
      after && rowAt(after),
      query.limit ?? DEFAULT_LIMIT
    )
    const onPage = [...new Set(rows.map(({ of }) => of))].sort((a, b) => compare(a.id, b.id))
    const members = new Map(onPage.map(group => [group, memberOf(mirror, group)]))
    const last = rows.at(-1)
    return {
      ...observedAt(host, mirror),
      lag: rows.map(({ lag, group, topic, partition, of, commit }) => ({
        group_id: group,
        topic,
        partition,
        committed_offset: toJson(commit.offset as Int64),
        log_end_offset: toJson(commit.partition.logEndOffset as Int64),
        lag: toJson(lag),
        committed_at: time(commit.committedAtMs),
        commit_age_ms: ageMs(commit.committedAtMs, observedAtMs),
        member_id: members.get(of)?.(commit) ?? null,
      })),
      groups: onPage.map(group => {
        const commits = commitsOn(group, query.topic)
        const unknown = commits.filter(({ lag }) => lag === null).length
        return {
          group_id: group.id,
          total_lag: int64OrNullJson(totalLag(commits)),
          partitions: commits.length - unknown,
          partitions_unknown: unknown,
        }
      }),
      total,
      ...(more && last &&
        {
          next_cursor: writeCursor('consumer_lag', query, [String(last.lag), last.group, last.topic, last.partition]),
        }),
    }
  },
})

function commitsOn (group: GroupView, topic: string | undefined): readonly Commit[] {
  return topic === undefined ? group.commits : group.commits.filter(({ partition }) => partition.topic.name === topic)
}

/** The first `limit` rows after a position. Does not sort all rows, because there can be tens of thousands. */
function worst (
  groups: readonly GroupView[],
  topic: string | undefined,
  minLag: Int64 | undefined,
  after: Row | undefined,
  limit: number
) {
  const rows: CommitRow[] = []
  let total = 0
  let remaining = 0
  for (const group of groups) {
    for (const commit of commitsOn(group, topic)) {
      const { lag, partition } = commit
      if (lag === null || (minLag !== undefined && lag < minLag)) continue
      total++
      const row = { lag, group: group.id, topic: partition.topic.name, partition: partition.number, of: group, commit }
      if (after && order(row, after) <= 0) continue
      remaining++
      const last = rows[limit - 1]
      if (last && order(row, last) > 0) continue
      rows.splice(firstAfter(rows, other => order(other, row)), 0, row)
      if (rows.length > limit) rows.pop()
    }
  }
  return { rows, total, more: remaining > rows.length }
}

function order (a: Row, b: Row): number {
  if (a.lag !== b.lag) return a.lag > b.lag ? -1 : 1
  return compare(a.group, b.group) || compare(a.topic, b.topic) || a.partition - b.partition
}

/** @throws {InvalidCursor} */
function rowAt ([lag, group, topic, partition]: RowPosition): Row {
  if (
    typeof lag !== 'string' || !/^-?[0-9]{1,20}$/.test(lag) || typeof group !== 'string' || typeof topic !== 'string' ||
    typeof partition !== 'number'
  ) {
    throw new InvalidCursor()
  }
  return { lag: exact(BigInt(lag)), group, topic, partition }
}

/** Finds the member that a partition is assigned to. During a rebalance there can be two; the first by id counts. */
function memberOf (mirror: MirrorView, { metadata }: GroupView): (commit: Commit) => string | undefined {
  const assigned = new Map<unknown, string>()
  for (const [memberId, { assignments }] of [...metadata?.members ?? []].sort(([a], [b]) => compare(b, a))) {
    for (const [topic, partitions] of assignments) {
      for (const number of partitions) assigned.set(mirror.topic(topic)?.partitions.get(number), memberId)
    }
  }
  return ({ partition }) => assigned.get(partition)
}
