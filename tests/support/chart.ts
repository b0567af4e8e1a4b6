/** The chart, rendered by Helm, and the environment of its pods. */
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { parseAllDocuments, stringify } from 'yaml'
import type { Environment } from '../../plugins/config/index.ts'
import type { Teardown } from './etcd.ts'
import { ROOT } from './paths.ts'
import { helm } from './programs.ts'
import { temporaryFolder } from './run.ts'

export const CHART = join(ROOT, 'chart')

export { helm }

/** Options of a test that needs Helm: it is skipped where there is none. */
export const needsHelm = () =>
  ({ skip: existsSync(helm) ? false : 'there is no Helm: npm run test:setup -- --all builds it with Go' })

/** Values, usually those below `mcp`. */
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
  image: string
  command?: string[]
  env: { name: string, value?: string, valueFrom?: { secretKeyRef?: { name: string, key: string } } }[]
  volumeMounts?: { name: string, mountPath: string, subPathExpr?: string, readOnly?: boolean }[]
}

export interface PodSpec {
  containers: [Container]
  volumes?: Volume[]
  [key: string]: unknown
}

/** A rendered object, as far as helpers read it. */
export interface Manifest {
  apiVersion: string
  kind: string
  metadata: { name: string, namespace?: string, labels: Record<string, string>, annotations?: Record<string, string> }
  data?: Record<string, string>
  spec?: { template: { metadata: Manifest['metadata'], spec: PodSpec }, [key: string]: unknown }
}

/** The smallest values below `mcp` that can be installed; the README shows the same. */
export const LEAST = {
  enabled: true,
  auth: { token: 'a-token-of-32-characters-or-more' },
  etcdEndpoints: ['http://etcd.kafscale.svc:2379'],
  metrics: { brokerMetricsURL: 'http://kafscale-broker.kafscale.svc:9093/metrics' },
} satisfies Values

/** The objects of a release `prod`. @throws where Helm refuses the values */
export async function render (
  mcp: Values,
  { namespace = 'kafscale', chart = CHART, beside = {} }: { namespace?: string, chart?: string, beside?: Values } = {}
): Promise<Manifest[]> {
  const running = promisify(execFile)(helm, ['template', 'prod', chart, '--namespace', namespace, '--values', '-'], {
    maxBuffer: 2 ** 24,
  })
  running.child.stdin?.end(stringify({ mcp, ...beside }, { version: '1.1' }))
  const { stdout } = await running
  // Kubernetes reads YAML 1.1, where `yes` and `0123` are not strings.
  return parseAllDocuments(stdout, { version: '1.1' }).flatMap(document => {
    const [error] = document.errors
    if (error) throw error
    return (document.toJS() as Manifest | null) ?? []
  })
}

/** The message with which Helm refuses values. */
export async function refusal (mcp: Values): Promise<string> {
  return await render(mcp).then(
    () => 'nothing is refused',
    (error: Error & { stderr?: string }) => error.stderr ?? error.message)
}

/** The notes of an installation, rendered by a copy of the chart because Helm shows them only with a cluster. */
export async function notes (t: Teardown, mcp: Values, namespace?: string): Promise<string> {
  const dir = temporaryFolder(t)
  cpSync(CHART, dir, { recursive: true })
  writeFileSync(
    join(dir, 'templates/notes.yaml'),
    'kind: Notes\ntext: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}\n'
  )
  const rendered = await render(mcp, {
    chart: dir,
    ...namespace !== undefined && { namespace },
  }) as (Manifest & { text: string })[]
  return rendered.find(({ kind }) => kind === 'Notes')?.text ?? ''
}

/** The only object of a kind, and with a name if given. @throws unless there is exactly one */
export function only (objects: Manifest[], kind: string, name?: string): Manifest {
  const found = objects.filter(object => object.kind === kind && (name === undefined || object.metadata.name === name))
  if (found.length !== 1) {
    throw new Error(
      `${found.length} objects of the kind ${kind}: ${
        objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`).join(', ')
      }`
    )
  }
  return found[0] as Manifest
}

/** The pod template of the Deployment. */
export function podOf (objects: Manifest[]): PodSpec {
  return only(objects, 'Deployment').spec?.template.spec as PodSpec
}

/** Secrets and ConfigMaps that are not rendered: content by `Secret/name` or `ConfigMap/name`, then key. */
export type Existing = Record<string, Record<string, string>>

/**
 * The environment that the kubelet gives a pod's first container, with its files in a temporary folder.
 * @throws where a Secret or ConfigMap is missing
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
    if (content === undefined) throw new Error(`there is no key ${key} in ${kind} ${name}`)
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
