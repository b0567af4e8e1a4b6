import { AsyncLocalStorage } from 'node:async_hooks'
import type { Span } from '@opentelemetry/api'

/** Where a caller stands in its trace (W3C Trace Context). */
export interface TraceContext {
  /** 32 and 16 lowercase hexadecimal digits, not all of them zeros. */
  traceId: string
  spanId: string
  sampled: boolean
  /** As it came: for whom the trace is about, not for this service. */
  state: string | undefined
}

type Carrier = Readonly<Record<string, unknown>>

const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/
const MAX_STATE_LENGTH = 512
const SAMPLED = 1

/** What `traceparent` and `tracestate` say, in HTTP headers or in the `_meta` of a message; `undefined` when nothing valid. */
export function traceContext (carrier: Carrier | undefined): TraceContext | undefined {
  const { traceparent, tracestate } = carrier ?? {}
  if (typeof traceparent !== 'string') return undefined
  const [, version, traceId, spanId, flags = '', more] = TRACEPARENT.exec(traceparent) ?? []
  // Only a version to come may have more.
  if (traceId === undefined || spanId === undefined || (version === '00' && more !== undefined)) return undefined
  const state = typeof tracestate === 'string' && tracestate.length <= MAX_STATE_LENGTH ? tracestate : undefined
  return { traceId, spanId, sampled: (parseInt(flags, 16) & SAMPLED) !== 0, state }
}

/**
 * The caller's context: of the headers, else of the message's `_meta` (SEP-414). The headers come from the hop that is
 * next to this service, so whatever stands between it and the agent stays in the trace; an agent that sends both has sent
 * the headers from within the span that `_meta` names.
 */
export function callerContext (headers: Carrier, message: unknown): TraceContext | undefined {
  return traceContext(headers) ?? traceContext(metaOf(message))
}

/** `_meta` of one message; a batch has none of its own. */
export function metaOf (message: unknown): Carrier | undefined {
  const { params } = (message ?? {}) as { params?: { _meta?: unknown } | null }
  const meta = params?._meta
  return typeof meta === 'object' && meta !== null ? meta as Carrier : undefined
}

/** The span that goes on; there is none where nothing is traced. */
export const activeSpan = new AsyncLocalStorage<Span>()

/** The trace that a request belongs to: the one that is being recorded, else the caller's. */
export function traceIdOf (headers: Carrier, message?: unknown): string | null {
  return activeSpan.getStore()?.spanContext().traceId ?? callerContext(headers, message)?.traceId ?? null
}

/** What each line of the log says of the span that goes on. */
export function traceIds (): { trace_id?: string, span_id?: string } {
  const context = activeSpan.getStore()?.spanContext()
  return context ? { trace_id: context.traceId, span_id: context.spanId } : {}
}
