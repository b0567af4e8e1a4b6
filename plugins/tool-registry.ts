import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv'
import { describeError, escapeUnprintable, Internal, InvalidArgument, isToolError, quote, ResultTooLarge } from '../errors.ts'
import type { Tool } from '../tools/define-tool.ts'

declare module 'fastify' {
  interface FastifyInstance { tools: Tools }
}

/** The answer of a tool, in the size that a client gets it: compact JSON. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024
/** More are counted, not told: a small input may have very many. */
const MAX_MISTAKES = 20

/** What a call brings along besides its input. */
export interface CallContext {
  /** Aborted when the client goes away or cancels. */
  signal: AbortSignal
}

/** A tool's result as MCP carries it. */
export interface ToolResult {
  [key: string]: unknown
  content: { type: 'text', text: string }[]
  structuredContent?: Record<string, unknown>
  isError?: true
  _meta?: Record<string, unknown>
}

/** A tool as `tools/list` publishes it. */
export interface ToolDefinition {
  name: string
  title: string
  description: string
  inputSchema: object
  outputSchema: object
  annotations: Record<string, boolean>
}

/** The only way to run a tool: validate, run, reply. Who may, and the record of it, belong in here too. */
export interface Tools {
  declare: (tool: Tool) => void
  has: (name: string) => boolean
  /** In a fixed order. */
  list: () => ToolDefinition[]
  /** Never rejects: a failure is a result with `isError`. The tool must exist. */
  call: (name: string, input: unknown, context: CallContext) => Promise<ToolResult>
}

export default fp(async function toolRegistry (app) {
  const ajv = new Ajv({ allErrors: true, strict: true, allowUnionTypes: true, keywords: [] })
  const tools = new Map<string, { tool: Tool, validate: ValidateFunction, definition: ToolDefinition }>()
  let definitions: ToolDefinition[] | undefined

  app.decorate<Tools>('tools', {
    declare (tool) {
      const { name, title, description, input, output, operation } = tool
      const mutates = operation === 'mutate'
      const definition = {
        name,
        title,
        description,
        inputSchema: input,
        outputSchema: output,
        annotations: { readOnlyHint: !mutates, destructiveHint: mutates, idempotentHint: !mutates, openWorldHint: false },
      }
      tools.set(name, { tool, validate: ajv.compile(input), definition })
      definitions = undefined
    },
    has: name => tools.has(name),
    list () {
      definitions ??= [...tools.keys()].sort().map(name => tools.get(name)?.definition as ToolDefinition)
      return definitions
    },
    async call (name, input, context) {
      const entry = tools.get(name)
      if (!entry) throw new Error(`no tool ${name}`)
      try {
        return await run(app, entry.tool, validated(entry.validate, entry.tool, input), context)
      } catch (error) {
        return failure(error, name, app.log)
      }
    },
  })
}, { name: 'tool-registry' })

/** The input as the schema wants it; a property that is given as `null` counts as not given. */
function validated (validate: ValidateFunction, tool: Tool, input: unknown = {}): Record<string, unknown> {
  const given = typeof input === 'object' && input !== null && !Array.isArray(input)
    ? Object.fromEntries(Object.entries(input).filter(([name, value]) => value !== null || !Object.hasOwn(tool.input.properties, name)))
    : input
  if (!validate(given)) throw new InvalidArgument(describeAll(validate.errors ?? []))
  return given as Record<string, unknown>
}

/** Every wrong property, up to as many as somebody can mend. */
function describeAll (errors: ErrorObject[]): string {
  const more = errors.length - MAX_MISTAKES
  return errors.slice(0, MAX_MISTAKES).map(describe).join('; ') + (more > 0 ? `; and ${more} more` : '')
}

function describe ({ instancePath, keyword, message = 'is not valid', params }: ErrorObject): string {
  const path = instancePath.slice(1).replaceAll('/', '.')
  if (keyword === 'additionalProperties') return `${quote(params.additionalProperty.slice(0, 64))} is not an input of this tool`
  if (keyword === 'required') return `${quote(params.missingProperty)} is required`
  return `${path === '' ? 'the input' : quote(path)} ${message}`
}

async function run (app: FastifyInstance, tool: Tool, input: Record<string, unknown>, context: CallContext): Promise<ToolResult> {
  const answer = await tool.answer(app, input, context)
  const text = answerText(answer)
  if (Buffer.byteLength(text) >= MAX_ANSWER_BYTES) throw new ResultTooLarge(await smallerLimit(app, tool, input, context))
  return { content: [{ type: 'text', text }], structuredContent: answer }
}

function answerText (answer: Record<string, unknown>): string {
  return escapeUnprintable(JSON.stringify(answer))
}

/** What to do about an answer that is too large: names the largest limit whose answer fits. */
async function smallerLimit (app: FastifyInstance, tool: Tool, input: Record<string, unknown>, context: CallContext): Promise<string> {
  if (!Object.hasOwn(tool.input.properties, 'limit')) return 'Ask an operator: the answer has no pages.'
  let fits = 0
  let tooLarge = Number(input.limit ?? 100)
  while (tooLarge - fits > 1) {
    const limit = (fits + tooLarge) >> 1
    const text = answerText(await tool.answer(app, { ...input, limit }, context))
    if (Buffer.byteLength(text) < MAX_ANSWER_BYTES) fits = limit
    else tooLarge = limit
  }
  return fits > 0 ? `Call again with limit ${fits}, which fits.` : 'Not even one row fits: ask for less.'
}

function failure (error: unknown, tool: string, log: FastifyBaseLogger): ToolResult {
  const known = isToolError(error) ? error : new Internal()
  if (known !== error) log.error({ err: error, tool }, 'a tool failed')
  return {
    content: [{ type: 'text', text: `${known.code}: ${known.message}` }],
    isError: true,
    _meta: { 'kafscale-mcp/error': describeError(known) },
  }
}
