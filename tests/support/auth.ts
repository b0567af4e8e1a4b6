/** The smallest service that asks who is asking: it answers `POST /mcp` with the principal. */
import { PassThrough } from 'node:stream'
import Fastify, { type FastifyError, type FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { challenge } from '../../plugins/auth/challenge.ts'
import auth from '../../plugins/auth/index.ts'
import type { Principal } from '../../plugins/auth/principal.ts'
import { type Config, type Secrets, withSecrets } from '../../plugins/config/index.ts'
import tls, { tlsOptions } from '../../plugins/tls.ts'
import wellKnown from '../../routes/well-known.ts'

export interface Options {
  config?: Partial<Config & Secrets>
  /** More routes, in the scope where every request is authenticated. */
  routes?: (app: FastifyInstance) => void
}

/** Listening on a free port of loopback. `log()` is everything that was logged, on every level. */
export async function startAuthApp (
  t: { teardown(end: () => unknown): void },
  { config = {}, routes = answerPrincipal }: Options = {}
): Promise<{ app: FastifyInstance, url: string, log: () => string }> {
  const { authToken, oidcClientSecret, ...open } = config
  const settings = withSecrets({
    httpAddr: { host: '127.0.0.1', port: 0 }, authMode: 'none', oidcMaxTokenLifetime: 3_600_000, ...open,
  } as Config, { authToken, oidcClientSecret })
  const logged: Buffer[] = []
  const stream = new PassThrough()
  stream.on('data', (chunk: Buffer) => logged.push(chunk))
  const app = Fastify({ logger: { level: 'trace', stream }, https: tlsOptions(settings) }) as unknown as FastifyInstance
  t.teardown(() => app.close())
  await app.register(fp(async app => { app.decorate('config', settings) }, { name: 'config' }))
  await app.register(tls)
  await app.register(auth)
  await app.register(wellKnown)
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
  /** What went back, all of it. */
  text: string
  principal: Principal
  message: string
}

/** Asks `POST /mcp` with a token, or whatever headers. */
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
