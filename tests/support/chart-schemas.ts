/** Validates rendered objects against the Kubernetes schemas. */
import { Deployment } from 'kubernetes-models/apps/v1/Deployment'
import { HorizontalPodAutoscaler } from 'kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler'
import { Ingress } from 'kubernetes-models/networking.k8s.io/v1/Ingress'
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy'
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget'
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap'
import { Namespace } from 'kubernetes-models/v1/Namespace'
import { PersistentVolumeClaim } from 'kubernetes-models/v1/PersistentVolumeClaim'
import { Pod } from 'kubernetes-models/v1/Pod'
import { Secret } from 'kubernetes-models/v1/Secret'
import { Service } from 'kubernetes-models/v1/Service'
import { ServiceAccount } from 'kubernetes-models/v1/ServiceAccount'
import type { Manifest } from './chart.ts'

const MODELS = [
  ConfigMap,
  Deployment,
  HorizontalPodAutoscaler,
  Ingress,
  Namespace,
  NetworkPolicy,
  PersistentVolumeClaim,
  Pod,
  PodDisruptionBudget,
  Secret,
  Service,
  ServiceAccount,
]

/**
 * The mistakes in an object: an unknown kind, or a field that is missing, unknown or of the wrong type. The schemas
 * allow unknown fields, so a field counts as unknown if the validation never reads it.
 */
export function mistakes (object: Manifest): string[] {
  const model = MODELS.find(({ apiVersion, kind }) => apiVersion === object.apiVersion && kind === object.kind)
  if (!model) return [`${object.apiVersion} ${object.kind} is unknown`]
  const unseen = new Set<string>()
  try {
    model.prototype.validate.call(watched(object, '', unseen))
  } catch (error) {
    return [`${object.kind} ${object.metadata.name}: ${(error as Error).message}`]
  }
  return [...unseen].map(path => `${object.kind} ${object.metadata.name}: ${path} is unknown`)
}

function watched<T extends object> (value: T, path: string, unseen: Set<string>): T {
  const pathOf = (key: string) => `${path}/${key}`
  for (const key of Object.keys(value)) unseen.add(pathOf(key))
  const children = new Map<string, object>()
  return new Proxy(value, {
    get (target, key) {
      const member: unknown = Reflect.get(target, key)
      if (typeof key === 'symbol') return member
      unseen.delete(pathOf(key))
      if (typeof member !== 'object' || member === null) return member
      const child = children.get(key) ?? watched(member, pathOf(key), unseen)
      children.set(key, child)
      return child
    },
  })
}
