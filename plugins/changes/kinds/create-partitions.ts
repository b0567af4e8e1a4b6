import { ChangeImpossible } from '../../../errors.ts'
import { quote } from '../../../lib/printable.ts'
import { checkCapacity } from './capacity.ts'
import {
  clusterFact, CONCURRENT_CHANGES, isSameCluster, listedTopic, observedDiff, OPERATOR_RESTORES, topicFacts,
  visibilityWarnings, when
} from './cluster.ts'
import { topicEffects } from './effects.ts'
import { defineKind } from './kind.ts'
import { checkPartitions, partitionsNow, topicFieldsNow } from './partitions.ts'

interface Arguments { topic: string, partitions: number }

export default defineKind<Arguments>({
  tool: 'create_partitions',
  resource: ({ topic }) => ({ kind: 'topic', name: topic }),

  plan ({ topic: name, partitions }, context) {
    const { cluster } = context
    const topic = listedTopic(cluster, name)
    const before = topic.info.partitions.length
    if (partitions <= before) {
      throw new ChangeImpossible(
        `the topic ${quote(name)} has ${before} partitions, and partitions cannot be removed: ask for a total of more`
      )
    }
    checkPartitions(partitions, context)
    checkCapacity(cluster, {
      from: before, to: partitions, leaderId: cluster.snapshot?.brokers[0]?.nodeId ?? 0
    })
    return {
      arguments: { topic: name, partitions },
      preconditions: [
        clusterFact(cluster),
        ...topicFacts(cluster, name),
        { fact: 'partitions', subject: name, value: before },
      ],
      diff: [{ field: 'partitions', before, after: partitions }],
      effects: { ...topicEffects(name, context), partitions: before, partitions_added: partitions - before },
      warnings: [
        'Keys move to other partitions: records of one key from before and after are in different partitions, so ' +
          'their order is lost.',
        ...when(
          topic.unlistedPartitions > 0,
          'etcd has keys of partitions that the snapshot lacks: their records in S3 come back.'
        ),
        'Clients use the new partitions after their next refresh of the metadata, and groups rebalance.',
        OPERATOR_RESTORES,
        CONCURRENT_CHANGES,
        ...visibilityWarnings(context),
      ],
      undo: null,
      undo_note: 'Partitions cannot be removed: only deleting the topic does, with all committed offsets on it.',
    }
  },

  call: ({ topic, partitions }) => ({ api: 'create_partitions', topic, partitions }),

  observe (change, cluster) {
    const { topic, partitions } = change.arguments as unknown as Arguments
    const isVisible = isSameCluster(change, cluster) && partitionsNow(cluster, topic) >= partitions
    return { visible: isVisible ? 'yes' : 'no', diff: observedDiff(change, topicFieldsNow(cluster, topic)) }
  },
})
