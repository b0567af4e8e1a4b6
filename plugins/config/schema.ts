import { parseDuration } from '../../lib/duration.ts'
import {
  certificateFile,
  headersFile,
  listOf,
  oneOf,
  parseAddress,
  parseAddressOrOff,
  parseBroker,
  parseCidr,
  parseClientId,
  parseControlAddress,
  parseEndpoint,
  parseEndpointUrl,
  parseHost,
  parseHostPattern,
  parseIssuer,
  parseLifetime,
  parseList,
  parseMetricsUrl,
  parseOrigin,
  parsePublicUrl,
  parseScope,
  parseScopes,
  parseSessionKeys,
  parseSink,
  parseToken,
  parseWebhookUrl,
  privateKeyFile,
  readableFile,
  wholeNumber,
} from './parsers.ts'
import { Secret } from './secret.ts'

export const PREFIX = 'KAFSCALE_MCP_'

export interface Setting<T = unknown> {
  /** The variable, without `PREFIX`. */
  name: string
  /** One line for `.env.example` and `docs/configure.md`. */
  meaning: string
  /** The text that applies when the variable is unset; absent where unset is a case of its own. */
  default?: string
  required?: true
  /** Messages omit its value, and `…_FILE` can name a file that contains it. */
  secret?: true
  /** Throws an `Error` whose message says what was expected, to follow "expected ". */
  parse: (text: string) => T
}

/** Every setting: name, default and meaning are defined here and nowhere else. */
export const ConfigSchema = {
  httpAddr: {
    name: 'HTTP_ADDR',
    meaning: 'Address to listen on: host:port, :port or [v6]:port. Loopback only, unless authentication is configured',
    default: '127.0.0.1:8090',
    parse: parseAddress,
  },
  etcdEndpoints: {
    name: 'ETCD_ENDPOINTS',
    meaning: 'etcd endpoints, comma-separated: http://host:port or https://host:port; http if no scheme is given',
    required: true,
    parse: listOf(parseEndpoint),
  },
  etcdUsername: {
    name: 'ETCD_USERNAME',
    meaning: 'etcd user. Read access to the prefix /kafscale/ is enough',
    parse: String,
  },
  etcdPassword: {
    name: 'ETCD_PASSWORD',
    meaning: 'Password of the etcd user',
    secret: true,
    parse: text => new Secret(text),
  },
  etcdCaFile: {
    name: 'ETCD_CA_FILE',
    meaning: "PEM file with the CA of etcd's certificate. Unset: the system's CAs",
    parse: certificateFile,
  },
  etcdCertFile: {
    name: 'ETCD_CERT_FILE',
    meaning: 'PEM file with the client certificate to present to etcd',
    parse: certificateFile,
  },
  etcdKeyFile: {
    name: 'ETCD_KEY_FILE',
    meaning: 'PEM file with the private key of the etcd client certificate',
    parse: privateKeyFile,
  },
  brokerMetricsUrl: {
    name: 'BROKER_METRICS_URL',
    meaning: 'Broker metrics URLs, comma-separated; {host} and {node_id} expand per broker. ' +
      'auto: http://{host}:9093/metrics',
    parse: listOf(parseMetricsUrl),
  },
  metricsAllowedHosts: {
    name: 'METRICS_ALLOWED_HOSTS',
    meaning: 'Loopback, link-local and other special hosts that the snapshot may name as brokers, comma-separated: ' +
      'globs or CIDRs. Unset: none',
    parse: listOf(parseHostPattern),
  },
  metricsMaxAgeMs: {
    name: 'METRICS_MAX_AGE',
    meaning: 'How long the result of one scrape of the brokers is reused',
    default: '2s',
    parse: parseDuration,
  },
  maxStalenessMs: {
    name: 'MAX_STALENESS',
    meaning: 'Age of the metadata at which /readyz returns 503. 0: no limit',
    default: '5m',
    parse: parseDuration,
  },
  verifyIntervalMs: {
    name: 'VERIFY_INTERVAL',
    meaning: 'How often the mirror is compared with a fresh load from etcd. 0: never',
    default: '10m',
    parse: parseDuration,
  },
  allowedHosts: {
    name: 'ALLOWED_HOSTS',
    meaning: 'Host names accepted on /mcp, comma-separated, without ports. ' +
      'Unset: on loopback, loopback names and that of PUBLIC_URL, else any',
    parse: listOf(parseHost),
  },
  allowedOrigins: {
    name: 'ALLOWED_ORIGINS',
    meaning: 'Origins whose pages may call /mcp, comma-separated. Unset: loopback origins on loopback, else none',
    parse: listOf(parseOrigin),
  },
  authMode: {
    name: 'AUTH_MODE',
    meaning: 'Authentication mode: oidc, jwks, token or none. Unset: derived from the other settings',
    parse: oneOf('oidc', 'jwks', 'token', 'none'),
  },
  publicUrl: {
    name: 'PUBLIC_URL',
    meaning: 'Base URL at which clients reach the service; may have a path. Unset: the listen address',
    parse: parsePublicUrl,
  },
  oidcIssuer: {
    name: 'OIDC_ISSUER',
    meaning: 'Issuer URLs of the identity providers whose tokens are accepted, comma-separated',
    parse: listOf(parseIssuer),
  },
  oidcAudience: {
    name: 'OIDC_AUDIENCE',
    meaning: 'Audiences, comma-separated, one of which tokens must contain, in the modes oidc and jwks. ' +
      'Unset: {PUBLIC_URL}/mcp',
    parse: parseList,
  },
  oidcScope: {
    name: 'OIDC_SCOPE',
    meaning: 'Scope to observe that a token with a scope claim must contain, in the modes oidc and jwks',
    default: 'kafscale:observe',
    parse: parseScope,
  },
  oidcAdvertisedScope: {
    name: 'OIDC_ADVERTISED_SCOPE',
    meaning: 'Scopes that clients are told to request, separated by spaces. Unset: OIDC_SCOPE',
    parse: parseScopes,
  },
  oidcIdTokenIssuers: {
    name: 'OIDC_ID_TOKEN_ISSUERS',
    meaning: "Issuers, comma-separated, whose access tokens look like ID tokens, as Dex's do. Unset: none",
    parse: parseList,
  },
  oidcMaxTokenLifetimeMs: {
    name: 'OIDC_MAX_TOKEN_LIFETIME',
    meaning: 'Longest lifetime of an accepted token, in the modes oidc and jwks. 0: no limit',
    default: '1h',
    parse: parseDuration,
  },
  oidcClientId: {
    name: 'OIDC_CLIENT_ID',
    meaning: 'Client ID for introspecting opaque tokens at the first issuer',
    parse: String,
  },
  oidcClientSecret: {
    name: 'OIDC_CLIENT_SECRET',
    meaning: 'Client secret for introspecting opaque tokens',
    secret: true,
    parse: text => new Secret(text),
  },
  oidcJwksUrl: {
    name: 'OIDC_JWKS_URL',
    meaning: 'Internal URLs of the keys of issuers, comma-separated, in the order of OIDC_ISSUER. Unset: discovered',
    parse: listOf(parseEndpointUrl),
  },
  oidcIntrospectionUrl: {
    name: 'OIDC_INTROSPECTION_URL',
    meaning: 'Internal URL at which the first issuer introspects opaque tokens. Unset: discovered',
    parse: parseEndpointUrl,
  },
  oidcAllowHttp: {
    name: 'OIDC_ALLOW_HTTP',
    meaning: 'true: OIDC_JWKS_URL and OIDC_INTROSPECTION_URL may be plain http, which others can read and change',
    default: 'false',
    parse: oneOf('false', 'true'),
  },
  authJwksFile: {
    name: 'AUTH_JWKS_FILE',
    meaning: 'JWKS file with the public keys of tokens, to run without an identity provider',
    parse: readableFile,
  },
  authJwksIssuer: {
    name: 'AUTH_JWKS_ISSUER',
    meaning: 'Issuer of the tokens that the JWKS file verifies',
    parse: String,
  },
  authToken: {
    name: 'AUTH_TOKEN',
    meaning: 'Static bearer token shared by all callers, at least 32 characters',
    secret: true,
    parse: parseToken,
  },
  tlsCertFile: {
    name: 'TLS_CERT_FILE',
    meaning: "PEM file with the service's certificate. Unset: plain HTTP",
    parse: certificateFile,
  },
  tlsKeyFile: {
    name: 'TLS_KEY_FILE',
    meaning: "PEM file with the private key of the service's certificate",
    parse: privateKeyFile,
  },
  tlsClientCaFile: {
    name: 'TLS_CLIENT_CA_FILE',
    meaning: 'PEM file with the CA of client certificates. Set: clients must present one',
    parse: certificateFile,
  },
  trustedProxies: {
    name: 'TRUSTED_PROXIES',
    meaning: 'Addresses or CIDR ranges of proxies whose X-Forwarded-* is trusted, comma-separated. Unset: none',
    parse: listOf(parseCidr),
  },
  policyFile: {
    name: 'POLICY_FILE',
    meaning: 'YAML or JSON file with the access policy: roles and bindings',
    parse: readableFile,
  },
  environment: {
    name: 'ENVIRONMENT',
    meaning: 'Name of the environment, which policy rules can match',
    default: 'default',
    parse: String,
  },
  tools: {
    name: 'TOOLS',
    meaning: 'Tools to enable, comma-separated. Unset: all',
    parse: parseList,
  },
  disabledTools: {
    name: 'DISABLED_TOOLS',
    meaning: 'Tools to disable, comma-separated',
    parse: parseList,
  },
  auditSinks: {
    name: 'AUDIT_SINKS',
    meaning: 'Audit destinations, comma-separated: stdout, file:PATH, a URL; or none, only without authentication',
    default: 'stdout',
    parse: listOf(parseSink),
  },
  auditSigningKeyFile: {
    name: 'AUDIT_SIGNING_KEY_FILE',
    meaning: 'PEM file with the Ed25519 private key that signs the checkpoints of the audit chain',
    parse: privateKeyFile,
  },
  auditHeadFile: {
    name: 'AUDIT_HEAD_FILE',
    meaning: 'File on another volume that keeps the newest signed checkpoint of the audit file. Unset: none',
    parse: String,
  },
  auditFailMode: {
    name: 'AUDIT_FAIL_MODE',
    meaning: 'If a call cannot be recorded: closed refuses it, open serves reads and counts the lost records',
    default: 'closed',
    parse: oneOf('closed', 'open'),
  },
  auditRedact: {
    name: 'AUDIT_REDACT',
    meaning: 'Additional argument names, comma-separated, whose values are redacted in audit records',
    parse: parseList,
  },
  auditCollectorBatchBytes: {
    name: 'AUDIT_COLLECTOR_BATCH_BYTES',
    meaning: 'Size of a batch that is sent to an audit collector, in bytes',
    default: '524288',
    parse: wholeNumber(32_768, 1_048_576),
  },
  auditCollectorHeadersFile: {
    name: 'AUDIT_COLLECTOR_HEADERS_FILE',
    meaning: 'File with HTTP headers for audit collectors, one a line, such as Authorization: Bearer …',
    parse: headersFile,
  },
  auditCollectorCaFile: {
    name: 'AUDIT_COLLECTOR_CA_FILE',
    meaning: "PEM file with the CA of the audit collectors' certificates. Unset: the system's CAs",
    parse: certificateFile,
  },
  auditCollectorCertFile: {
    name: 'AUDIT_COLLECTOR_CERT_FILE',
    meaning: 'PEM file with the client certificate to present to audit collectors',
    parse: certificateFile,
  },
  auditCollectorKeyFile: {
    name: 'AUDIT_COLLECTOR_KEY_FILE',
    meaning: 'PEM file with the private key of the client certificate for audit collectors',
    parse: privateKeyFile,
  },
  rateLimit: {
    name: 'RATE_LIMIT',
    meaning: 'Requests per minute per principal. 0: no limit, which is the default without authentication',
    default: '1200',
    parse: wholeNumber(),
  },
  addressRateLimit: {
    name: 'ADDRESS_RATE_LIMIT',
    meaning: 'Requests per minute per client address. 0: no limit. Ignored without authentication',
    default: '0',
    parse: wholeNumber(),
  },
  maxConnections: {
    name: 'MAX_CONNECTIONS',
    meaning: 'Open connections of all clients. 0: no limit. Keep it well below the limit of open files',
    default: '900',
    parse: wholeNumber(),
  },
  addressMaxConnections: {
    name: 'ADDRESS_MAX_CONNECTIONS',
    meaning: 'Open connections per client address, IPv6 by /64, except of TRUSTED_PROXIES. 0: no limit',
    default: '250',
    parse: wholeNumber(),
  },
  maxConcurrentCalls: {
    name: 'MAX_CONCURRENT_CALLS',
    meaning: 'Concurrent calls per principal. 0: no limit',
    default: '64',
    parse: wholeNumber(),
  },
  addressMaxConcurrentCalls: {
    name: 'ADDRESS_MAX_CONCURRENT_CALLS',
    meaning: 'Concurrent calls per client address. 0: no limit. Ignored without authentication',
    default: '0',
    parse: wholeNumber(),
  },
  maxAuthFailures: {
    name: 'MAX_AUTH_FAILURES',
    meaning: 'Failed sign-ins per minute per client address before 429. 0: no limit',
    default: '300',
    parse: wholeNumber(),
  },
  maxEventLoopDelayMs: {
    name: 'MAX_EVENT_LOOP_DELAY',
    meaning: 'Event loop delay above which requests are refused with 503. 0: no limit',
    default: '1s',
    parse: parseDuration,
  },
  maxBodyBytes: {
    name: 'MAX_BODY_BYTES',
    meaning: 'Largest request body in bytes; a larger one is refused with 413',
    default: '262144',
    parse: wholeNumber(1),
  },
  requestTimeoutMs: {
    name: 'REQUEST_TIMEOUT',
    meaning: 'How long a client may take to send a request, headers and body',
    default: '30s',
    parse: text => Math.ceil(parseDuration(text)),
  },
  keepAliveTimeoutMs: {
    name: 'KEEP_ALIVE_TIMEOUT',
    meaning: 'How long a connection without a request stays open. Longer than a load balancer reuses it. 0: no limit',
    default: '620s',
    parse: text => Math.ceil(parseDuration(text)),
  },
  responseTimeoutMs: {
    name: 'RESPONSE_TIMEOUT',
    meaning: 'How long a client may read nothing of an answer before its connection is closed. 0: no limit',
    default: '30s',
    parse: parseDuration,
  },
  maxUnreadBytes: {
    name: 'MAX_UNREAD_BYTES',
    meaning: 'Bytes of answers that one principal has not read yet, above which it gets 429. 0: no limit',
    default: '16777216',
    parse: wholeNumber(),
  },
  totalMaxUnreadBytes: {
    name: 'TOTAL_MAX_UNREAD_BYTES',
    meaning: 'Bytes of answers that all clients have not read yet, above which requests get 503. 0: no limit',
    default: '67108864',
    parse: wholeNumber(),
  },
  telemetryAddr: {
    name: 'TELEMETRY_ADDR',
    meaning: 'Address that serves /metrics, without authentication: host:port, :port or [v6]:port. off: no /metrics',
    default: '127.0.0.1:9090',
    parse: parseAddressOrOff,
  },
  changes: {
    name: 'CHANGES',
    meaning: 'enabled: agents can propose changes to the cluster and apply them, as far as the policy allows',
    default: 'disabled',
    parse: oneOf('disabled', 'enabled'),
  },
  expectedClusterId: {
    name: 'EXPECTED_CLUSTER_ID',
    meaning: 'Id of the only cluster that may be changed, as cluster_status returns it',
    parse: String,
  },
  kafkaBrokers: {
    name: 'KAFKA_BROKERS',
    meaning: 'Brokers that changes are sent to, comma-separated: host:port. The first one that answers is used',
    parse: listOf(parseBroker),
  },
  kafkaClientId: {
    name: 'KAFKA_CLIENT_ID',
    meaning: "Client ID on the brokers, which is the principal in KafScale's ACLs",
    default: 'kafscale-mcp',
    parse: parseClientId,
  },
  kafkaTls: {
    name: 'KAFKA_TLS',
    meaning: 'on: connect to the brokers over TLS, which a proxy in front of them terminates',
    default: 'off',
    parse: oneOf('off', 'on'),
  },
  kafkaCaFile: {
    name: 'KAFKA_CA_FILE',
    meaning: "PEM file with the CA of the brokers' certificates. Unset: the system's CAs",
    parse: certificateFile,
  },
  kafkaCertFile: {
    name: 'KAFKA_CERT_FILE',
    meaning: 'PEM file with the client certificate to present to the brokers',
    parse: certificateFile,
  },
  kafkaKeyFile: {
    name: 'KAFKA_KEY_FILE',
    meaning: 'PEM file with the private key of the client certificate for the brokers',
    parse: privateKeyFile,
  },
  kafkaSaslMechanism: {
    name: 'KAFKA_SASL_MECHANISM',
    meaning: 'SASL mechanism on the brokers: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Unset: no SASL',
    parse: oneOf('PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'),
  },
  kafkaSaslUsername: {
    name: 'KAFKA_SASL_USERNAME',
    meaning: 'SASL username',
    parse: String,
  },
  kafkaSaslPassword: {
    name: 'KAFKA_SASL_PASSWORD',
    meaning: 'SASL password',
    secret: true,
    parse: text => new Secret(text),
  },
  brokerControlAddr: {
    name: 'BROKER_CONTROL_ADDR',
    meaning: 'Address of the control plane of a broker: host:port; {host} and {node_id} expand per broker. ' +
      'Unset: no drain, flush and broker_status',
    parse: parseControlAddress,
  },
  brokerControlTls: {
    name: 'BROKER_CONTROL_TLS',
    meaning: 'on: connect to the control plane over TLS',
    default: 'off',
    parse: oneOf('off', 'on'),
  },
  brokerControlCaFile: {
    name: 'BROKER_CONTROL_CA_FILE',
    meaning: "PEM file with the CA of the control plane's certificates. Unset: the system's CAs",
    parse: certificateFile,
  },
  brokerControlCertFile: {
    name: 'BROKER_CONTROL_CERT_FILE',
    meaning: 'PEM file with the client certificate to present to the control plane',
    parse: certificateFile,
  },
  brokerControlKeyFile: {
    name: 'BROKER_CONTROL_KEY_FILE',
    meaning: 'PEM file with the private key of the client certificate for the control plane',
    parse: privateKeyFile,
  },
  changesEtcdEndpoints: {
    name: 'CHANGES_ETCD_ENDPOINTS',
    meaning: 'etcd endpoints of the ledger of changes, comma-separated. Unset: ETCD_ENDPOINTS and ETCD_CA_FILE',
    parse: listOf(parseEndpoint),
  },
  changesEtcdUsername: {
    name: 'CHANGES_ETCD_USERNAME',
    meaning: 'etcd user of the ledger. It must read and write the prefix /kafscale-mcp/changes/, and nothing else',
    parse: String,
  },
  changesEtcdPassword: {
    name: 'CHANGES_ETCD_PASSWORD',
    meaning: 'Password of the etcd user of the ledger',
    secret: true,
    parse: text => new Secret(text),
  },
  changesEtcdCaFile: {
    name: 'CHANGES_ETCD_CA_FILE',
    meaning: "PEM file with the CA of the ledger's etcd. Unset: the system's CAs",
    parse: certificateFile,
  },
  changesEtcdCertFile: {
    name: 'CHANGES_ETCD_CERT_FILE',
    meaning: "PEM file with the client certificate to present to the ledger's etcd",
    parse: certificateFile,
  },
  changesEtcdKeyFile: {
    name: 'CHANGES_ETCD_KEY_FILE',
    meaning: "PEM file with the private key of the client certificate for the ledger's etcd",
    parse: privateKeyFile,
  },
  maxPartitions: {
    name: 'MAX_PARTITIONS',
    meaning: 'Most partitions that a topic may have after a change',
    default: '128',
    parse: wholeNumber(1),
  },
  changePlannedLifetimeMs: {
    name: 'CHANGE_PLANNED_LIFETIME',
    meaning: 'How long a plan can be applied, or its approval be requested',
    default: '10m',
    parse: parseLifetime,
  },
  changePendingLifetimeMs: {
    name: 'CHANGE_PENDING_LIFETIME',
    meaning: 'How long a change waits for its approval',
    default: '24h',
    parse: parseLifetime,
  },
  changeApprovedLifetimeMs: {
    name: 'CHANGE_APPROVED_LIFETIME',
    meaning: 'How long an approved change can be applied',
    default: '1h',
    parse: parseLifetime,
  },
  changeRetentionMs: {
    name: 'CHANGE_RETENTION',
    meaning: 'How long the ledger keeps a change that has ended',
    default: '2160h',
    parse: parseLifetime,
  },
  webhookUrl: {
    name: 'WEBHOOK_URL',
    meaning: 'URL that is told of requested approvals, break-glass, and ambiguous and reverted changes. Unset: none',
    secret: true,
    parse: parseWebhookUrl,
  },
  webhookSecret: {
    name: 'WEBHOOK_SECRET',
    meaning: 'Secret that signs the requests to the webhook, by HMAC-SHA256',
    secret: true,
    parse: text => new Secret(text),
  },
  sessionKey: {
    name: 'SESSION_KEY',
    meaning: 'Key of the sessions of approvers: 32 bytes in base64. After a comma, an older key that is still accepted',
    secret: true,
    parse: parseSessionKeys,
  },
  logLevel: {
    name: 'LOG_LEVEL',
    meaning: 'Log level on stderr: fatal, error, warn, info, debug, trace or silent',
    default: 'info',
    parse: oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'),
  },
  sessionTimeoutMs: {
    name: 'SESSION_TIMEOUT',
    meaning: 'No effect: sessions no longer exist',
    parse: parseDuration,
  },
} satisfies Record<string, Setting>

export type SettingKey = keyof typeof ConfigSchema

type Value<S> = S extends { parse: (text: string) => infer T }
  ? S extends { default: string } | { required: true } ? T : T | undefined
  : never

/** The parsed value of every setting. One that has neither a value nor a default is undefined. */
export type Settings = { readonly [K in SettingKey]: Value<(typeof ConfigSchema)[K]> }

export type AuthMode = NonNullable<Settings['authMode']>

/** The name of a setting's environment variable. */
export function variableOf (key: SettingKey): string {
  return PREFIX + ConfigSchema[key].name
}
