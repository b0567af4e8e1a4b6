import { Type } from '@sinclair/typebox'
import { type Commit, compare, type GroupView, type MirrorView, type Partition } from '../kafscale/mirror.ts'
import { groupOf } from './describe-group.ts'
import { ignored, ignoredJson } from './shared/ignored.ts'
import { exists, inSnapshot, observedAt, partitionsOf } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import {
  cut, groupId, input, inSnapshotFlag, int64OrNull, int64OrNullJson, integer, list, means, names, object, observed,
  page, paged, text, textOrNull, time
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

/** A partition in the answer. `known` is absent if nothing but a member's assignment mentions the partition. */
interface Row { topic: string, partition: number, commit: Commit | undefined, known: Partition | undefined }

export default defineTool({
  name: 'fetch_offsets',
  title: 'Fetch committed offsets',
  description:
    'Committed offset, log end offset and lag (records) of a group by partition: for the given topics, or for all ' +
    'partitions that it has committed or is assigned. offset null without error: nothing committed. lag null: unknown.',
  operation: 'observe',
  input: input({ group_id: groupId, topics: names, ...page }),
  listed: { limit: null },
  output: object({
    ...observed,
    group_id: text,
    offsets: list(object({
      topic: text,
      partition: integer,
      offset: means(
        int64OrNull,
        'Committed offset, of the next record to consume; `null` if nothing is committed or it cannot be decoded'
      ),
      metadata: means(textOrNull, 'Text that the consumer stored with the offset; `null` whenever `offset` is'),
      committed_at: textOrNull,
      log_end_offset: means(int64OrNull, 'Offset of the next record, as of the last flush; `null` if unknown'),
      lag: means(
        int64OrNull,
        'Log end offset minus committed offset, in records; negative past the end, `null` if either is unknown'
      ),
      error: means(
        Type.Optional(text),
        'Present if a commit is stored but cannot be decoded: then `offset` is unknown'
      ),
      in_snapshot: inSnapshotFlag,
    })),
    unknown_topics: means(list(text), 'Given topics that do not exist and have no rows here'),
    ...ignored,
    ...paged,
  }),
  rows: { list: 'offsets' },
  errors: ['METADATA_UNAVAILABLE', 'GROUP_NOT_FOUND', 'INVALID_CURSOR'],
  answer (host, query, context) {
    const mirror = context.mirror()
    const group = groupOf(mirror, query.group_id)
    const asked = query.topics?.length ? [...new Set(query.topics)].sort() : undefined
    const all = rowsOf(mirror, group, asked)
    const { rows, ...rest } = paginate('fetch_offsets', query, all, row => [row.topic, row.partition])
    const offsets = rows.map(({ topic, partition, commit, known }) => ({
      topic,
      partition,
      offset: int64OrNullJson(commit?.offset ?? null),
      metadata: commit === undefined || commit.metadata === null ? null : cut(commit.metadata),
      committed_at: time(commit?.committedAtMs ?? null),
      log_end_offset: int64OrNullJson(known?.logEndOffset ?? null),
      lag: int64OrNullJson(commit?.lag ?? null),
      ...(commit?.offset === null && { error: 'the stored commit cannot be decoded' }),
      ...inSnapshot(mirror, known),
    }))
    const seen = new Set(all.map(row => row.topic))
    // If the snapshot can't be decoded, nobody knows which topics exist.
    const unknown = (mirror.snapshot ? asked ?? [] : [])
      .filter(topic => !seen.has(topic) && !exists(mirror.topic(topic)))
    return {
      ...observedAt(host, mirror),
      group_id: group.id,
      offsets,
      unknown_topics: unknown,
      ...ignoredJson(mirror, { group: group.id }),
      ...rest,
    }
  },
})

function rowsOf (mirror: MirrorView, group: GroupView, asked: string[] | undefined): Row[] {
  const numbers = new Map<string, Set<number>>(
    asked?.map(topic => [topic, new Set(partitionsOf(mirror.topic(topic)))])
  )
  const involve = (topic: string, partition: number) => {
    if (!asked && !numbers.has(topic)) numbers.set(topic, new Set())
    numbers.get(topic)?.add(partition)
  }
  for (const { partition } of group.commits) involve(partition.topic.name, partition.number)
  for (const { assignments } of group.metadata?.members.values() ?? []) {
    for (const [topic, partitions] of assignments) for (const partition of partitions) involve(topic, partition)
  }
  return [...numbers].sort(([a], [b]) => compare(a, b)).flatMap(([topic, partitions]) => {
    const known = mirror.topic(topic)?.partitions
    return [...partitions].sort((a, b) => a - b).map(partition => {
      const found = known?.get(partition)
      return { topic, partition, commit: group.commitOn(found), known: found }
    })
  })
}
