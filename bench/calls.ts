import {
  GROUP,
  GROUP_TOPICS,
  GROUPS_WITH_MEMBERS,
  MEMBERS,
  PARTITIONS,
  TOPIC_WITHOUT_CONFIG,
  TOPICS,
  WIDE_GROUP,
} from './keyspace.ts'
import { call, type McpServer } from './mcp-client.ts'

/** Calls per second, and latencies. */
export interface Figures { perSecond: number, p50Ms: number, p99Ms?: number }

/** A call to measure. */
export interface Call {
  label: string
  tool: string
  input: Record<string, unknown>
  connections: number
  /** Whether one call means fetching all pages, one after the other. */
  allPages?: true
  rows: (answer: Answer) => unknown[]
  /** Absent for a cluster that isn't ours: at least one row is expected. */
  expectedRows?: number
  /** The figures of KafScale's Go service for the same answer over this keyspace, on two cores shared with the load. */
  go?: Figures
}

type Answer = Record<string, unknown[] | undefined>

/** The rate of a bare Fastify route on the machine of the Go figures. */
export const GO_MACHINE_BARE_PER_SECOND = 17_400
export const CONNECTIONS = 16

/** The names that the calls ask for. */
interface Names { topics: string[], topic: string, group: string, wideGroup: string }

/** The calls for the benchmark's own keyspace. */
export function ownCalls (): Call[] {
  return calls({ topics: GROUP_TOPICS, topic: TOPIC_WITHOUT_CONFIG, group: GROUP, wideGroup: WIDE_GROUP })
}

/**
 * The calls for any cluster, with names that the server lists.
 * @throws when the cluster has no topics or no groups
 */
export async function callsOf (server: McpServer): Promise<Call[]> {
  const listed = async (tool: string, list: string, name: string) => {
    const { content } = await call(server.request(tool, { limit: 2 }))
    const names = (content[list] as Record<string, string>[]).map(row => row[name] as string)
    if (names.length === 0) throw new Error(`${server.url} has no ${list} to ask for`)
    return names as [string, ...string[]]
  }
  const topics = await listed('list_topics', 'topics', 'name')
  const [group] = await listed('list_groups', 'groups', 'group_id')
  return calls({ topics, topic: topics[0], group, wideGroup: group }).map(({ expectedRows: _, go: __, ...call }) =>
    call
  )
}

function calls ({ topics, topic, group, wideGroup }: Names): Call[] {
  const of = (list: string) => (answer: Answer) => answer[list] ?? []
  const calls: (Omit<Call, 'connections'> & { connections?: number })[] = [
    {
      label: '`list_topics`, limit 500',
      tool: 'list_topics',
      input: { limit: 500 },
      rows: of('topics'),
      expectedRows: TOPICS,
      go: { perSecond: 232, p50Ms: 64, p99Ms: 170 },
    },
    {
      label: '`cluster_status`, limit 500',
      tool: 'cluster_status',
      input: { limit: 500 },
      rows: of('topics'),
      expectedRows: TOPICS,
      go: { perSecond: 214, p50Ms: 71, p99Ms: 172 },
    },
    {
      label: '`cluster_metrics`',
      tool: 'cluster_metrics',
      input: {},
      rows: answer => answer.brokers ?? [answer.s3_state], // the Go service returns the figures of one broker
      expectedRows: 1,
      go: { perSecond: 1_751, p50Ms: 8.6, p99Ms: 22 },
    },
    {
      label: '`describe_topics`, 2 topics',
      tool: 'describe_topics',
      input: { names: topics },
      rows: answer => (answer.topics as { partitions: unknown[] }[]).flatMap(({ partitions }) => partitions),
      expectedRows: 2 * PARTITIONS,
      go: { perSecond: 456, p50Ms: 33, p99Ms: 86 },
    },
    {
      label: '`list_groups` with members, limit 1,000',
      tool: 'list_groups',
      input: { state: 'stable', limit: 1_000 },
      rows: of('groups'),
      expectedRows: GROUPS_WITH_MEMBERS,
      go: { perSecond: 19, p50Ms: 778, p99Ms: 1_824 },
    },
    {
      label: '`describe_group`',
      tool: 'describe_group',
      input: { group_id: group },
      rows: of('members'),
      expectedRows: MEMBERS,
      go: { perSecond: 1_289, p50Ms: 12, p99Ms: 31 },
    },
    {
      label: '`fetch_offsets`, 2 topics',
      tool: 'fetch_offsets',
      input: { group_id: group, topics },
      rows: of('offsets'),
      expectedRows: 2 * PARTITIONS,
      go: { perSecond: 90, p50Ms: 180, p99Ms: 214 },
    },
    {
      label: '`fetch_offsets`, every topic: all pages of 1,000, one caller',
      tool: 'fetch_offsets',
      input: { group_id: wideGroup, limit: 1_000 },
      connections: 1,
      allPages: true,
      rows: of('offsets'),
      expectedRows: TOPICS * PARTITIONS,
      go: { perSecond: 0.2, p50Ms: 5_674 },
    },
    {
      label: '`describe_configs`, 1 topic',
      tool: 'describe_configs',
      input: { topics: [topic] },
      rows: of('configs'),
      expectedRows: 1,
      go: { perSecond: 543, p50Ms: 28, p99Ms: 68 },
    },
    {
      label: '`consumer_lag`, limit 100',
      tool: 'consumer_lag',
      input: { limit: 100 },
      rows: of('lag'),
      expectedRows: 100,
    },
  ]
  return calls.map(call => ({ connections: CONNECTIONS, ...call }))
}
