import { Type } from '@sinclair/typebox'
import { APPLY_ERRORS, change, changeId, changeJson } from './shared/change.ts'
import { input } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'apply_change',
  title: 'Apply a change',
  description:
    'The only tool that changes the cluster: applies your change once, if the cluster is still as planned and the ' +
    'policy allows it, and returns the outcome. Where an approval is needed, the first call asks for it. Called ' +
    'again, returns the outcome.',
  operation: 'apply',
  input: input({
    change_id: changeId,
    break_glass: Type.Optional(Type.Object({
      reason: Type.String({ maxLength: 1024, description: 'Why this cannot wait for an approval' }),
      ticket: Type.String({ maxLength: 256, description: 'The incident or ticket' }),
    }, { description: 'In an emergency, instead of an approval; alerts people' })),
  }),
  output: change,
  errors: APPLY_ERRORS,
  answer: async (_, { change_id: id, break_glass: breakGlass }, { changes }) =>
    changeJson(await changes.apply(id, breakGlass)),
})
