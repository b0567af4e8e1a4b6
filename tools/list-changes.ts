import { Type } from '@sinclair/typebox'
import { InvalidArgument } from '../errors.ts'
import type { ChangeView, UnknownChange } from '../plugins/changes/change.ts'
import type { ChangeState } from '../plugins/changes/states.ts'
import { change, CHANGE_ERRORS, changeJson, STATES } from './shared/change.ts'
import { paginate } from './shared/paging.ts'
import { input, integer, list, means, nameOf, object, page, paged, text } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'list_changes',
  title: 'List changes',
  description:
    'Changes that were proposed, newest first, with plan, state, approvals and outcome. Shows what is waiting ' +
    '(pending), and what nobody knows the outcome of (ambiguous). For one of them, use get_change.',
  operation: 'observe',
  input: input({
    state: Type.Optional(Type.String({
      maxLength: 256, description: 'planned, pending, approved, applied, failed, ambiguous, …'
    })),
    topic: Type.Optional(nameOf('Only changes of this topic')),
    group_id: Type.Optional(nameOf('Only changes of this group')),
    ...page,
  }),
  listed: { topic: null, group_id: null, limit: null, cursor: null },
  output: object({
    changes: list(change),
    other_versions: means(
      Type.Optional(list(object({ change_id: text, version: integer }))),
      'Changes that another release of the service has stored in a form that this one does not know; it leaves them ' +
      'alone. Absent if there are none'
    ),
    ...paged,
  }),
  rows: { list: 'changes' },
  errors: ['INVALID_CURSOR', ...CHANGE_ERRORS],
  async answer (_, query, { changes }) {
    const { topic, group_id: group, state } = query
    const found = await changes.list({
      ...state !== undefined && { state: stateOf(state) },
      ...topic !== undefined && { topic },
      ...group !== undefined && { group },
    })
    const known = found.filter(isKnown).sort(newestFirst)
    const others = found.flatMap(view => isKnown(view) ? [] : view).slice(0, MAX_OTHERS)
    const { rows, ...rest } = paginate('list_changes', query, known, positionOf)
    return {
      changes: rows.map(changeJson),
      ...others.length > 0 && { other_versions: others },
      ...rest,
    }
  },
})

/** So many are enough to see that there are some. */
const MAX_OTHERS = 100

/** @throws {InvalidArgument} */
function stateOf (text: string): ChangeState {
  const state = STATES.find(state => state === text.toLowerCase())
  if (state === undefined) throw new InvalidArgument(`"state" must be one of ${STATES.join(', ')}`)
  return state
}

function isKnown (view: ChangeView | UnknownChange): view is ChangeView {
  return 'change' in view
}

function positionOf ({ change }: ChangeView): [number, string] {
  return [-Date.parse(change.requested_at), change.change_id]
}

function newestFirst (a: ChangeView, b: ChangeView): number {
  const [[atA, idA], [atB, idB]] = [positionOf(a), positionOf(b)]
  return atA - atB || (idA < idB ? -1 : 1)
}
