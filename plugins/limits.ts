import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import underPressure from '@fastify/under-pressure'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { RateLimited } from '../errors.ts'
import type { Principal } from './auth/principal.ts'

declare module 'fastify' {
  interface FastifyInstance { limits: Limits }
}

const MINUTE_MS = 60_000
/** Tokens of one address that an issuer is asked of at once. */
const MAX_SIGN_INS = 16

export interface Limits {
  /** Admits an authenticated request, or throws {RateLimited} with `Retry-After` on the reply. What it takes, the reply gives back. */
  admit: (request: FastifyRequest, reply: FastifyReply) => Promise<void>
  /** Counts a failed sign-in. @throws {RateLimited} when the address has had too many of them */
  failedSignIn: (request: FastifyRequest, reply: FastifyReply) => Promise<void>
  /** Asks an issuer of a token. @throws {RateLimited} when the address has had too many failed sign-ins, or asks too much at once */
  trySignIn: <T>(request: FastifyRequest, reply: FastifyReply, ask: () => Promise<T>) => Promise<T>
}

/**
 * Bounds what one principal or one address takes: requests a minute, calls at once, failed sign-ins. The service itself
 * answers 503 before it falls over.
 */
export default fp(async function limits (app) {
  const {
    authMode,
    rateLimit: perMinute,
    addressRateLimit,
    maxConcurrentCalls,
    addressMaxConcurrentCalls,
    maxAuthFailures,
    maxEventLoopDelay,
  } = app.config
  await app.register(rateLimit, { global: false })
  if (maxEventLoopDelay > 0) {
    await app.register(underPressure, { maxEventLoopDelay, retryAfter: 5, exposeStatusRoute: false })
  }

  const byAddress = authMode !== 'none'
  const admissions: Admit[] = [
    ...perMinute > 0 ? [minuteLimit(app, perMinute, principalOf)] : [],
    ...byAddress && addressRateLimit > 0 ? [minuteLimit(app, addressRateLimit, addressOf)] : [],
    ...maxConcurrentCalls > 0 ? [concurrencyLimit(maxConcurrentCalls, principalOf)] : [],
    ...byAddress && addressMaxConcurrentCalls > 0 ? [concurrencyLimit(addressMaxConcurrentCalls, addressOf)] : [],
  ]
  const take = atOnce(MAX_SIGN_INS, addressOf)
  const failures = maxAuthFailures > 0 ? minuteLimit(app, maxAuthFailures, addressOf) : undefined

  app.decorate<Limits>('limits', {
    async admit (request, reply) {
      for (const admit of admissions) await admit(request, reply)
    },
    async failedSignIn (request, reply) {
      await failures?.(request, reply)
    },
    async trySignIn (request, reply, ask) {
      await failures?.(request, reply, { increment: false })
      const done = take(request, reply)
      return await ask().finally(done)
    },
  })
}, { name: 'limits', dependencies: ['config'] })

type Admit = (request: FastifyRequest, reply: FastifyReply) => Promise<void> | void
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
  const take = atOnce(max, keyOf)
  return (request, reply) => { reply.raw.once('close', take(request, reply)) }
}

/** Counts what goes on at once; what is returned gives one back. */
function atOnce (max: number, keyOf: KeyOf): (request: FastifyRequest, reply: FastifyReply) => () => void {
  const counts = new Map<string, number>()
  return (request, reply) => {
    const key = keyOf(request)
    const now = counts.get(key) ?? 0
    if (now >= max) {
      reply.header('retry-after', 1)
      throw new RateLimited(`more than ${max} at once`)
    }
    counts.set(key, now + 1)
    return () => {
      const left = (counts.get(key) ?? 1) - 1
      if (left > 0) counts.set(key, left)
      else counts.delete(key)
    }
  }
}

function principalOf ({ principal }: FastifyRequest): string {
  const { issuer, subject, method } = principal as Principal
  return JSON.stringify([method, issuer, subject])
}

/** Of IPv6 the network of 64 bits, within which a client chooses its address as it likes. */
function addressOf ({ ip }: FastifyRequest): string {
  return normalizeIP(ip)
}
