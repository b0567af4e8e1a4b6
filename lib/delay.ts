import { setTimeout as delay } from 'node:timers/promises'

/** The longest delay of a Node.js timer, about 596 hours. A longer one would end at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** Resolves after any number of milliseconds. @throws {AbortError} once the signal aborts */
export async function longDelay (ms: number, signal: AbortSignal): Promise<void> {
  let restMs = ms
  while (restMs > MAX_TIMER_MS) {
    await delay(MAX_TIMER_MS, undefined, { signal })
    restMs -= MAX_TIMER_MS
  }
  await delay(restMs, undefined, { signal })
}
