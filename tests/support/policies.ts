/** Any policy, with few names, so that rules and questions meet. */
import fc from 'fast-check'
import { CHANGE_TOOLS } from '../../plugins/changes/change.ts'
import type { Policy, PolicyOperation, Rule } from '../../plugins/rbac/policy.ts'

/** Every step on every change. */
export const STEPS = (['propose', 'apply', 'approve', 'break-glass'] as const).flatMap(operation =>
  CHANGE_TOOLS.map(name => ({ name, operation })))

/** The steps that what is closed or protected denies. */
export const FENCED: ReadonlySet<PolicyOperation> = new Set(['propose', 'apply', 'break-glass'])

const someGlobs = fc.array(fc.constantFrom('*', 'a*', 'b', '?'), { minLength: 1, maxLength: 2 })
const globs = fc.option(someGlobs, { nil: undefined })
const operation = fc.constantFrom('observe' as const, 'propose' as const, 'apply' as const, 'approve' as const,
  'break-glass' as const)
const NAMED_TOOLS = [
  'list_topics', 'list_groups', 'create_topic', 'delete_group', 'drain_broker', 'apply_change', 'cancel_change',
]
export const rule: fc.Arbitrary<Rule> = fc.record({
  operations: fc.option(fc.uniqueArray(operation), { nil: undefined }),
  tools: fc.option(fc.subarray(NAMED_TOOLS), { nil: undefined }),
  topics: globs,
  groups: globs,
  brokers: globs,
  environments: globs,
}).map(rule => Object.fromEntries(Object.entries(rule).filter(([, value]) => value !== undefined)) as Rule)
const role = fc.record({ allow: fc.array(rule, { maxLength: 3 }), deny: fc.array(rule, { maxLength: 3 }) })
const entry = fc.record({
  environments: someGlobs,
  tools: fc.subarray([...CHANGE_TOOLS]),
  mode: fc.constantFrom('direct' as const, 'approval' as const, 'closed' as const),
  approvals: fc.integer({ min: 1, max: 3 }),
}, { requiredKeys: ['mode'] })
export const anyPolicy: fc.Arbitrary<Policy> = fc.record({
  role,
  changes: fc.oneof({ weight: 9, arbitrary: fc.array(entry, { maxLength: 3 }) }, {
    weight: 1, arbitrary: fc.constant('closed' as const),
  }),
  protected: fc.record({ topics: fc.oneof(fc.constant([]), someGlobs), groups: fc.oneof(fc.constant([]), someGlobs) }),
}).map(({ role, ...rest }) => ({ roles: new Map([['r', role]]), bindings: [], ...rest }))
export const name = fc.constantFrom('a', 'ab', 'b', 'c')
