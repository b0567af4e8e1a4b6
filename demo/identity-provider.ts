/** An OpenID provider in this process. It forgets everything when the process ends. */
import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { exportJWK } from 'jose'
import Provider from 'oidc-provider'
import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js'

/** How long tokens are accepted: longer than anybody looks at a demo. */
export const TOKEN_LIFETIME_S = 12 * 3_600
const SESSION_LIFETIME_S = 3_600

export interface Credentials { id: string, secret: string }

export interface IdentityProvider {
  issuer: string
  /** A token of a client, as a JWT. */
  token: (client: Credentials) => Promise<string>
}

interface Options {
  /** Obtains tokens for itself. */
  agent: Credentials
  /** The client of the service, which signs people in. */
  service: Credentials & { redirectUri: string }
  /** Passwords of people, by their names. */
  people: Readonly<Record<string, string>>
  /** What tokens are for, and what they allow. */
  audience: string
  scope: string
}

/** Serves a provider on a free loopback port until the process ends. */
export async function serveIdentityProvider (options: Options): Promise<IdentityProvider> {
  let handle: (request: IncomingMessage, response: ServerResponse) => unknown = () => {}
  const server = createServer((request, response) => handle(request, response)).listen(0, '127.0.0.1').unref()
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const provider = new Provider(issuer, await configuration(options))
  const answer = provider.callback()
  handle = (request, response) => request.url?.startsWith('/sign-in/')
    ? signIn(provider, options.people, request, response).catch(() => response.writeHead(400).end('Start again.'))
    : answer(request, response)

  return {
    issuer,
    async token ({ id, secret }) {
      const { audience: resource, scope } = options
      const response = await fetch(`${issuer}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${btoa(`${id}:${secret}`)}` },
        body: new URLSearchParams({ grant_type: 'client_credentials', resource, scope }),
      })
      const { access_token: token } = await response.json() as { access_token?: string }
      if (token === undefined) throw new Error(`the demo's OpenID provider issues no token: ${response.status}`)
      return token
    },
  }
}

async function configuration ({ agent, service, audience, scope }: Options): Promise<object> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const resourceServer = {
    scope, audience, accessTokenTTL: TOKEN_LIFETIME_S, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } },
  }
  return {
    // The provider warns about the default adapter, but not about a subclass.
    adapter: class extends MemoryAdapter {},
    jwks: { keys: [{ ...await exportJWK(privateKey), kid: randomUUID(), alg: 'ES256', use: 'sig' }] },
    clients: [
      {
        client_id: agent.id,
        client_secret: agent.secret,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
      {
        client_id: service.id,
        client_secret: service.secret,
        grant_types: ['authorization_code'],
        redirect_uris: [service.redirectUri],
        response_types: ['code'],
      },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    scopes: ['openid', ...scope.split(' ')],
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    findAccount: (_: unknown, accountId: string) => ({ accountId, claims: () => ({ sub: accountId }) }),
    interactions: { url: (_: unknown, { uid }: { uid: string }) => `/sign-in/${uid}` },
    // Nobody is asked to consent: the only client that signs people in is the service.
    async loadExistingGrant ({ oidc: { account, client, provider } }: {
      oidc: { account: { accountId: string }, client: { clientId: string }, provider: Provider }
    }) {
      const grant = new provider.Grant({ accountId: account.accountId, clientId: client.clientId })
      grant.addOIDCScope('openid')
      await grant.save()
      return grant
    },
    ttl: {
      AccessToken: SESSION_LIFETIME_S,
      AuthorizationCode: 60,
      ClientCredentials: TOKEN_LIFETIME_S,
      Grant: SESSION_LIFETIME_S,
      IdToken: SESSION_LIFETIME_S,
      Interaction: SESSION_LIFETIME_S,
      Session: SESSION_LIFETIME_S,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: () => resourceServer,
      },
    },
  }
}

/** A page that asks for a name and a password, and what it is sent to. */
async function signIn (
  provider: Provider,
  people: Options['people'],
  request: IncomingMessage,
  response: ServerResponse
): Promise<void> {
  await provider.interactionDetails(request, response) // fails unless this browser has begun to sign in
  const isAnswer = request.method === 'POST'
  const form = new URLSearchParams(isAnswer ? await text(request) : '')
  const name = form.get('name') ?? ''
  if (isAnswer && Object.hasOwn(people, name) && people[name] === form.get('password')) {
    await provider.interactionFinished(request, response, { login: { accountId: name } })
    return
  }
  response.writeHead(isAnswer ? 403 : 200, {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
    'cache-control': 'no-store',
  }).end(`<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<title>Sign in to the demo</title>
<style>
body { font: 1rem system-ui; max-width: 20rem; margin: 3rem auto }
label, button { display: block; margin: 1rem 0 }
input { font: inherit; width: 100%; box-sizing: border-box }
</style>
<h1>Sign in to the demo</h1>
${isAnswer ? '<p role="alert">Wrong name or password. The demo has printed both.</p>' : ''}
<form method="post">
<label>Name <input name="name" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button>
</form>
</html>
`)
}
