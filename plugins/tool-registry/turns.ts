import { setImmediate as nextTurn } from 'node:timers/promises'

/** How long calls may occupy one turn of the event loop before the next call waits for another turn. */
const TURN_MS = 10

/**
 * Spreads calls over turns of the event loop. The calls of a batch, and of requests that arrived together, would
 * otherwise all run in one turn, and nothing else could.
 */
export class Turns {
  #startedMs: number | undefined
  #last = Promise.resolve()

  /** Resolves when a call may start: in this turn, unless earlier calls have used it up. One call starts at a time. */
  next (): Promise<void> {
    this.#last = this.#last.then(() => this.#isUsedUp() ? this.#anotherTurn() : this.#start())
    return this.#last
  }

  async #anotherTurn (): Promise<void> {
    while (this.#isUsedUp()) await nextTurn()
    this.#start()
  }

  #isUsedUp (): boolean {
    return this.#startedMs !== undefined && performance.now() - this.#startedMs >= TURN_MS
  }

  #start (): void {
    if (this.#startedMs !== undefined) return
    this.#startedMs = performance.now()
    setImmediate(() => { this.#startedMs = undefined })
  }
}
