import { setTimeout } from 'node:timers/promises'
import { inspect } from 'node:util'

const POLL_MS = 20

/**
 * Waits until `check` returns `true`. Whatever else it returns or throws is what was seen instead, so that a test can say
 * `() => state() === 'synced' || state()`.
 * @throws with what was seen last once `boundMs` is over, also when a check is still under way.
 */
export async function waitFor (check: () => unknown, boundMs: number, what: string): Promise<void> {
  const deadline = performance.now() + boundMs
  let seen: unknown
  const poll = async () => {
    while (performance.now() < deadline) {
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
  if (!await Promise.race([poll(), setTimeout(boundMs, false, { ref: false })])) {
    throw new Error(`${what}: not within ${boundMs} ms; last seen: ${inspect(seen)}`)
  }
}
