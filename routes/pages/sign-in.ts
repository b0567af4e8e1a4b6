import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { SignInFailed } from '../../errors.ts'
import type { PageSettings } from '../../plugins/sign-in.ts'
import type { Pages } from './pages.ts'
import { beginSession, rememberSignIn, takeSignIn } from './session.ts'

/** The pages to which a sign-in returns. */
const OWN_PAGE = /^\/(?:changes(?:\/[a-z0-9-]{1,64})?|audit)$/

interface SignInQuery { to?: unknown, again?: unknown }

/**
 * - `GET /sign-in` sends the browser to the issuer: with `again`, the issuer asks for the credentials in any case.
 * - `GET /sign-in/callback` takes its answer, which is good once, and in the browser that has asked.
 * - `POST /sign-out` ends the session.
 */
export async function signInRoutes (
  app: FastifyInstance,
  { publicUrl }: PageSettings,
  show: Pages,
  failed: (request: FastifyRequest, reply: FastifyReply, error: FastifyError) => Promise<void>
): Promise<void> {
  app.get<{ Querystring: SignInQuery }>('/sign-in', async (request, reply) => {
    const { to, again } = request.query
    const target = typeof to === 'string' && OWN_PAGE.test(to) ? to : '/changes'
    const recency = again !== undefined ? 'now' : target.startsWith('/changes/') ? 'recent' : 'any'
    const { url, attempt } = await app.limits.trySignIn(request, reply, () => app.signIn.begin(recency))
    rememberSignIn(request, { ...attempt, to: target })
    return reply.redirect(url.href, 303)
  })

  app.get<{ Querystring: { state?: unknown } }>('/sign-in/callback', async (request, reply) => {
    const attempt = takeSignIn(request, request.query.state)
    try {
      if (!attempt) {
        throw new SignInFailed('this browser has not asked for this sign-in, or it took more than 10 minutes')
      }
      const query = request.url.slice(request.url.indexOf('?') + 1)
      const signedIn = await app.limits.trySignIn(request, reply, () => app.signIn.finish(query, attempt))
      if (!beginSession(app, request, signedIn)) {
        throw new SignInFailed('the policy binds more of your claims to roles than fit into a cookie')
      }
    } catch (error) {
      await failed(request, reply, error as FastifyError)
      throw error
    }
    return reply.redirect(`${publicUrl}${attempt.to}`, 303)
  })

  app.post('/sign-out', { preHandler: app.csrfProtection }, async (request, reply) => {
    request.session.delete()
    return reply.redirect(`${publicUrl}/sign-out`, 303)
  })

  app.get('/sign-out', async (request, reply) => {
    return show.visitor(request) ? reply.redirect(`${publicUrl}/changes`, 303) : show.signedOut(request, reply)
  })
}
