/** What the chart promises: by the real Helm, the Kubernetes schemas, and the service's own reading of what a pod is given. */
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import packageJson from '../../package.json' with { type: 'json' }
import { type Config, ConfigSchema, readConfig, secretsOf } from '../../plugins/config/index.ts'
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
  type Values,
} from '../support/chart.ts'
import { mistakes } from '../support/chart-schemas.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { buildSyncedApp, buildTestApp, fill } from '../support/service.ts'

const TOKEN = LEAST.auth.token
const NAME = 'prod-kafscale-mcp'
const read = (name: string) => readFileSync(join(CHART, name), 'utf8')

/** The least values with more of them by path. */
function values (paths: Record<string, unknown> = {}): Values {
  const all: Record<string, unknown> = structuredClone(LEAST)
  for (const [path, value] of Object.entries(paths)) {
    const keys = path.split('.')
    const last = keys.pop() as string
    const block = keys.reduce((block, key) => (block[key] ??= {}) as Record<string, unknown>, all)
    block[last] = value
  }
  return all
}

const dir = t.testdir({})

/** A certificate that has signed itself, and its key. */
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

/** What somebody has put into the namespace. */
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
  'ConfigMap/policy': { 'policy.yaml': 'bindings: []' },
}

/** The configuration that the service reads in a pod of these objects, and its secrets. */
function configOf (t: Test, objects: Manifest[], existing = EXISTING): Config & ReturnType<typeof secretsOf> {
  const config = readConfig(environmentOf(t, podOf(objects), objects, existing))
  return { ...config, ...secretsOf(config) }
}

const variable = (object: Manifest, name: string) =>
  object.spec?.template.spec.containers[0].env.find(variable => variable.name === name)?.value

t.test('while it is disabled nothing at all is rendered', needsHelm(), async t => {
  t.strictSame(await render({}), [])
  const everything = {
    enabled: false,
    replicaCount: 3,
    'ingress.enabled': true,
    'autoscaling.enabled': true,
    'audit.persistence.enabled': true,
    'telemetry.serviceMonitor.enabled': true,
    'telemetry.prometheusRule.enabled': true,
    'telemetry.dashboards.enabled': true,
  }
  t.strictSame(await render(values(everything)), [], 'whatever else is set')
  t.match(await notes(t, {}), /^kafscale-mcp is switched off/)
})

t.test('four lines are enough', needsHelm(), async t => {
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
    resources: { requests: { cpu: '100m', memory: '256Mi' } },
  })
  t.match(only(objects, 'Service', NAME).spec, { type: 'ClusterIP', ports: [{ port: 80, targetPort: 'http' }] })
})

t.test('the values of the KafScale chart are taken as they are', needsHelm(), async t => {
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
    podSecurityContext: { runAsUser: 10001, runAsGroup: 10001, runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
    containerSecurityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
    service: { type: ClusterIP, port: 80 }
    ingress: { enabled: false, className: "", annotations: {}, hosts: [{ host: mcp.local, paths: [{ path: /, pathType: Prefix }] }], tls: [] }`),
    { imagePullSecrets: [{ name: 'registry' }], operator: { replicaCount: 1 }, console: { enabled: true } },
  ]
  const objects = await render(mcp, { beside })
  t.match(podOf(objects), {
    imagePullSecrets: [{ name: 'registry' }],
    containers: [{ image: 'ghcr.io/kafscale/kafscale-mcp:latest' }],
  })
  t.match(configOf(t, objects), { etcdUsername: 'reader', etcdPassword: 'of etcd' }, 'and etcd.existingSecret is used')
})

/** Each setting of the service by the values that set it to what is not its default, what the service then reads, and in which mode. */
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
  metricsMaxAge: [{ 'metrics.maxAge': '3s' }, 3_000],
  maxStaleness: [{ maxStaleness: '7m' }, 420_000],
  verifyInterval: [{ verifyInterval: '0' }, 0],
  allowedHosts: [{ allowedHosts: ['mcp.example', '[::1]'] }, ['mcp.example', '[::1]']],
  allowedOrigins: [{ allowedOrigins: ['https://app.example', 'https://other.example:8443'] }, [
    'https://app.example',
    'https://other.example:8443',
  ]],
  authMode: [{ 'auth.mode': 'jwks' }, 'jwks', 'jwks'],
  publicUrl: [{ publicURL: 'https://mcp.example/kafscale' }, 'https://mcp.example/kafscale'],
  oidcIssuer: [{ 'auth.oidc.issuers': ['https://id.example', 'https://other.example'] }, [
    'https://id.example',
    'https://other.example',
  ], 'oidc'],
  oidcAudience: [{ 'auth.oidc.audience': 'audience' }, 'audience', 'oidc'],
  oidcMaxTokenLifetime: [{ 'auth.oidc.maxTokenLifetime': '15m' }, 900_000, 'oidc'],
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
  auditFailMode: [{ 'audit.failMode': 'open' }, 'open'],
  auditRedact: [{ 'audit.redact': ['iban', 'pin'] }, ['iban', 'pin']],
  rateLimit: [{ 'limits.rateLimit': 601 }, 601],
  addressRateLimit: [{ 'limits.addressRateLimit': 602 }, 602],
  maxConcurrentCalls: [{ 'limits.maxConcurrentCalls': 0 }, 0],
  addressMaxConcurrentCalls: [{ 'limits.addressMaxConcurrentCalls': 17 }, 17],
  maxAuthFailures: [{ 'limits.maxAuthFailures': 18 }, 18],
  maxEventLoopDelay: [{ 'limits.maxEventLoopDelay': '2s' }, 2_000],
  maxBodyBytes: [{ 'limits.maxBodyBytes': 123_456_789 }, 123_456_789],
  requestTimeout: [{ 'limits.requestTimeout': '1m30s' }, 90_000],
  logLevel: [{ logLevel: 'debug' }, 'debug'],
  telemetryAddr: [{ 'telemetry.addr': '[::]:9191' }, { host: '::', port: 9191 }],
  sessionTimeout: [{ sessionTimeout: '30m' }, 1_800_000],
}

t.test('every setting of the service can be set from values, and reaches it', needsHelm(), async t => {
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
      const value = key.endsWith('File') ? { content: readFileSync(String(config[key]), 'utf8') } : config[key]
      t.strictSame(value, expected, `${mode}: ${key}`)
      t.notSame(value, usual[key], `${key} is not as it was`)
      reached.add(key)
    }
    t.equal(config.authMode, mode)
    t.strictSame(config.warnings.filter(warning => /not a variable/.test(warning)), [])
  }
  t.strictSame([...reached].sort(), keys.sort())
})

t.test('what is not set is as the service has it by default', needsHelm(), async t => {
  const deployment = only(await render(LEAST), 'Deployment')
  for (const { name, ...setting } of Object.values(ConfigSchema)) {
    if (!('default' in setting) || ['HTTP_ADDR', 'TELEMETRY_ADDR'].includes(name)) continue
    t.equal(variable(deployment, `KAFSCALE_MCP_${name}`), setting.default, name)
  }
})

/** Value sets that between them render everything. */
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
      className: 'nginx',
      annotations: { 'cert-manager.io/cluster-issuer': 'letsencrypt' },
      hosts: [{ host: 'mcp.example', paths: [{ path: '/' }] }],
      tls: [{ secretName: 'mcp-tls', hosts: ['mcp.example'] }],
    },
    'audit.sinks': ['stdout', 'file:///var/log/kafscale-mcp/audit.jsonl'],
    'audit.persistence': { enabled: true, accessModes: ['ReadWriteMany'], storageClass: 'nfs', size: '20Gi' },
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
      clientNamespaces: ['agents', 'ingress-nginx'],
      metricsNamespaces: ['monitoring'],
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

/** Kinds of the Prometheus operator, whose schemas Kubernetes does not have. */
const OPERATORS = ['ServiceMonitor', 'PrometheusRule']

t.test('every object is one that Kubernetes takes', needsHelm(), async t => {
  const all = Object.values(objectsOf).flat()
  for (const object of all.filter(({ kind }) => !OPERATORS.includes(kind))) {
    t.strictSame(mistakes(object), [], `${object.kind} ${object.metadata.name}`)
  }
  const templates = globSync('templates/**/*.yaml', { cwd: CHART }).map(path => /^kind: (\w+)$/m.exec(read(path))?.[1])
  t.strictSame([...new Set(all.map(({ kind }) => kind))].sort(), [...new Set(templates)].sort(), 'of every template')

  const [deployment] = installation('least').filter(({ kind }) => kind === 'Deployment')
  const broken = structuredClone(deployment) as Manifest
  Object.assign(broken.spec?.template.spec.containers[0] ?? {}, { readinesProbe: {} })
  t.strictSame(
    mistakes(broken),
    [`Deployment ${NAME}: /spec/template/spec/containers/0/readinesProbe is not known`],
    'which is a check that finds what is misspelt'
  )
})

t.test('every object is in the namespace, has the labels of its release and a name of its own', needsHelm(), async t => {
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

t.test('the pods of each start', needsHelm(), async t => {
  for (const [name, objects] of Object.entries(objectsOf)) {
    const { authMode } = configOf(t, objects)
    t.equal(authMode, ['oidc', 'jwks'].includes(name) ? name : 'token', name)
  }
})

t.test('pods are as restricted as Kubernetes knows', needsHelm(), async t => {
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

t.test('no ServiceAccount token is mounted unless asked for', needsHelm(), async t => {
  t.match(podOf(installation('least')), { automountServiceAccountToken: false, serviceAccountName: NAME })
  t.match(only(installation('least'), 'ServiceAccount'), { automountServiceAccountToken: false })
  t.match(podOf(installation('oidc')), { automountServiceAccountToken: true, serviceAccountName: 'other' })
  t.match(
    podOf(installation('file')),
    { automountServiceAccountToken: false, serviceAccountName: 'default' },
    'also where none is created'
  )
})

t.test('a namespace is created once', needsHelm(), async t => {
  t.match(
    only(installation('least'), 'Namespace').metadata.annotations,
    { 'helm.sh/resource-policy': 'keep' },
    'and what others have in it outlives the release'
  )
  t.strictSame(installation('jwks').filter(({ kind }) => kind === 'Namespace'), [], 'not with namespace.create: false')
  t.strictSame(
    (await render(LEAST, { namespace: 'kafscale-mcp' })).filter(({ kind }) => kind === 'Namespace'),
    [],
    'nor where the release is in it, for there it is already'
  )
})

t.test('secrets', needsHelm(), async t => {
  const given = {
    'auth.token': '',
    'auth.oidc': { issuers: ['https://id.example'], clientId: 'id', clientSecret: 'of-the-client' },
    etcd: { username: 'reader', password: 'of-etcd' },
  }
  t.test('are in a Secret and nowhere else', async t => {
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

  t.test('of existing Secrets are mounted, and none is rendered', async t => {
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

  t.test('are mounted for the service to read and nobody to write', async t => {
    t.match(podOf(installation('least')).containers[0].volumeMounts, [{
      name: 'files',
      mountPath: '/etc/kafscale-mcp',
      readOnly: true,
    }])
    t.match(podOf(installation('least')).volumes, [{ name: 'files', projected: { defaultMode: 0o440 } }])
  })

  t.test('with quotes, dollars and braces arrive as they are', async t => {
    const token = '"\'$(HOME)$$`{{.Values}}\\n#:%s-and-some-more'
    t.equal(configOf(t, await render(values({ 'auth.token': token }))).authToken, token)
  })

  t.test('with a newline, or too short, are refused in a sentence', async t => {
    for (const token of [`${TOKEN}\n`, `${TOKEN}\nmore`, `${TOKEN} more`, `${TOKEN}é`, TOKEN.slice(0, 31)]) {
      const refused = await refusal(values({ 'auth.token': token }))
      t.match(refused, /mcp\.auth\.token is not valid: expected at least 32 characters, all of them visible ASCII/)
      t.notOk(refused.includes(token.slice(0, 31)), 'which does not repeat it')
    }
  })
})

t.test('a text is what it is, whatever is in it', needsHelm(), async t => {
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
    oidcAudience: odd,
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

t.test('a policy of the values is what the service reads', needsHelm(), async t => {
  const policy = {
    roles: {
      'orders-reader': {
        allow: [{ operations: ['observe'], topics: ['orders*', 'yes'] }],
        deny: [{ topics: ['orders-secret'] }],
      },
    },
    bindings: [{ role: 'orders-reader', claim: 'groups', value: '"on": \n x' }],
  }
  const objects = await render(values({ policy }))
  const { policyFile = '' } = configOf(t, objects)
  t.strictSame(parsePolicy(readFileSync(policyFile, 'utf8'), []), parsePolicy(JSON.stringify(policy), []))
  t.strictSame(
    podOf(installation('least')).volumes?.[0]?.projected?.sources.filter(({ configMap }) => configMap),
    [],
    'none without one'
  )
})

t.test('what changes in a Secret or policy of the values rolls the pods', needsHelm(), async t => {
  const annotations = async (paths: Record<string, unknown>) =>
    only(await render(values(paths)), 'Deployment').spec?.template.metadata.annotations ?? {}
  const usual = await annotations({})
  const secret = await annotations({ 'auth.token': 'x'.repeat(32) })
  t.not(secret['checksum/secret'], usual['checksum/secret'])
  t.equal(secret['checksum/policy'], usual['checksum/policy'])
  const policy = await annotations({ 'policy.bindings': [{ role: 'observer', claim: 'sub', value: 'alice' }] })
  t.not(policy['checksum/policy'], usual['checksum/policy'])
  t.strictSame(await annotations({ replicaCount: 2 }), usual, 'nothing else does')
})

t.test('nothing is rendered that would be open, unsafe, or not start', needsHelm(), async t => {
  const oidc = { 'auth.token': '', 'auth.oidc.issuers': ['https://id.example'] }
  const ingress = (more: object = {}) => ({ ingress: { enabled: true, ...more } })
  const persistence = { 'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'], 'audit.persistence.enabled': true }
  const refused: [what: string, values: Record<string, unknown>, sentence: RegExp][] = [
    ['no endpoints', { etcdEndpoints: [] }, /etcdEndpoints is empty: expected etcd's client URLs, such as/],
    [
      'no authentication',
      { 'auth.token': '' },
      /nothing says who may call: set mcp\.auth\.oidc\.issuers .* mcp\.auth\.token/,
    ],
    [
      'two ways to authenticate',
      { 'auth.oidc.issuers': ['https://id.example'] },
      /settings of oidc and token: expected one way/,
    ],
    ['two tokens', { 'auth.existingSecret': 'token' }, /auth\.token and mcp\.auth\.existingSecret are both set/],
    [
      'another mode than the settings',
      { 'auth.mode': 'oidc' },
      /auth\.mode is oidc and the settings are those of token/,
    ],
    [
      'a static token where none is allowed',
      { 'auth.allowStaticToken': false },
      /allowStaticToken is false: expected mcp\.auth\.oidc or mcp\.auth\.jwks/,
    ],
    [
      'one of an existing Secret neither',
      { auth: { existingSecret: 'token', allowStaticToken: false } },
      /allowStaticToken is false/,
    ],
    [
      'keys without an issuer',
      { 'auth.token': '', 'auth.jwks.existingConfigMap': 'jwks' },
      /auth\.jwks needs its keys .* and issuer/,
    ],
    [
      'a client without its secret',
      { ...oidc, 'auth.oidc.clientId': 'id' },
      /auth\.oidc needs clientId and its secret/,
    ],
    [
      'a client of no identity provider',
      { 'auth.oidc': { clientId: 'id', existingSecret: 'client' } },
      /auth\.oidc\.issuers is not: expected the identity provider/,
    ],
    ['a user without a password', { 'etcd.username': 'reader' }, /etcd needs username and password/],
    [
      'two passwords',
      { etcd: { existingSecret: 'etcd', password: 'x' } },
      /etcd\.password and mcp\.etcd\.existingSecret are both set/,
    ],
    ['TLS files for plain etcd', { 'etcd.tls.ca.existingConfigMap': 'ca' }, /no URL of mcp\.etcdEndpoints is https/],
    [
      'a client CA without TLS',
      { 'tls.clientCA.existingConfigMap': 'ca' },
      /clientCA is set and mcp\.tls\.existingSecret is not/,
    ],
    ['a file of two sources', {
      tls: { existingSecret: 'tls', clientCA: { existingConfigMap: 'ca', existingSecret: 'ca' } },
    }, /clientCA\.existingConfigMap and mcp\.tls\.clientCA\.existingSecret are both set/],
    ['two policies', {
      policy: { existingConfigMap: 'policy', bindings: [{ role: 'observer', claim: 'sub', value: 'a' }] },
    }, /existingConfigMap is set, and so are roles or bindings/],
    [
      'an address of the pod alone',
      { httpAddr: '127.0.0.1:8090' },
      /httpAddr is 127\.0\.0\.1:8090: nobody outside the pod reaches that/,
    ],
    [
      'an ingress without TLS',
      ingress(),
      /ingress\.hosts has mcp\.local and mcp\.ingress\.tls has not: whoever is on the way reads the tokens/,
    ],
    [
      'though said once',
      ingress({ allowPlainHTTP: true }),
      /set both mcp\.ingress\.allowPlainHTTP and mcp\.auth\.allowTokensInClear/,
    ],
    ['though said once the other way', { ...ingress(), 'auth.allowTokensInClear': true }, /set both/],
    [
      'an ingress with TLS for another host',
      ingress({
        hosts: [{ host: 'a.example', paths: [{ path: '/' }] }],
        tls: [{ secretName: 'tls', hosts: ['b.example'] }],
      }),
      /ingress\.hosts has a\.example/,
    ],
    [
      'a load balancer without TLS',
      { 'service.type': 'LoadBalancer' },
      /service\.type is LoadBalancer without mcp\.tls/,
    ],
    [
      'two replicas with a volume of one',
      { ...persistence, replicaCount: 2 },
      /a volume that only one replica can mount, and there can be more: expected ReadWriteMany/,
    ],
    [
      'nor as many as the autoscaler wants',
      { ...persistence, 'autoscaling.enabled': true },
      /only one replica can mount/,
    ],
    [
      'nor with a claim that exists',
      { ...persistence, 'audit.persistence.existingClaim': 'audit', replicaCount: 2 },
      /only one replica can mount/,
    ],
    [
      'a volume for no file',
      { 'audit.persistence.enabled': true },
      /audit\.sinks has no file: expected one such as file:\/var\/log\/kafscale-mcp\/audit\.jsonl/,
    ],
    [
      'a file where nothing can be written',
      { 'audit.sinks': ['file:/audit.jsonl'] },
      /the root file system is read-only; expected a file in/,
    ],
    [
      'nor outside by a detour',
      { 'audit.sinks': ['file:/var/log/kafscale-mcp/../audit.jsonl'] },
      /the root file system is read-only/,
    ],
    ['nor relative to what', { 'audit.sinks': ['file:audit.jsonl'] }, /the root file system is read-only/],
    [
      'a secret in the environment',
      { extraEnv: [{ name: 'KAFSCALE_MCP_AUTH_TOKEN', value: TOKEN }] },
      /extraEnv has KAFSCALE_MCP_AUTH_TOKEN: expected secrets in/,
    ],
    [
      'a scrape of what is off',
      { telemetry: { addr: 'off', serviceMonitor: { enabled: true } } },
      /telemetry\.addr is off: expected an address that a Prometheus reaches/,
    ],
    [
      'fewest replicas more than most',
      { autoscaling: { enabled: true, minReplicas: 3, maxReplicas: 2 } },
      /minReplicas is more than maxReplicas/,
    ],
  ]
  for (const [what, paths, sentence] of refused) t.match(await refusal(values(paths)), sentence, what)
  const allowed: [what: string, values: Record<string, unknown>][] = [
    ['an ingress without TLS, said twice', { ...ingress({ allowPlainHTTP: true }), 'auth.allowTokensInClear': true }],
    [
      'an ingress with TLS for a wildcard',
      ingress({
        hosts: [{ host: 'a.example', paths: [{ path: '/' }] }],
        tls: [{ secretName: 'tls', hosts: ['*.example'] }],
      }),
    ],
    ['a load balancer without TLS, said twice', {
      service: { type: 'LoadBalancer', allowPlainHTTP: true },
      'auth.allowTokensInClear': true,
    }],
    ['one replica with a volume of one', persistence],
    ['no static token where none is allowed', { ...oidc, 'auth.allowStaticToken': false }],
    ["a file on a volume of one's own", {
      'audit.sinks': ['file:/data/audit.jsonl'],
      extraVolumes: [{ name: 'data', emptyDir: {} }],
      extraVolumeMounts: [{ name: 'data', mountPath: '/data/' }],
    }],
  ]
  for (const [what, paths] of allowed) t.doesNotThrow(configOf.bind(null, t, await render(values(paths))), what)
})

t.test('values.schema.json', needsHelm(), async t => {
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
    [{ 'metrics.brokerMetricsURL': ['auto'] }, '/mcp/metrics/brokerMetricsURL'],
    [{ 'metrics.brokerMetricsURL': 'kafscale-broker:9093' }, '/mcp/metrics/brokerMetricsURL'],
    [{ maxStaleness: 300 }, '/mcp/maxStaleness'],
    [{ verifyInterval: '10 minutes' }, '/mcp/verifyInterval'],
    [{ httpAddr: 8090 }, '/mcp/httpAddr'],
    [{ httpAddr: '8090' }, '/mcp/httpAddr'],
    [{ publicURL: 'mcp.example' }, '/mcp/publicURL'],
    [{ allowedHosts: ['https://mcp.example'] }, '/mcp/allowedHosts/0'],
    [{ allowedOrigins: ['app.example'] }, '/mcp/allowedOrigins/0'],
    [{ trustedProxies: ['proxy.example'] }, '/mcp/trustedProxies/0'],
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
    const sentence = await refusal(values(paths))
    t.match(sentence, /values don't meet the specifications of the schema/, JSON.stringify(paths))
    t.ok(sentence.includes(`- at '${where}'`), `which says where: ${where}`)
  }
})

t.test('the schema knows the keys of values.yaml and no others', async t => {
  interface Schema {
    properties?: Record<string, Schema>
    additionalProperties?: boolean
  }
  const keysOf = (schema: Schema, value: unknown, path: string): string[] => {
    if (!schema.properties) return []
    if (path !== '') t.equal(schema.additionalProperties, false, `${path} is closed`)
    t.strictSame(Object.keys(schema.properties).sort(), Object.keys(value as object).sort(), path || 'the top')
    return Object.entries(schema.properties).flatMap((
      [key, schema]
    ) => [key, ...keysOf(schema, (value as Values)[key], `${path}/${key}`)])
  }
  t.ok(keysOf(JSON.parse(read('values.schema.json')) as Schema, parse(read('values.yaml')), '').length > 100)
})

t.test('the NetworkPolicy', needsHelm(), async t => {
  interface Rule {
    from?: object[]
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

  t.test('is there unless it is not wanted', async t => {
    const { podSelector, policyTypes } = policyOf(installation('least'))
    t.strictSame(policyTypes, ['Ingress', 'Egress'])
    t.strictSame(podSelector, only(installation('least'), 'Deployment').spec?.['selector'])
    t.strictSame(installation('file').filter(({ kind }) => kind === 'NetworkPolicy'), [])
  })

  t.test('lets in pods of all namespaces, until some are named, and the test', async t => {
    const [calls, scrapes] = policyOf(installation('least')).ingress
    t.match([calls, scrapes], [{ from: [{ namespaceSelector: {} }], ports: [{ port: 8090 }] }, {
      from: [{ namespaceSelector: {} }],
      ports: [{ port: 9090 }],
    }])
    const named = (...values: string[]) => ({
      namespaceSelector: { matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'In', values }] },
    })
    const [namedCalls, namedScrapes, more] = policyOf(installation('jwks')).ingress
    t.strictSame(namedCalls?.from?.[0], named('agents', 'ingress-nginx'))
    t.strictSame(namedScrapes, { from: [named('monitoring')], ports: [{ port: 9090 }] })
    t.match(more, { from: [{ ipBlock: { cidr: '10.0.0.0/8' } }] })
    const { matchLabels } =
      (namedCalls?.from?.[1] as { podSelector: { matchLabels: Record<string, string> } }).podSelector
    t.match(only(installation('oidc'), 'Pod').metadata.labels, matchLabels, 'the test is let in')
    t.notMatch(
      only(installation('oidc'), 'Pod').metadata.labels,
      (policyOf(installation('oidc')).podSelector as { matchLabels: object }).matchLabels,
      'and is not held back itself'
    )
  })

  t.test('lets out DNS and the ports of the configured URLs', async t => {
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
    t.match(policyOf(installation('jwks')).egress.at(-1), { ports: [{ port: 5353 }] })
  })
})

t.test('more than one replica', needsHelm(), async t => {
  const deploymentOf = (objects: Manifest[]) => only(objects, 'Deployment').spec
  t.test('has a PodDisruptionBudget, is spread, and is replaced one after the other', async t => {
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
      'one has none, so that a node can be drained'
    )
    const budget = only(
      await render(values({ replicaCount: 2, 'podDisruptionBudget.maxUnavailable': '50%' })),
      'PodDisruptionBudget'
    )
    t.match(budget.spec, { maxUnavailable: '50%' })
    t.strictSame(mistakes(budget), [])
  })

  t.test('comes and goes with the load', async t => {
    t.match(only(installation('jwks'), 'HorizontalPodAutoscaler').spec, {
      scaleTargetRef: { kind: 'Deployment', name: NAME },
      minReplicas: 2,
      maxReplicas: 9,
      metrics: [{ resource: { name: 'cpu', target: { averageUtilization: 80 } } }],
    })
    t.notOk('replicas' in (deploymentOf(installation('jwks')) ?? {}), 'which the Deployment then leaves alone')
    t.equal(installation('jwks').filter(({ kind }) => kind === 'PodDisruptionBudget').length, 1)
  })
})

t.test('labels by which pods are found are theirs', needsHelm(), async t => {
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

t.test('audit files', needsHelm(), async t => {
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
    'without any there is no volume'
  )
  t.strictSame(auditOf(installation('file')), {
    volume: { name: 'audit', emptyDir: {} },
    mount: { name: 'audit', mountPath: '/var/log/kafscale-mcp' },
  })
  t.match(await notes(t, values(sinks)), /audit files that are not on a volume of your own end with their pod/)

  const one = await render(values({ ...sinks, 'audit.persistence.enabled': true }))
  t.match(auditOf(one), {
    volume: { persistentVolumeClaim: { claimName: `${NAME}-audit` } },
    mount: { subPathExpr: undefined },
  }, 'one replica goes on with its log')
  t.match(only(one, 'Deployment').spec, { strategy: { type: 'Recreate' } }, 'which nobody else is writing then')
  t.match(only(one, 'PersistentVolumeClaim'), {
    metadata: { name: `${NAME}-audit`, annotations: { 'helm.sh/resource-policy': 'keep' } },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '10Gi' } } },
  })

  t.match(
    auditOf(installation('oidc')),
    { mount: { subPathExpr: '$(POD_NAME)' } },
    'each of several has a folder of its own'
  )
  t.strictSame(podOf(installation('oidc')).containers[0].env.filter(({ name }) => name === 'POD_NAME'), [{
    name: 'POD_NAME',
    valueFrom: { fieldRef: { fieldPath: 'metadata.name' } },
  }])
  t.match(only(installation('oidc'), 'PersistentVolumeClaim').spec, {
    accessModes: ['ReadWriteMany'],
    storageClassName: 'nfs',
  })

  const claimed = await render(values({ ...sinks, 'audit.persistence': { enabled: true, existingClaim: 'mine' } }))
  t.match(auditOf(claimed).volume, { persistentVolumeClaim: { claimName: 'mine' } })
  t.strictSame(claimed.filter(({ kind }) => kind === 'PersistentVolumeClaim'), [])
})

t.test('probes ask what they are for', needsHelm(), async t => {
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
  }, 'the kubelet has no certificate to show')
  t.match(container, {
    lifecycle: { preStop: { exec: { command: ['node', '--eval', 'setTimeout(() => {}, 5000)'] } } },
  })
  t.notMatch(podOf(installation('file')).containers[0], { lifecycle: {} })
})

t.test('the ingress leads to the service, and its host is one that the service answers to', needsHelm(), async t => {
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
    hosts: [{ host: '*.example', paths: [{ path: '/' }] }],
    tls: [{ secretName: 'tls', hosts: ['*.example'] }],
  }
  t.match(configOf(t, await render(values({ ingress }))), {
    allowedHosts: undefined,
    publicUrl: `http://${NAME}.kafscale-mcp.svc`,
  }, "any host where they can't be known")
  t.equal(configOf(t, installation('jwks')).allowedHosts, undefined)
  const known = await render(
    values({ publicURL: 'https://[fd00::1]:8443/x', 'service.type': 'NodePort', 'tls.existingSecret': 'tls' })
  )
  t.equal(configOf(t, known).allowedHosts?.at(-1), '[fd00::1]')
})

t.test('telemetry', needsHelm(), async t => {
  t.test('has a Service of its own, which the ServiceMonitor finds', async t => {
    const service = only(installation('oidc'), 'Service', `${NAME}-telemetry`)
    const { metadata, spec, apiVersion } = only(installation('oidc'), 'ServiceMonitor')
    t.equal(apiVersion, 'monitoring.coreos.com/v1')
    t.match(metadata.labels, { release: 'prometheus' })
    t.strictSame(spec?.['endpoints'], [{ port: 'telemetry', path: '/metrics', interval: '30s' }])
    const { matchLabels } = spec?.['selector'] as { matchLabels: object }
    t.match(service.metadata.labels, matchLabels)
    t.match(service.spec, { type: 'ClusterIP', ports: [{ name: 'telemetry', port: 9090 }] })
    t.notMatch(only(installation('oidc'), 'Service', NAME).metadata.labels, matchLabels, 'and no other')
  })

  t.test('has the alerts and dashboards as they are in the chart', async t => {
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

  t.test("is nowhere when it is off, or the pod's alone", async t => {
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
  /** Runs what the pod of the test runs, against a service that is elsewhere. Gives what it says, and its exit code where it fails. */
  const run = async (t: Test, objects: Manifest[], url: string, existing: Existing = {}): Promise<string> => {
    const pod = only(objects, 'Pod').spec as unknown as PodSpec
    const [node, ...args] = pod.containers[0].command ?? []
    t.equal(node, 'node')
    t.notMatch(args.join(), /\$\(/, 'in which Kubernetes replaces nothing')
    const env = environmentOf(t, pod, objects, { ...EXISTING, ...existing })
    return await promisify(execFile)(process.execPath, args, { env: { ...env, URL: new URL(url).origin } }).then(
      ({ stdout }) => stdout,
      ({ code, stdout, stderr }: { code: number, stdout: string, stderr: string }) =>
        `${stdout}${stderr}exit code ${code}`
    )
  }
  const recorded = (t: Test) => ({ KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdir({})}/audit.jsonl` })

  t.test('is as restricted as the service, and asks it by its name', async t => {
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
      'where certificates are asked for there is none'
    )
  })

  t.test('passes where the service answers, and fails where it does not', needsEtcd(), async t => {
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
      'without a token it is turned away'
    )
    t.match(await run(t, without, 'http://127.0.0.1:1'), /ECONNREFUSED[^]*exit code 1$/)
  })

  t.test('fails where the service lets anybody in, or knows no cluster', async t => {
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

  t.test('takes the certificate of the service and no other', needsEtcd(), async t => {
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

t.test('what is told to who installs', needsHelm(), async t => {
  const least = await notes(t, LEAST)
  t.ok(least.includes(`  http://${NAME}.kafscale-mcp.svc/mcp\n`), 'where to connect')
  t.match(
    least,
    /port-forward service\/prod-kafscale-mcp 8090:80\n {2}claude mcp add --transport http kafscale http:\/\/127\.0\.0\.1:8090\/mcp/
  )
  t.match(least, /get secret prod-kafscale-mcp --output jsonpath='\{\.data\.auth-token\}' \| base64 --decode\n/)
  t.match(least, /WARNING: the token is a shared secret/)
  t.match(least, /Set mcp\.namespace\.create: false where the\nnamespace exists already/)
  t.match(least, /helm --namespace kafscale test prod/)
  t.notOk(least.includes(TOKEN), 'without the token')
  t.match(
    await notes(t, values({ auth: { token: '', existingSecret: 'token' } })),
    /WARNING: the token is a shared secret/
  )
  t.notMatch(await notes(t, LEAST, 'kafscale-mcp'), /namespace\.create/)

  const oidc = await notes(t, INSTALLATIONS['oidc'] as Values)
  t.match(oidc, /claude mcp add --transport http kafscale https:\/\/mcp\.example\/mcp\n/)
  t.notMatch(oidc, /WARNING/)
  const jwks = await notes(t, INSTALLATIONS['jwks'] as Values)
  t.match(jwks, /The namespace kafscale-mcp has to exist: mcp\.namespace\.create is false/)
  t.notMatch(jwks, / test prod/)
  t.match(
    await notes(t, values({ 'service.type': 'LoadBalancer', 'tls.existingSecret': 'tls' })),
    /WARNING: the NetworkPolicy lets in pods only/
  )
})

t.test('the README', async t => {
  const readme = read('README.md')
  t.equal(
    readme,
    readmeWithTable(readme, read('values.yaml')),
    'has the table of values: node scripts/chart-readme.ts makes it'
  )
  t.throws(() => readmeWithTable(readme, 'a:\n  # -- What b is.\n  b: 1\n  c: 2\n'), {
    message: 'values.yaml: a.c has no comment',
  }, 'of which none is left out')
  for (const [, path = ''] of readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) t.ok(existsSync(join(CHART, path)), path)

  t.test('shows values with which the service starts', needsHelm(), async t => {
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
})

t.test('the chart is of the version of the service, and Helm finds nothing to say', needsHelm(), async t => {
  const chart = parse(read('Chart.yaml'))
  t.match([chart.version, chart.appVersion], [packageJson.version, packageJson.version])
  const { stdout } = await promisify(execFile)(helm, ['lint', '--strict', CHART])
  t.match(stdout, /0 chart\(s\) failed/)
})
