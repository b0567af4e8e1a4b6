import fc from 'fast-check'
import t from 'tap'
import type { Principal } from '../../../plugins/auth/principal.ts'
import { decide, type Question, rolesOf as rolesByScope, seesEverything } from '../../../plugins/rbac/decide.ts'
import { isChangeTool, NO_POLICY, parsePolicy, type Policy } from '../../../plugins/rbac/policy.ts'
import { anyPolicy, name, rule, STEPS } from '../../support/policies.ts'
import { holds } from '../../support/property.ts'

const TOOLS = ['list_topics', 'list_groups']
const observe = { name: 'list_topics', operation: 'observe' as const }
const propose = { name: 'create_topic', operation: 'propose' as const }
const environment = 'prod'
const rolesOf = (policy: Policy, principal: Principal) =>
  rolesByScope(policy, principal, { observe: 'kafscale:observe' })

function principal (claims: Record<string, unknown> = {}, more: Partial<Principal> = {}): Principal {
  return {
    subject: 'alice',
    issuer: 'https://id.example',
    clientId: null,
    method: 'oidc',
    scopes: new Set(['kafscale:observe']),
    tokenId: null,
    expiresAt: null,
    claims,
    clientCertificate: null,
    ...more
  }
}

const policy = parsePolicy(`
roles:
  orders-reader:
    allow: [{ operations: [observe], topics: ["orders*"], groups: ["orders-*"] }]
    deny: [{ topics: ["orders-secret"] }]
  admin:
    allow: [{ operations: [observe, mutate] }]
    deny: [{ operations: [mutate], environments: [prod] }]
  lister:
    allow: [{ tools: [list_topics] }]
bindings:
  - { role: orders-reader, claim: groups, value: team-orders }
  - { role: auditor, claim: sub, value: alice, issuer: "https://id.example" }
  - { role: admin, claim: realm_access.roles, value: kafka-admin }
  - { role: lister, claim: scope, value: "kafscale:list" }
`, TOOLS)

const kind = (roles: string[], question: Omit<Question, 'environment'>, where = environment) =>
  decide(policy, roles, { ...question, environment: where }).kind

t.test('bindings map claims to roles', async t => {
  t.strictSame(
    rolesOf(policy, principal({ groups: ['team-x', 'team-orders'] })),
    ['orders-reader'],
    'an array claim that contains the value'
  )
  t.strictSame(rolesOf(policy, principal({ realm_access: { roles: ['kafka-admin'] } })), ['admin'], 'a dotted path')
  t.strictSame(rolesOf(policy, principal({ 'realm_access.roles': 'kafka-admin', realm_access: { roles: [] } })), [
    'admin',
  ], 'the exact name takes precedence over the path')
  t.strictSame(rolesOf(policy, principal({ scope: 'a kafscale:list b' })), ['lister'], 'scope is split at spaces')
  t.strictSame(rolesOf(policy, principal({ groups: 'a team-orders' })), [], 'other claims are not split')
  t.strictSame(rolesOf(policy, principal({ sub: 'alice' })), ['auditor'])
  t.strictSame(
    rolesOf(policy, principal({ sub: 'alice' }, { issuer: 'https://evil.example' })),
    [],
    "another issuer's alice is not bound"
  )
  t.strictSame(rolesOf(policy, principal({ groups: [{ toString: 'team-orders' }], sub: 5 })), [])
  t.strictSame(rolesOf(policy, principal({ constructor: 'x' })), [])
})

const boundBy = (claim: string, value: unknown, claims: object) => {
  const bound = parsePolicy(JSON.stringify({ bindings: [{ role: 'observer', claim, value }] }), TOOLS)
  return rolesOf(bound, principal({ ...claims })).length > 0
}

t.test('claims whose names contain dots are reachable, the longest names first', async t => {
  const keycloak = { resource_access: { 'my.client': { roles: ['reader'] }, my: { client: { roles: ['no'] } } } }
  t.ok(boundBy('resource_access.my.client.roles', 'reader', keycloak))
  t.notOk(boundBy('resource_access.my.client.roles', 'no', keycloak), 'the longer name takes precedence')
  const pod = { 'kubernetes.io': { namespace: 'agents', serviceaccount: { name: 'triage' } } }
  t.ok(boundBy('kubernetes.io.namespace', 'agents', pod))
  t.ok(boundBy('kubernetes.io.serviceaccount.name', 'triage', pod))
  t.ok(boundBy('https://id.example/claims.roles', 'x', { 'https://id.example/claims': { roles: ['x'] } }))
  t.ok(boundBy('a.b.c', 'x', { 'a.b': { d: 1 }, a: { 'b.c': 'x' } }), 'a longer name that leads nowhere is left out')
  t.ok(boundBy('a..b', 'x', { a: { '.b': 'x' } }))
  t.notOk(boundBy('a.b', 'x', { 'a.b': 'y', a: { b: 'x' } }), 'the whole path as a name takes precedence')
  t.notOk(boundBy('a.b', 'x', { 'a.b': null, a: { b: 'x' } }), 'even if its value is null')
  t.notOk(boundBy('a.toString', 'x', { a: {} }))
})

t.test('scope and scp are split at spaces, and only these', async t => {
  for (const claim of ['scope', 'scp']) {
    t.ok(boundBy(claim, 'b', { [claim]: 'a b c' }))
    t.ok(boundBy(claim, 'b', { [claim]: ['a', 'b'] }))
    t.notOk(boundBy(claim, 'b', { [claim]: ['a b'] }))
  }
  t.notOk(boundBy('realm.scp', 'b', { realm: { scp: 'a b' } }))
  t.notOk(boundBy('roles', 'b', { roles: 'a b' }))
})

t.test('booleans and whole numbers match by their text', async t => {
  for (const value of [true, 'true']) {
    t.ok(boundBy('email_verified', value, { email_verified: true }))
    t.ok(boundBy('email_verified', value, { email_verified: 'true' }))
    t.ok(boundBy('flags', value, { flags: ['x', true] }))
    t.notOk(boundBy('email_verified', value, { email_verified: false }))
    for (const other of [1, null, {}, [], [[true]], 'True']) {
      t.notOk(boundBy('email_verified', value, { email_verified: other }), JSON.stringify(other))
    }
  }
  t.ok(boundBy('email_verified', false, { email_verified: false }))
  t.notOk(boundBy('email_verified', false, {}), 'a missing claim is not false')
  t.ok(boundBy('tenant', '42', { tenant: 42 }))
  t.notOk(boundBy('tenant', '9007199254740993', { tenant: JSON.parse('9007199254740993') }), 'inexact')
})

t.test('an unidentified caller is always an observer', async t => {
  for (const method of ['none', 'token'] as const) {
    t.strictSame(rolesOf(policy, principal({ realm_access: { roles: ['kafka-admin'] } }, { method })), ['observer'])
    t.strictSame(rolesOf(NO_POLICY, principal({}, { method, scopes: undefined })), ['observer'])
  }
})

t.test('without a policy, tokens with the scope may observe, and nobody may propose a change', async t => {
  t.strictSame(rolesOf(NO_POLICY, principal()), ['observer'])
  t.strictSame(rolesOf(NO_POLICY, principal({}, { scopes: new Set() })), [])
  t.strictSame(
    rolesOf(NO_POLICY, principal({}, { scopes: undefined })),
    [],
    'a token without a scope claim needs a binding'
  )
  t.equal(decide(NO_POLICY, ['observer'], { tool: observe, environment }).kind, 'allowed')
  t.equal(decide(NO_POLICY, ['observer'], { tool: propose, environment }).kind, 'denied')
})

t.test('a role sees what an allow rule matches and no deny rule does', async t => {
  const roles = ['orders-reader']
  t.equal(kind(roles, { tool: observe }), 'allowed')
  t.equal(kind(roles, { tool: propose }), 'denied')
  t.equal(kind(roles, { tool: observe, topic: 'orders.eu' }), 'allowed')
  t.equal(kind(roles, { tool: observe, topic: 'payments' }), 'denied')
  t.equal(kind(roles, { tool: observe, topic: 'orders-secret' }), 'denied', 'deny wins')
  t.equal(kind(roles, { tool: observe, group: 'orders-1' }), 'allowed')
  t.equal(kind(roles, { tool: observe, group: 'billing' }), 'denied')
  t.equal(kind(roles, { tool: observe, topic: 'orders', group: 'billing' }), 'denied', 'both are needed')
  t.equal(kind(['lister'], { tool: { name: 'list_groups', operation: 'observe' } }), 'denied')
  t.equal(kind(['admin'], { tool: propose }), 'denied', 'proposals in prod are denied')
  t.equal(kind(['admin'], { tool: propose }, 'staging'), 'allowed')
  t.equal(kind(['auditor'], { tool: observe }), 'denied')
})

t.test('a decision names its rule, and a denial what the call requires', async t => {
  t.strictSame(decide(policy, [], { tool: observe, environment }), {
    kind: 'denied',
    rule: 'no-role',
    needs: 'a binding to a role in the policy',
  })
  t.match(decide(policy, ['orders-reader'], { tool: observe, topic: 'orders-secret', environment }), {
    rule: 'orders-reader.deny[0]',
  })
  t.match(decide(policy, ['orders-reader'], { tool: propose, environment }), { rule: 'no-rule', needs: /create_topic/ })
  t.match(decide(policy, ['orders-reader'], { tool: observe, environment }), {
    kind: 'allowed',
    rule: 'orders-reader.allow[0]',
  })
})

const question: fc.Arbitrary<Question> = fc.record({
  tool: fc.constantFrom<Question['tool'][]>(observe, ...STEPS),
  topic: fc.option(name, { nil: undefined }),
  group: fc.option(name, { nil: undefined }),
  broker: fc.option(name, { nil: undefined }),
  environment: fc.oneof(name, fc.constant('default')),
}).map(({ topic, group, broker, ...rest }) => ({
  ...rest,
  ...(topic !== undefined && { topic }),
  ...(group !== undefined && { group }),
  ...(broker !== undefined && { broker }),
}))

t.test('removing an allow rule or adding a deny rule never grants access', async t => {
  holds(t, 'for every policy', fc.tuple(anyPolicy, question, rule, fc.nat(2)), ([policy, question, more, index]) => {
    const role = policy.roles.get('r') ?? { allow: [], deny: [] }
    const less: Policy = { ...policy, roles: new Map([['r', { ...role, allow: role.allow.toSpliced(index, 1) }]]) }
    const denied: Policy = { ...policy, roles: new Map([['r', { ...role, deny: [...role.deny, more] }]]) }
    const may = (policy: Policy) => decide(policy, ['r'], question).kind === 'allowed'
    return may(policy) || (!may(less) && !may(denied))
  }, 3000)
})

t.test('a principal that sees everything is denied nothing', async t => {
  // A broker is part of no answer that is filtered.
  holds(
    t,
    'for every policy',
    fc.tuple(anyPolicy, question),
    ([policy, { broker, ...question }]) =>
      isChangeTool(question.tool.name) ||
      !seesEverything(policy, ['r'], question) ||
      decide(policy, ['r'], question).kind === 'allowed',
    3000
  )
})
