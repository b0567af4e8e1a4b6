import { readFile } from 'node:fs/promises'
import fp from 'fastify-plugin'
import { ConfigError, PolicyError } from '../../errors.ts'
import { EVERYTHING, type Visibility } from '../../kafscale/visible-mirror.ts'
import { quote } from '../../lib/printable.ts'
import { watchFile } from '../../lib/watched-file.ts'
import { ownEntry } from '../audit/record.ts'
import type { Principal } from '../auth/principal.ts'
import { decide, type Decision, lackedScope, type Question, rolesOf, seesEverything } from './decide.ts'
import { NO_POLICY, parsePolicy, type Policy } from './policy.ts'

declare module 'fastify' {
  interface FastifyInstance { authorize: Authorizer }
}

/** How many decisions on names, or pairs of names, are remembered. */
const MAX_KEPT_NAMES = 100_000

type Callable = Question['tool']

export interface Authorizer {
  /** The roles that the policy gives a principal now. */
  roles: (principal: Principal) => readonly string[]
  /** Whether a principal may call a tool. */
  decide: (principal: Principal, tool: Callable) => Decision
  /** What a principal may see of the cluster through a tool that it may call. */
  visibility: (principal: Principal, tool: Callable) => Visibility
}

/** What the policy means for one principal. Decisions are made when first needed. */
interface Access { roles: readonly string[], decisions: Map<string, Decision> }

/** Decorates `app.authorize`: the only place that decides who may do what. */
export default fp(async function rbac (app) {
  const { policyFile, environment } = app.config
  const closing = new AbortController()
  let policy: Policy = NO_POLICY
  let visibilities = new Map<string, Visibility>()
  let keptNames = 0
  /** Authentication returns the same object for the same token. */
  let accesses = new WeakMap<Principal, Access>()

  if (policyFile !== undefined) {
    const content = await readFile(policyFile)
    policy = firstPolicy(policyFile, content, app.tools.known)
    const reload = async (changed: Buffer) => {
      let warning: string | null = null
      try {
        policy = parsePolicy(changed.toString(), app.tools.known)
        visibilities = new Map()
        keptNames = 0
        accesses = new WeakMap()
      } catch (error) {
        if (!(error instanceof PolicyError)) throw error
        warning = error.message
      }
      app.log[warning === null ? 'info' : 'error'](
        { mistakes: warning },
        warning === null ? 'policy reloaded' : 'the new policy is invalid; the old one stays in effect'
      )
      // A slow sink must not delay the next policy.
      app.audit.record({ ...ownEntry('policy_reload', warning), outcome: warning === null ? 'ok' : 'error' }).catch(
        () => {}
      )
    }
    app.addHook('onReady', async () => { void watchFile(policyFile, content, reload, closing.signal) })
    app.addHook('onClose', async () => closing.abort())
  }

  function accessOf (principal: Principal): Access {
    const known = accesses.get(principal)
    if (known) return known
    const access = { roles: rolesOf(policy, principal), decisions: new Map() }
    accesses.set(principal, access)
    return access
  }

  function keep (): void {
    if (++keptNames <= MAX_KEPT_NAMES) return
    visibilities = new Map()
    keptNames = 0
  }

  function visibilityOf (roles: readonly string[], tool: Callable): Visibility {
    if (seesEverything(policy, roles, { tool, environment })) return EVERYTHING
    const key = JSON.stringify([tool.name, ...roles])
    // These roles belong to the current policy, even if another one is loaded while the call runs.
    const current = policy
    const visibility = visibilities.get(key) ?? remembered((topic, group) => decide(current, roles, {
      tool, environment, ...(topic !== undefined && { topic }), ...(group !== undefined && { group })
    }).kind === 'allowed', keep)
    visibilities.set(key, visibility)
    return visibility
  }

  app.decorate<Authorizer>('authorize', {
    roles: principal => accessOf(principal).roles,
    decide (principal, tool) {
      const { roles, decisions } = accessOf(principal)
      const decision = decisions.get(tool.name) ?? lackedScope(principal, tool) ??
        decide(policy, roles, { tool, environment })
      decisions.set(tool.name, decision)
      return decision
    },
    visibility: (principal, tool) => visibilityOf(accessOf(principal).roles, tool),
  })
}, { name: 'rbac', dependencies: ['config', 'tool-registry', 'audit'] })

/** Decides each name, or pair of names, once. `keep` is called for each decision that is remembered. */
function remembered (sees: (topic?: string, group?: string) => boolean, keep: () => void): Visibility {
  const once = (answer: (name: string) => boolean) => {
    const answers = new Map<string, boolean>()
    return (name: string) => {
      const known = answers.get(name)
      if (known !== undefined) return known
      keep()
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

/** @throws {ConfigError} */
function firstPolicy (path: string, content: Buffer, tools: readonly string[]): Policy {
  try {
    return parsePolicy(content.toString(), tools)
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    throw new ConfigError(
      `KAFSCALE_MCP_POLICY_FILE is ${quote(path)}: expected a valid policy\n${error.message}`
    )
  }
}
