import cors from '@fastify/cors'
import { localhostAllowedOrigins } from '@modelcontextprotocol/server'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { isLoopback } from '../lib/address.ts'
import { includesOrigin, originOf } from '../lib/origin.ts'
import { quote } from '../lib/printable.ts'
import type { Config } from '../plugins/config/read.ts'

/** How long a browser reuses the answer to a preflight. Chromium takes no more. */
const PREFLIGHT_MAX_AGE_S = 7_200
/** What a page may read of an answer, besides its body. */
const EXPOSED_HEADERS = ['WWW-Authenticate', 'Retry-After']

/**
 * Lets pages of the allowed origins call the service from a browser (CORS). Their preflight requests are answered
 * before authentication, because browsers send them without a token. Every answer has the headers, errors included:
 * without them, a page cannot tell 401 from a network failure. The preflight requests of other origins get 403.
 */
export default fp(async function browsers (app) {
  const isAllowed = allowsOrigin(app.config)
  app.addHook('onRequest', async (request, reply) => {
    if (request.method === 'OPTIONS') return refuseOrigin(request, reply, isAllowed)
  })
  await app.register(cors, {
    // Without an origin, there is nobody to answer to.
    origin: (origin, answer) => answer(null, origin !== undefined && isAllowed(origin)),
    methods: ['GET', 'POST', 'DELETE'],
    exposedHeaders: EXPOSED_HEADERS,
    maxAge: PREFLIGHT_MAX_AGE_S,
  })
}, { name: 'browsers', dependencies: ['config'] })

/** Refuses a request of a page whose origin is not allowed. Clients other than browsers send no origin. */
export function originGuard (app: FastifyInstance) {
  const isAllowed = allowsOrigin(app.config)
  return async (request: FastifyRequest, reply: FastifyReply) => refuseOrigin(request, reply, isAllowed)
}

type Allows = (origin: string) => boolean

/** By default, the loopback origins if the service listens on a loopback address, and otherwise none. */
function allowsOrigin ({ allowedOrigins, httpAddr: { host } }: Config): Allows {
  if (allowedOrigins) return origin => includesOrigin(allowedOrigins, origin)
  if (!isLoopback(host)) return () => false
  return origin => {
    const { hostname = '' } = URL.parse(originOf(origin) ?? '') ?? {}
    return localhostAllowedOrigins().includes(hostname)
  }
}

function refuseOrigin ({ headers: { origin } }: FastifyRequest, reply: FastifyReply, isAllowed: Allows) {
  if (origin === undefined || isAllowed(origin)) return
  return refuse(
    reply,
    403,
    `Invalid Origin: pages of ${quote(origin)} may not call this service. ` +
      'If the pages are yours, an operator must add the origin to KAFSCALE_MCP_ALLOWED_ORIGINS.'
  )
}

/** Refuses a request because of its `Host` or `Origin`, as the SDK does. */
export function refuse (reply: FastifyReply, status: 400 | 403, message: string): FastifyReply {
  return reply.code(status).send({ jsonrpc: '2.0', id: null, error: { code: -32000, message } })
}
