import { matcher } from '../../kafscale/glob.ts'
import type { Principal } from '../auth/principal.ts'
import { type ChangeTool, type Resource, RESOURCE_KINDS } from '../changes/change.ts'
import type { Scopes } from '../config/auth.ts'
import {
  type Binding, isChangeTool, isUnnamed, type Policy, type PolicyOperation, requirementOf, type Rule
} from './policy.ts'

/** What a tool does to the cluster: nothing, nothing yet, or a change. */
export type Operation = Extract<PolicyOperation, 'observe' | 'propose' | 'apply'>

/** May this tool be called in this environment and, if given, see or change this topic, group or broker? */
export interface Question {
  tool: { name: string, operation: PolicyOperation }
  topic?: string
  group?: string
  /** A node id. */
  broker?: string
  environment: string
}

/**
 * `rule` names the deciding rule, such as `observer.allow[0]`, or is `no-scope`, `no-identity`, `no-role` or `no-rule`
 * when nothing allows the call, and `signed-in` when being signed in is enough. What nobody may do is denied by
 * `protected.topics[0]`, `changes[0]`, `changes.default` or `changes`. `needs` says what the call requires.
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

/**
 * What the bindings of a policy find in the claims of a principal: these claims alone give the same roles under it. A
 * binding that is added later finds only what an earlier one has.
 */
export function boundClaims (policy: Policy, principal: Principal): Record<string, (string | boolean)[]> {
  const found = new Map<string, (string | boolean)[]>()
  for (const binding of policy.bindings ?? []) {
    if (isBound(binding, principal)) found.set(binding.claim, [...found.get(binding.claim) ?? [], binding.value])
  }
  return Object.fromEntries(found)
}

/** The scope that each operation requires. Approvals are not given with a token. */
const SCOPE_OF = {
  observe: 'observe', propose: 'propose', apply: 'apply', 'break-glass': 'apply', approve: undefined,
} as const satisfies Record<PolicyOperation, Operation | undefined>

/** Denies a call whose token lacks the scope, whatever its roles. A token without a scope claim lacks no scope. */
export function denyByScope (
  { scopes }: Principal,
  { operation }: Question['tool'],
  { advertised, mutate, ...required }: Scopes
): Decision | undefined {
  const needed = SCOPE_OF[operation]
  if (scopes === undefined || needed === undefined) return undefined
  const scope = required[needed]
  if (scopes.has(scope) || (needed !== 'observe' && scopes.has(mutate))) return undefined
  const requested = needed === 'observe' ? advertised.join(' ') : scope
  const request = requested === scope ? '' : `, which clients request as ${requested}`
  return { kind: 'denied', rule: NO_SCOPE, needs: `the scope ${scope}${request}` }
}

/** The tool that answers everyone who is signed in: it tells callers why every other call is refused. */
export const EVERYONES_TOOL = 'explain_access'

/** Allows what everyone who is signed in may call, whatever the scopes, the roles and the rules say. */
export function allowEveryone ({ name }: Question['tool'], decision: Decision): Decision {
  return decision.kind === 'denied' && name === EVERYONES_TOOL ? { kind: 'allowed', rule: 'signed-in' } : decision
}

/** Denies everything but observing to a caller that the mode does not identify, whatever the policy says. */
export function denyUnidentified ({ method }: Principal, { operation }: Question['tool']): Decision | undefined {
  if (operation === 'observe' || method === 'oidc' || method === 'jwks') return undefined
  return { kind: 'denied', rule: 'no-identity', needs: 'authentication with oidc or jwks, which identifies the caller' }
}

/** Decides by roles alone: at least one rule must allow, and none may deny. */
export function decide (policy: Policy, roles: readonly string[], question: Question): Decision {
  if (roles.length === 0) return { kind: 'denied', rule: 'no-role', needs: 'a binding to a role in the policy' }
  const denying = rulesOf(policy, roles, 'deny').find(({ rule }) => denies(rule, question))
  if (denying) return { kind: 'denied', rule: denying.name, needs: `a change to the rule ${denying.name}` }
  const allowing = rulesOf(policy, roles, 'allow').find(({ rule }) => allows(rule, question))
  if (allowing) return { kind: 'allowed', rule: allowing.name }
  const { name, operation } = question.tool
  const step = operation === 'observe' || operation === 'propose' ? '' : `${operation} for `
  return { kind: 'denied', rule: 'no-rule', needs: `a role that allows ${step}${name}${onWhich(question)}` }
}

/** Decides on a step of a change by roles, and by what nobody may do. `tool` is the one that proposed the change. */
export function decideOn (
  policy: Policy,
  roles: readonly string[],
  operation: PolicyOperation,
  tool: ChangeTool,
  resource: Resource,
  environment: string
): Decision {
  const { kind, name } = resource
  const decision = decide(policy, roles, { tool: { name: tool, operation }, [kind]: name, environment })
  if (decision.kind === 'denied') return decision
  return denyProtected(policy, operation, resource) ?? denyClosed(policy, operation, tool, environment) ?? decision
}

/** Denies a change of what the policy protects, to everyone and whatever their roles. */
function denyProtected (policy: Policy, operation: PolicyOperation, { kind, name }: Resource): Decision | undefined {
  if (!isFenced(operation) || kind === 'broker') return undefined
  const list = `${kind}s` as const
  const index = policy.protected[list].findIndex(glob => matcher(glob)(name))
  const rule = `protected.${list}[${index}]`
  return index === -1 ? undefined : deniedBy(rule, `protects this ${kind} from everyone`)
}

/** Denies a change that the policy closes here, to everyone and whatever their roles. */
export function denyClosed (
  policy: Policy,
  operation: PolicyOperation,
  tool: ChangeTool,
  environment: string
): Decision | undefined {
  if (!isFenced(operation)) return undefined
  const { mode, rule } = requirementOf(policy, tool, environment)
  if (mode !== 'closed') return undefined
  if (policy.changes === 'closed') return deniedBy(rule, 'stops all changes')
  return rule === 'changes.default'
    ? { kind: 'denied', rule, needs: `an entry in changes of the policy: without one, ${tool} is closed` }
    : deniedBy(rule, `closes ${tool} here`)
}

/** Approving is not fenced: a break-glass must be reviewed even after the policy has closed that change. */
function isFenced (operation: PolicyOperation): boolean {
  return operation !== 'observe' && operation !== 'approve'
}

function deniedBy (rule: string, why: string): Decision {
  return { kind: 'denied', rule, needs: `a change to ${rule} in the policy, which ${why}` }
}

/** Whether these roles hide nothing from a tool that they allow. May be `false` even if they hide nothing. */
export function seesEverything (
  policy: Policy,
  roles: readonly string[],
  question: Pick<Question, 'tool' | 'environment'>
): boolean {
  const denying = rulesOf(policy, roles, 'deny').filter(({ rule }) => concerns(rule, question, 'deny'))
  const { tool: { operation } } = question
  return denying.length === 0 && rulesOf(policy, roles, 'allow').some(({ rule }) =>
    concerns(rule, question, 'allow') &&
    (['topic', 'group'] as const).every(kind => namesIn(rule, kind, operation).includes('*')))
}

/** The rules of roles with their names. */
export function rulesOf (policy: Policy, roles: readonly string[], kind: 'allow' | 'deny') {
  return roles.flatMap(role =>
    policy.roles.get(role)?.[kind].map((rule, index) => ({ rule, name: `${role}.${kind}[${index}]` })) ?? [])
}

/** Whether a rule applies to the tool in this environment, regardless of topics, groups and brokers. */
export function concerns (
  rule: Rule,
  { tool, environment }: Pick<Question, 'tool' | 'environment'>,
  kind: 'allow' | 'deny'
): boolean {
  const { operation } = tool
  // Nobody may change anything by a rule that was written for reading.
  const operations = rule.operations ?? (kind === 'allow' ? ['observe'] : [operation])
  if (!operations.includes(operation) || !concernsTool(rule, tool, kind)) return false
  if (rule.environments === undefined) return true
  // A rule that names environments allows no change in one that has no name.
  if (kind === 'allow' && operation !== 'observe' && isUnnamed(environment)) return false
  return rule.environments.some(glob => matcher(glob)(environment))
}

/** `apply_change` stands for the changes that it applies, and they for it. */
function concernsTool ({ tools }: Rule, { name, operation }: Question['tool'], kind: 'allow' | 'deny'): boolean {
  if (tools === undefined || tools.includes(name)) return true
  const namesChanges = tools.some(isChangeTool)
  if (name === 'apply_change' || name === 'cancel_change') return kind === 'allow' && namesChanges
  return isChangeTool(name) && (operation === 'apply' || operation === 'break-glass') &&
    tools.includes('apply_change') && (kind === 'deny' || !namesChanges)
}

/** The names that an allow rule covers. One that names something covers changes of nothing else. */
export function namesIn (rule: Rule, kind: Resource['kind'], operation: PolicyOperation): readonly string[] {
  const names = rule[`${kind}s`]
  if (names !== undefined) return names
  const namesTopicsOrGroups = rule.topics !== undefined || rule.groups !== undefined
  const coversAll = operation === 'observe'
    ? rule.brokers === undefined || namesTopicsOrGroups
    : rule.brokers === undefined && !namesTopicsOrGroups
  return coversAll ? ['*'] : []
}

function allows (rule: Rule, question: Question): boolean {
  const { tool: { name, operation }, topic, group, broker } = question
  const covers = (kind: Resource['kind'], name: string | undefined) =>
    name === undefined || namesIn(rule, kind, operation).some(glob => matcher(glob)(name))
  return concerns(rule, question, 'allow') && covers('topic', topic) && covers('group', group) &&
    covers('broker', broker) && (!isChangeTool(name) || operation === 'observe' ||
      namesIn(rule, RESOURCE_KINDS[name], operation).length > 0)
}

/** A deny rule that names topics, groups or brokers denies only those. */
function denies (rule: Rule, question: Question): boolean {
  const { topic, group, broker } = question
  if (!concerns(rule, question, 'deny')) return false
  const { topics, groups, brokers } = rule
  if (topics === undefined && groups === undefined && brokers === undefined) return true
  return matchesAny(topics, topic) || matchesAny(groups, group) || matchesAny(brokers, broker)
}

function onWhich ({ topic, group, broker }: Question): string {
  if (topic !== undefined) return ' on this topic'
  if (group !== undefined) return ' on this group'
  return broker === undefined ? '' : ' on this broker'
}

function matchesAny (globs: readonly string[] = [], name: string | undefined): boolean {
  return name !== undefined && globs.some(glob => matcher(glob)(name))
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
