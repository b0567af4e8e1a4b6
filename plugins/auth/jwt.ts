import {
  decodeProtectedHeader,
  errors,
  type JWTPayload,
  jwtVerify,
  type JWTVerifyGetKey,
  type JWTVerifyOptions,
} from 'jose'
import { Unauthenticated, Unverifiable } from '../../errors.ts'
import { variableOf } from '../config/schema.ts'
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
  /** 0: no limit. */
  maxLifetimeMs: number
  /** Called when a token is refused because it is valid for longer. */
  onTooLong: (lifetimeS: number) => void
  /** Whether an access token may have the claims of an ID token. */
  acceptsIdTokens: boolean
}

/** The claims of an accepted token. */
export interface Claims extends JWTPayload { sub: string, exp: number }

/**
 * Verifies a JWT access token: its spelling, the signature with a key of the issuer (never one that the token contains
 * or points to), algorithm, kind, issuer, audience, times, lifetime and subject.
 * @throws {Unauthenticated}, or {Unverifiable} when the key cannot be fetched
 */
export async function verifyJwt (
  token: string,
  key: JWTVerifyGetKey,
  expected: Expectations
): Promise<Claims> {
  const { issuer, audiences, acceptsIdTokens } = expected
  requireCanonical(token, 3)
  const { payload, protectedHeader: { typ } } = await jwtVerify(token, key, {
    algorithms: ALGORITHMS,
    issuer,
    audience: [...audiences],
    clockTolerance: LEEWAY_S,
    requiredClaims: ['sub', 'exp', 'iat'],
    currentDate: new Date(),
  }).catch((error: unknown) => {
    // The signature is valid. What the token is explains more than which of its claims does not fit.
    if (error instanceof errors.JWTClaimValidationFailed || error instanceof errors.JWTExpired) {
      requireAccessToken(error.payload, acceptsIdTokens, decodeProtectedHeader(token).typ)
    }
    if (error instanceof Unauthenticated || error instanceof Unverifiable) throw error
    if (error instanceof errors.JWTClaimValidationFailed && error.reason === 'missing') throw missing(error.claim)
    throw new Unauthenticated(reasonOf(error), 'invalid_token', error instanceof errors.JWTExpired)
  })
  requireAccessToken(payload, acceptsIdTokens, typ)
  return checkLifetime(payload, expected)
}

/**
 * Checks the claims from the introspection of an opaque token (RFC 7662) as strictly as those of a JWT. A missing `iss`
 * stands for the issuer that was asked, and a missing `iat` for now: the rest of the lifetime must be short enough.
 * @throws {Unauthenticated}
 */
export function checkIntrospected (claims: JWTPayload, expected: Expectations): Claims {
  const { issuer, audiences, acceptsIdTokens } = expected
  requireAccessToken(claims, acceptsIdTokens)
  const nowS = Math.floor(Date.now() / 1_000)
  const { iss = issuer, aud, sub, exp, nbf = 0, iat } = claims
  if (iss !== issuer) throw invalid(WRONG.iss)
  for (const [claim, value] of Object.entries({ aud, exp, sub })) if (value === undefined) throw missing(claim)
  if (![aud].flat().some(each => each !== undefined && audiences.includes(each))) throw invalid(WRONG.aud)
  if (!isTime(exp)) throw invalid(WRONG.exp)
  if (exp <= nowS) throw new Unauthenticated(EXPIRED, 'invalid_token', true)
  if (!(nbf <= nowS + LEEWAY_S)) throw invalid(WRONG.nbf)
  return checkLifetime({ ...claims, iss }, expected, iat ?? nowS)
}

/** Checks the subject, and the time from `iat`, which must not be in the future, to `exp`. */
function checkLifetime (
  claims: JWTPayload,
  { maxLifetimeMs, onTooLong }: Expectations,
  iat: unknown = claims.iat
): Claims {
  const { sub, exp = NaN } = claims
  if (typeof sub !== 'string' || sub === '') throw invalid(WRONG.sub)
  if (!isTime(iat) || iat > Date.now() / 1_000 + LEEWAY_S) throw invalid(WRONG.iat)
  const lifetimeS = exp - iat
  if (maxLifetimeMs > 0 && !(lifetimeS * 1_000 <= maxLifetimeMs)) {
    onTooLong(lifetimeS)
    throw invalid(
      `the token is valid for longer than the accepted ${maxLifetimeMs / 1_000} s: for ${lifetimeS} s; ` +
      `${variableOf('oidcMaxTokenLifetimeMs')} sets the limit`
    )
  }
  return { ...claims, sub, exp }
}

function isTime (value: unknown): value is number {
  return Number.isFinite(value)
}

function invalid (reason: string): Unauthenticated {
  return new Unauthenticated(reason, 'invalid_token')
}

const EXPIRED = 'the token has expired'

const ACCEPTED = {
  iss: `${variableOf('oidcIssuer')}, or ${variableOf('authJwksIssuer')} in the mode jwks`,
  aud: `{${variableOf('publicUrl')}}/mcp or, if it is set, a value of ${variableOf('oidcAudience')}`,
} as const

/** Why a token is refused whose claim has another value than accepted, by claim. */
const WRONG = {
  iss: `the token is from another issuer: its iss must be one of ${ACCEPTED.iss}`,
  aud: `the token is for another resource: its aud must contain ${ACCEPTED.aud}`,
  exp: 'the token does not say when it expires: its exp is not a time',
  nbf: 'the token is not valid yet: its nbf is in the future, or not a time; compare the clocks',
  iat: 'the token does not say when it was issued: its iat is in the future, or not a time; compare the clocks',
  sub: 'the token has no subject: its sub is empty, or not text',
} as const

/** Why a token is refused that lacks a claim. */
const MISSING: Readonly<Record<string, string>> = {
  iss: `the token has no iss claim, which must be one of ${ACCEPTED.iss}`,
  aud: `the token has no aud claim, which must contain ${ACCEPTED.aud}`,
  exp: 'the token has no exp claim, so it does not say when it expires',
  iat: 'the token has no iat claim, so it does not say when it was issued',
  sub: 'the token has no sub claim, so it has no subject',
}

/** Refuses a token without a claim. */
export function missing (claim: string): Unauthenticated {
  return invalid(`${MISSING[claim]}: configure its issuer to add the claim`)
}

export const NOT_A_JWT = 'the token is not a JWT that can be verified'

/** Describes an error from jose. Its own message is not used: it contains claims. */
function reasonOf (error: unknown): string {
  if (error instanceof errors.JWTExpired) return EXPIRED
  if (error instanceof errors.JWTClaimValidationFailed) {
    return Object.hasOwn(WRONG, error.claim)
      ? WRONG[error.claim as keyof typeof WRONG]
      : 'a claim of the token is not valid'
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return 'the token is signed with an algorithm that is not accepted'
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) {
    return 'the token does not name a key of its issuer'
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'the token is not signed by its issuer'
  return NOT_A_JWT
}
