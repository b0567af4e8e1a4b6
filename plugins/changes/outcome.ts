/** What became of a change that was sent. */
import { setTimeout as delay } from 'node:timers/promises'
import { BrokerUnsupported, isToolError } from '../../errors.ts'
import type { Caller } from '../../tools/tool.ts'
import type { AuditEvent } from '../audit/record.ts'
import type { ControlResult } from '../broker-control/index.ts'
import type { AdminResult } from '../kafka-admin/index.ts'
import type { Change, Outcome } from './change.ts'
import type { Stored } from './ledger/index.ts'
import type { Parts } from './parts.ts'
import { kindOf } from './people.ts'
import { refusal } from './propose.ts'
import { stepRecord } from './record.ts'
import type { ChangeState } from './states.ts'
import { persist, requireState, storeStep } from './step.ts'
import { viewOf } from './view.ts'

const VISIBLE_WITHIN_MS = 10_000
const LOOK_INTERVAL_MS = 25

export type Ending = Extract<ChangeState, 'applied' | 'failed' | 'ambiguous' | 'reverted'>

/** What is known about a change that was sent. */
export interface Known { state: Ending, outcome: Outcome }

/** Whether a change is about the cluster of this service, whose mirror shows what became of it. */
export function isOurs ({ settings }: Parts, { cluster_id: id }: Change): boolean {
  return id === settings.expectedClusterId
}

/** What the mirror shows of a change. `undefined` while the mirror may be older than the cluster, or of another one. */
export function look (
  parts: Parts,
  change: Change
): { visible: 'yes' | 'no' | 'never', diff: Outcome['observed_diff'], revision: number } | undefined {
  const { mirror, state } = parts.metadata
  if (!mirror || state !== 'synced' || !isOurs(parts, change)) return undefined
  return { ...kindOf(parts, change).observe(change, mirror), revision: mirror.revision }
}

/** The outcome that the mirror shows. */
export function applied ({ visible, diff, revision }: NonNullable<ReturnType<typeof look>>): Known {
  return {
    state: 'applied',
    outcome: { ...nothingSeen(null), revision: visible === 'yes' ? revision : null, observed_diff: diff },
  }
}

/** The outcome that only the broker knows of. */
function appliedBy (figures: Readonly<Record<string, number>>): Known {
  const diff = Object.entries(figures).map(([field, after]) => ({ field, before: 0, after }))
  return { state: 'applied', outcome: { ...nothingSeen(null), observed_diff: diff } }
}

export function failed (error: NonNullable<Outcome['error']>): Known {
  return { state: 'failed', outcome: nothingSeen(error) }
}

export function ambiguous (message: string): Known {
  return { state: 'ambiguous', outcome: nothingSeen({ code: 'UNKNOWN', message }) }
}

function nothingSeen (error: Outcome['error']): Outcome {
  return { at: new Date().toISOString(), revision: null, observed_diff: [], error }
}

/** What a broker's answer means. Waits until the mirror shows what the broker says that it did. */
export async function outcomeOf (parts: Parts, change: Change, result: AdminResult | ControlResult): Promise<Known> {
  switch (result.kind) {
    case 'ok':
      return 'figures' in result ? appliedBy(result.figures) : await waitForEffect(parts, change)
    case 'unknown':
      return ambiguous(`It was sent, and the answer is not known: ${result.reason}.`)
    case 'unsupported':
      return failed(errorOf(new BrokerUnsupported(change.tool === 'drain_broker' ? 'draining' : 'flushing')))
    case 'missing':
      return failed(errorOf(refusal(parts, result)))
    case 'refused':
      return failed(errorOf(refusal(parts, { ...result, kind: 'refused' })))
  }
}

async function waitForEffect (parts: Parts, change: Change): Promise<Known> {
  const untilMs = performance.now() + VISIBLE_WITHIN_MS
  for (;;) {
    const seen = look(parts, change)
    if (seen && seen.visible !== 'no') return applied(seen)
    if (performance.now() > untilMs) break
    await delay(LOOK_INTERVAL_MS)
  }
  return ambiguous(
    `The broker reported success, and the cluster has not shown the effect within ${VISIBLE_WITHIN_MS / 1_000} s.`
  )
}

/** An error as an outcome contains it. */
export function errorOf (error: unknown): NonNullable<Outcome['error']> {
  return isToolError(error)
    ? { code: error.code, message: error.message }
    : { code: 'INTERNAL', message: 'The service failed before it sent anything.' }
}

/** Records what became of a change, and stores it: later, if the audit log or the ledger does not answer now. */
export async function conclude (
  parts: Parts,
  stored: Stored,
  { state, outcome }: Known,
  { event, caller, from }: { event: AuditEvent, caller: Caller | null, from: readonly ChangeState[] }
): Promise<Stored> {
  const { error, observed_diff: diff } = outcome
  const next = (change: Change): Change => {
    requireState(change, from, state)
    return { ...change, state, outcome }
  }
  const record = stepRecord(parts, event, next(stored.change), {
    caller,
    ...caller && { step: 'apply' as const },
    outcome: state === 'applied' ? 'ok' : 'error',
    errorCode: state === 'applied' ? null : error?.code ?? 'UNKNOWN',
    diff,
    note: `${outcome.abandoned ? 'nobody can tell' : state}${error ? `: ${error.message}` : ''}`,
  })
  let concluded = stored
  await persist(parts, stored.change.change_id, [
    async () => await parts.audit.recordDurably(record),
    async () => { concluded = await storeStep(parts, stored, { next }) },
  ])
  if (state !== stored.change.state && (state === 'ambiguous' || state === 'reverted')) {
    void tellOthers(parts, state, concluded.change)
  }
  return concluded
}

async function tellOthers (parts: Parts, what: 'ambiguous' | 'reverted', change: Change): Promise<void> {
  const delivered = await parts.tell(what, viewOf(parts, change))
  if (delivered !== true) parts.log.warn({ change_id: change.change_id, reason: delivered }, 'nobody was notified')
}
