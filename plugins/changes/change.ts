/** A change, as the ledger stores it. Tools return the part of it that `tools/shared/change.ts` publishes. */
import type { AuthMethod } from '../auth/principal.ts'
import type { ChangeState } from './states.ts'

export const CHANGE_TOOLS = [
  'create_topic', 'delete_topic', 'create_partitions', 'update_topic_config', 'delete_group', 'drain_broker',
  'flush_broker',
] as const

/** The tool that proposed a change, and so what the change does. */
export type ChangeTool = typeof CHANGE_TOOLS[number]

/** Every tool that exists only with `KAFSCALE_MCP_CHANGES`. A policy may name them without it, too. */
export const TOOLS_OF_CHANGES: readonly string[] = [
  ...CHANGE_TOOLS, 'apply_change', 'cancel_change', 'list_changes', 'get_change', 'broker_status',
]

/** What a change is about. A broker is named by its node id, as text. */
export interface Resource { kind: 'topic' | 'group' | 'broker', name: string }

/** What the changes of each tool are about. */
export const RESOURCE_KINDS: Readonly<Record<ChangeTool, Resource['kind']>> = {
  create_topic: 'topic',
  delete_topic: 'topic',
  create_partitions: 'topic',
  update_topic_config: 'topic',
  delete_group: 'group',
  drain_broker: 'broker',
  flush_broker: 'broker',
}

/** Who takes a step. The same issuer and subject are the same person, through whatever client. */
export interface Person { subject: string, issuer: string | null, client_id: string | null }

/**
 * Something that the plan relies on, such as that a topic has three partitions. Figures that move all the time are
 * effects instead, so that they never make a plan stale.
 */
export interface Fact { fact: string, subject: string, value: FactValue }
export type FactValue = string | number | boolean | null | readonly (string | number)[]

export interface FieldDiff { field: string, before: unknown, after: unknown }

/** A call of a tool that would reverse a change. */
export interface Undo { tool: ChangeTool, arguments: Record<string, unknown> }

/** What a proposal is, before it becomes a change. */
export interface Plan {
  /** With every default filled in. */
  arguments: Record<string, unknown>
  preconditions: readonly Fact[]
  diff: readonly FieldDiff[]
  /**
   * The blast radius, as numbers with their unit in the name: decimal text beyond 2^53−1. `null` means unknown.
   */
  effects: Readonly<Record<string, number | string | null>>
  warnings: readonly string[]
  undo: Undo | null
  /** Why there is no undo, or what it does not bring back; empty if it brings back everything. */
  undo_note: string
}

export interface Requirement { mode: 'direct' | 'approval', approvals_needed: number }

export interface Approval {
  by: Person
  at: string
  comment: string | null
  /** The digest of what was approved. Apply requires the same. */
  digest: string
}

export interface BreakGlass {
  by: Person
  at: string
  reason: string
  ticket: string
  /** Whether the webhook was delivered, or why not. */
  notified: true | string
  /** Until an approver has reviewed it, nobody can break the glass again. */
  review: { by: Person, at: string, comment: string | null } | null
}

/** What the policy knows of a requester, so that an approver can apply the change in their name. */
export interface Requester {
  method: AuthMethod
  /** `null` if their token had no scope claim. */
  scopes: readonly string[] | null
  /** The claims that give them their roles. */
  claims: Readonly<Record<string, unknown>>
}

/** Written before anything is sent: whoever finds a change in `applying` knows from it what may have happened. */
export interface Execution {
  by: Person
  /** Who applies it in the name of the requester, after approving it on its page. */
  approver?: Person
  /** The replica that holds the lock. */
  replica: string
  started_at: string
  /** host:port of the broker. `null` until one is chosen. */
  broker: string | null
  /** The mirror's revision just before the request was sent; `null` as long as nothing can have been sent. */
  sent_at_revision: number | null
}

export interface Outcome {
  at: string
  /** The revision of the mirror that shows the effect; `null` if none does. */
  revision: number | null
  observed_diff: readonly FieldDiff[]
  /** A code of `errors.ts` or `UNKNOWN`, and what the broker said. */
  error: { code: string, message: string } | null
  /** `true` once nobody can tell any more whether an ambiguous change took effect. */
  abandoned?: true
}

/** Version 1 of the stored form. Other versions are shown and left alone. */
export interface Change extends Plan {
  version: 1
  change_id: string
  state: ChangeState
  tool: ChangeTool
  environment: string | null
  cluster_id: string
  requested_by: Person
  /** RFC 3339, as every time here. */
  requested_at: string
  /** When an open change expires; `null` once it is not open any more. A lease decides, not a clock. */
  expires_at: string | null
  /** The revision of the mirror that the plan was made from. */
  revision: number
  requires: Requirement
  approvals: readonly Approval[]
  rejection: { by: Person, at: string, comment: string | null } | null
  /** Since the requester has asked for approval. */
  requester?: Requester
  break_glass: BreakGlass | null
  execution: Execution | null
  outcome: Outcome | null
  /** SHA-256 (hex) of the canonical JSON of tool, arguments, preconditions and diff. */
  digest: string
}

/** A change as its reader sees it. */
export interface ChangeView {
  change: Change
  /** What to do next, in one sentence that names a tool or a setting. */
  next: string
  /** The page of the change; `undefined` unless it needs an approval and `PUBLIC_URL` is set. */
  approvalUrl: string | undefined
}

/** A stored change of a version that this release does not know: shown, and left alone. */
export interface UnknownChange { change_id: string, version: number }
