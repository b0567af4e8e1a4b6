import type { MirrorView } from '../../../kafscale/mirror.ts'
import type { ControlCall } from '../../broker-control/index.ts'
import type { AdminCall } from '../../kafka-admin/index.ts'
import type { Change, ChangeTool, FieldDiff, Plan, Resource } from '../change.ts'

/** What a plan is made of besides its arguments. */
export interface PlanContext {
  /** The whole cluster: preconditions do not depend on who asks. */
  cluster: MirrorView
  /** The cluster as the caller may see it: effects count nothing else. */
  visible: MirrorView
  /** `KAFSCALE_MCP_MAX_PARTITIONS`. */
  maxPartitions: number
  /** Records that were written to a topic in one second, recently; `null` if unknown. */
  writeRate: (topic: string) => number | null
}

/** What one kind of change is. Pure: plans, recomputed plans, the request and its visible effect. */
export interface Kind<Arguments = Record<string, unknown>> {
  tool: ChangeTool
  resource: (args: Arguments) => Resource
  /**
   * Plans the change. The result is the same as long as the preconditions hold.
   * @throws {ChangeImpossible} if the cluster does not allow it
   * @throws {MetadataUnavailable} if the stored snapshot cannot be decoded
   */
  plan: (args: Arguments, context: PlanContext) => Plan
  /** What is sent to a broker, when the cluster is like this. */
  call: (args: Arguments, cluster: MirrorView) => AdminCall | ControlCall
  /**
   * What the cluster shows of a change that was sent: the observed difference to `preconditions`, and whether all of
   * the planned effect is there. `visible: 'never'` for a change that leaves no trace in etcd.
   */
  observe: (change: Change, cluster: MirrorView) => { visible: 'yes' | 'no' | 'never', diff: FieldDiff[] }
}

/** Forgets the type of the arguments. Only arguments that the schema of the tool has accepted reach a kind. */
export function defineKind<Arguments> (kind: Kind<Arguments>): Kind {
  return kind as unknown as Kind
}
