import { type Address, formatAddress, isConfidential } from '../../lib/address.ts'
import { type AuthMode, type SettingKey, type Settings, variableOf } from './schema.ts'
import { quoteValue, type Secret } from './secret.ts'

/** How callers authenticate, with what that mode needs. */
export type AuthConfig = OidcConfig | JwksConfig | StaticTokenConfig | NoAuthConfig

interface AccessTokenConfig {
  /** A token must contain one of them. Undefined: the URL of the service's own `/mcp`. */
  readonly audiences: readonly string[] | undefined
  /** Issuers of access tokens that have the claims of ID tokens. */
  readonly idTokenIssuers: readonly string[]
  /** 0: no limit. */
  readonly maxTokenLifetimeMs: number
}

export interface OidcConfig extends AccessTokenConfig {
  readonly mode: 'oidc'
  readonly issuers: readonly string[]
  /** Where the keys of the first issuers are, in their order. Those of the others are discovered. */
  readonly jwksUrls: readonly string[]
  /** The client that introspects opaque tokens at the first issuer. Without one, opaque tokens are refused. */
  readonly introspection: Introspection | undefined
}

interface Introspection {
  readonly clientId: string
  readonly clientSecret: Secret
  /** Undefined: discovered. */
  readonly url?: string | undefined
}

export interface JwksConfig extends AccessTokenConfig {
  readonly mode: 'jwks'
  readonly file: string
  readonly issuer: string
}

interface StaticTokenConfig {
  readonly mode: 'token'
  readonly token: Secret
}

/** The scopes that operations require of a token with a scope claim. */
export interface Scopes {
  readonly observe: string
  readonly propose: string
  readonly apply: string
  /** Stands for `propose` and `apply`. */
  readonly mutate: string
  /** What a client requests in order to get the scope `observe`. */
  readonly advertised: readonly string[]
}

interface NoAuthConfig { readonly mode: 'none' }

/** The settings that a mode requires, and the others that only it uses. */
export const MODE_SETTINGS: Readonly<Record<AuthMode, { required: SettingKey[], optional: SettingKey[] }>> = {
  oidc: {
    required: ['oidcIssuer'],
    optional: ['oidcClientId', 'oidcClientSecret', 'oidcJwksUrl', 'oidcIntrospectionUrl'],
  },
  jwks: { required: ['authJwksFile', 'authJwksIssuer'], optional: [] },
  token: { required: ['authToken'], optional: [] },
  none: { required: [], optional: [] },
}

/** The modes that have a setting of their own set, each with the first such setting. */
export function configuredModes (settings: Partial<Settings>): { mode: AuthMode, setting: SettingKey }[] {
  return (['oidc', 'jwks', 'token'] as const).flatMap(mode => {
    const { required, optional } = MODE_SETTINGS[mode]
    const setting = [...required, ...optional].find(key => settings[key] !== undefined)
    return setting === undefined ? [] : [{ mode, setting }]
  })
}

/** `AUTH_MODE`, else the mode whose settings are set, else `none`. Contradictions are found elsewhere. */
export function authModeOf (settings: Partial<Settings>): AuthMode {
  return settings.authMode ?? configuredModes(settings)[0]?.mode ?? 'none'
}

/** Undefined when a setting that the mode requires is missing. */
export function authConfigOf (mode: AuthMode, settings: Settings): AuthConfig | undefined {
  const { oidcIssuer: issuers, oidcClientId: clientId, oidcClientSecret: clientSecret } = settings
  const { authJwksFile: file, authJwksIssuer: issuer, authToken: token } = settings
  const { oidcAudience: audiences, oidcMaxTokenLifetimeMs: maxTokenLifetimeMs } = settings
  const accessTokens = { audiences, maxTokenLifetimeMs, idTokenIssuers: settings.oidcIdTokenIssuers ?? [] }
  switch (mode) {
    case 'oidc': {
      const { oidcJwksUrl: jwksUrls = [], oidcIntrospectionUrl: url } = settings
      const introspection = clientId !== undefined && clientSecret ? { clientId, clientSecret, url } : undefined
      return issuers && { mode, issuers, jwksUrls, introspection, ...accessTokens }
    }
    case 'jwks':
      return file !== undefined && issuer !== undefined
        ? { mode, file, issuer, ...accessTokens }
        : undefined
    case 'token':
      return token && { mode, token }
    case 'none':
      return { mode }
  }
}

export function scopesOf ({ oidcScope: observe, oidcAdvertisedScope: advertised = [observe] }: Settings): Scopes {
  return { observe, propose: 'kafscale:propose', apply: 'kafscale:apply', mutate: 'kafscale:mutate', advertised }
}

/** What is valid about authentication but probably not intended. */
export function authWarnings (
  mode: AuthMode,
  settings: Partial<Settings>
): string[] {
  const { httpAddr, publicUrl, oidcIdTokenIssuers = [], oidcMaxTokenLifetimeMs } = settings
  if (mode === 'none') return []
  const found = []
  if (mode === 'token') {
    found.push(
      `${variableOf('authToken')} is a shared secret: every caller is static-token, and audit records cannot tell ` +
      `callers apart; ${variableOf('oidcIssuer')} or ${variableOf('authJwksFile')} identifies them`
    )
  }
  if (mode !== 'token' && oidcMaxTokenLifetimeMs === 0) {
    found.push(
      `${variableOf('oidcMaxTokenLifetimeMs')} is 0: tokens are accepted however long they are valid, and a JWT ` +
      'cannot be revoked; set it to the longest lifetime that your issuer uses'
    )
  }
  for (const { key, url } of internalUrls(settings)) {
    if (isConfidential(url)) continue
    found.push(
      `${variableOf(key)} contains ${quoteValue(url)}, which is plain http: whoever can change the traffic to it can ` +
      'make the service accept any token, and can read the client secret'
    )
  }
  if (oidcIdTokenIssuers.length > 0) {
    found.push(
      `${variableOf('oidcIdTokenIssuers')} is set: ID tokens of ${oidcIdTokenIssuers.join(', ')} are accepted as ` +
      'access tokens, so whoever receives one for an accepted audience can call the service with it'
    )
  }
  if (publicUrl !== undefined && !isConfidential(publicUrl)) {
    found.push(`${variableOf('publicUrl')} is not https: tokens can be intercepted on the way; serve it over https`)
  }
  if (publicUrl === undefined && httpAddr && isUnspecified(httpAddr)) {
    found.push(
      `${variableOf('publicUrl')} is not set: clients are directed to ${formatAddress(httpAddr)}, where they cannot ` +
      'connect; set it to the URL at which clients reach the service'
    )
  }
  return found
}

/** The internal addresses of issuers, with their settings. */
export function internalUrls ({ oidcJwksUrl = [], oidcIntrospectionUrl }: Partial<Settings>) {
  return [
    ...oidcJwksUrl.map(url => ({ key: 'oidcJwksUrl' as const, url })),
    ...oidcIntrospectionUrl === undefined ? [] : [{ key: 'oidcIntrospectionUrl' as const, url: oidcIntrospectionUrl }],
  ]
}

/** Whether an address stands for all addresses of the machine. */
function isUnspecified ({ host }: Address): boolean {
  return host === '::' || host === '0.0.0.0'
}
