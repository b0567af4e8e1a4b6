/** Generated values: whatever renders is valid for Kubernetes, and can be merged by a later upgrade. */
import fc from 'fast-check'
import t from 'tap'
import { type Manifest, needsHelm, render, values } from '../support/chart.ts'
import { mistakes } from '../support/chart-schemas.ts'

/**
 * The keys by which Helm merges the entries of a list (`x-kubernetes-patch-merge-key`). Server-side apply has the same
 * ones, some with a second key (`x-kubernetes-list-map-keys`): what is unique by the first is unique by both.
 */
const MERGE_KEYS: Record<string, string[]> = {
  'Deployment spec.template.spec.containers': ['name'],
  'Deployment spec.template.spec.containers.*.env': ['name'],
  'Deployment spec.template.spec.containers.*.ports': ['containerPort'],
  'Deployment spec.template.spec.containers.*.volumeMounts': ['mountPath'],
  'Deployment spec.template.spec.volumes': ['name'],
  'Deployment spec.template.spec.imagePullSecrets': ['name'],
  'Deployment spec.template.spec.topologySpreadConstraints': ['topologyKey'],
  'Pod spec.containers': ['name'],
  'Pod spec.containers.*.env': ['name'],
  'Pod spec.containers.*.volumeMounts': ['mountPath'],
  'Pod spec.volumes': ['name'],
  'Pod spec.imagePullSecrets': ['name'],
  'Service spec.ports': ['port'],
}

/** The lists at a path, in which `*` is each entry of a list. */
function listsAt (value: unknown, [key, ...rest]: string[]): Record<string, unknown>[][] {
  if (value === undefined) return []
  if (key === undefined) return [value as Record<string, unknown>[]]
  if (key === '*') return (value as unknown[]).flatMap(entry => listsAt(entry, rest))
  return listsAt((value as Record<string, unknown>)[key], rest)
}

/** Entries of lists that Kubernetes would take for the same. */
function duplicates (object: Manifest): string[] {
  return Object.entries(MERGE_KEYS).flatMap(([where, keys]) => {
    const [kind, path = ''] = where.split(' ')
    if (kind !== object.kind) return []
    return listsAt(object, path.split('.')).flatMap(entries => {
      const identities = entries.map(entry => keys.map(key => String(entry[key])).join(' '))
      return identities.filter((identity, index) => identities.indexOf(identity) !== index)
        .map(identity => `${where}: ${identity}`)
    })
  })
}

const port = fc.constantFrom(':8090', ':9090', '0.0.0.0:8090', '[::]:9443')
const path = fc.constantFrom('/var/log/kafscale-mcp', '/etc/kafscale-mcp', '/data', '/data/', '/var/lib/kafscale-mcp')
const volume = fc.constantFrom('audit', 'files', 'audit-head', 'data', 'more')
const label = fc.constantFrom('team', 'app.kubernetes.io/name', 'app.kubernetes.io/component', 'helm.sh/chart')
const someOf = <T>(entry: fc.Arbitrary<T>) => fc.array(entry, { maxLength: 2 })

const all = {
  httpAddr: port,
  'telemetry.addr': fc.oneof(port, fc.constant('off'), fc.constant('127.0.0.1:8090')),
  'telemetry.dashboards.enabled': fc.boolean(),
  'telemetry.dashboards.labels': fc.dictionary(label, fc.constantFrom('a', '1', 'yes')),
  podLabels: fc.dictionary(label, fc.constantFrom('a', '1', 'yes')),
  podAnnotations: fc.dictionary(fc.constantFrom('checksum/secret', 'note'), fc.constantFrom('a', '1', 'yes')),
  extraEnv: someOf(fc.record({
    name: fc.constantFrom('KAFSCALE_MCP_LOG_LEVEL', 'KAFSCALE_MCP_TOOLS', 'POD_NAME', 'HTTPS_PROXY', 'A', 'B'),
    value: fc.constantFrom('1', 'http://a:99999', 'yes', '$(B)'),
  })),
  extraVolumes: someOf(fc.record({ name: volume, emptyDir: fc.constant({}) })),
  extraVolumeMounts: someOf(fc.record({ name: volume, mountPath: path })),
  'audit.mountPath': path,
  'audit.sinks': fc.constantFrom(['stdout'], ['file:/var/log/kafscale-mcp/a'], ['file:/data/a']),
  'audit.persistence.enabled': fc.boolean(),
  'audit.persistence.accessModes': fc.constantFrom(['ReadWriteMany'], ['ReadWriteOnce'], ['ReadWriteOncePod']),
  'audit.headFile.enabled': fc.boolean(),
  replicaCount: fc.integer({ min: 0, max: 3 }),
  'autoscaling.enabled': fc.boolean(),
  'tls.existingSecret': fc.constantFrom('', 'tls'),
  'proxy.httpsProxy': fc.constantFrom('', 'http://proxy.example:3128'),
  'ingress.enabled': fc.boolean(),
  'ingress.controllerNamespace': fc.constantFrom('', 'ingress', '1st'),
  'ingress.tls': fc.constantFrom([], [{ hosts: ['mcp.local'] }], [{ hosts: ['mcp.local'], secretName: 'tls' }]),
  'service.type': fc.constantFrom('ClusterIP', 'LoadBalancer'),
  'service.loadBalancerSourceRanges': fc.constantFrom([], ['10.0.0.0/8']),
  resources: fc.record({
    requests: fc.record({ memory: fc.constantFrom('10Ki', '1Gi', '512Mi', 1000), cpu: fc.constantFrom('1', 2, '10m') }),
  }),
  topologySpreadConstraints: someOf(fc.record({
    topologyKey: fc.constantFrom('zone', 'rack'),
    whenUnsatisfiable: fc.constantFrom('DoNotSchedule', 'ScheduleAnyway'),
    maxSkew: fc.constantFrom(1, 2),
  })),
  imagePullSecrets: someOf(fc.record({ name: fc.constantFrom('a', 'b') })),
}

/** Sets of a few values: more of them would hardly ever fit together. */
const generated = fc.subarray(Object.keys(all) as (keyof typeof all)[], { minLength: 1, maxLength: 4 })
  .chain(keys => fc.record(Object.fromEntries(keys.map(key => [key, all[key] as fc.Arbitrary<unknown>]))))

t.test('whatever renders is valid, and no list has two entries that are merged', needsHelm(), async t => {
  let rendered = 0
  let refused = 0
  await fc.assert(
    fc.asyncProperty(generated, async ({ imagePullSecrets = [], ...paths }) => {
      const objects = await render(values(paths), { beside: { imagePullSecrets } }).catch((error: Error) => error)
      if (objects instanceof Error) {
        refused += 1
        // A sentence or a location in the values, not an error of the template or of YAML.
        return /execution error at .*: .*(mcp\.|imagePullSecrets)|at '\/mcp\//.test(objects.message)
      }
      rendered += 1
      return objects.every(object => mistakes(object).length === 0 && duplicates(object).length === 0)
    }),
    { numRuns: 40 }
  )
  t.comment(`${rendered} rendered, ${refused} refused`)
  t.ok(rendered > 0 && refused > 0, 'both happened')
})

t.test('the check finds entries that are merged', needsHelm(), async t => {
  const [object] = (await render(values())).filter(({ kind }) => kind === 'Deployment') as [Manifest]
  const { containers: [{ env }] } = (object.spec as NonNullable<Manifest['spec']>).template.spec
  env.push({ name: 'KAFSCALE_MCP_LOG_LEVEL', value: 'debug' })
  t.strictSame(duplicates(object), ['Deployment spec.template.spec.containers.*.env: KAFSCALE_MCP_LOG_LEVEL'])
})
