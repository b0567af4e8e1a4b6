/** The audit records of the steps of a change, linked by its id. */
import { quote } from '../../lib/printable.ts'
import type { Caller } from '../../tools/tool.ts'
import { type AuditEntry, type AuditEvent, ownEntry, whereOf, whoOf } from '../audit/record.ts'
import type { Change } from './change.ts'
import type { Parts, Step } from './parts.ts'
import { resourceOf } from './people.ts'

/** What a record says besides the change. */
export interface Said {
  /** Whoever takes the step; `null` for the service. */
  caller: Caller | null
  /** What the policy was asked. */
  step?: Step
  rule?: string
  outcome?: AuditEntry['outcome']
  errorCode?: string | null
  /** The planned difference, unless given. */
  diff?: unknown
  /** What a reviewer should know besides. */
  note?: string | null
}

/** The record of a step. */
export function stepRecord (parts: Parts, event: AuditEvent, change: Change, said: Said): AuditEntry {
  const { caller, step, rule, outcome = 'ok', errorCode = null, diff = change.diff, note = null } = said
  const own = ownEntry(event, [...actorOf(caller), ...note === null ? [] : [note]].join('; ') || null)
  const { kind, name } = resourceOf(parts, change)
  return {
    ...own,
    ...caller && byCaller(parts, caller),
    what: {
      tool: change.tool,
      operation: step ?? null,
      arguments: change.arguments,
      resources: { [`${kind}s`]: [name] },
    },
    decision: rule === undefined ? null : outcome === 'denied' ? 'denied' : 'allowed',
    rule: rule ?? null,
    outcome,
    error_code: errorCode,
    diff,
    change_id: change.change_id,
  }
}

function actorOf (caller: Caller | null): string[] {
  const { actor } = caller ?? {}
  if (!actor) return []
  return [`applied in the name of the requester by ${quote(actor.subject)} of ${quote(actor.issuer ?? '')}`]
}

function byCaller ({ authorize }: Parts, caller: Caller): Pick<AuditEntry, 'who' | 'when' | 'where'> {
  const { principal, receivedAt } = caller
  const finished = new Date()
  return {
    who: whoOf(principal, authorize.roles(principal)),
    when: {
      received: receivedAt.toISOString(),
      finished: finished.toISOString(),
      duration_ms: Math.max(0, finished.getTime() - receivedAt.getTime()),
    },
    where: whereOf(caller),
  }
}
