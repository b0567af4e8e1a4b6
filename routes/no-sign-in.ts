import type { FastifyInstance } from 'fastify'
import { mcpPath } from '../plugins/auth/resource.ts'

/** Where clients look for an authorization server if the service's metadata names none, or if they do not read it. */
const DOCUMENTS = ['oauth-authorization-server', 'openid-configuration']
/** Its endpoints, by the paths that clients assume without such a document (MCP revision 2025-03-26). */
const ENDPOINTS = ['/register', '/authorize', '/token', '/revoke']

/**
 * Answers clients that try to sign in at the service itself with an OAuth error that says what to do instead: they show
 * its description and nothing else. A missing document has the status 404, or clients would not go on to an endpoint,
 * whose error they show. Absent in the mode `none`, where no client is asked to sign in.
 */
export default async function noSignIn (app: FastifyInstance) {
  const { auth } = app.config
  if (auth.mode === 'none') return
  const answer = {
    // Not `invalid_client` or `unauthorized_client`, after which clients register again.
    error: 'invalid_request',
    error_description: auth.mode === 'oidc' ? elsewhere(auth.issuers) : WITHOUT_SIGN_IN[auth.mode],
  }

  // Whatever the client sends is ignored.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_, payload, done) => {
    payload.resume()
    done(null)
  })
  const paths = new Set(['', '/mcp', mcpPath(app.config)])
  const documents = DOCUMENTS.flatMap(name => [...paths].flatMap(path => [
    `/.well-known/${name}${path}`, ...path === '' ? [] : [`${path}/.well-known/${name}`],
  ]))
  for (const [urls, status] of [[documents, 404], [ENDPOINTS, 400]] as const) {
    for (const url of urls) {
      app.route({
        method: ['GET', 'POST'],
        url,
        handler: async (_, reply) => reply.code(status).header('cache-control', 'no-store').send(answer),
      })
    }
  }
}

/** In the characters that RFC 6749 allows in a description: ASCII without quotation marks. */
const WITHOUT_SIGN_IN = {
  token: 'This service has no sign-in. Send a bearer token instead: configure the client to send the header ' +
    'Authorization: Bearer <token>, with the shared token that the operator of the service has.',
  jwks: 'This service has no sign-in. Send a bearer token instead: configure the client to send the header ' +
    'Authorization: Bearer <token>, with a token that the operator of the service has issued.',
}

function elsewhere (issuers: readonly string[]): string {
  return `This service is not the authorization server: sign in at ${issuers.join(' or ')}, which its protected ` +
    'resource metadata (RFC 9728) names. A client that does not read it must send a bearer token in the header ' +
    'Authorization: Bearer <token>.'
}
