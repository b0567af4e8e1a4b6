import { setTimeout as delay } from 'node:timers/promises'

/**
 * Runs a task until it is stopped, with a pause after each time.
 * @param task must not reject. Its signal is aborted when it is to be stopped
 * @returns stops it, and resolves once the task no longer runs
 */
export function repeat (task: (signal: AbortSignal) => Promise<void>, pauseMs: number): () => Promise<void> {
  const stopping = new AbortController()
  const { signal } = stopping
  const run = async () => {
    while (!signal.aborted) {
      await task(signal)
      await delay(pauseMs, undefined, { signal }).catch(() => {})
    }
  }
  const running = run()
  return async () => {
    stopping.abort()
    await running
  }
}
