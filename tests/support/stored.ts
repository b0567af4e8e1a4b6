/** Short spellings of what a small cluster stores. */
import type { FastifyInstance } from 'fastify'
import type { Etcd } from './etcd.ts'
import { encodeConsumerGroup } from './generate.ts'
import { caughtUp, fill } from './service.ts'

export interface Stored { key: string, value: string | Buffer }

/** A snapshot with these partitions, by topic, and these brokers. */
export const snapshot = (topics: Record<string, number[]>, brokers: number[] = []): Stored => ({
  key: '/kafscale/metadata/snapshot',
  value: JSON.stringify({
    Brokers: brokers.map(NodeID => ({ NodeID })),
    Topics: Object.entries(topics).map(([Topic, numbers]) =>
      ({ Topic, Partitions: numbers.map(Partition => ({ Partition })) })),
  }),
})
export const end = (topic: string, partition: number, offset: number | string): Stored =>
  ({ key: `/kafscale/topics/${topic}/partitions/${partition}/next_offset`, value: String(offset) })
export const lease = (topic: string, partition: number, nodeId: number): Stored =>
  ({ key: `/kafscale/partition-leases/${topic}/${partition}`, value: String(nodeId) })
export const groupLease = (group: string, nodeId: number): Stored =>
  ({ key: `/kafscale/group-leases/${group}`, value: String(nodeId) })
export const commit = (group: string, topic: string, partition: number, offset: number | string): Stored =>
  ({ key: `/kafscale/consumers/${group}/offsets/${topic}/${partition}`, value: `{"offset":${offset}}` })
export const member = (memberId: string, assignments: Record<string, number[]>, subscriptions: string[] = []) => ({
  memberId,
  subscriptions,
  assignments: Object.entries(assignments).map(([topic, partitions]) => ({ topic, partitions })),
})
export const group = (groupId: string, ...members: ReturnType<typeof member>[]): Stored => ({
  key: `/kafscale/consumers/${groupId}/metadata`,
  value: encodeConsumerGroup({ groupId, state: 'stable', generationId: 3, rebalanceTimeoutMs: 60_000, members }),
})

/** Replaces everything that is stored, and waits until the service has seen that. */
export async function replace (app: FastifyInstance, etcd: Etcd, stored: Stored[]): Promise<void> {
  await etcd.client.delete().all().prefix('/kafscale/').exec()
  await fill(etcd, stored)
  await caughtUp(app, etcd)
}
