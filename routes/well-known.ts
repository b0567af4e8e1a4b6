import type { FastifyInstance } from 'fastify'
import { mcpPath, resourceUrl, WELL_KNOWN } from '../plugins/auth/resource.ts'
import { originGuard } from './browsers.ts'

/** `GET /.well-known/oauth-protected-resource`: where clients get tokens (RFC 9728). Absent in the mode `none`. */
export default async function wellKnown (app: FastifyInstance) {
  const { auth, scopes } = app.config
  if (auth.mode === 'none') return

  app.addHook('onRequest', originGuard(app))
  for (const path of new Set(['', '/mcp', mcpPath(app.config)])) {
    app.get(`${WELL_KNOWN}${path}`, async () => ({
      resource: resourceUrl(app),
      ...auth.mode === 'oidc' && { authorization_servers: auth.issuers },
      scopes_supported: scopes.advertised,
      bearer_methods_supported: ['header'],
      resource_name: 'KafScale',
    }))
  }
}
