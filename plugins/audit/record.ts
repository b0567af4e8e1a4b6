import type { AuthMethod } from '../auth/principal.ts'
import type { Operation } from '../rbac/decide.ts'
import type { LiveRecords } from './live.ts'
import type { SinkState } from './sinks/sink.ts'

/** What happened: a tool call, a failed sign-in (or a count of them), a policy read, the service's start and stop. */
export type AuditEvent = 'tool_call' | 'intent' | 'authentication_failure' | 'policy_reload' | 'start' | 'stop'

/** What a part of the service tells of one event; time, sequence, replica and hash are added by the chain. */
export interface AuditEntry {
  event: AuditEvent
  who: {
    subject: string
    issuer: string | null
    client_id: string | null
    roles: readonly string[]
    method: AuthMethod
    token_id: string | null
    client_certificate: string | null
  } | null
  /** A tool that does not exist has no operation, and one that was not named no name. */
  what: {
    tool: string | null
    operation: Operation | null
    arguments: unknown
    resources: { topics?: string[], groups?: string[] }
  } | null
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
  outcome: 'ok' | 'error' | 'denied'
  error_code: string | null
  result: { bytes: number, sha256: string } | null
  /** Before and after, for mutations. */
  diff: unknown
  /** What a reviewer should know besides: a shared secret, a broken policy, a count of failures left out. */
  warning: string | null
  /** How many events this record stands for, where it is more than one. */
  count?: number
}

/** How the audit is doing, for `/healthz`. */
export interface AuditState {
  /** `degraded`: a sink takes no records; `unavailable`: none does. */
  state: 'ok' | 'degraded' | 'unavailable'
  /** Records that no sink took, since the start. */
  lost: number
  sinks: SinkState[]
}

/** Where the rest of the service leaves what happened. */
export interface Audit {
  /**
   * Hands a record to the sinks. Resolves when at least one has taken it (files: handed to the operating system; fsync
   * follows per batch within 100 ms), or at once where `AUDIT_FAIL_MODE=open` lets it go on and it was counted as lost.
   * @throws {AuditUnavailable} when no sink takes it
   */
  record: (entry: AuditEntry) => Promise<void>
  /** As `record`, and resolves only once it is durable: what a mutation waits for before it runs. @throws {AuditUnavailable} */
  recordDurably: (entry: AuditEntry) => Promise<void>
  /**
   * As `record`, for failed sign-ins: the first of an interval are recorded one by one, and what comes beyond them as one
   * record with their `count` when it ends. Never rejects: the caller is turned away anyhow.
   */
  authenticationFailure: (entry: AuditEntry) => Promise<void>
  /** Arguments or a diff as they are recorded: without what is named like a secret. */
  redact: (value: unknown) => unknown
  /** What was recorded lately, and what is being recorded. */
  readonly live: LiveRecords
  readonly state: AuditState
}
