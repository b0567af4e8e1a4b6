import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { RateLimited } from '../../errors.ts'
import { clientAddress } from '../../lib/client-address.ts'
import { onceClosed } from '../../lib/once-closed.ts'
import type { Principal } from '../auth/principal.ts'
import { type ConnectionCounts, limitConnections } from './connections.ts'
import { limitEventLoopDelay } from './event-loop.ts'
import { Tally } from './tally.ts'
import { limitUnread } from './unread.ts'

declare module 'fastify' {
  interface FastifyInstance { limits: Limits }
}

const MINUTE_MS = 60_000
/** Concurrent introspections of tokens from one address. */
const MAX_SIGN_INS = 16

export interface Limits {
  /**
   * Counts an authenticated request against every limit, until its reply is closed.
   * @throws {RateLimited} with `Retry-After` set on the reply
   */
  admit: (request: FastifyRequest, reply: FastifyReply) => Promise<void>
  /** Counts a failed sign-in. @throws {RateLimited} when the address has had too many */
  failedSignIn: (request: FastifyRequest, reply: FastifyReply) => Promise<void>
  /**
   * Runs a request to an issuer.
   * @throws {RateLimited} when the address has had too many failed sign-ins, or has too many such requests in progress
   */
  trySignIn: <T>(request: FastifyRequest, reply: FastifyReply, ask: () => Promise<T>) => Promise<T>
  /** How many connections are open, and how many were closed, by reason. */
  readonly connections: ConnectionCounts
}

/**
 * Limits connections, requests per minute, concurrent calls, unread answers and failed sign-ins, by principal or by
 * address. Under overload, requests are answered with 503.
 */
export default fp(async function limits (app) {
  const {
    auth,
    rateLimit: perMinute,
    addressRateLimit,
    maxConcurrentCalls,
    addressMaxConcurrentCalls,
    maxAuthFailures,
    maxEventLoopDelayMs,
  } = app.config
  await app.register(rateLimit, { global: false })
  if (maxEventLoopDelayMs > 0) limitEventLoopDelay(app, maxEventLoopDelayMs)

  // Without authentication, every caller is on this machine.
  const byAddress = auth.mode !== 'none'
  const admissions: Admit[] = [
    limitUnread(app, principalOf),
    ...perMinute > 0 ? [minuteLimit(app, perMinute, principalOf)] : [],
    ...byAddress && addressRateLimit > 0 ? [minuteLimit(app, addressRateLimit, addressOf)] : [],
    ...maxConcurrentCalls > 0 ? [concurrencyLimit(maxConcurrentCalls, principalOf)] : [],
    ...byAddress && addressMaxConcurrentCalls > 0 ? [concurrencyLimit(addressMaxConcurrentCalls, addressOf)] : [],
  ]
  const { signedIn, counts } = limitConnections(app)
  const takeSignInSlot = slots(MAX_SIGN_INS, addressOf)
  const failures = maxAuthFailures > 0 ? minuteLimit(app, maxAuthFailures, addressOf) : undefined

  app.decorate<Limits>('limits', {
    async admit (request, reply) {
      signedIn(request)
      for (const admit of admissions) await admit(request, reply)
    },
    async failedSignIn (request, reply) {
      await failures?.(request, reply)
    },
    async trySignIn (request, reply, ask) {
      await failures?.(request, reply, { increment: false })
      const free = takeSignInSlot(request, reply)
      return await ask().finally(free)
    },
    connections: counts,
  })
}, { name: 'limits', dependencies: ['config'] })

type Admit = (request: FastifyRequest, reply: FastifyReply) => Promise<void> | void
/** Takes a slot and returns the function that frees it. @throws {RateLimited} when none is left */
type TakeSlot = (request: FastifyRequest, reply: FastifyReply) => () => void
type KeyOf = (request: FastifyRequest) => string

function minuteLimit (app: FastifyInstance, max: number, keyGenerator: KeyOf) {
  const check = app.createRateLimit({ max, timeWindow: MINUTE_MS, keyGenerator })
  return async (request: FastifyRequest, reply: FastifyReply, options?: { increment: boolean }): Promise<void> => {
    const limit = await check(request, options)
    if (limit.isAllowed || !limit.isExceeded) return
    reply.header('retry-after', limit.ttlInSeconds)
    throw new RateLimited(`more than ${max} in a minute`)
  }
}

function concurrencyLimit (max: number, keyOf: KeyOf): Admit {
  const takeSlot = slots(max, keyOf)
  return (request, reply) => onceClosed(request.raw, reply.raw, takeSlot(request, reply))
}

/** `max` slots for each key. */
function slots (max: number, keyOf: KeyOf): TakeSlot {
  const taken = new Tally()
  return (request, reply) => {
    const key = keyOf(request)
    if (taken.of(key) >= max) {
      reply.header('retry-after', 1)
      throw new RateLimited(`more than ${max} at once`)
    }
    taken.add(key)
    return () => taken.subtract(key)
  }
}

function principalOf ({ principal }: FastifyRequest): string {
  const { issuer, subject, method } = principal as Principal
  return JSON.stringify([method, issuer, subject])
}

/** For IPv6 the /64 network, in which a client can choose its address freely. */
function addressOf (request: FastifyRequest): string {
  return normalizeIP(clientAddress(request))
}
