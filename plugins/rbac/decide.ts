import { matcher } from '../../kafscale/glob.ts'
import type { Principal } from '../auth/principal.ts'
import type { Scopes } from '../config/auth.ts'
import type { Binding, Policy, Rule } from './policy.ts'

export type Operation = 'observe' | 'mutate'

/** May this tool be called in this environment and, if given, see this topic and group? */
export interface Question {
  tool: { name: string, operation: Operation }
  topic?: string
  group?: string
  environment: string
}

/**
 * `rule` names the deciding rule, such as `observer.allow[0]`, or is `no-scope`, `no-role` or `no-rule` when nothing
 * allows the call, and `signed-in` when being signed in is enough. `needs` says what the call requires.
 */
export type Decision =
  | { kind: 'allowed', rule: string }
  | { kind: 'denied', rule: string, needs: string }

/** The rule of a {@link Decision} that denies a call for lack of that scope. */
export const NO_SCOPE = 'no-scope'

/**
 * The roles of a principal. In the modes `token` and `none`, which do not identify the caller, that is `observer`,
 * whatever the policy says.
 */
export function rolesOf (policy: Policy, principal: Principal, scopes: Pick<Scopes, 'observe'>): string[] {
  if (principal.method === 'none' || principal.method === 'token') return ['observer']
  if (policy.bindings === null) return principal.scopes?.has(scopes.observe) ? ['observer'] : []
  const bound = policy.bindings.filter(binding => isBound(binding, principal))
  return [...new Set(bound.map(({ role }) => role))]
}

/** Denies a call whose token lacks the scope, whatever its roles. A token without a scope claim lacks no scope. */
export function denyByScope (
  principal: Principal,
  { operation }: Question['tool'],
  { advertised, ...required }: Scopes
): Decision | undefined {
  const scope = required[operation]
  if (principal.scopes?.has(scope) !== false) return undefined
  const requested = operation === 'observe' ? advertised.join(' ') : scope
  const request = requested === scope ? '' : `, which clients request as ${requested}`
  return { kind: 'denied', rule: NO_SCOPE, needs: `the scope ${scope}${request}` }
}

/** The tool that answers everyone who is signed in: it tells callers why every other call is refused. */
export const EVERYONES_TOOL = 'explain_access'

/** Allows what everyone who is signed in may call, whatever the scopes, the roles and the rules say. */
export function allowEveryone ({ name }: Question['tool'], decision: Decision): Decision {
  return decision.kind === 'denied' && name === EVERYONES_TOOL ? { kind: 'allowed', rule: 'signed-in' } : decision
}

/** Decides by roles alone: at least one rule must allow, and none may deny. */
export function decide (policy: Policy, roles: readonly string[], question: Question): Decision {
  if (roles.length === 0) return { kind: 'denied', rule: 'no-role', needs: 'a binding to a role in the policy' }
  const rules = (kind: 'allow' | 'deny') => roles.flatMap(role =>
    policy.roles.get(role)?.[kind].map((rule, index) => ({ rule, name: `${role}.${kind}[${index}]` })) ?? [])
  const denying = rules('deny').find(({ rule }) => denies(rule, question))
  if (denying) return { kind: 'denied', rule: denying.name, needs: `a change to the rule ${denying.name}` }
  const allowing = rules('allow').find(({ rule }) => allows(rule, question))
  return allowing
    ? { kind: 'allowed', rule: allowing.name }
    : { kind: 'denied', rule: 'no-rule', needs: `a role that allows ${question.tool.name}` }
}

/** Whether these roles hide nothing from a tool that they allow. May be `false` even if they hide nothing. */
export function seesEverything (
  policy: Policy,
  roles: readonly string[],
  { tool, environment }: Pick<Question, 'tool' | 'environment'>
): boolean {
  const rules = (kind: 'allow' | 'deny') =>
    roles.flatMap(role => policy.roles.get(role)?.[kind] ?? []).filter(rule => concerns(rule, { tool, environment }))
  const isAll = (globs: readonly string[] | undefined) => globs === undefined || globs.includes('*')
  return rules('deny').length === 0 && rules('allow').some(({ topics, groups }) => isAll(topics) && isAll(groups))
}

/** Whether a rule applies to the tool in this environment, regardless of topics and groups. */
function concerns (rule: Rule, { tool, environment }: Pick<Question, 'tool' | 'environment'>): boolean {
  return (rule.operations?.includes(tool.operation) ?? true) && (rule.tools?.includes(tool.name) ?? true) &&
    matchesAny(rule.environments, environment, true)
}

function allows (rule: Rule, question: Question): boolean {
  const { topic, group } = question
  return concerns(rule, question) &&
    (topic === undefined || matchesAny(rule.topics, topic, true)) &&
    (group === undefined || matchesAny(rule.groups, group, true))
}

/** A deny rule that names topics or groups denies only those. */
function denies (rule: Rule, question: Question): boolean {
  const { topic, group } = question
  if (!concerns(rule, question)) return false
  if (rule.topics === undefined && rule.groups === undefined) return true
  return (topic !== undefined && matchesAny(rule.topics, topic, false)) ||
    (group !== undefined && matchesAny(rule.groups, group, false))
}

function matchesAny (globs: readonly string[] | undefined, name: string, absent: boolean): boolean {
  return globs === undefined ? absent : globs.some(glob => matcher(glob)(name))
}

function isBound ({ claim, value, issuer }: Binding, { claims, issuer: own }: Principal): boolean {
  if (issuer !== undefined && issuer !== own) return false
  const found = lookUp(claims, claim.split('.'))
  const values = SPLIT_CLAIMS.has(claim) && typeof found === 'string' ? found.split(' ') : [found].flat()
  return [found, ...values].some(each => textOf(each) === String(value))
}

/** Claims whose text is a list of scopes, separated by spaces. */
const SPLIT_CLAIMS = new Set(['scope', 'scp'])

/** The text that a binding's value is compared with; undefined for a list, an object, or an inexact number. */
function textOf (value: unknown): string | undefined {
  if (typeof value === 'string') return value
  return typeof value === 'boolean' || Number.isSafeInteger(value) ? String(value) : undefined
}

/**
 * Finds a claim by a path whose names may contain dots: of the names that the path can begin with, the longest that
 * leads to a value. So a claim whose name is the whole path takes precedence.
 */
function lookUp (value: unknown, path: readonly string[]): unknown {
  if (path.length === 0) return value
  if (typeof value !== 'object' || value === null) return undefined
  for (let length = path.length; length > 0; length--) {
    const name = path.slice(0, length).join('.')
    if (!Object.hasOwn(value, name)) continue
    const found = lookUp(value[name as keyof typeof value], path.slice(length))
    if (found !== undefined) return found
  }
  return undefined
}
