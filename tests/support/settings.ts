/** A configuration as the settings that it was read from. */
import type { Config } from '../../plugins/config/read.ts'
import type { SettingKey } from '../../plugins/config/schema.ts'
import { reveal } from '../../plugins/config/secret.ts'

/** The value of every setting, secrets in plain text. A setting that the mode does not use is undefined. */
export function settingsOf ({ auth, scopes, tls, proxies, tracing, warnings, ...others }: Config) {
  const oidc = auth.mode === 'oidc' ? auth : undefined
  const jwks = auth.mode === 'jwks' ? auth : undefined
  const { etcdPassword } = others
  return {
    ...others,
    etcdPassword: etcdPassword && reveal(etcdPassword),
    authMode: auth.mode,
    oidcIssuer: oidc?.issuers,
    oidcAudience: (oidc ?? jwks)?.audiences,
    oidcScope: scopes.observe,
    oidcAdvertisedScope: scopes.advertised,
    oidcIdTokenIssuers: (oidc ?? jwks)?.idTokenIssuers,
    oidcMaxTokenLifetimeMs: (oidc ?? jwks)?.maxTokenLifetimeMs,
    oidcJwksUrl: oidc?.jwksUrls,
    oidcIntrospectionUrl: oidc?.introspection?.url,
    oidcClientId: oidc?.introspection?.clientId,
    oidcClientSecret: oidc?.introspection && reveal(oidc.introspection.clientSecret),
    authJwksFile: jwks?.file,
    authJwksIssuer: jwks?.issuer,
    authToken: auth.mode === 'token' ? reveal(auth.token) : undefined,
    tlsCertFile: tls?.certFile,
    tlsKeyFile: tls?.keyFile,
    tlsClientCaFile: tls?.clientCaFile,
  } satisfies Record<SettingKey, unknown>
}
