/** Values that Kubernetes would refuse or misread: the chart fails to render, and says what to set instead. */
import t from 'tap'
import { needsHelm, only, podOf, refusal, render, values } from '../support/chart.ts'

const oidc = { 'auth.token': '', 'auth.oidc': { issuers: ['https://id.example'], clientId: 'id', existingSecret: 'a' } }
const replicas = {
  replicaCount: 2,
  'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'],
  'audit.persistence': { enabled: true, accessModes: ['ReadWriteMany'] },
}

t.test('a variable that the chart sets is refused in extraEnv, whatever sets it', needsHelm(), async t => {
  const reserved: [variable: string, by: string, values?: Record<string, unknown>][] = [
    ['KAFSCALE_MCP_LOG_LEVEL', 'mcp.logLevel'],
    ['KAFSCALE_MCP_PUBLIC_URL', 'mcp.publicURL'],
    ['KAFSCALE_MCP_RATE_LIMIT', 'mcp.limits.rateLimit'],
    ['KAFSCALE_MCP_AUTH_TOKEN_FILE', 'mcp.auth'],
    ['KAFSCALE_MCP_OIDC_CLIENT_SECRET_FILE', 'mcp.auth.oidc', oidc],
    ['KAFSCALE_MCP_TLS_CERT_FILE', 'mcp.tls', { 'tls.existingSecret': 'tls' }],
    ['KAFSCALE_MCP_ETCD_USERNAME', 'mcp.etcd.existingSecret', { 'etcd.existingSecret': 'etcd' }],
    ['HTTPS_PROXY', 'mcp.proxy.httpsProxy', { 'proxy.httpsProxy': 'http://proxy.example:3128' }],
    ['POD_NAME', 'mcp.audit.persistence', replicas],
  ]
  for (const [name, by, given] of reserved) {
    const message = await refusal(values({ ...given, extraEnv: [{ name, value: 'x' }] }))
    t.ok(message.includes(`mcp.extraEnv sets ${name}, which ${by} already sets: remove it`), `${name}: ${message}`)
    t.ok(message.includes(`and set ${by} instead`))
  }
  t.match(
    await refusal(values({ extraEnv: [{ name: 'A', value: '1' }, { name: 'B' }, { name: 'A', value: '2' }] })),
    /mcp\.extraEnv sets A twice: keep one entry/
  )
  const { containers: [{ env }] } = podOf(
    await render(values({ extraEnv: [{ name: 'HTTPS_PROXY', value: 'http://a' }, { name: 'POD_NAME', value: 'b' }] }))
  )
  t.match(env.slice(-2), [{ name: 'HTTPS_PROXY' }, { name: 'POD_NAME' }], 'accepted while the chart does not set them')
})

t.test('incomplete settings of changes are refused, all at once', needsHelm(), async t => {
  const nothing = await refusal(values({ 'changes.enabled': true }))
  for (
    const sentence of [
      'mcp.changes.enabled is true, but',
      '- mcp.auth configures a static token, but a change belongs to whoever requested it: set mcp.auth.oidc or',
      '- mcp.policy is empty: set mcp.policy.bindings and mcp.policy.roles, or mcp.policy.existingConfigMap, which',
      '- mcp.changes.kafka.brokers is empty: set the brokers that changes are sent to, such as ["kafscale-broker-0.',
      '- mcp.changes.expectedClusterId is empty: set the id of the only cluster that may be changed',
      '- mcp.audit.sinks has no durable sink, without which nothing is changed: add a file, such as file:/var/log/',
    ]
  ) t.ok(nothing.includes(sentence), sentence)

  const complete = {
    'auth.token': '',
    'auth.oidc.issuers': ['https://id.example'],
    'policy.bindings': [{ role: 'observer', claim: 'sub', value: 'a' }],
    'audit.sinks': ['https://collector.example/audit'],
    'changes.enabled': true,
    'changes.expectedClusterId': '0d5b0f2e',
    'changes.kafka.brokers': ['broker:9092'],
  }
  t.ok(await render(values(complete)))
  const refused: [values: Record<string, unknown>, message: RegExp][] = [
    [{ 'audit.sinks': ['stdout'] }, /mcp\.audit\.sinks has no durable sink/],
    [{ 'changes.expectedClusterId': ' ' }, /mcp\.changes\.expectedClusterId is empty/],
    [{ 'changes.kafka.sasl': { mechanism: 'PLAIN', username: 'mcp' } }, /mcp\.changes\.kafka\.sasl is incomplete: set/],
    [{ 'changes.kafka.sasl.existingSecret': 'a' }, /mcp\.changes\.kafka\.sasl is incomplete/],
    [
      { 'changes.kafka.sasl': { mechanism: 'PLAIN', username: 'mcp', password: 'x', existingSecret: 'a' } },
      /changes\.kafka\.sasl\.password and mcp\.changes\.kafka\.sasl\.existingSecret are both set: set only one/,
    ],
    [{ 'changes.ledger.username': 'a' }, /only one of mcp\.changes\.ledger\.username and .*\.password is set/],
    [
      { 'changes.ledger': { password: 'x', existingSecret: 'a' } },
      /changes\.ledger\.password and mcp\.changes\.ledger\.existingSecret are both set/,
    ],
    [{ 'changes.webhook.url': 'https://a.example' }, /only one of mcp\.changes\.webhook\.url and .*\.secret is set/],
    [{ 'changes.webhook': { secret: 'x', existingSecret: 'a' } }, /webhook\.secret and .*existingSecret are both set/],
    [{ 'changes.sessionKey.value': 'x' }, /changes\.sessionKey\.value is invalid: set 32 bytes in base64/],
    [
      { 'changes.sessionKey': { value: `${'A'.repeat(43)}=`, existingSecret: 'a' } },
      /sessionKey\.value and mcp\.changes\.sessionKey\.existingSecret are both set/,
    ],
    [{ 'changes.control.tls.enabled': true }, /control\.tls\.enabled is true, but .*\.control\.addr is empty/],
    [
      { 'changes.kafka.tls.ca.existingConfigMap': 'a' },
      /mcp\.changes\.kafka\.tls has files, but mcp\.changes\.kafka\.tls\.enabled is false: set it to true/,
    ],
    [{ 'changes.control.tls.client.existingSecret': 'a' }, /mcp\.changes\.control\.tls has files, but/],
    [
      { 'changes.kafka.tls': { enabled: true, ca: { existingConfigMap: 'a', existingSecret: 'a' } } },
      /mcp\.changes\.kafka\.tls\.ca\.existingConfigMap and .*\.tls\.ca\.existingSecret are both set/,
    ],
    [
      { 'changes.ledger.tls.ca.existingConfigMap': 'a' },
      /mcp\.changes\.ledger\.tls is set, but no URL in mcp\.changes\.ledger\.endpoints, or else mcp\.etcdEndpoints, is/,
    ],
    [{ 'changes.kafka.brokers': ['broker'] }, /at '\/mcp\/changes\/kafka\/brokers\/0'/],
    [{ 'changes.control.addr': '{hots}:19094' }, /at '\/mcp\/changes\/control\/addr'/],
    [{ 'changes.kafka.sasl.mechanism': 'GSSAPI' }, /at '\/mcp\/changes\/kafka\/sasl\/mechanism'/],
    [{ 'changes.retention': '90 days' }, /at '\/mcp\/changes\/retention'/],
    [{ 'changes.webhook.url': 'hooks.example' }, /at '\/mcp\/changes\/webhook\/url'/],
    [{ 'changes.kafka.broker': ['a:1'] }, /additional properties 'broker' not allowed/],
  ]
  for (const [given, message] of refused) {
    t.match(await refusal(values({ ...complete, ...given })), message, JSON.stringify(given))
  }

  const paths = { CHANGES: 'changes.enabled', KAFKA_CA_FILE: 'changes.kafka.tls.ca', SESSION_KEY: 'changes.sessionKey' }
  for (const [name, path] of Object.entries(paths)) {
    t.match(
      await refusal(values({ extraEnv: [{ name: `KAFSCALE_MCP_${name}`, value: 'x' }] })),
      `mcp.extraEnv sets KAFSCALE_MCP_${name}: set mcp.${path} instead`,
      'also while changes are disabled'
    )
  }
})

t.test('one port for calls and metrics is refused', needsHelm(), async t => {
  for (
    const given of [
      { httpAddr: ':9090' },
      { 'telemetry.addr': ':8090' },
      { httpAddr: '0.0.0.0:9000', 'telemetry.addr': '[::]:9000' },
      { 'telemetry.addr': '127.0.0.1:8090' },
    ]
  ) {
    t.match(
      await refusal(values(given)),
      /mcp\.httpAddr \(.*\) and mcp\.telemetry\.addr \(.*\) use the same port, .*: change the port of one, or/,
      JSON.stringify(given)
    )
  }
  t.ok(await render(values({ httpAddr: ':9090', 'telemetry.addr': 'off' })))
})

t.test('relations between values that Kubernetes would refuse are refused', needsHelm(), async t => {
  const ingress = (hosts: object[]) => ({
    ingress: { enabled: true, controllerNamespace: 'ingress', hosts, tls: [{ hosts: ['mcp.example'] }] },
  })
  const file = { 'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'] }
  const mounts = (...paths: string[]) => ({
    extraVolumes: [{ name: 'data', emptyDir: {} }],
    extraVolumeMounts: paths.map(mountPath => ({ name: 'data', mountPath })),
  })
  const constraint = { topologyKey: 'zone', whenUnsatisfiable: 'DoNotSchedule', maxSkew: 1 }
  const refused: [values: Record<string, unknown>, message: RegExp][] = [
    [
      { 'service.loadBalancerSourceRanges': ['10.0.0.0/8'] },
      /loadBalancerSourceRanges is set, but mcp\.service\.type is ClusterIP: set the type to LoadBalancer, or remove/,
    ],
    [
      { 'audit.persistence.accessModes': ['ReadWriteOnce', 'ReadWriteOncePod'] },
      /mcp\.audit\.persistence\.accessModes contains ReadWriteOncePod and other modes, .*: keep ReadWriteOncePod alone/,
    ],
    [
      { 'audit.headFile.accessModes': ['ReadWriteOncePod', 'ReadWriteMany'] },
      /mcp\.audit\.headFile\.accessModes contains ReadWriteOncePod and other modes/,
    ],
    [{ 'serviceAccount.name': 'default' }, /name is default, .* or mcp\.serviceAccount\.create to false/],
    [{ 'resources.requests.memory': '1Gi' }, /memory \(1Gi\) is greater than .*limits\.memory \(512Mi\): raise/],
    [{ resources: { requests: { cpu: 1.5 }, limits: { cpu: '1200m' } } }, /requests\.cpu \(1\.5\) is greater than/],
    [{ resources: { requests: { memory: '1e9' } } }, /requests\.memory \(1e9\) is greater than/],
    [{ topologySpreadConstraints: [constraint, { ...constraint, maxSkew: 2 }] }, /two constraints for zone and DoNot/],
    [{ extraVolumes: [{ name: 'audit', emptyDir: {} }] }, /a volume named audit, which is a name of the chart/],
    [{ extraVolumes: [{ name: 'service-files', emptyDir: {} }] }, /a volume named service-files, which is a name/],
    [{ extraVolumes: [{ name: 'files', emptyDir: {} }] }, /a volume named files, .*: rename it/],
    [{ extraVolumes: [{ name: 'a', emptyDir: {} }, { name: 'a', emptyDir: {} }] }, /two volumes named a: rename one/],
    [{ extraVolumeMounts: [{ name: 'data', mountPath: '/a' }] }, /mounts the volume data, which does not exist: add/],
    [mounts('/a', '/a/'), /mounts data at \/a\/, which is the path of the volume data: set another mountPath/],
    [mounts('/etc/kafscale-mcp'), /mounts data at \/etc\/kafscale-mcp, which is the path of the secrets/],
    [mounts('/etc/kafscale-mcp/more'), /below the read-only volume at \/etc\/kafscale-mcp: set a mountPath outside/],
    [{ ...file, ...mounts('/var/log/./kafscale-mcp') }, /which is the path of mcp\.audit\.mountPath/],
    [
      { 'audit.sinks': ['file:/etc/kafscale-mcp/a'], 'audit.mountPath': '/etc/kafscale-mcp' },
      /mcp\.audit\.mountPath is \/etc\/kafscale-mcp, where the secrets/,
    ],
    [
      ingress([{ host: 'mcp.example', paths: [{ path: '/a//b' }] }]),
      /the path \/a\/\/b in mcp\.ingress\.hosts .* with the pathType Prefix: change the path, or set pathType/,
    ],
    [
      { extraEnv: [{ name: 'OTEL_EXPORTER_OTLP_ENDPOINT', value: 'http://otel:70000/v1' }] },
      /the URL in the variable OTEL_EXPORTER_OTLP_ENDPOINT of mcp\.extraEnv has the port 70000: use 1 to 65535/,
    ],
  ]
  for (const [given, message] of refused) t.match(await refusal(values(given)), message, JSON.stringify(given))

  t.match(
    await refusal(values(), { beside: { imagePullSecrets: ['a', { name: 'a' }] } }),
    /imagePullSecrets contains a twice: keep one entry/
  )

  const service = { type: 'LoadBalancer', loadBalancerSourceRanges: ['10.0.0.0/8', 'fd00::/8'] }
  const allowed: Record<string, unknown>[] = [
    { service, 'tls.existingSecret': 'tls' },
    { 'audit.persistence.accessModes': ['ReadWriteOncePod'] },
    { serviceAccount: { create: false, name: 'default' } },
    { resources: { requests: { memory: '0.5Gi', cpu: 2, 'nvidia.com/gpu': 1 }, limits: { memory: 536_870_912 } } },
    { topologySpreadConstraints: [constraint, { ...constraint, whenUnsatisfiable: 'ScheduleAnyway' }] },
    mounts('/data', '/data/more', '/etc/kafscale-mcp-more'),
    ingress([{ host: 'mcp.example', paths: [{ path: '/a//b', pathType: 'ImplementationSpecific' }] }]),
  ]
  for (const given of allowed) t.ok(await render(values(given)), JSON.stringify(given))
})

t.test('names that are not DNS-1035 labels are refused', needsHelm(), async t => {
  for (const release of ['1st', 'my.release']) {
    t.match(
      await refusal(values(), { release }),
      /objects would be named (1st|my\.release)-kafscale-mcp, .*: set fullnameOverride to a name of lower-case/
    )
    t.ok(await render(values(), { release, beside: { fullnameOverride: 'mcp' } }), 'unless fullnameOverride is one')
  }
  t.match(await refusal(values(), { beside: { nameOverride: 'a.b' } }), /objects would be named prod-a\.b/)
  for (const fullnameOverride of ['a.b', '1a', 'a-', 'A']) {
    t.match(await refusal(values(), { beside: { fullnameOverride } }), /at '\/fullnameOverride'/, fullnameOverride)
  }
  const cut = `${'a'.repeat(50)}--${'b'.repeat(20)}`
  for (const { metadata } of await render(values(), { beside: { fullnameOverride: cut } })) {
    t.notMatch(metadata.name, /---|-$/, 'a name that is cut does not end with a hyphen')
  }
})

t.test('values that the API server would refuse do not match the schema', needsHelm(), async t => {
  const path = { paths: [{ path: '/' }] }
  const ports = ['0', '00', '65536', '99999', '08090']
  const wrong: [values: Record<string, unknown>, where: string][] = [
    ...['10ki', '10 Gi', '10GB', '0', '0Gi', '-1Gi', '10m', ''].map((size): [Record<string, unknown>, string] => [
      { 'audit.persistence.size': size },
      '/mcp/audit/persistence/size',
    ]),
    [{ 'audit.headFile.size': '1mi' }, '/mcp/audit/headFile/size'],
    [{ 'resources.limits.memory': '512mb' }, '/mcp/resources/limits/memory'],
    [{ 'resources.requests.cpu': -1 }, '/mcp/resources/requests/cpu'],
    [{ 'resources.requests.memroy': '1Gi' }, '/mcp/resources/requests'],
    [{ 'resources.request': { memory: '1Gi' } }, '/mcp/resources'],
    ...['mcp_1.example', 'MCP.example', 'mcp..example', '-a.example', '10.0.0.1', '*', 'a.*.example', ''].map((
      host
    ): [Record<string, unknown>, string] => [{ 'ingress.hosts': [{ host, ...path }] }, '/mcp/ingress/hosts/0/host']),
    [{ 'ingress.tls': [{ hosts: ['mcp_1.example'] }] }, '/mcp/ingress/tls/0/hosts/0'],
    ...ports.flatMap((port): [Record<string, unknown>, string][] => [
      [{ httpAddr: `:${port}` }, '/mcp/httpAddr'],
      [{ 'telemetry.addr': `[::]:${port}` }, '/mcp/telemetry/addr'],
      [{ etcdEndpoints: [`etcd:${port}`] }, '/mcp/etcdEndpoints/0'],
      [{ etcdEndpoints: [`http://[fd00::1]:${port}/`] }, '/mcp/etcdEndpoints/0'],
      [{ publicURL: `https://a.example:${port}/b` }, '/mcp/publicURL'],
      [{ 'metrics.brokerMetricsURL': `auto,http://{host}:${port}/metrics` }, '/mcp/metrics/brokerMetricsURL'],
      [{ 'auth.oidc.issuers': [`https://id.example:${port}/realm`] }, '/mcp/auth/oidc/issuers/0'],
      [{ 'auth.oidc.jwksURLs': [`http://id.svc:${port}/keys`] }, '/mcp/auth/oidc/jwksURLs/0'],
      [{ 'auth.oidc.introspectionURL': `http://id.svc:${port}` }, '/mcp/auth/oidc/introspectionURL'],
      [{ 'audit.sinks': [`https://collector.example:${port}`] }, '/mcp/audit/sinks/0'],
      [{ 'proxy.httpsProxy': `http://proxy.example:${port}` }, '/mcp/proxy/httpsProxy'],
      [{ allowedOrigins: [`https://app.example:${port}`] }, '/mcp/allowedOrigins/0'],
    ]),
    [{ 'service.port': 65_536 }, '/mcp/service/port'],
    [{ 'networkPolicy.extraEgress': [{ ports: [{ port: 65_536 }] }] }, '/mcp/networkPolicy/extraEgress/0/ports/0/port'],
    [{ 'networkPolicy.extraIngress': [{ form: [] }] }, '/mcp/networkPolicy/extraIngress/0'],
    ...['1.5s', '30', '1s1m', '', '30sec'].map((interval): [Record<string, unknown>, string] => [
      { 'telemetry.serviceMonitor.interval': interval },
      '/mcp/telemetry/serviceMonitor/interval',
    ]),
    ...['a.b', 'A', '-a', 'a'.repeat(64)].map((name): [Record<string, unknown>, string] => [
      { 'namespace.name': name },
      '/mcp/namespace/name',
    ]),
    [{ 'networkPolicy.clientNamespaces': ['a.b'] }, '/mcp/networkPolicy/clientNamespaces/0'],
    [{ 'auth.existingSecret': 'a..b' }, '/mcp/auth/existingSecret'],
    [{ 'podDisruptionBudget.maxUnavailable': '999%' }, '/mcp/podDisruptionBudget/maxUnavailable'],
    [{ 'podDisruptionBudget.maxUnavailable': '101%' }, '/mcp/podDisruptionBudget/maxUnavailable'],
    [{ 'service.loadBalancerSourceRanges': ['10.0.0.0/33'] }, '/mcp/service/loadBalancerSourceRanges/0'],
    [{ 'service.loadBalancerSourceRanges': ['10.0.0.256/8'] }, '/mcp/service/loadBalancerSourceRanges/0'],
    [{ 'livenessProbe.httpGet': { path: '/livez' } }, '/mcp/livenessProbe'],
    [{ 'readinessProbe.exec': { command: ['true'] } }, '/mcp/readinessProbe'],
    [{ 'readinessProbe.periodSecond': 1 }, '/mcp/readinessProbe'],
    [{ 'livenessProbe.timeoutSeconds': 0 }, '/mcp/livenessProbe/timeoutSeconds'],
    [{ 'livenessProbe.successThreshold': 2 }, '/mcp/livenessProbe/successThreshold'],
    [{ 'podSecurityContext.runAsNonroot': true }, '/mcp/podSecurityContext'],
    [{ 'podSecurityContext.readOnlyRootFilesystem': true }, '/mcp/podSecurityContext'],
    [{ 'containerSecurityContext.fsGroup': 1 }, '/mcp/containerSecurityContext'],
    [{ 'containerSecurityContext.capabilities.dropp': ['ALL'] }, '/mcp/containerSecurityContext/capabilities'],
    [{ 'podSecurityContext.seccompProfile': { type: 'Default' } }, '/mcp/podSecurityContext/seccompProfile/type'],
    [{ tolerations: [{ keys: 'a' }] }, '/mcp/tolerations/0'],
    [{ 'affinity.nodeAffinty': {} }, '/mcp/affinity'],
    [{ topologySpreadConstraints: [{ topologyKey: 'zone' }] }, '/mcp/topologySpreadConstraints/0'],
    [{ extraEnv: [{ name: 'A', value: 'b', valueFrom: { fieldRef: {} } }] }, '/mcp/extraEnv/0'],
    [{ extraEnv: [{ name: 'A', valeu: 'b' }] }, '/mcp/extraEnv/0'],
    [{ extraVolumes: [{ name: 'a', emptyDir: {}, configMap: {} }] }, '/mcp/extraVolumes/0'],
    [{ extraVolumeMounts: [{ name: 'a', mountPath: '/a:b' }] }, '/mcp/extraVolumeMounts/0/mountPath'],
    [{ podLabels: { team: 'a b' } }, '/mcp/podLabels/team'],
    [{ podLabels: { '-team': 'a' } }, '/mcp/podLabels'],
    [{ nodeSelector: { disk: 'a'.repeat(64) } }, '/mcp/nodeSelector/disk'],
    [{ podAnnotations: { 'a b': 'c' } }, '/mcp/podAnnotations'],
  ]
  // One release contains many mistakes: Helm reports all of them.
  const rest = [...wrong]
  while (rest.length > 0) {
    const together = new Map<string, [values: Record<string, unknown>, where: string]>()
    for (const one of rest) {
      const [top = ''] = Object.keys(one[0])
      const block = top.split('.')[0] ?? top
      if (!together.has(block)) together.set(block, one)
    }
    const given = Object.assign({}, ...[...together.values()].map(([given]) => given)) as Record<string, unknown>
    const message = await refusal(values(given))
    for (const one of together.values()) {
      t.ok(message.includes(`- at '${one[1]}'`), JSON.stringify(one[0]))
      rest.splice(rest.indexOf(one), 1)
    }
  }

  t.ok(
    await render(values({
      httpAddr: ':65535',
      etcdEndpoints: ['etcd', 'etcd:1', 'https://[fd00::1]:2379/'],
      publicURL: 'https://a.example:8443/b',
      'metrics.brokerMetricsURL': 'auto, http://{host}:9093/metrics, https://b-{node_id}.example/metrics?a=b:99999',
      'auth.token': '',
      'auth.oidc': { issuers: ['https://id.example:8443/realm'], jwksURLs: ['http://id.svc/keys'], allowHTTP: true },
      allowedOrigins: ['https://app.example:1', 'vscode-webview://*', 'tauri://localhost', 'http://[::1]:3000'],
      'audit.persistence.size': '10Ki',
      'audit.headFile.size': '0.5Gi',
      resources: { requests: { cpu: 0.1, memory: '10Ki', 'hugepages-2Mi': '2Mi' }, limits: { memory: '1e9' } },
      'telemetry.serviceMonitor': { enabled: true, interval: '1m30s' },
      'podDisruptionBudget.maxUnavailable': '100%',
      'ingress.hosts': [{ host: '*.apps.example', ...path }, { host: 'xn--bcher-kva.example', ...path }],
      livenessProbe: { terminationGracePeriodSeconds: 10, successThreshold: 1 },
      podSecurityContext: { supplementalGroups: [1], sysctls: [{ name: 'net.core.somaxconn', value: '1' }] },
      containerSecurityContext: { privileged: false, seLinuxOptions: { level: 's0' } },
      podLabels: { 'example.com/team': 'a_b' },
    }))
  )
})

t.test('labels and annotations that the chart sets itself are not rendered twice', needsHelm(), async t => {
  const own = { 'app.kubernetes.io/part-of': 'monitoring', 'app.kubernetes.io/managed-by': 'me' }
  const objects = await render(values({
    'telemetry.serviceMonitor': { enabled: true, labels: own },
    'telemetry.prometheusRule': { enabled: true, labels: own },
    'telemetry.dashboards': { enabled: true, labels: own },
    podAnnotations: { 'checksum/secret': 'mine' },
  }))
  for (const kind of ['ServiceMonitor', 'PrometheusRule', 'ConfigMap']) {
    t.match(only(objects, kind).metadata.labels, {
      'app.kubernetes.io/part-of': 'monitoring',
      'app.kubernetes.io/managed-by': 'Helm',
    }, `${kind}: Helm only adopts its own objects`)
  }
})
