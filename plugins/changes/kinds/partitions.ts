import { ChangeImpossible } from '../../../errors.ts'
import type { MirrorView } from '../../../kafscale/mirror.ts'
import { settingsOf } from './cluster.ts'
import type { PlanContext } from './kind.ts'

/** @throws {ChangeImpossible} if no topic may have that many partitions */
export function checkPartitions (partitions: number, { maxPartitions }: Pick<PlanContext, 'maxPartitions'>): void {
  if (Number.isSafeInteger(partitions) && partitions >= 1 && partitions <= maxPartitions) return
  throw new ChangeImpossible(
    `a topic may have 1 to ${maxPartitions} partitions, not ${partitions}: an operator can raise ` +
    'KAFSCALE_MCP_MAX_PARTITIONS'
  )
}

/** How many partitions a topic has; 0 if the snapshot lacks it. */
export function partitionsNow (cluster: MirrorView, name: string): number {
  return cluster.topic(name)?.info?.partitions.length ?? 0
}

/** The fields of a topic, by the names that differences use. */
export function topicFieldsNow (cluster: MirrorView, name: string): Record<string, unknown> {
  const topic = cluster.topic(name)
  return {
    exists: topic?.info !== undefined,
    partitions: partitionsNow(cluster, name),
    replicas: topic?.info?.partitions[0]?.replicaNodes ?? null,
    ...settingsOf(topic),
  }
}
