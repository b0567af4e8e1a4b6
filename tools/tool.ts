/** The interface between tools and the registry. */
import type { Static, TObject, TSchema } from '@sinclair/typebox'
import fp from 'fastify-plugin'
import type { ToolErrorCode } from '../errors.ts'
import type { MirrorView } from '../kafscale/mirror.ts'
import type { Source } from '../plugins/audit/record.ts'
import type { Principal } from '../plugins/auth/principal.ts'
import type { BrokerControl } from '../plugins/broker-control/index.ts'
import type { BrokerMetrics } from '../plugins/broker-metrics/index.ts'
import type { BreakGlass, ChangeTool, ChangeView, UnknownChange } from '../plugins/changes/change.ts'
import type { ChangeState } from '../plugins/changes/states.ts'
import type { Metadata } from '../plugins/metadata.ts'
import type { Decision, Operation } from '../plugins/rbac/decide.ts'
import type { ChangesAccess } from '../plugins/rbac/explain.ts'

/**
 * A tool. Both schemas are published, and the registry validates the input. Field names use Kafka's terms and carry
 * units. A tool reaches the service only through {@link Host} and {@link CallContext}.
 */
export interface Tool<Input extends TObject = TObject, Output extends TObject = TObject> {
  name: string
  title: string
  /** How a model chooses the tool: what it returns, in which units, and when another tool fits better. */
  description: string
  operation: Operation
  input: Input
  /**
   * How `tools/list` shows a property of the input, where that differs from what is accepted. A model needs a single
   * type. A property that is `null` here is not shown: the tools together have at most 24 optional properties, because
   * the strict mode of Anthropic's API accepts no more.
   */
  listed?: { [Name in keyof Static<Input>]?: TSchema | null }
  /** Properties of the input that are not shown next to the tools of changes, which take the room for them. */
  crowdedOut?: readonly (keyof Static<Input> & string)[]
  output: Output
  /** Required if the input has a `limit`. */
  rows?: Rows
  /** What the tool can fail with besides {@link COMMON_ERRORS}. */
  errors?: readonly ToolErrorCode[]
  /** Returns the answer, or throws one of the tool errors in `errors.ts`. */
  answer: (host: Host, input: Static<Input>, context: CallContext) => Static<Output> | Promise<Static<Output>>
}

/** Where the rows are that `limit` counts, as names of fields of the answer. */
export interface Rows {
  /** The list of the rows. */
  list: string
  /** A list in each item of the list, whose items are the rows instead. An item without any is a row itself. */
  nested?: string
  /** A list with one further item for each value that a field has on the page. Others in it are rows of their own. */
  per?: { list: string, field: string }
}

/** What every tool can fail with. */
export const COMMON_ERRORS = [
  'INVALID_ARGUMENT', 'PERMISSION_DENIED', 'RESULT_TOO_LARGE', 'AUDIT_UNAVAILABLE', 'INTERNAL'
] as const satisfies readonly ToolErrorCode[]

/** What tools can use of the service. Gives no access to etcd, requests, secrets or the unfiltered mirror. */
export interface Host {
  /** How current the mirror is. Its content comes from {@link CallContext.mirror}. */
  readonly metadata: Readonly<Pick<Metadata, 'state' | 'reason' | 'observedAt' | 'ageMs' | 'awayMs'>>
  readonly brokerMetrics: Pick<BrokerMetrics, 'configured' | 'scrape'>
  /** The brokers' control plane. Only for tools that exist with it. */
  readonly brokerControl: Pick<BrokerControl, 'status'>
  readonly access: Access
}

/** What a principal may do. */
export interface Access {
  roles: (principal: Principal) => readonly string[]
  /** The decision on each tool, sorted by name. */
  tools: (principal: Principal) => { name: string, decision: Decision }[]
  /** What it may do with the changes that tools propose; `undefined` if no tool proposes any. */
  changes: (principal: Principal) => ChangesAccess | undefined
}

/** What a tool receives with one call. */
export interface CallContext {
  /** Aborted when the client disconnects or cancels. */
  signal: AbortSignal
  principal: Principal
  /** Whether nothing is hidden from the principal, so that figures of the whole cluster may be shown. */
  seesEverything: boolean
  /**
   * The last known state of the cluster, as far as the principal may see it.
   * @throws {MetadataUnavailable} before the first load
   */
  mirror: () => MirrorView
  /** The changes, as far as the caller may see and take them further. Only for tools that exist with changes. */
  readonly changes: CallerChanges
}

/** What a caller can do with changes. Approving is not among it: that is for people, on a page. */
export interface CallerChanges {
  propose: (tool: ChangeTool, args: Record<string, unknown>) => Promise<ChangeView>
  /** Reports each step to a client that asked for progress. Goes on if the client disconnects. */
  apply: (changeId: string, breakGlass: Pick<BreakGlass, 'reason' | 'ticket'> | undefined) => Promise<ChangeView>
  cancel: (changeId: string) => Promise<ChangeView>
  get: (changeId: string) => Promise<ChangeView>
  list: (filter: { state?: ChangeState, topic?: string, group?: string }) => Promise<(ChangeView | UnknownChange)[]>
}

/** Who makes a call, and from where. */
export interface Caller extends Source {
  principal: Principal
  /** Who acts in the name of the principal: an approver, on a page. */
  actor?: Principal
  receivedAt: Date
  /** The number of calls in the same request, if that is a batch: they share the limit of an answer's size. */
  batchSize?: number
}

/** A tool's result as MCP carries it. */
export interface ToolResult {
  [key: string]: unknown
  content: { type: 'text', text: string }[]
  structuredContent?: Record<string, unknown>
  isError?: true
  _meta?: Record<string, unknown>
}

/** Wraps a tool in a Fastify plugin that declares it. */
export function defineTool<Input extends TObject, Output extends TObject> (tool: Tool<Input, Output>) {
  return fp(async app => {
    // The registry passes a tool only input that its own schema has accepted.
    app.tools.declare(tool as unknown as Tool)
  }, { name: tool.name, dependencies: ['tool-registry'] })
}
