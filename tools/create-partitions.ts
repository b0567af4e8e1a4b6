import { defineProposal, partitionCount, topicName } from './shared/change.ts'
import { input } from './shared/schema.ts'

export default defineProposal({
  name: 'create_partitions',
  title: 'Propose more partitions',
  description:
    'Plans more partitions for a topic: returns what would happen, its effects and warnings. They can never be ' +
    'removed again. Changes nothing until apply_change is called with the change_id.',
  input: input({ topic: topicName, partitions: partitionCount('New total of partitions, above the present one') }),
})
