/** Values that Kubernetes would refuse or misread: the chart fails to render, and says what to set instead. */
import t from 'tap'
import { needsHelm, only, podOf, refusal, render, values } from '../support/chart.ts'
import { mistakes } from '../support/chart-schemas.ts'

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
  const elsewhere = { namespace: { create: false, name: 'other' } }
  const privileged = { privileged: true, allowPrivilegeEscalation: true }
  const egress = (rule: object) => ({ 'networkPolicy.extraEgress': [rule] })
  const block = (cidr: string, except: string) => egress({ to: [{ ipBlock: { cidr, except: [except] } }] })
  const gpu = 'nvidia.com/gpu'
  const hugepages = 'hugepages-2Mi'
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
    [{ resources: { requests: { [gpu]: 1 } } }, /requests\.nvidia\.com\/gpu is set without a limit, .*: set .* to 1/],
    [{ resources: { requests: { [gpu]: 1 }, limits: { [gpu]: 2 } } }, /gpu \(1\) and .* \(2\) differ, .*: set both/],
    [
      { resources: { requests: { cpu: null, memory: null }, limits: { memory: null, [hugepages]: '2Mi' } } },
      /sets hugepages-2Mi without cpu or memory, .*: set mcp\.resources\.limits\.memory/,
    ],
    [{ resources: { limits: { [`requests.${gpu}`]: 1 } } }, /sets requests\.nvidia\.com\/gpu, .*: remove the prefix/],
    [{ resources: { limits: { [hugepages]: '3Mi' } } }, /sets hugepages-2Mi to 3Mi, .*: set a multiple of/],
    [
      { 'autoscaling.enabled': true, resources: { requests: { cpu: null } } },
      /autoscaling\.enabled is true, but mcp\.resources\.requests\.cpu is not set, .*: set mcp\.resources/,
    ],
    [
      { containerSecurityContext: { privileged: true } },
      /privileged to true and allowPrivilegeEscalation to false, .*: remove privileged, .* or set allowPrivilegeEsc/,
    ],
    [
      { containerSecurityContext: { capabilities: { add: ['CAP_SYS_ADMIN'] } } },
      /adds the capability CAP_SYS_ADMIN and sets allowPrivilegeEscalation to false, .*: remove the capability/,
    ],
    [
      {
        'podSecurityContext.sysctls': ['net.ipv4.ping_group_range', 'net/ipv4/ping_group_range'].map(name => ({
          name,
          value: '0 1',
        }))
      },
      /sysctls sets net\/ipv4\/ping_group_range twice/,
    ],
    [{ tolerations: [{ effect: 'NoSchedule' }] }, /without a key, .*: set the key of the taint, or the operator/],
    [{ tolerations: [{ key: '', operator: 'Equal', value: 'a' }] }, /without a key/],
    [{ tolerations: [{ key: 'a', operator: 'Exists', value: 'b' }] }, /operator Exists and the value b, .*: remove/],
    [{ tolerations: [{ key: 'a', tolerationSeconds: 0 }] }, /with tolerationSeconds, .*: set the effect to NoExecute/],
    ...[{ maxSkew: 2 }, { whenUnsatisfiable: 'ScheduleAnyway' }].map((other): [Record<string, unknown>, RegExp] => [
      { topologySpreadConstraints: [constraint, { ...constraint, ...other }] },
      /contains two constraints for zone: keep one of them\. .* an upgrade would lose one/,
    ]),
    [
      {
        topologySpreadConstraints: [
          { ...constraint, matchLabelKeys: ['app'], labelSelector: { matchLabels: { app: 'mcp' } } },
        ]
      },
      /topologySpreadConstraints contains app in matchLabelKeys and in labelSelector/,
    ],
    [
      {
        'affinity.podAntiAffinity': {
          preferredDuringSchedulingIgnoredDuringExecution: [{
            weight: 1,
            podAffinityTerm: { topologyKey: 'a', labelSelector: {}, matchLabelKeys: ['a'], mismatchLabelKeys: ['a'] },
          }]
        }
      },
      /affinity\.podAntiAffinity contains a in matchLabelKeys and in mismatchLabelKeys/,
    ],
    [
      { ...mounts('/a'), extraVolumeMounts: [{ name: 'data', mountPath: '/a', mountPropagation: 'Bidirectional' }] },
      /mounts data with the mountPropagation Bidirectional, .*: set HostToContainer or None/,
    ],
    [
      { ...mounts('/a'), extraVolumeMounts: [{ name: 'data', mountPath: '/a', recursiveReadOnly: 'Enabled' }] },
      /mounts data with recursiveReadOnly, .*: set readOnly to true/,
    ],
    [egress({ ports: [{ port: 443, endPort: 442 }] }), /the endPort 442, .* less than its port, 443/],
    [egress({ ports: [{ endPort: 442 }] }), /extraEgress contains the endPort 442 without a port number/],
    [
      { 'networkPolicy.extraIngress': [{ ports: [{ port: 'http', endPort: 9 }] }] },
      /extraIngress contains the endPort 9 without a port number, .*: set port to the first number/,
    ],
    ...[
      ['10.0.0.0/8', '11.0.0.0/16'],
      ['10.0.0.0/8', '10.0.0.0/8'],
      ['10.1.0.0/16', '10.0.0.0/8'],
      ['10.0.0.0/8', 'fd00::/16'],
      ['fd00::/16', 'fd00::/8'],
      ['fd00::/8', '2001:db8::/32'],
      ['2001:db8:8000::/33', '2001:db8:7fff::/48'],
    ].map(([cidr = '', except = '']): [Record<string, unknown>, RegExp] => [
      block(cidr, except),
      /extraEgress excepts .*, which is not a part of its cidr, .*: set a smaller range/,
    ]),
    [
      {
        ...ingress([{ host: 'mcp.example', paths: [{ path: '/' }] }]),
        'ingress.className': 'a',
        'ingress.annotations': {
          'kubernetes.io/ingress.class': 'b',
        }
      },
      /ingress\.className is a, but .* sets kubernetes\.io\/ingress\.class to b, .*: remove the annotation/,
    ],
    [{ extraVolumes: [{ name: 'audit', emptyDir: {} }] }, /a volume named audit, which is a name of the chart/],
    [{ extraVolumes: [{ name: 'service-files', emptyDir: {} }] }, /a volume named service-files, which is a name/],
    [{ extraVolumes: [{ name: 'files', emptyDir: {} }] }, /a volume named files, .*: rename it/],
    [{ extraVolumes: [{ name: 'a', emptyDir: {} }, { name: 'a', emptyDir: {} }] }, /two volumes named a: rename one/],
    [
      {
        extraVolumes: [{
          name: 'a',
          projected: {
            sources: [
              { configMap: { name: 'a', items: [{ key: 'a', path: 'token' }] } },
              { serviceAccountToken: { path: 'token' } },
            ]
          }
        }]
      },
      /projected volume a in mcp\.extraVolumes contains two files at token, .*: change one path/,
    ],
    [{ extraVolumeMounts: [{ name: 'data', mountPath: '/a' }] }, /mounts the volume data, which does not exist: add/],
    [mounts('/a', '/a/'), /mounts data at \/a\/, which is the path of the volume data: set another mountPath/],
    [mounts('/etc/kafscale-mcp'), /mounts data at \/etc\/kafscale-mcp, which is the path of the secrets/],
    [mounts('/etc/kafscale-mcp/more'), /below the read-only volume at \/etc\/kafscale-mcp: set a path outside of it/],
    [mounts('/a/..'), /the mountPath of data in mcp\.extraVolumeMounts is \/, which would hide the image/],
    [
      { 'audit.sinks': ['file:/etc/kafscale-mcp/audit/a'], 'audit.mountPath': '/etc/kafscale-mcp/audit' },
      /mcp\.audit\.mountPath is \/etc\/kafscale-mcp\/audit, below the read-only volume at \/etc\/kafscale-mcp/,
    ],
    [
      {
        ...file,
        'audit.persistence.enabled': true,
        'audit.headFile': { enabled: true, mountPath: '/etc/kafscale-mcp/h' },
      },
      /mcp\.audit\.headFile\.mountPath is \/etc\/kafscale-mcp\/h, below the read-only volume at \/etc\/kafscale-mcp/,
    ],
    [{ ...file, ...mounts('/var/log/./kafscale-mcp') }, /which is the path of mcp\.audit\.mountPath/],
    [
      { 'audit.sinks': ['file:/etc/kafscale-mcp/a'], 'audit.mountPath': '/etc/kafscale-mcp' },
      /mcp\.audit\.mountPath is \/etc\/kafscale-mcp, where the secrets/,
    ],
    [
      ingress([{ host: 'mcp.example', paths: [{ path: '/a//b' }] }]),
      /the path \/a\/\/b in mcp\.ingress\.hosts .* with the pathType Prefix: change the path, or set pathType/,
    ],
    ...['http://otel:70000/v1', 'otel:70000', ' http://otel:70000 ', 'grpc://a:1@otel:70000'].map(
      (value): [Record<string, unknown>, RegExp] => [
        { extraEnv: [{ name: 'OTEL_EXPORTER_OTLP_ENDPOINT', value }] },
        /the URL in the variable OTEL_EXPORTER_OTLP_ENDPOINT of mcp\.extraEnv has the port 70000: use 1 to 65535/,
      ]
    ),
  ]
  for (const [given, message] of refused) t.match(await refusal(values(given)), message, JSON.stringify(given))

  t.match(
    await refusal(values(), { beside: { imagePullSecrets: ['a', { name: 'a' }] } }),
    /imagePullSecrets contains a twice: keep one entry/
  )

  const service = { type: 'LoadBalancer', loadBalancerSourceRanges: ['10.0.0.0/8', 'fd00::/8'] }
  const allowed: Record<string, unknown>[] = [
    { extraEnv: [{ name: 'OTEL_EXPORTER_OTLP_ENDPOINT', value: 'http://[fd00:0:0::1]:4318' }] },
    { extraEnv: [{ name: 'https_proxy', value: 'http://user:123456@proxy.example:3128' }] },
    egress({ to: [{ ipBlock: { cidr: '::/0', except: ['::1/128', '2001:0DB8:0:0:0:0:0:1/128', 'fe80::/10'] } }] }),
    { service, 'tls.existingSecret': 'tls' },
    { 'audit.persistence.accessModes': ['ReadWriteOncePod'] },
    { serviceAccount: { create: false, name: 'default' } },
    { resources: { requests: { memory: '0.5Gi', cpu: 2, [gpu]: 1 }, limits: { memory: 536_870_912, [gpu]: '1' } } },
    { resources: { limits: { [gpu]: 1, [hugepages]: '4Mi' } } },
    { 'autoscaling.enabled': true, resources: { requests: { cpu: null }, limits: { cpu: 1 } } },
    { ...elsewhere, containerSecurityContext: privileged },
    { tolerations: [{ operator: 'Exists' }, { key: 'a', effect: 'NoExecute', tolerationSeconds: 9 }] },
    egress({ ports: [{ port: 443, endPort: 443 }, { port: 'https' }] }),
    block('10.0.0.0/8', '10.255.0.0/16'),
    block('0.0.0.0/0', '169.254.169.254/32'),
    block('fd00::/8', 'fd12::/16'),
    { topologySpreadConstraints: [constraint, { ...constraint, topologyKey: 'kubernetes.io/hostname' }] },
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
  const dotted = { fullnameOverride: 'mcp', nameOverride: `${'a'.repeat(51)}.b` }
  for (const { metadata } of await render(values(), { beside: dotted })) {
    t.match(metadata.labels, { 'app.kubernetes.io/name': 'a'.repeat(51) }, 'and a label not with a dot')
  }
})

t.test('values that the API server would refuse do not match the schema', needsHelm(), async t => {
  const path = { paths: [{ path: '/' }] }
  const ports = ['0', '00', '65536', '99999', '08090']
  const constraint = { maxSkew: 1, topologyKey: 'a', whenUnsatisfiable: 'ScheduleAnyway' }
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
    ...[
      [{}, ''],
      [{ ipBlock: { cidr: '10.0.0.0/8' }, podSelector: {} }, ''],
      [{ ipBlock: { cidr: '1::2::3/64' } }, '/ipBlock/cidr'],
      [{ podSelector: { app: 'a' } }, '/podSelector'],
      [{ namespaceSelector: { matchLabels: { a: 'b c' } } }, '/namespaceSelector/matchLabels/a'],
    ].map(([peer, where]): [Record<string, unknown>, string] => [
      { 'networkPolicy.extraIngress': [{ from: [peer] }] },
      `/mcp/networkPolicy/extraIngress/0/from/0${where as string}`,
    ]),
    ...['-http', 'a--b', '1-2'].map((port): [Record<string, unknown>, string] => [
      { 'networkPolicy.extraEgress': [{ ports: [{ port }] }] },
      '/mcp/networkPolicy/extraEgress/0/ports/0/port',
    ]),
    ...['a:99999', 'a:http', 'a:', '10.0.0.0/33', 'http://a', 'a*b', '[::1]:0'].map((
      host
    ): [Record<string, unknown>, string] => [{ 'proxy.noProxy': [host] }, '/mcp/proxy/noProxy/0']),
    [{ trustedProxies: ['10.0.0.0/99'] }, '/mcp/trustedProxies/0'],
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
    [{ 'podSecurityContext.seccompProfile': { type: 'Localhost' } }, '/mcp/podSecurityContext/seccompProfile'],
    [
      { 'containerSecurityContext.appArmorProfile': { type: 'RuntimeDefault', localhostProfile: 'a' } },
      '/mcp/containerSecurityContext/appArmorProfile',
    ],
    [
      { 'containerSecurityContext.seccompProfile': { type: 'Localhost', localhostProfile: '/a' } },
      '/mcp/containerSecurityContext/seccompProfile/localhostProfile',
    ],
    [{ 'containerSecurityContext.procMount': 'Unmasked' }, '/mcp/containerSecurityContext/procMount'],
    [{ 'podSecurityContext.sysctls': [{ name: 'A b', value: '1' }] }, '/mcp/podSecurityContext/sysctls/0/name'],
    [{ 'resources.claims': [{ name: 'a' }] }, '/mcp/resources'],
    [{ 'resources.limits': { 'nvidia.com/gpu': 0.5 } }, '/mcp/resources/limits/nvidia.com~1gpu'],
    [{ tolerations: [{ keys: 'a' }] }, '/mcp/tolerations/0'],
    [{ tolerations: [{ key: 'a b', operator: 'Exists' }] }, '/mcp/tolerations/0/key'],
    [{ tolerations: [{ key: 'a', value: 'a b' }] }, '/mcp/tolerations/0/value'],
    [{ 'affinity.nodeAffinty': {} }, '/mcp/affinity'],
    ...['requiredDuringScheduling', 'preferredDuringScheduling'].map((key): [Record<string, unknown>, string] => [
      { 'affinity.nodeAffinity': { [key]: [] } },
      '/mcp/affinity/nodeAffinity',
    ]),
    [
      { 'affinity.nodeAffinity': { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [] } } },
      '/mcp/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms',
    ],
    ...[
      [{ operator: 'In', values: ['a'] }, ''],
      [{ key: 'a', operator: 'in', values: ['a'] }, '/operator'],
      [{ key: 'a', operator: 'In' }, ''],
      [{ key: 'a', operator: 'Exists', values: ['a'] }, '/values'],
      [{ key: 'a', operator: 'Gt', values: ['1', '2'] }, '/values'],
      [{ key: 'a', operators: 'Exists' }, ''],
    ].map(([expression, where]): [Record<string, unknown>, string] => [
      {
        'affinity.nodeAffinity': {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [{ matchExpressions: [expression] }],
          }
        }
      },
      '/mcp/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions' +
      `/0${where}`,
    ]),
    ...[
      [{ weight: 0, podAffinityTerm: { topologyKey: 'a' } }, '/weight'],
      [{ weight: 1, podAffinityTerm: {} }, '/podAffinityTerm'],
      [{ weight: 1, podAffinityTerm: { topologyKey: 'a', labelSelectors: {} } }, '/podAffinityTerm'],
      [{ weight: 1, podAffinityTerm: { topologyKey: 'a', matchLabelKeys: ['b'] } }, '/podAffinityTerm'],
      [
        { weight: 1, podAffinityTerm: { topologyKey: 'a', labelSelector: { matchLabel: {} } } },
        '/podAffinityTerm/labelSelector',
      ],
    ].map(([term, where]): [Record<string, unknown>, string] => [
      { 'affinity.podAntiAffinity': { preferredDuringSchedulingIgnoredDuringExecution: [term] } },
      `/mcp/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0${where}`,
    ]),
    [
      { topologySpreadConstraints: [{ ...constraint, minDomains: 2 }] },
      '/mcp/topologySpreadConstraints/0/whenUnsatisfiable',
    ],
    [{ topologySpreadConstraints: [{ topologyKey: 'zone' }] }, '/mcp/topologySpreadConstraints/0'],
    [{ extraEnv: [{ name: 'A', value: 'b', valueFrom: { fieldRef: {} } }] }, '/mcp/extraEnv/0'],
    [{ extraEnv: [{ name: 'A', valeu: 'b' }] }, '/mcp/extraEnv/0'],
    [{ extraEnv: [{ name: '1A', value: 'b' }] }, '/mcp/extraEnv/0/name'],
    ...[
      [{}, ''],
      [{ secretRef: { name: 'a', key: 'b' } }, ''],
      [{ secretKeyRef: { name: 'a', key: 'b' }, configMapKeyRef: { name: 'a', key: 'b' } }, ''],
      [{ secretKeyRef: { name: 'a' } }, '/secretKeyRef'],
      [{ configMapKeyRef: { name: 'a', key: 'b/c' } }, '/configMapKeyRef/key'],
      [{ fieldRef: { fieldPath: 'status.podIp' } }, '/fieldRef/fieldPath'],
      [{ resourceFieldRef: { resource: 'limits.memroy' } }, '/resourceFieldRef/resource'],
    ].map(([valueFrom, where]): [Record<string, unknown>, string] => [
      { extraEnv: [{ name: 'A', valueFrom }] },
      `/mcp/extraEnv/0/valueFrom${where}`,
    ]),
    [{ extraVolumes: [{ name: 'a', emptyDir: {}, configMap: { name: 'a' } }] }, '/mcp/extraVolumes/0'],
    ...[
      [{ emptydir: {} }, ''],
      [{ emptyDir: { sizelimit: '1Gi' } }, '/emptyDir'],
      [{ emptyDir: { sizeLimit: '1gb' } }, '/emptyDir/sizeLimit'],
      [{ configMap: { configMapName: 'a' } }, '/configMap'],
      [{ configMap: { name: 'a', defaultMode: 512 } }, '/configMap/defaultMode'],
      [{ configMap: { name: 'a', items: [{ key: 'a', path: '../a' }] } }, '/configMap/items/0/path'],
      [{ secret: { name: 'a' } }, '/secret'],
      [{ persistentVolumeClaim: { claim: 'a' } }, '/persistentVolumeClaim'],
      [{ hostPath: { path: '/a/../b' } }, '/hostPath/path'],
      [{ nfs: { server: 'a', path: 'b' } }, '/nfs/path'],
      [{ csi: { driver: 'a', volumeAttribute: {} } }, '/csi'],
      [{ csi: { driver: 'a..b' } }, '/csi/driver'],
      [{ iscsi: { targetPortal: 'a', iqn: 'b', luns: 0 } }, '/iscsi'],
      [{ projected: { sources: [{ secret: { secretName: 'a' } }] } }, '/projected/sources/0/secret'],
      [{ projected: { sources: [{ secrets: { name: 'a' } }] } }, '/projected/sources/0'],
      [
        { projected: { sources: [{ serviceAccountToken: { path: 'a', expirationSeconds: 60 } }] } },
        '/projected/sources/0/serviceAccountToken/expirationSeconds',
      ],
      [{ downwardAPI: { items: [{ path: 'a' }] } }, '/downwardAPI/items/0'],
      [{ ephemeral: { volumeClaimTemplate: { spec: { accessModes: ['ReadWriteOnce'] } } } },
        '/ephemeral/volumeClaimTemplate/spec'],
    ].map(([source, where]): [Record<string, unknown>, string] => [
      { extraVolumes: [{ name: 'a', ...source as object }] },
      `/mcp/extraVolumes/0${where as string}`,
    ]),
    [{ extraVolumeMounts: [{ name: 'a', mountPath: '/a', subPath: '../b' }] }, '/mcp/extraVolumeMounts/0/subPath'],
    [{ extraVolumeMounts: [{ name: 'a', mountPath: '/a:b' }] }, '/mcp/extraVolumeMounts/0/mountPath'],
    [{ podLabels: { team: 'a b' } }, '/mcp/podLabels/team'],
    [{ podLabels: { '-team': 'a' } }, '/mcp/podLabels'],
    [{ podLabels: { 'a..b/team': 'a' } }, '/mcp/podLabels'],
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
      resources: { requests: { cpu: 0.1, memory: '10Ki' }, limits: { memory: '1e9', 'hugepages-2Mi': '2Mi' } },
      'telemetry.serviceMonitor': { enabled: true, interval: '1m30s' },
      'podDisruptionBudget.maxUnavailable': '100%',
      'ingress.hosts': [{ host: '*.apps.example', ...path }, { host: 'xn--bcher-kva.example', ...path }],
      livenessProbe: { terminationGracePeriodSeconds: 10, successThreshold: 1 },
      podSecurityContext: { supplementalGroups: [1], sysctls: [{ name: 'net.ipv4.tcp_syncookies', value: '1' }] },
      containerSecurityContext: { privileged: false, seLinuxOptions: { level: 's0' } },
      podLabels: { 'example.com/team': 'a_b' },
      'proxy.noProxy': ['*', '.svc', '*.example', 'a.example:8080', '10.0.0.0/8', '10.0.0.1', 'fd00::/8', '[::1]:443'],
      trustedProxies: ['10.0.0.1', 'fd00::/8', '::1', '2001:db8::1'],
    }))
  )
})

t.test('every field of Kubernetes that is passed on is accepted', needsHelm(), async t => {
  const selector = { matchLabels: { 'a.b/c': 'd' }, matchExpressions: [{ key: 'a', operator: 'In', values: ['b'] }] }
  const spread = { topologyKey: 'zone', labelSelector: selector, namespaceSelector: {}, namespaces: ['a'] }
  const nodes = {
    matchExpressions: [{ key: 'a', operator: 'Gt', values: ['1'] }, { key: 'b', operator: 'DoesNotExist' }],
    matchFields: [{ key: 'metadata.name', operator: 'In', values: ['node-1'] }],
  }
  const field = { fieldRef: { apiVersion: 'v1', fieldPath: "metadata.labels['app']" } }
  const items = [{ key: 'a', path: 'b/c', mode: 0o400 }]
  const files = [{ path: 'a', ...field }, {
    path: 'b',
    resourceFieldRef: { containerName: 'mcp', resource: 'limits.memory', divisor: '1Mi' },
  }]
  const sources: Record<string, unknown> = {
    configMap: { name: 'a', items, defaultMode: 0o440, optional: true },
    secret: { secretName: 'a', items, optional: false },
    emptyDir: { medium: 'Memory', sizeLimit: '1Gi' },
    persistentVolumeClaim: { claimName: 'a', readOnly: true },
    downwardAPI: { items: files, defaultMode: 0o440 },
    projected: {
      defaultMode: 0o440,
      sources: [
        { configMap: { name: 'a', items } },
        { secret: { name: 'a', optional: true } },
        { downwardAPI: { items: files.map(file => ({ ...file, path: `d/${file.path}` })) } },
        { serviceAccountToken: { audience: 'a', expirationSeconds: 600, path: 'token' } },
      ]
    },
    csi: { driver: 'a.example', fsType: 'ext4', volumeAttributes: { a: 'b' }, nodePublishSecretRef: { name: 'a' } },
    ephemeral: {
      volumeClaimTemplate: {
        metadata: { labels: { a: 'b' } },
        spec: {
          accessModes: ['ReadWriteOnce'],
          storageClassName: 'fast',
          resources: { requests: { storage: '1Gi' } },
        }
      }
    },
  }
  const objects = await render(values({
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [nodes] },
        preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, preference: nodes }],
      },
      podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [spread] },
      podAntiAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [{
          weight: 1,
          podAffinityTerm: { ...spread, matchLabelKeys: ['pod-template-hash'], mismatchLabelKeys: ['tenant'] },
        }]
      },
    },
    topologySpreadConstraints: [{
      topologyKey: 'zone',
      maxSkew: 1,
      minDomains: 2,
      whenUnsatisfiable: 'DoNotSchedule',
      labelSelector: selector,
      matchLabelKeys: ['pod-template-hash'],
    }],
    tolerations: [{ operator: 'Exists' }, { key: 'a', value: 'b', effect: 'NoExecute', tolerationSeconds: 9 }],
    extraEnv: [
      { name: 'A', valueFrom: field },
      { name: 'B', valueFrom: { resourceFieldRef: { resource: 'limits.cpu', divisor: '1m' } } },
      { name: 'C', valueFrom: { secretKeyRef: { name: 'a', key: 'b', optional: true } } },
      { name: 'D', valueFrom: { configMapKeyRef: { name: 'a', key: 'b' } } },
      { name: 'E.f-g_h' },
    ],
    extraVolumes: Object.entries(sources).map(([kind, source]) => ({ name: kind.toLowerCase(), [kind]: source })),
    extraVolumeMounts: Object.keys(sources).map((kind, index) => ({
      name: kind.toLowerCase(),
      mountPath: `/extra/${index}`,
      readOnly: true,
      recursiveReadOnly: 'IfPossible',
    })),
    'networkPolicy.extraIngress': [{
      ports: [{ port: 1, endPort: 9 }, { port: 'http', protocol: 'TCP' }],
      from: [
        { podSelector: selector, namespaceSelector: {} },
        { ipBlock: { cidr: '2001:db8::/32', except: ['2001:db8:1::/48'] } },
      ]
    }],
  }))
  t.strictSame(objects.flatMap(mistakes), [])
})

t.test('a pod that the namespace would not admit is refused', needsHelm(), async t => {
  const hostPath = { extraVolumes: [{ name: 'host', hostPath: { path: '/var/log', type: 'Directory' } }] }
  const refused: [values: Record<string, unknown>, message: string][] = [
    [hostPath, 'the volume host in mcp.extraVolumes is a hostPath'],
    [
      { 'containerSecurityContext.allowPrivilegeEscalation': true },
      'mcp.containerSecurityContext.allowPrivilegeEscalation is not false',
    ],
    [
      { 'containerSecurityContext.capabilities.drop': ['NET_RAW'] },
      'mcp.containerSecurityContext.capabilities.drop does not contain ALL',
    ],
    [
      { 'containerSecurityContext.capabilities.add': ['NET_BIND_SERVICE', 'SYS_PTRACE'] },
      'mcp.containerSecurityContext.capabilities.add contains SYS_PTRACE',
    ],
    [{ 'podSecurityContext.runAsNonRoot': false }, 'runAsNonRoot is not true in mcp.podSecurityContext'],
    [{ 'containerSecurityContext.runAsNonRoot': false }, 'or false in mcp.containerSecurityContext'],
    [{ 'podSecurityContext.runAsUser': 0 }, 'mcp.podSecurityContext.runAsUser is 0'],
    [
      { 'podSecurityContext.seccompProfile.type': 'Unconfined' },
      'mcp.podSecurityContext.seccompProfile.type is Unconfined',
    ],
    [{ 'podSecurityContext.seccompProfile': null }, 'mcp.podSecurityContext.seccompProfile is not set'],
    [
      { 'containerSecurityContext.appArmorProfile': { type: 'Unconfined' } },
      'mcp.containerSecurityContext.appArmorProfile.type is Unconfined',
    ],
  ]
  for (const [given, why] of refused) {
    const message = await refusal(values(given))
    t.ok(message.includes(why), `${JSON.stringify(given)}: ${message}`)
    t.match(message, /the namespace kafscale-mcp enforces .* restricted, .*: change the value, or set mcp\.namespace/)
    t.ok(await render(values({ ...given, namespace: { create: false, name: 'other' } })), 'elsewhere')
  }
  const allowed = { 'containerSecurityContext.capabilities.add': ['NET_BIND_SERVICE'] }
  t.ok(await render(values({ ...allowed, podSecurityContext: { runAsUser: null, runAsGroup: null, fsGroup: null } })))
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
