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
 * Rejects requests with an unexpected `Host` or `Origin`, to protect against DNS rebinding. The defaults are the
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

  return async ({ headers, host }: FastifyRequest, reply: FastifyReply) => {
    const checks: Check[] = [hosts ? validateHostHeader(host, hosts) : { ok: true }, checkOrigin(headers.origin)]
    const refused = checks.find(check => !check.ok)
    if (refused) {
      return reply.code(403).send({ jsonrpc: '2.0', id: null, error: { code: -32000, message: refused.message } })
    }
  }
}
