/** A configuration as the settings that it was read from. */
import type { Config } from '../../plugins/config/read.ts'
import type { SettingKey } from '../../plugins/config/schema.ts'
import { reveal } from '../../plugins/config/secret.ts'

/** The value of every setting, secrets in plain text. A setting that the mode does not use is undefined. */
export function settingsOf ({ auth, scopes, tls, changes, proxies, tracing, warnings, ...others }: Config) {
  const oidc = auth.mode === 'oidc' ? auth : undefined
  const jwks = auth.mode === 'jwks' ? auth : undefined
  const { etcdPassword } = others
  const { kafka, control, ledger, webhook } = changes ?? {}
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
    changes: changes ? 'enabled' : 'disabled',
    expectedClusterId: changes?.expectedClusterId,
    kafkaBrokers: kafka?.brokers,
    kafkaClientId: kafka?.clientId,
    kafkaTls: kafka?.tls ? 'on' : 'off',
    kafkaCaFile: kafka?.tls?.caFile,
    kafkaCertFile: kafka?.tls?.certFile,
    kafkaKeyFile: kafka?.tls?.keyFile,
    kafkaSaslMechanism: kafka?.sasl?.mechanism,
    kafkaSaslUsername: kafka?.sasl?.username,
    kafkaSaslPassword: kafka?.sasl && reveal(kafka.sasl.password),
    brokerControlAddr: control?.addr,
    brokerControlTls: control?.tls ? 'on' : 'off',
    brokerControlCaFile: control?.tls?.caFile,
    brokerControlCertFile: control?.tls?.certFile,
    brokerControlKeyFile: control?.tls?.keyFile,
    changesEtcdEndpoints: ledger?.endpoints,
    changesEtcdUsername: ledger?.username,
    changesEtcdPassword: ledger?.password && reveal(ledger.password),
    changesEtcdCaFile: ledger?.caFile,
    changesEtcdCertFile: ledger?.certFile,
    changesEtcdKeyFile: ledger?.keyFile,
    maxPartitions: changes?.maxPartitions,
    changePlannedLifetimeMs: changes?.plannedLifetimeMs,
    changePendingLifetimeMs: changes?.pendingLifetimeMs,
    changeApprovedLifetimeMs: changes?.approvedLifetimeMs,
    changeRetentionMs: changes?.retentionMs,
    webhookUrl: webhook && reveal(webhook.url),
    webhookSecret: webhook && reveal(webhook.secret),
    sessionKey: changes?.sessionKeys?.map(reveal),
  } satisfies Record<SettingKey, unknown>
}
