/** Applies a change: once, through one broker, and only if everything that was true at its approval still is. */
import {
  ApprovalRequired, BreakGlassUnreviewed, ChangeInProgress, ChangesClosed, ClusterMismatch, MetadataStale,
  PermissionDenied, PlanStale
} from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import type { Caller } from '../../tools/tool.ts'
import type { Principal } from '../auth/principal.ts'
import type { Requirement } from '../rbac/policy.ts'
import { attempt, type Progress, type Reason } from './attempt.ts'
import type { Change, ChangeView, Person, Requester } from './change.ts'
import { readForApprover } from './decisions.ts'
import type { Stored } from './ledger/index.ts'
import type { Parts } from './parts.ts'
import { isSamePerson, personOf, readOwnChange, requireAllowed } from './people.ts'
import { currentMirror, digestOf, driftOf, requireCluster } from './plan.ts'
import { OPEN_STATES } from './states.ts'
import { requireState, takeStep } from './step.ts'
import { lackingApprovals, viewOf } from './view.ts'

/** Applies a change, or asks for the approval that it lacks. Called again, returns its outcome. */
export async function apply (
  parts: Parts,
  caller: Caller,
  id: string,
  breakGlass: Reason | undefined,
  progress: Progress
): Promise<ChangeView> {
  progress('checking the plan')
  const found = await readOwnChange(parts, caller.principal, id)
  const { state } = found.change
  if (['applied', 'failed', 'ambiguous', 'reverted'].includes(state)) return viewOf(parts, found.change)
  if (state === 'applying') throw new ChangeInProgress(id)
  const glass = await permit(parts, caller, found, breakGlass)
  progress('taking the lock')
  const lock = await parts.ledger.lock(id, parts.replica)
  if (typeof lock === 'string') throw new ChangeInProgress(lock)
  try {
    // Something may have changed before the lock was taken.
    const locked = await readOwnChange(parts, caller.principal, id)
    requireState(locked.change, OPEN_STATES, 'applied')
    await permit(parts, caller, locked, breakGlass)
    const check = async (stored: Stored) => { await permit(parts, caller, stored, breakGlass) }
    const { change } = await attempt(parts, { caller, stored: locked, lock, breakGlass: glass, progress, check })
    return viewOf(parts, change)
  } finally {
    await lock.release()
  }
}

/**
 * Applies an approved change in the name of its requester, for an approver who has approved it. The policy must still
 * allow it to the requester.
 */
export async function applyForRequester (
  parts: Parts,
  approver: Caller,
  id: string,
  digest: string,
  progress: Progress
): Promise<ChangeView> {
  const { stored: { change } } = await readForApprover(parts, approver, id, 'approval')
  const { requested_by: requestedBy, requester, approvals } = change
  const by = personOf(approver.principal)
  if (!approvals.some(approval => isSamePerson(approval.by, by) && approval.digest === digest)) {
    throw new PermissionDenied(`apply_change for ${change.tool}`, 'an approver who has approved exactly this change')
  }
  if (!requester) throw new ApprovalRequired(id, 'a new request', ', because its request is of an older version')
  return await apply(parts, {
    ...approver,
    actor: approver.principal,
    principal: requesterPrincipal(requestedBy, requester),
  }, id, undefined, progress)
}

function requesterOf ({ authorize }: Parts, principal: Principal): Requester {
  const { method, scopes } = principal
  return { method, scopes: scopes ? [...scopes] : null, claims: authorize.boundClaims(principal) }
}

function requesterPrincipal ({ subject, issuer, client_id: clientId }: Person, requester: Requester): Principal {
  const { method, scopes, claims } = requester
  return {
    subject,
    issuer,
    clientId,
    method,
    scopes: scopes ? new Set(scopes) : undefined,
    tokenId: null,
    expiresAt: null,
    claims,
    clientCertificate: null,
  }
}

/**
 * Refuses a change that must not be applied now. Resolves to the reason for breaking the glass if that is what permits
 * it.
 * @throws a tool error
 */
async function permit (
  parts: Parts,
  caller: Caller,
  stored: Stored,
  breakGlass: Reason | undefined
): Promise<Reason | undefined> {
  const { change } = stored
  const { authorize, settings, ledger } = parts
  requireState(change, OPEN_STATES, 'applied')
  if (authorize.changesClosed) throw new ChangesClosed()
  if (change.cluster_id !== settings.expectedClusterId || change.environment !== settings.environment) {
    throw new ClusterMismatch(
      `it was planned for the cluster ${quote(change.cluster_id)} in the environment ${quote(change.environment ?? '')}`
    )
  }
  requireAllowed(parts, caller.principal, 'apply', change)
  const requirement = authorize.requirement(change.tool)
  if (requirement.mode === 'closed') {
    const needs = `a change to the rule ${requirement.rule} of the policy, which says closed`
    throw new PermissionDenied(`apply_change for ${change.tool}`, needs)
  }
  const mirror = currentMirror(parts)
  requireCluster(parts, mirror)
  if (mirror.revision < change.revision) throw new MetadataStale('it is older than the plan')
  const drift = driftOf(parts, caller.principal, change, mirror)
  if (drift.length > 0) return await endStale(parts, caller, stored, drift)
  const required = requiredBy(change, requirement)
  if (change.state !== 'planned' && required.approvals_needed > change.requires.approvals_needed) {
    return await endStale(parts, caller, stored, [
      `the policy requires ${required.approvals_needed} approvals now, and ${change.requires.approvals_needed} when ` +
        'the change was sent for approval',
    ])
  }
  if (isApproved({ ...change, requires: required })) return undefined
  if (!breakGlass) return await requestApproval(parts, caller, stored, required)
  requireAllowed(parts, caller.principal, 'break-glass', change)
  const unreviewed = await ledger.unreviewed()
  if (unreviewed !== undefined && unreviewed !== change.change_id) throw new BreakGlassUnreviewed(unreviewed)
  return breakGlass
}

/** What a change needs: what the policy says now, and never less than what it said when the change was planned. */
function requiredBy (
  { requires }: Change,
  { mode, approvals }: Requirement
): Change['requires'] {
  const now = mode === 'approval' ? approvals : 0
  return {
    mode: mode === 'approval' ? mode : requires.mode,
    approvals_needed: Math.max(now, requires.approvals_needed),
  }
}

/** Whether enough people have approved exactly this change. */
function isApproved (change: Change): boolean {
  const { requires, approvals, state } = change
  if (requires.mode === 'direct') return true
  const digest = digestOf(change)
  const valid = approvals.filter(approval => approval.digest === digest && digest === change.digest)
  return state === 'approved' && valid.length >= requires.approvals_needed
}

async function endStale (parts: Parts, caller: Caller, stored: Stored, drift: string[]): Promise<never> {
  const reason = drift.join('; ')
  await takeStep(parts, stored, {
    event: 'stale',
    next (change) {
      requireState(change, OPEN_STATES, 'applied')
      return { ...change, state: 'stale', expires_at: null, execution: null }
    },
    says: () => ({ caller, outcome: 'error', errorCode: 'PLAN_STALE', note: reason }),
  })
  throw new PlanStale(reason)
}

/** Asks for an approval, once. */
async function requestApproval (
  parts: Parts,
  caller: Caller,
  stored: Stored,
  requires: Change['requires']
): Promise<never> {
  let { change } = stored
  if (change.state === 'planned') {
    const expiresAt = new Date(Date.now() + parts.settings.pendingLifetimeMs).toISOString()
    const requester = requesterOf(parts, caller.principal)
    ;({ change } = await takeStep(parts, stored, {
      event: 'approval_request',
      next (change) {
        requireState(change, ['planned'], 'sent for approval')
        return { ...change, state: 'pending', requires, requester, expires_at: expiresAt }
      },
      says: () => ({ caller, step: 'apply' }),
    }))
    const delivered = await parts.tell('approval_requested', viewOf(parts, change))
    if (delivered !== true) parts.log.warn({ change_id: change.change_id, reason: delivered }, 'approvers not notified')
  }
  const { approvalUrl } = viewOf(parts, change)
  const link = approvalUrl === undefined ? '' : `, at ${approvalUrl}`
  throw new ApprovalRequired(change.change_id, lackingApprovals({ ...change, requires }), link)
}
