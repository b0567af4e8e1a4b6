/** Renders the chart with Helm, checks it against the Kubernetes schemas, and starts from the pods' configuration. */
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import packageJson from '../../package.json' with { type: 'json' }
import { CHANGES_SETTINGS } from '../../plugins/config/changes.ts'
import { type Config, readConfig } from '../../plugins/config/read.ts'
import { ConfigSchema } from '../../plugins/config/schema.ts'
import { reveal } from '../../plugins/config/secret.ts'
import { parsePolicy } from '../../plugins/rbac/policy.ts'
import { readmeWithTable } from '../../scripts/chart-readme.ts'
import {
  CHART,
  environmentOf,
  type Existing,
  helm,
  LEAST,
  type Manifest,
  needsHelm,
  notes,
  only,
  podOf,
  type PodSpec,
  refusal,
  render,
  renderText,
  type Values,
  values,
} from '../support/chart.ts'
import { mistakes } from '../support/chart-schemas.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { readPage } from '../support/pages.ts'
import { ROOT } from '../support/paths.ts'
import { buildSyncedApp, buildTestApp, fill } from '../support/service.ts'
import { settingsOf } from '../support/settings.ts'

const TOKEN = LEAST.auth.token
const NAME = 'prod-kafscale-mcp'
const read = (name: string) => readFileSync(join(CHART, name), 'utf8')

const dir = t.testdir({})

/** A self-signed certificate and its key. */
function newPair (): { 'tls.crt': string, 'tls.key': string } {
  execFileSync('openssl', [
    'req',
    '-x509',
    '-newkey',
    'ed25519',
    '-noenc',
    '-days',
    '1',
    '-subj',
    '/CN=elsewhere',
    '-keyout',
    'tls.key',
    '-out',
    'tls.crt',
  ], { cwd: dir, stdio: 'pipe' })
  return {
    'tls.crt': readFileSync(join(dir, 'tls.crt'), 'utf8'),
    'tls.key': readFileSync(join(dir, 'tls.key'), 'utf8'),
  }
}

const pair = newPair()
const { 'tls.crt': certificate, 'tls.key': key } = pair

/** 32 bytes in base64. */
const SESSION_KEY = Buffer.alloc(32, 'k').toString('base64')

/** Secrets and ConfigMaps that exist in the namespace. */
const EXISTING: Existing = {
  'Secret/token': { token: TOKEN },
  'Secret/client': { 'client-secret': 'of the client' },
  'Secret/etcd': { ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'of etcd' },
  'Secret/kafscale-mcp-etcd': { ETCD_USERNAME: 'reader', ETCD_PASSWORD: 'of etcd' },
  'ConfigMap/etcd-ca': { 'ca.crt': certificate },
  'Secret/etcd-client': pair,
  'Secret/tls': pair,
  'ConfigMap/client-ca': { 'ca.crt': certificate },
  'ConfigMap/jwks': { 'jwks.json': '{"keys":[]}' },
  'Secret/audit': { 'audit.key': key },
  'Secret/kafscale-mcp-audit': { 'audit.key': key },
  'Secret/collector': { headers: 'Authorization: Bearer of-the-collector' },
  'ConfigMap/collector-ca': { 'ca.crt': certificate },
  'Secret/collector-client': pair,
  'ConfigMap/policy': { 'policy.yaml': 'bindings: []' },
  'Secret/ledger': { ETCD_USERNAME: 'ledger', ETCD_PASSWORD: 'of the ledger' },
  'Secret/changes': {
    password: 'of Kafka',
    'ca.crt': certificate,
    url: 'https://hooks.example/T0/x',
    secret: 'of the webhook',
    'session-key': SESSION_KEY,
  },
}

/** The settings that the service reads in a pod of these objects. */
function configOf (
  t: Test,
  objects: Manifest[],
  existing = EXISTING
): ReturnType<typeof settingsOf> & Pick<Config, 'warnings'> {
  const config = readConfig(environmentOf(t, podOf(objects), objects, existing))
  return { ...settingsOf(config), warnings: config.warnings }
}

const variable = (object: Manifest, name: string) =>
  object.spec?.template.spec.containers[0].env.find(variable => variable.name === name)?.value

t.test('a disabled chart renders nothing', needsHelm(), async t => {
  t.strictSame(await render({}), [])
  const everything = {
    enabled: false,
    replicaCount: 3,
    'ingress.enabled': true,
    'autoscaling.enabled': true,
    'audit.persistence.enabled': true,
    'audit.headFile.enabled': true,
    'telemetry.serviceMonitor.enabled': true,
    'telemetry.prometheusRule.enabled': true,
    'telemetry.dashboards.enabled': true,
  }
  t.strictSame(await render(values(everything)), [], 'regardless of other values')
  t.match(await notes(t, {}), /^kafscale-mcp is disabled, so nothing was installed/)
})

t.test('the smallest values render a complete installation', needsHelm(), async t => {
  const objects = await render(LEAST)
  t.strictSame(objects.map(({ kind, metadata: { name, namespace } }) => `${kind} ${namespace ?? '-'}/${name}`).sort(), [
    'Deployment kafscale-mcp/prod-kafscale-mcp',
    'Namespace -/kafscale-mcp',
    'NetworkPolicy kafscale-mcp/prod-kafscale-mcp',
    'Pod kafscale-mcp/prod-kafscale-mcp-test',
    'Secret kafscale-mcp/prod-kafscale-mcp',
    'Service kafscale-mcp/prod-kafscale-mcp',
    'Service kafscale-mcp/prod-kafscale-mcp-telemetry',
    'ServiceAccount kafscale-mcp/prod-kafscale-mcp',
  ])
  t.match(configOf(t, objects), {
    authMode: 'token',
    authToken: TOKEN,
    etcdEndpoints: LEAST.etcdEndpoints,
    brokerMetricsUrl: [LEAST.metrics.brokerMetricsURL],
    httpAddr: { host: '::', port: 8090 },
    publicUrl: 'http://prod-kafscale-mcp.kafscale-mcp.svc',
    auditSinks: [{ kind: 'stdout' }],
    auditFailMode: 'closed',
  })
  t.match(podOf(objects).containers[0], {
    image: `ghcr.io/kafscale/kafscale-mcp:${packageJson.version}`,
    ports: [{ name: 'http', containerPort: 8090 }, { name: 'telemetry', containerPort: 9090 }],
    resources: { requests: { cpu: '100m', memory: '256Mi' }, limits: { memory: '512Mi' } },
  })
  t.match(only(objects, 'Service', NAME).spec, { type: 'ClusterIP', ports: [{ port: 80, targetPort: 'http' }] })
})

t.test('the values of the KafScale chart are accepted unchanged', needsHelm(), async t => {
  const [mcp, beside] = [
    parse(`
    enabled: true
    namespace: { name: kafscale-mcp, create: true }
    replicaCount: 1
    image: { repository: ghcr.io/kafscale/kafscale-mcp, tag: "", useLatest: true, pullPolicy: IfNotPresent }
    serviceAccount: { create: true, name: "" }
    auth: { token: ${TOKEN} }
    etcdEndpoints: ["http://etcd:2379"]
    etcd: { existingSecret: etcd, username: "", password: null }
    metrics: { brokerMetricsURL: "" }
    sessionTimeout: ""
    podAnnotations: {}
    resources: {}
    nodeSelector: {}
    tolerations: []
    affinity: {}
    podSecurityContext:
      { runAsUser: 10001, runAsGroup: 10001, runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
    containerSecurityContext:
      { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
    service: { type: ClusterIP, port: 80 }
    ingress:
      enabled: false
      className: ""
      annotations: {}
      hosts: [{ host: mcp.local, paths: [{ path: /, pathType: Prefix }] }]
      tls: []`),
    { imagePullSecrets: [{ name: 'registry' }], operator: { replicaCount: 1 }, console: { enabled: true } },
  ]
  const objects = await render(mcp, { beside })
  t.match(podOf(objects), {
    imagePullSecrets: [{ name: 'registry' }],
    containers: [{ image: 'ghcr.io/kafscale/kafscale-mcp:latest' }],
  })
  t.match(configOf(t, objects), { etcdUsername: 'reader', etcdPassword: 'of etcd' }, 'etcd.existingSecret is used')
  const names = await render(mcp, { beside: { imagePullSecrets: ['registry', { name: 'other' }] } })
  t.strictSame(podOf(names)['imagePullSecrets'], [{ name: 'registry' }, { name: 'other' }], 'that chart expects names')
})

/** For each setting: values that change its default, what the service then reads, and the mode, if it has one only. */
type Key = keyof typeof ConfigSchema
const content = (name: string, key: string) => ({ content: EXISTING[name]?.[key] })
const SETTINGS: Record<Key, [values: Record<string, unknown>, read: unknown, mode?: 'token' | 'oidc' | 'jwks']> = {
  httpAddr: [{ httpAddr: ':8091' }, { host: '::', port: 8091 }],
  etcdEndpoints: [{ etcdEndpoints: ['etcd-0:2379', 'https://etcd-1'] }, ['http://etcd-0:2379', 'https://etcd-1:2379']],
  etcdUsername: [{ 'etcd.username': 'reader' }, 'reader'],
  etcdPassword: [{ 'etcd.password': 'secret' }, 'secret'],
  etcdCaFile: [{ 'etcd.tls.ca.existingConfigMap': 'etcd-ca' }, content('ConfigMap/etcd-ca', 'ca.crt')],
  etcdCertFile: [{ 'etcd.tls.client.existingSecret': 'etcd-client' }, content('Secret/etcd-client', 'tls.crt')],
  etcdKeyFile: [{ 'etcd.tls.client.existingSecret': 'etcd-client' }, content('Secret/etcd-client', 'tls.key')],
  brokerMetricsUrl: [{ 'metrics.brokerMetricsURL': 'auto, http://other:9/metrics' }, [
    'http://{host}:9093/metrics',
    'http://other:9/metrics',
  ]],
  metricsAllowedHosts: [{ 'metrics.allowedHosts': ['*.local', '127.0.0.0/8'] }, ['*.local', '127.0.0.0/8']],
  metricsMaxAgeMs: [{ 'metrics.maxAge': '3s' }, 3_000],
  maxStalenessMs: [{ maxStaleness: '7m' }, 420_000],
  verifyIntervalMs: [{ verifyInterval: '0' }, 0],
  allowedHosts: [{ allowedHosts: ['mcp.example', '[::1]'] }, ['mcp.example', '[::1]']],
  allowedOrigins: [{ allowedOrigins: ['https://app.example', 'https://other.example:8443', 'vscode-webview://*'] }, [
    'https://app.example',
    'https://other.example:8443',
    'vscode-webview://*',
  ]],
  authMode: [{ 'auth.mode': 'jwks' }, 'jwks', 'jwks'],
  publicUrl: [{ publicURL: 'https://mcp.example/kafscale' }, 'https://mcp.example/kafscale'],
  oidcIssuer: [{ 'auth.oidc.issuers': ['https://id.example', 'https://other.example'] }, [
    'https://id.example',
    'https://other.example',
  ], 'oidc'],
  oidcAudience: [{ 'auth.oidc.audience': 'audience' }, ['audience'], 'oidc'],
  oidcScope: [{ 'auth.oidc.scope': 'observe' }, 'observe', 'oidc'],
  oidcAdvertisedScope: [{ 'auth.oidc.advertisedScope': 'api://app/observe' }, ['api://app/observe'], 'oidc'],
  oidcIdTokenIssuers: [{ 'auth.oidc.idTokenIssuers': ['https://other.example'] }, ['https://other.example'], 'oidc'],
  oidcMaxTokenLifetimeMs: [{ 'auth.oidc.maxTokenLifetime': '15m' }, 900_000, 'oidc'],
  oidcJwksUrl: [{ 'auth.oidc.jwksURLs': ['https://id.svc/certs'] }, ['https://id.svc/certs'], 'oidc'],
  oidcIntrospectionUrl: [{ 'auth.oidc.introspectionURL': 'https://id.svc/introspect' }, 'https://id.svc/introspect', 'oidc'],
  oidcAllowHttp: [{ 'auth.oidc.allowHTTP': true }, 'true', 'oidc'],
  oidcClientId: [{ 'auth.oidc.clientId': 'id' }, 'id', 'oidc'],
  oidcClientSecret: [{ 'auth.oidc.existingSecret': 'client' }, 'of the client', 'oidc'],
  authJwksFile: [{ 'auth.jwks.existingConfigMap': 'jwks' }, content('ConfigMap/jwks', 'jwks.json'), 'jwks'],
  authJwksIssuer: [{ 'auth.jwks.issuer': 'issuer' }, 'issuer', 'jwks'],
  authToken: [
    { 'auth.token': 'another-token-of-32-characters-or-more' },
    'another-token-of-32-characters-or-more',
    'token',
  ],
  tlsCertFile: [{ 'tls.existingSecret': 'tls' }, content('Secret/tls', 'tls.crt')],
  tlsKeyFile: [{ 'tls.existingSecret': 'tls' }, content('Secret/tls', 'tls.key')],
  tlsClientCaFile: [{ 'tls.clientCA.existingConfigMap': 'client-ca' }, content('ConfigMap/client-ca', 'ca.crt')],
  trustedProxies: [{ trustedProxies: ['10.0.0.0/8', 'fd00::1'] }, ['10.0.0.0/8', 'fd00::1']],
  policyFile: [{ 'policy.existingConfigMap': 'policy' }, content('ConfigMap/policy', 'policy.yaml')],
  environment: [{ environment: 'staging' }, 'staging'],
  tools: [{ tools: ['list_topics', 'list_groups'] }, ['list_topics', 'list_groups']],
  disabledTools: [{ disabledTools: ['cluster_metrics', 'describe_configs'] }, ['cluster_metrics', 'describe_configs']],
  auditSinks: [{ 'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl', 'https://collector.example/audit'] }, [{
    kind: 'file',
    path: '/var/log/kafscale-mcp/audit.jsonl',
  }, { kind: 'http', url: 'https://collector.example/audit' }]],
  auditSigningKeyFile: [{ 'audit.signingKey.existingSecret': 'audit' }, content('Secret/audit', 'audit.key')],
  auditHeadFile: [{
    'audit.persistence.enabled': true,
    'audit.headFile': { enabled: true, mountPath: '/heads' },
  }, '/heads/head'],
  auditFailMode: [{ 'audit.failMode': 'open' }, 'open'],
  auditRedact: [{ 'audit.redact': ['iban', 'pin'] }, ['iban', 'pin']],
  auditCollectorBatchBytes: [{ 'audit.collector.batchBytes': 65_536 }, 65_536],
  auditCollectorHeadersFile: [
    { 'audit.collector.headers.existingSecret': 'collector' },
    content('Secret/collector', 'headers'),
  ],
  auditCollectorCaFile: [
    { 'audit.collector.tls.ca.existingConfigMap': 'collector-ca' },
    content('ConfigMap/collector-ca', 'ca.crt'),
  ],
  auditCollectorCertFile: [
    { 'audit.collector.tls.client.existingSecret': 'collector-client' },
    content('Secret/collector-client', 'tls.crt'),
  ],
  auditCollectorKeyFile: [
    { 'audit.collector.tls.client.existingSecret': 'collector-client' },
    content('Secret/collector-client', 'tls.key'),
  ],
  rateLimit: [{ 'limits.rateLimit': 601 }, 601],
  addressRateLimit: [{ 'limits.addressRateLimit': 602 }, 602],
  maxConnections: [{ 'limits.maxConnections': 5_000 }, 5_000],
  addressMaxConnections: [{ 'limits.addressMaxConnections': 0 }, 0],
  maxConcurrentCalls: [{ 'limits.maxConcurrentCalls': 0 }, 0],
  addressMaxConcurrentCalls: [{ 'limits.addressMaxConcurrentCalls': 17 }, 17],
  maxAuthFailures: [{ 'limits.maxAuthFailures': 18 }, 18],
  maxEventLoopDelayMs: [{ 'limits.maxEventLoopDelay': '2s' }, 2_000],
  maxBodyBytes: [{ 'limits.maxBodyBytes': 123_456_789 }, 123_456_789],
  requestTimeoutMs: [{ 'limits.requestTimeout': '1m30s' }, 90_000],
  keepAliveTimeoutMs: [{ 'limits.keepAliveTimeout': '75s' }, 75_000],
  responseTimeoutMs: [{ 'limits.responseTimeout': '1m' }, 60_000],
  maxUnreadBytes: [{ 'limits.maxUnreadBytes': 19 }, 19],
  totalMaxUnreadBytes: [{ 'limits.totalMaxUnreadBytes': 20 }, 20],
  logLevel: [{ logLevel: 'debug' }, 'debug'],
  telemetryAddr: [{ 'telemetry.addr': '[::]:9191' }, { host: '::', port: 9191 }],
  sessionTimeoutMs: [{ sessionTimeout: '30m' }, 1_800_000],
  changes: [{ 'changes.enabled': true }, 'enabled', 'oidc'],
  expectedClusterId: [{ 'changes.expectedClusterId': '0d5b0f2e' }, '0d5b0f2e', 'oidc'],
  kafkaBrokers: [{ 'changes.kafka.brokers': ['broker-0:9092', '[::1]:9093'] }, ['broker-0:9092', '[::1]:9093'], 'oidc'],
  kafkaClientId: [{ 'changes.kafka.clientId': 'ops:agent' }, 'ops:agent', 'oidc'],
  kafkaTls: [{ 'changes.kafka.tls.enabled': true }, 'on', 'oidc'],
  kafkaCaFile: [
    { 'changes.kafka.tls.ca.existingConfigMap': 'etcd-ca' },
    content('ConfigMap/etcd-ca', 'ca.crt'),
    'oidc',
  ],
  kafkaCertFile: [
    { 'changes.kafka.tls.client.existingSecret': 'etcd-client' },
    content('Secret/etcd-client', 'tls.crt'),
    'oidc',
  ],
  kafkaKeyFile: [
    { 'changes.kafka.tls.client.existingSecret': 'etcd-client' },
    content('Secret/etcd-client', 'tls.key'),
    'oidc',
  ],
  kafkaSaslMechanism: [{ 'changes.kafka.sasl.mechanism': 'SCRAM-SHA-512' }, 'SCRAM-SHA-512', 'oidc'],
  kafkaSaslUsername: [{ 'changes.kafka.sasl.username': 'mcp' }, 'mcp', 'oidc'],
  kafkaSaslPassword: [{ 'changes.kafka.sasl.existingSecret': 'changes' }, 'of Kafka', 'oidc'],
  brokerControlAddr: [{ 'changes.control.addr': '{host}:19094' }, '{host}:19094', 'oidc'],
  brokerControlTls: [{ 'changes.control.tls.enabled': true }, 'on', 'oidc'],
  brokerControlCaFile: [
    { 'changes.control.tls.ca.existingSecret': 'changes' },
    content('Secret/changes', 'ca.crt'),
    'oidc',
  ],
  brokerControlCertFile: [
    { 'changes.control.tls.client.existingSecret': 'etcd-client' },
    content('Secret/etcd-client', 'tls.crt'),
    'oidc',
  ],
  brokerControlKeyFile: [
    { 'changes.control.tls.client.existingSecret': 'etcd-client' },
    content('Secret/etcd-client', 'tls.key'),
    'oidc',
  ],
  changesEtcdEndpoints: [{ 'changes.ledger.endpoints': ['https://ledger'] }, ['https://ledger:2379'], 'oidc'],
  changesEtcdUsername: [{ 'changes.ledger.username': 'ledger' }, 'ledger', 'oidc'],
  changesEtcdPassword: [{ 'changes.ledger.existingSecret': 'ledger' }, 'of the ledger', 'oidc'],
  changesEtcdCaFile: [
    { 'changes.ledger.tls.ca.existingConfigMap': 'etcd-ca' },
    content('ConfigMap/etcd-ca', 'ca.crt'),
    'oidc',
  ],
  changesEtcdCertFile: [
    { 'changes.ledger.tls.client.existingSecret': 'etcd-client' },
    content('Secret/etcd-client', 'tls.crt'),
    'oidc',
  ],
  changesEtcdKeyFile: [
    { 'changes.ledger.tls.client.existingSecret': 'etcd-client' },
    content('Secret/etcd-client', 'tls.key'),
    'oidc',
  ],
  maxPartitions: [{ 'changes.maxPartitions': 64 }, 64, 'oidc'],
  changePlannedLifetimeMs: [{ 'changes.lifetimes.planned': '5m' }, 300_000, 'oidc'],
  changePendingLifetimeMs: [{ 'changes.lifetimes.pending': '72h' }, 259_200_000, 'oidc'],
  changeApprovedLifetimeMs: [{ 'changes.lifetimes.approved': '2h' }, 7_200_000, 'oidc'],
  changeRetentionMs: [{ 'changes.retention': '8760h' }, 31_536_000_000, 'oidc'],
  webhookUrl: [{ 'changes.webhook.existingSecret': 'changes' }, 'https://hooks.example/T0/x', 'oidc'],
  webhookSecret: [{ 'changes.webhook.existingSecret': 'changes' }, 'of the webhook', 'oidc'],
  sessionKey: [{ 'changes.sessionKey.existingSecret': 'changes' }, [SESSION_KEY], 'oidc'],
}

/** The values without which changes are refused. */
const CHANGES_LEAST = {
  'auth.token': '',
  'auth.oidc.issuers': ['https://id.example'],
  'policy.existingConfigMap': 'policy',
  'audit.sinks': ['https://collector.example/audit'],
  'changes.enabled': true,
  'changes.expectedClusterId': '0d5b0f2e',
  'changes.kafka.brokers': ['broker-0.kafscale.svc:9092', 'broker-1.kafscale.svc:9192'],
}
const CHANGES = values(CHANGES_LEAST)

/** The values of changes, secrets included. */
const OF_CHANGES = {
  'changes.expectedClusterId': '0d5b0f2e',
  'changes.kafka': {
    brokers: ['broker-0.kafscale.svc:9092', 'broker-1.kafscale.svc:9192'],
    tls: { enabled: true, ca: { existingConfigMap: 'etcd-ca' }, client: { existingSecret: 'etcd-client' } },
    sasl: { mechanism: 'SCRAM-SHA-512', username: 'mcp', password: 'of Kafka' },
  },
  'changes.control': { addr: '{host}:19094', tls: { enabled: true, ca: { existingConfigMap: 'etcd-ca' } } },
  'changes.ledger': {
    endpoints: ['https://ledger:2380'],
    username: 'ledger',
    password: 'of the ledger',
    tls: { ca: { existingConfigMap: 'etcd-ca' }, client: { existingSecret: 'etcd-client' } },
  },
  'changes.webhook': { url: 'https://hooks.example:8443/T0/x', secret: 'of the webhook' },
  'changes.sessionKey': { value: SESSION_KEY },
}
const EVERYTHING = {
  ...CHANGES_LEAST,
  ...OF_CHANGES,
  publicURL: 'https://mcp.example',
  environment: 'staging',
  'auth.oidc': { issuers: ['https://id.example'], clientId: 'id', existingSecret: 'client' },
}

t.test('every setting of the service can be set in the values', needsHelm(), async t => {
  const keys = Object.keys(ConfigSchema) as Key[]
  const usual = configOf(t, await render(LEAST))
  const reached = new Set<Key>()
  for (const mode of ['token', 'oidc', 'jwks'] as const) {
    const settings = keys.map(key => [key, SETTINGS[key]] as const).filter(([, [, , only = mode]]) => only === mode)
    const given = Object.assign({ 'auth.token': '' }, ...settings.map(([, [paths]]) => paths)) as Record<
      string,
      unknown
    >
    const config = configOf(t, await render(values(given)))
    for (const [key, [, expected]] of settings) {
      const isInput = key.endsWith('File') && key !== 'auditHeadFile'
      const value = isInput ? { content: readFileSync(String(config[key]), 'utf8') } : config[key]
      t.strictSame(value, expected, `${mode}: ${key}`)
      t.notSame(value, usual[key], `${key} differs from the default`)
      reached.add(key)
    }
    t.equal(config.authMode, mode)
    t.strictSame(config.warnings.filter(warning => /not a variable/.test(warning)), [])
  }
  t.strictSame([...reached].sort(), keys.sort())
})

t.test('the defaults of the values match those of the service', needsHelm(), async t => {
  const deployment = only(await render(LEAST), 'Deployment')
  const ofChanges = new Set<string>(CHANGES_SETTINGS)
  const withChanges = only(await render(CHANGES), 'Deployment')
  for (const [key, { name, ...setting }] of Object.entries(ConfigSchema)) {
    if (!('default' in setting) || ['HTTP_ADDR', 'TELEMETRY_ADDR', 'CHANGES'].includes(name)) continue
    const rendered = ofChanges.has(key) ? withChanges : deployment
    t.equal(variable(rendered, `KAFSCALE_MCP_${name}`), setting.default, name)
  }
})

t.test('without changes, nothing of them is rendered: the smallest values render as before', needsHelm(), async t => {
  const mask = (text: string) => text.replaceAll(packageJson.version, 'VERSION').replaceAll(/[0-9a-f]{64}/g, 'CHECKSUM')
  const before = readFileSync(join(ROOT, 'tests/support/fixtures/chart/least.yaml'), 'utf8')
  t.equal(mask(await renderText(LEAST)), mask(before.replaceAll('0.1.0', packageJson.version)))
  t.equal(await renderText(values({ ...OF_CHANGES, 'changes.enabled': false })), await renderText(LEAST))
})

t.test('the service reads the policy of changes from the values', needsHelm(), async t => {
  for (const changes of ['closed', [{ environments: ['dev'], mode: 'direct' }]]) {
    const bindings = [{ role: 'observer', claim: 'sub', value: 'a' }]
    const policy = { bindings, changes, protected: { topics: ['__*'] } }
    const { policyFile = '' } = configOf(t, await render(values({ policy })))
    t.strictSame(parse(readFileSync(policyFile, 'utf8')), { roles: {}, ...policy })
  }
  t.match(await refusal(values({ 'policy.changes': 'open' })), /at '\/mcp\/policy\/changes'/)
})

t.test('with everything for changes, the service starts with it', needsHelm(), async t => {
  const inline = await render(values(EVERYTHING))
  const config = configOf(t, inline)
  t.strictSame(config.warnings, [])
  t.match(config, {
    changes: 'enabled',
    environment: 'staging',
    kafkaBrokers: ['broker-0.kafscale.svc:9092', 'broker-1.kafscale.svc:9192'],
    kafkaTls: 'on',
    kafkaSaslMechanism: 'SCRAM-SHA-512',
    kafkaSaslPassword: 'of Kafka',
    brokerControlAddr: '{host}:19094',
    brokerControlTls: 'on',
    changesEtcdEndpoints: ['https://ledger:2380'],
    changesEtcdUsername: 'ledger',
    changesEtcdPassword: 'of the ledger',
    webhookUrl: 'https://hooks.example:8443/T0/x',
    webhookSecret: 'of the webhook',
    sessionKey: [SESSION_KEY],
  })
  for (const object of inline.filter(({ kind }) => kind !== 'PrometheusRule')) {
    t.strictSame(mistakes(object), [], `${object.kind} ${object.metadata.name}`)
  }
  const others = JSON.stringify(inline.filter(({ kind }) => kind !== 'Secret'))
  for (const secret of ['of Kafka', 'of the ledger', 'hooks.example', 'of the webhook', SESSION_KEY]) {
    t.notOk(others.includes(secret), `${secret} is in a Secret only`)
  }
  const ports = (objects: Manifest[]) => {
    const [rule] = only(objects, 'NetworkPolicy').spec?.['egress'] as { ports: { port: number }[] }[]
    return rule?.ports.map(({ port }) => port)
  }
  t.strictSame(ports(inline), [53, 53, 2379, 9093, 443, 9092, 9192, 19094, 2380, 8443])

  const existing = await render(values({
    ...EVERYTHING,
    'changes.kafka.sasl': { mechanism: 'PLAIN', username: 'mcp', existingSecret: 'changes' },
    'changes.ledger': { existingSecret: 'ledger' },
    'changes.webhook': { existingSecret: 'changes' },
    'changes.sessionKey': { existingSecret: 'changes' },
  }))
  t.strictSame(existing.filter(({ kind }) => kind === 'Secret'), [])
  t.match(configOf(t, existing), {
    kafkaSaslPassword: 'of Kafka',
    changesEtcdEndpoints: LEAST.etcdEndpoints,
    changesEtcdUsername: 'ledger',
    changesEtcdPassword: 'of the ledger',
    webhookUrl: 'https://hooks.example/T0/x',
    webhookSecret: 'of the webhook',
    sessionKey: [SESSION_KEY],
  })
  t.strictSame(ports(existing), [53, 53, 2379, 9093, 443, 9092, 9192, 19094])
})

/** Value sets that together render every template. */
const INSTALLATIONS: Record<string, Values> = {
  least: LEAST,
  oidc: values({
    'auth.token': '',
    'auth.oidc': { issuers: ['https://id.example'], clientId: 'id', existingSecret: 'client' },
    'test.existingSecret': 'token',
    'policy.roles': { reader: { allow: [{ operations: ['observe'], topics: ['public-*'] }] } },
    'policy.bindings': [{ role: 'reader', claim: 'groups', value: 'team' }],
    replicaCount: 3,
    'service.annotations': { a: 'b' },
    serviceAccount: { name: 'other', annotations: { role: 'arn' }, automountToken: true },
    ingress: {
      enabled: true,
      controllerNamespace: 'ingress-nginx',
      className: 'nginx',
      annotations: { 'cert-manager.io/cluster-issuer': 'letsencrypt' },
      hosts: [{ host: 'mcp.example', paths: [{ path: '/' }] }],
      tls: [{ secretName: 'mcp-tls', hosts: ['mcp.example'] }],
    },
    'audit.sinks': ['stdout', 'file:///var/log/kafscale-mcp/audit.jsonl'],
    'audit.persistence': { enabled: true, accessModes: ['ReadWriteMany'], storageClass: 'nfs', size: '20Gi' },
    'audit.headFile': { enabled: true, accessModes: ['ReadWriteMany'], storageClass: 'other-nfs', size: '1Gi' },
    'telemetry.serviceMonitor': { enabled: true, labels: { release: 'prometheus' } },
    'telemetry.prometheusRule': { enabled: true, labels: { release: 'prometheus' } },
    'telemetry.dashboards': { enabled: true, annotations: { folder: 'KafScale' } },
  }),
  jwks: values({
    'namespace.create': false,
    'auth.token': '',
    'auth.jwks': { existingSecret: 'jwks', issuer: 'kafscale-mcp' },
    tls: { existingSecret: 'tls', clientCA: { existingConfigMap: 'client-ca' } },
    service: { type: 'LoadBalancer', port: 443, loadBalancerSourceRanges: ['10.0.0.0/8'] },
    autoscaling: { enabled: true, maxReplicas: 9 },
    networkPolicy: {
      clientNamespaces: ['agents', 'kafscale'],
      metricsNamespaces: ['observability', 'observability'],
      extraIngress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8' } }], ports: [{ port: 8090 }] }],
      extraEgress: [{ ports: [{ port: 5353, protocol: 'UDP' }] }],
    },
    nodeSelector: { disk: 'ssd' },
    tolerations: [{ key: 'a', operator: 'Exists' }],
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchExpressions: [{ key: 'a', operator: 'Exists' }] }],
        },
      },
    },
    topologySpreadConstraints: [{
      maxSkew: 2,
      topologyKey: 'rack',
      whenUnsatisfiable: 'DoNotSchedule',
      labelSelector: { matchLabels: { a: 'b' } },
    }],
    priorityClassName: 'high',
    podAnnotations: { note: 'true' },
    podLabels: { team: 'kafka', 'app.kubernetes.io/component': 'no-other-than-the-selector-has' },
    extraEnv: [{ name: 'OTEL_EXPORTER_OTLP_ENDPOINT', value: 'http://collector.monitoring:4318' }],
    extraVolumes: [{ name: 'ca', configMap: { name: 'kube-root-ca.crt' } }],
    extraVolumeMounts: [{ name: 'ca', mountPath: '/etc/ca' }],
  }),
  file: values({
    'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'],
    'telemetry.addr': 'off',
    'networkPolicy.enabled': false,
    image: { tag: 'main', digest: `sha256:${'0'.repeat(64)}` },
    preStopSleepSeconds: 0,
    'serviceAccount.create': false,
  }),
}
EXISTING['Secret/jwks'] = EXISTING['ConfigMap/jwks'] ?? {}

const objectsOf: Record<string, Manifest[]> = {}
if (needsHelm().skip === false) {
  for (const [name, mcp] of Object.entries(INSTALLATIONS)) objectsOf[name] = await render(mcp)
}
const installation = (name: keyof typeof INSTALLATIONS) => objectsOf[name] as Manifest[]

/** Kinds of the Prometheus Operator, which the Kubernetes schemas do not contain. */
const OPERATORS = ['ServiceMonitor', 'PrometheusRule']

t.test('every object is valid', needsHelm(), async t => {
  const all = Object.values(objectsOf).flat()
  for (const object of all.filter(({ kind }) => !OPERATORS.includes(kind))) {
    t.strictSame(mistakes(object), [], `${object.kind} ${object.metadata.name}`)
  }
  const templates = globSync('templates/**/*.yaml', { cwd: CHART })
    .map(path => /^kind: (\w+)$/m.exec(read(path))?.[1])
  const rendered = new Set(all.map(({ kind }) => kind))
  t.strictSame([...rendered].sort(), [...new Set(templates)].sort(), 'every template is covered')

  const [deployment] = installation('least').filter(({ kind }) => kind === 'Deployment')
  const broken = structuredClone(deployment) as Manifest
  Object.assign(broken.spec?.template.spec.containers[0] ?? {}, { readinesProbe: {} })
  t.strictSame(
    mistakes(broken),
    [`Deployment ${NAME}: /spec/template/spec/containers/0/readinesProbe is unknown`],
    'the check detects a misspelled field'
  )
})

t.test('every object is in the namespace and has the labels of the release and a unique name', needsHelm(), async t => {
  for (const objects of Object.values(objectsOf)) {
    const namespaced = objects.filter(({ kind }) => kind !== 'Namespace')
    t.strictSame([...new Set(namespaced.map(({ metadata }) => metadata.namespace))], ['kafscale-mcp'])
    t.ok(
      objects.every(({ metadata: { labels } }) =>
        labels['app.kubernetes.io/instance'] === 'prod' &&
        labels['helm.sh/chart'] === `kafscale-mcp-${packageJson.version}`
      )
    )
    t.equal(new Set(objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).size, objects.length)
  }
  const long = await render(LEAST, { beside: { fullnameOverride: 'x'.repeat(80) } })
  t.ok(long.every(({ metadata: { name } }) => name.length <= 63))
  t.equal(new Set(long.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).size, long.length)
})

t.test('the pods of every installation start', needsHelm(), async t => {
  for (const [name, objects] of Object.entries(objectsOf)) {
    const { authMode } = configOf(t, objects)
    t.equal(authMode, ['oidc', 'jwks'].includes(name) ? name : 'token', name)
  }
})

t.test('pods comply with the restricted Pod Security Standard', needsHelm(), async t => {
  for (const object of Object.values(objectsOf).flat().filter(({ kind }) => kind === 'Deployment' || kind === 'Pod')) {
    const pod = (object.kind === 'Pod' ? object.spec : object.spec?.template.spec) as unknown as PodSpec
    t.match(pod, {
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 10001,
        runAsGroup: 10001,
        seccompProfile: { type: 'RuntimeDefault' },
      },
    })
    t.match(pod.containers, [{
      securityContext: {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      },
    }])
    t.notOk(pod['hostNetwork'] ?? pod['hostPID'] ?? pod['hostIPC'])
  }
  t.match(only(installation('least'), 'Namespace').metadata.labels, {
    'pod-security.kubernetes.io/enforce': 'restricted',
  })
})

t.test('no ServiceAccount token is mounted unless requested', needsHelm(), async t => {
  t.match(podOf(installation('least')), { automountServiceAccountToken: false, serviceAccountName: NAME })
  t.match(only(installation('least'), 'ServiceAccount'), { automountServiceAccountToken: false })
  t.match(podOf(installation('oidc')), { automountServiceAccountToken: true, serviceAccountName: 'other' })
  t.match(
    podOf(installation('file')),
    { automountServiceAccountToken: false, serviceAccountName: 'default' },
    'also without a ServiceAccount'
  )
})

t.test('the namespace is created only if it does not exist', needsHelm(), async t => {
  t.match(
    only(installation('least'), 'Namespace').metadata.annotations,
    { 'helm.sh/resource-policy': 'keep' },
    'it stays after an uninstall'
  )
  t.strictSame(installation('jwks').filter(({ kind }) => kind === 'Namespace'), [], 'none with namespace.create: false')
  t.strictSame(
    (await render(LEAST, { namespace: 'kafscale-mcp' })).filter(({ kind }) => kind === 'Namespace'),
    [],
    'none if it is the namespace of the release, which exists already'
  )
})

t.test('secrets', needsHelm(), async t => {
  const given = {
    'auth.token': '',
    'auth.oidc': { issuers: ['https://id.example'], clientId: 'id', clientSecret: 'of-the-client' },
    etcd: { username: 'reader', password: 'of-etcd' },
  }
  t.test('are in a Secret only', async t => {
    for (const [mcp, secrets] of [[LEAST, [TOKEN]], [values(given), ['of-the-client', 'of-etcd']]] as const) {
      const objects = await render(mcp)
      const { data = {} } = only(objects, 'Secret')
      t.strictSame(
        Object.values(data).map(value => Buffer.from(value, 'base64').toString()).sort(),
        [...secrets].sort()
      )
      const others = JSON.stringify(objects.filter(({ kind }) => kind !== 'Secret'))
      t.strictSame([...secrets, ...Object.values(data)].filter(secret => others.includes(secret)), [])
    }
  })

  t.test('in existing Secrets are mounted, and no Secret is rendered', async t => {
    const objects = await render(
      values({ auth: { existingSecret: 'mine', existingSecretKey: 'bearer' }, etcd: { existingSecret: 'etcd' } })
    )
    t.strictSame(objects.filter(({ kind }) => kind === 'Secret'), [])
    t.strictSame(
      podOf(objects).containers[0].env.filter(({ name, value }) =>
        /AUTH_TOKEN|PASSWORD/.test(name) && !value?.startsWith('/etc/kafscale-mcp/')
      ),
      []
    )
    const config = configOf(t, objects, { ...EXISTING, 'Secret/mine': { bearer: `${TOKEN}\n` } })
    t.match(config, { authToken: TOKEN, etcdUsername: 'reader', etcdPassword: 'of etcd' })
  })

  t.test('are mounted read-only', async t => {
    t.match(podOf(installation('least')).containers[0].volumeMounts, [{
      name: 'files',
      mountPath: '/etc/kafscale-mcp',
      readOnly: true,
    }])
    t.match(podOf(installation('least')).volumes, [{ name: 'files', projected: { defaultMode: 0o440 } }])
  })

  t.test('with quotes, dollar signs and braces arrive unchanged', async t => {
    const token = '"\'$(HOME)$$`{{.Values}}\\n#:%s-and-some-more'
    t.equal(configOf(t, await render(values({ 'auth.token': token }))).authToken, token)
  })

  t.test('are refused if they contain a newline or are too short', async t => {
    for (const token of [`${TOKEN}\n`, `${TOKEN}\nmore`, `${TOKEN} more`, `${TOKEN}é`, TOKEN.slice(0, 31)]) {
      const refused = await refusal(values({ 'auth.token': token }))
      t.match(refused, /mcp\.auth\.token is invalid: set at least 32 visible ASCII characters/)
      t.notOk(refused.includes(token.slice(0, 31)), 'the message does not contain the token')
    }
  })
})

t.test('text with special characters arrives unchanged', needsHelm(), async t => {
  const odd = '"\' yes: {{ .Release.Name }} # $(HOME) $$ \\n é & <b> %d'
  const lines = `${odd}\n- ${odd}`
  const config = configOf(
    t,
    await render(values({
      'auth.token': '',
      'auth.oidc': { issuers: ['https://id.example'], audience: odd, clientId: odd, clientSecret: lines },
      etcd: { username: lines, password: lines },
      environment: odd,
    }))
  )
  t.match(config, {
    oidcAudience: [odd],
    oidcClientId: odd,
    oidcClientSecret: lines,
    etcdUsername: lines,
    etcdPassword: lines,
    environment: odd,
  })
  t.equal(
    configOf(t, await render(values({ 'auth.token': '', 'auth.jwks': { existingConfigMap: 'jwks', issuer: 'no' } })))
      .authJwksIssuer,
    'no'
  )
  const objects = await render(
    values({
      podAnnotations: { odd, lines, boolean: 'yes', number: '0123' },
      'service.annotations': { lines },
      extraEnv: [{ name: 'ODD', value: lines }],
    })
  )
  t.match(only(objects, 'Deployment').spec?.template.metadata.annotations, {
    odd,
    lines,
    boolean: 'yes',
    number: '0123',
  })
  t.match(only(objects, 'Service', NAME).metadata.annotations, { lines })
  t.equal(variable(only(objects, 'Deployment'), 'ODD'), lines)
})

t.test('settings with several values are lists or text', needsHelm(), async t => {
  const oidc = { issuers: ['https://id.example'] }
  const urls = ['auto', 'http://b-{node_id}.example:9094/metrics']
  const scopes = ['api://app/observe', 'offline_access']
  for (
    const [brokerMetricsURL, audience, advertisedScope] of [[urls, ['a', 'b'], scopes], [
      urls.join(', '),
      'a,b',
      scopes.join(' '),
    ]]
  ) {
    const objects = await render(values({
      auth: { token: '', oidc: { ...oidc, audience, advertisedScope } },
      metrics: { brokerMetricsURL },
    }))
    t.match(configOf(t, objects), {
      brokerMetricsUrl: ['http://{host}:9093/metrics', urls[1]],
      oidcAudience: ['a', 'b'],
      oidcAdvertisedScope: scopes,
    })
    const [rule] = only(objects, 'NetworkPolicy').spec?.['egress'] as { ports: { port: number }[] }[]
    t.strictSame(rule?.ports.map(({ port }) => port), [53, 53, 2379, 9093, 9094, 443])
  }
})

t.test('the service reads the policy of the values', needsHelm(), async t => {
  const policy = {
    roles: {
      'orders-reader': {
        allow: [{ operations: ['observe'], topics: ['orders*', 'yes'] }],
        deny: [{ topics: ['orders-secret'] }],
      },
    },
    bindings: [{ role: 'orders-reader', claim: 'groups', value: '"on": # x' }],
  }
  const objects = await render(values({ policy }))
  const { policyFile = '' } = configOf(t, objects)
  t.strictSame(parsePolicy(readFileSync(policyFile, 'utf8'), []), parsePolicy(JSON.stringify(policy), []))
  t.strictSame(
    podOf(installation('least')).volumes?.[0]?.projected?.sources.filter(({ configMap }) => configMap),
    [],
    'no policy is mounted without one'
  )
})

t.test('a changed secret or policy in the values restarts the pods', needsHelm(), async t => {
  const annotations = async (paths: Record<string, unknown>) =>
    only(await render(values(paths)), 'Deployment').spec?.template.metadata.annotations ?? {}
  const usual = await annotations({})
  const secret = await annotations({ 'auth.token': 'x'.repeat(32) })
  t.not(secret['checksum/secret'], usual['checksum/secret'])
  t.equal(secret['checksum/policy'], usual['checksum/policy'])
  const policy = await annotations({ 'policy.bindings': [{ role: 'observer', claim: 'sub', value: 'alice' }] })
  t.not(policy['checksum/policy'], usual['checksum/policy'])
  t.strictSame(await annotations({ replicaCount: 2 }), usual, 'other changes do not affect the checksums')
})

t.test('values that would be unauthenticated, unsafe or not start are refused', needsHelm(), async t => {
  const oidc = { 'auth.token': '', 'auth.oidc.issuers': ['https://id.example'] }
  const ingress = (more: object = {}) => ({ ingress: { enabled: true, controllerNamespace: 'ingress', ...more } })
  const monitored = { 'telemetry.serviceMonitor.enabled': true }
  const wildcard = {
    controllerNamespace: '',
    hosts: [{ host: 'a.example', paths: [{ path: '/' }] }],
    tls: [{ secretName: 'tls', hosts: ['*.example'] }],
  }
  const persistence = { 'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'], 'audit.persistence.enabled': true }
  const heads = { 'audit.headFile.enabled': true }
  const refused: [what: string, values: Record<string, unknown>, message: RegExp][] = [
    ['no endpoints', { etcdEndpoints: [] }, /mcp\.etcdEndpoints is empty: set etcd's client URLs, such as/],
    [
      'no authentication',
      { 'auth.token': '' },
      /no authentication is configured: set mcp\.auth\.oidc\.issuers .* mcp\.auth\.token/,
    ],
    [
      'two authentication modes',
      { 'auth.oidc.issuers': ['https://id.example'] },
      /mcp\.auth configures more than one mode, oidc and token: keep the settings of one/,
    ],
    [
      'a static token next to another mode, even if static tokens are allowed',
      { ...oidc, 'auth.existingSecret': 'token', 'auth.allowStaticToken': true },
      /more than one mode, oidc and token: .* is refused, whatever mcp\.auth\.allowStaticToken is/,
    ],
    [
      'a file with a static token that the chart does not mount',
      { ...oidc, extraEnv: [{ name: 'KAFSCALE_MCP_AUTH_TOKEN_FILE', value: '/secrets/token' }] },
      /mcp\.extraEnv sets the secret KAFSCALE_MCP_AUTH_TOKEN_FILE: set it in mcp\.auth/,
    ],
    [
      'two static tokens',
      { 'auth.existingSecret': 'token' },
      /mcp\.auth\.token and mcp\.auth\.existingSecret are both set/,
    ],
    [
      'a mode that does not match the settings',
      { 'auth.mode': 'oidc' },
      /mcp\.auth\.mode is oidc, but the other settings in mcp\.auth are for token/,
    ],
    [
      'a static token that is not allowed',
      { 'auth.allowStaticToken': false },
      /allowStaticToken is false, but a static token is set: .* set mcp\.auth\.oidc or mcp\.auth\.jwks/,
    ],
    [
      'a static token in an existing Secret that is not allowed',
      { auth: { existingSecret: 'token', allowStaticToken: false } },
      /allowStaticToken is false, but a static token is set/,
    ],
    [
      'keys without an issuer',
      { 'auth.token': '', 'auth.jwks.existingConfigMap': 'jwks' },
      /mcp\.auth\.jwks is incomplete: set mcp\.auth\.jwks\.issuer together with/,
    ],
    [
      'a client without its secret',
      { ...oidc, 'auth.oidc.clientId': 'id' },
      /mcp\.auth\.oidc is incomplete: set mcp\.auth\.oidc\.clientId together with/,
    ],
    [
      'a client without an identity provider',
      { 'auth.oidc': { clientId: 'id', existingSecret: 'client' } },
      /mcp\.auth\.oidc\.issuers is empty: set the identity provider/,
    ],
    [
      'a user without a password',
      { 'etcd.username': 'reader' },
      /only one of mcp\.etcd\.username and mcp\.etcd\.password is set/,
    ],
    [
      'two etcd passwords',
      { etcd: { existingSecret: 'etcd', password: 'x' } },
      /mcp\.etcd\.password and mcp\.etcd\.existingSecret are both set/,
    ],
    [
      'TLS files for etcd without TLS',
      { 'etcd.tls.ca.existingConfigMap': 'ca' },
      /mcp\.etcd\.tls is set, but no URL in mcp\.etcdEndpoints is https/,
    ],
    [
      'a client CA without TLS',
      { 'tls.clientCA.existingConfigMap': 'ca' },
      /mcp\.tls\.clientCA is set, but mcp\.tls\.existingSecret is not/,
    ],
    ['a file with two sources', {
      tls: { existingSecret: 'tls', clientCA: { existingConfigMap: 'ca', existingSecret: 'ca' } },
    }, /clientCA\.existingConfigMap and mcp\.tls\.clientCA\.existingSecret are both set/],
    ['two policies', {
      policy: { existingConfigMap: 'policy', bindings: [{ role: 'observer', claim: 'sub', value: 'a' }] },
    }, /mcp\.policy\.existingConfigMap is set together with other values of mcp\.policy/],
    [
      'a loopback address',
      { httpAddr: '127.0.0.1:8090' },
      /mcp\.httpAddr is 127\.0\.0\.1:8090, which only the pod itself can reach/,
    ],
    [
      'an ingress that does not route the public URL',
      {
        ...ingress({
          hosts: [{ host: 'mcp.example', paths: [{ path: '/kafscale' }] }],
          tls: [{ secretName: 'tls', hosts: ['mcp.example'] }],
        }),
        publicURL: 'https://mcp.example',
      },
      /mcp\.publicURL is https:\/\/mcp\.example, but no path of mcp\.example in mcp\.ingress\.hosts routes \/mcp: /,
    ],
    [
      'an ingress without TLS',
      ingress(),
      /mcp\.local in mcp\.ingress\.hosts has no TLS, so tokens would cross the network in clear text/,
    ],
    [
      'an ingress whose load balancer terminates TLS, which nothing says',
      ingress(),
      /terminates TLS .*, set mcp\.ingress\.tls to \[\{hosts: \[mcp\.local\]\}\], .* and mcp\.publicURL to/,
    ],
    [
      'an ingress without TLS, allowed by ingress.allowPlainHTTP only',
      ingress({ allowPlainHTTP: true }),
      /To accept clear text, set both mcp\.ingress\.allowPlainHTTP and mcp\.auth\.allowTokensInClear/,
    ],
    [
      'an ingress without TLS, allowed by auth.allowTokensInClear only',
      { ...ingress(), 'auth.allowTokensInClear': true },
      /set both/,
    ],
    [
      'an ingress with TLS for another host',
      ingress({
        hosts: [{ host: 'a.example', paths: [{ path: '/' }] }],
        tls: [{ secretName: 'tls', hosts: ['b.example'] }],
      }),
      /a\.example in mcp\.ingress\.hosts has no TLS/,
    ],
    [
      "an ingress without its controller's namespace",
      ingress(wildcard),
      /mcp\.ingress\.controllerNamespace is empty, .* set the namespace of the controller's pods, such as /,
    ],
    [
      'an ingress with the namespaces of other clients only',
      { ...ingress(wildcard), 'networkPolicy.clientNamespaces': ['agents'] },
      /mcp\.ingress\.controllerNamespace is empty/,
    ],
    [
      'a ServiceMonitor that the NetworkPolicy keeps out',
      { ...monitored, 'networkPolicy.metricsNamespaces': [] },
      /mcp\.networkPolicy\.metricsNamespaces is empty, .* set Prometheus's namespace, such as monitoring/,
    ],
    [
      'a load balancer without TLS',
      { 'service.type': 'LoadBalancer' },
      /mcp\.service\.type is LoadBalancer without TLS.* If the load balancer terminates TLS, set mcp\.publicURL to its/,
    ],
    [
      'two replicas with a ReadWriteOnce volume',
      { ...persistence, replicaCount: 2 },
      /more than one replica, but only one can mount the volume: add ReadWriteMany/,
    ],
    [
      'autoscaling with a ReadWriteOnce volume',
      { ...persistence, 'autoscaling.enabled': true },
      /more than one replica, but only one can mount the volume/,
    ],
    [
      'two replicas with an existing claim',
      { ...persistence, 'audit.persistence.existingClaim': 'audit', replicaCount: 2 },
      /more than one replica, but only one can mount the volume/,
    ],
    [
      'headers for collectors without a collector',
      { 'audit.collector.headers.existingSecret': 'collector' },
      /mcp\.audit\.sinks has no URL: add the collector's URL/,
    ],
    [
      'TLS for collectors without an https collector',
      { 'audit.sinks': ['http://collector/audit'], 'audit.collector.tls.client.existingSecret': 'collector-client' },
      /no URL in mcp\.audit\.sinks is https: use https URLs/,
    ],
    [
      'persistence without an audit file',
      { 'audit.persistence.enabled': true },
      /mcp\.audit\.sinks has no file: add one, such as file:\/var\/log\/kafscale-mcp\/audit\.jsonl/,
    ],
    [
      'an audit file outside of the volume',
      { 'audit.sinks': ['file:/audit.jsonl'] },
      /the root file system is read-only: use a path below mcp\.audit\.mountPath/,
    ],
    [
      'an audit file outside of the volume, through ..',
      { 'audit.sinks': ['file:/var/log/kafscale-mcp/../audit.jsonl'] },
      /the root file system is read-only/,
    ],
    [
      'an audit file with a relative path',
      { 'audit.sinks': ['file:audit.jsonl'] },
      /the root file system is read-only/,
    ],
    [
      'a head file without an audit file',
      { 'audit.headFile.enabled': true },
      /mcp\.audit\.sinks contains 0 files: set exactly one, such as file:\/var\/log\/kafscale-mcp\/audit\.jsonl/,
    ],
    [
      'a head file for two audit files',
      { ...persistence, ...heads, 'audit.sinks': ['file:/var/log/kafscale-mcp/a', 'file:/var/log/kafscale-mcp/b'] },
      /mcp\.audit\.sinks contains 2 files: set exactly one/,
    ],
    [
      'a head file that outlives the log',
      { ...persistence, ...heads, 'audit.persistence.enabled': false },
      /would outlive the log, .*: set mcp\.audit\.persistence\.enabled to true/,
    ],
    [
      'a ReadWriteOnce head file for two replicas',
      { ...persistence, ...heads, 'audit.persistence.accessModes': ['ReadWriteMany'], replicaCount: 2 },
      /add ReadWriteMany to mcp\.audit\.headFile\.accessModes, or run one replica/,
    ],
    [
      'a head file on the claim of the audit files',
      {
        ...persistence,
        ...heads,
        'audit.persistence.existingClaim': 'audit',
        'audit.headFile.existingClaim': 'audit',
      },
      /mcp\.audit\.headFile\.existingClaim is the claim of the audit files/,
    ],
    [
      'a head file below the audit files',
      { ...persistence, ...heads, 'audit.headFile.mountPath': '/var/log/kafscale-mcp/head' },
      /mcp\.audit\.headFile\.mountPath .* overlap: set two separate paths/,
    ],
    [
      'a secret in extraEnv',
      { extraEnv: [{ name: 'KAFSCALE_MCP_ETCD_PASSWORD', value: 'secret' }] },
      /mcp\.extraEnv sets the secret KAFSCALE_MCP_ETCD_PASSWORD: set it in mcp\.auth or mcp\.etcd/,
    ],
    [
      'a ServiceMonitor without metrics',
      { telemetry: { addr: 'off', serviceMonitor: { enabled: true } } },
      /mcp\.telemetry\.addr is off, which Prometheus cannot reach: set an address/,
    ],
    [
      'minReplicas above maxReplicas',
      { autoscaling: { enabled: true, minReplicas: 3, maxReplicas: 2 } },
      /mcp\.autoscaling\.minReplicas is greater than mcp\.autoscaling\.maxReplicas/,
    ],
  ]
  for (const [what, paths, message] of refused) t.match(await refusal(values(paths)), message, what)
  const allowed: [what: string, values: Record<string, unknown>][] = [
    [
      'an ingress without TLS, allowed by both values',
      { ...ingress({ allowPlainHTTP: true }), 'auth.allowTokensInClear': true },
    ],
    [
      'an ingress with a wildcard certificate',
      ingress({
        hosts: [{ host: 'a.example', paths: [{ path: '/' }] }],
        tls: [{ secretName: 'tls', hosts: ['*.example'] }],
      }),
    ],
    ['an ingress whose load balancer terminates TLS', {
      ...ingress({ tls: [{ hosts: ['mcp.local'] }] }),
      publicURL: 'https://mcp.local',
    }],
    ['a load balancer without TLS, allowed by both values', {
      service: { type: 'LoadBalancer', allowPlainHTTP: true },
      'auth.allowTokensInClear': true,
    }],
    ["an ingress without its controller's namespace, but without a NetworkPolicy", {
      ...ingress(wildcard),
      'networkPolicy.enabled': false,
    }],
    ['an ingress whose controller is no pod', {
      ...ingress(wildcard),
      'networkPolicy.extraIngress': [{ from: [{ ipBlock: { cidr: '130.211.0.0/22' } }] }],
    }],
    ['a ServiceMonitor without a NetworkPolicy', {
      ...monitored,
      networkPolicy: { enabled: false, metricsNamespaces: [] },
    }],
    ['one replica with a ReadWriteOnce volume', persistence],
    ['oidc where static tokens are not allowed', { ...oidc, 'auth.allowStaticToken': false }],
    ['an audit file on an extra volume', {
      'audit.sinks': ['file:/data/audit.jsonl'],
      extraVolumes: [{ name: 'data', emptyDir: {} }],
      extraVolumeMounts: [{ name: 'data', mountPath: '/data/' }],
    }],
  ]
  for (const [what, paths] of allowed) t.doesNotThrow(configOf.bind(null, t, await render(values(paths))), what)
})

t.test('values.schema.json refuses unknown and invalid values', needsHelm(), async t => {
  const wrong: [values: Record<string, unknown>, where: string][] = [
    [{ unknown: 1 }, '/mcp'],
    [{ 'auth.tokens': 'x' }, '/mcp/auth'],
    [{ 'etcd.tls.ca.secret': 'x' }, '/mcp/etcd/tls/ca'],
    [{ 'ingress.host': 'mcp.example' }, '/mcp/ingress'],
    [{ enabled: 'true' }, '/mcp/enabled'],
    [{ etcdEndpoints: 'http://etcd:2379' }, '/mcp/etcdEndpoints'],
    [{ etcdEndpoints: ['http://a:2379,http://b:2379'] }, '/mcp/etcdEndpoints/0'],
    [{ etcdEndpoints: ['http://user:password@etcd:2379'] }, '/mcp/etcdEndpoints/0'],
    [{ etcdEndpoints: ['etcd:2379/path'] }, '/mcp/etcdEndpoints/0'],
    [{ 'auth.token': 12345678 }, '/mcp/auth/token'],
    [{ 'auth.mode': 'none' }, '/mcp/auth/mode'],
    [{ 'auth.oidc.issuers': 'https://id.example' }, '/mcp/auth/oidc/issuers'],
    [{ 'auth.oidc.issuers': ['http://id.example'] }, '/mcp/auth/oidc/issuers/0'],
    [{ 'auth.existingSecret': 'My Secret' }, '/mcp/auth/existingSecret'],
    [{ 'metrics.brokerMetricsURL': ['automatic'] }, '/mcp/metrics/brokerMetricsURL/0'],
    [{ 'metrics.brokerMetricsURL': 'kafscale-broker:9093' }, '/mcp/metrics/brokerMetricsURL'],
    [{ maxStaleness: 300 }, '/mcp/maxStaleness'],
    [{ verifyInterval: '10 minutes' }, '/mcp/verifyInterval'],
    [{ httpAddr: 8090 }, '/mcp/httpAddr'],
    [{ httpAddr: '8090' }, '/mcp/httpAddr'],
    [{ publicURL: 'mcp.example' }, '/mcp/publicURL'],
    [{ allowedHosts: ['https://mcp.example'] }, '/mcp/allowedHosts/0'],
    [{ allowedOrigins: ['app.example'] }, '/mcp/allowedOrigins/0'],
    [{ allowedOrigins: ['https://*.app.example'] }, '/mcp/allowedOrigins/0'],
    [{ trustedProxies: ['proxy.example'] }, '/mcp/trustedProxies/0'],
    [{ 'proxy.httpsProxy': 'http://user:password@proxy.example:3128' }, '/mcp/proxy/httpsProxy'],
    [{ 'proxy.noProxy': '.svc' }, '/mcp/proxy/noProxy'],
    [{ 'policy.bindings': [{ role: 'observer' }] }, '/mcp/policy/bindings/0'],
    [{ tools: 'list_topics' }, '/mcp/tools'],
    [{ 'audit.sinks': ['none'] }, '/mcp/audit/sinks/0'],
    [{ 'audit.sinks': [] }, '/mcp/audit/sinks'],
    [{ 'audit.failMode': 'closed!' }, '/mcp/audit/failMode'],
    [{ 'audit.persistence.size': '10 GB' }, '/mcp/audit/persistence/size'],
    [{ 'audit.persistence.accessModes': ['ReadOnlyMany'] }, '/mcp/audit/persistence/accessModes/0'],
    [{ 'limits.rateLimit': '600' }, '/mcp/limits/rateLimit'],
    [{ 'limits.maxBodyBytes': 0 }, '/mcp/limits/maxBodyBytes'],
    [{ 'limits.maxConcurrentCalls': -1 }, '/mcp/limits/maxConcurrentCalls'],
    [{ logLevel: 'verbose' }, '/mcp/logLevel'],
    [{ 'telemetry.addr': '9090' }, '/mcp/telemetry/addr'],
    [{ 'service.type': 'ExternalName' }, '/mcp/service/type'],
    [{ 'service.port': 0 }, '/mcp/service/port'],
    [{ 'ingress.hosts': ['mcp.example'] }, '/mcp/ingress/hosts/0'],
    [{ 'ingress.tls': 'mcp-tls' }, '/mcp/ingress/tls'],
    [{ replicaCount: 1.5 }, '/mcp/replicaCount'],
    [{ 'image.tag': 1.2 }, '/mcp/image/tag'],
    [{ 'image.digest': 'abc' }, '/mcp/image/digest'],
    [{ podAnnotations: { a: true } }, '/mcp/podAnnotations/a'],
    [{ extraEnv: { A: 'b' } }, '/mcp/extraEnv'],
    [{ 'namespace.name': '' }, '/mcp/namespace/name'],
    [{ tls: null }, '/mcp'],
  ]
  for (const [paths, where] of wrong) {
    const message = await refusal(values(paths))
    t.match(message, /values don't meet the specifications of the schema/, JSON.stringify(paths))
    t.ok(message.includes(`- at '${where}'`), `the message names ${where}`)
  }
})

t.test('the schema has exactly the keys of values.yaml', async t => {
  interface Schema {
    properties?: Record<string, Schema>
    additionalProperties?: boolean
  }
  const keysOf = (schema: Schema, value: unknown, path: string): string[] => {
    if (!schema.properties) return []
    if (path !== '') t.equal(schema.additionalProperties, false, `${path} allows no other keys`)
    t.strictSame(Object.keys(schema.properties).sort(), Object.keys(value as object).sort(), path || 'the root')
    return Object.entries(schema.properties).flatMap((
      [key, schema]
    ) => [key, ...keysOf(schema, (value as Values)[key], `${path}/${key}`)])
  }
  t.ok(keysOf(JSON.parse(read('values.schema.json')) as Schema, parse(read('values.yaml')), '').length > 100)
})

t.test('the NetworkPolicy', needsHelm(), async t => {
  interface Peer {
    namespaceSelector?: { matchExpressions?: { key: string, operator: string, values: string[] }[] }
    podSelector?: object
    ipBlock?: object
  }
  interface Rule {
    from?: Peer[]
    ports: { port: number, protocol?: string }[]
  }
  const policyOf = (objects: Manifest[]) =>
    only(objects, 'NetworkPolicy').spec as unknown as {
      podSelector: object
      policyTypes: string[]
      ingress: Rule[]
      egress: Rule[]
    }
  const outTo = async (paths: Record<string, unknown>) =>
    policyOf(await render(values(paths))).egress.flatMap(({ ports }) =>
      ports.filter(({ port }) => port !== 53).map(({ port }) => port)
    )

  t.test('is rendered unless disabled', async t => {
    const { podSelector, policyTypes } = policyOf(installation('least'))
    t.strictSame(policyTypes, ['Ingress', 'Egress'])
    t.strictSame(podSelector, only(installation('least'), 'Deployment').spec?.['selector'])
    t.strictSame(installation('file').filter(({ kind }) => kind === 'NetworkPolicy'), [])
  })

  /** Whether the policy admits the pods of a namespace at a port. */
  const admits = (objects: Manifest[], namespace: string, port: number): boolean =>
    policyOf(objects).ingress.some(({ from, ports }) =>
      ports.some(admitted => admitted.port === port) &&
      // Without a peer, a rule admits everyone.
      (!from?.length || from.some(peer => selects(peer, namespace)))
    )
  const selects = ({ namespaceSelector, podSelector, ipBlock }: Peer, namespace: string): boolean => {
    t.equal(podSelector, undefined, 'every pod of an admitted namespace is admitted')
    if (ipBlock) return false
    return namespaceSelector?.matchExpressions?.every(({ key, operator, values }) =>
      key === 'kubernetes.io/metadata.name' && operator === 'In' && values.includes(namespace)
    ) ?? true
  }
  const admitted = (objects: Manifest[], port: number) =>
    ['kafscale-mcp', 'kafscale', 'agents', 'ingress-nginx', 'monitoring', 'observability', 'default', 'kube-system']
      .filter(namespace => admits(objects, namespace, port))

  t.test("admits calls from the release's and its own namespace and from those that are named only", async t => {
    t.strictSame(admitted(installation('least'), 8090), ['kafscale-mcp', 'kafscale'])
    t.strictSame(admitted(await render(LEAST, { namespace: 'kafscale-mcp' }), 8090), ['kafscale-mcp'])
    t.strictSame(admitted(installation('jwks'), 8090), ['kafscale-mcp', 'kafscale', 'agents'])
    t.strictSame(admitted(installation('oidc'), 8090), ['kafscale-mcp', 'kafscale', 'ingress-nginx'])
    t.match(policyOf(installation('jwks')).ingress[2], { from: [{ ipBlock: { cidr: '10.0.0.0/8' } }] })
    const unused = await render(values({ 'ingress.controllerNamespace': 'ingress-nginx' }))
    t.strictSame(admitted(unused, 8090), ['kafscale-mcp', 'kafscale'], 'no controller without an Ingress')
  })

  t.test('admits scrapes from the namespaces for monitoring only', async t => {
    t.strictSame(admitted(installation('least'), 9090), ['monitoring'])
    t.strictSame(admitted(installation('jwks'), 9090), ['observability'])
    for (const metricsNamespaces of [[], ['']]) {
      t.strictSame(admitted(await render(values({ networkPolicy: { metricsNamespaces } })), 9090), [])
    }
    t.strictSame(admitted(await render(values({ 'telemetry.addr': 'off' })), 9090), [])
  })

  t.test('admits whom the values in docs/upgrade.md name', async t => {
    const { mcp } = parse(readPage('upgrade.md').block('yaml chart')) as { mcp: Values }
    const objects = await render({ ...LEAST, ...mcp })
    t.strictSame(admitted(objects, 8090), ['kafscale-mcp', 'kafscale', 'agents', 'ingress-nginx'])
    t.strictSame(admitted(objects, 9090), ['observability'])
    const { controllerNamespace, ...ingress } = mcp['ingress'] as Values
    t.match(await refusal({ ...LEAST, ...mcp, ingress }), /mcp\.ingress\.controllerNamespace is empty/)
  })

  t.test('admits the pod of helm test, and does not apply to it', async t => {
    for (const objects of [installation('least'), installation('oidc')]) {
      const { metadata } = only(objects, 'Pod')
      t.ok(admits(objects, metadata.namespace ?? '', 8090))
      t.notMatch(metadata.labels, (policyOf(objects).podSelector as { matchLabels: object }).matchLabels)
    }
  })

  t.test('allows DNS and the ports of the configured URLs', async t => {
    t.match(policyOf(installation('least')).egress, [{
      ports: [{ port: 53, protocol: 'UDP' }, { port: 53, protocol: 'TCP' }, { port: 2379, protocol: 'TCP' }, {
        port: 9093,
        protocol: 'TCP',
      }],
    }])
    t.strictSame(
      await outTo({
        etcdEndpoints: ['etcd', 'https://[fd00::1]:2381/'],
        'metrics.brokerMetricsURL': 'auto, http://{host}/metrics, https://b/metrics',
      }),
      [2379, 2381, 9093, 80, 443]
    )
    t.strictSame(
      await outTo({
        'metrics.brokerMetricsURL': '',
        auth: { token: '', oidc: { issuers: ['https://id.example/realms/main', 'https://id.example:8443'] } },
        'audit.sinks': ['stdout', 'file:/var/log/kafscale-mcp/a.jsonl', 'http://collector:9880/audit?tag=a:1'],
        extraEnv: [{ name: 'OTEL_EXPORTER_OTLP_ENDPOINT', value: 'http://otel:4318' }, {
          name: 'OTHER',
          value: 'http://other:1',
        }],
      }),
      [2379, 443, 8443, 9880, 4318]
    )
    t.strictSame(
      await outTo({
        'metrics.brokerMetricsURL': '',
        'proxy.httpsProxy': 'http://proxy.example:3128',
        'proxy.httpProxy': 'https://proxy.example',
        extraEnv: [{ name: 'https_proxy', value: 'proxy.example:3129' }],
      }),
      [2379, 3128, 443, 3129]
    )
    t.match(policyOf(installation('jwks')).egress.at(-1), { ports: [{ port: 5353 }] })
  })
})

t.test('every container has a memory limit', needsHelm(), async t => {
  const MEBIBYTE = 2 ** 20
  const mebibytes = (quantity?: string) => {
    const [, number, unit] = /^(\d+)([MG])i$/.exec(quantity ?? '') ?? []
    return Number(number) * (unit === 'G' ? 1_024 : 1)
  }
  for (const object of Object.values(objectsOf).flat().filter(({ kind }) => kind === 'Deployment' || kind === 'Pod')) {
    const pod = (object.kind === 'Pod' ? object.spec : object.spec?.template.spec) as unknown as PodSpec
    for (const { resources: { requests, limits } = {} } of pod.containers) {
      t.ok(mebibytes(requests?.['memory']) <= mebibytes(limits?.['memory']), `${object.kind} ${object.metadata.name}`)
    }
  }
  const limitOf = async (resources: Values | undefined) =>
    podOf(await render(values({ resources }))).containers[0].resources?.limits?.['memory']
  const PEAK_BYTES = 330e6
  t.ok(mebibytes(await limitOf({})) * MEBIBYTE > 1.5 * PEAK_BYTES, 'it exceeds the measured peak by half')
  t.equal(await limitOf({ limits: { memory: '2Gi' } }), '2Gi')
  t.equal(await limitOf({ limits: { memory: null } }), undefined, 'it can be removed')
})

t.test('several replicas', needsHelm(), async t => {
  const deploymentOf = (objects: Manifest[]) => only(objects, 'Deployment').spec
  t.test('have a PodDisruptionBudget, are spread, and are replaced one by one', async t => {
    t.match(only(installation('oidc'), 'PodDisruptionBudget').spec, {
      maxUnavailable: 1,
      selector: deploymentOf(installation('oidc'))?.['selector'],
    })
    t.match(deploymentOf(installation('oidc')), {
      replicas: 3,
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
    })
    t.match(
      podOf(installation('oidc'))['topologySpreadConstraints'],
      ['topology.kubernetes.io/zone', 'kubernetes.io/hostname'].map(topologyKey => ({
        topologyKey,
        whenUnsatisfiable: 'ScheduleAnyway',
        labelSelector: deploymentOf(installation('oidc'))?.['selector'],
      }))
    )
    t.match(podOf(installation('jwks'))['topologySpreadConstraints'], [{ topologyKey: 'rack' }])
    t.strictSame(
      installation('least').filter(({ kind }) => kind === 'PodDisruptionBudget'),
      [],
      'a single replica has no budget, so that its node can be drained'
    )
    const budget = only(
      await render(values({ replicaCount: 2, 'podDisruptionBudget.maxUnavailable': '50%' })),
      'PodDisruptionBudget'
    )
    t.match(budget.spec, { maxUnavailable: '50%' })
    t.strictSame(mistakes(budget), [])
  })

  t.test('scale with the load', async t => {
    t.match(only(installation('jwks'), 'HorizontalPodAutoscaler').spec, {
      scaleTargetRef: { kind: 'Deployment', name: NAME },
      minReplicas: 2,
      maxReplicas: 9,
      metrics: [{ resource: { name: 'cpu', target: { averageUtilization: 80 } } }],
    })
    t.notOk('replicas' in (deploymentOf(installation('jwks')) ?? {}), 'the Deployment then sets no replicas')
    t.equal(installation('jwks').filter(({ kind }) => kind === 'PodDisruptionBudget').length, 1)
  })
})

t.test('selectors match the labels of the pods', needsHelm(), async t => {
  for (const objects of Object.values(objectsOf)) {
    const { spec } = only(objects, 'Deployment')
    const { labels } = spec?.template.metadata ?? {}
    t.match(labels, (spec?.['selector'] as { matchLabels: object }).matchLabels)
    for (const { spec } of objects.filter(({ kind }) => kind === 'Service')) t.match(labels, spec?.['selector'])
  }
  t.match(only(installation('jwks'), 'Deployment').spec?.template.metadata.labels, {
    team: 'kafka',
    'app.kubernetes.io/component': 'mcp',
  })
})

t.test('audit files are on a volume', needsHelm(), async t => {
  const sinks = { 'audit.sinks': ['stdout', 'file:/var/log/kafscale-mcp/audit.jsonl'] }
  const auditOf = (objects: Manifest[]) => {
    const { volumes, containers: [{ volumeMounts }] } = podOf(objects)
    return {
      volume: volumes?.find(({ name }) => name === 'audit'),
      mount: volumeMounts?.find(({ name }) => name === 'audit'),
    }
  }
  t.strictSame(
    auditOf(installation('least')),
    { volume: undefined, mount: undefined },
    'no volume without an audit file'
  )
  t.strictSame(auditOf(installation('file')), {
    volume: { name: 'audit', emptyDir: {} },
    mount: { name: 'audit', mountPath: '/var/log/kafscale-mcp' },
  })
  t.match(await notes(t, values(sinks)), /WARNING: Audit files in \/var\/log\/kafscale-mcp are deleted with their pod/)

  const one = await render(values({ ...sinks, 'audit.persistence.enabled': true }))
  t.match(auditOf(one), {
    volume: { persistentVolumeClaim: { claimName: `${NAME}-audit` } },
    mount: { subPathExpr: undefined },
  }, 'a single replica continues its log')
  t.match(only(one, 'Deployment').spec, { strategy: { type: 'Recreate' } }, 'the old pod stops first')
  t.match(only(one, 'PersistentVolumeClaim'), {
    metadata: { name: `${NAME}-audit`, annotations: { 'helm.sh/resource-policy': 'keep' } },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '10Gi' } } },
  })

  t.match(
    auditOf(installation('oidc')),
    { mount: { subPathExpr: '$(POD_NAME)' } },
    'each of several replicas has its own folder'
  )
  t.strictSame(podOf(installation('oidc')).containers[0].env.filter(({ name }) => name === 'POD_NAME'), [{
    name: 'POD_NAME',
    valueFrom: { fieldRef: { fieldPath: 'metadata.name' } },
  }])
  const claims = (objects: Manifest[]) => objects.filter(({ kind }) => kind === 'PersistentVolumeClaim')
  t.match(claims(installation('oidc')).find(({ metadata: { name } }) => name === `${NAME}-audit`)?.spec, {
    accessModes: ['ReadWriteMany'],
    storageClassName: 'nfs',
  })

  const claimed = await render(values({ ...sinks, 'audit.persistence': { enabled: true, existingClaim: 'mine' } }))
  t.match(auditOf(claimed).volume, { persistentVolumeClaim: { claimName: 'mine' } })
  t.strictSame(claims(claimed), [])
})

t.test('the head file is on a volume of its own, with one file for each replica', needsHelm(), async t => {
  const settings = {
    'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'],
    'audit.persistence.enabled': true,
    'audit.headFile.enabled': true,
  }
  const headOf = (objects: Manifest[]) => {
    const { volumes, containers: [{ volumeMounts }] } = podOf(objects)
    return {
      volume: volumes?.find(({ name }) => name === 'audit-head'),
      mount: volumeMounts?.find(({ name }) => name === 'audit-head'),
      claim: objects.find(({ kind, metadata: { name } }) =>
        kind === 'PersistentVolumeClaim' && name === `${NAME}-audit-head`
      ),
    }
  }
  t.strictSame(headOf(installation('file')), { volume: undefined, mount: undefined, claim: undefined })
  const one = await render(values(settings))
  t.match(headOf(one), {
    volume: { persistentVolumeClaim: { claimName: `${NAME}-audit-head` } },
    mount: { mountPath: '/var/lib/kafscale-mcp', subPathExpr: undefined },
    claim: {
      metadata: { annotations: { 'helm.sh/resource-policy': 'keep' } },
      spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
    },
  })
  t.equal(variable(only(one, 'Deployment'), 'KAFSCALE_MCP_AUDIT_HEAD_FILE'), '/var/lib/kafscale-mcp/head')
  t.match(headOf(installation('oidc')), {
    mount: { subPathExpr: '$(POD_NAME)' },
    claim: { spec: { accessModes: ['ReadWriteMany'], storageClassName: 'other-nfs' } },
  })
  t.match(headOf(await render(values({ ...settings, 'audit.headFile.existingClaim': 'mine' }))), {
    volume: { persistentVolumeClaim: { claimName: 'mine' } },
    claim: undefined,
  })
})

t.test('probes use the health endpoints', needsHelm(), async t => {
  const [container] = podOf(installation('least')).containers
  t.match(container, {
    livenessProbe: { httpGet: { path: '/healthz', port: 'http', scheme: 'HTTP' } },
    readinessProbe: { httpGet: { path: '/readyz', port: 'http', scheme: 'HTTP' } },
  })
  t.match(
    podOf(await render(values({ 'tls.existingSecret': 'tls', 'readinessProbe.periodSeconds': 9 }))).containers[0],
    {
      livenessProbe: { httpGet: { scheme: 'HTTPS' } },
      readinessProbe: { httpGet: { scheme: 'HTTPS' }, periodSeconds: 9 },
    }
  )
  t.match(podOf(installation('jwks')).containers[0], {
    livenessProbe: { tcpSocket: { port: 'http' } },
    readinessProbe: { tcpSocket: { port: 'http' } },
  }, 'the kubelet has no client certificate')
  t.match(container, {
    lifecycle: { preStop: { exec: { command: ['node', '--eval', 'setTimeout(() => {}, 5000)'] } } },
  })
  t.notMatch(podOf(installation('file')).containers[0], { lifecycle: {} })
})

t.test('the ingress routes to the service, which accepts its host', needsHelm(), async t => {
  t.match(only(installation('oidc'), 'Ingress'), {
    metadata: { annotations: { 'cert-manager.io/cluster-issuer': 'letsencrypt' } },
    spec: {
      ingressClassName: 'nginx',
      tls: [{ secretName: 'mcp-tls', hosts: ['mcp.example'] }],
      rules: [{
        host: 'mcp.example',
        http: {
          paths: [{ path: '/', pathType: 'Prefix', backend: { service: { name: NAME, port: { name: 'http' } } } }],
        },
      }],
    },
  })
  const { allowedHosts, publicUrl } = configOf(t, installation('oidc'))
  t.equal(publicUrl, 'https://mcp.example')
  t.strictSame(allowedHosts, [
    'localhost',
    '127.0.0.1',
    NAME,
    `${NAME}.kafscale-mcp`,
    `${NAME}.kafscale-mcp.svc`,
    `${NAME}.kafscale-mcp.svc.cluster.local`,
    'mcp.example',
  ])

  const ingress = {
    enabled: true,
    controllerNamespace: 'ingress-nginx',
    hosts: [{ host: '*.example', paths: [{ path: '/' }] }],
    tls: [{ secretName: 'tls', hosts: ['*.example'] }],
  }
  t.match(configOf(t, await render(values({ ingress }))), {
    allowedHosts: undefined,
    publicUrl: `http://${NAME}.kafscale-mcp.svc`,
  }, 'any host, if the hosts cannot be determined')
  t.equal(configOf(t, installation('jwks')).allowedHosts, undefined)
  const known = await render(
    values({ publicURL: 'https://[fd00::1]:8443/x', 'service.type': 'NodePort', 'tls.existingSecret': 'tls' })
  )
  t.equal(configOf(t, known).allowedHosts?.at(-1), '[fd00::1]')
})

t.test('requests to issuers and audit sinks use the proxies', needsHelm(), async t => {
  const objects = await render(
    values({
      'proxy.httpsProxy': 'http://proxy.example:3128',
      'proxy.httpProxy': 'http://proxy.example:3129',
      'proxy.noProxy': ['.svc', '10.0.0.0/8'],
      'audit.sinks': ['stdout', 'https://collector.example/audit'],
    })
  )
  const { proxies } = readConfig(environmentOf(t, podOf(objects), objects, EXISTING))
  t.equal(proxies?.https && reveal(proxies.https), 'http://proxy.example:3128/')
  t.equal(proxies?.http && reveal(proxies.http), 'http://proxy.example:3129/')
  t.ok(proxies?.bypasses(new URL('https://collector.monitoring.svc')))
  t.ok(proxies?.bypasses(new URL('https://10.1.2.3')))
  t.notOk(proxies?.bypasses(new URL('https://collector.example')))
})

t.test('the public URL follows the path of the ingress', needsHelm(), async t => {
  const ingress = (...paths: object[]) => ({
    enabled: true,
    controllerNamespace: 'ingress-nginx',
    hosts: [{ host: 'mcp.example', paths }],
    tls: [{ secretName: 'tls', hosts: ['mcp.example'] }],
  })
  const publicUrls: [paths: object[], publicUrl: string][] = [
    [[{ path: '/kafscale' }], 'https://mcp.example/kafscale'],
    [[{ path: '/a/b/' }], 'https://mcp.example/a/b'],
    [[{ path: '/kafscale(/|$)(.*)', pathType: 'ImplementationSpecific' }], 'https://mcp.example/kafscale'],
    [[{ path: '/mcp', pathType: 'Exact' }, { path: '/.well-known' }], 'https://mcp.example'],
    [[{ path: '/x/.well-known/oauth-protected-resource' }, { path: '/x/mcp' }], 'https://mcp.example/x'],
  ]
  for (const [paths, publicUrl] of publicUrls) {
    t.equal(configOf(t, await render(values({ ingress: ingress(...paths) }))).publicUrl, publicUrl)
  }
  const prefixed = values({ ingress: ingress({ path: '/kafscale' }) })
  t.match(await notes(t, prefixed), 'claude mcp add --transport http kafscale https://mcp.example/kafscale/mcp')
  const routed = { ingress: ingress({ path: '/' }), publicURL: 'https://mcp.example/kafscale/' }
  t.equal(configOf(t, await render(values(routed))).publicUrl, 'https://mcp.example/kafscale')
})

t.test('the route of the Gateway API in the documentation leads to the Service', needsHelm(), async t => {
  const route = parse(readPage('install.md').block('yaml gateway'))
  const { metadata, spec } = only(await render(LEAST), 'Service', NAME)
  const [{ matches, backendRefs }] = route.spec.rules
  t.match(matches, [{ path: { type: 'PathPrefix', value: '/kafscale' } }])
  t.equal(route.metadata.namespace, metadata.namespace)
  t.match(backendRefs, [{ port: (spec?.['ports'] as { port: number }[])[0]?.port }])
})

t.test('telemetry', needsHelm(), async t => {
  t.test('has its own Service, which the ServiceMonitor selects', async t => {
    const service = only(installation('oidc'), 'Service', `${NAME}-telemetry`)
    const { metadata, spec, apiVersion } = only(installation('oidc'), 'ServiceMonitor')
    t.equal(apiVersion, 'monitoring.coreos.com/v1')
    t.match(metadata.labels, { release: 'prometheus' })
    t.strictSame(spec?.['endpoints'], [{ port: 'telemetry', path: '/metrics', interval: '30s' }])
    const { matchLabels } = spec?.['selector'] as { matchLabels: object }
    t.match(service.metadata.labels, matchLabels)
    t.match(service.spec, { type: 'ClusterIP', ports: [{ name: 'telemetry', port: 9090 }] })
    t.notMatch(only(installation('oidc'), 'Service', NAME).metadata.labels, matchLabels, 'and not the other Service')
  })

  t.test('renders the alerts and dashboards unchanged', async t => {
    const { apiVersion, metadata, spec } = only(installation('oidc'), 'PrometheusRule')
    t.equal(apiVersion, 'monitoring.coreos.com/v1')
    t.match(metadata.labels, { release: 'prometheus' })
    t.strictSame(spec, parse(read('files/alerts.yaml')))
    const dashboards = only(installation('oidc'), 'ConfigMap', `${NAME}-dashboards`)
    t.match(dashboards.metadata, { labels: { grafana_dashboard: '1' }, annotations: { folder: 'KafScale' } })
    const files = globSync('files/dashboards/*.json', { cwd: CHART })
    t.not(files.length, 0)
    t.strictSame(
      dashboards.data,
      Object.fromEntries(files.map(path => [path.slice('files/dashboards/'.length), read(path)]))
    )
  })

  t.test('has no Service or port if it is off or on loopback', async t => {
    for (const addr of ['off', '127.0.0.1:9090']) {
      const objects = await render(values({ 'telemetry.addr': addr }))
      t.strictSame(objects.filter(({ metadata }) => metadata.name.endsWith('-telemetry')), [])
      t.notMatch(JSON.stringify(objects), /"(?:port|containerPort)":9090/)
      t.equal(variable(only(objects, 'Deployment'), 'KAFSCALE_MCP_TELEMETRY_ADDR'), addr)
    }
  })
})

t.test('helm test', needsHelm(), async t => {
  const SNAPSHOT = [{ key: '/kafscale/metadata/snapshot', value: '{"Brokers":[],"Topics":[]}' }]
  /** Runs the test pod's command against another URL. Returns its output, and its exit code if it fails. */
  const run = async (t: Test, objects: Manifest[], url: string, existing: Existing = {}): Promise<string> => {
    const pod = only(objects, 'Pod').spec as unknown as PodSpec
    const [node, ...args] = pod.containers[0].command ?? []
    t.equal(node, 'node')
    t.notMatch(args.join(), /\$\(/, 'no $(…) that Kubernetes would expand')
    const env = environmentOf(t, pod, objects, { ...EXISTING, ...existing })
    return await promisify(execFile)(process.execPath, args, { env: { ...env, URL: new URL(url).origin } }).then(
      ({ stdout }) => stdout,
      ({ code, stdout, stderr }: { code: number, stdout: string, stderr: string }) =>
        `${stdout}${stderr}exit code ${code}`
    )
  }
  const recorded = (t: Test) => ({ KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdir({})}/audit.jsonl` })

  t.test('is as restricted as the service, and calls it by its name', async t => {
    const pod = only(installation('least'), 'Pod')
    t.match(pod, {
      metadata: { annotations: { 'helm.sh/hook': 'test' } },
      spec: { restartPolicy: 'Never', automountServiceAccountToken: false },
    })
    const { containers: [{ env, image }] } = pod.spec as unknown as PodSpec
    t.equal(image, podOf(installation('least')).containers[0].image)
    const url = env.find(({ name }) => name === 'URL')?.value ?? ''
    t.equal(url, `http://${NAME}.kafscale-mcp.svc`)
    t.ok(configOf(t, installation('least')).allowedHosts?.includes(new URL(url).hostname))
    t.strictSame(
      installation('jwks').filter(({ kind }) => kind === 'Pod'),
      [],
      'no test with client certificates'
    )
  })

  t.test('checks the environment of the service', needsEtcd(), async t => {
    const etcd = await startEtcd(t)
    await fill(etcd, SNAPSHOT)
    for (const name of ['least', 'oidc'] as const) {
      const objects = installation(name)
      const { containers: [, container], volumes = [] } = only(objects, 'Pod').spec as unknown as PodSpec
      if (!container) return t.fail('there is no second container')
      const own = podOf(objects)
      t.equal(container.image, own.containers[0].image)
      t.match(container.command, ['node', 'bin/kafscale-mcp.js', 'check'])
      t.strictSame(container.env, own.containers[0].env, 'the same variables')
      for (const { name } of container.volumeMounts ?? []) t.ok(volumes.some(volume => volume.name === name), name)
      if (name === 'oidc') continue
      const env = environmentOf(t, { ...own, containers: [container], volumes }, objects, EXISTING)
      const checked = await promisify(execFile)(process.execPath, [join(ROOT, 'bin/kafscale-mcp.js'), 'check'], {
        env: {
          ...env,
          ...etcd.env,
          KAFSCALE_MCP_BROKER_METRICS_URL: '',
          KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
          KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
        },
      })
      t.match(checked.stdout, /^ok {7}settings: are valid$[^]*^ok {7}snapshot: decodes/m)
    }
  })

  t.test('passes if the service answers, and fails otherwise', needsEtcd(), async t => {
    const etcd = await startEtcd(t)
    await fill(etcd, SNAPSHOT)
    const app = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_AUTH_TOKEN: TOKEN, ...recorded(t) })
    const url = await app.listen({ port: 0 })
    t.equal(
      await run(t, installation('least'), url),
      'ok: GET /healthz: 200\nok: a call without a token: 401\nok: cluster_status: 200\n'
    )
    t.match(await run(t, await render(values({ auth: { existingSecret: 'token' } })), url), /ok: cluster_status: 200/)
    const wrong = { 'Secret/token': { token: 'x'.repeat(32) } }
    t.match(
      await run(t, await render(values({ auth: { existingSecret: 'token' } })), url, wrong),
      /^not ok: cluster_status: 401$[^]*^exit code 1$/m
    )
    const without = await render(values({ auth: { oidc: { issuers: ['https://id.example'] }, token: '' } }))
    t.equal(
      await run(t, without, url),
      'ok: GET /healthz: 200\nok: a call without a token: 401\n',
      'without a token the call is refused'
    )
    t.match(await run(t, without, 'http://127.0.0.1:1'), /ECONNREFUSED[^]*exit code 1$/)
  })

  t.test('fails if the service is unauthenticated or has no metadata', async t => {
    const open = await buildTestApp(t)
    t.match(
      await run(t, installation('least'), await open.listen({ port: 0 })),
      /^not ok: a call without a token: 200$[^]*^exit code 1$/m
    )
    const blind = await buildTestApp(t, { KAFSCALE_MCP_AUTH_TOKEN: TOKEN, ...recorded(t) })
    t.match(
      await run(t, installation('least'), await blind.listen({ port: 0 })),
      /^not ok: cluster_status: 200\n.*METADATA_UNAVAILABLE[^]*^exit code 1$/m
    )
  })

  t.test('accepts the certificate of the service only', needsEtcd(), async t => {
    const objects = await render(values({ 'tls.existingSecret': 'tls', allowedHosts: ['localhost'] }))
    const dir = t.testdir({ 'tls.crt': certificate, 'tls.key': key })
    const etcd = await startEtcd(t)
    await fill(etcd, SNAPSHOT)
    const app = await buildSyncedApp(t, etcd, {
      KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
      KAFSCALE_MCP_TLS_CERT_FILE: join(dir, 'tls.crt'),
      KAFSCALE_MCP_TLS_KEY_FILE: join(dir, 'tls.key'),
      KAFSCALE_MCP_ALLOWED_HOSTS: 'localhost',
      KAFSCALE_MCP_AUDIT_SINKS: `file:${dir}/audit.jsonl`,
    })
    const url = await app.listen({ port: 0, host: '127.0.0.1' })
    t.match(await run(t, objects, url), /ok: cluster_status: 200/)
    t.match(await run(t, objects, url, { 'Secret/tls': newPair() }), /self-signed certificate[^]*exit code 1$/)
  })
})

t.test('NOTES.txt', needsHelm(), async t => {
  const least = await notes(t, LEAST)
  t.ok(least.includes(`  http://${NAME}.kafscale-mcp.svc/mcp\n`), 'it shows the URL')
  t.ok(
    least.includes(
      '  kubectl --namespace kafscale-mcp port-forward service/prod-kafscale-mcp 8090:80\n' +
        '  claude mcp add --transport http kafscale http://127.0.0.1:8090/mcp --header "Authorization: Bearer $TOKEN"\n'
    ),
    'it shows how to connect through a port-forward'
  )
  t.match(least, /Pods of these namespaces can connect: kafscale-mcp, kafscale\. To admit\nothers, .*clientNamespaces/)
  t.match(least, /get secret prod-kafscale-mcp --output jsonpath='\{\.data\.auth-token\}' \| base64 --decode\n/)
  t.match(least, /ports 2379, 9093, .* These are ports of pods: .*, add theirs to mcp\.networkPolicy\.extraEgress/s)
  t.match(least, /WARNING: The token is a shared secret/)
  t.match(least, /The namespace kafscale-mcp belongs to this release and stays after an uninstall/)
  t.match(least, /helm --namespace kafscale test prod/)
  t.notOk(least.includes(TOKEN), 'it does not contain the token')
  t.match(
    await notes(t, values({ auth: { token: '', existingSecret: 'token' } })),
    /WARNING: The token is a shared secret/
  )
  t.notMatch(await notes(t, LEAST, 'kafscale-mcp'), /The namespace kafscale-mcp/)

  const oidc = await notes(t, INSTALLATIONS['oidc'] as Values)
  t.match(oidc, /claude mcp add --transport http kafscale https:\/\/mcp\.example\/mcp\n/)
  t.notMatch(oidc, /WARNING/)
  const jwks = await notes(t, INSTALLATIONS['jwks'] as Values)
  t.match(jwks, /The namespace kafscale-mcp must exist, because mcp\.namespace\.create is false/)
  t.notMatch(jwks, / test prod/)
  t.match(
    await notes(t, values({ 'service.type': 'LoadBalancer', 'tls.existingSecret': 'tls' })),
    /WARNING: The NetworkPolicy admits calls from pods only/
  )
})

t.test('the README', async t => {
  const readme = read('README.md')
  t.equal(
    readme,
    readmeWithTable(readme, read('values.yaml')),
    'the table is current; otherwise run node scripts/chart-readme.ts'
  )
  t.throws(() => readmeWithTable(readme, 'a:\n  # -- What b is.\n  b: 1\n  c: 2\n'), {
    message: 'values.yaml: a.c has no comment',
  }, 'every value needs a comment')
  for (const [, path = ''] of readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) t.ok(existsSync(join(CHART, path)), path)

  t.test('shows values that start the service', needsHelm(), async t => {
    const blocks = [...readme.matchAll(/^```yaml\n([^]*?)^```$/gm)].map(([, text = '']) =>
      parse(text.replace('<bearer-token>', TOKEN)).mcp as Values
    )
    t.equal(blocks.length, 2)
    for (const mcp of blocks) {
      const objects = await render(mcp)
      t.ok(configOf(t, objects).authMode)
      t.strictSame(objects.filter(({ kind }) => !OPERATORS.includes(kind)).flatMap(mistakes), [])
    }
    t.strictSame(blocks[0], { ...LEAST, auth: { token: TOKEN } })
  })

  const recipe = (kind: string) => {
    const [, text = ''] = new RegExp(`^ *\`\`\`yaml ${kind}\\n([^]*?)^ *\`\`\`$`, 'm').exec(readme) ?? []
    return parse(text) as { mcp: Values }
  }

  t.test('shows values for OpenShift', needsHelm(), async t => {
    const objects = await render({ ...LEAST, ...recipe('openshift').mcp })
    t.strictSame(objects.flatMap(mistakes), [])
    for (const { kind, spec } of objects.filter(({ kind }) => kind === 'Deployment' || kind === 'Pod')) {
      const pod = (kind === 'Pod' ? spec : spec?.template.spec) as PodSpec | undefined
      t.strictSame(pod?.['securityContext'], {
        runAsNonRoot: true,
        fsGroupChangePolicy: 'OnRootMismatch',
        seccompProfile: { type: 'RuntimeDefault' },
      }, `${kind}: no ID outside of the namespace's range`)
    }
    const { ingress, egress } = only(objects, 'NetworkPolicy').spec as Record<string, { ports: { port: number }[] }[]>
    t.match(ingress?.at(-1), { ports: [{ port: 8090 }] }, 'the port of the pod')
    t.ok(egress?.flatMap(({ ports }) => ports).some(({ port }) => port === 5353))
  })

  t.test('shows values for changes', needsHelm(), async t => {
    const objects = await render({ ...values({ 'auth.token': '' }), ...recipe('changes').mcp })
    t.match(configOf(t, objects), {
      changes: 'enabled',
      environment: 'staging',
      changesEtcdUsername: 'ledger',
      auditSinks: [{ kind: 'stdout' }, { kind: 'file' }],
      warnings: [],
    })
  })

  t.test('shows how to connect to a Service whose pods listen on another port', needsHelm(), async t => {
    const given = { ...recipe('egress').mcp, etcdEndpoints: ['http://etcd.kafscale.svc:80'] }
    const { egress = [] } = only(await render({ ...LEAST, ...given }), 'NetworkPolicy').spec as Record<
      string,
      { ports: { port: number }[] }[]
    >
    t.ok([80, 2379].every(port => egress.some(({ ports }) => ports.some(allowed => allowed.port === port))))
    t.match(await notes(t, LEAST), /ports 2379, 9093, .* add theirs to mcp\.networkPolicy\.extraEgress/s)
  })
})

t.test('the chart has the version of the service and passes helm lint', needsHelm(), async t => {
  const chart = parse(read('Chart.yaml'))
  t.match([chart.version, chart.appVersion], [packageJson.version, packageJson.version])
  const { stdout } = await promisify(execFile)(helm, ['lint', '--strict', CHART])
  t.match(stdout, /0 chart\(s\) failed/)
})

t.test('the pages of changes: the key of their sessions, and the paths of the ingress', needsHelm(), async t => {
  const changes = {
    'auth.token': '',
    'auth.oidc': { issuers: ['https://id.example'], clientId: 'id', existingSecret: 'client' },
    'policy.bindings': [{ role: 'observer', claim: 'sub', value: 'a' }],
    'audit.sinks': ['https://collector.example/audit'],
    'changes.enabled': true,
    'changes.expectedClusterId': '0d5b0f2e',
    'changes.kafka.brokers': ['broker:9092'],
    ingress: {
      enabled: true,
      controllerNamespace: 'ingress-nginx',
      hosts: [{ host: 'mcp.example', paths: [{ path: '/kafka/mcp' }, { path: '/kafka/audit' }] }],
      tls: [{ hosts: ['mcp.example'] }],
    },
  }
  const pathsOf = (objects: Manifest[]) => {
    const { rules } = only(objects, 'Ingress').spec as unknown as {
      rules: { http: { paths: { path: string }[] } }[]
    }
    return rules.flatMap(({ http: { paths } }) => paths.map(({ path }) => path))
  }
  const keyIn = (objects: Manifest[]) =>
    objects.filter(({ kind, metadata: { name } }) => kind === 'Secret' && name.endsWith('-session-key'))

  const objects = await render(values(changes))
  const [secret] = keyIn(objects)
  t.match(secret, { metadata: { annotations: { 'helm.sh/resource-policy': 'keep' } } })
  const { 'session-key': encoded = '' } = secret?.data ?? {}
  t.equal(Buffer.from(Buffer.from(encoded, 'base64').toString(), 'base64').length, 32)
  t.strictSame(pathsOf(objects), [
    '/kafka/mcp', '/kafka/audit', '/kafka/changes', '/kafka/sign-in', '/kafka/sign-out',
  ])
  const config = readConfig(environmentOf(t, podOf(objects), objects, EXISTING))
  t.equal(config.changes?.sessionKeys?.length, 1, 'the service reads the key that was generated')

  t.strictSame(keyIn(await render(values({ ...changes, 'changes.sessionKey.existingSecret': 'given' }))), [])
  const off = await render(values({ ...changes, 'changes.enabled': false }))
  t.strictSame(keyIn(off), [])
  t.strictSame(pathsOf(off), ['/kafka/mcp', '/kafka/audit'])
})
