import { defineProposal } from './shared/change.ts'
import { groupId, input } from './shared/schema.ts'

export default defineProposal({
  name: 'delete_group',
  title: 'Propose to delete a consumer group',
  description:
    'Plans to delete a consumer group with its members; its committed offsets stay, and live members join again. ' +
    'Returns what would happen. Changes nothing until apply_change is called with the change_id.',
  input: input({ group_id: groupId }),
})
