import type { Caller } from '../../tools/tool.ts'
import type { ChangeTool, ChangeView, Plan, UnknownChange } from './change.ts'
import type { ChangeState } from './states.ts'

declare module 'fastify' {
  interface FastifyInstance { changes: Changes }
}

export type { ChangeView, UnknownChange } from './change.ts'

/** Where a step is reported to a client that asked for progress. */
export type Progress = (step: string) => void

/** The changes of the cluster. Does not exist unless `KAFSCALE_MCP_CHANGES` is `enabled`. */
export interface Changes {
  /** Plans a change and stores it. Sends nothing that could change the cluster. */
  propose: (caller: Caller, tool: ChangeTool, args: Record<string, unknown>, signal: AbortSignal) => Promise<ChangeView>
  /** Applies a change once. Called again, returns its outcome. */
  apply: (
    caller: Caller,
    changeId: string,
    breakGlass: { reason: string, ticket: string } | undefined,
    progress: Progress
  ) => Promise<ChangeView>
  cancel: (caller: Caller, changeId: string) => Promise<ChangeView>
  /** @throws {ChangeNotFound} also for a change that the caller may not see */
  get: (caller: Caller, changeId: string) => Promise<ChangeView>
  /** Newest first, as far as the caller may see them. */
  list: (caller: Caller, filter: { state?: ChangeState, topic?: string, group?: string }) =>
  Promise<(ChangeView | UnknownChange)[]>
  /** Recomputes a plan for a page that shows it: what would happen now, and which preconditions no longer hold. */
  recompute: (caller: Caller, changeId: string) => Promise<{ view: ChangeView, plan: Plan | null, drift: string[] }>
  /** The steps of people, who are signed in on a page. */
  approve: (approver: Caller, changeId: string, digest: string, comment: string | null) => Promise<ChangeView>
  reject: (approver: Caller, changeId: string, comment: string | null) => Promise<ChangeView>
  reviewBreakGlass: (approver: Caller, changeId: string, comment: string | null) => Promise<ChangeView>
}
