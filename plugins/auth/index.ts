import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { decodeJwt, type JWTVerifyGetKey } from 'jose'
import { Unauthenticated } from '../../errors.ts'
import { secretsOf } from '../config/index.ts'
import { clientCertificate } from '../tls.ts'
import { bearerToken } from './bearer.ts'
import { Issuer } from './issuer.ts'
import { checkIntrospected, type Claims, type Expected, LEEWAY_S, verifyJwt } from './jwt.ts'
import { keysFromFile } from './keys-file.ts'
import type { AuthMethod, Principal } from './principal.ts'
import { resourceUrl } from './resource.ts'
import { VerifiedTokens } from './verified-tokens.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Finds out who is asking, leaves it in `request.principal` and returns it. An issuer is asked of a token that was never
     * good through `ask`, which may refuse.
     * @throws {Unauthenticated} {Unverifiable}
     */
    authenticate: (request: FastifyRequest, ask?: Ask) => Promise<Principal>
  }
  interface FastifyRequest {
    /** Who is asking; `null` on routes that don't ask. */
    principal: Principal | null
  }
}

const INTROSPECTED_MAX_AGE_MS = 30_000

type Ask = <T>(question: () => Promise<T>) => Promise<T>
const askAnyhow: Ask = async question => await question()

/** Whom a token stands for. @throws {Unauthenticated} */
type Verify = (token: string, ask: Ask) => Principal | Promise<Principal>

/** A token that is good, and until when that need not be found out again, in milliseconds since the epoch. */
interface Verified { claims: Claims, untilMs: number }

export default fp(async function auth (app) {
  const closing = new AbortController()
  app.addHook('onClose', async () => closing.abort())
  const { authMode, tlsClientCaFile } = app.config
  const verify = await verifier(app, authMode, closing.signal)

  app.decorateRequest('principal', null)
  app.decorate('authenticate', async (request, ask = askAnyhow) => {
    const principal = verify ? await verify(bearerToken(request), ask) : ANONYMOUS
    request.principal = tlsClientCaFile === undefined
      ? principal
      : { ...principal, clientCertificate: clientCertificate(request.socket) }
    return request.principal
  })
}, { name: 'auth', dependencies: ['config'] })

async function verifier (app: FastifyInstance, mode: AuthMethod, signal: AbortSignal): Promise<Verify | undefined> {
  switch (mode) {
    case 'oidc': return oidc(app, signal)
    case 'jwks': return await jwks(app, signal)
    case 'token': return staticToken(secretsOf(app.config).authToken as string)
    case 'none': return undefined
  }
}

function oidc (app: FastifyInstance, signal: AbortSignal): Verify {
  const { log, config: { oidcIssuer = [], oidcClientId: id } } = app
  const { oidcClientSecret: secret } = secretsOf(app.config)
  const { verify, forget } = remembering('oidc', verifyOnce)
  const client = id === undefined || secret === undefined ? undefined : { id, secret }
  const issuers = oidcIssuer.map(identifier => new Issuer(identifier, { client, onKeysChange: forget, log }))
  for (const issuer of issuers) void issuer.follow(signal)
  return verify

  async function verifyOnce (token: string, ask: Ask): Promise<Verified> {
    const named = issuerOf(token)
    if (named === undefined) return await introspect(token, ask)
    const issuer = issuers.find(({ identifier }) => identifier === named)
    if (!issuer) throw new Unauthenticated('the token is of another issuer', 'invalid_token')
    return await verifySigned(token, issuer.key, expected(app, issuer.identifier))
  }

  /** At the first issuer: the client is one of its, and no other is to see the secret or the token. */
  async function introspect (token: string, ask: Ask): Promise<Verified> {
    const [issuer] = issuers
    if (!client || !issuer) throw new Unauthenticated('the token is no JWT', 'invalid_token')
    const askedAtMs = Date.now()
    const answer = await ask(() => issuer.introspect(token))
    if (!answer) throw new Unauthenticated('the token is not active', 'invalid_token')
    const claims = checkIntrospected(answer, expected(app, issuer.identifier))
    return { claims, untilMs: Math.min(askedAtMs + INTROSPECTED_MAX_AGE_MS, claims.exp * 1_000) }
  }
}

async function jwks (app: FastifyInstance, signal: AbortSignal): Promise<Verify> {
  const { log, config: { authJwksFile, authJwksIssuer } } = app
  const { verify, forget } = remembering(
    'jwks',
    token => verifySigned(token, key, expected(app, authJwksIssuer as string))
  )
  const key = await keysFromFile(authJwksFile as string, { onChange: forget, log, signal })
  return verify
}

async function verifySigned (token: string, key: JWTVerifyGetKey, expected: Expected): Promise<Verified> {
  const claims = await verifyJwt(token, key, expected)
  return { claims, untilMs: (claims.exp + LEEWAY_S) * 1_000 }
}

function expected (app: FastifyInstance, issuer: string): Expected {
  const { oidcAudience, oidcMaxTokenLifetime } = app.config
  return { issuer, audience: oidcAudience ?? resourceUrl(app), maxLifetimeMs: oidcMaxTokenLifetime }
}

/** `verify` finds out once whom a token stands for; after `forget`, anew. */
function remembering (
  method: AuthMethod,
  verifyOnce: (token: string, ask: Ask) => Promise<Verified>
): { verify: Verify, forget: () => void } {
  let verified = new VerifiedTokens()
  return {
    verify: async (token, ask) => {
      // A verification that is under way when the keys change is remembered where nobody looks any more.
      const tokens = verified
      const digest = hash('sha256', token, 'base64url')
      return tokens.get(digest) ?? await tokens.find(digest, async () => {
        // Whoever fails from the same address keeps no one out who is known.
        const { claims, untilMs } = await verifyOnce(token, tokens.knew(digest) ? askAnyhow : ask)
        return { principal: principalOf(withoutToken(claims, token), method, digest), untilMs }
      })
    },
    forget: () => { verified = new VerifiedTokens() },
  }
}

/** An issuer may tell the token among its claims, where a policy could show it. */
function withoutToken (claims: Claims, token: string): Claims {
  return Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== token)) as Claims
}

/** Compares digests: they have one length, so the time that it takes tells nothing of the secret. */
function staticToken (secret: string): Verify {
  const digest = hash('sha256', secret, 'buffer')
  return token => {
    if (!timingSafeEqual(hash('sha256', token, 'buffer'), digest)) {
      throw new Unauthenticated('the token is not the one that is expected', 'invalid_token')
    }
    return STATIC_TOKEN
  }
}

function nobody (method: AuthMethod, subject: string): Principal {
  return Object.freeze({
    subject,
    issuer: null,
    clientId: null,
    method,
    scopes: undefined,
    tokenId: null,
    expiresAt: null,
    claims: {},
    clientCertificate: null,
  })
}

const ANONYMOUS = nobody('none', 'anonymous')
const STATIC_TOKEN = nobody('token', 'static-token')

function principalOf (claims: Claims, method: AuthMethod, digest: string): Principal {
  const { sub, iss, jti, exp, client_id: clientId, azp } = claims
  return Object.freeze({
    subject: sub,
    issuer: iss ?? null,
    clientId: [clientId, azp].find(id => typeof id === 'string') ?? null,
    method,
    scopes: scopesOf(claims),
    tokenId: typeof jti === 'string' ? jti : digest,
    expiresAt: new Date(exp * 1_000),
    claims,
    clientCertificate: null,
  })
}

/** `scope` of RFC 9068, or `scp`, as some issuers call it. One that is there and can't be read grants nothing. */
function scopesOf ({ scope, scp }: Claims): ReadonlySet<string> | undefined {
  const claim = scope ?? scp
  if (claim === undefined) return undefined
  const scopes = typeof claim === 'string' ? claim.split(' ') : Array.isArray(claim) ? claim : []
  return new Set(scopes.filter(scope => typeof scope === 'string' && scope !== ''))
}

/** Who a JWT says has issued it, not verified; `undefined` when it is no JWT. */
function issuerOf (token: string): string | null | undefined {
  try {
    return decodeJwt(token).iss ?? null
  } catch {
    return undefined
  }
}
