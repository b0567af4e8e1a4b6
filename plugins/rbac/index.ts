import { readFile } from 'node:fs/promises'
import fp from 'fastify-plugin'
import { ConfigError, PolicyError } from '../../errors.ts'
import { EVERYTHING, type Visibility } from '../../kafscale/visible-mirror.ts'
import { quote } from '../../lib/printable.ts'
import { watchFile } from '../../lib/watched-file.ts'
import { ownEntry } from '../audit/record.ts'
import type { Principal } from '../auth/principal.ts'
import type { ChangeTool, Resource } from '../changes/change.ts'
import type { Config } from '../config/read.ts'
import { missingForApprovals } from './approval-prerequisites.ts'
import {
  allowEveryone, boundClaims, decide, decideOn, type Decision, denyByScope, denyUnidentified, EVERYONES_TOOL,
  type Question, rolesOf, seesEverything
} from './decide.ts'
import { type ChangesAccess, explainChanges } from './explain.ts'
import {
  ineffectiveEntries, NO_POLICY, parsePolicy, type Policy, type PolicyOperation, type Requirement, requirementOf,
  saysClosed
} from './policy.ts'

declare module 'fastify' {
  interface FastifyInstance { authorize: Authorizer }
}

/** What the log and the audit record of a reload say about the emergency stop. */
const STOPPED = 'changes: closed stops every proposal and every apply'

/** How many decisions on topics, groups and pairs of them are cached. */
const MAX_CACHED_DECISIONS = 100_000

type Callable = Question['tool']

export interface Authorizer {
  /** The roles of a principal under the current policy. */
  roles: (principal: Principal) => readonly string[]
  /** The claims of a principal that give it its roles under the current policy, and no others. */
  boundClaims: (principal: Principal) => Principal['claims']
  /** Whether a principal may call a tool. */
  decide: (principal: Principal, tool: Callable) => Decision
  /** What a principal may see of the cluster, through a tool that it may call. */
  visibility: (principal: Principal, tool: Callable) => Visibility
  /** Whether a principal may take a step on a change that `tool` proposes or proposed. */
  decideOn: (principal: Principal, operation: PolicyOperation, tool: ChangeTool, resource: Resource) => Decision
  /** What a change needs in this environment before it can be applied. */
  requirement: (tool: ChangeTool) => Requirement
  /** Whether the emergency stop is in effect: `changes: closed`. */
  readonly changesClosed: boolean
  /** What a principal may do with changes, and what nobody may change. */
  explainChanges: (principal: Principal) => ChangesAccess
}

/** What the policy means for one principal. Decisions are cached by tool. */
interface Access { roles: readonly string[], decisions: Map<string, Decision> }

/** Decorates `app.authorize`, the only place that decides who may do what. */
export default fp(async function rbac (app) {
  const { policyFile, environment, scopes } = app.config
  const closing = new AbortController()
  let policy: Policy = NO_POLICY
  let visibilities = new Map<string, Visibility>()
  let cachedDecisions = 0
  // Works as a cache because authentication returns the same object for the same token.
  let accesses = new WeakMap<Principal, Access>()

  if (policyFile !== undefined) {
    const content = await readFile(policyFile)
    policy = firstPolicy(app.config, content, app.tools.known)
    warnOfIneffectiveRules()
    if (policy.changes === 'closed') app.log.warn(STOPPED)
    const reload = async (changed: Buffer) => {
      const wasClosed = policy.changes === 'closed'
      let mistakes: string | null = null
      try {
        policy = parsePolicy(changed.toString(), app.tools.known)
        warnOfIneffectiveRules()
      } catch (error) {
        if (!(error instanceof PolicyError)) throw error
        mistakes = error.message
        if (saysClosed(changed.toString())) policy = { ...policy, changes: 'closed' }
      }
      visibilities = new Map()
      cachedDecisions = 0
      accesses = new WeakMap()
      const isClosed = policy.changes === 'closed'
      if (mistakes === null) app.log.info('policy reloaded')
      else app.log.error({ mistakes }, 'the new policy is invalid; the old one stays in effect')
      const missing = missingForApprovals(policy, app.config)
      if (missing.length > 0) app.log.error({ missing }, 'the policy requires approvals, which nobody can give')
      if (isClosed && !wasClosed) app.log.warn(STOPPED)
      if (wasClosed && !isClosed) app.log.warn('changes are no longer stopped')
      const warning = [...isClosed ? [STOPPED] : [], ...mistakes === null ? [] : [mistakes]].join('\n') || null
      // Not awaited: a slow sink must not delay the next reload.
      app.audit.record({ ...ownEntry('policy_reload', warning), outcome: mistakes === null ? 'ok' : 'error' })
        .catch(() => {})
    }
    app.addHook('onReady', async () => { void watchFile(policyFile, content, reload, closing.signal) })
    app.addHook('onClose', async () => closing.abort())
  }

  function accessOf (principal: Principal): Access {
    const known = accesses.get(principal)
    if (known) return known
    const access = { roles: rolesOf(policy, principal, scopes), decisions: new Map() }
    accesses.set(principal, access)
    return access
  }

  function warnOfIneffectiveRules (): void {
    for (const [role, { deny }] of policy.roles) {
      if (!deny.some(({ tools }) => tools?.includes(EVERYONES_TOOL))) continue
      app.log.warn(
        { role },
        `the policy denies ${EVERYONES_TOOL}, which answers everyone who is signed in: ` +
        'to remove it, name it in KAFSCALE_MCP_DISABLED_TOOLS'
      )
    }
    for (const entry of ineffectiveEntries(policy)) {
      app.log.warn({ entry }, 'an earlier entry of changes matches whatever this one matches, so it has no effect')
    }
  }

  function countDecision (): void {
    if (++cachedDecisions <= MAX_CACHED_DECISIONS) return
    visibilities = new Map()
    cachedDecisions = 0
  }

  function visibilityOf (roles: readonly string[], tool: Callable): Visibility {
    // A plan shows what its caller may observe, and what the caller may change.
    const tools = tool.operation === 'observe' ? [tool] : [{ ...tool, operation: 'observe' as const }, tool]
    if (tools.some(tool => seesEverything(policy, roles, { tool, environment }))) return EVERYTHING
    const key = JSON.stringify([tool.name, ...roles])
    // The roles belong to this policy, even if another one is loaded while the call runs.
    const current = policy
    const visibility = visibilities.get(key) ?? cachedVisibility((topic, group) => tools.some(tool =>
      decide(current, roles, {
        tool, environment, ...(topic !== undefined && { topic }), ...(group !== undefined && { group })
      }).kind === 'allowed'), countDecision)
    visibilities.set(key, visibility)
    return visibility
  }

  /** What is decided before any role: the scopes of a token, and whether it identifies the caller. */
  function denyByToken (principal: Principal, tool: Question['tool']): Decision | undefined {
    return denyByScope(principal, tool, scopes) ?? denyUnidentified(principal, tool)
  }

  app.decorate<Authorizer>('authorize', {
    roles: principal => accessOf(principal).roles,
    boundClaims: principal => boundClaims(policy, principal),
    decide (principal, tool) {
      const { roles, decisions } = accessOf(principal)
      const decision = decisions.get(tool.name) ??
        allowEveryone(tool, denyByToken(principal, tool) ?? decide(policy, roles, { tool, environment }))
      decisions.set(tool.name, decision)
      return decision
    },
    visibility: (principal, tool) => visibilityOf(accessOf(principal).roles, tool),
    decideOn: (principal, operation, tool, resource) =>
      denyByToken(principal, { name: tool, operation }) ??
        decideOn(policy, accessOf(principal).roles, operation, tool, resource, environment),
    requirement: tool => requirementOf(policy, tool, environment),
    get changesClosed () { return policy.changes === 'closed' },
    explainChanges (principal) {
      const { roles } = accessOf(principal)
      const tools = explainChanges(policy, roles, environment, question =>
        denyByToken(principal, question.tool) ?? decide(policy, roles, question))
      return { stopped: policy.changes === 'closed', environment, tools, protected: policy.protected }
    },
  })
}, { name: 'rbac', dependencies: ['config', 'tool-registry', 'audit'] })

/** Decides on each topic, group and pair of them once. `onDecision` is called before a decision is cached. */
function cachedVisibility (sees: (topic?: string, group?: string) => boolean, onDecision: () => void): Visibility {
  const once = (answer: (name: string) => boolean) => {
    const answers = new Map<string, boolean>()
    return (name: string) => {
      const known = answers.get(name)
      if (known !== undefined) return known
      onDecision()
      const found = answer(name)
      answers.set(name, found)
      return found
    }
  }
  const ofGroups = new Map<string, (topic: string) => boolean>()
  return {
    everything: false,
    topic: once(name => sees(name)),
    group: once(id => sees(undefined, id)),
    topicsOf (group) {
      const ofGroup = ofGroups.get(group) ?? once(topic => sees(topic, group))
      ofGroups.set(group, ofGroup)
      return ofGroup
    },
  }
}

/**
 * Parses the policy of a start.
 * @throws {ConfigError} for one that is invalid, or requires approvals that nobody can give
 */
export function firstPolicy (
  config: Config,
  content: Buffer,
  tools: readonly string[]
): Policy {
  try {
    const policy = parsePolicy(content.toString(), tools)
    const missing = missingForApprovals(policy, config)
    if (missing.length > 0) throw new ConfigError(missing.join('\n'))
    return policy
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    throw new ConfigError(
      `KAFSCALE_MCP_POLICY_FILE is ${quote(config.policyFile ?? '')}: expected a valid policy\n${error.message}`
    )
  }
}
