import { ChangeImpossible } from '../../../errors.ts'
import type { MirrorView } from '../../../kafscale/mirror.ts'
import { quote } from '../../../lib/printable.ts'
import { checkCapacity } from './capacity.ts'
import {
  clusterFact, CONCURRENT_CHANGES, isSameCluster, observedDiff, snapshotOf, topicFacts, visibilityWarnings, when
} from './cluster.ts'
import { topicEffects } from './effects.ts'
import { defineKind, type PlanContext } from './kind.ts'
import { checkTopicName } from './names.ts'
import { checkPartitions, partitionsNow, topicFieldsNow } from './partitions.ts'

interface Arguments { topic: string, partitions: number, replication_factor?: number }

export default defineKind<Arguments>({
  tool: 'create_topic',
  resource: ({ topic }) => ({ kind: 'topic', name: topic }),

  plan ({ topic, partitions, replication_factor: asked }, context) {
    const { cluster } = context
    const { brokers } = snapshotOf(cluster)
    checkTopicName(topic, context)
    if (cluster.topic(topic)?.info) {
      throw new ChangeImpossible(`the topic ${quote(topic)} exists: call describe_topics for its partitions`)
    }
    checkPartitions(partitions, context)
    const replicationFactor = checkedReplicationFactor(asked, brokers.length)
    const leaderId = brokers[0]?.nodeId ?? 0
    checkCapacity(cluster, { topic, from: 0, to: partitions, leaderId })

    const effects = topicEffects(topic, context)
    return {
      arguments: { topic, partitions, replication_factor: replicationFactor },
      preconditions: [
        clusterFact(cluster),
        { fact: 'brokers', subject: 'cluster', value: brokers.map(({ nodeId }) => nodeId) },
        ...topicFacts(cluster, topic),
      ],
      diff: [
        { field: 'exists', before: false, after: true },
        { field: 'partitions', before: 0, after: partitions },
        { field: 'replicas', before: null, after: [leaderId] },
      ],
      effects: { ...effects, partitions },
      warnings: [
        `Whatever the replication factor, each partition gets broker ${leaderId} as its leader and only replica: the ` +
          'records are in S3.',
        returning(context, topic),
        ...when(
          effects['groups_with_commits'] !== 0,
          `Groups with committed offsets on a topic of this name (${effects['groups_with_commits']}) go on from them.`
        ),
        CONCURRENT_CHANGES,
        ...visibilityWarnings(context),
      ],
      undo: { tool: 'delete_topic', arguments: { topic } },
      undo_note: 'Records that are produced until then stay in S3.',
    }
  },

  call: ({ topic, partitions, replication_factor: replicationFactor = 1 }) =>
    ({ api: 'create_topic', topic, partitions, replicationFactor }),

  observe (change, cluster) {
    const { topic, partitions } = change.arguments as unknown as Arguments
    const isVisible = isSameCluster(change, cluster) && partitionsNow(cluster, topic) >= partitions
    return { visible: isVisible ? 'yes' : 'no', diff: observedDiff(change, topicFieldsNow(cluster, topic)) }
  },
})

/** The broker takes any number from 1 to the number of brokers, and ignores it. */
function checkedReplicationFactor (asked: number | undefined, brokers: number): number {
  if (brokers === 0) {
    throw new ChangeImpossible('the snapshot lists no brokers, and without them no topic can be created')
  }
  const replicationFactor = asked ?? brokers
  if (replicationFactor >= 1 && replicationFactor <= brokers) return replicationFactor
  throw new ChangeImpossible(
    `the replication factor ${replicationFactor} is not between 1 and ${brokers}, the number of brokers`
  )
}

function returning ({ cluster }: Pick<PlanContext, 'cluster'>, name: string): string {
  return hasLeftovers(cluster, name)
    ? 'etcd still has keys of an earlier topic of this name: its stored settings apply, its records in S3 come back, ' +
      'and producers go on at the old ends.'
    : 'If there was a topic of this name before, its records are still in S3 and come back: producers go on at the ' +
      'old ends.'
}

function hasLeftovers (cluster: MirrorView, name: string): boolean {
  return cluster.topic(name)?.isUnlisted ?? false
}
