/** A real identity provider in the process of the test. */
import { generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { exportJWK, type JWTHeaderParameters, type JWTPayload, SignJWT } from 'jose'
import Provider from 'oidc-provider'
import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js'

export const SCOPE = 'kafscale:observe'
/** The client that obtains tokens. */
export const AGENT = { id: 'agent', secret: 'agent-secret' }
/** The client as which the service introspects tokens. */
export const SERVICE = { id: 'kafscale-mcp', secret: 'kafscale-mcp-secret' }
/** The user of every sign-in. */
export const ACCOUNT = 'alice'

export interface IdentityProvider {
  readonly issuer: string
  /** Paths of all requests, oldest first. */
  readonly requests: string[]
  /** The current private key. */
  readonly key: KeyObject
  readonly kid: string
  stop (): Promise<void>
  /** Listens again, on the same port. */
  start (): Promise<void>
  /** Signs tokens with a new key from now on. The old one is withdrawn, unless `keepOld` keeps it published. */
  rotateKey (options?: { keepOld?: boolean }): Promise<void>
  /** A JWT access token for the agent, issued by the provider. */
  clientCredentials (resource: string, scope?: string): Promise<string>
  /** An opaque access token for the account. */
  opaqueToken (resource: string): Promise<string>
  revoke (token: string): Promise<void>
  /** A JWT with any claims, signed by the provider's key. */
  sign (claims: JWTPayload, header?: Partial<JWTHeaderParameters>): Promise<string>
}

interface Key { private: KeyObject, kid: string }

/** People who sign in through a form, to the pages of the service. */
export interface People {
  /** Where the client {@link SERVICE} receives them. */
  redirectUri: string
  /** Their groups, by account: claims of ID tokens. */
  groups: Record<string, readonly string[]>
  /** How long ago the provider claims to have asked for their credentials. */
  signedInAgoS?: number
  /** Gives each client another subject for the same account. */
  isPairwise?: boolean
}

/** Starts a provider, on a free port unless `port` is given. */
export async function startProvider (
  t: { teardown (end: () => unknown): void },
  port = 0,
  people?: People
): Promise<IdentityProvider> {
  const requests: string[] = []
  let keys = [newKey()]
  let provider: Provider
  let handle: ReturnType<Provider['callback']>
  const server: Server = createServer((request, response) => {
    requests.push(String(request.url))
    if (request.url?.startsWith('/interaction/')) return consent(provider, request, response, people)
    return handle(request, response)
  })
  const start = async () => {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  }
  const stop = async () => {
    if (!server.listening) return
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  }
  await start()
  t.teardown(stop)
  const issuer = `http://127.0.0.1:${port}`
  const build = async () => {
    provider = new Provider(issuer, await configuration(keys, people))
    handle = provider.callback()
  }
  await build()

  const post = async (path: string, { id, secret }: typeof AGENT, body: Record<string, string>) => {
    const response = await fetch(`${issuer}${path}`, {
      method: 'POST',
      headers: { authorization: `Basic ${btoa(`${id}:${secret}`)}` },
      body: new URLSearchParams(body),
    })
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
    return response
  }
  const current = () => keys[0] as Key

  return {
    issuer,
    requests,
    get key () { return current().private },
    get kid () { return current().kid },
    start,
    stop,
    async rotateKey ({ keepOld = false } = {}) {
      keys = [newKey(), ...keepOld ? keys : []]
      await build()
    },
    async clientCredentials (resource, scope = SCOPE) {
      const response = await post('/token', AGENT, { grant_type: 'client_credentials', resource, scope })
      return (await response.json() as { access_token: string }).access_token
    },
    async opaqueToken (resource) {
      const token = new provider.AccessToken({
        accountId: ACCOUNT,
        client: await provider.Client.find(AGENT.id),
        scope: SCOPE,
        gty: 'authorization_code',
      })
      token.resourceServer = new provider.ResourceServer(resource, {
        ...resourceServer(resource),
        accessTokenFormat: 'opaque',
      })
      return await token.save()
    },
    async revoke (token) {
      await post('/token/revocation', AGENT, { token })
    },
    async sign (claims, header = {}) {
      return await new SignJWT(claims).setProtectedHeader({
        alg: 'ES256',
        typ: 'at+jwt',
        kid: current().kid,
        ...header,
      }).sign(current().private)
    },
  }
}

function newKey (): Key {
  return { private: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey, kid: randomUUID() }
}

function resourceServer (resource: string) {
  return {
    scope: SCOPE,
    audience: resource,
    accessTokenTTL: 600,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: 'ES256' } },
  }
}

async function configuration (keys: Key[], people: People | undefined): Promise<object> {
  const jwks = await Promise.all(
    keys.map(async ({ private: key, kid }) => ({ ...await exportJWK(key), kid, alg: 'ES256', use: 'sig' }))
  )
  return {
    // The provider warns about the default adapter, but not about a subclass.
    adapter: class extends MemoryAdapter {},
    jwks: { keys: jwks },
    clients: [AGENT, SERVICE].map(({ id, secret }) => ({
      client_id: id,
      client_secret: secret,
      ...people && id === SERVICE.id
        ? { grant_types: ['authorization_code'], redirect_uris: [people.redirectUri], response_types: ['code'] }
        : { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
    })),
    ...people?.isPairwise && {
      subjectTypes: ['pairwise'],
      pairwiseIdentifier: (_: unknown, account: string, { clientId }: { clientId: string }) => `${account}@${clientId}`,
    },
    ...people && { claims: { openid: ['sub', 'groups'], auth_time: null }, conformIdTokenClaims: false },
    clientDefaults: {
      id_token_signed_response_alg: 'ES256', ...people?.isPairwise && { subject_type: 'pairwise' },
    },
    // Clients ask for the last one if it is listed, and for a refresh token.
    scopes: ['openid', SCOPE, 'offline_access'],
    cookies: { keys: [randomUUID()] },
    findAccount: (_: unknown, accountId: string) => ({
      accountId, claims: () => ({ sub: accountId, ...people && { groups: people.groups[accountId] ?? [] } }),
    }),
    interactions: { url: (_: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    ttl: {
      AccessToken: 600,
      AuthorizationCode: 60,
      ClientCredentials: 600,
      Grant: 600,
      IdToken: 600,
      Interaction: 600,
      Session: 600,
      RefreshToken: 600,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      registration: { enabled: true },
      revocation: { enabled: true, allowedPolicy: () => true },
      introspection: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_: unknown, resource: string) => resourceServer(resource),
      },
    },
  }
}

/** Signs the account in and consents to everything. People sign in through a form. */
async function consent (
  provider: Provider,
  request: IncomingMessage,
  response: ServerResponse,
  people: People | undefined
): Promise<void> {
  const details = await provider.interactionDetails(request, response)
  const { prompt, params: { client_id: clientId, resource }, session } = details
  const isForm = clientId === SERVICE.id
  if (isForm && prompt.name === 'login' && request.method === 'GET') {
    response.setHeader('content-type', 'text/html')
    response.end('<!doctype html><form method="post"><input name="login"><button>Go</button></form>')
    return
  }
  const login = isForm && prompt.name === 'login' ? new URLSearchParams(await text(request)).get('login') : null
  const accountId = login ?? (isForm ? String(session?.accountId) : ACCOUNT)
  const grant = new provider.Grant({ accountId, clientId })
  grant.addOIDCScope(isForm ? 'openid' : `${SCOPE} offline_access`)
  if (!isForm) grant.addResourceScope(resource, SCOPE)
  const ts = Math.floor(Date.now() / 1_000) - (people?.signedInAgoS ?? 0)
  await provider.interactionFinished(request, response, {
    ...(!isForm || login !== null) && { login: { accountId, ...isForm && { ts } } },
    consent: { grantId: await grant.save() },
  })
}
