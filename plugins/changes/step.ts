import {
  AuditUnavailable, ChangeEnded, ChangeExpired, ChangeInProgress, ChangeNotFound, isToolError, LedgerUnavailable
} from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import type { AuditEvent } from '../audit/record.ts'
import type { Change } from './change.ts'
import type { StepOptions, Stored } from './ledger/index.ts'
import type { Parts } from './parts.ts'
import { type Said, stepRecord } from './record.ts'
import { type ChangeState, isOpen } from './states.ts'
import { viewOf } from './view.ts'

/** A step of a change. */
export interface StepOf {
  event: AuditEvent
  /** The next version of the change. @throws a tool error if the step is not possible (any more) */
  next: (change: Change) => Change
  says: (next: Change) => Said
  options?: StepOptions
}

/**
 * Takes a step: records it durably, then stores it. So nothing happens to a change that is not recorded; a recorded
 * step that could not be stored is recorded again, as an error.
 */
export async function takeStep (parts: Parts, from: Stored, step: StepOf): Promise<Stored> {
  const next = step.next(from.change)
  const record = (said: Partial<Said>) =>
    parts.audit.recordDurably(stepRecord(parts, step.event, next, { ...step.says(next), ...said }))
  await record({})
  try {
    return await storeStep(parts, from, step)
  } catch (error) {
    const errorCode = isToolError(error) ? error.code : 'INTERNAL'
    await record({ outcome: 'error', errorCode, note: 'The step was recorded and could not be stored.' })
    throw error
  }
}

/** Stores a step without a record of it. If somebody else was first, checks whether it is still possible. */
export async function storeStep (
  parts: Parts,
  from: Stored,
  { next, options }: Pick<StepOf, 'next' | 'options'>
): Promise<Stored> {
  for (let stored = from; ;) {
    const to = next(stored.change)
    const replaced = await parts.ledger.replace(stored, to, options)
    if (replaced) {
      if (to.state !== stored.change.state) parts.onState(viewOf(parts, to))
      return replaced
    }
    const { change_id: id } = stored.change
    const read = await parts.ledger.read(id)
    if (!read || !('change' in read)) throw new ChangeNotFound(quote(id))
    if (isOpen(read.change.state) && !await parts.ledger.isAlive(read.change)) throw new ChangeExpired(id)
    // Nobody else has changed it, so the step lacks the lock.
    if (read.modRevision === stored.modRevision) throw new ChangeInProgress(id)
    stored = read
  }
}

/**
 * Takes actions in their order. If the audit log or the ledger does not answer, this process takes the remaining ones
 * later.
 */
export async function persist (parts: Parts, id: string, actions: (() => Promise<unknown>)[]): Promise<void> {
  const rest = [...actions]
  const run = async () => {
    for (; rest[0]; rest.shift()) await rest[0]()
  }
  try {
    await run()
  } catch (error) {
    if (isPassing(error)) parts.unsaved.set(id, [...parts.unsaved.get(id) ?? [], run])
    throw error
  }
}

/** Whether the ledger or the audit log may answer later. */
export function isPassing (error: unknown): boolean {
  return error instanceof LedgerUnavailable || error instanceof AuditUnavailable
}

/** @throws {ChangeExpired, ChangeEnded} unless the change is in one of these states */
export function requireState (change: Change, states: readonly ChangeState[], step: string): void {
  if (states.includes(change.state)) return
  if (change.state === 'expired') throw new ChangeExpired(change.change_id)
  throw new ChangeEnded(change.change_id, change.state, step)
}
