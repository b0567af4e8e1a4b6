/** Requests that try to occupy the service, as recipes that a search can vary, and a cluster that helps them. */
import { encodeCommittedOffset, encodeConsumerGroup, encodeSnapshot, formatKey } from '../demo/encode.ts'
import type { Random } from '../tests/support/generate.ts'
import type { Entry } from './keyspace.ts'
import { type HttpRequest, legacyRequest, modernRequest } from './mcp-client.ts'

/** What names and arguments consist of: what is escaped, matched, or parsed with the most work. */
const UNITS = [
  'a', '*a', 'a?', '*?', '\u200b', '\ufe0f', '\u{e0061}', '\ud83d\ude00', '\ud800', '\u0000', '\n', '"', '\\', '/',
  '__proto__', '1', '-', '.', '\u00e9', '\u2028', ' ', '[', '{"a":',
]
const FORMS = ['arguments', 'unknown', 'batch', 'nested', 'name', 'id', 'method', 'meta', 'raw', 'header'] as const
const METHODS = [
  'tools/call', 'tools/list', 'initialize', 'ping', 'resources/list', 'prompts/get', 'logging/setLevel',
  'completion/complete', 'subscriptions/listen', 'server/discover', 'notifications/cancelled', 'notifications/progress',
]
const MAX_BODY_BYTES = 256 * 1024
const LENGTHS = [1, 16, 256, 1_024, 4_096, 65_536, 262_144, 1_048_576]
const COUNTS = [1, 4, 32, 100, 1_000, 10_000, 100_000]
const DEPTHS = [1, 2, 3, 5, 30, 33, 1_000, 100_000]

/** A tool as far as the search knows it. */
export interface Tool { name: string, inputSchema: { properties?: Record<string, { type?: unknown }> } }

/** Everything that makes a request; numbers are indexes, so that any variation of a recipe is one. */
export interface Recipe {
  form: number
  modern: boolean
  tool: number
  method: number
  unit: number
  length: number
  count: number
  depth: number
  /** Which properties of the tool's input are given, as bits. */
  given: number
}

const SIZES: Record<Exclude<keyof Recipe, 'modern'>, number> = {
  form: FORMS.length,
  tool: 64,
  method: METHODS.length,
  unit: UNITS.length,
  length: LENGTHS.length,
  count: COUNTS.length,
  depth: DEPTHS.length,
  given: 256,
}
const GENES = Object.keys(SIZES) as (keyof typeof SIZES)[]

export function randomRecipe ({ int, chance }: Random): Recipe {
  return { ...Object.fromEntries(GENES.map(gene => [gene, int(SIZES[gene])])), modern: chance(0.5) } as Recipe
}

/** The recipe with one or two changes. */
export function vary (recipe: Recipe, { int, pick, some, chance }: Random): Recipe {
  const varied = { ...recipe, modern: chance(0.1) ? !recipe.modern : recipe.modern }
  for (const gene of some(GENES, pick([1, 1, 2]))) varied[gene] = int(SIZES[gene])
  return varied
}

export function describe (recipe: Recipe, tools: readonly Tool[]): string {
  const { form, unit, length, count, depth, modern } = recipe
  const tool = toolOf(recipe, tools)
  return `${FORMS[form]} (${modern ? 'modern' : 'legacy'}) ${tool.name} ${methodOf(recipe)} ` +
    `unit ${JSON.stringify(UNITS[unit])} length ${LENGTHS[length]} count ${COUNTS[count]} depth ${DEPTHS[depth]} ` +
    `given ${givenOf(recipe, tool).join('+')}`
}

/** The request of a recipe, with a body of at most 256 KB. */
export function requestOf (url: string, recipe: Recipe, tools: readonly Tool[]): HttpRequest {
  const request = recipe.modern ? modernRequest(url) : legacyRequest(url)
  const tool = toolOf(recipe, tools)
  const call = (input: object) => request('tools/call', { name: tool.name, arguments: input })
  const other = (params: Record<string, unknown>) => request(methodOf(recipe), params)
  const text = textOf(recipe)
  switch (FORMS[recipe.form]) {
    case 'arguments':
      return bounded(recipe, recipe => call(inputOf(recipe, tool)))
    case 'unknown':
      return bounded(recipe, recipe => call(Object.fromEntries(listOf(recipe).map((name, i) => [name + i, name]))))
    case 'batch':
      return bounded(recipe, recipe => {
        const single = call(inputOf(recipe, tool))
        return { ...single, body: `[${Array(Math.min(10, countOf(recipe))).fill(single.body).join(',')}]` }
      })
    case 'nested':
      return bounded(recipe, recipe => other({ name: tool.name, arguments: { topics: nested(recipe) } }))
    case 'name':
      return request('tools/call', { name: text, arguments: {} })
    case 'id':
      return withMember(other({ name: tool.name }), 'id', text)
    case 'method':
      return withMember(other({}), 'method', text)
    case 'meta':
      return bounded(recipe, recipe => {
        const request = other({ name: tool.name, clientInfo: { name: textOf(recipe), version: textOf(recipe) } })
        const { params: { _meta: meta, ...params } } = JSON.parse(request.body) as { params: { _meta?: object } }
        const more = Object.fromEntries(listOf(recipe).map((name, index) => [name + index, name]))
        return withMember(request, 'params', { ...params, _meta: { ...more, ...meta } })
      })
    case 'raw':
      return { ...other({}), body: rawOf(recipe) }
    default: {
      const { headers, ...rest } = call({})
      const value = text.replaceAll(/[^ -~]/g, 'x').trim().slice(0, 8_000)
      return { ...rest, headers: { ...headers, 'mcp-name': value, 'user-agent': value, 'mcp-session-id': value } }
    }
  }
}

function toolOf ({ tool }: Recipe, tools: readonly Tool[]): Tool {
  return tools[tool % tools.length] as Tool
}

function methodOf ({ method }: Recipe): string {
  return METHODS[method] as string
}

function countOf ({ count }: Recipe): number {
  return COUNTS[count] as number
}

function textOf ({ unit, length }: Recipe): string {
  const text = UNITS[unit] as string
  return text.repeat(Math.ceil((LENGTHS[length] as number) / text.length)).slice(0, LENGTHS[length])
}

function listOf (recipe: Recipe): string[] {
  const text = textOf(recipe)
  const fits = Math.ceil(MAX_BODY_BYTES / (text.length + 3))
  return Array.from({ length: Math.min(countOf(recipe), fits) }, () => text)
}

function givenOf ({ given }: Recipe, { inputSchema: { properties = {} } }: Tool): string[] {
  return Object.keys(properties).filter((_, index) => (given >> index & 1) === 1)
}

/** Values of the types that the tool's input has, and of others. */
function inputOf (recipe: Recipe, tool: Tool): Record<string, unknown> {
  const { properties = {} } = tool.inputSchema
  return Object.fromEntries(givenOf(recipe, tool).map(name => {
    const types = JSON.stringify(properties[name])
    if (types.includes('"array"')) return [name, listOf(recipe).map((text, index) => `${text}${index}`)]
    if (types.includes('"integer"')) return [name, countOf(recipe)]
    return [name, textOf(recipe)]
  }))
}

/** A tree of lists, as deep and as wide as the recipe says. */
function nested (recipe: Recipe): unknown {
  const depth = Math.min(DEPTHS[recipe.depth] as number, 1_000)
  const width = Math.min(countOf(recipe), MAX_BODY_BYTES / 16)
  const widths = [width, Math.min(width, Math.ceil(MAX_BODY_BYTES / 16 / width))]
  let value: unknown = ''
  for (let level = 0; level < depth; level++) value = Array(widths[level] ?? 1).fill(value)
  return value
}

function rawOf (recipe: Recipe): string {
  const text = textOf({ ...recipe, length: LENGTHS.length - 1 })
  const depth = DEPTHS[recipe.depth] as number
  switch (recipe.given % 5) {
    case 0:
      return text
    case 1:
      return '['.repeat(depth) + ']'.repeat(depth)
    case 2:
      return `[${Array(Math.min(countOf(recipe) * depth, 340_000)).fill('[]').join(',')}]`
    case 3:
      return `{${Array.from({ length: Math.min(countOf(recipe), 80_000) }, (_, index) => `"${index}":0`).join(',')}}`
    default:
      return `"${'\\u200b'.repeat(170_000)}"`
  }
}

function withMember ({ body, ...rest }: HttpRequest, name: string, value: unknown): HttpRequest {
  return { ...rest, body: JSON.stringify({ ...JSON.parse(body), [name]: value }) }
}

/** Makes the recipe smaller until its request fits. */
function bounded (recipe: Recipe, build: (recipe: Recipe) => HttpRequest): HttpRequest {
  for (let { length, count } = recipe; ;) {
    const estimate = (LENGTHS[length] as number) * (COUNTS[count] as number)
    if (estimate <= 4 * MAX_BODY_BYTES) {
      const request = build({ ...recipe, length, count })
      if (Buffer.byteLength(request.body) <= MAX_BODY_BYTES || (length === 0 && count === 0)) return request
    }
    if (count > 0) count--
    else length--
  }
}

const TOPICS = 60
const GROUPS = 60
const MEMBERS = 10
const NAME_LENGTH = 4_000

/** A cluster whose names are as long as brokers accept, and full of what has to be escaped. */
export function * hostileKeyspace (): Generator<Entry> {
  const name = (kind: string, index: number) => {
    const unit = UNITS[index % UNITS.length]?.replace('/', '|') as string
    return `${kind}${index}${unit.repeat(Math.floor(NAME_LENGTH / unit.length / 4))}`.toWellFormed()
  }
  const topics = Array.from({ length: TOPICS }, (_, index) => name('topic', index))
  yield entry(formatKey({ kind: 'snapshot' }), encodeSnapshot({
    clusterName: name('cluster', 4),
    clusterId: name('id', 5),
    controllerId: 0,
    brokers: [{ nodeId: 0, host: 'broker', port: 9092 }],
    topics: topics.map(name => ({
      name,
      errorCode: 0,
      partitions: Array.from({ length: 100 }, (_, partition) => ({
        partition,
        leaderId: 0,
        leaderEpoch: 0,
        replicaNodes: [0],
        isrNodes: [0],
        offlineReplicas: [],
        errorCode: 0,
      })),
    })),
  }))
  for (let index = 0; index < GROUPS; index++) {
    const group = name('group', index)
    const members = Array.from({ length: MEMBERS }, (_, member) => [`${name('member', index)}${member}`, {
      clientId: name('client', index),
      clientHost: name('host', index),
      heartbeatAtMs: 0,
      assignments: new Map(topics.slice(0, 5).map(topic => [topic, [0, 1, 2]])),
      subscriptions: topics.slice(0, 5),
      sessionTimeoutMs: 10_000,
    }] as const)
    yield entry(formatKey({ kind: 'group-metadata', group }), encodeConsumerGroup(group, {
      state: 'stable',
      protocolType: 'consumer',
      protocol: 'range',
      leader: '',
      generationId: 1,
      rebalanceTimeoutMs: 60_000,
      members: new Map(members),
    }))
    for (const topic of topics) {
      const value = encodeCommittedOffset({ offset: 0, metadata: name('metadata', index), committedAtMs: 0 })
      yield entry(formatKey({ kind: 'committed-offset', group, topic, partition: 0 }), value)
    }
  }
}

function entry (key: string, value: Buffer): Entry {
  return { key, value }
}
