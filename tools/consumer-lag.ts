import { Type } from '@sinclair/typebox'
import { InvalidArgument, InvalidCursor } from '../errors.ts'
import { type Int64, int64 as exact, parseInt64, subtract, toJson } from '../kafscale/int64.ts'
import { commitsOn, consumes, groupLag, type Lag } from '../kafscale/lag.ts'
import { type Commit, compare, type GroupView, type MirrorView } from '../kafscale/mirror.ts'
import { groupOf } from './describe-group.ts'
import { ignored, ignoredJson } from './shared/ignored.ts'
import { lagTotals, lagTotalsJson } from './shared/lag.ts'
import { ageMs } from './shared/members.ts'
import { exists, inSnapshot, observedAt } from './shared/observed.ts'
import { DEFAULT_LIMIT, firstAfter, readCursor, type RowPosition, writeCursor } from './shared/paging.ts'
import {
  input, inSnapshotFlag, int64, integer, integerOrNull, list, means, nameOf, object, observed, page, paged, text,
  textOrNull, time
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

const MIN_LAG = 'Only partitions with at least this lag, in records'

/**
 * A committed offset with a known lag. Rows are ordered by their distance from the log end offset, largest first, then
 * those past the end, then by name. So a consumer that is far past the end, where it gets no records, is not last.
 */
interface Row { lag: Int64, group: string, topic: string, partition: number }
type CommitRow = Row & { of: GroupView, commit: Commit }
/** Where a page starts: after a row, or after a group without rows. These groups follow the rows, sorted by id. */
type Start = { row: Row } | { group: string } | undefined

export default defineTool({
  name: 'consumer_lag',
  title: 'Consumer lag, worst first',
  description:
    'Where consumers are behind: lag (records) by group, topic and partition across the cluster, largest first, ' +
    'including groups without members. Filter by group_id, topic or min_lag. groups: totals of the groups on the ' +
    'page, and of those whose lag is unknown. Negative lag: past the end.',
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
  crowdedOut: ['limit'],
  output: object({
    ...observed,
    lag: list(object({
      group_id: text,
      topic: text,
      partition: integer,
      committed_offset: means(int64, 'Offset of the next record that the group will consume'),
      log_end_offset: means(int64, 'Offset of the next record, as of the last flush'),
      lag: means(
        int64,
        'Log end offset minus committed offset, in records. Negative if the committed offset is past the end: then ' +
          'sorting and `min_lag` use the distance'
      ),
      committed_at: textOrNull,
      commit_age_ms: integerOrNull,
      member_id: means(textOrNull, 'The member that the partition is assigned to; `null` if there is none'),
      in_snapshot: inSnapshotFlag,
    })),
    groups: means(list(object({
      group_id: text,
      ...lagTotals,
      partitions: means(integer, 'Partitions with a known lag'),
    })), 'Totals over the given topic, whatever `min_lag` is: of each group with rows on this page and, after the ' +
      'last row, of each group without rows that is past the end or whose lag is not known'),
    unknown_topics: means(list(text), 'The given topic if it does not exist and no group here consumes it'),
    total: means(integer, 'Partitions with a known lag that match the filters, on all pages'),
    ...ignored,
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
    const start = startOf(readCursor('consumer_lag', query))
    const limit = query.limit ?? DEFAULT_LIMIT

    const { rows, total, more: moreRows, silent } = worst(groups, query.topic, minLag, start, limit)
    const unclear = moreRows
      ? []
      : silent.map(group => ({ group, lag: groupLag(mirror, group, query.topic) })).filter(({ group, lag }) =>
        query.group_id !== undefined || isUnclear(group, lag, query.topic))
    const further = unclear.slice(0, limit - rows.length)
    const more = moreRows || further.length < unclear.length
    const totals = [
      ...[...new Set(rows.map(({ of }) => of))].map(group => ({ group, lag: groupLag(mirror, group, query.topic) })),
      ...further,
    ].sort((a, b) => compare(a.group.id, b.group.id))
    const members = new Map(rows.map(({ of }) => [of, memberOf(mirror, of)]))
    const last = endOf(rows.at(-1), further.at(-1)?.group)
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
        ...inSnapshot(mirror, commit.partition),
      })),
      groups: totals.map(({ group, lag }) => ({
        group_id: group.id,
        ...lagTotalsJson(lag),
        partitions: lag.partitions,
      })),
      unknown_topics: unknownTopics(mirror, groups, query.topic),
      total,
      ...ignoredJson(mirror, { group: query.group_id, topic: query.topic }),
      ...(more && last && { next_cursor: writeCursor('consumer_lag', query, last) }),
    }
  },
})

function unknownTopics (mirror: MirrorView, groups: readonly GroupView[], topic: string | undefined): string[] {
  // If the snapshot can't be decoded, nobody knows which topics exist.
  if (topic === undefined || !mirror.snapshot || exists(mirror.topic(topic))) return []
  return groups.some(group => consumes(group, topic)) ? [] : [topic]
}

/** Whether a group without rows is not simply below `min_lag`: its absence would say that it keeps up. */
function isUnclear (
  { metadata }: GroupView,
  { partitions, unknown, pastEnd }: Lag,
  topic: string | undefined
): boolean {
  if (unknown !== 0 || pastEnd > 0) return true
  const subscribes = () =>
    topic === undefined || [...metadata?.members.values() ?? []].some(member => member.subscriptions.includes(topic))
  return partitions === 0 && subscribes()
}

/**
 * The first `limit` rows from a start on, and the groups without any row that follow. Does not sort all rows, because
 * there can be tens of thousands.
 */
function worst (
  groups: readonly GroupView[],
  topic: string | undefined,
  minLag: Int64 | undefined,
  start: Start,
  limit: number
) {
  const rows: CommitRow[] = []
  const silent: GroupView[] = []
  let total = 0
  let remaining = 0
  for (const group of groups) {
    const totalBefore = total
    for (const commit of commitsOn(group, topic)) {
      const { lag, partition } = commit
      if (lag === null || (minLag !== undefined && distance(lag) < minLag)) continue
      total++
      const row = { lag, group: group.id, topic: partition.topic.name, partition: partition.number, of: group, commit }
      if (start && ('group' in start || order(row, start.row) <= 0)) continue
      remaining++
      const last = rows[limit - 1]
      if (last && order(row, last) > 0) continue
      rows.splice(firstAfter(rows, other => order(other, row)), 0, row)
      if (rows.length > limit) rows.pop()
    }
    const before = start && 'group' in start && compare(group.id, start.group) <= 0
    if (total === totalBefore && !before) silent.push(group)
  }
  return { rows, total, more: remaining > rows.length, silent }
}

function distance (lag: Int64): Int64 {
  return lag < 0 ? subtract(0, lag) : lag
}

function order (a: Row, b: Row): number {
  const left = distance(a.lag)
  const right = distance(b.lag)
  if (left !== right) return left > right ? -1 : 1
  if (a.lag !== b.lag) return a.lag < 0 ? -1 : 1
  return compare(a.group, b.group) || compare(a.topic, b.topic) || a.partition - b.partition
}

/** The position of the last item on a page: of a group without rows if there is one, otherwise of a row. */
function endOf (row: Row | undefined, group: GroupView | undefined): RowPosition | undefined {
  if (group) return [group.id]
  return row && [String(row.lag), row.group, row.topic, row.partition]
}

/** @throws {InvalidCursor} */
function startOf (position: RowPosition | undefined): Start {
  if (!position) return undefined
  if (position.length === 1 && typeof position[0] === 'string') return { group: position[0] }
  const [lag, group, topic, partition] = position
  if (
    typeof lag !== 'string' || !/^-?[0-9]{1,20}$/.test(lag) || typeof group !== 'string' || typeof topic !== 'string' ||
    typeof partition !== 'number'
  ) {
    throw new InvalidCursor()
  }
  return { row: { lag: exact(BigInt(lag)), group, topic, partition } }
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
