/** What a tool is, what it is given, and what it returns. */
import type { Static, TObject } from '@sinclair/typebox'
import fp from 'fastify-plugin'
import type { ToolErrorCode } from '../errors.ts'
import type { MirrorView } from '../kafscale/mirror.ts'
import type { Principal } from '../plugins/auth/principal.ts'
import type { BrokerMetrics } from '../plugins/broker-metrics.ts'
import type { Metadata } from '../plugins/metadata.ts'
import type { Decision, Operation } from '../plugins/rbac/decide.ts'

/**
 * A tool. Its schemas are both published and used to validate, and describe their fields in Kafka's terms, with units.
 * A tool is given a {@link Host} and a {@link CallContext}; it has no other way to the service.
 */
export interface Tool<Input extends TObject = TObject, Output extends TObject = TObject> {
  name: string
  title: string
  /** What a model chooses the tool by: what it returns, in which units, and when another tool fits better. */
  description: string
  operation: Operation
  input: Input
  output: Output
  /** What it can fail with besides {@link COMMON_ERRORS}, if anything. */
  errors?: readonly ToolErrorCode[]
  /** Returns the answer, or throws one of the tool errors in `errors.ts`. */
  answer: (host: Host, input: Static<Input>, context: CallContext) => Static<Output> | Promise<Static<Output>>
}

/** What a call of any tool can fail with. */
export const COMMON_ERRORS = [
  'INVALID_ARGUMENT', 'PERMISSION_DENIED', 'RATE_LIMITED', 'RESULT_TOO_LARGE', 'AUDIT_UNAVAILABLE', 'INTERNAL'
] as const satisfies readonly ToolErrorCode[]

/** What every call of a tool shares. It gives no access to etcd, requests, secrets or the unfiltered mirror. */
export interface Host {
  /** How current the mirror is. What the mirror contains comes from {@link CallContext.mirror}. */
  readonly metadata: Readonly<Pick<Metadata, 'state' | 'reason' | 'observedAt' | 'ageMs'>>
  readonly brokerMetrics: Pick<BrokerMetrics, 'configured' | 'scrape'>
  readonly access: Access
}

/** What a principal may do. */
export interface Access {
  roles: (principal: Principal) => readonly string[]
  /** The decision on each tool that exists, by name. */
  tools: (principal: Principal) => { name: string, decision: Decision }[]
}

/** What belongs to one call. */
export interface CallContext {
  /** Aborted when the client disconnects or cancels. */
  signal: AbortSignal
  principal: Principal
  /** Nothing is hidden from the principal, so figures of the whole cluster may be shown. */
  seesEverything: boolean
  /** What the principal may see of the cluster, at the newest revision. @throws {MetadataUnavailable} before a load */
  mirror: () => MirrorView
}

/** Who calls, and from where. */
export interface Caller {
  principal: Principal
  receivedAt: Date
  remoteAddress: string | null
  userAgent: string | null
  mcpClient: string | null
  requestId: string | null
  traceId: string | null
}

/** A tool's result as MCP carries it. */
export interface ToolResult {
  [key: string]: unknown
  content: { type: 'text', text: string }[]
  structuredContent?: Record<string, unknown>
  isError?: true
  _meta?: Record<string, unknown>
}

/** Makes a tool a Fastify plugin that declares it. */
export function defineTool<Input extends TObject, Output extends TObject> (tool: Tool<Input, Output>) {
  return fp(async app => {
    // The registry passes a tool only input that its own schema has accepted.
    app.tools.declare(tool as unknown as Tool)
  }, { name: tool.name, dependencies: ['tool-registry'] })
}
