import { setTimeout as delay } from 'node:timers/promises'
import { BEGINNING } from '../chain.ts'
import type { Medium } from './medium.ts'

const ANSWER_BOUND_MS = 10_000
const FIRST_RETRY_MS = 200
const LAST_RETRY_MS = 5_000

/**
 * Posts lines to a collector, as one chain per run of the process. A batch is accepted when the collector answers 2xx,
 * and is sent again until it does. A batch whose answer was lost therefore arrives twice, with the same sequence
 * numbers.
 * @param send sends each request
 */
export function httpMedium (url: string, send: typeof fetch): Medium {
  const closing = new AbortController()
  let begins = true

  async function post (body: string): Promise<void> {
    const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(ANSWER_BOUND_MS)])
    const response = await send(url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson' },
      body,
      redirect: 'error',
      signal,
    })
    await response.body?.cancel()
    if (!response.ok) throw new Error(`the collector answered ${response.status}`)
  }

  return {
    kind: 'http',
    open: async position => ({ position: position ?? { file: 0, end: BEGINNING }, begins }),
    append: async lines => {
      for (let retryMs = FIRST_RETRY_MS; ; retryMs = Math.min(2 * retryMs, LAST_RETRY_MS)) {
        try {
          await post(lines)
          begins = false
          return
        } catch (error) {
          if (closing.signal.aborted) throw error
          await delay(retryMs, undefined, { signal: closing.signal })
        }
      }
    },
    close: async () => closing.abort(),
  }
}
