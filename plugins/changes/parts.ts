import type { FastifyBaseLogger } from 'fastify'
import type { Mirror } from '../../kafscale/mirror.ts'
import type { Visibility } from '../../kafscale/visible-mirror.ts'
import type { Audit } from '../audit/index.ts'
import type { Principal } from '../auth/principal.ts'
import type { BrokerControl } from '../broker-control/index.ts'
import type { KafkaAdmin } from '../kafka-admin/index.ts'
import type { Decision } from '../rbac/decide.ts'
import type { Requirement } from '../rbac/policy.ts'
import type { ChangeTool, ChangeView, Resource } from './change.ts'
import type { Kind, PlanContext } from './kinds/kind.ts'
import type { Ledger } from './ledger/index.ts'

/** What a principal does with a change. */
export type Step = 'propose' | 'apply' | 'approve' | 'break-glass'

/** The decisions that changes need. */
export interface ChangePolicy {
  roles: (principal: Principal) => readonly string[]
  boundClaims: (principal: Principal) => Principal['claims']
  decide: (principal: Principal, tool: { name: string, operation: 'observe' }) => Decision
  visibility: (principal: Principal, tool: { name: string, operation: 'observe' | 'propose' }) => Visibility
  decideOn: (principal: Principal, step: Step, tool: ChangeTool, resource: Resource) => Decision
  requirement: (tool: ChangeTool) => Requirement
  readonly changesClosed: boolean
}

/** What other people are told of a change. */
export type Telling = 'approval_requested' | 'break_glass' | 'ambiguous' | 'reverted'

/** What the change path is made of. */
export interface Parts {
  settings: {
    expectedClusterId: string
    environment: string | null
    maxPartitions: number
    publicUrl: string | undefined
    plannedLifetimeMs: number
    pendingLifetimeMs: number
    approvedLifetimeMs: number
  }
  ledger: Ledger
  metadata: { readonly mirror: Mirror | undefined, readonly state: string, readonly reason: string | undefined }
  authorize: ChangePolicy
  audit: Pick<Audit, 'recordDurably'>
  kafkaAdmin: KafkaAdmin
  brokerControl: BrokerControl
  kinds: Readonly<Partial<Record<ChangeTool, Kind>>>
  writeRate: PlanContext['writeRate']
  /** Tells people outside of the service. Resolves to `true`, or to the reason why it was not delivered. */
  tell: (what: Telling, view: ChangeView) => Promise<true | string>
  /** Learns of every state that a change reaches. */
  onState: (view: ChangeView) => void
  log: FastifyBaseLogger
  /** Unique to this process. */
  replica: string
  /** What this process knows and could not store, by change and in its order: repeated until it succeeds. */
  unsaved: Map<string, readonly (() => Promise<unknown>)[]>
}
