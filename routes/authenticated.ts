import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { RateLimited, Unauthenticated, Unverifiable } from '../errors.ts'
import { type AuditEntry, whoOf } from '../plugins/audit/record.ts'
import { challenge } from '../plugins/auth/challenge.ts'
import auditStream from './audit-stream.ts'
import { guard } from './guard.ts'
import mcp from './mcp/index.ts'
import { failedSignIn } from './request-source.ts'

/** The `Retry-After` of a 503 that has none of its own. */
const RETRY_AFTER_S = 5

/** The routes that require authentication: `/mcp` and `/audit/stream`. */
export default async function authenticated (app: FastifyInstance) {
  app.addHook('onRequest', guard(app))
  app.addHook('onRequest', signIn(app))
  app.setErrorHandler(async (error: FastifyError, request, reply) => {
    const { statusCode = 500, code } = error
    request.log.debug({ statusCode, code }, 'a request was refused')
    // An issuer that fails is logged where that is noticed: once, with its code and status.
    if (statusCode >= 500 && !(error instanceof Unverifiable)) request.log.error({ err: error }, 'a request failed')
    const bearer = challenge(error, app)
    if (bearer !== undefined) reply.header('www-authenticate', bearer)
    if (statusCode === 503 && !reply.hasHeader('retry-after')) reply.header('retry-after', RETRY_AFTER_S)
    const message = statusCode === 500 ? 'Internal error' : error.message
    return reply.code(statusCode).send({
      jsonrpc: '2.0',
      id: null,
      error: { code: statusCode >= 500 ? -32603 : -32600, message },
    })
  })
  await app.register(mcp)
  await app.register(auditStream, { mayRead: isAuditor(app), whoIs: caller(app) })
}

const RECORDED_FAILURES = [Unauthenticated, Unverifiable, RateLimited]

/** Authenticates the caller and applies its limits. A failure is recorded before the response is sent. */
function signIn (app: FastifyInstance) {
  return async (request: FastifyRequest, reply: FastifyReply) => {
    try {
      await app.authenticate(request, ask => app.limits.trySignIn(request, reply, ask))
    } catch (error) {
      app.telemetry.authenticationFailed(error)
      if (RECORDED_FAILURES.some(failure => error instanceof failure)) {
        await app.audit.authenticationFailure(failedSignIn(request, error as FastifyError))
      }
      if (error instanceof Unauthenticated) await app.limits.failedSignIn(request, reply)
      throw error
    }
    await app.limits.admit(request, reply)
  }
}

function caller (app: FastifyInstance) {
  return ({ principal }: FastifyRequest): AuditEntry['who'] =>
    principal && whoOf(principal, app.authorize.roles(principal))
}

/** Authenticates again, because a stream stays open while its token can expire and the policy can change. */
function isAuditor (app: FastifyInstance) {
  return async (request: FastifyRequest): Promise<boolean> => {
    const principal = await app.authenticate(request).catch(() => null)
    return principal !== null && principal.scopes?.has(app.config.scopes.observe) !== false &&
      app.authorize.roles(principal).includes('auditor')
  }
}
