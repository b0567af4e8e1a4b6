import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Teardown } from './etcd.ts'

/** An object that exists in a cluster. */
export interface Stored {
  kind: 'Namespace' | 'Deployment' | 'PersistentVolumeClaim'
  metadata: { name: string, namespace?: string, labels?: object, annotations?: object }
  spec?: object
}

const RESOURCES = [
  { version: 'v1', path: '/api/v1', kind: 'Namespace', name: 'namespaces', namespaced: false },
  { version: 'v1', path: '/api/v1', kind: 'PersistentVolumeClaim', name: 'persistentvolumeclaims', namespaced: true },
  { version: 'apps/v1', path: '/apis/apps/v1', kind: 'Deployment', name: 'deployments', namespaced: true },
]

/** The part of a Kubernetes API server that Helm's function `lookup` uses. Returns its URL. */
export async function startKubernetesApi (t: Teardown, objects: Stored[]): Promise<string> {
  const server = createServer(({ url = '' }, response) => {
    const answer = answerTo(url.replace(/\?.*/, ''), objects)
    response.writeHead(answer ? 200 : 404, { 'content-type': 'application/json' })
    response.end(JSON.stringify(answer ?? { kind: 'Status', apiVersion: 'v1', reason: 'NotFound', code: 404 }))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function answerTo (url: string, objects: Stored[]): object | undefined {
  const listed = RESOURCES.filter(({ path }) => path === url)
  if (listed.length > 0) {
    return { kind: 'APIResourceList', groupVersion: listed[0]?.version, resources: listed }
  }
  for (const object of objects) {
    const { metadata: { name, namespace } } = object
    const resource = RESOURCES.find(({ kind }) => kind === object.kind)
    const within = namespace === undefined ? '' : `/namespaces/${namespace}`
    if (resource && url === `${resource.path}${within}/${resource.name}/${name}`) {
      return { apiVersion: resource.version, ...object }
    }
  }
  return undefined
}
