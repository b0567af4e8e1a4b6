/** A change as its reader sees it. */
import type { Change, ChangeView } from './change.ts'
import type { Parts } from './parts.ts'
import { isOpen } from './states.ts'

type Settings = Pick<Parts['settings'], 'publicUrl'>

/**
 * @param isAlive whether an open change has not expired. The lease ends at once; the state follows within seconds.
 */
export function viewOf ({ settings }: { settings: Settings }, stored: Change, isAlive = true): ChangeView {
  const change = isOpen(stored.state) && !isAlive
    ? { ...stored, state: 'expired' as const, expires_at: null }
    : stored
  const approvalUrl = approvalUrlOf(settings, change)
  return { change, next: nextStep(change, approvalUrl), approvalUrl }
}

/** The same, with the lease of an open change looked up. */
export async function currentViewOf (parts: Pick<Parts, 'settings' | 'ledger'>, stored: Change): Promise<ChangeView> {
  return viewOf(parts, stored, !isOpen(stored.state) || await parts.ledger.isAlive(stored))
}

function approvalUrlOf ({ publicUrl }: Settings, { requires, change_id: id, break_glass: glass }: Change) {
  const hasPage = requires.mode === 'approval' || glass !== null
  return hasPage && publicUrl !== undefined ? `${publicUrl.replace(/\/$/, '')}/changes/${id}` : undefined
}

/** The approvals that a change still lacks, such as `1 approval`. */
export function lackingApprovals ({ requires, approvals }: Change): string {
  const lacking = Math.max(0, requires.approvals_needed - approvals.length)
  return `${lacking} ${lacking === 1 ? 'approval' : 'approvals'}`
}

function nextStep (change: Change, link: string | undefined): string {
  const review = change.break_glass && !change.break_glass.review
    ? ' An approver must review the use of break-glass.'
    : ''
  return `${nextOf(change, link)}${review}`
}

function nextOf (change: Change, link: string | undefined): string {
  const { state, requires, undo, outcome } = change
  switch (state) {
    case 'planned':
      return requires.mode === 'direct'
        ? 'Nothing has been changed yet. Call apply_change to apply this plan before it expires.'
        : 'Nothing has been changed yet. Call apply_change to ask for ' +
          `${lackingApprovals(change)} by somebody else before this plan expires.`
    case 'pending':
      return `Nothing has been changed yet. Wait for ${lackingApprovals(change)} by somebody else` +
        `${link === undefined ? '' : ` at ${link}`}, then call apply_change again.`
    case 'approved':
      return 'Nothing has been changed yet. Call apply_change to apply what was approved before it expires.'
    case 'applying':
      return 'It is being applied. Call get_change again in a few seconds.'
    case 'applied':
      return undo ? `It took effect. To reverse it, call ${undo.tool} as undo says.` : 'It took effect.'
    case 'failed':
      return 'It did not take effect: outcome.error says why. Correct that, and propose it again.'
    case 'ambiguous':
      return outcome?.abandoned
        ? 'Nobody can tell whether it took effect, and it still may. Compare the cluster with diff before you ' +
          'propose anything on the same resource.'
        : 'It may take effect or have taken effect. Do not propose it again: call get_change later, because the ' +
          'service keeps watching the cluster.'
    case 'reverted':
      return 'It took effect, and then somebody else undid it. Find out who before you propose it again.'
    case 'rejected':
      return 'An approver rejected it. Nothing was changed.'
    case 'cancelled':
      return 'It was cancelled. Nothing was changed.'
    case 'expired':
      return 'It expired. Nothing was changed. Propose it again if it is still wanted.'
    case 'stale':
      return 'The cluster was no longer as the plan expected. Nothing was changed. Propose it again.'
  }
}
