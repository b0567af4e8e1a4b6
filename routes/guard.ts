import {
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  validateHostHeader,
  validateOriginHeader,
} from '@modelcontextprotocol/server'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isLoopback } from '../lib/address.ts'

type Check = { ok: true } | { ok: false, message: string }

/**
 * Rejects requests with an unexpected `Host` or `Origin`, to protect against DNS rebinding, and those with a second
 * `Host`: a proxy may have checked the other one. The defaults are the
 * loopback names if the service listens on a loopback address, and otherwise any host and no origin.
 */
export function guard (app: FastifyInstance) {
  const { allowedHosts, allowedOrigins, httpAddr: { host } } = app.config
  const onLoopback = isLoopback(host)
  const hosts = allowedHosts ?? (onLoopback ? [...localhostAllowedHostnames(), host] : undefined)

  const checkOrigin = (origin: string | undefined): Check => {
    if (origin === undefined || allowedOrigins?.includes(origin)) return { ok: true }
    return onLoopback && !allowedOrigins
      ? validateOriginHeader(origin, localhostAllowedOrigins())
      : { ok: false, message: 'Invalid Origin' }
  }

  return async ({ headers, host, raw: { rawHeaders } }: FastifyRequest, reply: FastifyReply) => {
    // `headers` drops all but the first. RFC 9112, section 3.2, requires the status.
    if (rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'host').length > 1) {
      return refuse(reply, 400, 'Invalid Host: the request has more than one Host header')
    }
    const checks: Check[] = [hosts ? validateHostHeader(host, hosts) : { ok: true }, checkOrigin(headers.origin)]
    const refused = checks.find(check => !check.ok)
    if (refused) return refuse(reply, 403, refused.message)
  }
}

function refuse (reply: FastifyReply, status: 400 | 403, message: string): FastifyReply {
  return reply.code(status).send({ jsonrpc: '2.0', id: null, error: { code: -32000, message } })
}
