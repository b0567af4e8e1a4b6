import { errors, type JWTPayload, jwtVerify, type JWTVerifyGetKey } from 'jose'
import { Unauthenticated } from '../../errors.ts'

/** Asymmetric ones only: with any other, whoever verifies could sign. */
const ALGORITHMS: JWSAlgorithm[] = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
]
type JWSAlgorithm = NonNullable<NonNullable<Parameters<typeof jwtVerify>[2]>['algorithms']>[number]

/** Access tokens of RFC 9068, and what issued them before it. An ID token or a logout token is neither. */
const TYPES = new Set(['at+jwt', 'application/at+jwt', 'jwt', 'application/jwt'])

export const LEEWAY_S = 30

/** What a token has to say. */
export interface Expected {
  issuer: string
  audience: string
  maxLifetimeMs: number
}

/** Claims that have been checked. */
export interface Claims extends JWTPayload { sub: string, exp: number, iat: number }

/**
 * Verifies a JWT access token: signature by a key of the issuer's (whatever keys the token itself brings or names),
 * algorithm, type, issuer, audience, times, lifetime and subject.
 * @throws {Unauthenticated}
 */
export async function verifyJwt (
  token: string,
  key: JWTVerifyGetKey,
  { issuer, audience, maxLifetimeMs }: Expected
): Promise<Claims> {
  const { payload, protectedHeader: { typ } } = await jwtVerify(token, key, {
    algorithms: ALGORITHMS,
    issuer,
    audience,
    clockTolerance: LEEWAY_S,
    // Its effect is that `iat` is there and isn't in the future, where it would make any lifetime look short.
    maxTokenAge: maxLifetimeMs / 1_000,
    requiredClaims: ['sub', 'exp'],
    currentDate: new Date(),
  }).catch((error: unknown) => {
    throw error instanceof Unauthenticated
      ? error
      : new Unauthenticated(reasonOf(error), 'invalid_token', error instanceof errors.JWTExpired)
  })
  if (typ !== undefined && !TYPES.has(String(typ).toLowerCase())) {
    throw new Unauthenticated('the token is no access token', 'invalid_token')
  }
  return checked(payload, maxLifetimeMs)
}

/**
 * The same checks of what an issuer says of an opaque token (RFC 7662). It need not name itself; if it does, by its name.
 * @throws {Unauthenticated}
 */
export function checkIntrospected (claims: JWTPayload, { issuer, audience, maxLifetimeMs }: Expected): Claims {
  const nowS = Math.floor(Date.now() / 1_000)
  const { iss = issuer, aud, exp, nbf = 0, iat } = claims
  const refuse = (claim: string): never => { throw new Unauthenticated(CLAIMS.get(claim) ?? '', 'invalid_token') }
  if (iss !== issuer) refuse('iss')
  if (aud === undefined || ![aud].flat().includes(audience)) refuse('aud')
  if (!Number.isFinite(exp)) refuse('exp')
  if ((exp as number) <= nowS) throw new Unauthenticated(EXPIRED, 'invalid_token', true)
  if (!(nbf <= nowS + LEEWAY_S)) refuse('nbf')
  if (!Number.isFinite(iat) || (iat as number) > nowS + LEEWAY_S) refuse('iat')
  return checked({ ...claims, iss }, maxLifetimeMs)
}

function checked (claims: JWTPayload, maxLifetimeMs: number): Claims {
  const { sub, exp, iat } = claims as Claims
  if (typeof sub !== 'string' || sub === '') throw new Unauthenticated('the token has no subject', 'invalid_token')
  if (!((exp - iat) * 1_000 <= maxLifetimeMs)) {
    throw new Unauthenticated(
      `the token lives longer than the ${maxLifetimeMs / 1_000} s that are accepted`,
      'invalid_token'
    )
  }
  return claims as Claims
}

const EXPIRED = 'the token has expired'

const CLAIMS: ReadonlyMap<string, string> = new Map([
  ['iss', 'the token is of another issuer'],
  ['aud', 'the token is for another resource'],
  ['exp', 'the token does not say when it expires'],
  ['nbf', 'the token is not valid yet'],
  ['iat', 'the token does not say when it was issued, or says a time to come'],
  ['sub', 'the token has no subject'],
])

/** The errors of jose as sentences; their own hold the token's claims. */
function reasonOf (error: unknown): string {
  if (error instanceof errors.JWTExpired) return EXPIRED
  if (error instanceof errors.JWTClaimValidationFailed) {
    return CLAIMS.get(error.claim) ?? 'a claim of the token is not valid'
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return 'the token is signed by an algorithm that is not accepted'
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) {
    return 'the token names no key of its issuer'
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'the token is not signed by its issuer'
  return 'the token is no JWT that can be verified'
}
