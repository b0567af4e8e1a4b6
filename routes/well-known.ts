import type { FastifyInstance } from 'fastify'
import { resourceUrl, WELL_KNOWN } from '../plugins/auth/resource.ts'
import { originGuard } from './browsers.ts'

/** `GET /.well-known/oauth-protected-resource`: where clients get tokens (RFC 9728). Absent in the mode `none`. */
export default async function wellKnown (app: FastifyInstance) {
  const { auth, publicUrl, scopes } = app.config
  if (auth.mode === 'none') return

  app.addHook('onRequest', originGuard(app))
  const { pathname } = new URL(`${(publicUrl ?? 'http://localhost').replace(/\/$/, '')}/mcp`)
  for (const path of new Set(['', '/mcp', pathname])) {
    app.get(`${WELL_KNOWN}${path}`, async () => ({
      resource: resourceUrl(app),
      ...auth.mode === 'oidc' && { authorization_servers: auth.issuers },
      scopes_supported: scopes.advertised,
      bearer_methods_supported: ['header'],
      resource_name: 'KafScale',
    }))
  }
}
