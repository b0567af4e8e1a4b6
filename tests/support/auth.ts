/** A minimal service with authentication: `POST /mcp` returns the principal. */
import { PassThrough } from 'node:stream'
import Fastify, { type FastifyError, type FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { challenge } from '../../plugins/auth/challenge.ts'
import auth from '../../plugins/auth/index.ts'
import type { Principal } from '../../plugins/auth/principal.ts'
import type { AuthConfig, OidcConfig } from '../../plugins/config/auth.ts'
import { type Config, readConfig } from '../../plugins/config/read.ts'
import { Secret } from '../../plugins/config/secret.ts'
import tls, { tlsOptions } from '../../plugins/tls.ts'
import noSignIn from '../../routes/no-sign-in.ts'
import wellKnown from '../../routes/well-known.ts'

const LOOPBACK = readConfig({ KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1', KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0' })
const ACCESS_TOKENS = { audiences: undefined, maxTokenLifetimeMs: 3_600_000, idTokenIssuers: [] }

export interface Options {
  config?: Partial<Config>
  /** Adds routes to the scope in which every request is authenticated. */
  routes?: (app: FastifyInstance) => void
}

export function oidc (issuers: string[], more: Partial<OidcConfig> = {}): AuthConfig {
  return { mode: 'oidc', issuers, jwksUrls: [], introspection: undefined, ...ACCESS_TOKENS, ...more }
}

export function jwks (file: string, issuer: string): AuthConfig {
  return { mode: 'jwks', file, issuer, ...ACCESS_TOKENS }
}

export function staticToken (token: string): AuthConfig {
  return { mode: 'token', token: new Secret(token) }
}

/** Starts the service on a free loopback port. `log()` returns everything that was logged, at any level. */
export async function startAuthApp (
  t: { teardown(end: () => unknown): void },
  { config = {}, routes = answerPrincipal }: Options = {}
): Promise<{ app: FastifyInstance, url: string, log: () => string }> {
  const settings = { ...LOOPBACK, ...config }
  const logged: Buffer[] = []
  const stream = new PassThrough()
  stream.on('data', (chunk: Buffer) => logged.push(chunk))
  const app = Fastify({
    logger: { level: 'trace', stream },
    https: tlsOptions(settings.tls),
  }) as unknown as FastifyInstance
  t.teardown(() => app.close())
  await app.register(fp(async app => { app.decorate('config', settings) }, { name: 'config' }))
  await app.register(tls)
  await app.register(auth)
  await app.register(wellKnown)
  await app.register(noSignIn)
  await app.register(async app => {
    app.addHook('onRequest', async request => { await app.authenticate(request) })
    app.setErrorHandler(async (error: FastifyError, request, reply) => {
      request.log.error({ err: error }, 'refused')
      const header = challenge(error, app)
      if (header !== undefined) reply.header('www-authenticate', header)
      return reply.code(error.statusCode ?? 500).send({ code: error.code, message: error.message })
    })
    routes(app)
  })
  const { host, port } = settings.httpAddr
  const url = `${await app.listen({ host, port })}/mcp`
  return { app, url, log: () => Buffer.concat(logged).toString() }
}

export interface Answer {
  status: number
  challenge: string | null
  /** The whole answer: challenge and body. */
  text: string
  principal: Principal
  message: string
}

/** Sends `POST /mcp` with a token, or with headers. */
export async function ask (url: string, credentials?: string | Record<string, string>): Promise<Answer> {
  const headers = typeof credentials === 'string' ? { authorization: `Bearer ${credentials}` } : credentials ?? {}
  const response = await fetch(url, { method: 'POST', headers })
  const text = await response.text()
  const body = JSON.parse(text) as Principal & { message: string }
  const challenge = response.headers.get('www-authenticate')
  return { status: response.status, challenge, text: `${challenge} ${text}`, principal: body, message: body.message }
}

function answerPrincipal (app: FastifyInstance): void {
  app.post('/mcp', async ({ principal }) => ({ ...principal, scopes: principal?.scopes && [...principal.scopes] }))
}
