/** Renders the chart with Helm, and builds the environment that a rendered pod would have. */
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { parseAllDocuments, stringify } from 'yaml'
import type { Environment } from '../../plugins/config/read.ts'
import type { Teardown } from './etcd.ts'
import { ROOT } from './paths.ts'
import { helm } from './programs.ts'
import { temporaryFolder } from './run.ts'

export const CHART = join(ROOT, 'chart')

export { helm }

/** Options for tap: skips tests that need Helm if it isn't installed. */
export const needsHelm = () =>
  ({ skip: existsSync(helm) ? false : 'Helm is not installed: npm run test:setup -- --all builds it with Go' })

/** Values of the chart, with or without the key `mcp`. */
export type Values = { readonly [key: string]: unknown }

interface Volume {
  name: string
  projected?: {
    sources: { [kind in 'secret' | 'configMap']?: { name: string, items: { key: string, path: string }[] } }[]
  }
  persistentVolumeClaim?: { claimName: string }
  emptyDir?: object
}

export interface Container {
  name: string
  image: string
  command?: string[]
  resources?: { requests?: Record<string, string>, limits?: Record<string, string> }
  env: { name: string, value?: string, valueFrom?: { secretKeyRef?: { name: string, key: string } } }[]
  volumeMounts?: { name: string, mountPath: string, subPathExpr?: string, readOnly?: boolean }[]
}

export interface PodSpec {
  containers: [Container, ...Container[]]
  volumes?: Volume[]
  [key: string]: unknown
}

/** A rendered object. Only the fields that several tests read are typed. */
export interface Manifest {
  apiVersion: string
  kind: string
  metadata: { name: string, namespace?: string, labels: Record<string, string>, annotations?: Record<string, string> }
  data?: Record<string, string>
  spec?: { template: { metadata: Manifest['metadata'], spec: PodSpec }, [key: string]: unknown }
}

/** The smallest installable values below `mcp`, as shown in the README. */
export const LEAST = {
  enabled: true,
  auth: { token: 'a-token-of-32-characters-or-more' },
  etcdEndpoints: ['http://etcd.kafscale.svc:2379'],
  metrics: { brokerMetricsURL: 'http://kafscale-broker.kafscale.svc:9093/metrics' },
} satisfies Values

/** The smallest values below `mcp`, with others set by path. */
export function values (paths: Record<string, unknown> = {}): Values {
  const all: Record<string, unknown> = structuredClone(LEAST)
  for (const [path, value] of Object.entries(paths)) {
    const keys = path.split('.')
    const last = keys.pop() as string
    const block = keys.reduce((block, key) => (block[key] ??= {}) as Record<string, unknown>, all)
    block[last] = value
  }
  return all
}

interface Rendering { release?: string, namespace?: string, chart?: string, beside?: Values, api?: string }

/**
 * Renders a release, by default named `prod` and in a namespace other than the service's own. Rejects if Helm fails.
 * @param mcp values below `mcp`
 * @param options.beside values next to `mcp`
 * @param options.api URL of a Kubernetes API server, in which the chart can look up objects
 */
export async function render (mcp: Values, options: Rendering = {}): Promise<Manifest[]> {
  // Kubernetes reads YAML 1.1, in which `yes` and `0123` aren't strings.
  return parseAllDocuments(await renderText(mcp, options), { version: '1.1' }).flatMap(document => {
    const [error] = document.errors
    if (error) throw error
    return (document.toJS() as Manifest | null) ?? []
  })
}

/** What `render` parses. */
export async function renderText (
  mcp: Values,
  { release = 'prod', namespace = 'kafscale', chart = CHART, beside = {}, api }: Rendering = {}
): Promise<string> {
  const connected = api === undefined ? [] : ['--dry-run=server', '--kubeconfig', '/dev/null', '--kube-apiserver', api]
  const running = promisify(execFile)(helm, [
    'template',
    release,
    chart,
    '--namespace',
    namespace,
    '--values',
    '-',
    ...connected,
  ], { maxBuffer: 2 ** 24 })
  running.child.stdin?.end(stringify({ mcp, ...beside }, { version: '1.1' }))
  return (await running).stdout
}

/** The message with which Helm refuses values. */
export async function refusal (mcp: Values, options: Rendering = {}): Promise<string> {
  return await render(mcp, options).then(
    () => 'the values were accepted',
    (error: Error & { stderr?: string }) => error.stderr ?? error.message)
}

/** Renders NOTES.txt. Helm only prints it when it installs, so a copy of the chart renders it as an object. */
export async function notes (t: Teardown, mcp: Values, namespace?: string, api?: string): Promise<string> {
  const dir = temporaryFolder(t)
  cpSync(CHART, dir, { recursive: true })
  writeFileSync(
    join(dir, 'templates/notes.yaml'),
    'kind: Notes\ntext: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}\n'
  )
  const rendered = await render(mcp, {
    chart: dir,
    ...namespace !== undefined && { namespace },
    ...api !== undefined && { api },
  }) as (Manifest & { text: string })[]
  return rendered.find(({ kind }) => kind === 'Notes')?.text ?? ''
}

/** The only object of a kind, or of a kind and name. @throws when there isn't exactly one */
export function only (objects: Manifest[], kind: string, name?: string): Manifest {
  const found = objects.filter(object => object.kind === kind && (name === undefined || object.metadata.name === name))
  if (found.length !== 1) {
    throw new Error(
      `expected one object of kind ${kind}, found ${found.length}: ${
        objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`).join(', ')
      }`
    )
  }
  return found[0] as Manifest
}

/** The pod spec of the Deployment. */
export function podOf (objects: Manifest[]): PodSpec {
  return only(objects, 'Deployment').spec?.template.spec as PodSpec
}

/** Secrets and ConfigMaps that the chart doesn't render: content by `Secret/name` or `ConfigMap/name`, then by key. */
export type Existing = Record<string, Record<string, string>>

/**
 * The environment that the kubelet gives a pod's first container. Its files are written to a temporary folder.
 * @throws when a referenced key doesn't exist
 */
export function environmentOf (
  t: Teardown,
  { containers: [container], volumes = [] }: PodSpec,
  objects: Manifest[],
  existing: Existing = {}
): Environment {
  const contentOf = (kind: string, name: string, key: string): string => {
    const rendered = objects.find(object => object.kind === kind && object.metadata.name === name)?.data?.[key]
    const content = existing[`${kind}/${name}`]?.[key] ??
      (rendered !== undefined && kind === 'Secret' ? Buffer.from(rendered, 'base64').toString() : rendered)
    if (content === undefined) throw new Error(`no key ${key} in ${kind} ${name}`)
    return content
  }
  const dir = temporaryFolder(t)
  const files = volumes.filter(({ projected }) => projected).flatMap(({ name, projected }) => {
    const mount = container.volumeMounts?.find(mount => mount.name === name)?.mountPath ?? ''
    return projected?.sources.flatMap(({ secret, configMap }) =>
      [['Secret', secret], ['ConfigMap', configMap]] as const
    ).flatMap(([kind, source]) =>
      source?.items.map(({ key, path }) => [join(mount, path), contentOf(kind, source.name, key)] as const) ?? []
    ) ?? []
  })
  for (const [path, content] of files) {
    mkdirSync(dirname(join(dir, path)), { recursive: true })
    writeFileSync(join(dir, path), content)
  }
  return Object.fromEntries(container.env.map(({ name, value, valueFrom }) => {
    const { secretKeyRef } = valueFrom ?? {}
    if (secretKeyRef) return [name, contentOf('Secret', secretKeyRef.name, secretKeyRef.key)]
    const isFile = value !== undefined && files.some(([path]) => path === value)
    return [name, isFile ? join(dir, value) : value?.replaceAll('$$', '$')]
  }))
}
