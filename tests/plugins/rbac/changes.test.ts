/** Who may take which step on a change, and what the change needs: pure decisions, by example and by property. */
import fc from 'fast-check'
import t from 'tap'
import type { Principal } from '../../../plugins/auth/principal.ts'
import { CHANGE_TOOLS, type ChangeTool, type Resource, RESOURCE_KINDS } from '../../../plugins/changes/change.ts'
import { scopesOf } from '../../../plugins/config/auth.ts'
import type { Settings } from '../../../plugins/config/schema.ts'
import { decide, decideOn, type Decision, denyByScope, denyUnidentified } from '../../../plugins/rbac/decide.ts'
import { explainChanges } from '../../../plugins/rbac/explain.ts'
import {
  ineffectiveEntries, needsApproval, NO_POLICY, parsePolicy, type Policy, type PolicyOperation, requirementOf
} from '../../../plugins/rbac/policy.ts'
import { anyPolicy, FENCED, name, STEPS } from '../../support/policies.ts'
import { holds } from '../../support/property.ts'

const EXAMPLE = `
roles:
  topic-operator:
    allow: [{ operations: [observe, propose, apply], topics: ["orders-*"], environments: [dev, staging] }]
  triage-agent:   { allow: [{ operations: [observe, propose] }] }
  topic-approver: { allow: [{ operations: [approve], topics: ["orders-*"] }] }
  on-call:        { allow: [{ operations: [break-glass] }] }
bindings: []
changes:
  - { environments: [dev], mode: direct }
  - { environments: [staging], tools: [delete_topic], mode: approval, approvals: 1 }
  - { environments: [production], tools: [delete_topic], mode: closed }
protected: { topics: ["__*"], groups: [] }
`

/** A resource of the kind that a tool changes. */
const resource = (tool: ChangeTool, name: string): Resource => ({ kind: RESOURCE_KINDS[tool], name })

function decision (
  policy: Policy,
  roles: readonly string[],
  operation: PolicyOperation,
  tool: ChangeTool,
  name: string,
  environment: string
): Decision {
  return decideOn(policy, roles, operation, tool, resource(tool, name), environment)
}

/** The rule that denies a step; `undefined` if it is allowed. */
function denied (...question: Parameters<typeof decision>): string | undefined {
  const { kind, rule } = decision(...question)
  return kind === 'denied' ? rule : undefined
}
const rule = (content: object, kind = 'allow') =>
  parsePolicy(JSON.stringify({ roles: { r: { [kind]: [content] } }, bindings: [], changes: [ALL_DIRECT] }), [])
const ALL_DIRECT = { environments: ['*'], mode: 'direct' }

const question = fc.record({
  operation: fc.constantFrom('propose', 'apply', 'approve', 'break-glass') as fc.Arbitrary<PolicyOperation>,
  tool: fc.constantFrom(...CHANGE_TOOLS),
  name,
  environment: fc.oneof(name, fc.constant('default')),
})
const RUNS = 3_000

t.test('each operation is granted by itself', async t => {
  const policy = parsePolicy(EXAMPLE, [])
  const may = (role: string, operation: PolicyOperation, tool: ChangeTool, name: string, environment = 'dev') =>
    denied(policy, [role], operation, tool, name, environment)

  t.equal(may('topic-operator', 'propose', 'create_topic', 'orders-eu'), undefined)
  t.equal(may('topic-operator', 'apply', 'create_topic', 'orders-eu'), undefined)
  t.equal(may('topic-operator', 'apply', 'delete_topic', 'orders-eu', 'staging'), undefined)
  t.equal(may('topic-operator', 'propose', 'create_topic', 'payments'), 'no-rule', 'another topic')
  t.equal(may('topic-operator', 'propose', 'create_topic', 'orders-eu', 'production'), 'no-rule', 'not there')
  t.equal(may('topic-operator', 'approve', 'create_topic', 'orders-eu'), 'no-rule')
  t.equal(may('topic-operator', 'break-glass', 'create_topic', 'orders-eu'), 'no-rule')
  t.equal(may('triage-agent', 'propose', 'drain_broker', '1', 'production'), undefined)
  t.equal(may('triage-agent', 'apply', 'create_topic', 'orders-eu'), 'no-rule')
  t.equal(may('topic-approver', 'approve', 'delete_topic', 'orders-eu', 'production'), undefined)
  t.equal(may('topic-approver', 'approve', 'delete_topic', 'payments', 'production'), 'no-rule')
  t.equal(may('topic-approver', 'propose', 'create_topic', 'orders-eu'), 'no-rule')
  t.equal(may('on-call', 'break-glass', 'create_partitions', 'payments', 'production'), undefined)
  t.equal(may('on-call', 'apply', 'create_partitions', 'payments', 'production'), 'no-rule')
  t.equal(may('observer', 'propose', 'create_topic', 'orders-eu'), 'no-rule')
  t.equal(may('auditor', 'propose', 'create_topic', 'orders-eu'), 'no-rule')
})

t.test('a rule that names something covers changes of nothing else', async t => {
  const covers = (content: object, tool: ChangeTool) =>
    denied(rule({ operations: ['propose'], ...content }), ['r'], 'propose', tool, '1', 'dev') === undefined
  for (const tool of CHANGE_TOOLS) {
    const kind = RESOURCE_KINDS[tool]
    t.ok(covers({}, tool), `${tool}: a rule that names nothing covers everything`)
    t.ok(covers({ [`${kind}s`]: ['*'] }, tool), `${tool}: by kind`)
    t.ok(covers({ [`${kind}s`]: ['1', '2'] }, tool), `${tool}: by name`)
    t.notOk(covers({ [`${kind}s`]: ['2'] }, tool), `${tool}: another name`)
    t.notOk(covers({ [`${kind}s`]: [] }, tool), `${tool}: no name`)
    for (const other of ['topics', 'groups', 'brokers'].filter(list => list !== `${kind}s`)) {
      t.notOk(covers({ [other]: ['*'] }, tool), `${tool}: ${other}`)
    }
  }
  t.notOk(covers({ topics: ['*'], groups: ['*'] }, 'drain_broker'))
  t.notOk(covers({ topics: ['*'], groups: ['*'] }, 'flush_broker'))
  t.ok(covers({ topics: ['*'], brokers: ['*'] }, 'flush_broker'))
})

t.test('a deny rule that names brokers denies only these', async t => {
  const denies = (content: object, tool: ChangeTool, name: string) => {
    const roles = { r: { allow: [{ operations: ['propose'] }], deny: [content] } }
    const policy = parsePolicy(JSON.stringify({ roles, bindings: [], changes: [ALL_DIRECT] }), [])
    return denied(policy, ['r'], 'propose', tool, name, 'dev') === 'r.deny[0]'
  }
  t.ok(denies({ brokers: ['1'] }, 'drain_broker', '1'))
  t.notOk(denies({ brokers: ['1'] }, 'drain_broker', '12'))
  t.notOk(denies({ brokers: ['1'] }, 'create_topic', '1'))
  t.notOk(denies({ topics: ['*'], groups: ['*'] }, 'drain_broker', '1'))
  t.ok(denies({ operations: ['propose'] }, 'drain_broker', '1'), 'a rule that names nothing denies everything')
  t.ok(denies({ operations: ['mutate'] }, 'drain_broker', '1'))
  t.notOk(denies({ operations: ['apply'] }, 'drain_broker', '1'))
  t.ok(denies({ tools: ['drain_broker'] }, 'drain_broker', '1'))
  t.notOk(denies({ tools: ['flush_broker'] }, 'drain_broker', '1'))
})

t.test('an allow rule without operations allows to observe, and mutate means to propose and to apply', async t => {
  const granted = (content: object) => STEPS.filter(({ name: tool, operation }) =>
    denied(rule(content), ['r'], operation, tool, '1', 'dev') === undefined).map(({ operation }) => operation)
  t.strictSame(granted({ environments: ['*'] }), [])
  t.strictSame(new Set(granted({ operations: ['mutate'] })), new Set(['propose', 'apply']))
  t.strictSame(granted({ operations: ['mutate'] }).length, 2 * CHANGE_TOOLS.length)
  t.strictSame(granted({ operations: [] }), [])
})

t.test('the tools of a rule are those that propose the change, also for its later steps', async t => {
  const of = (operations: string[], tools: string[]) => rule({ operations, tools })
  const may = (policy: Policy, operation: PolicyOperation, tool: ChangeTool) =>
    denied(policy, ['r'], operation, tool, '1', 'dev') === undefined
  const call = (policy: Policy, name: string, operation: 'propose' | 'apply') =>
    decide(policy, ['r'], { tool: { name, operation }, environment: 'dev' }).kind === 'allowed'

  for (const operation of ['propose', 'apply', 'approve', 'break-glass'] as const) {
    t.ok(may(of([operation], ['create_topic']), operation, 'create_topic'))
    t.notOk(may(of([operation], ['create_topic']), operation, 'delete_topic'))
  }
  t.ok(call(of(['apply'], ['create_topic']), 'apply_change', 'apply'), 'whoever may apply one may call apply_change')
  t.notOk(call(of(['propose'], ['create_topic']), 'apply_change', 'apply'))
  t.ok(call(of(['propose'], ['create_topic']), 'cancel_change', 'propose'))
  t.ok(may(of(['apply'], ['apply_change']), 'apply', 'delete_topic'), 'apply_change alone stands for all changes')
  t.notOk(may(of(['apply'], ['apply_change', 'create_topic']), 'apply', 'delete_topic'))
  t.notOk(may(of(['propose'], ['apply_change']), 'propose', 'delete_topic'))

  const roles = { r: { allow: [{ operations: ['mutate'] }], deny: [{ tools: ['apply_change'] }] } }
  const denying = parsePolicy(JSON.stringify({ roles, bindings: [], changes: [ALL_DIRECT] }), [])
  t.notOk(may(denying, 'apply', 'create_topic'), 'a rule that denies apply_change denies applying anything')
  t.notOk(call(denying, 'apply_change', 'apply'))
  t.ok(may(denying, 'propose', 'create_topic'))
  const limiting = rule({ operations: ['mutate'] }, 'allow')
  t.ok(call(limiting, 'apply_change', 'apply'))
})

t.test('a call is refused at once if the rules name no resource of its kind', async t => {
  const call = (content: object, name: ChangeTool) =>
    decide(rule({ operations: ['propose'], ...content }), ['r'], {
      tool: { name, operation: 'propose' }, environment: 'dev',
    }).kind
  t.equal(call({ topics: ['orders-*'] }, 'create_topic'), 'allowed')
  t.equal(call({ topics: ['orders-*'] }, 'drain_broker'), 'denied')
  t.equal(call({ topics: ['orders-*'] }, 'delete_group'), 'denied')
})

t.test('what a change needs is the first entry that matches', async t => {
  const policy = parsePolicy(EXAMPLE, [])
  const needs = (tool: ChangeTool, environment: string) => requirementOf(policy, tool, environment)
  const direct = { mode: 'direct', approvals: 0, rule: 'changes[0]' }
  for (const tool of CHANGE_TOOLS) t.strictSame(needs(tool, 'dev'), direct)
  t.strictSame(needs('delete_topic', 'staging'), { mode: 'approval', approvals: 1, rule: 'changes[1]' })
  t.strictSame(needs('delete_topic', 'production'), { mode: 'closed', approvals: 0, rule: 'changes[2]' })

  const standard = { mode: 'approval', approvals: 1, rule: 'changes.default' }
  t.strictSame(needs('create_topic', 'staging'), standard, 'what no entry matches is as in production')
  t.strictSame(needs('create_topic', 'production'), standard)
  t.strictSame(needs('create_topic', 'stagin'), standard, 'an unknown environment')
  t.strictSame(needs('delete_topic', 'stagin'), { mode: 'closed', approvals: 0, rule: 'changes.default' })
  for (const environment of [null, 'default']) {
    t.strictSame(requirementOf(policy, 'create_topic', environment), standard, 'an environment without a name')
  }
  t.strictSame(requirementOf(NO_POLICY, 'flush_broker', 'dev'), standard, 'no entry at all')

  const two = parsePolicy('{ bindings: [], changes: [{ mode: approval, approvals: 2 }, { mode: direct }] }', [])
  t.strictSame(requirementOf(two, 'delete_topic', 'dev'), { mode: 'approval', approvals: 2, rule: 'changes[0]' })
})

t.test('an entry that an earlier one hides has no effect', async t => {
  const ineffective = (...changes: object[]) =>
    ineffectiveEntries(parsePolicy(JSON.stringify({ bindings: [], changes }), []))
  const [mode, dev, prod] = ['direct', ['dev'], ['prod']]
  t.strictSame(ineffective({ mode }, { mode: 'closed', environments: prod }), ['changes[1]'])
  t.strictSame(ineffective({ mode, environments: ['*'] }, { mode: 'closed' }), ['changes[1]'])
  t.strictSame(ineffective({ mode, environments: dev }, { mode, environments: dev, tools: ['create_topic'] }), [
    'changes[1]',
  ])
  t.strictSame(ineffective({ mode, environments: dev }, { mode, environments: prod }, { mode }), [])
  t.strictSame(ineffective({ mode, tools: ['create_topic'] }, { mode: 'closed' }), [])
  t.strictSame(ineffective({ mode, tools: [] }, { mode: 'closed' }), [])
  t.strictSame(ineffectiveEntries(parsePolicy(EXAMPLE, [])), [])
  t.strictSame(ineffectiveEntries({ ...NO_POLICY, changes: 'closed' }), [])
  holds(t, 'in any environment with a name', fc.tuple(anyPolicy, question), ([policy, { tool, environment }]) =>
    environment === 'default' ||
    !ineffectiveEntries(policy).includes(requirementOf(policy, tool, environment).rule), RUNS)
})

t.test('an entry cannot open an environment that nobody named', async t => {
  for (const environments of [undefined, ['*'], ['d*']]) {
    const policy = parsePolicy(JSON.stringify({ bindings: [], changes: [{ environments, mode: 'direct' }] }), [])
    t.strictSame(requirementOf(policy, 'create_topic', 'default').mode, 'approval')
    t.strictSame(requirementOf(policy, 'delete_topic', null).mode, 'closed')
  }
  const closed = parsePolicy('{ bindings: [], changes: [{ tools: [drain_broker], mode: closed }] }', [])
  t.strictSame(requirementOf(closed, 'drain_broker', 'default'), { mode: 'closed', approvals: 0, rule: 'changes[0]' },
    'but it can close one')
  const role = rule({ operations: ['propose'], environments: ['*'] })
  t.equal(denied(role, ['r'], 'propose', 'create_topic', 'a', 'default'), 'no-rule')
  t.equal(denied(role, ['r'], 'propose', 'create_topic', 'a', 'dev'), undefined)
})

t.test('whether any change needs an approval', async t => {
  const policy = parsePolicy(EXAMPLE, [])
  t.equal(needsApproval(policy, 'dev'), false)
  t.equal(needsApproval(policy, 'staging'), true)
  t.equal(needsApproval(policy, 'production'), true)
  t.equal(needsApproval(policy, null), true)
  t.equal(needsApproval(NO_POLICY, 'dev'), true)
  t.equal(needsApproval(policy, 'production', ['delete_topic']), false, 'of the tools that exist')
  t.equal(needsApproval(parsePolicy('{ bindings: [], changes: closed }', []), 'production'), false)
  t.equal(needsApproval(parsePolicy('{ bindings: [], changes: [{ mode: closed }] }', []), 'production'), false)
})

t.test('a denial names its rule, and what would change it', async t => {
  const policy = parsePolicy(EXAMPLE, [])
  const roles = ['triage-agent', 'on-call']
  t.match(decision(policy, roles, 'propose', 'delete_topic', 'orders-eu', 'production'), {
    rule: 'changes[2]', needs: 'a change to changes[2] in the policy, which closes delete_topic here',
  })
  t.match(decision(policy, roles, 'propose', 'delete_topic', 'orders-eu', 'qa'), {
    rule: 'changes.default', needs: 'an entry in changes of the policy: without one, delete_topic is closed',
  })
  t.match(decision(policy, roles, 'propose', 'create_topic', '__audit', 'dev'), {
    rule: 'protected.topics[0]',
    needs: 'a change to protected.topics[0] in the policy, which protects this topic from everyone',
  })
  t.match(decision({ ...policy, changes: 'closed' }, roles, 'propose', 'create_topic', 'orders-eu', 'dev'), {
    rule: 'changes', needs: 'a change to changes in the policy, which stops all changes',
  })
  t.match(decision(policy, ['topic-operator'], 'apply', 'create_topic', 'payments', 'dev'), {
    rule: 'no-rule', needs: 'a role that allows apply for create_topic on this topic',
  })
})

t.test('callers whom the mode does not identify take no step, whatever the policy says', async t => {
  for (const operation of ['propose', 'apply', 'approve', 'break-glass'] as const) {
    for (const method of ['none', 'token'] as const) {
      t.match(denyUnidentified(principal({ method }), { name: 'create_topic', operation }), { rule: 'no-identity' })
    }
    for (const method of ['oidc', 'jwks'] as const) {
      t.equal(denyUnidentified(principal({ method }), { name: 'create_topic', operation }), undefined)
    }
  }
  t.equal(denyUnidentified(principal({ method: 'none' }), { name: 'list_topics', operation: 'observe' }), undefined)
})

t.test('a token with a scope claim needs the scope of the operation', async t => {
  const scopes = scopesOf({ oidcScope: 'kafscale:observe' } as Settings)
  const lacking = (operation: PolicyOperation, ...granted: string[]) =>
    denyByScope(principal({ scopes: new Set(granted) }), { name: 'create_topic', operation }, scopes)
  t.match(lacking('propose', 'kafscale:observe', 'kafscale:apply'), {
    rule: 'no-scope', needs: 'the scope kafscale:propose',
  })
  t.match(lacking('apply', 'kafscale:observe', 'kafscale:propose'), {
    rule: 'no-scope', needs: 'the scope kafscale:apply',
  })
  t.match(lacking('observe', 'kafscale:mutate'), { rule: 'no-scope', needs: 'the scope kafscale:observe' })
  t.match(lacking('break-glass', 'kafscale:propose'), { rule: 'no-scope', needs: 'the scope kafscale:apply' })
  for (const [operation, scope] of [
    ['propose', 'kafscale:propose'], ['apply', 'kafscale:apply'], ['break-glass', 'kafscale:apply'],
    ['propose', 'kafscale:mutate'], ['apply', 'kafscale:mutate'], ['observe', 'kafscale:observe'],
  ] as const) {
    t.equal(lacking(operation, scope), undefined, `${operation} with ${scope}`)
  }
  for (const operation of ['observe', 'propose', 'apply', 'break-glass'] as const) {
    const tool = { name: 'create_topic', operation }
    t.equal(denyByScope(principal({ scopes: undefined }), tool, scopes), undefined, 'no claim')
  }
})

function principal (more: Partial<Principal>): Principal {
  return {
    subject: 'alice',
    issuer: 'https://id.example',
    clientId: null,
    method: 'oidc',
    scopes: undefined,
    tokenId: null,
    expiresAt: null,
    claims: {},
    clientCertificate: null,
    ...more,
  }
}

t.test('nobody takes a step that no rule grants by the name of its operation', async t => {
  holds(t, 'for every policy', fc.tuple(anyPolicy, question), ([policy, { operation, tool, name, environment }]) =>
    denied(policy, ['r'], operation, tool, name, environment) !== undefined ||
    [...policy.roles.values()].some(({ allow }) => allow.some(rule => rule.operations?.includes(operation))), RUNS)
  holds(t, 'and the predefined roles grant none', fc.tuple(anyPolicy, question), ([policy, question]) => {
    const { operation, tool, name, environment } = question
    const roles = new Map([...NO_POLICY.roles, ...policy.roles])
    return denied({ ...policy, roles }, ['observer', 'auditor'], operation, tool, name, environment) !== undefined
  }, RUNS)
})

t.test('what is protected is changed by nobody', async t => {
  holds(t, 'for every policy', fc.tuple(anyPolicy, question), ([policy, { operation, tool, name, environment }]) => {
    const guarded = { ...policy, protected: { topics: [name], groups: [name] } }
    return RESOURCE_KINDS[tool] === 'broker' || !FENCED.has(operation) ||
      denied(guarded, ['r'], operation, tool, name, environment) !== undefined
  }, RUNS)
})

t.test('what is closed stays closed, for break-glass too', async t => {
  holds(t, 'for every policy', fc.tuple(anyPolicy, question), ([policy, { operation, tool, name, environment }]) =>
    !FENCED.has(operation) || requirementOf(policy, tool, environment).mode !== 'closed' ||
    denied(policy, ['r'], operation, tool, name, environment) !== undefined, RUNS)
  holds(t, 'under an emergency stop', fc.tuple(anyPolicy, question), ([policy, question]) => {
    const { operation, tool, name, environment } = question
    return !FENCED.has(operation) ||
      denied({ ...policy, changes: 'closed' }, ['r'], operation, tool, name, environment) !== undefined
  }, RUNS)
})

t.test('an environment without a name is at least as closed as production', async t => {
  holds(t, 'for every policy', fc.tuple(anyPolicy, question), ([policy, { tool }]) => {
    const { mode, approvals } = requirementOf(policy, tool, 'default')
    return mode === 'closed' || (tool !== 'delete_topic' && mode === 'approval' && approvals >= 1)
  }, RUNS)
})

t.test('whoever may take a step on something may call the tool for it', async t => {
  holds(t, 'for every policy', fc.tuple(anyPolicy, question), ([policy, { operation, tool, name, environment }]) => {
    if (denied(policy, ['r'], operation, tool, name, environment) !== undefined) return true
    const call = (name: string, operation: PolicyOperation) =>
      decide(policy, ['r'], { tool: { name, operation }, environment }).kind === 'allowed'
    if (operation === 'propose') return call(tool, 'propose')
    return operation !== 'apply' || call('apply_change', 'apply')
  }, RUNS)
})

t.test('the explanation of a step agrees with the decision on every name', async t => {
  const matches = (globs: readonly string[], name: string) => globs.some(glob =>
    new RegExp(`^${glob.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(name))
  holds(t, 'for every policy', fc.tuple(anyPolicy, question), ([policy, { operation, tool, name, environment }]) => {
    const byRole = (question: Parameters<typeof decide>[2]) => decide(policy, ['r'], question)
    const { steps } = explainChanges(policy, ['r'], environment, byRole).find(each => each.tool === tool) ?? {}
    const step = steps?.find(each => each.operation === operation)
    const list = RESOURCE_KINDS[tool] === 'topic' ? policy.protected.topics : policy.protected.groups
    const isProtected = RESOURCE_KINDS[tool] !== 'broker' && FENCED.has(operation) && matches(list, name)
    const explained = step?.decision.kind === 'allowed' && matches(step.on, name) && !matches(step.except, name)
    return (explained && !isProtected) === (denied(policy, ['r'], operation, tool, name, environment) === undefined)
  }, RUNS)
})
