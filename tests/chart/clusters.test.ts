/** Installs into clusters that contain something already: the chart looks it up, and keeps it. */
import t from 'tap'
import { needsHelm, notes, only, podOf, refusal, render, values } from '../support/chart.ts'
import { startKubernetesApi, type Stored } from '../support/kubernetes-api.ts'

/** By which the Deployment of the release `prod` selects its pods. */
const LABELS = {
  'app.kubernetes.io/name': 'kafscale-mcp',
  'app.kubernetes.io/instance': 'prod',
  'app.kubernetes.io/component': 'mcp',
}

const count = (objects: { kind: string }[], kind: string) => objects.filter(object => object.kind === kind).length

t.test('a namespace of somebody else is used as it is', needsHelm(), async t => {
  const namespace = (release?: string, at = 'kafscale', manager = 'Helm'): Stored => ({
    kind: 'Namespace',
    metadata: {
      name: 'kafscale-mcp',
      labels: { 'app.kubernetes.io/managed-by': manager },
      ...release !== undefined &&
        { annotations: { 'meta.helm.sh/release-name': release, 'meta.helm.sh/release-namespace': at } },
    },
  })
  const foreign = [namespace(), namespace('other'), namespace('prod', 'elsewhere'), namespace('prod', 'kafscale', 'me')]
  for (const existing of foreign) {
    const api = await startKubernetesApi(t, [existing])
    const objects = await render(values(), { api })
    t.equal(count(objects, 'Namespace'), 0, JSON.stringify(existing.metadata))
    t.equal(count(objects, 'Deployment'), 1)
  }
  const api = await startKubernetesApi(t, [namespace('other')])
  t.match(await notes(t, values(), undefined, api), /The namespace kafscale-mcp existed before this release/)

  for (const stored of [[], [namespace('prod')]]) {
    const api = await startKubernetesApi(t, stored)
    t.equal(count(await render(values(), { api }), 'Namespace'), 1, 'its own is part of the release')
    t.match(await notes(t, values(), undefined, api), /The namespace kafscale-mcp belongs to this release/)
  }
})

t.test('a pod that a namespace of somebody else does not admit is refused', needsHelm(), async t => {
  const namespace = (labels: object): Stored => ({ kind: 'Namespace', metadata: { name: 'mine', labels } })
  const given = values({
    namespace: { create: false, name: 'mine' },
    'containerSecurityContext.allowPrivilegeEscalation': true,
  })
  const restricted = await startKubernetesApi(t, [namespace({ 'pod-security.kubernetes.io/enforce': 'restricted' })])
  t.match(await refusal(given, { api: restricted }), /the namespace mine enforces the Pod Security Standard restricted/)
  for (const stored of [[], [namespace({ 'pod-security.kubernetes.io/enforce': 'privileged' })]]) {
    t.ok(await render(given, { api: await startKubernetesApi(t, stored) }))
  }
})

t.test('autoscaling keeps the number of replicas that run', needsHelm(), async t => {
  const autoscaled = values({ 'autoscaling.enabled': true, replicaCount: 2 })
  const running = async (replicas: number) =>
    await startKubernetesApi(t, [{
      kind: 'Deployment',
      metadata: { name: 'prod-kafscale-mcp', namespace: 'kafscale-mcp' },
      spec: { replicas, selector: { matchLabels: LABELS } },
    }])
  const replicasOf = async (mcp: object, api?: string) =>
    only(await render({ ...mcp }, { ...api !== undefined && { api } }), 'Deployment').spec?.['replicas']
  for (const replicas of [3, 0]) t.equal(await replicasOf(autoscaled, await running(replicas)), replicas)
  const one = values({ autoscaling: { enabled: true, minReplicas: 1, maxReplicas: 1 } })
  t.equal(await replicasOf(one, await running(3)), 1, 'never more than the autoscaler may choose')
  t.equal(await replicasOf(autoscaled, await startKubernetesApi(t, [])), undefined, 'none runs before the installation')
  t.equal(await replicasOf(autoscaled), undefined, 'without access to the cluster')
  t.equal(await replicasOf(values({ replicaCount: 2 }), await running(3)), 2, 'without autoscaling')
})

t.test('clients call the Service by its full name in the domain of the cluster', needsHelm(), async t => {
  const hosts = async (paths: Record<string, unknown>) =>
    podOf(await render(values(paths))).containers[0].env.find(({ name }) => name === 'KAFSCALE_MCP_ALLOWED_HOSTS')
      ?.value?.split(',')
  t.match((await hosts({}))?.at(-1), /^prod-kafscale-mcp\.kafscale-mcp\.svc\.cluster\.local$/)
  t.match((await hosts({ clusterDomain: 'k8s.corp.example' }))?.at(-1), /\.kafscale-mcp\.svc\.k8s\.corp\.example$/)
  t.match(await refusal(values({ clusterDomain: '.local' })), /at '\/mcp\/clusterDomain'/)
})

t.test('what an upgrade cannot change is refused before anything changes', needsHelm(), async t => {
  const deployment: Stored = {
    kind: 'Deployment',
    metadata: { name: 'prod-kafscale-mcp', namespace: 'kafscale-mcp' },
    spec: { replicas: 1, selector: { matchLabels: LABELS } },
  }
  const claim = (suffix: string, spec: object): Stored => ({
    kind: 'PersistentVolumeClaim',
    metadata: { name: `prod-kafscale-mcp-${suffix}`, namespace: 'kafscale-mcp' },
    spec: {
      accessModes: ['ReadWriteOnce'],
      storageClassName: 'standard',
      resources: { requests: { storage: '10Gi' } },
      ...spec,
    },
  })
  const api = await startKubernetesApi(t, [deployment, claim('audit', {}), claim('audit-head', {})])
  const renamed = { fullnameOverride: 'prod-kafscale-mcp', nameOverride: 'mcp' }
  t.match(
    await refusal(values(), { api, beside: renamed }),
    /prod-kafscale-mcp selects its pods by .*"kafscale-mcp".*, which .* to .*"mcp".*: set nameOverride as it was/
  )
  t.ok(await render(values(), { beside: renamed }), 'without access to the cluster')

  const audit = (persistence: object, headFile: object = {}) =>
    values({
      'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'],
      'audit.persistence': { enabled: true, ...persistence },
      'audit.headFile': { size: '10Gi', ...headFile },
    })
  const refused: [mcp: ReturnType<typeof audit>, message: RegExp][] = [
    [audit({ size: '5Gi' }), /audit\.persistence\.size is 5Gi, but the existing claim .*-audit has 10Gi, .*: set it/],
    [
      audit({ accessModes: ['ReadWriteMany'] }),
      /audit\.persistence\.accessModes is \[ReadWriteMany\], but .*-audit has \[ReadWriteOnce\], .* does not change/,
    ],
    [audit({ storageClass: 'fast' }), /audit\.persistence\.storageClass is fast, but .*-audit has standard, .*: set/],
    [audit({}, { enabled: true, size: '1Mi' }), /audit\.headFile\.size is 1Mi, but .*-audit-head has 10Gi/],
  ]
  for (const [mcp, message] of refused) t.match(await refusal(mcp, { api }), message)
  for (
    const mcp of [
      values(),
      audit({}),
      audit({ size: '20Gi', storageClass: 'standard' }, { enabled: true }),
      audit({ size: '1Gi', existingClaim: 'mine' }),
      values({ 'audit.persistence.size': '1Gi' }),
    ]
  ) t.ok(await render(mcp, { api }))
})
