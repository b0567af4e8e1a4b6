import { defineProposal, topicName } from './shared/change.ts'
import { input } from './shared/schema.ts'

export default defineProposal({
  name: 'delete_topic',
  title: 'Propose to delete a topic',
  description:
    'Plans to delete a topic with all committed offsets on it: returns which groups, members and records are ' +
    'affected, and warnings. Changes nothing until apply_change is called with the change_id.',
  input: input({ topic: topicName }),
})
