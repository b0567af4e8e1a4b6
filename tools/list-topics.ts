import { matcher } from '../kafscale/glob.ts'
import type { Topic } from '../kafscale/mirror.ts'
import { observedAt, topicsOf } from './shared/observed.ts'
import { paginate } from './shared/paging.ts'
import { input, integer, list, means, object, observed, page, paged, pattern, text } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export const topicSummary = object({
  name: text,
  partition_count: integer,
  error_code: means(integer, 'Kafka error code of the topic in the snapshot; 0 if there is none'),
})

export function summarize ({ name, info }: Topic): { name: string, partition_count: number, error_code: number } {
  return { name, partition_count: info?.partitions.length ?? 0, error_code: info?.errorCode ?? 0 }
}

export default defineTool({
  name: 'list_topics',
  title: 'List topics',
  description: 'Names of topics and how many partitions each has. ' +
    'For partitions, leaders and offsets, use describe_topics; for settings, use describe_configs.',
  operation: 'observe',
  input: input({ pattern, ...page }),
  crowdedOut: ['limit'],
  output: object({ ...observed, topics: list(topicSummary), ...paged }),
  rows: { list: 'topics' },
  errors: ['METADATA_UNAVAILABLE', 'INVALID_CURSOR'],
  answer (host, query, context) {
    const mirror = context.mirror()
    const matching = matcher(query.pattern)
    const found = topicsOf(mirror).filter(topic => matching(topic.name))
    const { rows, ...rest } = paginate('list_topics', query, found, topic => [topic.name])
    return { ...observedAt(host, mirror), topics: rows.map(summarize), ...rest }
  },
})
