import { defineProposal, nodeId } from './shared/change.ts'
import { input } from './shared/schema.ts'

export default defineProposal({
  name: 'flush_broker',
  title: 'Propose to flush a broker',
  description:
    'Plans to make a broker write the records that it buffers, of all its partitions, to S3: returns how many ' +
    'partitions that are, and warnings. Changes nothing until apply_change is called with the change_id.',
  input: input({ node_id: nodeId }),
})
