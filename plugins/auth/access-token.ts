import type { JWTPayload } from 'jose'
import { Unauthenticated } from '../../errors.ts'

/** Why a token is refused that is no access token, by what it is instead. */
export const NOT_ACCESS_TOKENS = {
  id: 'the token is an ID token: send the access token',
  refresh: 'the token is a refresh token: send the access token',
  logout: 'the token is a logout token: send the access token',
  event: 'the token is a security event token: send the access token',
  other: 'the token is not an access token: its typ, token_type or token_use names another kind',
  malformed: 'the token is not an access token: its typ, token_type or token_use is not a string',
} as const

type Kind = 'access' | Exclude<keyof typeof NOT_ACCESS_TOKENS, 'malformed'>

/** Of a kind's name as a media type or as a URN (RFC 8693). */
const PREFIX = /^(?:application\/|urn:ietf:params:oauth:token-type:)/

/** What a token is, by the names that issuers use. A token with any other name is refused. */
const KINDS = new Map<string, Kind>([
  // RFC 9068, and the generic type in use before it
  ['at+jwt', 'access'],
  ['jwt', 'access'],
  // RFC 7662 and Keycloak: how the token is used
  ['bearer', 'access'],
  ['dpop', 'access'],
  ['pop', 'access'],
  ['access', 'access'],
  ['access_token', 'access'],
  ['id', 'id'],
  ['id_token', 'id'],
  ['serialized_id', 'id'],
  ['refresh', 'refresh'],
  ['refresh_token', 'refresh'],
  ['offline', 'refresh'],
  ['rt+jwt', 'refresh'],
  ['logout', 'logout'],
  ['logout_token', 'logout'],
  ['logout+jwt', 'logout'],
  ['secevent+jwt', 'event'],
])

/** The header `typ` of access tokens: that of RFC 9068, and those in use before it. */
const HEADERS = new Set(['at+jwt', 'application/at+jwt', 'jwt', 'application/jwt'])
const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout'

/**
 * Refuses whatever is not an access token, which its issuer made for something else and may hand to other parties. A
 * token declares its kind in its header or its claims, or has claims that no access token has.
 * @param acceptsIdTokens whether `nonce` and `at_hash` are no reason: some issuers add them to access tokens
 * @param header the `typ` of a JWT's header
 * @throws {Unauthenticated}
 */
export function requireAccessToken (claims: JWTPayload, acceptsIdTokens: boolean, header?: unknown): void {
  const named = header === undefined ? undefined : nameOf(header)
  if (named !== undefined && !HEADERS.has(named)) {
    const kind = kindOf(named)
    throw refusal(kind === 'access' ? 'other' : kind)
  }
  const { typ } = claims
  for (const declared of [typ, claims['token_use'], claims['token_type']]) {
    if (declared === undefined) continue
    const kind = kindOf(nameOf(declared))
    if (kind !== 'access') throw refusal(kind)
  }
  if (claims['events'] !== undefined) throw refusal(isLogout(claims['events']) ? 'logout' : 'event')
  if (['c_hash', 's_hash'].some(claim => claims[claim] !== undefined)) throw refusal('id')
  if (acceptsIdTokens) return
  if (claims['at_hash'] !== undefined) throw refusal('id')
  const declaresAccess = named?.endsWith('at+jwt') || (typ !== undefined && nameOf(typ) === 'bearer')
  if (claims['nonce'] !== undefined && !declaresAccess) throw refusal('id')
}

/** @throws {Unauthenticated} */
function nameOf (declared: unknown): string {
  if (typeof declared !== 'string') throw refusal('malformed')
  return declared.toLowerCase()
}

function kindOf (name: string): Kind {
  return KINDS.get(name.replace(PREFIX, '').replace(/[ -]/g, '_')) ?? 'other'
}

function isLogout (events: unknown): boolean {
  return typeof events === 'object' && events !== null && Object.hasOwn(events, LOGOUT_EVENT)
}

function refusal (kind: keyof typeof NOT_ACCESS_TOKENS): Unauthenticated {
  return new Unauthenticated(NOT_ACCESS_TOKENS[kind], 'invalid_token')
}
