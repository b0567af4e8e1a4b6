import { change, CHANGE_ERRORS, changeId, changeJson } from './shared/change.ts'
import { input } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'cancel_change',
  title: 'Cancel a change',
  description:
    'Withdraws your change, so that nobody can apply or approve it any more. Works until it is being applied; to ' +
    'reverse a change that was applied, propose its undo.',
  operation: 'propose',
  input: input({ change_id: changeId }),
  output: change,
  errors: [
    'CHANGE_NOT_FOUND', 'CHANGE_UNREADABLE', 'CHANGE_NOT_YOURS', 'CHANGE_EXPIRED', 'CHANGE_ENDED', ...CHANGE_ERRORS,
  ],
  answer: async (_, { change_id: id }, { changes }) => changeJson(await changes.cancel(id)),
})
