import { localhostAllowedHostnames, validateHostHeader } from '@modelcontextprotocol/server'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isLoopback, withoutDot } from '../lib/address.ts'
import { quote } from '../lib/printable.ts'
import { originGuard, refuse } from './browsers.ts'

/**
 * Rejects requests with an unexpected `Host` or `Origin`, to protect against DNS rebinding. Pages may call from the
 * allowed origins only.
 */
export function guard (app: FastifyInstance) {
  const guardHost = hostGuard(app)
  const guardOrigin = originGuard(app)
  return async (request: FastifyRequest, reply: FastifyReply) =>
    guardHost(request, reply) ?? guardOrigin(request, reply)
}

/**
 * Rejects requests with an unexpected `Host`, and those with a second one: a proxy may have checked the other one. The
 * default are the loopback names and the host of `PUBLIC_URL` if the service listens on a loopback address, and
 * otherwise any.
 */
export function hostGuard (app: FastifyInstance) {
  const { allowedHosts, httpAddr: { host }, publicUrl } = app.config
  const own = [host, ...publicUrl === undefined ? [] : [new URL(publicUrl).hostname]].map(withoutDot)
  const hosts = allowedHosts ?? (isLoopback(host) ? [...localhostAllowedHostnames(), ...own] : undefined)
  const isAllowedHost = (header: string): boolean =>
    !hosts || validateHostHeader(header.replace(/\.(?=:\d+$|$)/, ''), hosts).ok

  // Not async: whoever awaits a reply waits until it is sent.
  return (request: FastifyRequest, reply: FastifyReply): FastifyReply | undefined => {
    const { host, raw: { rawHeaders } } = request
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
    return undefined
  }
}
