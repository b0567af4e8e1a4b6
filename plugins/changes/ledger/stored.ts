/** Changes as etcd stores them: what can be read of a value that somebody may have altered. */
import { type TSchema, Type } from '@sinclair/typebox'
import { Ajv } from 'ajv'
import { type Change, CHANGE_TOOLS, RESOURCE_KINDS } from '../change.ts'
import { CHANGE_STATES } from '../states.ts'

const text = Type.String()
const textOrNull = Type.Union([text, Type.Null()])
const revision = Type.Integer({ minimum: 0 })
const orNull = (schema: TSchema) => Type.Union([schema, Type.Null()])
const oneOf = (values: readonly string[]) => Type.String({ enum: [...values] })
const anyObject = Type.Record(text, Type.Unknown())

const person = Type.Object({ subject: text, issuer: textOrNull, client_id: textOrNull })
const decision = Type.Object({ by: person, at: text, comment: textOrNull })
const diff = Type.Array(Type.Object({ field: text, before: Type.Unknown(), after: Type.Unknown() }))

/** Newer releases may add fields to this version. */
const VERSION_1 = Type.Object({
  version: Type.Literal(1),
  change_id: text,
  state: oneOf(CHANGE_STATES),
  tool: oneOf(CHANGE_TOOLS),
  arguments: anyObject,
  preconditions: Type.Array(Type.Object({ fact: text, subject: text, value: Type.Unknown() })),
  diff,
  effects: Type.Record(text, Type.Union([Type.Number(), text, Type.Null()])),
  warnings: Type.Array(text),
  undo: orNull(Type.Object({ tool: oneOf(CHANGE_TOOLS), arguments: anyObject })),
  undo_note: text,
  environment: textOrNull,
  cluster_id: text,
  requested_by: person,
  requested_at: Type.String({ pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$' }),
  expires_at: textOrNull,
  revision,
  requires: Type.Object({ mode: oneOf(['direct', 'approval']), approvals_needed: Type.Integer({ minimum: 0 }) }),
  approvals: Type.Array(Type.Object({ by: person, at: text, comment: textOrNull, digest: text })),
  rejection: orNull(decision),
  break_glass: orNull(Type.Object({
    by: person,
    at: text,
    reason: text,
    ticket: text,
    notified: Type.Union([Type.Literal(true), text]),
    review: orNull(decision),
  })),
  execution: orNull(Type.Object({
    by: person, replica: text, started_at: text, broker: textOrNull, sent_at_revision: orNull(revision),
  })),
  outcome: orNull(Type.Object({
    at: text,
    revision: orNull(revision),
    observed_diff: diff,
    error: orNull(Type.Object({ code: text, message: text })),
  })),
  digest: text,
})

const isVersion1 = new Ajv({ allowUnionTypes: true }).compile<Change>(VERSION_1)

/** The change with this id, or the version that it is stored in: 0 for a value that no version stores. */
export function decodeChange (id: string, value: string): Change | number {
  const stored = json(value)
  if (isVersion1(stored)) return stored.change_id === id && isNamed(stored) ? stored : 0
  const version = typeof stored === 'object' && stored !== null && 'version' in stored ? stored.version : 0
  return typeof version === 'number' && Number.isSafeInteger(version) && version > 1 ? version : 0
}

/** Whether its arguments say what it is about. */
function isNamed ({ tool, arguments: { topic, group_id: group, node_id: nodeId } }: Change): boolean {
  const name = { topic, group, broker: nodeId }[RESOURCE_KINDS[tool]]
  return RESOURCE_KINDS[tool] === 'broker' ? Number.isSafeInteger(name) : typeof name === 'string'
}

export function json (value: string): unknown {
  try {
    return JSON.parse(value)
  } catch {
    return null
  }
}
