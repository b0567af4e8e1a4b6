/** Finishes what no replica is working on any more, by what the mirror shows. Never sends anything. */
import { isDeepStrictEqual } from 'node:util'
import { isToolError } from '../../errors.ts'
import { repeat } from '../../lib/repeat.ts'
import { hasForgotten } from './broker-memory.ts'
import type { Change } from './change.ts'
import type { Hold } from './ledger/hold.ts'
import type { Overview, Stored } from './ledger/index.ts'
import { ambiguous, applied, conclude, failed, isOurs, type Known, look } from './outcome.ts'
import type { Parts } from './parts.ts'
import { resourceOf } from './people.ts'
import { isOpen } from './states.ts'
import { isPassing, requireState, takeStep } from './step.ts'

const INTERVAL_MS = 1_000
/** After this time, a request of which its broker knows nothing has ended: a broker waits 5 s for etcd. */
const REQUEST_ENDS_MS = 60_000

/** How often the settler looks, and when it asks brokers about ambiguous changes. */
export interface Intervals { everyMs: number, requestEndsMs: number }

/** Settles changes until it is stopped. One replica at a time does; another one takes over from a replica that dies. */
export class Settler {
  readonly #parts: Parts
  readonly #intervals: Intervals
  /** When this replica first saw an ambiguous change, or asked its broker last, on the monotonic clock. */
  readonly #askedMs = new Map<string, number>()
  #hold: Hold | undefined
  #stop: (() => Promise<void>) | undefined

  constructor (parts: Parts, intervals: Intervals = { everyMs: INTERVAL_MS, requestEndsMs: REQUEST_ENDS_MS }) {
    this.#parts = parts
    this.#intervals = intervals
  }

  start (): void {
    this.#stop = repeat(async signal => {
      await this.#round(signal).catch(error => {
        if (isPassing(error)) return
        this.#parts.log.error({ err: error }, 'changes could not be settled')
      })
    }, this.#intervals.everyMs)
  }

  async stop (): Promise<void> {
    await this.#stop?.()
    await this.#hold?.release()
  }

  async #round (signal: AbortSignal): Promise<void> {
    await saveUnsaved(this.#parts)
    if (!this.#hold?.held) this.#hold = await this.#parts.ledger.becomeSettler(this.#parts.replica)
    if (!this.#hold) return
    const overview = await this.#parts.ledger.overview()
    this.#noteAmbiguous(overview)
    for (const { id } of overview.active) {
      if (signal.aborted || !this.#hold.held) return
      if (this.#parts.unsaved.has(id)) continue
      await settle(this.#parts, id, overview, () => this.#isTimeToAsk(id)).catch(error => {
        if (isPassing(error)) throw error
        // One change must not stop the others. After a tool error, somebody else has taken a step in the meantime.
        if (!isToolError(error)) this.#parts.log.error({ change_id: id, err: error }, 'a change could not be settled')
      })
    }
  }

  #noteAmbiguous ({ active }: Overview): void {
    const ids = new Set(active.filter(({ state }) => state === 'ambiguous').map(({ id }) => id))
    for (const id of this.#askedMs.keys()) if (!ids.has(id)) this.#askedMs.delete(id)
    for (const id of ids) if (!this.#askedMs.has(id)) this.#askedMs.set(id, performance.now())
  }

  /** Whether the broker of an ambiguous change may be asked now. If so, it is not asked again for a while. */
  #isTimeToAsk (id: string): boolean {
    const now = performance.now()
    const isTime = now - (this.#askedMs.get(id) ?? now) >= this.#intervals.requestEndsMs
    if (isTime) this.#askedMs.set(id, now)
    return isTime
  }
}

/** Takes the steps that this process could not take when they were due. */
async function saveUnsaved ({ unsaved, log }: Parts): Promise<void> {
  for (const id of unsaved.keys()) {
    for (let run; (run = unsaved.get(id)?.[0]);) {
      try {
        await run()
      } catch (error) {
        if (isPassing(error)) return
        log.debug({ change_id: id, err: error }, 'a late step is not possible any more')
      }
      // Another one may have been added in the meantime.
      const [, ...rest] = unsaved.get(id) ?? []
      if (rest.length > 0) unsaved.set(id, rest)
      else unsaved.delete(id)
    }
  }
}

/** Takes the next step of a change, if it is due. */
async function settle (
  parts: Parts,
  id: string,
  overview: Overview,
  isTimeToAsk: () => boolean
): Promise<void> {
  const entry = overview.active.find(each => each.id === id)
  const isLocked = overview.locked === id
  if (entry && isOpen(entry.state) && overview.alive.has(id) && !(entry.attempted && !isLocked)) return
  if (entry?.state === 'applying' && isLocked) return
  const stored = await parts.ledger.read(id)
  if (!stored) return await parts.ledger.forget(id)
  if (!('change' in stored)) return
  const { change } = stored
  const isWatched = overview.watched.has(id)
  if (isOpen(change.state)) {
    if (!overview.alive.has(id)) await expire(parts, stored)
    else if (change.execution && overview.locked === undefined) await clearAttempt(parts, stored)
  } else if (change.state === 'applying' && entry?.state === 'applying' && !isLocked) {
    await settleOrphan(parts, stored)
  } else if (change.state === 'ambiguous') {
    await settleAmbiguous(parts, stored, isWatched, isTimeToAsk)
  } else if (change.state === 'applied') {
    await watchApplied(parts, stored, isWatched)
  }
}

async function expire (parts: Parts, stored: Stored): Promise<void> {
  await takeStep(parts, stored, {
    event: 'expiry',
    next: change => ({ ...change, state: 'expired', expires_at: null, execution: null }),
    says: () => ({ caller: null }),
  })
}

/** A replica died before it sent anything, so the change can be tried again. */
async function clearAttempt (parts: Parts, stored: Stored): Promise<void> {
  await takeStep(parts, stored, {
    event: 'settlement',
    next (change) {
      requireState(change, [stored.change.state], 'settled')
      return { ...change, execution: null }
    },
    says: () => ({
      caller: null,
      outcome: 'error',
      errorCode: 'INTERRUPTED',
      diff: [],
      note: 'the replica stopped before it sent anything',
    }),
    // Another attempt may have begun since.
    options: { unlocked: true },
  })
}

/** A replica died while it applied the change. It may have sent it. */
async function settleOrphan (parts: Parts, stored: Stored): Promise<void> {
  const seen = look(parts, stored.change)
  if (!seen && isOurs(parts, stored.change)) return
  const known = seen?.visible === 'yes'
    ? applied(seen)
    : ambiguous('The replica stopped while it applied the change, which it may have sent.')
  await conclude(parts, stored, known, { event: 'settlement', caller: null, from: ['applying'] })
}

async function settleAmbiguous (
  parts: Parts,
  stored: Stored,
  isWatched: boolean,
  isTimeToAsk: () => boolean
): Promise<void> {
  const seen = look(parts, stored.change)
  const settled = { event: 'settlement', caller: null, from: ['ambiguous'] } as const
  if (seen?.visible === 'yes') {
    await conclude(parts, stored, applied(seen), settled)
  } else if (!isWatched && stored.change.outcome) {
    const { outcome } = stored.change
    await conclude(parts, stored, { state: 'ambiguous', outcome: { ...outcome, abandoned: true } }, settled)
  } else if (seen && isTimeToAsk() && await hasForgotten(parts, stored.change)) {
    const message = 'Neither the broker that it was sent to nor etcd knows of it.'
    await conclude(parts, stored, failed({ code: 'UNKNOWN', message }), settled)
  }
}

/** Looks for an effect that somebody else has undone. */
async function watchApplied (parts: Parts, stored: Stored, isWatched: boolean): Promise<void> {
  if (!isWatched) return await parts.ledger.unwatch(stored)
  const seen = look(parts, stored.change)
  const revision = stored.change.outcome?.revision ?? null
  // The mirror of this replica may be behind that of the one which saw the effect.
  if (seen?.visible !== 'no' || revision === null || seen.revision < revision) return
  if (await isReplaced(parts, stored.change)) return await parts.ledger.unwatch(stored)
  const known: Known = {
    state: 'reverted',
    outcome: {
      at: new Date().toISOString(),
      revision: seen.revision,
      observed_diff: seen.diff,
      error: { code: 'UNKNOWN', message: 'Another writer has undone it.' },
    },
  }
  await conclude(parts, stored, known, { event: 'settlement', caller: null, from: ['applied'] })
}

/** Whether a later change of ours is about the same resource: then its effect is no surprise. */
async function isReplaced (parts: Parts, change: Change): Promise<boolean> {
  // Read after its effect was seen, so that the ledger already says that it was sent.
  const { active } = await parts.ledger.overview()
  const others = active.filter(({ id, state }) => id !== change.change_id && !isOpen(state))
  const sentAt = change.execution?.sent_at_revision ?? 0
  for (const { id } of others) {
    const other = await parts.ledger.read(id)
    if (!other || !('change' in other)) continue
    const laterAt = other.change.execution?.sent_at_revision ?? null
    const isAboutSame = isDeepStrictEqual(resourceOf(parts, other.change), resourceOf(parts, change))
    if (isAboutSame && laterAt !== null && laterAt > sentAt) return true
  }
  return false
}
