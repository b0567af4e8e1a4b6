import { change, CHANGE_ERRORS, changeId, changeJson } from './shared/change.ts'
import { input } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'get_change',
  title: 'Get a change',
  description:
    'One change: its plan, state, approvals and outcome, and what to do next. For an ambiguous change, call it again ' +
    'later: the service watches the cluster until it knows what happened.',
  operation: 'observe',
  input: input({ change_id: changeId }),
  output: change,
  errors: ['CHANGE_NOT_FOUND', 'CHANGE_UNREADABLE', ...CHANGE_ERRORS],
  answer: async (_, { change_id: id }, { changes }) => changeJson(await changes.get(id)),
})
