import type { AuthMethod, Principal } from '../auth/principal.ts'
import type { Operation } from '../rbac/decide.ts'
import { CHAIN_EVENTS, type ChainRecord } from './chain.ts'

/** The steps of a change that people take. The service takes none of them if it cannot record it. */
const STEPS = [
  'plan',
  'approval_request',
  'approval',
  'rejection',
  'cancellation',
  'break_glass',
  'break_glass_review',
  'intent',
] as const

/**
 * A tool call or what it is about to change, the steps of changes, failed sign-ins, a request for the audit stream, a
 * read of the policy, the service's start and stop, a comparison of the log with its head file and an operator's word
 * that it may differ.
 */
const EVENTS = [
  'tool_call',
  ...STEPS,
  'outcome',
  'settlement',
  'expiry',
  'stale',
  'authentication_failure',
  'audit_stream',
  'policy_reload',
  'start',
  'stop',
  'head_check',
  'head_acknowledgement',
] as const

export type AuditEvent = typeof EVENTS[number]

/** Every `event` that a record can have, those of the chain and of collectors included. */
export const RECORD_EVENTS: readonly string[] = [...EVENTS, ...CHAIN_EVENTS, 'file_head']

export const OUTCOMES = ['ok', 'error', 'denied'] as const

/** `command`: somebody with access to the service's machine, who states their own name. */
export const METHODS = ['oidc', 'jwks', 'token', 'none', 'command'] as const satisfies (AuthMethod | 'command')[]

/** Events that the service answers only if it can vouch for the log. */
const CALLS: ReadonlySet<AuditEvent> = new Set(['tool_call', ...STEPS, 'audit_stream'])

export function isCall ({ event }: AuditEntry): boolean {
  return CALLS.has(event)
}

/**
 * One event, as the part of the service where it happened reports it. The chain adds time, sequence, replica and hash.
 */
export interface AuditEntry {
  event: AuditEvent
  who: {
    subject: string
    issuer: string | null
    client_id: string | null
    roles: readonly string[]
    method: typeof METHODS[number]
    token_id: string | null
    client_certificate: string | null
  } | null
  /** A tool that does not exist has no operation; a call without a tool name has no name. */
  what: {
    tool: string | null
    operation: Operation | 'propose' | 'apply' | 'approve' | 'break-glass' | null
    arguments: unknown
    resources: { topics?: string[], groups?: string[], brokers?: string[] }
  } | null
  /** Times are RFC 3339 in UTC. */
  when: { received: string, finished: string, duration_ms: number }
  where: {
    remote_address: string | null
    user_agent: string | null
    mcp_client: string | null
    request_id: string | null
    trace_id: string | null
  }
  decision: 'allowed' | 'denied' | null
  /** The rule that decided. */
  rule: string | null
  outcome: typeof OUTCOMES[number]
  error_code: string | null
  /** Size and digest (hex) of the answer's text. */
  result: { bytes: number, sha256: string } | null
  /** Before and after, for mutations. */
  diff: unknown
  /** Anything else a reviewer should know: a shared secret, a broken policy, failures that were only counted. */
  warning: string | null
  /** How many events this record stands for, if more than one. */
  count?: number
  /** The change that this is a step of. */
  change_id?: string
}

/** A record of an event as it was read from a log. Nothing but its place in the chain has been checked. */
export type LogRecord = ChainRecord & Partial<Omit<AuditEntry, 'event'>>

/** A caller, as records name one. */
export function whoOf (principal: Principal, roles: readonly string[]): NonNullable<AuditEntry['who']> {
  return {
    subject: principal.subject,
    issuer: principal.issuer,
    client_id: principal.clientId,
    roles,
    method: principal.method,
    token_id: principal.tokenId,
    client_certificate: principal.clientCertificate,
  }
}

/** Where a call comes from; `null` for what is not known, or does not exist there. */
export interface Source {
  remoteAddress: string | null
  userAgent: string | null
  mcpClient: string | null
  requestId: string | null
  traceId: string | null
}

/** The source of a call, as records name it. */
export function whereOf ({ remoteAddress, userAgent, mcpClient, requestId, traceId }: Source): AuditEntry['where'] {
  return {
    remote_address: remoteAddress,
    user_agent: userAgent,
    mcp_client: mcpClient,
    request_id: requestId,
    trace_id: traceId,
  }
}

/** An entry for an event of the service itself, rather than of a caller. */
export function ownEntry (event: AuditEvent, warning: string | null): AuditEntry {
  const now = new Date().toISOString()
  return {
    event,
    who: null,
    what: null,
    when: { received: now, finished: now, duration_ms: 0 },
    where: { remote_address: null, user_agent: null, mcp_client: null, request_id: null, trace_id: null },
    decision: null,
    rule: null,
    outcome: 'ok',
    error_code: null,
    result: null,
    diff: null,
    warning,
  }
}
