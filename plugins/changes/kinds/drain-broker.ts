import { brokerFact, UNIMPLEMENTED } from './brokers.ts'
import { clusterFact, listedBroker, visibilityWarnings } from './cluster.ts'
import { brokerEffects } from './effects.ts'
import { defineKind } from './kind.ts'

interface Arguments { node_id: number, deadline_seconds?: number }

export default defineKind<Arguments>({
  tool: 'drain_broker',
  resource: ({ node_id: nodeId }) => ({ kind: 'broker', name: String(nodeId) }),

  plan ({ node_id: nodeId, deadline_seconds: deadlineSeconds }, context) {
    const { cluster } = context
    const broker = listedBroker(cluster, nodeId)
    return {
      arguments: { node_id: nodeId, ...deadlineSeconds !== undefined && { deadline_seconds: deadlineSeconds } },
      preconditions: [clusterFact(cluster), brokerFact(broker)],
      diff: [{ field: 'leases', before: 'held', after: 'released' }],
      effects: brokerEffects(nodeId, context),
      warnings: [
        UNIMPLEMENTED,
        'Other brokers take the partitions over with the next produce to each, and the groups when their members ask ' +
          'again.',
        'A drained broker is not stopped: it takes partitions again when clients produce to it.',
        ...visibilityWarnings(context),
      ],
      undo: null,
      undo_note: 'A broker takes partitions again by itself, with the next produce that reaches it.',
    }
  },

  call: ({ node_id: nodeId, deadline_seconds: deadlineSeconds = null }, { topics }) => ({
    api: 'drain',
    nodeId,
    partitions: topics.flatMap(({ name, partitions }) =>
      [...partitions.values()].filter(({ ownerId }) => ownerId === nodeId)
        .map(({ number }) => ({ topic: name, partition: number }))),
    deadlineSeconds,
  }),

  observe: () => ({ visible: 'never', diff: [] }),
})
