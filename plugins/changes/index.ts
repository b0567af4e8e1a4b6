import { randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { ConfigError } from '../../errors.ts'
import type { Caller } from '../../tools/tool.ts'
import { REPLICA } from '../audit/replica.ts'
import type { ChangesConfig } from '../config/changes.ts'
import { apply, applyForRequester } from './apply.ts'
import type { Progress } from './attempt.ts'
import type { ChangeTool, ChangeView, UnknownChange } from './change.ts'
import { approve, cancel, recompute, type Recomputed, reject, reviewBreakGlass } from './decisions.ts'
import { type ChangeCounters, ChangeFigures, type ChangesState } from './figures.ts'
import { KINDS } from './kinds/index.ts'
import { Ledger } from './ledger/index.ts'
import type { Parts } from './parts.ts'
import { propose } from './propose.ts'
import { getChange, listChanges } from './read.ts'
import { Settler } from './settle.ts'
import type { ChangeState } from './states.ts'
import { SAMPLE_MS, WriteRates } from './write-rates.ts'

export type { Progress } from './attempt.ts'
export type { ChangeView, UnknownChange } from './change.ts'

declare module 'fastify' {
  interface FastifyInstance { changes: RunningChanges }
}

/** How long the mirror is watched for the effect of an ambiguous change. */
const AMBIGUOUS_WATCHED_MS = 15 * 60_000
/** How long the mirror is watched for the end of an effect. */
const APPLIED_WATCHED_MS = 60_000

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
  recompute: (caller: Caller, changeId: string) => Promise<Recomputed>
  /** Whether nobody has used this before, through any replica. It is remembered for longer than it is of use. */
  once: (nonce: string) => Promise<boolean>
  /** The steps of people, who are signed in on a page. */
  approve: (approver: Caller, changeId: string, digest: string, comment: string | null) => Promise<ChangeView>
  /** Applies what the approver has approved, in the name of the requester. */
  applyForRequester: (approver: Caller, changeId: string, digest: string) => Promise<ChangeView>
  reject: (approver: Caller, changeId: string, comment: string | null) => Promise<ChangeView>
  reviewBreakGlass: (approver: Caller, changeId: string, comment: string | null) => Promise<ChangeView>
}

/** The changes of a running service. */
export interface RunningChanges extends Changes {
  readonly state: ChangesState
  readonly counters: ChangeCounters
}

/** Decorates the app with `changes`, if `KAFSCALE_MCP_CHANGES` is `enabled`. */
export default fp(async function changes (app) {
  const settings = app.config.changes
  if (!settings) return
  const ledger = ledgerOf(app, settings)
  const rates = new WriteRates()
  const figures = new ChangeFigures(ledger)
  const parts: Parts = {
    settings: { ...settings, publicUrl: app.config.publicUrl },
    ledger,
    metadata: app.metadata,
    authorize: app.authorize,
    audit: app.audit,
    kafkaAdmin: app.kafkaAdmin,
    brokerControl: app.brokerControl,
    kinds: KINDS,
    writeRate: topic => rates.of(topic),
    async tell (what, { change, approvalUrl }) {
      const delivered = await app.webhook.send(what, change, approvalUrl)
      figures.told(what, delivered)
      return delivered
    },
    onState: view => figures.reached(view),
    log: app.log,
    // A restarted process is another replica, even on the same host.
    replica: `${REPLICA}-${randomBytes(4).toString('hex')}`,
    unsaved: new Map(),
  }
  const changes = changesOf(parts)
  const applying = new Set<Promise<ChangeView>>()
  app.decorate<RunningChanges>('changes', {
    ...changes,
    async apply (...args) {
      const applied = changes.apply(...args)
      applying.add(applied)
      return await applied.finally(() => applying.delete(applied))
    },
    get state () { return figures.state },
    get counters () { return figures.counters },
  })

  const sample = () => {
    if (app.metadata.mirror) rates.sample(app.metadata.mirror, performance.now())
  }
  const sampling = setInterval(sample, SAMPLE_MS).unref()
  app.addHook('onClose', async () => clearInterval(sampling))

  const settler = new Settler(parts)
  app.addHook('onReady', async () => {
    await ledger.probe().catch((error: unknown) => { throw notStarted(settings, error as Error) })
    settler.start()
    figures.start()
  })
  app.addHook('onClose', async () => {
    // What is being applied is finished.
    await Promise.allSettled(applying)
    await Promise.all([settler.stop(), figures.stop()])
    ledger.close()
  })
}, {
  name: 'changes',
  dependencies: ['config', 'metadata', 'audit', 'rbac', 'kafka-admin', 'broker-control', 'webhook'],
})

/** The changes of a service that is made of these parts. */
export function changesOf (parts: Parts): Changes {
  return {
    propose: async (caller, tool, args, signal) => await propose(parts, caller, tool, args, signal),
    apply: async (caller, id, breakGlass, progress) => await apply(parts, caller, id, breakGlass, progress),
    cancel: async (caller, id) => await cancel(parts, caller, id),
    get: async (caller, id) => await getChange(parts, caller, id),
    list: async (caller, filter) => await listChanges(parts, caller, filter),
    recompute: async (caller, id) => await recompute(parts, caller, id),
    once: async nonce => await parts.ledger.once(nonce),
    approve: async (approver, id, digest, comment) => await approve(parts, approver, id, digest, comment),
    applyForRequester: async (approver, id, digest) =>
      await applyForRequester(parts, approver, id, digest, () => {}),
    reject: async (approver, id, comment) => await reject(parts, approver, id, comment),
    reviewBreakGlass: async (approver, id, comment) => await reviewBreakGlass(parts, approver, id, comment),
  }
}

/** The reason why a start fails without its ledger. */
function notStarted ({ ledger: { endpoints } }: ChangesConfig, error: Error): Error {
  return new ConfigError(
    `KAFSCALE_MCP_CHANGES is enabled and the ledger at ${endpoints.join(',')} cannot be used: expected an etcd whose ` +
    'user KAFSCALE_MCP_CHANGES_ETCD_USERNAME can read and write /kafscale-mcp/changes/. ' +
    error.message.replace(/\. Call again.*$/s, '')
  )
}

function ledgerOf ({ log }: FastifyInstance, settings: ChangesConfig): Ledger {
  const lifetimes = {
    planned: settings.plannedLifetimeMs,
    pending: settings.pendingLifetimeMs,
    approved: settings.approvedLifetimeMs,
    ended: settings.retentionMs,
    ambiguous: AMBIGUOUS_WATCHED_MS,
    applied: APPLIED_WATCHED_MS,
  }
  return new Ledger(settings.ledger, lifetimes, error => {
    log.warn({ reason: error.message }, 'the ledger of changes does not answer')
  })
}
