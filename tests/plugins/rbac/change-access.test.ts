/** Authorization of changes in the whole service: scopes, the emergency stop, and what `explain_access` tells. */
import { writeFileSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { AuditEntry } from '../../../plugins/audit/record.ts'
import { ANONYMOUS, LOCAL, type Principal, STATIC_TOKEN } from '../../../plugins/auth/principal.ts'
import { CHANGE_TOOLS, RESOURCE_KINDS } from '../../../plugins/changes/change.ts'
import { authority, clientOf } from '../../support/authorization.ts'
import { buildTestApp, legacy, modern, startService, tool } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

/** How long a change of the policy file may take to have an effect. */
const RELOAD_BOUND_MS = 5_000
const STEPS = ['propose', 'apply', 'approve', 'break-glass'] as const

const ROLES = `
roles:
  operator:
    allow: [{ operations: [observe, propose, apply], topics: ["orders-*"] }]
    deny: [{ topics: ["*-secret"] }]
  approver: { allow: [{ operations: [approve], topics: ["orders-*"] }] }
  on-call:  { allow: [{ operations: [break-glass] }] }
bindings:
  - { role: operator, claim: sub, value: alice }
  - { role: approver, claim: sub, value: bob }
  - { role: on-call, claim: sub, value: alice }
`
const CHANGES = `
changes:
  - { environments: [dev], tools: [create_topic], mode: direct }
  - { environments: [dev], tools: [create_partitions], mode: approval, approvals: 2 }
  - { environments: [dev], tools: [drain_broker], mode: closed }
protected: { topics: ["*-ledger"], groups: [billing] }
`
const POLICY = ROLES + CHANGES

/** Declares tools that stand for those of changes. */
function declareTools (app: FastifyInstance): void {
  for (const name of CHANGE_TOOLS) app.tools.declare(tool({ name, operation: 'propose' }))
  app.tools.declare(tool({ name: 'apply_change', operation: 'apply' }))
}

function principal (subject: string): Principal {
  return { ...ANONYMOUS, method: 'jwks', subject, issuer: 'https://issuer.example', claims: { sub: subject } }
}

t.test('a token with a scope claim needs the scope of the operation, and a role', async t => {
  const { env, token, policyFile } = await authority(t)
  const app = await buildTestApp(t, {
    ...env, KAFSCALE_MCP_POLICY_FILE: policyFile(POLICY), KAFSCALE_MCP_ENVIRONMENT: 'dev',
  })
  declareTools(app)
  /** The status of a call of each tool, and the scopes that the refusal asks for. */
  const call = async (claims: object, tool: string, form = modern) => {
    const client = clientOf(app, await token('alice', { ...claims }), form)
    const { statusCode, headers } = await client.request('tools/call', { name: tool, arguments: {} })
    return statusCode === 200 ? 'answered' : /scope="([^"]*)"$/.exec(String(headers['www-authenticate']))?.[1]
  }
  for (const form of [modern, legacy]) {
    const of = async (scope: string, tool: string) => await call({ scope }, tool, form as typeof modern)
    const [observe, propose, apply] = ['kafscale:observe', 'kafscale:propose', 'kafscale:apply']
    t.equal(await of(`${observe} ${propose}`, 'create_topic'), 'answered')
    t.equal(await of(`${observe} ${propose} ${apply}`, 'apply_change'), 'answered')
    t.equal(await of(`${observe} kafscale:mutate`, 'create_topic'), 'answered')
    t.equal(await of(`${observe} kafscale:mutate`, 'apply_change'), 'answered')
    t.equal(await call({}, 'apply_change', form as typeof modern), 'answered', 'a token without a scope claim')

    t.equal(await of(observe, 'create_topic'), `${observe} ${propose}`, 'the client keeps the scopes that it has')
    t.equal(await of(`openid ${observe} ${propose}`, 'apply_change'), `${observe} ${propose} ${apply}`)
    t.equal(await of(apply, 'create_topic'), `${propose} ${apply}`)
    t.equal(await of('kafscale:mutate', 'list_topics'), `${observe} kafscale:mutate`)
    t.equal(await of('openid', 'apply_change'), apply)
  }
  const client = clientOf(app, await token('carol', { scope: 'kafscale:observe kafscale:mutate' }))
  t.match(await client.call('create_topic'), { content: [{ text: /^PERMISSION_DENIED: .* a binding to a role/ }] })
  t.notOk((await client.tools()).some(({ name }) => name === 'create_topic'))
})

t.test('a caller without an identity takes no step', async t => {
  const app = await buildTestApp(t)
  declareTools(app)
  for (const caller of [ANONYMOUS, LOCAL, STATIC_TOKEN]) {
    for (const name of CHANGE_TOOLS) {
      for (const operation of STEPS) {
        t.match(app.authorize.decideOn(caller, operation, name, { kind: RESOURCE_KINDS[name], name: '1' }), {
          kind: 'denied', rule: 'no-identity', needs: 'authentication with oidc or jwks, which identifies the caller',
        })
      }
      t.equal(app.authorize.decide(caller, { name, operation: 'propose' }).rule, 'no-identity')
    }
    t.equal(app.authorize.decide(caller, { name: 'apply_change', operation: 'apply' }).rule, 'no-identity')
  }
  t.match(await clientOf(app).call('create_topic'), { isError: true, content: [{ text: /^PERMISSION_DENIED/ }] })
})

t.test('an emergency stop', async t => {
  const { env, policyFile, recorded } = await authority(t)
  const path = policyFile(POLICY)
  const app = await buildTestApp(t, { ...env, KAFSCALE_MCP_POLICY_FILE: path, KAFSCALE_MCP_ENVIRONMENT: 'dev' })
  await app.ready()
  const [alice, bob] = [principal('alice'), principal('bob')]
  const topic = { kind: 'topic', name: 'orders-eu' } as const
  const rules = () => STEPS.map(operation =>
    app.authorize.decideOn(operation === 'approve' ? bob : alice, operation, 'create_topic', topic).rule)
  const allowed = ['operator.allow[0]', 'operator.allow[0]', 'approver.allow[0]', 'on-call.allow[0]']
  const stopped = ['changes', 'changes', 'approver.allow[0]', 'changes']
  const direct = { mode: 'direct', approvals: 0, rule: 'changes[0]' }
  const becomes = async (closed: boolean) => {
    await waitFor(() => app.authorize.changesClosed === closed, RELOAD_BOUND_MS, `closed: ${closed}`)
  }
  const reload = async (text: string): Promise<AuditEntry> => {
    const { length: before } = recorded('policy_reload')
    writeFileSync(path, text)
    await waitFor(() => recorded('policy_reload').length > before, RELOAD_BOUND_MS, 'the record of the reload')
    return recorded('policy_reload').at(-1) as AuditEntry
  }
  const WARNING = 'changes: closed stops every proposal and every apply'

  t.strictSame(rules(), allowed)
  t.strictSame(app.authorize.requirement('create_topic'), direct)

  t.test('stops every proposal, apply and break-glass within 5 s, and leaves the reviews', async t => {
    writeFileSync(path, `${ROLES}changes: closed\n`)
    await becomes(true)
    t.strictSame(rules(), stopped)
    for (const tool of CHANGE_TOOLS) {
      t.strictSame(app.authorize.requirement(tool), { mode: 'closed', approvals: 0, rule: 'changes' })
    }
    await waitFor(() => recorded('policy_reload').length === 1, RELOAD_BOUND_MS, 'the record of the reload')
    t.match(recorded('policy_reload')[0], { outcome: 'ok', warning: WARNING })
  })

  t.test('is not lifted by a file with mistakes', async t => {
    t.match(await reload(`${POLICY}roles: 5\n`), { outcome: 'error', warning: new RegExp(`^${WARNING}\nline `) })
    t.equal(app.authorize.changesClosed, true)
  })

  t.test('is lifted by a file without it', async t => {
    t.match(await reload(POLICY), { outcome: 'ok', warning: null })
    t.strictSame(rules(), allowed)
    t.strictSame(app.authorize.requirement('create_topic'), direct)
  })

  t.test('takes effect from a file with mistakes, such as when it was added to the other entries', async t => {
    t.match(await reload(`${POLICY}changes: closed\n`), {
      outcome: 'error', warning: new RegExp(`^${WARNING}\nline \\d+: Map keys must be unique$`),
    })
    t.strictSame(rules(), stopped)
    t.strictSame(app.authorize.decide(alice, { name: 'list_topics', operation: 'observe' }).kind, 'allowed')
  })
})

t.test('a start during an emergency stop says so', async t => {
  const { env, policyFile } = await authority(t)
  const service = startService(t, { ...env, KAFSCALE_MCP_POLICY_FILE: policyFile(`${ROLES}changes: closed\n`) })
  await service.url
  t.match(service.output.stderr, /"msg":"changes: closed stops every proposal and every apply"/)
})

t.test('explain_access', async t => {
  const { env, token, policyFile } = await authority(t)
  const path = policyFile(POLICY)
  const app = await buildTestApp(t, { ...env, KAFSCALE_MCP_POLICY_FILE: path, KAFSCALE_MCP_ENVIRONMENT: 'dev' })
  const ask = async (claims: object = {}, input = {}) =>
    await clientOf(app, await token('alice', { ...claims })).ask('explain_access', input) as {
      changes?: { tools: { name: string, steps: { operation: string, allowed: boolean }[] }[] }
    }
  t.notOk('changes' in await ask(), 'says nothing of changes where no tool proposes any')

  declareTools(app)
  const { changes } = await ask()
  t.match(changes, { stopped: false, environment: 'dev', protected: { topics: ['*-ledger'], groups: ['billing'] } })
  t.strictSame(changes?.tools.map(({ name }) => name), CHANGE_TOOLS)
  const of = async (tool: string, claims?: object) => (await ask(claims, { tool })).changes?.tools

  const yes = { allowed: true, needs: null, on: ['orders-*'], except: ['*-secret'] }
  const no = { allowed: false, on: [], except: [] }
  const glass = { operation: 'break-glass', allowed: true, rule: 'on-call.allow[0]', needs: null, on: ['*'] }
  t.strictSame(await of('create_topic'), [{
    name: 'create_topic',
    mode: 'direct',
    approvals_needed: 0,
    rule: 'changes[0]',
    steps: [
      { operation: 'propose', ...yes, rule: 'operator.allow[0]' },
      { operation: 'apply', ...yes, rule: 'operator.allow[0]' },
      { operation: 'approve', ...no, rule: 'no-rule', needs: 'a role that allows approve for create_topic' },
      { ...glass, except: ['*-secret'] },
    ],
  }], 'shows what the caller may do, on what, and by which rule')
  t.match(await of('create_partitions'), [{ mode: 'approval', approvals_needed: 2, rule: 'changes[1]' }])
  t.match(await of('update_topic_config'), [{ mode: 'approval', approvals_needed: 1, rule: 'changes.default' }])
  t.match(await of('delete_topic'), [{
    mode: 'closed',
    rule: 'changes.default',
    steps: [
      { operation: 'propose', ...no, rule: 'changes.default' },
      { operation: 'apply', ...no, rule: 'changes.default' },
      { operation: 'approve', ...no },
      { operation: 'break-glass', ...no, rule: 'changes.default' },
    ],
  }], 'and what nobody may do here')
  t.match(await of('drain_broker'), [{
    mode: 'closed',
    rule: 'changes[2]',
    steps: [{ rule: 'no-rule' }, { rule: 'no-rule' }, {}, { rule: 'changes[2]' }],
  }])
  t.match(await of('create_topic', { scope: 'kafscale:observe' }), [{
    steps: [{ ...no, rule: 'no-scope', needs: 'the scope kafscale:propose' }, { ...no, rule: 'no-scope' }],
  }])
  t.equal((await of('apply_change'))?.length, CHANGE_TOOLS.length, 'a tool that proposes nothing is about all changes')

  writeFileSync(path, `${ROLES}changes: closed\n`)
  await waitFor(() => app.authorize.changesClosed, RELOAD_BOUND_MS, 'the emergency stop')
  t.match((await ask()).changes, { stopped: true })
  t.match(await of('create_topic'), [{
    mode: 'closed', rule: 'changes', steps: [{ rule: 'changes', needs: /which stops all changes$/ }],
  }])
})

t.test('a proposal shows what its caller may observe, and what the caller may change', async t => {
  const { env, policyFile } = await authority(t)
  const app = await buildTestApp(t, {
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile({
      roles: {
        viewer: { allow: [{ operations: ['observe'], topics: ['public-*'], groups: ['g*'] }] },
        proposer: { allow: [{ operations: ['propose'], topics: ['orders-*'] }], deny: [{ topics: ['orders-x'] }] },
        all: { allow: [{ operations: ['propose'] }] },
      },
      bindings: ['viewer', 'proposer', 'all'].map(role => ({ role, claim: role, value: true })),
    }),
    KAFSCALE_MCP_ENVIRONMENT: 'dev',
  })
  const visibility = (...roles: string[]) => app.authorize.visibility(
    { ...principal('alice'), claims: Object.fromEntries(roles.map(role => [role, true])) },
    { name: 'delete_topic', operation: 'propose' }
  )
  const both = visibility('viewer', 'proposer')
  t.strictSame(['public-a', 'orders-a', 'orders-x', 'payments'].map(both.topic), [true, true, false, false])
  t.strictSame(['g1', 'billing'].map(both.group), [true, false], 'a rule for topics shows no group')
  t.ok(both.topicsOf('g1')('public-a'))
  t.notOk(both.everything)
  t.ok(visibility('viewer', 'all').everything)
})
