import { setTimeout } from 'node:timers/promises'
import { inspect } from 'node:util'
import { scaled } from './run.ts'

const POLL_MS = 20

/**
 * Waits until `check` returns `true`. Any other value that it returns or throws is reported as the last one seen, so a
 * test can write `() => state() === 'synced' || state()`.
 * @param boundMs the bound on a quiet machine with two cores; a slower machine gets more time.
 * @throws with the last value seen once the time is over, even while a check is still pending.
 */
export async function waitFor (check: () => unknown, boundMs: number, what: string): Promise<void> {
  const limitMs = scaled(boundMs)
  const over = new AbortController()
  let seen: unknown
  const poll = async () => {
    while (!over.signal.aborted) {
      try {
        seen = await check()
      } catch (error) {
        seen = error
      }
      if (seen === true) return true
      await setTimeout(POLL_MS)
    }
    return false
  }
  const seenInTime = await Promise.race([poll(), setTimeout(limitMs, false, { ref: false })])
  over.abort()
  if (!seenInTime) {
    throw new Error(`${what}: not within ${limitMs} ms; last seen: ${inspect(seen)}`)
  }
}
