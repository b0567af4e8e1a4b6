import fc from 'fast-check'
import { stringify } from 'yaml'
import { PolicyError } from '../../../../errors.ts'
import { CHANGE_TOOLS } from '../../../../plugins/changes/change.ts'
import { parsePolicy, type Policy, type Rule, saysClosed } from '../../../../plugins/rbac/policy.ts'
import type { Target } from '../target.ts'

const TOOLS = ['list_topics', 'describe_group']
const OPERATIONS = ['observe', 'propose', 'apply', 'approve', 'break-glass']
const RULE_KEYS = ['operations', 'tools', 'topics', 'groups', 'brokers', 'environments']
const ENTRY_KEYS = ['environments', 'tools', 'mode', 'approvals']
const KNOWN_KEYS = new Set([
  ...RULE_KEYS, ...ENTRY_KEYS, 'roles', 'bindings', 'allow', 'deny', 'role', 'claim', 'value', 'issuer', 'changes',
  'protected',
])

// --- Policies that are valid

const name = fc.oneof(
  fc.constantFrom('a', 'orders-reader', 'Team A', '__proto__', 'constructor', 'größe'),
  fc.string({ minLength: 1 })
).filter(text => text !== 'observer' && text !== 'auditor')
const glob = fc.oneof(fc.constantFrom('*', 'orders*', 'a?c'), fc.string({ minLength: 1 }))
const globs = fc.array(glob, { maxLength: 3 })
const rule = fc.record({
  operations: fc.subarray([...OPERATIONS, 'mutate']),
  tools: fc.subarray(TOOLS),
  topics: globs,
  groups: globs,
  brokers: globs,
  environments: globs,
}, { requiredKeys: [] }).filter(rule => Object.keys(rule).length > 0)
const rules = fc.array(rule, { maxLength: 3 })
const fields = { tools: fc.subarray([...CHANGE_TOOLS]), environments: globs }
const entry = fc.oneof(
  fc.record({ ...fields, mode: fc.constantFrom('direct', 'closed') }, { requiredKeys: ['mode'] }),
  fc.record({ ...fields, mode: fc.constant('approval'), approvals: fc.integer({ min: 1, max: 10 }) }, {
    requiredKeys: ['mode'],
  })
).filter(({ environments = [], mode }) => mode === 'closed' || !environments.includes('default'))
const policy = fc.record({
  roles: fc.uniqueArray(fc.tuple(name, fc.record({ allow: rules, deny: rules }, { requiredKeys: [] })), {
    maxLength: 3,
    selector: ([name]) => name,
  }).map(roles => Object.fromEntries(roles)),
  bindings: fc.array(
    fc.record({ role: fc.constant('observer'), claim: name, value: fc.string(), issuer: fc.string() }, {
      requiredKeys: ['role', 'claim', 'value'],
    }),
    { maxLength: 3 }
  ),
  changes: fc.oneof(fc.array(entry, { maxLength: 3 }), fc.constant('closed')),
  protected: fc.record({ topics: globs, groups: globs }, { requiredKeys: [] }),
}, { requiredKeys: ['bindings'] })

// --- What is wrong with them

/** Letters that a schema may overlook in a name: line breaks, what cannot be seen, what JavaScript objects inherit. */
const key = fc.oneof(
  fc.constantFrom('topcs', 'alow', 'Topics', 'topics ', 'topics\n', '', '<<', '__proto__', 'constructor', '0'),
  fc.string({ unit: fc.constantFrom('\n', '\r', '\u2028', '\0', '\u200b', 'a', ' ', ':', '"') }),
  fc.string({ unit: 'binary' })
).filter(key => !KNOWN_KEYS.has(key))
const value = fc.oneof(fc.constantFrom(null, [], {}, 1, 'x', ['*']), rules, fc.jsonValue())

/** Every object of a policy whose keys are fixed, and so all but the one of the roles. */
function objectsOf (content: Content): Fields[] {
  const roles = Object.values(content.roles ?? {})
  return [
    content, ...content.bindings, ...roles, ...roles.flatMap(({ allow = [], deny = [] }) => [...allow, ...deny]),
    ...Array.isArray(content.changes) ? content.changes : [], ...content.protected ? [content.protected] : [],
  ]
}

type Fields = Record<string, unknown>

interface Content extends Fields {
  roles?: Record<string, Fields & { allow?: Fields[], deny?: Fields[] }>
  bindings: Fields[]
  changes?: Fields[] | 'closed'
  protected?: Fields
}

/** Names of roles that cannot be printed. */
const hiddenName = fc.tuple(fc.string(), fc.constantFrom('\n', '\t', '\0', '\u2028', '\u200b', '\ufe0f'), fc.string())
  .map(parts => parts.join(''))

const text = (content: unknown, asYaml: boolean) =>
  asYaml ? stringify(content, { aliasDuplicateObjects: true }) : JSON.stringify(content)

/** The policy, or undefined when it is refused. Whatever else the parser throws is a finding. */
function parse (text: string): Policy | undefined {
  const stops = saysClosed(text)
  try {
    const policy = parsePolicy(text, TOOLS)
    if (stops !== (policy.changes === 'closed')) throw new Error('the emergency stop is read in two ways')
    return policy
  } catch (error) {
    if (error instanceof PolicyError) return undefined
    throw error
  }
}

/** Whether a loaded policy consists of nothing but what a policy can have. */
function isSound ({ roles, bindings, changes, protected: guarded }: Policy): boolean {
  const only = (value: object, keys: string[]) => Object.keys(value).every(key => keys.includes(key))
  const isRule = ({ operations = [], ...lists }: Rule) =>
    only(lists, RULE_KEYS) && Object.values(lists).every(Array.isArray) &&
    operations.every(operation => OPERATIONS.includes(operation))
  return [...roles].every(([name, role]) =>
    !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(name) && only(role, ['allow', 'deny']) &&
    [...role.allow, ...role.deny].every(isRule)
  ) &&
    (bindings ?? []).every(binding => only(binding, ['role', 'claim', 'value', 'issuer'])) &&
    (changes === 'closed' || changes.every(entry => only(entry, ENTRY_KEYS))) &&
    only(guarded, ['topics', 'groups']) && Object.values(guarded).every(Array.isArray)
}

/** YAML with what JSON does not have: tags, anchors, merge keys, directives, other keys than strings. */
const fragments = [
  'roles:', 'bindings: []', '\n', '  ', ' ', 'a:', 'allow:', '- ', '{', '}', '[', ']', ', ', 'topics: [x]',
  'topcs: [x]', '!!set ', '!!omap ', '!!merge ', '!x ', '&a ', '*a', '<<: ', '? ', ': ', '%YAML 1.1\n---\n', '---\n',
  'changes: ', 'closed', 'mode: direct', 'protected: ', '"a\\nb": ', '1: ', 'null: ', '~', '| ', '> ', '#', '"', "'",
  '\t',
]
const yaml = fc.array(fc.constantFrom(...fragments), { maxLength: 30 }).map(parts => parts.join(''))

export default {
  name: 'policy',
  run (seed) {
    const options = { seed, numRuns: 200 }
    fc.assert(
      fc.property(policy, fc.boolean(), (content, asYaml) => parse(text(content, asYaml)) !== undefined),
      options
    )
    fc.assert(
      fc.property(policy, key, value, fc.nat(), fc.boolean(), (content, key, value, place, asYaml) => {
        const changed = structuredClone(content) as Content
        const objects = objectsOf(changed)
        const object = objects[place % objects.length] as object
        Object.defineProperty(object, key, { value, enumerable: true })
        return parse(text(changed, asYaml)) === undefined
      }),
      options
    )
    fc.assert(
      fc.property(policy, hiddenName, fc.boolean(), (content, name, asYaml) => {
        const roles = { ...content.roles, [name]: { allow: [{ topics: ['x'] }] } }
        return parse(text({ ...content, roles }, asYaml)) === undefined
      }),
      options
    )
    fc.assert(
      fc.property(fc.oneof(yaml, yaml.map(text => `roles: ${text}\nbindings: []`), fc.string()), text => {
        const policy = parse(text)
        return policy === undefined || isSound(policy)
      }),
      options
    )
  },
} satisfies Target
