import {
  Client,
  type OAuthClientProvider,
  type OAuthDiscoveryState,
  StreamableHTTPClientTransport,
  UnauthorizedError,
} from '@modelcontextprotocol/client'
import { createMcpHandler, Server } from '@modelcontextprotocol/server'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { Principal } from '../../../plugins/auth/principal.ts'
import { oidc, startAuthApp } from '../../support/auth.ts'
import { ACCOUNT, SCOPE, startProvider } from '../../support/oidc-provider.ts'

const CALLBACK = 'http://127.0.0.1/callback'

t.test('the SDK\'s client discovers everything and signs in with PKCE', async t => {
  const idp = await startProvider(t)
  const { url } = await startAuthApp(t, { config: { auth: oidc([idp.issuer]) }, routes: serveMcp })
  const user = newUser()
  const connect = async () => {
    const client = new Client({ name: 'test', version: '1' })
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: user.provider })
    t.teardown(() => client.close())
    return { transport, connected: client.connect(transport).then(() => client) }
  }

  const first = await connect()
  await t.rejects(first.connected, UnauthorizedError, 'a token is needed, so the user is asked to sign in')
  const { authorizationUrl } = user
  t.equal(authorizationUrl()?.origin, idp.issuer)
  t.match(Object.fromEntries(authorizationUrl()?.searchParams ?? []), {
    code_challenge_method: 'S256',
    code_challenge: /^[\w-]{43}$/,
    resource: url,
    scope: `${SCOPE} offline_access`,
    prompt: 'consent',
  })

  await first.transport.finishAuth(await signIn(authorizationUrl() as URL))
  const client = await (await connect()).connected
  const { structuredContent } = await client.callTool({ name: 'whoami', arguments: {} })
  t.match(structuredContent, { subject: ACCOUNT, issuer: idp.issuer, method: 'oidc' })

  t.test('and stays signed in when the access token expires, with its refresh token', async t => {
    user.expire()
    const before = idp.requests.length
    const later = await (await connect()).connected
    t.match((await later.callTool({ name: 'whoami', arguments: {} })).structuredContent, { subject: ACCOUNT })
    t.strictSame(idp.requests.slice(before).filter(path => /^\/(auth|token|reg)/.test(path)), ['/token'])
  })
})

/** A user of the client: stores what the provider interface asks for, and records where sign-in starts. */
function newUser () {
  let registered: Awaited<ReturnType<OAuthClientProvider['clientInformation']>>
  let tokens: Awaited<ReturnType<OAuthClientProvider['tokens']>>
  let verifier = ''
  let discovered: OAuthDiscoveryState | undefined
  let url: URL | undefined
  const provider: OAuthClientProvider = {
    redirectUrl: CALLBACK,
    clientMetadata: {
      client_name: 'test',
      redirect_uris: [CALLBACK],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      application_type: 'native',
    },
    clientInformation: () => registered,
    saveClientInformation: information => { registered = information },
    tokens: () => tokens,
    saveTokens: saved => { tokens = saved },
    redirectToAuthorization: to => { url = to },
    saveCodeVerifier: saved => { verifier = saved },
    codeVerifier: () => verifier,
    saveDiscoveryState: saved => { discovered = saved },
    discoveryState: () => discovered,
  }
  const expire = () => { if (tokens) tokens = { ...tokens, access_token: 'expired' } }
  return { provider, authorizationUrl: () => url, expire }
}

/** Does what a browser does: follows redirects, with cookies, until the callback. */
async function signIn (url: URL): Promise<URLSearchParams> {
  const cookies = new Map<string, string>()
  for (let next = url, hops = 0; hops < 10; hops++) {
    if (next.href.startsWith(CALLBACK)) return next.searchParams
    const response = await fetch(next, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map(pair => pair.join('=')).join('; ') },
    })
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie) as unknown as [string, string, string]
      cookies.set(name, value)
    }
    const location = response.headers.get('location')
    if (location === null) throw new Error(`${next.href}: ${response.status} ${await response.text()}`)
    next = new URL(location, next)
  }
  throw new Error('too many redirects')
}

function serveMcp (app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string' }, (_, body, done) => done(null, body))
  app.post('/mcp', async (request, reply) => {
    const handler = createMcpHandler(() => whoami(request.principal as Principal))
    const headers = Object.entries(request.headers).map(([name, value]): [string, string] => [name, String(value)])
    return reply.send(
      await handler.fetch(new Request('http://localhost/mcp', { method: 'POST', headers, body: String(request.body) }))
    )
  })
}

function whoami ({ subject, issuer, method }: Principal): Server {
  const server = new Server({ name: 'test', version: '1' }, { capabilities: { tools: {} } })
  server.setRequestHandler('tools/list', () => ({ tools: [{ name: 'whoami', inputSchema: { type: 'object' } }] }))
  server.setRequestHandler('tools/call', () => ({ content: [], structuredContent: { subject, issuer, method } }))
  return server
}
