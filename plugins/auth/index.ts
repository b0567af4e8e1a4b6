import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { decodeJwt, type JWTPayload, type JWTVerifyGetKey } from 'jose'
import { Unauthenticated } from '../../errors.ts'
import type { JwksConfig, OidcConfig } from '../config/auth.ts'
import { variableOf } from '../config/schema.ts'
import { reveal } from '../config/secret.ts'
import { fetchOutbound } from '../outbound.ts'
import { clientCertificate } from '../tls.ts'
import { bearerToken } from './bearer.ts'
import { Issuer, type IssuerState } from './issuer.ts'
import {
  checkIntrospected, type Claims, type Expectations, LEEWAY_S, missing, NOT_A_JWT, verifyJwt
} from './jwt.ts'
import { keysFromFile } from './keys-file.ts'
import { ANONYMOUS, type AuthMethod, type Principal, principalOf, STATIC_TOKEN } from './principal.ts'
import { resourceUrl } from './resource.ts'
import { fingerprint, formOf, requireCanonical } from './spelling.ts'
import { VerifiedTokens } from './verified-tokens.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Authenticates a request, sets `request.principal` and returns it. Introspecting a token that has not been
     * accepted before goes through `throttle`, whose errors it passes on.
     * @throws {Unauthenticated} {Unverifiable}
     */
    authenticate: (request: FastifyRequest, throttle?: Throttle) => Promise<Principal>
    /** Whether a text is one of the tokens that were accepted last, in the mode `oidc`. */
    isAcceptedToken: (text: string) => boolean
    /** The issuers that verify tokens over the network, in the mode `oidc`. */
    readonly tokenIssuers: { readonly state: IssuerState }[]
  }
  interface FastifyRequest {
    /** The caller; null on routes without authentication. */
    principal: Principal | null
  }
}

/** How long the answer of an introspection is reused, and so how long a revoked token is still accepted. */
const INTROSPECTED_MAX_AGE_MS = 30_000

/** Runs a request to an issuer, or throws instead. */
type Throttle = <T>(request: () => Promise<T>) => Promise<T>
const unthrottled: Throttle = async request => await request()

/** @throws {Unauthenticated} {Unverifiable}, and what `throttle` throws */
type AuthenticateToken = (token: string, throttle: Throttle) => Principal | Promise<Principal>

/** @throws {Unauthenticated} {Unverifiable}, and what `throttle` throws */
type VerifyToken = (token: string, throttle: Throttle) => Promise<VerifiedClaims>

interface VerifiedClaims {
  claims: Claims
  /** Until when the token is accepted without being verified again, in milliseconds since the epoch. */
  untilMs: number
}

/** Decorates `app.authenticate`. Without authentication, every caller is anonymous. */
export default fp(async function auth (app) {
  const closing = new AbortController()
  app.addHook('onClose', async () => closing.abort())
  app.decorate('tokenIssuers', [])
  app.decorate('isAcceptedToken', () => false)
  const authenticateToken = await tokenAuthentication(app, closing.signal)
  const requiresCertificate = app.config.tls?.clientCaFile !== undefined

  app.decorateRequest('principal', null)
  app.decorate('authenticate', async (request, throttle = unthrottled) => {
    const principal = authenticateToken ? await authenticateToken(bearerToken(request), throttle) : ANONYMOUS
    request.principal = requiresCertificate
      ? { ...principal, clientCertificate: clientCertificate(request.socket) }
      : principal
    return request.principal
  })
}, { name: 'auth', dependencies: ['config'] })

/** Undefined when callers need no token. */
async function tokenAuthentication (
  app: FastifyInstance,
  signal: AbortSignal
): Promise<AuthenticateToken | undefined> {
  const { auth } = app.config
  switch (auth.mode) {
    case 'oidc': return oidc(app, auth, signal)
    case 'jwks': return await jwks(app, auth, signal)
    case 'token': return staticToken(reveal(auth.token))
    case 'none': return undefined
  }
}

function oidc (app: FastifyInstance, auth: OidcConfig, signal: AbortSignal): AuthenticateToken {
  const { authenticateToken, forgetTokens, isAccepted } = remembering('oidc', verify)
  app.isAcceptedToken = isAccepted
  const expectations = expectationsOf(app, auth)
  const { introspection: client } = auth
  const issuers = issuersOf(auth, app, forgetTokens)
  app.tokenIssuers.push(...issuers)
  for (const issuer of issuers) void issuer.follow(signal)
  return authenticateToken

  async function verify (token: string, throttle: Throttle): Promise<VerifiedClaims> {
    const claimed = claimedIssuer(token)
    if (claimed === undefined) return await introspect(token, throttle)
    const issuer = issuers.find(({ identifier }) => identifier === claimed)
    if (!issuer) {
      throw new Unauthenticated(
        `the token is from another issuer: its iss must be one of ${variableOf('oidcIssuer')}, in the same spelling`,
        'invalid_token'
      )
    }
    return await verifySigned(token, issuer.key, expectations(issuer.identifier))
  }

  /** At the first issuer only: the client is registered there, and no other may see its secret or the token. */
  async function introspect (token: string, throttle: Throttle): Promise<VerifiedClaims> {
    const [issuer] = issuers
    if (!client || !issuer) throw new Unauthenticated('the token is not a JWT', 'invalid_token')
    const askedAtMs = Date.now()
    const answer = await throttle(() => issuer.introspect(token))
    if (!answer) throw new Unauthenticated('the token is not active', 'invalid_token')
    const claims = checkIntrospected(answer, expectations(issuer.identifier))
    return { claims, untilMs: Math.min(askedAtMs + INTROSPECTED_MAX_AGE_MS, claims.exp * 1_000) }
  }
}

/** The issuers of the settings, not yet discovered. */
export function issuersOf (
  { issuers, jwksUrls, introspection }: OidcConfig,
  { config, log }: Pick<FastifyInstance, 'config' | 'log'>,
  onKeysChange: () => void = () => {}
): Issuer[] {
  const fetch = fetchOutbound(config)
  const client = introspection && { id: introspection.clientId, secret: reveal(introspection.clientSecret) }
  return issuers.map((identifier, index) =>
    new Issuer(identifier, {
      client,
      jwksUrl: jwksUrls[index],
      introspectionUrl: index === 0 ? introspection?.url : undefined,
      onKeysChange,
      fetch,
      log,
    })
  )
}

async function jwks (app: FastifyInstance, auth: JwksConfig, signal: AbortSignal): Promise<AuthenticateToken> {
  const expectations = expectationsOf(app, auth)
  const { authenticateToken, forgetTokens } = remembering('jwks', token =>
    verifySigned(token, key, expectations(auth.issuer))
  )
  const key = await keysFromFile(auth.file, { onChange: forgetTokens, log: app.log, signal })
  return authenticateToken
}

/** Compares digests: they have equal lengths, so the time it takes reveals nothing about the secret. */
function staticToken (secret: string): AuthenticateToken {
  const digest = hash('sha256', secret, 'buffer')
  return token => {
    if (!timingSafeEqual(hash('sha256', token, 'buffer'), digest)) {
      throw new Unauthenticated('the token is not the configured one', 'invalid_token')
    }
    return STATIC_TOKEN
  }
}

async function verifySigned (token: string, key: JWTVerifyGetKey, expected: Expectations): Promise<VerifiedClaims> {
  const claims = await verifyJwt(token, key, expected)
  return { claims, untilMs: (claims.exp + LEEWAY_S) * 1_000 }
}

/** What tokens of an issuer must contain. The first one that is valid for too long is logged, for each issuer. */
function expectationsOf (app: FastifyInstance, auth: OidcConfig | JwksConfig): (issuer: string) => Expectations {
  const logged = new Set<string>()
  return issuer => ({
    issuer,
    audiences: auth.audiences ?? [resourceUrl(app)],
    maxLifetimeMs: auth.maxTokenLifetimeMs,
    acceptsIdTokens: auth.idTokenIssuers.includes(issuer),
    onTooLong (lifetimeS) {
      if (logged.has(issuer)) return
      logged.add(issuer)
      app.log.info(
        { issuer, lifetime_s: lifetimeS, accepted_s: auth.maxTokenLifetimeMs / 1_000 },
        `a token is refused because it is valid for longer than ${variableOf('oidcMaxTokenLifetimeMs')} allows; ` +
        'further ones are not logged'
      )
    },
  })
}

/** Verifies each token once for as long as it stays accepted, or until `forgetTokens` is called. */
function remembering (
  method: AuthMethod,
  verify: VerifyToken
): { authenticateToken: AuthenticateToken, forgetTokens: () => void, isAccepted: (text: string) => boolean } {
  let current = new VerifiedTokens()
  return {
    authenticateToken: async (token, throttle) => {
      // A verification that started with the old keys ends in the old cache, which is no longer used.
      const tokens = current
      const digest = hash('sha256', token, 'base64url')
      return tokens.get(digest) ?? await tokens.verify(digest, async () => {
        // A token that was accepted before is not held up by failed sign-ins from the same address.
        const { claims, untilMs } = await verify(token, tokens.hasAccepted(digest) ? unthrottled : throttle)
        return { principal: principalOf(withoutToken(claims, token), method, fingerprint(token)), untilMs }
      })
    },
    forgetTokens: () => { current = new VerifiedTokens() },
    isAccepted: text => current.hasAccepted(hash('sha256', text, 'base64url')),
  }
}

/** Removes the token itself, which an issuer may repeat in its answer: claims can be shown to others. */
function withoutToken (claims: Claims, token: string): Claims {
  return Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== token)) as Claims
}

/**
 * The unverified `iss` of a signed JWT; undefined for every other token.
 * @throws {Unauthenticated} if a signed JWT has none
 */
function claimedIssuer (token: string): string | undefined {
  const form = formOf(token)
  if (form !== 'opaque') requireCanonical(token, form === 'signed' ? 3 : 5)
  if (form !== 'signed') return undefined
  const { iss } = claimsOf(token)
  if (iss === undefined) throw missing('iss')
  return iss
}

/** The unverified claims of a JWT. @throws {Unauthenticated} */
function claimsOf (token: string): JWTPayload {
  try {
    return decodeJwt(token)
  } catch {
    throw new Unauthenticated(NOT_A_JWT, 'invalid_token')
  }
}
