import { execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { inspect } from 'node:util'
import t from 'tap'
import { ConfigError } from '../../../errors.ts'
import { type Config, type Environment, readConfig } from '../../../plugins/config/read.ts'
import { ConfigSchema, type Setting, type SettingKey } from '../../../plugins/config/schema.ts'
import { settingsOf } from '../../support/settings.ts'

const PREFIX = 'KAFSCALE_MCP_'
const REQUIRED = { ETCD_ENDPOINTS: 'http://etcd:2379' }

/** Long enough to be a token. */
const TOKEN = 'hunter2'.repeat(5)

/** 32 bytes in base64. */
const SESSION_KEY = Buffer.alloc(32, 'k').toString('base64')

const OLDER_KEY = Buffer.alloc(32, 0xff).toString('base64')

const OIDC_CLIENT = { OIDC_ISSUER: 'https://id.example', PUBLIC_URL: 'https://mcp.example', OIDC_CLIENT_ID: 'mcp' }

function signingKey (): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

/** Reads a configuration from variables without their prefix. */
function read (variables: Environment = {}): Config {
  return readConfig(prefixed({ ...REQUIRED, ...variables }))
}

function prefixed (variables: Environment): Environment {
  return Object.fromEntries(Object.entries(variables).map(([name, value]) => [PREFIX + name, value]))
}

/** Everything that changes require, as variables. */
function enabledChanges (dir: string): Environment {
  return {
    ...OIDC_CLIENT,
    OIDC_CLIENT_SECRET: 'x',
    CHANGES: 'enabled',
    EXPECTED_CLUSTER_ID: '0d5b0f2e',
    KAFKA_BROKERS: 'broker:9092',
    POLICY_FILE: `${dir}/policy`,
    AUDIT_SINKS: 'stdout,file:audit.log',
  }
}

/** The lines that stop the start. */
function refusal (variables: Environment): string[] {
  try {
    read(variables)
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n')
    throw error
  }
  return []
}

/** Creates a CA, and a certificate with its key. */
function pemFiles (dir: string): { ca: string, cert: string, key: string, otherKey: string } {
  const make = (name: string) => {
    const options = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'.split(' ')
    const files = ['-keyout', `${dir}/${name}.key`, '-out', `${dir}/${name}.pem`, '-subj', `/CN=${name}`]
    execFileSync('openssl', [...options, ...files], { stdio: 'ignore' })
  }
  make('ca')
  make('client')
  return { ca: `${dir}/ca.pem`, cert: `${dir}/client.pem`, key: `${dir}/client.key`, otherKey: `${dir}/ca.key` }
}

t.test('only the etcd endpoints are required; every other setting has its default', async t => {
  t.strictSame(read(), {
    httpAddr: { host: '127.0.0.1', port: 8090 },
    etcdEndpoints: ['http://etcd:2379'],
    etcdUsername: undefined,
    etcdPassword: undefined,
    etcdCaFile: undefined,
    etcdCertFile: undefined,
    etcdKeyFile: undefined,
    brokerMetricsUrl: undefined,
    metricsAllowedHosts: undefined,
    metricsMaxAgeMs: 2_000,
    maxStalenessMs: 300_000,
    verifyIntervalMs: 600_000,
    allowedHosts: undefined,
    allowedOrigins: undefined,
    auth: { mode: 'none' },
    oidcAllowHttp: 'false',
    scopes: {
      observe: 'kafscale:observe',
      propose: 'kafscale:propose',
      apply: 'kafscale:apply',
      mutate: 'kafscale:mutate',
      advertised: ['kafscale:observe'],
    },
    publicUrl: undefined,
    tls: undefined,
    trustedProxies: undefined,
    policyFile: undefined,
    environment: 'default',
    tools: undefined,
    disabledTools: undefined,
    auditSinks: [{ kind: 'stdout' }],
    auditSigningKeyFile: undefined,
    auditHeadFile: undefined,
    auditFailMode: 'closed',
    auditRedact: undefined,
    auditCollectorBatchBytes: 524_288,
    auditCollectorHeadersFile: undefined,
    auditCollectorCaFile: undefined,
    auditCollectorCertFile: undefined,
    auditCollectorKeyFile: undefined,
    rateLimit: 0,
    addressRateLimit: 0,
    maxConnections: 900,
    addressMaxConnections: 250,
    maxConcurrentCalls: 64,
    addressMaxConcurrentCalls: 0,
    maxAuthFailures: 300,
    maxEventLoopDelayMs: 1_000,
    maxBodyBytes: 262_144,
    requestTimeoutMs: 30_000,
    keepAliveTimeoutMs: 620_000,
    responseTimeoutMs: 30_000,
    maxUnreadBytes: 16_777_216,
    totalMaxUnreadBytes: 67_108_864,
    telemetryAddr: { host: '127.0.0.1', port: 9090 },
    logLevel: 'info',
    sessionTimeoutMs: undefined,
    changes: undefined,
    proxies: undefined,
    tracing: false,
    warnings: [],
  })
  t.ok(Object.isFrozen(read()))
})

t.test('an empty variable counts as unset', async t => {
  const names = Object.values<Setting>(ConfigSchema).flatMap(({ name, secret }) =>
    secret ? [name, `${name}_FILE`] : name
  )
  const empty = Object.fromEntries(names.map(name => [name, '']))
  t.strictSame(read({ ...empty, ...REQUIRED }), read())
  const blank = Object.fromEntries(names.map(name => [name, ' \n']))
  t.strictSame(read({ ...blank, ...REQUIRED }), read(), 'so does one of whitespace')
  t.strictSame(refusal({ ETCD_ENDPOINTS: '' }), [
    'KAFSCALE_MCP_ETCD_ENDPOINTS is not set: expected etcd endpoints, comma-separated: ' +
    'http://host:port or https://host:port; http if no scheme is given',
  ])
})

t.test('what each variable accepts', async t => {
  const dir = t.testdir({
    password: 'secret\n',
    token: `${TOKEN}\n`,
    jwks: '{"keys":[]}',
    policy: 'bindings: []',
    'signing.key': signingKey(),
    headers: '# a token\nAuthorization: Bearer x\n',
  })
  const { ca, cert, key } = pemFiles(dir)
  const collector = { AUDIT_SINKS: 'https://collector.example/audit' }
  const oidc = { OIDC_ISSUER: 'https://id.example', PUBLIC_URL: 'https://mcp.example' }
  const https = { ETCD_ENDPOINTS: 'https://etcd:2379' }
  const sasl = { KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512', KAFKA_SASL_USERNAME: 'mcp', KAFKA_SASL_PASSWORD: 'a,b' }
  const control = { BROKER_CONTROL_ADDR: '{host}:19094', BROKER_CONTROL_TLS: 'on' }
  const ledger = { CHANGES_ETCD_ENDPOINTS: 'https://ledger:2379' }
  const webhook = { WEBHOOK_URL: 'https://hooks.example/T0/x?y=z', WEBHOOK_SECRET: 's3cret' }
  const taken: [variables: Environment, setting: SettingKey, value: unknown][] = [
    [{ HTTP_ADDR: '127.0.0.1:0' }, 'httpAddr', { host: '127.0.0.1', port: 0 }],
    [{ HTTP_ADDR: '127.8.9.10:65535' }, 'httpAddr', { host: '127.8.9.10', port: 65535 }],
    [{ HTTP_ADDR: 'localhost:8090' }, 'httpAddr', { host: 'localhost', port: 8090 }],
    [{ HTTP_ADDR: '[::1]:0' }, 'httpAddr', { host: '::1', port: 0 }],
    [{ ETCD_ENDPOINTS: ' http://a:2379 ,,b:2379, https://c ,' }, 'etcdEndpoints', [
      'http://a:2379',
      'http://b:2379',
      'https://c:2379',
    ]],
    [{ ETCD_ENDPOINTS: 'etcd' }, 'etcdEndpoints', ['http://etcd:2379']],
    [{ ETCD_ENDPOINTS: '[::1]:2379' }, 'etcdEndpoints', ['http://[::1]:2379']],
    [{ ETCD_ENDPOINTS: 'https://etcd:2379/' }, 'etcdEndpoints', ['https://etcd:2379']],
    [{ ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'a,b @:/?#\u0085' }, 'etcdPassword', 'a,b @:/?#\u0085'],
    [{ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: `${dir}/password` }, 'etcdPassword', 'secret'],
    [{ ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'x' }, 'etcdUsername', 'reader'],
    [{ ...https, ETCD_CA_FILE: ca }, 'etcdCaFile', ca],
    [{ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: key }, 'etcdCertFile', cert],
    [{ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: key }, 'etcdKeyFile', key],
    [{ ETCD_ENDPOINTS: 'http://a:2379,https://b:2379', ETCD_CA_FILE: ca }, 'etcdCaFile', ca],
    [{ BROKER_METRICS_URL: 'http://broker:9093/metrics' }, 'brokerMetricsUrl', ['http://broker:9093/metrics']],
    [{ BROKER_METRICS_URL: 'http://a/m, https://b/m' }, 'brokerMetricsUrl', ['http://a/m', 'https://b/m']],
    [{ BROKER_METRICS_URL: 'auto' }, 'brokerMetricsUrl', ['http://{host}:9093/metrics']],
    [{ BROKER_METRICS_URL: 'http://broker-{node_id}.{host}/' }, 'brokerMetricsUrl', [
      'http://broker-{node_id}.{host}/',
    ]],
    [{ METRICS_ALLOWED_HOSTS: '*.Local, 127.0.0.0/8,fe80::*' }, 'metricsAllowedHosts', [
      '*.local',
      '127.0.0.0/8',
      'fe80::*',
    ]],
    [{ METRICS_MAX_AGE: '500ms' }, 'metricsMaxAgeMs', 500],
    [{ METRICS_MAX_AGE: '0' }, 'metricsMaxAgeMs', 0],
    [{ MAX_STALENESS: '1h30m' }, 'maxStalenessMs', 5_400_000],
    [{ MAX_STALENESS: '0' }, 'maxStalenessMs', 0],
    [{ VERIFY_INTERVAL: '1.5m' }, 'verifyIntervalMs', 90_000],
    [{ VERIFY_INTERVAL: '8760h' }, 'verifyIntervalMs', 31_536_000_000],
    [{ ALLOWED_HOSTS: 'mcp.example.' }, 'allowedHosts', ['mcp.example']],
    [{ HTTP_ADDR: 'localhost.:8090' }, 'httpAddr', { host: 'localhost.', port: 8090 }],
    [{ ALLOWED_HOSTS: 'MCP.example, [::1] ,127.0.0.1' }, 'allowedHosts', ['mcp.example', '[::1]', '127.0.0.1']],
    [
      { ALLOWED_ORIGINS: 'https://a.example:443,http://b.example:80/,https://c.example.,Tauri://localhost,x-app://*' },
      'allowedOrigins',
      ['https://a.example', 'http://b.example', 'https://c.example', 'tauri://localhost', 'x-app://*'],
    ],
    [{ ALLOWED_ORIGINS: 'https://App.example, http://localhost:3000/' }, 'allowedOrigins', [
      'https://app.example',
      'http://localhost:3000',
    ]],
    [{ AUTH_MODE: 'none' }, 'authMode', 'none'],
    [{ AUTH_MODE: 'oidc', ...oidc }, 'authMode', 'oidc'],
    [oidc, 'authMode', 'oidc'],
    [{ AUTH_JWKS_FILE: `${dir}/jwks`, AUTH_JWKS_ISSUER: 'ops' }, 'authMode', 'jwks'],
    [{ AUTH_TOKEN: TOKEN }, 'authMode', 'token'],
    [{ AUTH_TOKEN: TOKEN, HTTP_ADDR: ':8090' }, 'httpAddr', { host: '::', port: 8090 }],
    [{ AUTH_TOKEN: TOKEN, HTTP_ADDR: '0.0.0.0:8090' }, 'httpAddr', { host: '0.0.0.0', port: 8090 }],
    [{ ...oidc, HTTP_ADDR: 'mcp.example:8090' }, 'httpAddr', { host: 'mcp.example', port: 8090 }],
    [{ PUBLIC_URL: 'https://mcp.example/' }, 'publicUrl', 'https://mcp.example'],
    [{ PUBLIC_URL: 'https://example/kafscale/' }, 'publicUrl', 'https://example/kafscale'],
    [{ OIDC_ISSUER: 'https://id.example/realms/a, https://id2.example/' }, 'oidcIssuer', [
      'https://id.example/realms/a',
      'https://id2.example/',
    ]],
    [{ OIDC_ISSUER: 'http://127.0.0.1:9000' }, 'oidcIssuer', ['http://127.0.0.1:9000']],
    [{ ...oidc, OIDC_AUDIENCE: 'kafscale' }, 'oidcAudience', ['kafscale']],
    [{ ...oidc, OIDC_AUDIENCE: ' https://mcp.example/mcp , api://kafscale,' }, 'oidcAudience', [
      'https://mcp.example/mcp',
      'api://kafscale',
    ]],
    [{ ...oidc, OIDC_SCOPE: 'observe' }, 'oidcScope', 'observe'],
    [{ ...oidc, OIDC_SCOPE: 'observe' }, 'oidcAdvertisedScope', ['observe']],
    [{ ...oidc, OIDC_ADVERTISED_SCOPE: 'api://app/observe  offline_access' }, 'oidcAdvertisedScope', [
      'api://app/observe',
      'offline_access',
    ]],
    [{ ...oidc, OIDC_ADVERTISED_SCOPE: 'a, b' }, 'oidcAdvertisedScope', ['a', 'b']],
    [{ ...oidc, OIDC_ID_TOKEN_ISSUERS: 'https://id.example' }, 'oidcIdTokenIssuers', ['https://id.example']],
    [{ ...oidc, OIDC_MAX_TOKEN_LIFETIME: '10m' }, 'oidcMaxTokenLifetimeMs', 600_000],
    [{ ...oidc, OIDC_CLIENT_ID: 'mcp', OIDC_CLIENT_SECRET: 'x' }, 'oidcClientId', 'mcp'],
    [{ ...oidc, OIDC_CLIENT_ID: 'mcp', OIDC_CLIENT_SECRET: 'x' }, 'oidcClientSecret', 'x'],
    [{ ...oidc, OIDC_CLIENT_ID: 'mcp', OIDC_CLIENT_SECRET_FILE: `${dir}/password` }, 'oidcClientSecret', 'secret'],
    [{ ...oidc, OIDC_JWKS_URL: 'https://id.svc/certs?a=b , http://127.0.0.1/jwks', OIDC_ISSUER: 'https://a,https://b' },
      'oidcJwksUrl', ['https://id.svc/certs?a=b', 'http://127.0.0.1/jwks']],
    [{ ...oidc, OIDC_JWKS_URL: 'http://id.svc/certs', OIDC_ALLOW_HTTP: 'true' }, 'oidcJwksUrl', ['http://id.svc/certs']],
    [{ ...oidc, OIDC_ALLOW_HTTP: 'true' }, 'oidcAllowHttp', 'true'],
    [
      { ...oidc, OIDC_CLIENT_ID: 'mcp', OIDC_CLIENT_SECRET: 'x', OIDC_INTROSPECTION_URL: 'https://id.svc/introspect' },
      'oidcIntrospectionUrl',
      'https://id.svc/introspect',
    ],
    [{ AUTH_JWKS_FILE: `${dir}/jwks`, AUTH_JWKS_ISSUER: 'ops' }, 'authJwksFile', `${dir}/jwks`],
    [{ AUTH_JWKS_FILE: `${dir}/jwks`, AUTH_JWKS_ISSUER: 'ops' }, 'authJwksIssuer', 'ops'],
    [{ AUTH_TOKEN: TOKEN }, 'authToken', TOKEN],
    [{ AUTH_TOKEN_FILE: `${dir}/token` }, 'authToken', TOKEN],
    [{ TLS_CERT_FILE: cert, TLS_KEY_FILE: key }, 'tlsCertFile', cert],
    [{ TLS_CERT_FILE: cert, TLS_KEY_FILE: key }, 'tlsKeyFile', key],
    [{ TLS_CERT_FILE: cert, TLS_KEY_FILE: key, TLS_CLIENT_CA_FILE: ca }, 'tlsClientCaFile', ca],
    [{ TRUSTED_PROXIES: '10.0.0.1, 10.0.0.0/8,::1 , fd00::/8' }, 'trustedProxies', [
      '10.0.0.1',
      '10.0.0.0/8',
      '::1',
      'fd00::/8',
    ]],
    [{ POLICY_FILE: `${dir}/policy` }, 'policyFile', `${dir}/policy`],
    [{ ENVIRONMENT: 'prod' }, 'environment', 'prod'],
    [{ TOOLS: 'list_topics, list_groups' }, 'tools', ['list_topics', 'list_groups']],
    [{ DISABLED_TOOLS: 'list_topics' }, 'disabledTools', ['list_topics']],
    [
      { AUDIT_SINKS: 'stdout, file:audit.log,file:///var/log/audit.log ,https://collector.example/audit' },
      'auditSinks',
      [
        { kind: 'stdout' },
        { kind: 'file', path: 'audit.log' },
        { kind: 'file', path: '/var/log/audit.log' },
        { kind: 'http', url: 'https://collector.example/audit' },
      ],
    ],
    [{ AUDIT_SINKS: 'none' }, 'auditSinks', [{ kind: 'none' }]],
    [{ AUDIT_SIGNING_KEY_FILE: `${dir}/signing.key` }, 'auditSigningKeyFile', `${dir}/signing.key`],
    [{ AUDIT_SINKS: 'file:audit.log', AUDIT_HEAD_FILE: '/heads/audit' }, 'auditHeadFile', '/heads/audit'],
    [{ AUDIT_FAIL_MODE: 'open' }, 'auditFailMode', 'open'],
    [{ AUDIT_REDACT: 'pin, iban' }, 'auditRedact', ['pin', 'iban']],
    [{ KEEP_ALIVE_TIMEOUT: '75s' }, 'keepAliveTimeoutMs', 75_000],
    [{ KEEP_ALIVE_TIMEOUT: '500us' }, 'keepAliveTimeoutMs', 1],
    [{ KEEP_ALIVE_TIMEOUT: '0' }, 'keepAliveTimeoutMs', 0],
    [{ AUDIT_COLLECTOR_BATCH_BYTES: '1048576' }, 'auditCollectorBatchBytes', 1_048_576],
    [{ AUDIT_COLLECTOR_BATCH_BYTES: '32768' }, 'auditCollectorBatchBytes', 32_768],
    [
      { AUDIT_SINKS: 'http://127.0.0.1:9/audit', AUDIT_COLLECTOR_HEADERS_FILE: `${dir}/headers` },
      'auditCollectorHeadersFile',
      `${dir}/headers`,
    ],
    [{ ...collector, AUDIT_COLLECTOR_CA_FILE: ca }, 'auditCollectorCaFile', ca],
    [
      { ...collector, AUDIT_COLLECTOR_CERT_FILE: cert, AUDIT_COLLECTOR_KEY_FILE: key },
      'auditCollectorCertFile',
      cert,
    ],
    [{ ...collector, AUDIT_COLLECTOR_CERT_FILE: cert, AUDIT_COLLECTOR_KEY_FILE: key }, 'auditCollectorKeyFile', key],
    [{ RESPONSE_TIMEOUT: '1m' }, 'responseTimeoutMs', 60_000],
    [{ MAX_UNREAD_BYTES: '0' }, 'maxUnreadBytes', 0],
    [{ TOTAL_MAX_UNREAD_BYTES: '1000' }, 'totalMaxUnreadBytes', 1_000],
    [{ RATE_LIMIT: '600' }, 'rateLimit', 600],
    [{ AUTH_TOKEN: 'x'.repeat(32) }, 'rateLimit', 1_200],
    [{ RATE_LIMIT: '0', AUTH_TOKEN: 'x'.repeat(32) }, 'rateLimit', 0],
    [{ ADDRESS_RATE_LIMIT: '6000' }, 'addressRateLimit', 6_000],
    [{ MAX_CONNECTIONS: '5000' }, 'maxConnections', 5_000],
    [{ ADDRESS_MAX_CONNECTIONS: '0' }, 'addressMaxConnections', 0],
    [{ MAX_CONCURRENT_CALLS: '0' }, 'maxConcurrentCalls', 0],
    [{ ADDRESS_MAX_CONCURRENT_CALLS: '128' }, 'addressMaxConcurrentCalls', 128],
    [{ MAX_AUTH_FAILURES: '5' }, 'maxAuthFailures', 5],
    [{ MAX_EVENT_LOOP_DELAY: '250ms' }, 'maxEventLoopDelayMs', 250],
    [{ MAX_BODY_BYTES: '65536' }, 'maxBodyBytes', 65_536],
    [{ REQUEST_TIMEOUT: '5s' }, 'requestTimeoutMs', 5_000],
    [{ REQUEST_TIMEOUT: '500us' }, 'requestTimeoutMs', 1],
    [{ TELEMETRY_ADDR: ':9091' }, 'telemetryAddr', { host: '::', port: 9091 }],
    [{ TELEMETRY_ADDR: 'off' }, 'telemetryAddr', null],
    ...['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'].map((
      level
    ): [Environment, SettingKey, unknown] => [{ LOG_LEVEL: level }, 'logLevel', level]),
    [{ SESSION_TIMEOUT: '10m' }, 'sessionTimeoutMs', 600_000],
    [{ CHANGES: 'disabled' }, 'changes', 'disabled'],
    ...([
      [{}, 'changes', 'enabled'],
      [{ EXPECTED_CLUSTER_ID: 'a b' }, 'expectedClusterId', 'a b'],
      [{ KAFKA_BROKERS: 'a:1, [::1]:9092,127.0.0.1:65535 ,' }, 'kafkaBrokers', [
        'a:1',
        '[::1]:9092',
        '127.0.0.1:65535',
      ]],
      [{}, 'kafkaClientId', 'kafscale-mcp'],
      [{ KAFKA_CLIENT_ID: 'ops:agent' }, 'kafkaClientId', 'ops:agent'],
      [{}, 'kafkaTls', 'off'],
      [{ KAFKA_TLS: 'on' }, 'kafkaTls', 'on'],
      [{ KAFKA_TLS: 'on', KAFKA_CA_FILE: ca }, 'kafkaCaFile', ca],
      [{ KAFKA_TLS: 'on', KAFKA_CERT_FILE: cert, KAFKA_KEY_FILE: key }, 'kafkaCertFile', cert],
      [{ KAFKA_TLS: 'on', KAFKA_CERT_FILE: cert, KAFKA_KEY_FILE: key }, 'kafkaKeyFile', key],
      [{ ...sasl, KAFKA_SASL_MECHANISM: 'SCRAM-SHA-256' }, 'kafkaSaslMechanism', 'SCRAM-SHA-256'],
      [sasl, 'kafkaSaslMechanism', 'SCRAM-SHA-512'],
      [{ ...sasl, KAFKA_SASL_MECHANISM: 'PLAIN' }, 'kafkaSaslMechanism', 'PLAIN'],
      [sasl, 'kafkaSaslUsername', 'mcp'],
      [sasl, 'kafkaSaslPassword', 'a,b'],
      [{ BROKER_CONTROL_ADDR: '{host}:19094' }, 'brokerControlAddr', '{host}:19094'],
      [
        { BROKER_CONTROL_ADDR: 'broker-{node_id}.kafscale.svc:19094' },
        'brokerControlAddr',
        'broker-{node_id}.kafscale.svc:19094',
      ],
      [{ BROKER_CONTROL_ADDR: '127.0.0.1:1909{node_id}' }, 'brokerControlAddr', '127.0.0.1:1909{node_id}'],
      [control, 'brokerControlTls', 'on'],
      [{ ...control, BROKER_CONTROL_CA_FILE: ca }, 'brokerControlCaFile', ca],
      [{ ...control, BROKER_CONTROL_CERT_FILE: cert, BROKER_CONTROL_KEY_FILE: key }, 'brokerControlCertFile', cert],
      [{ ...control, BROKER_CONTROL_CERT_FILE: cert, BROKER_CONTROL_KEY_FILE: key }, 'brokerControlKeyFile', key],
      [{}, 'changesEtcdEndpoints', ['http://etcd:2379']],
      [{ CHANGES_ETCD_ENDPOINTS: 'a, https://b' }, 'changesEtcdEndpoints', ['http://a:2379', 'https://b:2379']],
      [{ CHANGES_ETCD_USERNAME: 'ledger', CHANGES_ETCD_PASSWORD: 'x' }, 'changesEtcdUsername', 'ledger'],
      [
        { CHANGES_ETCD_USERNAME: 'ledger', CHANGES_ETCD_PASSWORD_FILE: `${dir}/password` },
        'changesEtcdPassword',
        'secret',
      ],
      [{ ...ledger, CHANGES_ETCD_CA_FILE: ca }, 'changesEtcdCaFile', ca],
      [{ ...ledger, CHANGES_ETCD_CERT_FILE: cert, CHANGES_ETCD_KEY_FILE: key }, 'changesEtcdCertFile', cert],
      [{ ...ledger, CHANGES_ETCD_CERT_FILE: cert, CHANGES_ETCD_KEY_FILE: key }, 'changesEtcdKeyFile', key],
      [{}, 'maxPartitions', 128],
      [{ MAX_PARTITIONS: '1000' }, 'maxPartitions', 1_000],
      [{}, 'changePlannedLifetimeMs', 600_000],
      [{ CHANGE_PLANNED_LIFETIME: '1s' }, 'changePlannedLifetimeMs', 1_000],
      [{ CHANGE_PLANNED_LIFETIME: '1.001s' }, 'changePlannedLifetimeMs', 2_000],
      [{}, 'changePendingLifetimeMs', 86_400_000],
      [{ CHANGE_PENDING_LIFETIME: '72h' }, 'changePendingLifetimeMs', 259_200_000],
      [{}, 'changeApprovedLifetimeMs', 3_600_000],
      [{ CHANGE_APPROVED_LIFETIME: '30m' }, 'changeApprovedLifetimeMs', 1_800_000],
      [{}, 'changeRetentionMs', 7_776_000_000],
      [{ CHANGE_RETENTION: '8760h' }, 'changeRetentionMs', 31_536_000_000],
      [webhook, 'webhookUrl', 'https://hooks.example/T0/x?y=z'],
      [webhook, 'webhookSecret', 's3cret'],
      [{ SESSION_KEY }, 'sessionKey', [SESSION_KEY]],
      [{ SESSION_KEY: `${SESSION_KEY} , ${OLDER_KEY}` }, 'sessionKey', [SESSION_KEY, OLDER_KEY]],
    ] satisfies [Environment, SettingKey, unknown][]).map((
      [variables, setting, value]
    ): [Environment, SettingKey, unknown] => [{ ...enabledChanges(dir), ...variables }, setting, value]),
  ]
  for (const [variables, setting, value] of taken) {
    t.strictSame(settingsOf(read(variables))[setting], value, `${JSON.stringify(variables)} → ${setting}`)
    const padded = Object.entries(variables).map(([name, text]) => [name, ` \t${text}\r\n `])
    t.strictSame(
      settingsOf(read(Object.fromEntries(padded)))[setting],
      value,
      `${JSON.stringify(variables)} → ${setting}, with whitespace around it`
    )
  }
  t.strictSame(
    [...new Set(taken.map(([, setting]) => setting))].sort(),
    Object.keys(ConfigSchema).sort(),
    'every setting is covered'
  )
})

t.test('what each variable refuses, in one line with its name, its value and what was expected', async t => {
  const dir = t.testdir({ garbage: 'not a PEM file\n' })
  const { ca, cert, key, otherKey } = pemFiles(dir)
  const https = { ETCD_ENDPOINTS: 'https://etcd:2379' }
  const missing = `${dir}/missing`
  const garbage = `${dir}/garbage`
  const scope = 'one scope: visible ASCII without " and \\'
  const address = 'expected host:port, :port or [v6]:port, with a port from 0 to 65535'
  const exposed = (host: string) =>
    `KAFSCALE_MCP_HTTP_ADDR (${host}:8090) is not a loopback address, and no authentication is configured: ` +
    'set KAFSCALE_MCP_OIDC_ISSUER (an identity provider), KAFSCALE_MCP_AUTH_JWKS_FILE and ' +
    'KAFSCALE_MCP_AUTH_JWKS_ISSUER (your own keys), or KAFSCALE_MCP_AUTH_TOKEN (one shared secret); ' +
    'or listen on 127.0.0.1:8090'
  const sinks = 'expected stdout, file:PATH, or a URL such as https://collector.example/audit'
  const count = 'expected a whole number, 0 or more'
  const proxies = 'expected addresses or ranges such as 10.0.0.1 or 10.0.0.0/8'
  const duration = 'expected a duration such as 10m, 1h30m or 500ms'
  const endpoint = 'expected endpoints such as http://etcd:2379 or https://etcd:2379'
  const metricsUrl = 'expected URLs such as http://{host}:9093/metrics, or auto'
  const hosts = 'expected host names without scheme and port, IPv6 addresses in brackets'
  const origins = 'expected origins such as https://app.example or http://localhost:3000'
  const refused: [variables: Environment, sentence: string][] = [
    [{ HTTP_ADDR: '127.0.0.1' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.1": ${address}`],
    [{ HTTP_ADDR: '127.0.0.1:65536' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.1:65536": ${address}`],
    [{ HTTP_ADDR: '127.0.0.1:http' }, `KAFSCALE_MCP_HTTP_ADDR is "127.0.0.1:http": ${address}`],
    [{ HTTP_ADDR: '::1:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "::1:8090": ${address}`],
    [{ HTTP_ADDR: 'http://127.0.0.1:8090' }, `KAFSCALE_MCP_HTTP_ADDR is "http://127.0.0.1:8090": ${address}`],
    [{ HTTP_ADDR: ':8090' }, exposed('[::]')],
    [{ HTTP_ADDR: '0.0.0.0:8090' }, exposed('0.0.0.0')],
    [{ HTTP_ADDR: '[::]:8090' }, exposed('[::]')],
    [{ HTTP_ADDR: '127.0.0.1.example:8090' }, exposed('127.0.0.1.example')],
    [{ HTTP_ADDR: '127.0.0.999:8090' }, exposed('127.0.0.999')],
    [{ ETCD_ENDPOINTS: ' , ' }, 'KAFSCALE_MCP_ETCD_ENDPOINTS is " , ": expected at least one item'],
    [{ ETCD_ENDPOINTS: 'ftp://etcd' }, `KAFSCALE_MCP_ETCD_ENDPOINTS is "ftp://etcd": ${endpoint}`],
    [
      { ETCD_ENDPOINTS: 'http://a:2379,http://b:x' },
      `KAFSCALE_MCP_ETCD_ENDPOINTS is "http://a:2379,http://b:x": ${endpoint}`,
    ],
    [
      { ETCD_ENDPOINTS: 'http://etcd/v3' },
      'KAFSCALE_MCP_ETCD_ENDPOINTS is "http://etcd/v3": expected endpoints without a path',
    ],
    [
      { ETCD_ENDPOINTS: 'http://etcd?a' },
      'KAFSCALE_MCP_ETCD_ENDPOINTS is "http://etcd?…": expected endpoints without a path',
    ],
    [
      { ...https, ETCD_CA_FILE: missing },
      `KAFSCALE_MCP_ETCD_CA_FILE is "${missing}": expected a file with a certificate in PEM`,
    ],
    [
      { ...https, ETCD_CA_FILE: dir },
      `KAFSCALE_MCP_ETCD_CA_FILE is "${dir}": expected a file with a certificate in PEM`,
    ],
    [
      { ...https, ETCD_CA_FILE: garbage },
      `KAFSCALE_MCP_ETCD_CA_FILE is "${garbage}": expected a file with a certificate in PEM`,
    ],
    [
      { ...https, ETCD_CERT_FILE: key, ETCD_KEY_FILE: key },
      `KAFSCALE_MCP_ETCD_CERT_FILE is "${key}": expected a file with a certificate in PEM`,
    ],
    [
      { ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: cert },
      `KAFSCALE_MCP_ETCD_KEY_FILE is "${cert}": expected a file with an unencrypted private key in PEM`,
    ],
    [{ BROKER_METRICS_URL: ',' }, 'KAFSCALE_MCP_BROKER_METRICS_URL is ",": expected at least one item'],
    [{ BROKER_METRICS_URL: 'Auto' }, `KAFSCALE_MCP_BROKER_METRICS_URL is "Auto": ${metricsUrl}`],
    [
      { BROKER_METRICS_URL: 'broker:9093/metrics' },
      `KAFSCALE_MCP_BROKER_METRICS_URL is "broker:9093/metrics": ${metricsUrl}`,
    ],
    [
      { BROKER_METRICS_URL: 'http://{hots}:9093/' },
      'KAFSCALE_MCP_BROKER_METRICS_URL is "http://{hots}:9093/": expected no placeholders other than {host} and {node_id}',
    ],
    [
      { METRICS_ALLOWED_HOSTS: 'a b' },
      'KAFSCALE_MCP_METRICS_ALLOWED_HOSTS is "a b": expected globs of host names or addresses such as *.local, ' +
        'or ranges such as 127.0.0.0/8',
    ],
    [
      { METRICS_ALLOWED_HOSTS: '::1/129' },
      'KAFSCALE_MCP_METRICS_ALLOWED_HOSTS is "::1/129": expected addresses or ranges such as 10.0.0.1 or 10.0.0.0/8',
    ],
    [{ AUTH_MODE: 'None' }, 'KAFSCALE_MCP_AUTH_MODE is "None": expected one of oidc, jwks, token, none'],
    [
      { PUBLIC_URL: 'mcp.example' },
      'KAFSCALE_MCP_PUBLIC_URL is "mcp.example": expected a URL such as https://kafscale-mcp.example',
    ],
    [
      { PUBLIC_URL: 'https://mcp.example#a' },
      'KAFSCALE_MCP_PUBLIC_URL is "https://mcp.example#a": expected a URL without query or fragment',
    ],
    [
      { OIDC_ISSUER: 'id.example' },
      'KAFSCALE_MCP_OIDC_ISSUER is "id.example": expected issuers such as https://id.example',
    ],
    [
      { OIDC_ISSUER: 'http://id.example' },
      'KAFSCALE_MCP_OIDC_ISSUER is "http://id.example": expected https URLs; http is accepted on loopback only',
    ],
    [
      { AUTH_JWKS_FILE: missing, AUTH_JWKS_ISSUER: 'ops' },
      `KAFSCALE_MCP_AUTH_JWKS_FILE is "${missing}": expected a file that can be read`,
    ],
    [{ POLICY_FILE: missing }, `KAFSCALE_MCP_POLICY_FILE is "${missing}": expected a file that can be read`],
    [{ POLICY_FILE: dir }, `KAFSCALE_MCP_POLICY_FILE is "${dir}": expected a file that can be read`],
    [
      { AUTH_TOKEN: 'x'.repeat(31) },
      'KAFSCALE_MCP_AUTH_TOKEN is not valid: expected at least 32 characters, all of them visible ASCII',
    ],
    [
      { TLS_CERT_FILE: key, TLS_KEY_FILE: key },
      `KAFSCALE_MCP_TLS_CERT_FILE is "${key}": expected a file with a certificate in PEM`,
    ],
    [
      { TLS_CERT_FILE: cert, TLS_KEY_FILE: cert },
      `KAFSCALE_MCP_TLS_KEY_FILE is "${cert}": expected a file with an unencrypted private key in PEM`,
    ],
    [
      { TLS_CERT_FILE: cert, TLS_KEY_FILE: key, TLS_CLIENT_CA_FILE: garbage },
      `KAFSCALE_MCP_TLS_CLIENT_CA_FILE is "${garbage}": expected a file with a certificate in PEM`,
    ],
    ...['proxy.example', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0', 'fd00::/129', '*', 'loopback'].map((
      text
    ): [Environment, string] => [{ TRUSTED_PROXIES: text }, `KAFSCALE_MCP_TRUSTED_PROXIES is "${text}": ${proxies}`]),
    [{ TOOLS: ',' }, 'KAFSCALE_MCP_TOOLS is ",": expected at least one item'],
    [{ DISABLED_TOOLS: ' , ' }, 'KAFSCALE_MCP_DISABLED_TOOLS is " , ": expected at least one item'],
    ...['file:', 'stderr', 'ftp://collector.example', 'audit.log'].map((
      text
    ): [Environment, string] => [{ AUDIT_SINKS: text }, `KAFSCALE_MCP_AUDIT_SINKS is "${text}": ${sinks}`]),
    [
      { AUDIT_SIGNING_KEY_FILE: cert },
      `KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE is "${cert}": expected a file with an unencrypted private key in PEM`,
    ],
    [{ OIDC_SCOPE: 'a b' }, `KAFSCALE_MCP_OIDC_SCOPE is "a b": expected ${scope}`],
    [{ OIDC_SCOPE: 'a"' }, `KAFSCALE_MCP_OIDC_SCOPE is "a\\"": expected ${scope}`],
    [{ OIDC_ADVERTISED_SCOPE: 'a é' }, `KAFSCALE_MCP_OIDC_ADVERTISED_SCOPE is "a é": expected ${scope}`],
    [
      { OIDC_ISSUER: 'https://id.example', OIDC_ID_TOKEN_ISSUERS: 'https://id.example/' },
      'KAFSCALE_MCP_OIDC_ID_TOKEN_ISSUERS contains "https://id.example/": ' +
      'expected issuers that KAFSCALE_MCP_OIDC_ISSUER names in the same spelling',
    ],
    ...['OIDC_JWKS_URL', 'OIDC_INTROSPECTION_URL'].map((name): [Environment, string] => [
      {
        ...OIDC_CLIENT,
        OIDC_CLIENT_SECRET: 'x',
        OIDC_INTROSPECTION_URL: 'https://id.svc/introspect',
        [name]: 'http://id.svc/x',
      },
      `KAFSCALE_MCP_${name} contains "http://id.svc/x": expected https URLs, or KAFSCALE_MCP_OIDC_ALLOW_HTTP=true, ` +
      'since others can read and change what is sent over plain http',
    ]),
    [
      { OIDC_ISSUER: 'https://a', OIDC_JWKS_URL: 'https://a/jwks,https://b/jwks' },
      'KAFSCALE_MCP_OIDC_JWKS_URL has 2 URLs and KAFSCALE_MCP_OIDC_ISSUER has 1: ' +
      'expected at most one URL for each issuer, in the same order',
    ],
    [
      { OIDC_ISSUER: 'https://a', OIDC_INTROSPECTION_URL: 'https://a/introspect' },
      'KAFSCALE_MCP_OIDC_INTROSPECTION_URL is set and KAFSCALE_MCP_OIDC_CLIENT_ID is not: ' +
      'expected both, since the issuer introspects tokens only for a client',
    ],
    [
      { ...OIDC_CLIENT, OIDC_CLIENT_SECRET: 'x', OIDC_JWKS_URL: 'https://a/jwks' },
      'KAFSCALE_MCP_OIDC_JWKS_URL and KAFSCALE_MCP_OIDC_CLIENT_ID are set and KAFSCALE_MCP_OIDC_INTROSPECTION_URL is ' +
      'not: expected all three, since nothing is discovered of an issuer whose keys have a URL',
    ],
    [{ OIDC_ALLOW_HTTP: 'yes' }, 'KAFSCALE_MCP_OIDC_ALLOW_HTTP is "yes": expected one of false, true'],
    [
      { OIDC_ISSUER: 'https://a', OIDC_JWKS_URL: 'id.svc/jwks' },
      'KAFSCALE_MCP_OIDC_JWKS_URL is "id.svc/jwks": expected URLs such as ' +
      'https://keycloak.id.svc/realms/main/protocol/openid-connect/certs',
    ],
    [{ AUDIT_FAIL_MODE: 'no' }, 'KAFSCALE_MCP_AUDIT_FAIL_MODE is "no": expected one of closed, open'],
    [{ AUDIT_REDACT: ',' }, 'KAFSCALE_MCP_AUDIT_REDACT is ",": expected at least one item'],
    ...['RATE_LIMIT', 'ADDRESS_RATE_LIMIT', 'MAX_CONCURRENT_CALLS', 'ADDRESS_MAX_CONCURRENT_CALLS', 'MAX_AUTH_FAILURES']
      .flatMap(name =>
        ['-1', '1.5', '1e3', '1 MB', '1234567890', 'Infinity'].map((
          text
        ): [Environment, string] => [{ [name]: text }, `KAFSCALE_MCP_${name} is "${text}": ${count}`])
      ),
    ...['0', '-1', '1 MB'].map((
      text
    ): [Environment, string] => [
      { MAX_BODY_BYTES: text },
      `KAFSCALE_MCP_MAX_BODY_BYTES is "${text}": expected a whole number, 1 or more`,
    ]),
    ...[
      'METRICS_MAX_AGE',
      'MAX_STALENESS',
      'VERIFY_INTERVAL',
      'OIDC_MAX_TOKEN_LIFETIME',
      'MAX_EVENT_LOOP_DELAY',
      'REQUEST_TIMEOUT',
      'KEEP_ALIVE_TIMEOUT',
      'SESSION_TIMEOUT',
    ].flatMap((name): [Environment, string][] => [
      ...['5', '-5m', '5 m', '1d', 'm', '1h-5m', 'Infinity', '.s', '5M'].map((
        text
      ): [Environment, string] => [{ [name]: text }, `KAFSCALE_MCP_${name} is "${text}": ${duration}`]),
      [{ [name]: '9999999h' }, `KAFSCALE_MCP_${name} is "9999999h": expected a duration of at most 2562047h`],
    ]),
    ...['mcp.example:8090', 'https://mcp.example', 'mcp.example/mcp', '::1', '*', 'a b', 'user@mcp.example'].map((
      text
    ): [Environment, string] => [
      { ALLOWED_HOSTS: text },
      `KAFSCALE_MCP_ALLOWED_HOSTS is "${text.replace('user', '…')}": ${hosts}`,
    ]),
    [{ ALLOWED_HOSTS: ',' }, 'KAFSCALE_MCP_ALLOWED_HOSTS is ",": expected at least one item'],
    ...['*', 'https://*', 'https://*.app.example', 'http://localhost:*', 'wss://*', 'tauri://*.app'].map((
      text
    ): [Environment, string] => [
      { ALLOWED_ORIGINS: text },
      `KAFSCALE_MCP_ALLOWED_ORIGINS is "${text}": expected each origin by itself: a wildcard matches nothing, ` +
      'except as the host of an app scheme, as in vscode-webview://*',
    ]),
    ...['app.example', 'null', 'localhost:3000', 'file://', 'ftp://app.example'].map((
      text
    ): [Environment, string] => [{ ALLOWED_ORIGINS: text }, `KAFSCALE_MCP_ALLOWED_ORIGINS is "${text}": ${origins}`]),
    [
      { ALLOWED_ORIGINS: 'https://app.example/page' },
      'KAFSCALE_MCP_ALLOWED_ORIGINS is "https://app.example/page": expected origins: scheme, host and port only',
    ],
    [{ TELEMETRY_ADDR: '9090' }, `KAFSCALE_MCP_TELEMETRY_ADDR is "9090": ${address}, or off`],
    [
      { LOG_LEVEL: 'verbose' },
      'KAFSCALE_MCP_LOG_LEVEL is "verbose": expected one of fatal, error, warn, info, debug, trace, silent',
    ],
    [
      { LOG_LEVEL: 'INFO' },
      'KAFSCALE_MCP_LOG_LEVEL is "INFO": expected one of fatal, error, warn, info, debug, trace, silent',
    ],
    [{ CHANGES: 'true' }, 'KAFSCALE_MCP_CHANGES is "true": expected one of disabled, enabled'],
    ...['broker', ':9092', 'broker:0', 'broker:65536', '::1:9092', 'http://broker:9092', 'a:1,b'].map((
      text
    ): [Environment, string] => [
      { KAFKA_BROKERS: text },
      `KAFSCALE_MCP_KAFKA_BROKERS is "${text}": expected brokers such as kafscale-broker-0.kafscale.svc:9092, each ` +
      'with its port',
    ]),
    ...['ops agent', 'ä', 'x'.repeat(256)].map((text): [Environment, string] => [
      { KAFKA_CLIENT_ID: text },
      `KAFSCALE_MCP_KAFKA_CLIENT_ID is "${text}": expected 1 to 255 visible ASCII characters`,
    ]),
    [{ KAFKA_TLS: 'true' }, 'KAFSCALE_MCP_KAFKA_TLS is "true": expected one of off, on'],
    [
      { KAFKA_SASL_MECHANISM: 'plain' },
      'KAFSCALE_MCP_KAFKA_SASL_MECHANISM is "plain": expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512',
    ],
    ...['{host}', 'http://{host}:19094', '{host}:{node_id}', '{host}:19094/x'].map((
      text
    ): [Environment, string] => [
      { BROKER_CONTROL_ADDR: text },
      `KAFSCALE_MCP_BROKER_CONTROL_ADDR is "${text}": expected an address such as {host}:19094, with its port`,
    ]),
    [
      { BROKER_CONTROL_ADDR: '{hots}:19094' },
      'KAFSCALE_MCP_BROKER_CONTROL_ADDR is "{hots}:19094": expected no placeholders other than {host} and {node_id}',
    ],
    [{ CHANGES_ETCD_ENDPOINTS: 'ftp://etcd' }, `KAFSCALE_MCP_CHANGES_ETCD_ENDPOINTS is "ftp://etcd": ${endpoint}`],
    [{ MAX_PARTITIONS: '0' }, 'KAFSCALE_MCP_MAX_PARTITIONS is "0": expected a whole number, 1 or more'],
    ...['PLANNED_LIFETIME', 'PENDING_LIFETIME', 'APPROVED_LIFETIME', 'RETENTION'].flatMap((
      name
    ): [Environment, string][] => [
      [
        { [`CHANGE_${name}`]: '0' },
        `KAFSCALE_MCP_CHANGE_${name} is "0": expected a duration of at least 1s`,
      ],
      [{ [`CHANGE_${name}`]: '90 days' }, `KAFSCALE_MCP_CHANGE_${name} is "90 days": ${duration}`],
    ]),
    ...['hooks.example', 'ftp://hooks.example'].map((text): [Environment, string] => [
      { WEBHOOK_URL: text },
      'KAFSCALE_MCP_WEBHOOK_URL is not valid: expected a URL such as https://hooks.example/kafscale',
    ]),
    [
      { WEBHOOK_URL: 'https://hooks.example/#x' },
      'KAFSCALE_MCP_WEBHOOK_URL is not valid: expected a URL without a fragment',
    ],
    ...[
      'k'.repeat(32),
      Buffer.alloc(31).toString('base64'),
      Buffer.alloc(33).toString('base64'),
      `${SESSION_KEY},${OLDER_KEY},${SESSION_KEY}`,
      `${SESSION_KEY},x`,
      Buffer.alloc(32, 0xff).toString('base64url'),
    ].map((text): [Environment, string] => [
      { SESSION_KEY: text },
      'KAFSCALE_MCP_SESSION_KEY is not valid: expected 32 bytes in base64, as openssl rand -base64 32 prints them, ' +
      'and at most one older key after a comma',
    ]),
    // Contradictions between settings.
    [
      { ETCD_USERNAME: 'reader' },
      'KAFSCALE_MCP_ETCD_USERNAME is set and KAFSCALE_MCP_ETCD_PASSWORD is not: expected both or neither',
    ],
    [
      { ETCD_PASSWORD: 'x' },
      'KAFSCALE_MCP_ETCD_PASSWORD is set and KAFSCALE_MCP_ETCD_USERNAME is not: expected both or neither',
    ],
    [
      { ...https, ETCD_CERT_FILE: cert },
      'KAFSCALE_MCP_ETCD_CERT_FILE is set and KAFSCALE_MCP_ETCD_KEY_FILE is not: expected both or neither',
    ],
    [
      { ...https, ETCD_KEY_FILE: key },
      'KAFSCALE_MCP_ETCD_KEY_FILE is set and KAFSCALE_MCP_ETCD_CERT_FILE is not: expected both or neither',
    ],
    [
      { ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: otherKey },
      `KAFSCALE_MCP_ETCD_KEY_FILE is "${otherKey}": expected the key of the certificate in KAFSCALE_MCP_ETCD_CERT_FILE`,
    ],
    [
      { TLS_CERT_FILE: cert, TLS_KEY_FILE: otherKey },
      `KAFSCALE_MCP_TLS_KEY_FILE is "${otherKey}": expected the key of the certificate in KAFSCALE_MCP_TLS_CERT_FILE`,
    ],
    [
      { TLS_KEY_FILE: key },
      'KAFSCALE_MCP_TLS_KEY_FILE is set and KAFSCALE_MCP_TLS_CERT_FILE is not: expected both or neither',
    ],
    [
      { TLS_CLIENT_CA_FILE: ca },
      'KAFSCALE_MCP_TLS_CLIENT_CA_FILE is set and KAFSCALE_MCP_TLS_CERT_FILE is not: ' +
      'expected both, since only TLS asks clients for a certificate',
    ],
    [
      { AUTH_MODE: 'token' },
      'KAFSCALE_MCP_AUTH_TOKEN is not set: expected a value, since the authentication mode is token',
    ],
    [
      { AUTH_MODE: 'none', AUTH_TOKEN: TOKEN },
      'KAFSCALE_MCP_AUTH_TOKEN is set and KAFSCALE_MCP_AUTH_MODE is none: expected one or the other',
    ],
    [
      { AUTH_TOKEN: TOKEN, OIDC_ISSUER: 'https://id.example' },
      'KAFSCALE_MCP_OIDC_ISSUER and KAFSCALE_MCP_AUTH_TOKEN are both set: ' +
      'expected one authentication mode; unset the settings of the other',
    ],
    ...([['stdout', 'no file'], ['file:a,file:b', '2 files']] as const).map((
      [sinks, what]
    ): [Environment, string] => [
      { AUDIT_SINKS: sinks, AUDIT_HEAD_FILE: '/heads/audit' },
      `KAFSCALE_MCP_AUDIT_HEAD_FILE is set and KAFSCALE_MCP_AUDIT_SINKS contains ${what}: expected one file:PATH, ` +
      'whose head it keeps',
    ]),
    [
      { AUDIT_SINKS: 'file:/log/audit', AUDIT_HEAD_FILE: '/log/../log/audit' },
      'KAFSCALE_MCP_AUDIT_HEAD_FILE is "/log/../log/audit", the audit file itself: expected a path on another ' +
      'volume, where those who can change the log cannot change the head',
    ],
    ...[{ AUTH_TOKEN: TOKEN, AUDIT_SINKS: 'none' }, { AUDIT_SINKS: 'none,stdout' }].map((
      variables
    ): [Environment, string] => [
      variables,
      'KAFSCALE_MCP_AUDIT_SINKS contains none: expected none by itself, and only without authentication, ' +
      'since calls of authenticated callers are always recorded',
    ]),
    [
      { ETCD_ENDPOINTS: 'a:1,http://b:2', ETCD_CA_FILE: ca },
      'KAFSCALE_MCP_ETCD_ENDPOINTS is "http://a:1,http://b:2": expected an https endpoint, since TLS files are set',
    ],
  ]
  for (const [variables, sentence] of refused) t.strictSame(refusal(variables), [sentence], JSON.stringify(variables))
})

t.test('every prerequisite of changes that is missing has one sentence, and all are reported at once', async t => {
  const dir = t.testdir({ policy: 'bindings: []', jwks: '{"keys":[]}' })
  const sentences = {
    mode: (mode: string) =>
      `KAFSCALE_MCP_CHANGES is enabled and the authentication mode is ${mode}: expected the mode oidc or jwks, since ` +
      'a change belongs to whoever requested it; set KAFSCALE_MCP_OIDC_ISSUER, or KAFSCALE_MCP_AUTH_JWKS_FILE and ' +
      'KAFSCALE_MCP_AUTH_JWKS_ISSUER',
    POLICY_FILE: 'KAFSCALE_MCP_POLICY_FILE is not set: expected a policy that says who may change what, since ' +
      'KAFSCALE_MCP_CHANGES is enabled',
    KAFKA_BROKERS: 'KAFSCALE_MCP_KAFKA_BROKERS is not set: expected the brokers that changes are sent to, since ' +
      'KAFSCALE_MCP_CHANGES is enabled',
    EXPECTED_CLUSTER_ID: 'KAFSCALE_MCP_EXPECTED_CLUSTER_ID is not set: expected the id of the only cluster that may ' +
      'be changed, since KAFSCALE_MCP_CHANGES is enabled',
    sinks: (sinks: string) =>
      `KAFSCALE_MCP_AUDIT_SINKS is "${sinks}": expected file:PATH or a URL as well, since KAFSCALE_MCP_CHANGES is ` +
      'enabled and nothing is changed without a durable record, which stdout cannot promise',
  }
  const { mode, sinks, POLICY_FILE, KAFKA_BROKERS, EXPECTED_CLUSTER_ID } = sentences
  const required = [POLICY_FILE, KAFKA_BROKERS, EXPECTED_CLUSTER_ID]
  t.strictSame(refusal({ CHANGES: 'enabled' }), [mode('none'), ...required, sinks('stdout')])
  t.strictSame(refusal({ CHANGES: 'enabled', AUTH_TOKEN: TOKEN }), [mode('token'), ...required, sinks('stdout')])

  const complete = enabledChanges(dir)
  t.strictSame(refusal(complete), [])
  t.strictSame(refusal({ ...complete, AUDIT_SINKS: 'https://collector.example/audit' }), [])
  const jwks = { AUTH_JWKS_FILE: `${dir}/jwks`, AUTH_JWKS_ISSUER: 'ops' }
  const withoutOidc = { ...complete, OIDC_ISSUER: undefined, OIDC_CLIENT_ID: undefined, OIDC_CLIENT_SECRET: undefined }
  t.strictSame(refusal({ ...withoutOidc, ...jwks }), [])
  t.strictSame(refusal(withoutOidc), [mode('none')])
  t.strictSame(refusal({ ...complete, AUDIT_SINKS: 'stdout' }), [sinks('stdout')])
  for (const name of ['POLICY_FILE', 'KAFKA_BROKERS', 'EXPECTED_CLUSTER_ID'] as const) {
    t.strictSame(refusal({ ...complete, [name]: ' ' }), [sentences[name]])
  }
  t.equal(refusal({ ...complete, KAFKA_BROKERS: 'broker' }).length, 1, 'one that cannot be parsed is not missing')
  t.equal(refusal({ ...complete, POLICY_FILE: '/missing' }).length, 1)
  t.equal(refusal({ ...withoutOidc, ...jwks, AUTH_JWKS_FILE: '/missing' }).length, 1)
})

t.test('settings of changes that contradict each other', async t => {
  const dir = t.testdir({ policy: 'bindings: []' })
  const { ca, cert, key, otherKey } = pemFiles(dir)
  const set = (name: string) => `KAFSCALE_MCP_${name} is set`
  const both = (first: string, second: string) =>
    `${set(first)} and KAFSCALE_MCP_${second} is not: expected both or neither`
  const refused: [Environment, string][] = [
    ...(['KAFKA', 'BROKER_CONTROL'] as const).flatMap((prefix): [Environment, string][] => {
      const base = { BROKER_CONTROL_ADDR: '{host}:19094', [`${prefix}_TLS`]: 'on' }
      const [caFile, certFile, keyFile] = [`${prefix}_CA_FILE`, `${prefix}_CERT_FILE`, `${prefix}_KEY_FILE`] as const
      return [
        [{ ...base, [certFile]: cert }, both(certFile, keyFile)],
        [{ ...base, [keyFile]: key }, both(keyFile, certFile)],
        [
          { ...base, [certFile]: cert, [keyFile]: otherKey },
          `KAFSCALE_MCP_${keyFile} is "${otherKey}": expected the key of the certificate in KAFSCALE_MCP_${certFile}`,
        ],
        [
          { ...base, [`${prefix}_TLS`]: 'off', [caFile]: ca },
          `${set(caFile)} and KAFSCALE_MCP_${prefix}_TLS is off: expected KAFSCALE_MCP_${prefix}_TLS=on, or neither`,
        ],
      ]
    }),
    [
      { KAFKA_SASL_MECHANISM: 'PLAIN', KAFKA_SASL_USERNAME: 'mcp' },
      'KAFSCALE_MCP_KAFKA_SASL_MECHANISM and KAFSCALE_MCP_KAFKA_SASL_USERNAME are set and ' +
      'KAFSCALE_MCP_KAFKA_SASL_PASSWORD is not: expected all three or none',
    ],
    [
      { KAFKA_SASL_PASSWORD: 'x' },
      'KAFSCALE_MCP_KAFKA_SASL_PASSWORD is set and KAFSCALE_MCP_KAFKA_SASL_MECHANISM and ' +
      'KAFSCALE_MCP_KAFKA_SASL_USERNAME are not: expected all three or none',
    ],
    [
      { BROKER_CONTROL_TLS: 'on' },
      'KAFSCALE_MCP_BROKER_CONTROL_TLS is on and KAFSCALE_MCP_BROKER_CONTROL_ADDR is not set: expected both or neither',
    ],
    [{ CHANGES_ETCD_USERNAME: 'ledger' }, both('CHANGES_ETCD_USERNAME', 'CHANGES_ETCD_PASSWORD')],
    [{ CHANGES_ETCD_PASSWORD: 'x' }, both('CHANGES_ETCD_PASSWORD', 'CHANGES_ETCD_USERNAME')],
    [
      { CHANGES_ETCD_ENDPOINTS: 'https://a', CHANGES_ETCD_CERT_FILE: cert },
      both('CHANGES_ETCD_CERT_FILE', 'CHANGES_ETCD_KEY_FILE'),
    ],
    [
      { CHANGES_ETCD_ENDPOINTS: 'https://a', CHANGES_ETCD_CERT_FILE: cert, CHANGES_ETCD_KEY_FILE: otherKey },
      `KAFSCALE_MCP_CHANGES_ETCD_KEY_FILE is "${otherKey}": ` +
      'expected the key of the certificate in KAFSCALE_MCP_CHANGES_ETCD_CERT_FILE',
    ],
    [
      { CHANGES_ETCD_ENDPOINTS: 'http://a', CHANGES_ETCD_CA_FILE: ca },
      'KAFSCALE_MCP_CHANGES_ETCD_ENDPOINTS is "http://a:2379": expected an https endpoint, since TLS files are set',
    ],
    [
      { CHANGES_ETCD_CA_FILE: ca },
      'KAFSCALE_MCP_ETCD_ENDPOINTS is "http://etcd:2379": expected an https endpoint, since TLS files are set',
    ],
    [{ WEBHOOK_URL: 'https://hooks.example/x' }, both('WEBHOOK_URL', 'WEBHOOK_SECRET')],
    [{ WEBHOOK_SECRET: 'x' }, both('WEBHOOK_SECRET', 'WEBHOOK_URL')],
  ]
  for (const [variables, sentence] of refused) {
    t.strictSame(refusal({ ...enabledChanges(dir), ...variables }), [sentence], JSON.stringify(variables))
  }
})

t.test('the ledger has the endpoints of the cluster by default, with their CA but without credentials', async t => {
  const dir = t.testdir({ policy: 'bindings: []' })
  const { ca, cert, key } = pemFiles(dir)
  const cluster = {
    ...enabledChanges(dir),
    ETCD_ENDPOINTS: 'https://etcd:2379',
    ETCD_USERNAME: 'reader',
    ETCD_PASSWORD: 'x',
    ETCD_CA_FILE: ca,
    ETCD_CERT_FILE: cert,
    ETCD_KEY_FILE: key,
  }
  const none = { username: undefined, password: undefined, certFile: undefined, keyFile: undefined }
  t.strictSame(read(cluster).changes?.ledger, { endpoints: ['https://etcd:2379'], caFile: ca, ...none })
  t.strictSame(
    read({ ...cluster, CHANGES_ETCD_ENDPOINTS: 'https://ledger' }).changes?.ledger,
    { endpoints: ['https://ledger:2379'], caFile: undefined, ...none },
    'another etcd may have a CA that everyone trusts'
  )
})

t.test('an environment without a name is none for changes', async t => {
  const changes = enabledChanges(t.testdir({ policy: 'bindings: []' }))
  const environment = (variables: Environment) => {
    const config = read({ ...changes, ...variables })
    return [config.environment, config.changes?.environment]
  }
  t.strictSame(environment({}), ['default', null])
  t.strictSame(environment({ ENVIRONMENT: '' }), ['default', null])
  t.strictSame(environment({ ENVIRONMENT: 'default' }), ['default', null], 'as the chart sets it by default')
  t.strictSame(environment({ ENVIRONMENT: 'production' }), ['production', 'production'])
})

t.test('settings of changes without effect, or that are probably not intended, cause a warning', async t => {
  const secret = `${t.testdir({ secret: 'x' })}/secret`
  const set = { KAFKA_BROKERS: 'a:1', KAFKA_CLIENT_ID: 'kafscale-mcp', WEBHOOK_SECRET_FILE: secret }
  t.strictSame(read(set).changes, undefined)
  t.strictSame(read(set).warnings, [
    'KAFSCALE_MCP_KAFKA_BROKERS, KAFSCALE_MCP_KAFKA_CLIENT_ID, KAFSCALE_MCP_WEBHOOK_SECRET_FILE have no effect: ' +
    'KAFSCALE_MCP_CHANGES is not enabled',
  ])
  t.strictSame(read({ CHANGES: 'disabled', MAX_PARTITIONS: '128' }).warnings, [
    'KAFSCALE_MCP_MAX_PARTITIONS has no effect: KAFSCALE_MCP_CHANGES is not enabled',
  ])

  const changes = enabledChanges(t.testdir({ policy: 'bindings: []' }))
  t.strictSame(read(changes).warnings, [])
  const plain = { KAFKA_SASL_MECHANISM: 'PLAIN', KAFKA_SASL_USERNAME: 'mcp', KAFKA_SASL_PASSWORD: 'x' }
  t.strictSame(read({ ...changes, ...plain }).warnings, [
    'KAFSCALE_MCP_KAFKA_SASL_MECHANISM is PLAIN and KAFSCALE_MCP_KAFKA_TLS is off: the password can be intercepted ' +
    'on the way to the brokers',
  ])
  const safe = [{ KAFKA_TLS: 'on' }, { KAFKA_SASL_MECHANISM: 'SCRAM-SHA-256' }, { KAFKA_BROKERS: '[::1]:9092' }]
  for (const variables of safe) {
    t.strictSame(read({ ...changes, ...plain, ...variables }).warnings, [])
  }
  t.strictSame(read({ ...changes, WEBHOOK_URL: 'http://hooks.example/s3cret', WEBHOOK_SECRET: 'x' }).warnings, [
    'KAFSCALE_MCP_WEBHOOK_URL is not https: others can read the changes that are sent to it',
  ])
  t.strictSame(read({ ...changes, EXPECTED_CLUSTER_ID: 'kafscale-cluster' }).warnings, [
    'KAFSCALE_MCP_EXPECTED_CLUSTER_ID is "kafscale-cluster", the id of every cluster that KafScale\'s operator has ' +
    'not set up: it cannot tell such clusters apart',
  ])
})

t.test('all mistakes are reported at once', async t => {
  const sentences = refusal({
    HTTP_ADDR: 'x',
    ETCD_ENDPOINTS: '',
    ETCD_USERNAME: 'reader',
    LOG_LEVEL: 'x',
    MAX_STALENESS: '1',
    METRICS_MAX_AGE: '2',
    VERIFY_INTERVAL: '3',
  })
  t.strictSame(sentences.map(sentence => /^KAFSCALE_MCP_(\w+)/.exec(sentence)?.[1]), [
    'HTTP_ADDR',
    'ETCD_ENDPOINTS',
    'METRICS_MAX_AGE',
    'MAX_STALENESS',
    'VERIFY_INTERVAL',
    'LOG_LEVEL',
    'ETCD_USERNAME',
  ])
})

t.test('a variable that cannot be parsed is not reported as missing', async t => {
  const { cert } = pemFiles(t.testdir())
  const https = { ETCD_ENDPOINTS: 'https://etcd:2379' }
  t.equal(refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: '/missing' }).length, 1)
  t.equal(refusal({ ...https, ETCD_CERT_FILE: cert, ETCD_KEY_FILE: '/missing' }).length, 1)
  t.equal(refusal({ ETCD_ENDPOINTS: 'ftp://etcd', ETCD_CA_FILE: cert }).length, 1)
  t.equal(refusal({ AUTH_TOKEN_FILE: '/missing', AUTH_MODE: 'token', HTTP_ADDR: ':8090' }).length, 1)
  t.equal(refusal({ OIDC_ISSUER: 'id.example', HTTP_ADDR: ':8090' }).length, 1)
})

t.test('the configuration, which tools can read, does not show secrets', async t => {
  const secret = 'hunter2'.repeat(5)
  const url = `https://hooks.example/${secret}`
  const configs = [
    read({ AUTH_TOKEN: secret, ETCD_USERNAME: 'reader', ETCD_PASSWORD: secret }),
    read({ ...OIDC_CLIENT, OIDC_CLIENT_SECRET: secret }),
    read({
      ...enabledChanges(t.testdir({ policy: 'bindings: []' })),
      KAFKA_SASL_MECHANISM: 'SCRAM-SHA-256',
      KAFKA_SASL_USERNAME: 'mcp',
      KAFKA_SASL_PASSWORD: secret,
      CHANGES_ETCD_USERNAME: 'ledger',
      CHANGES_ETCD_PASSWORD: secret,
      WEBHOOK_URL: url,
      WEBHOOK_SECRET: secret,
      SESSION_KEY,
    }),
  ]
  t.match(configs.map(settingsOf), [
    { authToken: secret, etcdPassword: secret },
    { oidcClientSecret: secret },
    {
      kafkaSaslPassword: secret,
      changesEtcdPassword: secret,
      webhookUrl: url,
      webhookSecret: secret,
      sessionKey: [SESSION_KEY],
    },
  ])
  for (const config of configs) {
    const shown = inspect(config, { depth: Infinity, showHidden: true }) + JSON.stringify(config)
    t.notMatch(shown, secret)
    t.notMatch(shown, SESSION_KEY)
  }
})

t.test('a secret can be read from a file', async t => {
  const passwordIn = (content: string) => {
    const file = `${t.testdirName}/secret`
    writeFileSync(file, content)
    return settingsOf(read({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: file })).etcdPassword
  }
  const changes = enabledChanges(t.testdir({ policy: 'bindings: []' }))
  t.equal(passwordIn('pass'), 'pass')
  for (const content of ['pass\n', 'pass\r\n', 'pass\n\n', ' pass ', '\ufeffpass\t\n', '\u00a0pass']) {
    t.equal(passwordIn(content), 'pass', `whitespace around it is removed: ${JSON.stringify(content)}`)
  }
  t.equal(passwordIn(' pass  word\n'), 'pass  word', 'and within it is kept')

  t.strictSame(
    refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'pass', ETCD_PASSWORD_FILE: `${t.testdirName}/secret` }),
    ['KAFSCALE_MCP_ETCD_PASSWORD and KAFSCALE_MCP_ETCD_PASSWORD_FILE are both set: expected only one of them']
  )
  t.strictSame(refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: '/missing' }), [
    'KAFSCALE_MCP_ETCD_PASSWORD_FILE is "/missing": expected a file that can be read',
  ])
  writeFileSync(`${t.testdirName}/empty`, ' \n')
  t.strictSame(refusal({ ETCD_USERNAME: 'reader', ETCD_PASSWORD_FILE: `${t.testdirName}/empty` }), [
    'KAFSCALE_MCP_ETCD_USERNAME is set and KAFSCALE_MCP_ETCD_PASSWORD is not: expected both or neither',
  ], 'empty means unset')

  const webhook = { ...changes, WEBHOOK_URL: 'https://hooks.example/x', WEBHOOK_SECRET: 'x' }
  const others: Record<string, [setting: SettingKey, value: string, beside: Environment]> = {
    AUTH_TOKEN: ['authToken', TOKEN, {}],
    OIDC_CLIENT_SECRET: ['oidcClientSecret', TOKEN, OIDC_CLIENT],
    KAFKA_SASL_PASSWORD: ['kafkaSaslPassword', TOKEN, {
      ...changes, KAFKA_TLS: 'on', KAFKA_SASL_MECHANISM: 'PLAIN', KAFKA_SASL_USERNAME: 'mcp',
    }],
    CHANGES_ETCD_PASSWORD: ['changesEtcdPassword', TOKEN, { ...changes, CHANGES_ETCD_USERNAME: 'ledger' }],
    WEBHOOK_URL: ['webhookUrl', 'https://hooks.example/T0/x', webhook],
    WEBHOOK_SECRET: ['webhookSecret', TOKEN, webhook],
    SESSION_KEY: ['sessionKey', SESSION_KEY, changes],
  }
  for (const [name, [setting, value, beside]] of Object.entries(others)) {
    const file = `${t.testdirName}/${name}`
    writeFileSync(file, `${value}\r\n`)
    const env = { ...beside, [name]: undefined }
    t.strictSame([settingsOf(read({ ...env, [`${name}_FILE`]: file }))[setting]].flat(), [value], name)
    t.strictSame(
      refusal({ ...env, [name]: value, [`${name}_FILE`]: file }),
      [`KAFSCALE_MCP_${name} and KAFSCALE_MCP_${name}_FILE are both set: expected only one of them`]
    )
    t.strictSame(
      refusal({ ...env, [`${name}_FILE`]: '/missing' }),
      [`KAFSCALE_MCP_${name}_FILE is "/missing": expected a file that can be read`]
    )
  }
  t.strictSame(
    Object.values(ConfigSchema).filter(setting => 'secret' in setting).map(({ name }) => name).sort(),
    ['ETCD_PASSWORD', ...Object.keys(others)].sort(),
    'a new secret needs tests here'
  )
})

t.test('no message shows a secret', async t => {
  const secret = 'hunter2'
  const refused: Environment[] = [
    { ETCD_PASSWORD: secret },
    { ETCD_USERNAME: 'reader', ETCD_PASSWORD: secret, ETCD_PASSWORD_FILE: '/missing' },
    ...[
      `http://reader:${secret}@etcd:2379`,
      `reader:${secret}@etcd:2379`,
      `http://reader:p@${secret}@etcd`,
      `http://reader:${secret}/x@etcd`,
      `http://a,https://reader:x,${secret}@etcd`,
      `http:/reader:${secret}@etcd`,
    ].map(ETCD_ENDPOINTS => ({ ETCD_ENDPOINTS })),
    { BROKER_METRICS_URL: `http://reader:${secret}@broker/metrics` },
    { AUTH_TOKEN: secret },
    { AUTH_TOKEN: `${secret} ${TOKEN}` },
    { AUTH_TOKEN: TOKEN, AUTH_TOKEN_FILE: '/missing' },
    { AUTH_TOKEN: TOKEN, AUTH_MODE: 'none' },
    { OIDC_CLIENT_SECRET: secret },
    { ...OIDC_CLIENT, OIDC_CLIENT_SECRET: secret, OIDC_CLIENT_SECRET_FILE: '/missing' },
    { OIDC_ISSUER: `https://reader:${secret}@id.example` },
    { PUBLIC_URL: `https://reader:${secret}@mcp.example` },
    { AUDIT_SINKS: `https://reader:${secret}@collector.example` },
    { AUDIT_SINKS: `stdout,https://collector.example/?key=${secret},stderr` },
    { ALLOWED_ORIGINS: `https://reader:${secret}@app.example` },
    { KAFKA_BROKERS: `reader:${secret}@broker:9092` },
    { BROKER_CONTROL_ADDR: `reader:${secret}@{host}:19094` },
    { CHANGES_ETCD_ENDPOINTS: `https://reader:${secret}@etcd` },
    { WEBHOOK_URL: `hooks.example/${secret}` },
    { WEBHOOK_URL: `https://reader:${secret}@hooks.example` },
    { SESSION_KEY: secret },
    { SESSION_KEY: `${SESSION_KEY},${secret}` },
  ]
  for (const variables of refused) {
    const sentences = refusal(variables)
    t.not(sentences.length, 0, `${JSON.stringify(variables)} is refused`)
    t.notMatch(sentences.join('\n'), secret)
  }
  t.strictSame(refusal({ ETCD_ENDPOINTS: `https://reader:${secret}@etcd:2379` }), [
    'KAFSCALE_MCP_ETCD_ENDPOINTS is "…@etcd:2379": expected endpoints such as http://etcd:2379 or https://etcd:2379, without credentials in it',
  ])
})

t.test('a value cannot imitate another line', async t => {
  t.strictSame(
    refusal({ LOG_LEVEL: 'x\nKAFSCALE_MCP_HTTP_ADDR is fine\u2028\u202e' }).map(sentence => sentence.split(': ')[0]),
    ['KAFSCALE_MCP_LOG_LEVEL is "x\\nKAFSCALE_MCP_HTTP_ADDR is fine\\u2028\\u202e"']
  )
})

t.test('the variables that Kubernetes sets for Services cause no warning', async t => {
  const links = {
    SERVICE_HOST: '10.96.0.10',
    SERVICE_PORT: '80',
    SERVICE_PORT_HTTP: '80',
    PORT: 'tcp://10.96.0.10:80',
    PORT_80_TCP: 'tcp://10.96.0.10:80',
    PORT_80_TCP_PROTO: 'tcp',
    PORT_80_TCP_PORT: '80',
    PORT_80_TCP_ADDR: '10.96.0.10',
    TELEMETRY_SERVICE_HOST: 'None',
    TELEMETRY_PORT_9090_TCP_ADDR: '10.96.0.11',
  }
  t.strictSame(read(links).warnings, [])
  t.match(read({ HTTP_PORT: '8090', PORT: '8090' }).warnings, [/HTTP_PORT is not a/, /MCP_PORT is not a/])
})

t.test('an unknown or ineffective variable causes a warning that names it, and nothing else', async t => {
  t.strictSame(
    read({ ZZZ: 'hunter2', AUTH_TOKENS: 'hunter2', LOG_LEVEL_FILE: '/x', SESSION_TIMEOUT: '10m' }).warnings,
    [
      'KAFSCALE_MCP_AUTH_TOKENS is not a variable of this service: it has no effect',
      'KAFSCALE_MCP_LOG_LEVEL_FILE is not a variable of this service: it has no effect',
      'KAFSCALE_MCP_ZZZ is not a variable of this service: it has no effect',
      'KAFSCALE_MCP_SESSION_TIMEOUT has no effect: sessions no longer exist',
    ]
  )
  t.strictSame(
    readConfig({ ...prefixed(REQUIRED), KAFSCALE_ETCD_ENDPOINTS: 'x', PATH: 'x' }).warnings,
    [],
    'variables of other programs are ignored'
  )
})

t.test('the proxies of the environment are read where requests can use them', async t => {
  const env = { HTTPS_PROXY: 'socks5://proxy', HTTP_PROXY: 'http://reader:hunter2@proxy:3128' }
  const readWith = (variables: Environment) => readConfig({ ...prefixed({ ...REQUIRED, ...variables }), ...env })
  t.equal(readWith({}).proxies, undefined)
  const dir = t.testdir({ policy: 'bindings: []', jwks: '{"keys":[]}' })
  const webhook = {
    ...enabledChanges(dir),
    ...{ OIDC_ISSUER: undefined, OIDC_CLIENT_ID: undefined, OIDC_CLIENT_SECRET: undefined },
    ...{ AUTH_JWKS_FILE: `${dir}/jwks`, AUTH_JWKS_ISSUER: 'ops' },
    ...{ WEBHOOK_URL: 'https://hooks.example', WEBHOOK_SECRET: 'x' },
  }
  t.equal(readWith({ ...webhook, CHANGES: 'disabled' }).proxies, undefined)
  const sink = { AUDIT_SINKS: 'stdout,http://collector.example' }
  for (const uses of [{ OIDC_ISSUER: 'https://id.example' }, sink, webhook]) {
    t.throws(() => readWith(uses), {
      message: 'HTTPS_PROXY is not valid: expected the URL of a proxy, such as http://proxy.example:3128',
    })
  }
  env.HTTPS_PROXY = 'https://reader:hunter2@proxy'
  const { proxies } = readWith({ AUDIT_SINKS: 'http://collector.example' })
  t.ok(proxies)
  t.notMatch(inspect(proxies, { depth: Infinity, showHidden: true }), 'hunter2')
  t.notMatch(JSON.stringify(proxies), 'hunter2')
})

t.test('a shared token causes a warning', async t => {
  t.strictSame(read({ AUTH_TOKEN: TOKEN }).warnings, [
    'KAFSCALE_MCP_AUTH_TOKEN is a shared secret: every caller is static-token, and audit records cannot tell callers ' +
    'apart; KAFSCALE_MCP_OIDC_ISSUER or KAFSCALE_MCP_AUTH_JWKS_FILE identifies them',
  ])
})

t.test('settings for audit collectors are refused without one, and headers are never quoted', async t => {
  const headers = {
    name: 'Bearer s3cret',
    value: 'authorization: s3cret\u0007',
    own: 'x-a: b\ncontent-length: 5',
    twice: 'X-A: s3cret\nx-a: s3cret',
  }
  const dir = t.testdir({ ...headers, valid: 'authorization: Bearer s3cret' })
  const { ca, cert, key, otherKey } = pemFiles(dir)
  const https = { AUDIT_SINKS: 'stdout,https://collector.example/audit' }
  const file = 'KAFSCALE_MCP_AUDIT_COLLECTOR_HEADERS_FILE'
  const lines: Record<string, string> = {
    name: 'header lines such as Authorization: Bearer …, unlike line 1',
    value: 'header lines such as Authorization: Bearer …, unlike line 1',
    own: 'no header that the service sets itself, as line 2 does',
    twice: 'each header once: line 2 repeats one',
    none: 'a file that can be read',
  }
  for (const [name, expected] of Object.entries(lines)) {
    t.strictSame(refusal({ ...https, AUDIT_COLLECTOR_HEADERS_FILE: `${dir}/${name}` }), [
      `${file} is "${dir}/${name}": expected ${expected}`,
    ])
  }
  const refused: [Environment, string][] = [
    [
      { AUDIT_COLLECTOR_HEADERS_FILE: `${dir}/valid` },
      `${file} is set and KAFSCALE_MCP_AUDIT_SINKS has no collector: expected both or neither`,
    ],
    [
      { AUDIT_SINKS: 'http://collector.example', AUDIT_COLLECTOR_CA_FILE: ca },
      'KAFSCALE_MCP_AUDIT_COLLECTOR_CA_FILE is set and KAFSCALE_MCP_AUDIT_SINKS has no https collector: ' +
      'expected both or neither',
    ],
    [
      { AUDIT_COLLECTOR_CERT_FILE: cert, AUDIT_COLLECTOR_KEY_FILE: key },
      'KAFSCALE_MCP_AUDIT_COLLECTOR_CERT_FILE is set and KAFSCALE_MCP_AUDIT_SINKS has no https collector: ' +
      'expected both or neither',
    ],
    [
      { ...https, AUDIT_COLLECTOR_CERT_FILE: cert },
      'KAFSCALE_MCP_AUDIT_COLLECTOR_CERT_FILE is set and KAFSCALE_MCP_AUDIT_COLLECTOR_KEY_FILE is not: ' +
      'expected both or neither',
    ],
    [
      { ...https, AUDIT_COLLECTOR_CERT_FILE: cert, AUDIT_COLLECTOR_KEY_FILE: otherKey },
      `KAFSCALE_MCP_AUDIT_COLLECTOR_KEY_FILE is "${otherKey}": ` +
      'expected the key of the certificate in KAFSCALE_MCP_AUDIT_COLLECTOR_CERT_FILE',
    ],
    ...['32767', '1048577', '1MB'].map((text): [Environment, string] => [
      { AUDIT_COLLECTOR_BATCH_BYTES: text },
      `KAFSCALE_MCP_AUDIT_COLLECTOR_BATCH_BYTES is "${text}": expected a whole number from 32768 to 1048576`,
    ]),
  ]
  for (const [variables, message] of refused) t.strictSame(refusal(variables), [message])
  const valid = { AUDIT_COLLECTOR_HEADERS_FILE: `${dir}/valid` }
  t.strictSame(read({ ...https, ...valid }).warnings, [])
  t.strictSame(read({ ...valid, AUDIT_SINKS: 'http://collector.example/audit' }).warnings, [
    `KAFSCALE_MCP_AUDIT_SINKS has a collector without https: the headers in ${file} can be intercepted on the way`,
  ])
})
