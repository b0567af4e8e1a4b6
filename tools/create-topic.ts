import { Type } from '@sinclair/typebox'
import { defineProposal, partitionCount, topicName } from './shared/change.ts'
import { input } from './shared/schema.ts'

export default defineProposal({
  name: 'create_topic',
  title: 'Propose a new topic',
  description:
    'Plans a new topic: returns what would happen, its effects and warnings. Changes nothing until apply_change is ' +
    'called with the change_id. For more partitions of a topic, use create_partitions.',
  input: input({
    topic: topicName,
    partitions: partitionCount('How many partitions the topic gets'),
    replication_factor: Type.Optional(Type.Integer({
      minimum: 1, maximum: 32_767, description: 'At most, and by default, the number of brokers',
    })),
  }),
  listed: { replication_factor: null },
})
