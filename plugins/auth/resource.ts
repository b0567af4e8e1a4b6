import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { formatAddress } from '../../lib/address.ts'
import type { Config } from '../config/read.ts'

/** The path prefix of a resource's metadata, before the resource's own path (RFC 9728). */
export const WELL_KNOWN = '/.well-known/oauth-protected-resource'

/**
 * The URL of `/mcp` as clients see it, and the default audience of their tokens: `{PUBLIC_URL}/mcp`. Without
 * `PUBLIC_URL` it follows the listen address, whose port is final only once the service listens.
 */
export function resourceUrl (app: FastifyInstance): string {
  const base = app.config.publicUrl ?? listenerUrl(app)
  return new URL(`${base.replace(/\/$/, '')}/mcp`).href
}

/**
 * The URL of the resource's metadata, which tells clients where to get a token. It is below `PUBLIC_URL`, so that a
 * proxy needs only one prefix. A client that builds the URL itself, as RFC 9728 describes, puts a path of `PUBLIC_URL`
 * behind the well-known one.
 */
export function metadataUrl (app: FastifyInstance): string {
  return resourceUrl(app).replace(/\/mcp$/, `${WELL_KNOWN}/mcp`)
}

/** The path of `/mcp` as clients see it: it may have a prefix, which a proxy strips. */
export function mcpPath ({ publicUrl = 'http://localhost' }: Pick<Config, 'publicUrl'>): string {
  return new URL(`${publicUrl.replace(/\/$/, '')}/mcp`).pathname
}

function listenerUrl ({ config: { httpAddr, tls }, server }: FastifyInstance): string {
  const { port } = server.address() as AddressInfo | null ?? httpAddr
  return `${tls ? 'https' : 'http'}://${formatAddress({ ...httpAddr, port })}`
}
