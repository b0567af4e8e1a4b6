import {
  decodeProtectedHeader,
  errors,
  type JWTPayload,
  jwtVerify,
  type JWTVerifyGetKey,
  type JWTVerifyOptions,
} from 'jose'
import { Unauthenticated, Unverifiable } from '../../errors.ts'
import { requireAccessToken } from './access-token.ts'
import { requireCanonical } from './spelling.ts'

/** Asymmetric algorithms only. With a symmetric one, everyone who can verify a token could sign one. */
const ALGORITHMS = [
  'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519',
] satisfies JWTVerifyOptions['algorithms']

/** How far the clocks of issuer and service may differ. */
export const LEEWAY_S = 30

/** What a token must contain to be accepted. */
export interface Expectations {
  issuer: string
  /** The token must contain one of them. */
  audiences: readonly string[]
  maxLifetimeMs: number
  /** Whether an access token may have the claims of an ID token. */
  acceptsIdTokens: boolean
}

/** The claims of an accepted token. */
export interface Claims extends JWTPayload { sub: string, exp: number, iat: number }

/**
 * Verifies a JWT access token: its spelling, the signature with a key of the issuer (never one that the token contains
 * or points to), algorithm, kind, issuer, audience, times, lifetime and subject.
 * @throws {Unauthenticated}, or {Unverifiable} when the key cannot be fetched
 */
export async function verifyJwt (
  token: string,
  key: JWTVerifyGetKey,
  { issuer, audiences, maxLifetimeMs, acceptsIdTokens }: Expectations
): Promise<Claims> {
  requireCanonical(token, 3)
  const { payload, protectedHeader: { typ } } = await jwtVerify(token, key, {
    algorithms: ALGORITHMS,
    issuer,
    audience: [...audiences],
    clockTolerance: LEEWAY_S,
    // Makes jose require an `iat` that is not in the future, which would let the lifetime appear shorter.
    maxTokenAge: maxLifetimeMs / 1_000,
    requiredClaims: ['sub', 'exp'],
    currentDate: new Date(),
  }).catch((error: unknown) => {
    // The signature is valid. What the token is explains more than which of its claims does not fit.
    if (error instanceof errors.JWTClaimValidationFailed || error instanceof errors.JWTExpired) {
      requireAccessToken(error.payload, acceptsIdTokens, decodeProtectedHeader(token).typ)
    }
    throw error instanceof Unauthenticated || error instanceof Unverifiable
      ? error
      : new Unauthenticated(reasonOf(error), 'invalid_token', error instanceof errors.JWTExpired)
  })
  requireAccessToken(payload, acceptsIdTokens, typ)
  return checkLifetime(payload, maxLifetimeMs)
}

/**
 * Checks the claims from the introspection of an opaque token (RFC 7662) as strictly as those of a JWT. A missing `iss`
 * stands for the issuer that was asked.
 * @throws {Unauthenticated}
 */
export function checkIntrospected (
  claims: JWTPayload,
  { issuer, audiences, maxLifetimeMs, acceptsIdTokens }: Expectations
): Claims {
  requireAccessToken(claims, acceptsIdTokens)
  const nowS = Math.floor(Date.now() / 1_000)
  const { iss = issuer, aud, exp, nbf = 0, iat } = claims
  if (iss !== issuer) throw invalid(CLAIM_REASONS.iss)
  if (aud === undefined || ![aud].flat().some(each => audiences.includes(each))) throw invalid(CLAIM_REASONS.aud)
  if (!isTime(exp)) throw invalid(CLAIM_REASONS.exp)
  if (exp <= nowS) throw new Unauthenticated(EXPIRED, 'invalid_token', true)
  if (!(nbf <= nowS + LEEWAY_S)) throw invalid(CLAIM_REASONS.nbf)
  if (!isTime(iat) || iat > nowS + LEEWAY_S) throw invalid(CLAIM_REASONS.iat)
  return checkLifetime({ ...claims, iss }, maxLifetimeMs)
}

function checkLifetime (claims: JWTPayload, maxLifetimeMs: number): Claims {
  const { sub, exp = NaN, iat = NaN } = claims
  if (typeof sub !== 'string' || sub === '') throw invalid(CLAIM_REASONS.sub)
  if (!((exp - iat) * 1_000 <= maxLifetimeMs)) {
    throw invalid(`the token is valid for longer than the accepted ${maxLifetimeMs / 1_000} s`)
  }
  return { ...claims, sub, exp, iat }
}

function isTime (value: unknown): value is number {
  return Number.isFinite(value)
}

function invalid (reason: string): Unauthenticated {
  return new Unauthenticated(reason, 'invalid_token')
}

const EXPIRED = 'the token has expired'

const CLAIM_REASONS = {
  iss: 'the token is from another issuer',
  aud: 'the token is for another resource',
  exp: 'the token does not say when it expires',
  nbf: 'the token is not valid yet',
  iat: 'the token does not say when it was issued, or says it was in the future',
  sub: 'the token has no subject',
} as const

/** Describes an error from jose. Its own message is not used: it contains claims. */
function reasonOf (error: unknown): string {
  if (error instanceof errors.JWTExpired) return EXPIRED
  if (error instanceof errors.JWTClaimValidationFailed) {
    const [, reason = 'a claim of the token is not valid'] =
      Object.entries(CLAIM_REASONS).find(([claim]) => claim === error.claim) ?? []
    return reason
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return 'the token is signed with an algorithm that is not accepted'
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) {
    return 'the token does not name a key of its issuer'
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'the token is not signed by its issuer'
  return 'the token is not a JWT that can be verified'
}
