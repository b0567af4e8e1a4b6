import closeWithGrace from 'close-with-grace'
import type { FastifyBaseLogger } from 'fastify'

/** npm forwards a signal that the terminal has already sent to the service: within this time it counts as one. */
const SAME_SIGNAL_MS = 1_000

/**
 * On SIGTERM or SIGINT, closes the service and exits with 0; on a second signal, or once closing has taken `delayMs`,
 * exits with 1. Returns a function that does the same as the first signal, and nothing after one.
 */
export function closeOnSignal (
  close: () => Promise<void>,
  log: FastifyBaseLogger,
  delayMs: number
): (reason: Record<string, unknown>) => void {
  const grace = closeWithGrace({ delay: delayMs, skip: ['SIGTERM', 'SIGINT'] }, async ({ err }) => {
    if (err) log.fatal({ err }, 'the service failed')
    await close()
    log.info('shutdown complete')
  })
  let first: { signal: string | undefined, atMs: number } | undefined
  const begin = (reason: Record<string, unknown>, signal?: string) => {
    first = { signal, atMs: performance.now() }
    log.info(reason, 'shutting down')
    grace.close()
  }
  const onSignal = (signal: string) => {
    if (!first) begin({ signal }, signal)
    else if (signal !== (first.signal ?? signal) || performance.now() - first.atMs > SAME_SIGNAL_MS) process.exit(1)
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  return reason => { if (!first) begin(reason) }
}
