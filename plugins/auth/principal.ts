import type { AuthConfig } from '../config/auth.ts'
import type { Claims } from './jwt.ts'

/** How a caller authenticated: the mode that the service runs in. */
export type AuthMethod = AuthConfig['mode']

/** The caller. The rest of the service learns nothing else about a token, and never sees the token itself. */
export interface Principal {
  /**
   * `sub` of the token; `static-token` in the mode `token`, `anonymous` in the mode `none`, `local` over standard input
   * and output.
   */
  subject: string
  /** `iss` of the token. */
  issuer: string | null
  /** `client_id` of the token, or `azp`; Okta has `cid` instead, and Entra's first version `appid`. */
  clientId: string | null
  method: AuthMethod
  /** Undefined when the token has no scope claim: then only a binding in the policy grants anything. */
  scopes: ReadonlySet<string> | undefined
  /** `jti` of the token, else a digest of the token. */
  tokenId: string | null
  /** When the token expires; null without an expiry. */
  expiresAt: Date | null
  /** The verified claims, which bindings in the policy match. */
  claims: Readonly<Record<string, unknown>>
  /** Subject of the TLS client certificate; null when none was required. */
  clientCertificate: string | null
}

export const ANONYMOUS = withoutClaims('none', 'anonymous')
/** The client that started the process, which has whatever the process has: it needs no token. */
export const LOCAL = withoutClaims('none', 'local')
export const STATIC_TOKEN = withoutClaims('token', 'static-token')

/** The principal of a verified token, from its claims. */
export function principalOf (claims: Claims, method: AuthMethod, digest: string): Principal {
  const { sub, iss, jti, exp, client_id: clientId, azp, cid, appid } = claims
  return Object.freeze({
    subject: sub,
    issuer: iss ?? null,
    clientId: [clientId, azp, cid, appid].find(id => typeof id === 'string') ?? null,
    method,
    scopes: scopesOf(claims),
    tokenId: typeof jti === 'string' ? jti : digest,
    expiresAt: new Date(exp * 1_000),
    claims,
    clientCertificate: null,
  })
}

/** From `scope` (RFC 9068), or from `scp`, which some issuers use instead. A malformed claim grants nothing. */
function scopesOf ({ scope, scp }: Claims): ReadonlySet<string> | undefined {
  const claim = scope ?? scp
  if (claim === undefined) return undefined
  const scopes = typeof claim === 'string' ? claim.split(' ') : Array.isArray(claim) ? claim : []
  return new Set(scopes.filter(scope => typeof scope === 'string' && scope !== ''))
}

/** Somebody who has signed in to the pages: without a token, and so without scopes. */
export function visitorPrincipal (
  visitor: Pick<Principal, 'subject' | 'issuer' | 'clientId' | 'tokenId' | 'claims'>
): Principal {
  return { ...withoutClaims('oidc', visitor.subject), ...visitor }
}

function withoutClaims (method: AuthMethod, subject: string): Principal {
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
