import { AsyncLocalStorage } from 'node:async_hooks'
import type { Span } from '@opentelemetry/api'

/** The caller's position in its trace (W3C Trace Context). */
export interface TraceContext {
  /** 32 lowercase hexadecimal digits, not all of them zeros. */
  traceId: string
  /** 16 lowercase hexadecimal digits, not all of them zeros. */
  spanId: string
  sampled: boolean
  /** `tracestate`, passed on unchanged. */
  state: string | undefined
}

type Carrier = Readonly<Record<string, unknown>>

const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/
const MAX_STATE_LENGTH = 512
const SAMPLED = 1

/** Parses `traceparent` and `tracestate` of HTTP headers or of a message's `_meta`. `undefined` if they're invalid. */
export function traceContext (carrier: Carrier | undefined): TraceContext | undefined {
  const { traceparent, tracestate } = carrier ?? {}
  if (typeof traceparent !== 'string') return undefined
  const [, version, traceId, spanId, flags = '', more] = TRACEPARENT.exec(traceparent) ?? []
  // Only a future version may have more fields.
  if (traceId === undefined || spanId === undefined || (version === '00' && more !== undefined)) return undefined
  const state = typeof tracestate === 'string' && tracestate.length <= MAX_STATE_LENGTH ? tracestate : undefined
  return { traceId, spanId, sampled: (parseInt(flags, 16) & SAMPLED) !== 0, state }
}

/**
 * The caller's context, from the headers or else from the message's `_meta` (SEP-414). The headers take precedence:
 * they come from the nearest hop, so a gateway between the agent and this service stays in the trace. An agent that
 * sends both sends the headers from within the span in `_meta`.
 */
export function callerContext (headers: Carrier, message: unknown): TraceContext | undefined {
  return traceContext(headers) ?? traceContext(metaOf(message))
}

/** The `_meta` of a single message. A batch has none. */
export function metaOf (message: unknown): Carrier | undefined {
  const { params } = (message ?? {}) as { params?: { _meta?: unknown } | null }
  const meta = params?._meta
  return typeof meta === 'object' && meta !== null ? meta as Carrier : undefined
}

/** The active span; none if traces are disabled. */
export const activeSpan = new AsyncLocalStorage<Span>()

/** The ID of the active trace, or else of the caller's. */
export function traceIdOf (headers: Carrier, message?: unknown): string | null {
  return activeSpan.getStore()?.spanContext().traceId ?? callerContext(headers, message)?.traceId ?? null
}

/** The fields of the active span in a log line. */
export function traceIds (): { trace_id?: string, span_id?: string } {
  const context = activeSpan.getStore()?.spanContext()
  return context ? { trace_id: context.traceId, span_id: context.spanId } : {}
}
