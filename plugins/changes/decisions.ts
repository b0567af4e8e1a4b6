/** The steps of people who decide on a change without applying it. */
import { ChangeEnded, isToolError, PermissionDenied, PlanStale } from '../../errors.ts'
import type { Caller } from '../../tools/tool.ts'
import type { AuditEvent } from '../audit/record.ts'
import type { Principal } from '../auth/principal.ts'
import type { Change, ChangeView, Plan } from './change.ts'
import type { Stored } from './ledger/index.ts'
import type { Parts } from './parts.ts'
import { isSamePerson, personOf, readChange, readOwnChange, resourceOf } from './people.ts'
import { currentMirror, driftOf, planNow } from './plan.ts'
import { stepRecord } from './record.ts'
import { isOpen, OPEN_STATES } from './states.ts'
import { requireState, takeStep } from './step.ts'
import { currentViewOf, viewOf } from './view.ts'

const APPROVER = { step: 'approve' } as const

/** Ends an open change of the caller. */
export async function cancel (parts: Parts, caller: Caller, id: string): Promise<ChangeView> {
  const stored = await readOwnChange(parts, caller.principal, id)
  const { change } = await takeStep(parts, stored, {
    event: 'cancellation',
    next (change) {
      requireState(change, OPEN_STATES, 'cancelled')
      return { ...change, state: 'cancelled', expires_at: null }
    },
    says: () => ({ caller }),
  })
  return viewOf(parts, change)
}

/** Approves what the approver has seen. */
export async function approve (
  parts: Parts,
  approver: Caller,
  id: string,
  digest: string,
  comment: string | null
): Promise<ChangeView> {
  const { stored, rule } = await readForApprover(parts, approver, id, 'approval')
  const drift = stored.change.state === 'pending'
    ? driftOf(parts, approver.principal, stored.change, currentMirror(parts))
    : []
  if (drift.length > 0) throw new PlanStale(drift.join('; '))
  const by = personOf(approver.principal)
  const at = new Date()
  const { change } = await takeStep(parts, stored, {
    event: 'approval',
    next (change) {
      requireState(change, ['pending'], 'approved')
      if (change.approvals.some(approval => isSamePerson(approval.by, by))) {
        throw denied(change, 'an approver who has not approved it yet')
      }
      if (digest !== change.digest) throw new PlanStale('what you saw is not what this change would do')
      const approvals = [...change.approvals, { by, at: at.toISOString(), comment, digest }]
      if (approvals.length < change.requires.approvals_needed) return { ...change, approvals }
      const expiresAt = new Date(at.getTime() + parts.settings.approvedLifetimeMs).toISOString()
      return { ...change, approvals, state: 'approved', expires_at: expiresAt }
    },
    says: () => ({ caller: approver, ...APPROVER, rule, note: comment }),
  })
  return viewOf(parts, change)
}

/** Ends a change that waits for an approval, or has it. */
export async function reject (
  parts: Parts,
  approver: Caller,
  id: string,
  comment: string | null
): Promise<ChangeView> {
  const { stored, rule } = await readForApprover(parts, approver, id, 'rejection')
  const rejection = { by: personOf(approver.principal), at: new Date().toISOString(), comment }
  const { change } = await takeStep(parts, stored, {
    event: 'rejection',
    next (change) {
      requireState(change, ['pending', 'approved'], 'rejected')
      return { ...change, state: 'rejected', rejection, expires_at: null }
    },
    says: () => ({ caller: approver, ...APPROVER, rule, note: comment }),
  })
  return viewOf(parts, change)
}

/** Takes note of the use of break-glass, so that it can be used again. */
export async function reviewBreakGlass (
  parts: Parts,
  approver: Caller,
  id: string,
  comment: string | null
): Promise<ChangeView> {
  const { stored, rule } = await readForApprover(parts, approver, id, 'break_glass_review')
  const review = { by: personOf(approver.principal), at: new Date().toISOString(), comment }
  const { change } = await takeStep(parts, stored, {
    event: 'break_glass_review',
    next (change) {
      const glass = change.break_glass
      if (!glass || glass.review) {
        throw new ChangeEnded(id, glass ? 'reviewed already' : 'not a break-glass change', 'reviewed')
      }
      if (isSamePerson(glass.by, review.by)) throw denied(change, 'somebody other than who broke the glass')
      return { ...change, break_glass: { ...glass, review } }
    },
    says: () => ({ caller: approver, ...APPROVER, rule, note: comment }),
    options: { breakGlass: 'unmark' },
  })
  return await currentViewOf(parts, change)
}

/** A change for the page that shows it, recomputed when the page opens. */
export interface Recomputed {
  view: ChangeView
  /** What the change is about. */
  name: string
  /** What it would do now; `null` if that is not known, or nothing that is possible, or if the change is not open. */
  plan: Plan | null
  /** Which preconditions hold no more. */
  drift: string[]
  /** What the caller lacks to decide on it; `null` if nothing. */
  needs: string | null
  hasApproved: boolean
}

export async function recompute (parts: Parts, { principal }: Caller, id: string): Promise<Recomputed> {
  const { change: stored } = await readChange(parts, principal, id)
  const view = await currentViewOf(parts, stored)
  const { change } = view
  const { name } = resourceOf(parts, change)
  const needs = lackOf(parts, principal, change) ?? null
  const by = personOf(principal)
  const hasApproved = change.approvals.some(approval => isSamePerson(approval.by, by))
  const shown = { view, name, needs, hasApproved, plan: null, drift: [] }
  if (!isOpen(change.state)) return shown
  try {
    const mirror = currentMirror(parts)
    const drift = driftOf(parts, principal, change, mirror)
    if (drift.length > 0) return { ...shown, drift }
    // An approver sees the whole blast radius, which consists of numbers.
    return { ...shown, plan: planNow(parts, needs === null ? 'everything' : principal, change, mirror) }
  } catch (error) {
    if (!isToolError(error)) throw error
    return shown
  }
}

/**
 * Reads a change for somebody who decides on it: signed in on a page, allowed to approve it, and not its requester. The
 * attempt of anybody else is recorded.
 */
export async function readForApprover (
  parts: Parts,
  approver: Caller,
  id: string,
  event: AuditEvent
): Promise<{ stored: Stored, rule: string }> {
  const { principal } = approver
  const stored = await readChange(parts, principal, id)
  const { change } = stored
  const needs = lackOf(parts, principal, change)
  const { rule } = decisionOn(parts, principal, change)
  if (needs === undefined) return { stored, rule }
  const refusal = denied(change, needs)
  await parts.audit.recordDurably(stepRecord(parts, event, change, {
    caller: approver, ...APPROVER, rule, outcome: 'denied', errorCode: refusal.code, note: `it requires ${needs}`,
  }))
  throw refusal
}

function decisionOn (parts: Parts, principal: Principal, change: Change) {
  return parts.authorize.decideOn(principal, 'approve', change.tool, resourceOf(parts, change))
}

/** What somebody lacks to decide on a change. */
function lackOf (parts: Parts, principal: Principal, change: Change): string | undefined {
  if (principal.method !== 'oidc') return 'a person who is signed in through OpenID Connect'
  const decision = decisionOn(parts, principal, change)
  if (decision.kind === 'denied') return decision.needs
  return isSamePerson(personOf(principal), change.requested_by) ? 'somebody other than the requester' : undefined
}

function denied ({ tool }: Change, needs: string) {
  return new PermissionDenied(`approve for ${tool}`, needs)
}
