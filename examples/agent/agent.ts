/**
 * A small agent: it asks which consumer groups are behind, looks into each, and prints an answer.
 *
 *   node examples/agent/agent.ts [URL]
 *
 * KAFSCALE_TOKEN is sent as the bearer token if it is set. The questions are fixed here. To let a model choose them,
 * offer it the tools that `client.listTools()` returns, and run its tool calls with `ask`.
 */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'

interface Totals {
  group_id: string
  /** `null` if no lag is known. */
  total_lag: number | string | null
  partitions: number
  /** Partitions that the total leaves out. */
  partitions_unknown: number | null
  /** Partitions whose committed offset is past the end, so that the group gets no records from them. */
  partitions_past_end: number
}
interface Group { state: string | null, members: { stale: boolean }[] }

const url = new URL(process.argv[2] ?? 'http://127.0.0.1:8090/mcp')
const { KAFSCALE_TOKEN: token } = process.env
const requestInit = token ? { headers: { authorization: `Bearer ${token}` } } : {}
const client = new Client({ name: 'lag-agent', version: '1.0.0' }, { versionNegotiation: { mode: 'auto' } })
await client.connect(new StreamableHTTPClientTransport(url, { requestInit }))

const { groups } = await ask<{ groups: Totals[] }>('consumer_lag', { min_lag: 1, limit: 1_000 })
if (groups.length === 0) console.log('No consumer group is behind.')
for (const { group_id: group, total_lag: lag, partitions, ...left } of groups) {
  const { state, members } = await ask<Group>('describe_group', { group_id: group })
  const stale = members.filter(member => member.stale).length
  const behind = lag === null ? 'lag unknown' : `${lag} records behind on ${partitions} partitions`
  const unknown = left.partitions_unknown === 0 ? '' : `, unknown on ${left.partitions_unknown ?? 'some'} more`
  const past = left.partitions_past_end === 0 ? '' : `, past the end on ${left.partitions_past_end}`
  console.log(`${group} (${state}): ${behind}${unknown}${past}, ${stale} stale members`)
}
await client.close()

/** Calls a tool. The text of a failure says what happened and what to do next: a model can act on it. */
async function ask<Answer> (name: string, input: Record<string, unknown>): Promise<Answer> {
  const { isError, content, structuredContent } = await client.callTool({ name, arguments: input })
  if (isError) throw new Error(content.map(part => part.type === 'text' ? part.text : part.type).join('\n'))
  return structuredContent as Answer
}
