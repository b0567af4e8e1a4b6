/** A change as the tools publish it, and what the tools that propose one have in common. */
import { type Static, type TObject, Type } from '@sinclair/typebox'
import type { ToolErrorCode } from '../../errors.ts'
import type { ChangeTool, ChangeView, Person } from '../../plugins/changes/change.ts'
import type { ChangeState } from '../../plugins/changes/states.ts'
import { defineTool, type Tool } from '../tool.ts'
import { int64, list, means, nameOf, object, text, textOrNull, words } from './schema.ts'

/** The states in the order of a change's life. */
export const STATES = [
  'planned', 'pending', 'approved', 'applying', 'applied', 'failed', 'ambiguous', 'rejected', 'cancelled', 'expired',
  'stale', 'reverted',
] as const satisfies readonly ChangeState[]

export const changeId = Type.String({ maxLength: 64, description: 'Id of the change' })

/**
 * Objects whose fields the published schema leaves out: eleven tools return a change, and a host may show all of their
 * schemas to a model.
 */
const anyObject = Type.Unsafe<Record<string, unknown>>({ type: 'object' })
const objectOrNull = Type.Unsafe<object | null>({ type: ['object', 'null'] })

/** The fields of a change. */
const fields = {
  change_id: text,
  state: means(words(...STATES), 'Where the change is in its life'),
  tool: means(text, 'The tool that proposed the change, which is what the change does'),
  arguments: means(anyObject, 'Those of the tool, with every default filled in'),
  environment: means(textOrNull, '`KAFSCALE_MCP_ENVIRONMENT`'),
  cluster_id: text,
  requested_by: means(anyObject, '`subject`, `issuer` and `client_id` of the caller, who can apply and cancel it'),
  requested_at: text,
  expires_at: means(textOrNull, '`null` once the change is no longer open'),
  revision: means(int64, 'etcd revision that the plan was made from'),
  preconditions: means(
    list(anyObject),
    'What the plan relies on, as `fact`, `subject` and `value`: if one differs when the change is applied, the plan ' +
      'is stale'
  ),
  diff: means(list(anyObject), 'What the change does, as `field`, `before` and `after`'),
  effects: means(anyObject, 'The blast radius, as numbers; `null` means unknown. They never make a plan stale'),
  warnings: means(list(text), 'What KafScale will really do'),
  undo: means(objectOrNull, '`tool` and `arguments` of the call that would reverse the change; `null` if none does'),
  undo_note: means(text, 'Why there is none, or what it does not bring back'),
  requires: means(
    anyObject,
    '`mode` (`direct` or `approval`) and `approvals_needed`, the approvals by people other than the requester'
  ),
  approvals: means(list(anyObject), '`by`, `at` and `comment` of each'),
  approval_url: means(Type.Optional(text), 'The page where others approve the change'),
  outcome: means(
    Type.Optional(anyObject),
    'What happened: `at`; the etcd `revision` that shows the effect; `observed_diff`; if it failed or is ambiguous, ' +
      '`error` with `code` and `message`. Absent before'
  ),
  next: means(text, 'What to do now'),
}

export const change = object(fields)

/** A change in the form that its readers know. The digest, and what the service needs to carry it out, stay inside. */
export function changeJson ({ change: stored, next, approvalUrl }: ChangeView): Static<typeof change> {
  const { outcome } = stored
  return {
    change_id: stored.change_id,
    state: stored.state,
    tool: stored.tool,
    arguments: stored.arguments,
    environment: stored.environment,
    cluster_id: stored.cluster_id,
    requested_by: personJson(stored.requested_by),
    requested_at: stored.requested_at,
    expires_at: stored.expires_at,
    revision: stored.revision,
    preconditions: stored.preconditions.map(({ fact, subject, value }) => ({ fact, subject, value })),
    diff: stored.diff.map(({ field, before, after }) => ({ field, before, after })),
    effects: stored.effects,
    warnings: [...stored.warnings],
    undo: stored.undo,
    undo_note: stored.undo_note,
    requires: { ...stored.requires },
    approvals: stored.approvals.map(({ by, at, comment }) => ({ by: personJson(by), at, comment })),
    ...approvalUrl !== undefined && { approval_url: approvalUrl },
    ...outcome && {
      outcome: {
        at: outcome.at,
        revision: outcome.revision,
        observed_diff: [...outcome.observed_diff],
        ...outcome.error && { error: outcome.error },
      },
    },
    next,
  }
}

function personJson ({ subject, issuer, client_id: clientId }: Person) {
  return { subject, issuer, client_id: clientId }
}

/** What every step on a change can fail with. */
export const CHANGE_ERRORS = ['LEDGER_UNAVAILABLE'] as const satisfies readonly ToolErrorCode[]

const PROPOSAL_ERRORS = [
  'METADATA_UNAVAILABLE', 'METADATA_STALE', 'CHANGE_IMPOSSIBLE', 'CHANGES_CLOSED', 'CLUSTER_MISMATCH',
  'TOO_MANY_PLANS', 'BROKER_UNREACHABLE', 'BROKER_DENIED', 'BROKER_REFUSED', ...CHANGE_ERRORS,
] as const satisfies readonly ToolErrorCode[]

export const APPLY_ERRORS = [
  'CHANGE_NOT_FOUND', 'CHANGE_UNREADABLE', 'CHANGE_NOT_YOURS', 'CHANGE_EXPIRED', 'CHANGE_ENDED', 'CHANGES_CLOSED',
  'CLUSTER_MISMATCH',
  'METADATA_UNAVAILABLE', 'METADATA_STALE', 'PLAN_STALE', 'APPROVAL_REQUIRED', 'CHANGE_IN_PROGRESS',
  'BREAK_GLASS_UNREVIEWED', 'BROKER_UNREACHABLE', 'BROKER_STALE', 'BROKER_DENIED', 'BROKER_REFUSED',
  'BROKER_UNSUPPORTED', ...CHANGE_ERRORS,
] as const satisfies readonly ToolErrorCode[]

type Proposal<Input extends TObject> = Pick<Tool<Input>, 'title' | 'description' | 'input' | 'listed'> & {
  name: ChangeTool
}

/** A tool that plans a change and stores the plan, and does nothing else. */
export function defineProposal<Input extends TObject> ({ name, ...proposal }: Proposal<Input>) {
  return defineTool({
    ...proposal,
    name,
    operation: 'propose',
    output: change,
    errors: PROPOSAL_ERRORS,
    answer: async (_, query, { changes }) => changeJson(await changes.propose(name, query)),
  })
}

export const topicName = nameOf('Name of the topic')
export const nodeId = Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1, description: 'Node id of the broker' })

/** A number of partitions. The most that a topic may have is a setting, which the plan compares it with. */
export function partitionCount (description: string) {
  return Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1, description })
}
