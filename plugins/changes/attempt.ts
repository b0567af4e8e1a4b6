/** One attempt to apply a change, under the lock. However it ends, the ledger says what may have happened. */
import { ChangeInProgress, isToolError } from '../../errors.ts'
import type { Caller } from '../../tools/tool.ts'
import type { BreakGlass, Change, Execution } from './change.ts'
import type { Lock, Stored } from './ledger/index.ts'
import { ambiguous, conclude, errorOf, failed, type Known, outcomeOf } from './outcome.ts'
import type { Parts } from './parts.ts'
import { personOf } from './people.ts'
import { currentMirror } from './plan.ts'
import { type Said, stepRecord } from './record.ts'
import { isOpen, OPEN_STATES } from './states.ts'
import { isPassing, persist, requireState, storeStep, takeStep } from './step.ts'
import { openTarget, type Target } from './target.ts'
import { viewOf } from './view.ts'

/** Where a step is reported to a client that asked for progress. */
export type Progress = (step: string) => void
export type Reason = Pick<BreakGlass, 'reason' | 'ticket'>

interface Attempt {
  caller: Caller
  stored: Stored
  lock: Lock
  /** Why the glass is broken, if that is what permits the change. */
  breakGlass: Reason | undefined
  progress: Progress
  /** @throws a tool error unless the change may still be applied */
  check: (stored: Stored) => Promise<void>
}

/**
 * Applies a change. Until it is `applying` in the ledger, nothing has been sent, and the attempt can be given up. From
 * then on, nobody ever sends it again.
 */
export async function attempt (parts: Parts, options: Attempt): Promise<Stored> {
  const { caller, lock, progress } = options
  const begun = await begin(parts, options)
  let target: Target | undefined
  let sent: Stored
  try {
    await announce(parts, options, begun.change)
    progress('connecting to a broker')
    target = await openTarget(parts, begun.change)
    progress(`comparing the view of ${target.address} with etcd`)
    await target.fence()
    await options.check(begun)
    sent = await markSent(parts, begun, target, lock)
  } catch (error) {
    await target?.close()
    await giveUp(parts, options, begun, error)
    throw error
  }
  let known: Known
  try {
    progress(`sending it to ${target.address}`)
    known = await send(parts, sent.change, target, options)
  } finally {
    await target.close()
  }
  progress('recording the outcome')
  return await conclude(parts, sent, known, { event: 'outcome', caller, from: ['applying', 'ambiguous'] })
}

/** Notes in the ledger that an attempt has begun, so that somebody finds it if this replica dies. */
async function begin (parts: Parts, { caller, stored, lock, breakGlass, progress }: Attempt): Promise<Stored> {
  const execution: Execution = {
    by: personOf(caller.principal),
    ...caller.actor && { approver: personOf(caller.actor) },
    replica: parts.replica,
    started_at: new Date().toISOString(),
    broker: null,
    sent_at_revision: null,
  }
  const glass = breakGlass && { ...breakGlass, ...unreviewedBy(caller) }
  const next = (change: Change): Change => {
    requireState(change, OPEN_STATES, 'applied')
    return { ...change, execution, ...glass && { break_glass: glass } }
  }
  progress('recording the intent')
  if (!glass) return await storeStep(parts, stored, { next, options: { lock } })
  return await takeStep(parts, stored, {
    event: 'break_glass', next, says: change => glassSaid(caller, change), options: { lock, breakGlass: 'mark' },
  })
}

/** Tells people that the glass is broken, and makes the intent durable. */
async function announce (parts: Parts, { caller, breakGlass }: Attempt, change: Change): Promise<void> {
  if (breakGlass && change.break_glass) {
    const delivered = await parts.tell('break_glass', viewOf(parts, change))
    change.break_glass = { ...change.break_glass, notified: delivered }
    if (delivered !== true) {
      await parts.audit.recordDurably(stepRecord(parts, 'break_glass', change, glassSaid(caller, change)))
    }
  }
  await parts.audit.recordDurably(stepRecord(parts, 'intent', change, { caller, step: 'apply' }))
}

/** From now on, nobody may send the change (again). */
async function markSent (parts: Parts, begun: Stored, { address }: Target, lock: Lock): Promise<Stored> {
  const { execution, break_glass: glass } = begun.change
  const { revision } = currentMirror(parts)
  return await storeStep(parts, begun, {
    next (change) {
      requireState(change, OPEN_STATES, 'applied')
      if (!execution || !isSameAttempt(change.execution, execution)) throw new ChangeInProgress(change.change_id)
      return {
        ...change,
        state: 'applying',
        expires_at: null,
        break_glass: glass,
        execution: { ...execution, broker: address, sent_at_revision: revision },
      }
    },
    options: { lock, broker: address },
  })
}

async function send (parts: Parts, change: Change, target: Target, { lock, progress }: Attempt): Promise<Known> {
  if (!lock.held) {
    return failed({ code: 'LEDGER_UNAVAILABLE', message: 'The lock was lost before anything was sent.' })
  }
  let result
  try {
    result = await target.send()
  } catch (error) {
    // Nothing was sent if the broker could not be reached. After any other error, nobody knows.
    return isToolError(error) ? failed(errorOf(error)) : ambiguous('The service failed while it sent it.')
  }
  progress('waiting until the cluster shows it')
  return await outcomeOf(parts, change, result)
}

/** Ends an attempt that has sent nothing. The change stays as it was, so that it can be tried again. */
async function giveUp (parts: Parts, { caller }: Attempt, begun: Stored, reason: unknown): Promise<void> {
  const { change_id: id, execution } = begun.change
  const error = errorOf(reason)
  const record = stepRecord(parts, 'outcome', begun.change, {
    caller,
    step: 'apply',
    outcome: 'error',
    errorCode: error.code,
    diff: [],
    note: `nothing was sent: ${error.message}`,
  })
  const next = (change: Change): Change => {
    if (!execution || !isSameAttempt(change.execution, execution)) return change
    if (isOpen(change.state)) return { ...change, execution: null }
    // The ledger stored that it was about to be sent, although it did not answer.
    return change.state === 'applying' ? { ...change, ...failed(error) } : change
  }
  await persist(parts, id, [
    async () => await parts.audit.recordDurably(record),
    async () => await storeStep(parts, begun, { next }),
  ]).catch(error => {
    if (!isPassing(error)) parts.log.debug({ change_id: id, err: error }, 'an attempt ended with its change')
  })
}

function isSameAttempt (one: Execution | null, { replica, started_at: startedAt }: Execution): boolean {
  return one !== null && one.replica === replica && one.started_at === startedAt
}

function unreviewedBy (caller: Caller): Omit<BreakGlass, 'reason' | 'ticket'> {
  return { by: personOf(caller.principal), at: new Date().toISOString(), notified: 'not yet', review: null }
}

function glassSaid (caller: Caller, change: Change): Said {
  const { reason, ticket, notified } = change.break_glass as BreakGlass
  const isUndelivered = notified !== true && notified !== 'not yet'
  return {
    caller,
    step: 'break-glass',
    outcome: isUndelivered ? 'error' : 'ok',
    note: `reason: ${reason}; ticket: ${ticket}${isUndelivered ? `; nobody was notified: ${notified}` : ''}`,
  }
}
