/** What clients learn that look for a sign-in at the service itself. */
import { Client, type OAuthClientProvider, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js'
import {
  StreamableHTTPClientTransport as TransportV1
} from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js'
import type { InjectOptions } from 'fastify'
import t from 'tap'
import { jwks, oidc, startAuthApp, staticToken } from '../support/auth.ts'
import { authority } from '../support/authorization.ts'

const TOKEN = { auth: staticToken('correct-horse-battery-staple-0123456789') }
const SENT_TO = /This service has no sign-in\. Send a bearer token instead/

/** What clients request, in their order, after a 401 whose metadata names no authorization server. */
const DOCUMENTS = [
  '/.well-known/oauth-authorization-server/mcp',
  '/.well-known/openid-configuration/mcp',
  '/mcp/.well-known/openid-configuration',
  '/.well-known/oauth-authorization-server',
  '/.well-known/openid-configuration',
]
const REGISTRATION = {
  client_name: 'Claude Code (kafscale)',
  redirect_uris: ['http://localhost:54212/callback'],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
}

t.test('without a sign-in, every request for one is answered with an OAuth error', async t => {
  const { env, dir } = await authority(t)
  for (const config of [TOKEN, { auth: jwks(`${dir}/jwks.json`, String(env['KAFSCALE_MCP_AUTH_JWKS_ISSUER'])) }]) {
    const { app } = await startAuthApp(t, { config })
    const form = { 'content-type': 'application/x-www-form-urlencoded' }
    const requests: [number, InjectOptions][] = [
      ...DOCUMENTS.map((url): [number, InjectOptions] => [404, { url }]),
      [400, { method: 'POST', url: '/register', payload: REGISTRATION }],
      [400, { method: 'POST', url: '/register', headers: { 'content-type': 'application/json' }, payload: '{' }],
      [400, { method: 'POST', url: '/register' }],
      [400, { url: '/authorize?response_type=code&client_id=x&redirect_uri=http://localhost/callback' }],
      [400, { method: 'POST', url: '/token', headers: form, payload: 'grant_type=refresh_token&refresh_token=x' }],
      [400, { method: 'POST', url: '/revoke', headers: form, payload: 'token=x' }],
    ]
    for (const [status, request] of requests) {
      const response = await app.inject(request)
      const { error, error_description: description } = response.json<Record<string, string>>()
      t.equal(response.statusCode, status, JSON.stringify(request))
      t.equal(error, 'invalid_request')
      t.match(description, SENT_TO)
      t.match(description, /^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/, 'as RFC 6749 allows')
      t.match(response.headers, { 'content-type': /^application\/json/, 'cache-control': 'no-store' })
    }
  }
})

t.test('behind a path prefix, too', async t => {
  const { app } = await startAuthApp(t, { config: { ...TOKEN, publicUrl: 'https://example.com/kafscale' } })
  for (
    const url of [
      '/.well-known/oauth-authorization-server/kafscale/mcp',
      '/.well-known/openid-configuration/kafscale/mcp',
      '/kafscale/mcp/.well-known/openid-configuration',
      '/.well-known/oauth-authorization-server',
    ]
  ) {
    t.match((await app.inject(url)).json(), { error_description: SENT_TO }, url)
  }
})

t.test('with an identity provider, clients that do not find it are told where it is', async t => {
  const { app } = await startAuthApp(t, { config: { auth: oidc(['https://id.example/realms/main']) } })
  t.match(await app.inject({ method: 'POST', url: '/register', payload: REGISTRATION }), { statusCode: 400 })
  t.match((await app.inject('/.well-known/oauth-authorization-server')).json(), {
    error_description: /sign in at https:\/\/id\.example\/realms\/main, which its protected resource metadata/,
  })
})

t.test('without authentication, there is nothing to answer', async t => {
  const { app } = await startAuthApp(t)
  for (const url of [...DOCUMENTS, '/authorize']) t.equal((await app.inject(url)).statusCode, 404)
  t.equal((await app.inject({ method: 'POST', url: '/register', payload: REGISTRATION })).statusCode, 404)
})

t.test('the clients of both SDKs show the description', async t => {
  const { url } = await startAuthApp(t, { config: TOKEN })
  const authProvider: OAuthClientProvider = {
    redirectUrl: 'http://127.0.0.1/callback',
    clientMetadata: { ...REGISTRATION, redirect_uris: ['http://127.0.0.1/callback'] },
    clientInformation: () => undefined,
    saveClientInformation: () => {},
    tokens: () => undefined,
    saveTokens: () => {},
    redirectToAuthorization: () => { throw new Error('no sign-in starts') },
    saveCodeVerifier: () => {},
    codeVerifier: () => '',
  }
  const client = new Client({ name: 'test', version: '1' })
  await t.rejects(client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider })), SENT_TO)
  const clientV1 = new ClientV1({ name: 'test', version: '1' })
  const transport = new TransportV1(new URL(url), { authProvider: authProvider as never })
  await t.rejects(clientV1.connect(transport as Transport), { message: SENT_TO })
})
