/** Renders pages into replies. */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { html } from 'ghtml'
import type { PageSettings } from '../../plugins/sign-in.ts'
import { type Visitor, visitorOf } from './session.ts'
import { layout } from './templates/layout.ts'
import { shown } from './templates/text.ts'

/** Sentences of errors that tell an agent which tool to call. */
const FOR_AGENTS = / Call (?:explain_access|get_change|list_changes) [^.]*\./

export interface Pages {
  visitor: (request: FastifyRequest) => Visitor | undefined
  /** Lets somebody see a page; sends them to sign in, and resolves to `undefined`, if nobody is signed in. */
  enter: (request: FastifyRequest, reply: FastifyReply) => Promise<Visitor | undefined>
  page: (request: FastifyRequest, reply: FastifyReply, title: string, body: string, scripts?: readonly string[]) =>
  FastifyReply
  /** Why something was not done. */
  refusal: (request: FastifyRequest, reply: FastifyReply, error: FastifyError) => FastifyReply
  signedOut: (request: FastifyRequest, reply: FastifyReply) => FastifyReply
  /** The path of `PUBLIC_URL`, without a slash at the end. */
  prefix: string
}

/** An error as people read it. */
export function explain ({ message, statusCode = 500 }: FastifyError): string {
  return statusCode === 500
    ? 'The service failed. Try again; if it fails again, operators can find the reason in the log.'
    : message.replace(FOR_AGENTS, '')
}

export function pagesOf (app: FastifyInstance, { publicUrl, clientId }: PageSettings): Pages {
  const prefix = new URL(publicUrl).pathname.replace(/\/$/, '')
  const visitor = (request: FastifyRequest) => visitorOf(request, clientId)

  const page: Pages['page'] = (request, reply, title, body, scripts = []) => {
    const who = visitor(request)
    const isAuditor = who !== undefined && app.authorize.roles(who.principal).includes('auditor')
    const csrf = who ? reply.generateCsrf() : ''
    return reply.type('text/html; charset=utf-8').send(
      layout({ prefix, visitor: who, isAuditor, csrf, scripts }, title, body)
    )
  }

  return {
    visitor,
    page,
    async enter (request, reply) {
      const who = visitor(request)
      if (who) {
        request.principal = who.principal
        await app.limits.admit(request, reply)
        return who
      }
      const [path = ''] = request.url.split('?')
      reply.redirect(`${publicUrl}/sign-in?to=${encodeURIComponent(path)}`, 303)
      return undefined
    },
    prefix,
    refusal (request, reply, error) {
      const { statusCode = 500, code } = error
      const back = /^\/changes\/[a-z0-9-]{1,64}$/.test(request.url) ? request.url : '/changes'
      // Whoever was refused a sign-in for another reason than this service would be refused again.
      const again = code === 'SIGN_IN_REQUIRED' || code === 'SIGN_IN_TOO_OLD' || code === 'SIGN_IN_FAILED'
      return page(request, reply.code(statusCode), 'Not done', html`<h1>Not done</h1>
<div class="note bad" role="alert"><p>${shown(explain(error), 2_000)}</p><p><code>${shown(code ?? '')}</code></p></div>
<p>!${again
    ? html`<a href="${prefix}/sign-in?again&to=${back}">Sign in again</a>`
    : html`<a href="${prefix}${back}">Go on</a>`}</p>`)
    },
    signedOut: (_, reply) =>
      reply.type('text/html; charset=utf-8').send(layout(
        { prefix, visitor: undefined, isAuditor: false, csrf: '' },
        'Signed out',
        html`<h1>Signed out</h1><p>You are signed out here, and may still be signed in at the issuer.
<a href="${prefix}/sign-in?again">Sign in as somebody else</a></p>`
      )),
  }
}
