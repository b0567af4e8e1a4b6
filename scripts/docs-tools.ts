/** Generates `docs/tools.md` from the definitions of the tools: `npm run docs:tools`. */
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ErrorCode, ERRORS } from '../errors.ts'
import { TOOLS_OF_CHANGES } from '../plugins/changes/change.ts'
import { MEANING } from '../tools/shared/schema.ts'
import { COMMON_ERRORS, type Tool } from '../tools/tool.ts'

const ROOT = join(import.meta.dirname, '..')
const PAGE = join(ROOT, 'docs/tools.md')
const EXAMPLES = join(ROOT, 'docs/tool-examples.json')

/** The parts of a JSON Schema that the tables show. */
interface Schema {
  type?: string | string[]
  enum?: (string | null)[]
  items?: Schema
  properties?: Record<string, Schema>
  required?: string[]
  description?: string
  minimum?: number
  maximum?: number
  maxItems?: number
  maxLength?: number
  [MEANING]?: string
}

/** Every tool, sorted by name. */
export async function allTools (): Promise<Tool[]> {
  const tools: Tool[] = []
  // All that a tool's plugin needs, because it only declares the tool.
  const app = { tools: { declare: (tool: Tool) => { tools.push(tool) } } }
  for (const path of globSync('tools/*.ts', { cwd: ROOT }).filter(path => path !== join('tools', 'tool.ts'))) {
    const { default: plugin } = await import(join(ROOT, path)) as { default: (app: unknown) => Promise<void> }
    await plugin(app)
  }
  return tools.sort((a, b) => a.name < b.name ? -1 : 1)
}

/** @param examples an answer of each tool, by name */
export function toolsPage (tools: readonly Tool[], examples: Readonly<Record<string, unknown>>): string {
  return [
    `<!-- Generated from the definitions in tools/ by npm run docs:tools. Do not edit. -->
# Tools

What each tool takes and returns, as a contract with agents. A tool that is not among those of
[changes](changes.md) only reads. Those exist only with \`KAFSCALE_MCP_CHANGES=enabled\`, and of them, only
\`apply_change\` changes the cluster.

- **Answers** are returned twice: as \`structuredContent\`, and as compact JSON text.
- **Age**: \`observed_at\` is when the answer was last known to be current, and \`revision\` is the etcd revision
  of everything in it. While etcd does not answer, neither changes.
- **Outages of etcd**: while etcd is away, brokers can't store heartbeats. Afterwards, a member is not \`stale\` until
  its session timeout has passed without the outage, and without up to two minutes for the brokers to reconnect.
- **Values**: unknown is \`null\`, never zero. Integers beyond ±(2^53−1) are decimal strings.
- **Times** are RFC 3339 in UTC. One before 1971 or after 2099, such as Go's zero time, stands for an unknown time and
  is \`null\`. One that is more than a day ahead has no age, and such a heartbeat counts as missing.
- **Pages**: \`limit\` is 1 to 1000, 100 by default. For the next page, pass \`next_cursor\` as \`cursor\`, with
  the same arguments. A cursor stays valid when rows are deleted, and works on every replica.
- **Schemas** of inputs in \`tools/list\` are the part of JSON Schema that every client can convert: one type for each
  property, at most 24 optional properties in all tools together, and no \`additionalProperties\`. Integers there accept
  decimal text, too.
- **Filtering**: what a caller may not see is missing from every list, count and sum, as if it did not exist.
- **Input**: an optional property that is \`null\`, an empty text, an empty list or an object of these counts as
  absent. A required one that is empty is \`INVALID_ARGUMENT\`. JSON text is accepted where a list, an object or a
  number belongs.
- **Progress**: \`apply_change\` reports each of its steps to a client that sends a \`progressToken\`. Other tools have
  no steps.
- **Other properties** are \`INVALID_ARGUMENT\`, because a misspelled filter would otherwise return everything. Only
  those that clients add to the input of any tool are ignored: \`toolCallId\`, \`sessionId\`, \`action\` and
  \`chatInput\` (n8n), \`random_string\` (Cursor), \`_placeholder\` (OpenCode), \`task_progress\` (Cline) and
  \`wait_for_previous\` (Gemini CLI).`,
    `## Errors

A failed call returns \`isError\` with the text \`CODE: what happened. What to do next.\` For programs,
\`_meta["kafscale-mcp/error"]\` has \`code\`, \`retryable\` and, if known, \`retry_after_ms\`. Every tool can fail with
${codes(COMMON_ERRORS)}.
Other errors are listed with the tool. [Troubleshooting](troubleshooting.md) explains the cause and remedy of each.`,
    errorTable(tools),
    ...tools.map(tool => section(tool, examples[tool.name])),
  ].join('\n\n') + '\n'
}

function codes (all: readonly ErrorCode[]): string {
  return all.map(code => `\`${code}\``).join(', ')
}

function errorTable (tools: readonly Tool[]): string {
  const all: ErrorCode[] = [...COMMON_ERRORS, ...new Set(tools.flatMap(({ errors = [] }) => errors))]
  return table(['code', 'retryable', 'message'], all.sort().map(code => {
    const { retryable, message, ...rest } = ERRORS[code]
    const when = 'retryAfterMs' in rest ? `after ${rest.retryAfterMs / 1_000} s` : 'at once'
    return [codes([code]), retryable ? when : 'no', message.replaceAll('%s', '…')]
  }))
}

const ONLY_WITH_CHANGES = 'Exists only with `KAFSCALE_MCP_CHANGES=enabled`: see [Changes](changes.md).'

function section (tool: Tool, example: unknown): string {
  const { name, title, description, input, listed = {}, crowdedOut = [], output, errors = [] } = tool
  const inputs = rowsOf(input as Schema, '', name => {
    if (listed[name] === null) return '; not in `tools/list`'
    return crowdedOut.includes(name) ? '; not in `tools/list` where changes are enabled' : ''
  })
  return [
    `## \`${name}\``,
    `**${title}.** ${description}`,
    TOOLS_OF_CHANGES.includes(name) ? ONLY_WITH_CHANGES : '',
    inputs.length === 0 ? 'No input.' : table(['input', 'type', 'meaning'], inputs),
    table(['output', 'type', 'meaning'], rowsOf(output as Schema)),
    errors.length === 0 ? '' : `Errors besides the common ones: ${codes(errors)}.`,
    `An example, shortened:\n\n\`\`\`json\n${JSON.stringify(example)}\n\`\`\``,
  ].filter(Boolean).join('\n\n')
}

/** A row for each field, followed by the fields in it, such as `topics[].name`. */
function rowsOf ({ properties = {}, required = [] }: Schema, above = '', note = (_: string) => ''): string[][] {
  return Object.entries(properties).flatMap(([name, schema]) => {
    const path = above + name
    const meaning = `${meaningOf(schema)}${note(name)}`
    const rows = [[`\`${path}\`${required.includes(name) ? '' : ', optional'}`, typeOf(schema), meaning]]
    if (schema.items?.properties) return [...rows, ...rowsOf(schema.items, `${path}[].`)]
    return schema.properties ? [...rows, ...rowsOf(schema, `${path}.`)] : rows
  })
}

function typeOf ({ type, enum: values, items }: Schema): string {
  if (values) return values.map(value => `\`${value}\``).join(', ')
  if (items) return items.properties ? 'list' : `list of ${typeOf(items)}`
  return [type].flat().join(' or ')
}

function meaningOf (schema: Schema): string {
  const { minimum, maximum, maxItems, maxLength, type } = schema
  const bounds = [
    minimum !== undefined && maximum !== undefined && type === 'integer' ? `${minimum} to ${maximum}` : '',
    maxItems === undefined ? '' : `at most ${maxItems}`,
    maxLength === undefined ? '' : `at most ${maxLength} characters`,
  ].filter(Boolean).join(', ')
  return [schema[MEANING] ?? schema.description ?? '', bounds].filter(Boolean).join('; ')
}

function table (titles: string[], rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(titles), line(titles.map(() => '---')), ...rows.map(line)].join('\n')
}

if (import.meta.main) {
  const examples = JSON.parse(readFileSync(EXAMPLES, 'utf8')) as Record<string, unknown>
  writeFileSync(PAGE, toolsPage(await allTools(), examples))
}
