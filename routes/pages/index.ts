import csrfProtection from '@fastify/csrf-protection'
import formbody from '@fastify/formbody'
import helmet from '@fastify/helmet'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FormNotYours, RateLimited } from '../../errors.ts'
import { originOf } from '../../lib/origin.ts'
import { pageSettings } from '../../plugins/sign-in.ts'
import { hostGuard } from '../guard.ts'
import { failedSignIn } from '../request-source.ts'
import { auditPages } from './audit.ts'
import { changePages } from './changes.ts'
import { pagesOf } from './pages.ts'
import { registerSessions } from './session.ts'
import { signInRoutes } from './sign-in.ts'
import { STYLE } from './templates/style.ts'

const MAX_FORM_BYTES = 16_384

/**
 * The pages on which people decide on changes, `/changes`, and auditors read records, `/audit`. A scope of its own,
 * which knows cookies and no bearer tokens. Absent unless everything is set that the pages need.
 */
export default async function pages (app: FastifyInstance) {
  const settings = pageSettings(app.config)
  if (!settings) return
  const origin = originOf(new URL(settings.publicUrl).origin)

  const guardHost = hostGuard(app)
  app.addHook('onRequest', async (request, reply) => guardHost(request, reply))
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        styleSrc: ["'self'"],
        scriptSrc: ["'self'"],
        connectSrc: ["'self'"],
        formAction: ["'self'"],
        baseUri: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    // Forms need their origin, and no other site learns which change somebody looks at.
    referrerPolicy: { policy: 'same-origin' },
    xFrameOptions: { action: 'deny' },
    // For a host with other services, that is not for this one to say.
    strictTransportSecurity: false,
  })
  await registerSessions(app, settings)
  // After the session is known, because the page that says so needs it.
  app.addHook('onRequest', async (request, reply) => {
    reply.header('cache-control', 'no-store')
    requireOwnOrigin(request, origin)
  })
  await app.register(csrfProtection, {
    sessionPlugin: '@fastify/secure-session',
    // Not in a header: every form has it in its body.
    getToken: ({ body }) => (body as Record<string, string> | undefined)?.['_csrf'],
  })
  app.removeAllContentTypeParsers()
  await app.register(formbody, { bodyLimit: MAX_FORM_BYTES })

  const show = pagesOf(app, settings)
  app.setErrorHandler(async (error: FastifyError, request, reply) => {
    const known = error.code?.startsWith('FST_CSRF') ? new FormNotYours() : error
    if (error.code?.startsWith('FST_CSRF')) request.log.info('a form was refused: its token is not of this session')
    const { statusCode = 500 } = known
    if (statusCode >= 500) request.log.error({ err: known }, 'a page failed')
    return show.refusal(request, reply, known)
  })
  app.get('/changes/style.css', async (_, reply) => {
    return reply.type('text/css; charset=utf-8').send(STYLE)
  })
  await signInRoutes(app, settings, show, failureOf(app))
  await changePages(app, settings, show)
  await auditPages(app, show)
}

/** Refuses a form of another page. Browsers send the origin with every form. */
function requireOwnOrigin ({ method, headers }: FastifyRequest, own: string | undefined): void {
  if (method === 'GET' || method === 'HEAD') return
  const { origin, 'sec-fetch-site': site = 'same-origin' } = headers
  if (origin === undefined || originOf(origin) !== own || site !== 'same-origin') throw new FormNotYours()
}

/** Counts and records a sign-in that failed. */
function failureOf (app: FastifyInstance) {
  return async (request: FastifyRequest, reply: FastifyReply, error: FastifyError) => {
    await app.audit.authenticationFailure(failedSignIn(request, error))
    const { code, statusCode = 500 } = error
    if (statusCode < 500 && code !== new RateLimited('').code) await app.limits.failedSignIn(request, reply)
  }
}
