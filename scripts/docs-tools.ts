/** Writes `docs/tools.md`, the contract of the tools, from their definitions: `npm run docs:tools`. */
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ErrorCode, ERRORS } from '../errors.ts'
import { MEANING } from '../tools/shared/schema.ts'
import { COMMON_ERRORS, type Tool } from '../tools/tool.ts'

const ROOT = join(import.meta.dirname, '..')
const PAGE = join(ROOT, 'docs/tools.md')
const EXAMPLES = join(ROOT, 'docs/tool-examples.json')

/** What the tables show of a JSON Schema. */
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

/** Every tool, by name. A tool's plugin does nothing but declare it. */
export async function allTools (): Promise<Tool[]> {
  const tools: Tool[] = []
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

What each tool takes and returns: the contract with agents. Every tool only reads.

- **Answers** are \`structuredContent\`, and the same value as compact JSON text.
- **Age**: \`observed_at\` is the time at which the answer was last known to be current, and \`revision\` the etcd revision
  of everything in it. While etcd does not answer, both stay where they are.
- **Unknown is \`null\`**, never zero. Integers beyond ±(2^53−1) are decimal strings. Times are RFC 3339 in UTC.
- **Pages**: \`limit\` is 1 to 1000, 100 by default. \`next_cursor\` is passed as \`cursor\`, with the same arguments. A cursor
  stays valid when its row is gone, and on every replica.
- **Filtering**: what a caller may not see is missing from every list, count and sum, as if it did not exist.
- A property that is \`null\` in the input counts as absent.`,
    ['## Errors', `A call that fails returns \`isError\` with the text \`CODE: what happened. What to do next.\` and, for programs,
\`_meta["kafscale-mcp/error"]\` with \`code\`, \`retryable\` and, where known, \`retry_after_ms\`. Every tool can fail with
${COMMON_ERRORS.map(code => `\`${code}\``).join(', ')}. Others are listed with the tool.
[Troubleshooting](troubleshooting.md) has the cause and the remedy of each.`, errorTable(tools)].join('\n\n'),
    ...tools.map(tool => section(tool, examples[tool.name])),
  ].join('\n\n') + '\n'
}

function errorTable (tools: readonly Tool[]): string {
  const codes: ErrorCode[] = [...COMMON_ERRORS, ...new Set(tools.flatMap(({ errors = [] }) => errors))]
  return table(['code', 'retryable', 'message'], codes.sort().map(code => {
    const { retryable, message, ...rest } = ERRORS[code]
    const when = 'retryAfterMs' in rest ? `after ${rest.retryAfterMs / 1_000} s` : 'at once'
    return [`\`${code}\``, retryable ? when : 'no', message.replaceAll('%s', '…')]
  }))
}

function section ({ name, title, description, input, output, errors = [] }: Tool, example: unknown): string {
  const inputs = rowsOf(input as Schema)
  return [
    `## \`${name}\``,
    `**${title}.** ${description}`,
    inputs.length === 0 ? 'No input.' : table(['input', 'type', 'meaning'], inputs),
    table(['output', 'type', 'meaning'], rowsOf(output as Schema)),
    errors.length === 0 ? '' : `Errors besides the common ones: ${errors.map(code => `\`${code}\``).join(', ')}.`,
    `An example, shortened:\n\n\`\`\`json\n${JSON.stringify(example)}\n\`\`\``,
  ].filter(Boolean).join('\n\n')
}

/** A row for each field, with those of objects and lists under it: `topics[].name`. */
function rowsOf ({ properties = {}, required = [] }: Schema, above = ''): string[][] {
  return Object.entries(properties).flatMap(([name, schema]) => {
    const path = above + name
    const rows = [[`\`${path}\`${required.includes(name) ? '' : ', optional'}`, typeOf(schema), meaningOf(schema)]]
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
