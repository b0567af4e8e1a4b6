import { Type } from '@sinclair/typebox'
import { defineProposal, nodeId } from './shared/change.ts'
import { input } from './shared/schema.ts'

export default defineProposal({
  name: 'drain_broker',
  title: 'Propose to drain a broker',
  description:
    'Plans to make a broker give up its partitions: returns how many it has, the groups it coordinates, and ' +
    'warnings. Changes nothing until apply_change is called with the change_id.',
  input: input({
    node_id: nodeId,
    deadline_seconds: Type.Optional(Type.Integer({
      minimum: 1, maximum: 3_600, description: 'How long the broker may take; its own default if absent',
    })),
  }),
  listed: { deadline_seconds: null },
})
