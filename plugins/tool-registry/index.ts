import type { TProperties } from '@sinclair/typebox'
import { Ajv, type ValidateFunction } from 'ajv'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import {
  ConfigError, describeError, Internal, isToolError, MAX_ANSWER_BYTES, MetadataUnavailable, PermissionDenied,
  ResultTooLarge
} from '../../errors.ts'
import { VisibleMirror } from '../../kafscale/visible-mirror.ts'
import { quote } from '../../lib/printable.ts'
import type { CallContext, Caller, CallerChanges, Host, Tool, ToolResult } from '../../tools/tool.ts'
import type { Principal } from '../auth/principal.ts'
import type { ControlTarget } from '../broker-control/index.ts'
import { TOOLS_OF_CHANGES } from '../changes/change.ts'
import type { Progress } from '../changes/index.ts'
import type { Decision } from '../rbac/decide.ts'
import { answerJson, fittingLimit } from './answer.ts'
import { closed, validInput } from './input.ts'
import { recordOf } from './record.ts'
import { Turns } from './turns.ts'

declare module 'fastify' {
  interface FastifyInstance { tools: Tools }
}

/** A call that is refused before it reaches a tool. */
export interface RefusedCall {
  /** As received. */
  name: unknown
  input: unknown
  /** `INVALID_PARAMS` (−32602 in JSON-RPC): the tool does not exist, or the arguments are not an object. */
  code: 'INVALID_PARAMS' | 'INSUFFICIENT_SCOPE'
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

/** The only way to a tool: validates, authorizes, runs and records each call. */
export interface Tools {
  /** Registers a tool, unless `TOOLS` or `DISABLED_TOOLS` disables it. A disabled tool does not exist for callers. */
  declare: (tool: Tool) => void
  /**
   * The names of all declared tools, including disabled ones, and of those that exist only with `CHANGES`: settings and
   * policies may name them.
   */
  readonly known: readonly string[]
  /** What a tool does to the cluster; `undefined` when the tool does not exist. */
  operation: (name: string) => Tool['operation'] | undefined
  /** What the principal may call, sorted by name. */
  list: (principal: Principal) => ToolDefinition[]
  /**
   * Calls a tool. Rejects only if it does not exist: a failure is a result with `isError`.
   * @param progress where the tool reports its steps
   */
  call: (
    name: string,
    input: unknown,
    caller: Caller,
    signal: AbortSignal,
    progress?: Progress
  ) => Promise<ToolResult>
  /** Records a call that does not reach a tool. @throws {AuditUnavailable} */
  refuse: (call: RefusedCall, caller: Caller) => Promise<void>
}

interface Entry {
  tool: Tool
  validate: ValidateFunction
  definition: ToolDefinition
  /** How the tool is shown next to the tools of changes. */
  crowded: ToolDefinition
}

export default fp(async function toolRegistry (app) {
  const { tools: allowed, disabledTools: disabled = [] } = app.config
  const ajv = new Ajv({ allErrors: true, strict: true, allowUnionTypes: true })
  const entries = new Map<string, Entry>()
  const known: string[] = [...TOOLS_OF_CHANGES]
  const host = hostOf(app, entries)
  const turns = new Turns()

  app.decorate<Tools>('tools', {
    known,
    declare (tool) {
      if (!known.includes(tool.name)) known.push(tool.name)
      if (disabled.includes(tool.name) || (allowed && !allowed.includes(tool.name))) return
      const validate = ajv.compile(closed(tool.input))
      const crowded = { ...tool.listed, ...Object.fromEntries((tool.crowdedOut ?? []).map(name => [name, null])) }
      entries.set(tool.name, {
        tool, validate, definition: definitionOf(tool), crowded: definitionOf({ ...tool, listed: crowded }),
      })
    },
    operation: name => entries.get(name)?.tool.operation,
    list (principal) {
      const shown = TOOLS_OF_CHANGES.some(name => entries.has(name)) ? 'crowded' : 'definition'
      return [...entries.values()]
        .filter(({ tool }) => app.authorize.decide(principal, tool).kind === 'allowed')
        .map(entry => entry[shown])
        .sort((a, b) => a.name < b.name ? -1 : 1)
    },
    async call (name, input, caller, signal, progress = () => {}) {
      const entry = entries.get(name)
      if (!entry) throw new Error(`no tool ${name}`)
      const decision = app.authorize.decide(caller.principal, entry.tool)
      return await app.telemetry.call(name, caller, decision, async () => {
        const record = recordOf(app, entry.tool, input, caller, decision)
        try {
          const result = await attempt(entry, input, caller, signal, decision, progress)
          await app.audit.record(record(result))
          return result
        } catch (error) {
          return failure(error, name, caller)
        }
      })
    },
    async refuse ({ name, input, code }, caller) {
      const { tool } = (typeof name === 'string' && entries.get(name)) || {}
      const named = tool ?? { name: typeof name === 'string' ? name : null, operation: null }
      const decision = tool ? app.authorize.decide(caller.principal, tool) : null
      const denied = decision?.kind === 'denied'
      const outcome = denied ? 'denied' : 'error'
      app.telemetry.refused({ tool: tool?.name ?? null, outcome, rule: denied ? decision.rule : null, code }, caller)
      const entry = recordOf(app, named, input, caller, decision)(null)
      await app.audit.record({ ...entry, outcome, error_code: code })
    },
  })

  app.addHook('onReady', async () => {
    const unknown = [...allowed ?? [], ...disabled].filter(name => !known.includes(name))
    if (unknown.length > 0) {
      throw new ConfigError(
        `KAFSCALE_MCP_TOOLS and KAFSCALE_MCP_DISABLED_TOOLS name ${unknown.map(quote).join(', ')}: ` +
        `expected names of ${known.toSorted().join(', ')}`
      )
    }
  })

  /** Runs a tool if its input is valid and the caller may call it. */
  async function attempt (
    { tool, validate }: Entry,
    input: unknown,
    caller: Caller,
    signal: AbortSignal,
    decision: Decision,
    progress: Progress
  ): Promise<ToolResult> {
    try {
      await turns.next()
      if (decision.kind === 'denied') throw new PermissionDenied(tool.name, decision.needs)
      const valid = validInput(tool, validate, input)
      return await run(tool, valid, contextOf(tool, caller, signal, progress), caller.batchSize ?? 1)
    } catch (error) {
      return failure(error, tool.name, caller)
    }
  }

  /** What a tool receives with a call. Its mirror hides what the caller may not see. */
  function contextOf (tool: Tool, caller: Caller, signal: AbortSignal, progress: Progress): CallContext {
    const { principal } = caller
    const visibility = app.authorize.visibility(principal, tool)
    return {
      signal,
      principal,
      seesEverything: visibility.everything,
      mirror () {
        const { mirror, reason = '' } = app.metadata
        if (!mirror) throw new MetadataUnavailable(reason)
        return visibility.everything ? mirror : new VisibleMirror(mirror, visibility)
      },
      get changes () { return changesOf(app, caller, signal, progress) },
    }
  }

  async function run (
    tool: Tool,
    input: Record<string, unknown>,
    context: CallContext,
    batchSize: number
  ): Promise<ToolResult> {
    const maxBytes = MAX_ANSWER_BYTES / batchSize
    let answer = tool.answer(host, input, context)
    if (answer instanceof Promise) {
      answer = await answer
      await turns.next()
    }
    const text = answerJson(answer, maxBytes)
    if (text === undefined) throw new ResultTooLarge(smallerLimit(tool, answer, maxBytes))
    return { content: [{ type: 'text', text }], structuredContent: answer }
  }

  function failure (error: unknown, tool: string, { requestId, traceId }: Caller): ToolResult {
    const known = isToolError(error) ? error : new Internal()
    if (known !== error) {
      app.log.error({ reqId: requestId, trace_id: traceId ?? undefined, err: error, tool }, 'a tool failed')
    }
    return {
      content: [{ type: 'text', text: `${known.code}: ${known.message}` }],
      isError: true,
      _meta: { 'kafscale-mcp/error': describeError(known) },
    }
  }
}, { name: 'tool-registry', dependencies: ['config', 'telemetry', 'metadata', 'broker-metrics'] })

/** What tools can use of the service. The objects contain nothing else, so a tool cannot reach any further. */
function hostOf (app: FastifyInstance, entries: ReadonlyMap<string, Entry>): Host {
  const { metadata, brokerMetrics } = app
  return Object.freeze({
    metadata: Object.freeze({
      get state () { return metadata.state },
      get reason () { return metadata.reason },
      get observedAt () { return metadata.observedAt },
      get ageMs () { return metadata.ageMs },
      awayMs: (fromMs: number, toMs: number) => metadata.awayMs(fromMs, toMs),
    }),
    brokerMetrics: Object.freeze({
      get configured () { return brokerMetrics.configured },
      scrape: () => brokerMetrics.scrape(),
    }),
    // Its plugin comes later, if at all.
    brokerControl: Object.freeze({
      status: (broker: ControlTarget, signal?: AbortSignal) => app.brokerControl.status(broker, signal),
    }),
    access: Object.freeze({
      roles: (principal: Principal) => [...app.authorize.roles(principal)],
      tools: (principal: Principal) => [...entries.values()]
        .map(({ tool }) => ({ name: tool.name, decision: app.authorize.decide(principal, tool) }))
        .sort((a, b) => a.name < b.name ? -1 : 1),
      changes (principal: Principal) {
        const { tools, ...access } = app.authorize.explainChanges(principal)
        const existing = tools.filter(({ tool }) => entries.has(tool))
        return existing.length === 0 ? undefined : { ...access, tools: existing }
      },
    }),
  })
}

/** The changes, bound to a caller: a tool can take no step in the name of another, and approve nothing. */
function changesOf (
  { changes }: FastifyInstance,
  caller: Caller,
  signal: AbortSignal,
  progress: Progress
): CallerChanges {
  return {
    propose: (tool, args) => changes.propose(caller, tool, args, signal),
    apply: (changeId, breakGlass) => changes.apply(caller, changeId, breakGlass, progress),
    cancel: changeId => changes.cancel(caller, changeId),
    get: changeId => changes.get(caller, changeId),
    list: filter => changes.list(caller, filter),
  }
}

function definitionOf ({ name, title, description, input, listed, output, operation }: Tool): ToolDefinition {
  return {
    name,
    title,
    description,
    inputSchema: listed ? { ...input, properties: shown(input.properties, listed) } : input,
    outputSchema: output,
    annotations: {
      readOnlyHint: operation === 'observe',
      destructiveHint: operation === 'apply',
      idempotentHint: operation !== 'propose',
      openWorldHint: false,
    },
  }
}

function shown (properties: TProperties, listed: NonNullable<Tool['listed']>): object {
  return Object.fromEntries(
    Object.entries({ ...properties, ...listed }).filter(([, schema]) => schema !== null)
  )
}

/** What to do about an answer that is too large. */
function smallerLimit ({ rows, output }: Tool, answer: Record<string, unknown>, maxBytes: number): string {
  if (!rows) return 'This tool has no pages, so ask an operator.'
  const limit = fittingLimit(answer, rows, Object.hasOwn(output.properties, 'next_cursor'), maxBytes)
  return limit > 0 ? `Call again with limit ${limit}, which fits.` : 'Even one row does not fit, so ask for less.'
}
