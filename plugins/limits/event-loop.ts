/** Refuses requests while the event loop is slow. It needs no file and no system call that could fail. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { FastifyInstance } from 'fastify'
import { Overloaded } from '../../errors.ts'

const RESOLUTION_MS = 10
const SAMPLE_INTERVAL_MS = 1_000
const RETRY_AFTER_S = 5

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The route answers under overload, too. */
    answersUnderOverload?: true
  }
}

/** While the mean delay of the event loop is above `maxDelayMs`, requests fail with `Overloaded`. */
export function limitEventLoopDelay (app: FastifyInstance, maxDelayMs: number): void {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  let meanMs = 0
  delay.enable()
  const timer = setInterval(() => {
    // Without a sample, the event loop has not turned since the last interval.
    meanMs = delay.count === 0 ? Infinity : Math.max(0, delay.mean / 1e6 - RESOLUTION_MS)
    delay.reset()
  }, SAMPLE_INTERVAL_MS).unref()
  app.addHook('onClose', async () => {
    clearInterval(timer)
    delay.disable()
  })
  app.addHook('onRequest', async (request, reply) => {
    if (meanMs <= maxDelayMs || request.routeOptions.config.answersUnderOverload) return
    reply.header('retry-after', RETRY_AFTER_S)
    throw new Overloaded()
  })
}
