/** The life of a change: its states, and every transition between them. Nothing else may change a state. */

const TRANSITIONS = {
  planned: ['pending', 'applying', 'cancelled', 'expired', 'stale'],
  pending: ['approved', 'rejected', 'cancelled', 'expired', 'stale', 'applying'],
  approved: ['applying', 'rejected', 'cancelled', 'expired', 'stale'],
  applying: ['applied', 'failed', 'ambiguous'],
  ambiguous: ['applied', 'failed'],
  applied: ['reverted'],
  failed: [],
  rejected: [],
  cancelled: [],
  expired: [],
  stale: [],
  reverted: [],
} as const satisfies Record<string, readonly string[]>

export type ChangeState = keyof typeof TRANSITIONS

export const CHANGE_STATES = Object.keys(TRANSITIONS) as readonly ChangeState[]

/** The states that wait for somebody: a plan, a request, an approval. Each has a lifetime. */
export const OPEN_STATES = ['planned', 'pending', 'approved'] as const satisfies readonly ChangeState[]

export function isOpen (state: ChangeState): state is typeof OPEN_STATES[number] {
  return (OPEN_STATES as readonly ChangeState[]).includes(state)
}

/** Whether a change may go from one state to the other. Only break-glass leads from `pending` to `applying`. */
export function isTransition (from: ChangeState, to: ChangeState): boolean {
  return (TRANSITIONS[from] as readonly ChangeState[]).includes(to)
}
