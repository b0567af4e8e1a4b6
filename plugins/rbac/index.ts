import { readFile } from 'node:fs/promises'
import fp from 'fastify-plugin'
import { quote } from '../../errors.ts'
import { ownEntry } from '../audit/index.ts'
import { ConfigError } from '../config.ts'
import { watchFile } from '../watched-file.ts'
import type { Principal } from '../auth/principal.ts'
import { decide, rolesOf, type Decision, type Operation, type Question } from './decide.ts'
import { NO_POLICY, parsePolicy, PolicyError, type Policy } from './policy.ts'
import { EVERYTHING, seesEverything, type Visibility } from './visibility.ts'

declare module 'fastify' {
  interface FastifyInstance { authorize: Authorizer }
}

/** What roles see of names through a tool is kept until the policy changes, for at most so many names, or pairs of them. */
const MAX_KEPT_NAMES = 100_000

export interface Authorizer {
  /** The roles that the policy gives a principal now. */
  roles: (principal: Principal) => string[]
  /** Whether a principal may call a tool, and on a topic or group where one is named. */
  decide: (principal: Principal, tool: { name: string, operation: Operation }, resource?: { topic?: string, group?: string }) => Decision
  /** What a principal sees of the cluster through a tool. */
  visibility: (principal: Principal, tool: { name: string, operation: Operation }) => Visibility
}

/** Decorates `app.authorize`: the one place that says who may do what. */
export default fp(async function rbac (app) {
  const { policyFile, environment } = app.config
  const closing = new AbortController()
  let policy: Policy = NO_POLICY
  let kept = new Map<string, Kept>()

  if (policyFile !== undefined) {
    const content = await readFile(policyFile)
    policy = firstPolicy(policyFile, content, app.tools.known)
    const reload = async (changed: Buffer) => {
      let warning: string | null = null
      try {
        policy = parsePolicy(changed.toString(), app.tools.known)
        kept = new Map()
      } catch (error) {
        if (!(error instanceof PolicyError)) throw error
        warning = error.message
      }
      app.log[warning === null ? 'info' : 'error']({ mistakes: warning }, warning === null ? 'policy reloaded' : 'the new policy is refused, the old one stays')
      await app.audit.record({ ...ownEntry('policy_reload', warning), outcome: warning === null ? 'ok' : 'error' }).catch(() => {})
    }
    app.addHook('onReady', async () => { watchFile(policyFile, content, reload, closing.signal) })
    app.addHook('onClose', async () => closing.abort())
  }

  const ask = (roles: readonly string[], question: Omit<Question, 'environment'>) => decide(policy, roles, { ...question, environment })

  app.decorate<Authorizer>('authorize', {
    roles: principal => rolesOf(policy, principal),
    decide: (principal, tool, resource = {}) => ask(rolesOf(policy, principal), { tool, ...resource }),
    visibility (principal, tool) {
      const roles = rolesOf(policy, principal)
      if (seesEverything(policy, roles, tool, environment)) return EVERYTHING
      const key = JSON.stringify([tool.name, ...roles])
      const answers = kept.get(key) ?? new Kept()
      kept.set(key, answers)
      const sees = (topic?: string, group?: string) => answers.get(topic, group, () => ask(roles, {
        tool, ...(topic !== undefined && { topic }), ...(group !== undefined && { group })
      }).kind === 'allowed')
      return { everything: false, topic: name => sees(name), group: id => sees(undefined, id), topicsOf: group => topic => sees(topic, group) }
    },
  })
}, { name: 'rbac', dependencies: ['config', 'tool-registry', 'audit'] })

/** Answers about a topic, a group, or a topic of a group; when there are too many, all are forgotten. */
class Kept {
  readonly #answers = new Map<string | undefined, Map<string | undefined, boolean>>()
  #count = 0

  get (topic: string | undefined, group: string | undefined, answer: () => boolean): boolean {
    const known = this.#answers.get(group)?.get(topic)
    return known ?? this.#keep(topic, group, answer())
  }

  #keep (topic: string | undefined, group: string | undefined, answer: boolean): boolean {
    if (this.#count === MAX_KEPT_NAMES) {
      this.#answers.clear()
      this.#count = 0
    }
    const ofGroup = this.#answers.get(group) ?? new Map<string | undefined, boolean>()
    this.#answers.set(group, ofGroup.set(topic, answer))
    this.#count++
    return answer
  }
}

/** @throws {ConfigError} */
function firstPolicy (path: string, content: Buffer, tools: readonly string[]): Policy {
  try {
    return parsePolicy(content.toString(), tools)
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    throw new ConfigError(`KAFSCALE_MCP_POLICY_FILE is ${quote(path)}: expected a policy without mistakes\n${error.message}`)
  }
}
