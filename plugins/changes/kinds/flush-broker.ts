import { brokerFact, UNIMPLEMENTED } from './brokers.ts'
import { clusterFact, listedBroker, visibilityWarnings } from './cluster.ts'
import { brokerEffects } from './effects.ts'
import { defineKind } from './kind.ts'

interface Arguments { node_id: number }

export default defineKind<Arguments>({
  tool: 'flush_broker',
  resource: ({ node_id: nodeId }) => ({ kind: 'broker', name: String(nodeId) }),

  plan ({ node_id: nodeId }, context) {
    const { cluster } = context
    const broker = listedBroker(cluster, nodeId)
    return {
      arguments: { node_id: nodeId },
      preconditions: [clusterFact(cluster), brokerFact(broker)],
      diff: [{ field: 'buffered_records', before: 'in memory', after: 'in S3' }],
      effects: brokerEffects(nodeId, context),
      warnings: [
        UNIMPLEMENTED,
        'The broker writes a segment to S3 for each partition that it has buffered records of, however few these are.',
        ...visibilityWarnings(context),
      ],
      undo: null,
      undo_note: 'Nothing needs to be undone: a flush only writes earlier what the broker writes anyway.',
    }
  },

  call: ({ node_id: nodeId }) => ({ api: 'flush', nodeId }),

  observe: () => ({ visible: 'never', diff: [] }),
})
