/** What operators see of changes, in `/healthz` and `/metrics`. */
import { repeat } from '../../lib/repeat.ts'
import { CHANGE_TOOLS, type ChangeTool, type ChangeView } from './change.ts'
import type { Ledger } from './ledger/index.ts'
import type { Telling } from './parts.ts'
import { CHANGE_STATES, type ChangeState } from './states.ts'

const INTERVAL_MS = 5_000

/** Counts since the start, by this process. */
export interface ChangeCounters {
  /** States that changes have reached. */
  reached: { tool: ChangeTool, state: ChangeState, count: number }[]
  breakGlass: number
  /** Messages of the webhook, by whether they were delivered. */
  told: { delivered: number, undelivered: number }
}

/** The ledger as it was a few seconds ago. Names no change: whoever reads this page has not signed in. */
export interface ChangesState {
  state: 'ok' | 'unavailable'
  /** Why it does not answer. */
  reason?: string
  /** Changes that wait for an approval. */
  pending: number
  /** Seconds since the oldest of them was proposed; `null` without one. */
  oldest_pending_seconds: number | null
  /** Changes whose effect is not known. */
  ambiguous: number
  /** Whether a change is being applied. */
  locked: boolean
  /** Whether a use of break-glass waits for its review. */
  break_glass_unreviewed: boolean
}

/** Counts what happens, and looks at the ledger every few seconds. */
export class ChangeFigures {
  readonly #ledger: Pick<Ledger, 'overview' | 'read' | 'unreviewed' | 'failure'>
  readonly #reached = new Map<string, ChangeCounters['reached'][number]>()
  /** When changes that are pending were proposed, in milliseconds. */
  #pending = new Map<string, number>()
  #seen: Omit<ChangesState, 'pending' | 'oldest_pending_seconds'> = {
    state: 'ok', ambiguous: 0, locked: false, break_glass_unreviewed: false,
  }

  #stop: (() => Promise<void>) | undefined
  #breakGlass = 0
  readonly #told = { delivered: 0, undelivered: 0 }

  constructor (ledger: Pick<Ledger, 'overview' | 'read' | 'unreviewed' | 'failure'>) {
    this.#ledger = ledger
    // Initialized to 0, so that the first change is an increase.
    for (const tool of CHANGE_TOOLS) {
      for (const state of CHANGE_STATES) this.#reached.set(`${tool} ${state}`, { tool, state, count: 0 })
    }
  }

  start (): void {
    this.#stop = repeat(() => this.#look(), INTERVAL_MS)
  }

  async stop (): Promise<void> {
    await this.#stop?.()
  }

  /** A change has reached a state. */
  reached ({ change: { tool, state } }: ChangeView): void {
    const entry = this.#reached.get(`${tool} ${state}`)
    if (entry) entry.count++
  }

  told (what: Telling, delivered: true | string): void {
    // The webhook is told of every use, before the change runs.
    if (what === 'break_glass') this.#breakGlass++
    this.#told[delivered === true ? 'delivered' : 'undelivered']++
  }

  get counters (): ChangeCounters {
    return { reached: [...this.#reached.values()], breakGlass: this.#breakGlass, told: this.#told }
  }

  get state (): ChangesState {
    const oldestMs = Math.min(...this.#pending.values())
    const ageSeconds = Math.max(0, Math.round((Date.now() - oldestMs) / 1_000))
    return {
      ...this.#seen,
      pending: this.#pending.size,
      oldest_pending_seconds: this.#pending.size === 0 ? null : ageSeconds,
    }
  }

  async #look (): Promise<void> {
    try {
      const { active, alive, locked } = await this.#ledger.overview()
      const pending = active.filter(({ id, state }) => state === 'pending' && alive.has(id))
      const proposed = await Promise.all(pending.map(async ({ id }) => [id, await this.#proposedAtMs(id)] as const))
      this.#pending = new Map(proposed.flatMap(([id, atMs]) => atMs === undefined ? [] : [[id, atMs]]))
      this.#seen = {
        state: 'ok',
        ambiguous: active.filter(({ state }) => state === 'ambiguous').length,
        locked: locked !== undefined,
        break_glass_unreviewed: await this.#ledger.unreviewed() !== undefined,
      }
    } catch {
      const { failure: reason } = this.#ledger
      this.#seen = { ...this.#seen, state: 'unavailable', ...reason !== undefined && { reason } }
    }
  }

  /** Each change is read only once. */
  async #proposedAtMs (id: string): Promise<number | undefined> {
    const known = this.#pending.get(id)
    if (known !== undefined) return known
    const stored = await this.#ledger.read(id)
    return stored && 'change' in stored ? Date.parse(stored.change.requested_at) : undefined
  }
}
