import {
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  validateHostHeader,
  validateOriginHeader,
} from '@modelcontextprotocol/server'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isLoopback, withoutDot } from '../lib/address.ts'
import { quote } from '../lib/printable.ts'

/**
 * Rejects requests with an unexpected `Host` or `Origin`, to protect against DNS rebinding, and those with a second
 * `Host`: a proxy may have checked the other one. The defaults are the
 * loopback names if the service listens on a loopback address, and otherwise any host and no origin.
 */
export function guard (app: FastifyInstance) {
  const { allowedHosts, allowedOrigins, httpAddr: { host } } = app.config
  const onLoopback = isLoopback(host)
  const hosts = allowedHosts ?? (onLoopback ? [...localhostAllowedHostnames(), withoutDot(host)] : undefined)

  const isAllowedHost = (header: string): boolean =>
    !hosts || validateHostHeader(header.replace(/\.(?=:\d+$|$)/, ''), hosts).ok

  const isAllowedOrigin = (origin: string | undefined): boolean =>
    origin === undefined || allowedOrigins?.includes(origin) === true ||
    (onLoopback && !allowedOrigins && validateOriginHeader(origin, localhostAllowedOrigins()).ok)

  return async ({ headers: { origin }, host, raw: { rawHeaders } }: FastifyRequest, reply: FastifyReply) => {
    // `headers` drops all but the first. RFC 9112, section 3.2, requires the status.
    if (rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'host').length > 1) {
      return refuse(reply, 400, 'Invalid Host: the request has more than one Host header')
    }
    if (!isAllowedHost(host)) {
      return refuse(
        reply,
        403,
        `Invalid Host: ${quote(host)} is not a name of this service. ` +
          'If clients use it, an operator must add it to KAFSCALE_MCP_ALLOWED_HOSTS, without the port.'
      )
    }
    if (!isAllowedOrigin(origin)) {
      return refuse(
        reply,
        403,
        `Invalid Origin: pages of ${quote(String(origin))} may not call this service. ` +
          'If the pages are yours, an operator must add the origin to KAFSCALE_MCP_ALLOWED_ORIGINS.'
      )
    }
  }
}

function refuse (reply: FastifyReply, status: 400 | 403, message: string): FastifyReply {
  return reply.code(status).send({ jsonrpc: '2.0', id: null, error: { code: -32000, message } })
}
