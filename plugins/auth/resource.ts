import { isIPv6 } from 'node:net'
import type { FastifyInstance } from 'fastify'

/** Where RFC 9728 puts a resource's metadata: between host and path. */
export const WELL_KNOWN = '/.well-known/oauth-protected-resource'

/** What callers call, and what their tokens are for: `{PUBLIC_URL}/mcp`. Without `PUBLIC_URL` it is known once the service listens. */
export function resourceUrl (app: FastifyInstance): string {
  const base = app.config.publicUrl ?? listenerUrl(app)
  return new URL(`${base.replace(/\/$/, '')}/mcp`).href
}

/** Where a client finds out how to get a token for the resource. */
export function metadataUrl (app: FastifyInstance): string {
  const { origin, pathname } = new URL(resourceUrl(app))
  return `${origin}${WELL_KNOWN}${pathname}`
}

function listenerUrl ({ config: { httpAddr: { host, port }, tlsCertFile }, server }: FastifyInstance): string {
  const address = server.address()
  const listening = typeof address === 'object' && address !== null ? address.port : port
  return `${tlsCertFile === undefined ? 'http' : 'https'}://${isIPv6(host) ? `[${host}]` : host}:${listening}`
}
