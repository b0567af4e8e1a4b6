import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import {
  ConfigError, describeError, Internal, InvalidArgument, isToolError, PermissionDenied, ResultTooLarge,
} from '../../errors.ts'
import { escapeUnprintable, quote } from '../../lib/printable.ts'
import type { Host, Tool } from '../../tools/tool.ts'
import type { Principal } from '../auth/principal.ts'
import type { Decision } from '../rbac/decide.ts'
import type { Visibility } from '../rbac/visibility.ts'
import { recordOf } from './record.ts'

declare module 'fastify' {
  interface FastifyInstance { tools: Tools }
}

/** The answer of a tool, in the size that a client gets it: compact JSON. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024
/** What a tool is called that does not exist is kept no further. */
const MAX_NAME_LENGTH = 128
/** More are counted, not told: a small input may have very many. */
const MAX_MISTAKES = 20

/** Who calls, from where: what a call brings along besides its input. */
export interface Caller {
  principal: Principal
  receivedAt: Date
  remoteAddress: string | null
  userAgent: string | null
  mcpClient: string | null
  requestId: string | null
  traceId: string | null
}

/** A call that is refused for how it was sent, and not by the tool. */
export interface RefusedCall {
  /** As it came. */
  name: unknown
  input: unknown
  /** `INVALID_PARAMS` is JSON-RPC's −32602: there is no such tool, or the arguments are no object. */
  code: 'INVALID_PARAMS' | 'INSUFFICIENT_SCOPE'
}

/** What a tool is given besides its input. */
export interface CallContext {
  /** Aborted when the client goes away or cancels. */
  signal: AbortSignal
  principal: Principal
  /** What of the cluster the answer may hold. */
  visibility: Visibility
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

/** The only way to run a tool: validate, authorize, run, record, reply. */
export interface Tools {
  /** Registers a tool, unless `TOOLS` or `DISABLED_TOOLS` switch it off: then it does not exist. */
  declare: (tool: Tool) => void
  /** Every tool that was declared, also one that is switched off. */
  readonly known: readonly string[]
  /** What a tool does to the cluster; `undefined` when it does not exist. */
  operation: (name: string) => Tool['operation'] | undefined
  /** What the principal may call, in a fixed order. */
  list: (principal: Principal) => ToolDefinition[]
  /** Never rejects: a failure is a result with `isError`. The tool must exist. */
  call: (name: string, input: unknown, caller: Caller, signal: AbortSignal) => Promise<ToolResult>
  /** Puts on record a call that does not get as far as its tool, which need not exist. @throws {AuditUnavailable} */
  refuse: (call: RefusedCall, caller: Caller) => Promise<void>
}

export default fp(async function toolRegistry (app) {
  const { tools: allowed, disabledTools: disabled = [] } = app.config
  const ajv = new Ajv({ allErrors: true, strict: true, allowUnionTypes: true })
  const tools = new Map<string, { tool: Tool, validate: ValidateFunction, definition: ToolDefinition }>()
  const known: string[] = []

  app.decorate<Tools>('tools', {
    known,
    declare (tool) {
      const { name, title, description, input, output, operation } = tool
      known.push(name)
      if (disabled.includes(name) || (allowed && !allowed.includes(name))) return
      const mutates = operation === 'mutate'
      const definition = {
        name,
        title,
        description,
        inputSchema: input,
        outputSchema: output,
        annotations: {
          readOnlyHint: !mutates,
          destructiveHint: mutates,
          idempotentHint: !mutates,
          openWorldHint: false,
        },
      }
      tools.set(name, { tool, validate: ajv.compile(input), definition })
    },
    operation: name => tools.get(name)?.tool.operation,
    list: principal => [...tools.values()]
      .filter(({ tool }) => app.authorize.decide(principal, tool).kind === 'allowed')
      .map(({ definition }) => definition)
      .sort((a, b) => a.name < b.name ? -1 : 1),
    async call (name, input, caller, signal) {
      const entry = tools.get(name)
      if (!entry) throw new Error(`no tool ${name}`)
      const decision = app.authorize.decide(caller.principal, entry.tool)
      return await app.telemetry.call(name, caller, decision, async () => {
        const record = recordOf(app, entry.tool, input, caller, decision)
        const announce = () => app.audit.recordDurably(record(null))
        const result = await attempt(app, entry.tool, entry.validate, input, { ...caller, signal, decision, announce })
        try {
          await app.audit.record(record(result))
          return result
        } catch (error) {
          return failure(error, name, app, caller)
        }
      })
    },
    async refuse ({ name, input, code }, caller) {
      const { tool } = (typeof name === 'string' && tools.get(name)) || {}
      const named = tool ?? { name: typeof name === 'string' ? name.slice(0, MAX_NAME_LENGTH) : null, operation: null }
      const decision = tool ? app.authorize.decide(caller.principal, tool) : null
      const outcome = decision?.kind === 'denied' ? 'denied' : 'error'
      app.telemetry.refused({
        tool: tool?.name ?? null,
        outcome,
        rule: decision?.kind === 'denied' ? decision.rule : null,
        code,
      }, caller)
      await app.audit.record({
        ...recordOf(app, named, input, caller, decision)(null),
        event: 'tool_call',
        outcome,
        error_code: code,
      })
    },
  })

  app.addHook('onReady', async () => {
    const unknown = [...allowed ?? [], ...disabled].filter(name => !known.includes(name))
    if (unknown.length > 0) {
      throw new ConfigError(
        `KAFSCALE_MCP_TOOLS and KAFSCALE_MCP_DISABLED_TOOLS name ${unknown.map(quote).join(', ')}: expected names of ${
          known.toSorted().join(', ')
        }`
      )
    }
  })
}, { name: 'tool-registry', dependencies: ['config', 'telemetry'] })

/** `announce` puts on record what is about to be done: a mutation does not run before that is durable. */
async function attempt (
  app: FastifyInstance,
  tool: Tool,
  validate: ValidateFunction,
  input: unknown,
  { signal, decision, announce, ...caller }: Caller & {
    signal: AbortSignal
    decision: Decision
    announce: () => Promise<void>
  }
): Promise<ToolResult> {
  const { principal } = caller
  try {
    const valid = validated(validate, tool, input)
    if (decision.kind === 'denied') throw new PermissionDenied(tool.name, decision.needs)
    if (tool.operation === 'mutate') await announce()
    return await run(app, tool, valid, { principal, signal, visibility: app.authorize.visibility(principal, tool) })
  } catch (error) {
    return failure(error, tool.name, app, caller)
  }
}

/** The input as the schema wants it; a property that is given as `null` counts as not given. */
function validated (validate: ValidateFunction, tool: Tool, input: unknown = {}): Record<string, unknown> {
  const given = typeof input === 'object' && input !== null && !Array.isArray(input)
    ? Object.fromEntries(
      Object.entries(input).filter(([name, value]) => value !== null || !Object.hasOwn(tool.input.properties, name))
    )
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
  if (keyword === 'additionalProperties') {
    return `${quote(params.additionalProperty.slice(0, 64))} is not an input of this tool`
  }
  if (keyword === 'required') return `${quote(params.missingProperty)} is required`
  return `${path === '' ? 'the input' : quote(path)} ${message}`
}

async function run (
  app: FastifyInstance,
  tool: Tool,
  input: Record<string, unknown>,
  context: CallContext
): Promise<ToolResult> {
  const answer = await tool.answer(hostOf(app), input, context)
  const text = answerText(answer)
  if (Buffer.byteLength(text) >= MAX_ANSWER_BYTES) {
    throw new ResultTooLarge(await smallerLimit(app, tool, input, context))
  }
  return { content: [{ type: 'text', text }], structuredContent: answer }
}

/** What of the app a tool gets. */
function hostOf ({ authorize, brokerMetrics, metadata, tools }: FastifyInstance): Host {
  return { authorize, brokerMetrics, metadata, tools }
}

function answerText (answer: Record<string, unknown>): string {
  return escapeUnprintable(JSON.stringify(answer))
}

/** What to do about an answer that is too large: names the largest limit whose answer fits. */
async function smallerLimit (
  app: FastifyInstance,
  tool: Tool,
  input: Record<string, unknown>,
  context: CallContext
): Promise<string> {
  if (!Object.hasOwn(tool.input.properties, 'limit')) return 'Ask an operator: the answer has no pages.'
  let fits = 0
  let tooLarge = Number(input.limit ?? 100)
  while (tooLarge - fits > 1) {
    const limit = (fits + tooLarge) >> 1
    const text = answerText(await tool.answer(hostOf(app), { ...input, limit }, context))
    if (Buffer.byteLength(text) < MAX_ANSWER_BYTES) fits = limit
    else tooLarge = limit
  }
  return fits > 0 ? `Call again with limit ${fits}, which fits.` : 'Not even one row fits: ask for less.'
}

function failure (error: unknown, tool: string, { log }: FastifyInstance, { requestId, traceId }: Caller): ToolResult {
  const known = isToolError(error) ? error : new Internal()
  if (known !== error) {
    log.error({ reqId: requestId, trace_id: traceId ?? undefined, err: error, tool }, 'a tool failed')
  }
  return {
    content: [{ type: 'text', text: `${known.code}: ${known.message}` }],
    isError: true,
    _meta: { 'kafscale-mcp/error': describeError(known) },
  }
}
