/** Authorization in the whole service: scopes, roles, disabled tools, and reloads of the policy. */
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { LightMyRequestResponse } from 'fastify'
import t from 'tap'
import { formatKey } from '../../../demo/encode.ts'
import { authority, type Client, clientOf } from '../../support/authorization.ts'
import { needsEtcd, startEtcd } from '../../support/etcd.ts'
import { random } from '../../support/generate.ts'
import { buildSyncedApp, buildTestApp, fill, legacy, modern, startService, tool } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const TOOLS = [
  'cluster_metrics',
  'cluster_status',
  'consumer_lag',
  'describe_configs',
  'describe_group',
  'describe_topics',
  'explain_access',
  'fetch_offsets',
  'list_groups',
  'list_topics',
]
/** Arguments that match the schema. */
const inputOf = (tool: string) => ['describe_group', 'fetch_offsets'].includes(tool) ? { group_id: 'g' } : {}
const names = async (client: Client) => (await client.tools()).map(({ name }) => name)
const codeOf = ({ _meta: meta }: Awaited<ReturnType<Client['call']>>) =>
  (meta?.['kafscale-mcp/error'] as { code: string } | undefined)?.code

const RELOAD_BOUND_MS = 5_000

/** How a call is refused; `undefined` if it reaches the tool. */
async function refusal (client: Client, tool: string): Promise<string | undefined> {
  const response = await client.request('tools/call', { name: tool, arguments: inputOf(tool) })
  if (response.statusCode !== 200) return `HTTP ${response.statusCode}`
  const code = codeOf(response.json().result)
  return code === 'PERMISSION_DENIED' ? code : undefined
}

t.test('without a policy file', async t => {
  const { env, token, recorded } = await authority(t)
  const app = await buildTestApp(t, env)

  t.test('a token with the scope may observe', async t => {
    for (const scope of ['kafscale:observe', 'openid kafscale:observe email']) {
      const client = clientOf(app, await token('alice', { scope }))
      t.strictSame(await names(client), TOOLS)
      for (const tool of TOOLS) t.equal(await refusal(client, tool), undefined, tool)
      t.strictSame((await client.ask('explain_access'))['roles'], ['observer'])
    }
  })

  t.test('a token that lacks the scope is told which one to request, and the denial is recorded', async t => {
    const { length: before } = recorded('tool_call')
    for (
      const claims of [{ scope: 'openid' }, { scope: '' }, { scp: ['openid'] }, { scope: 'kafscale:admin' }, {
        scope: 'KAFSCALE:OBSERVE',
      }]
    ) {
      const client = clientOf(app, await token('bob', claims))
      t.match(
        await client.request('tools/call', { name: 'list_topics', arguments: { pattern: 'a*' } }),
        insufficientScope,
        JSON.stringify(claims)
      )
      t.strictSame(await names(client), ['explain_access'])
    }
    const denials = recorded('tool_call').slice(before)
    t.equal(denials.length, 5)
    for (const denial of denials) {
      t.match(denial, {
        who: { subject: 'bob', method: 'jwks' },
        what: { tool: 'list_topics', operation: 'observe', arguments: { pattern: 'a*' } },
        decision: 'denied',
        rule: 'no-scope',
        outcome: 'denied',
        error_code: 'INSUFFICIENT_SCOPE',
        result: null,
      })
    }
  })

  t.test('no form of request bypasses the scope', async t => {
    const authorization = `Bearer ${await token('bob', { scope: 'openid' })}`
    const post = async (form: typeof modern | typeof legacy, payload: string) => {
      const { headers, url } = form('tools/call', { name: 'list_topics' })
      return await app.inject({ method: 'POST', url, headers: { ...headers, authorization }, payload })
    }
    const { payload: call } = legacy('tools/call', { name: 'list_topics', arguments: {} })
    const ping = { jsonrpc: '2.0', id: 2, method: 'ping' }
    const bodies = [call, [call], [ping, call], [null, call], [call, { ...call, id: 3 }], {
      ...call,
      params: { ...call.params, _meta: { progressToken: 1 } },
    }]
    for (const body of bodies) {
      t.match(await post(legacy, JSON.stringify(body)), insufficientScope, JSON.stringify(body))
    }
    for (const form of [modern, legacy]) {
      const text = JSON.stringify(form('tools/call', { name: 'list_topics', arguments: {} }).payload)
      for (
        const disguised of [
          ` \n${text}`,
          `\ufeff${text}`,
          text.replace('list_topics', 'list\\u005ftopics'),
          text.replace('{', '{"method":"ping",'),
        ]
      ) {
        t.match(await post(form, disguised), insufficientScope, disguised)
      }
      for (const broken of [`\ufeff\ufeff${text}`, `${text}\u0000`, `${text}${text}`, `\u00a0${text}`]) {
        t.match(await post(form, broken), { statusCode: 400 }, JSON.stringify(broken.slice(0, 2)))
      }
      for (
        const odd of [
          'null',
          '[null]',
          '[]',
          '5',
          '"tools/call"',
          '',
          '{"method":"tools/call"}',
          '{"method":"tools/call","params":null}',
        ]
      ) {
        t.match((await post(form, odd)).statusCode, 400, odd)
      }
    }
  })

  t.test('a token without a scope claim is denied, because it needs a binding', async t => {
    const client = clientOf(app, await token('system:serviceaccount:agents:triage', {}))
    t.strictSame(await names(client), ['explain_access'])
    for (const tool of TOOLS.filter(name => name !== 'explain_access')) {
      t.equal(await refusal(client, tool), 'PERMISSION_DENIED', tool)
    }
  })
})

const insufficientScope = {
  statusCode: 403,
  headers: {
    'www-authenticate':
      'Bearer error="insufficient_scope", ' +
      'error_description="The token lacks a scope. The call requires: kafscale:observe.", ' +
      'resource_metadata="https://kafscale-mcp.example/.well-known/oauth-protected-resource/mcp", scope="kafscale:observe"',
  },
} satisfies Partial<LightMyRequestResponse>

t.test('with a policy file, only its bindings count', async t => {
  const { env, token, policyFile, recorded } = await authority(t)
  const policy = policyFile(`
roles:
  lister:
    allow: [{ tools: [list_topics, explain_access] }]
bindings:
  - { role: lister, claim: groups, value: team }
  - { role: lister, claim: sub, value: "system:serviceaccount:agents:triage" }
  - { role: auditor, claim: sub, value: carol }
`)
  const app = await buildTestApp(t, { ...env, KAFSCALE_MCP_POLICY_FILE: policy })

  t.test('a scope alone allows nothing', async t => {
    const client = clientOf(app, await token('alice'))
    t.strictSame(await names(client), ['explain_access'])
    t.match(await client.call('list_topics'), {
      isError: true,
      content: [{
        text:
          'PERMISSION_DENIED: You are not allowed to call list_topics. ' +
          'It requires a binding to a role in the policy. ' +
          'Call explain_access to see what you may call.',
      }],
      _meta: { 'kafscale-mcp/error': { code: 'PERMISSION_DENIED', retryable: false } },
    })
  })

  t.test('a role alone allows nothing if the token has other scopes', async t => {
    const client = clientOf(app, await token('alice', { scope: 'openid', groups: ['team'] }))
    t.match(await client.request('tools/call', { name: 'list_topics', arguments: {} }), insufficientScope)
  })

  t.test('a token without a scope claim may do what its binding allows', async t => {
    const client = clientOf(app, await token('system:serviceaccount:agents:triage', {}))
    t.strictSame(await names(client), ['explain_access', 'list_topics'])
    t.equal(await refusal(client, 'list_topics'), undefined)
    t.equal(await refusal(client, 'list_groups'), 'PERMISSION_DENIED')
  })

  t.test('an auditor may call no tool but explain_access', async t => {
    const client = clientOf(app, await token('carol'))
    t.strictSame(await names(client), ['explain_access'])
    t.equal(await refusal(client, 'list_topics'), 'PERMISSION_DENIED')
    t.strictSame((await client.ask('explain_access'))['roles'], ['auditor'])
  })

  t.test('explain_access answers everyone who is signed in', async t => {
    const needs = async (claims: object) => {
      for (const form of [modern, legacy]) {
        const client = clientOf(app, await token('dora', { ...claims }), form)
        t.strictSame(await names(client), ['explain_access'], JSON.stringify(claims))
        const { tools } = await client.ask('explain_access') as {
          tools: { name: string, allowed: boolean, rule: string, needs: string | null }[]
        }
        t.match(tools.find(({ name }) => name === 'explain_access'), { allowed: true, rule: 'signed-in', needs: null })
        const denied = tools.filter(({ name }) => name !== 'explain_access')
        t.ok(denied.every(({ allowed }) => !allowed))
        if (form === legacy) return [...new Set(denied.map(({ needs }) => needs))]
      }
    }
    t.strictSame(await needs({ scope: 'kafscale:observe' }), ['a binding to a role in the policy'])
    t.strictSame(await needs({}), ['a binding to a role in the policy'])
    t.strictSame(await needs({ scope: '' }), ['the scope kafscale:observe'])
    t.strictSame(await needs({ scp: ['openid'], groups: ['team'] }), ['the scope kafscale:observe'])
    t.match(recorded('tool_call').at(-1), {
      what: { tool: 'explain_access' }, decision: 'allowed', rule: 'signed-in', outcome: 'ok',
    })
    t.equal((await clientOf(app).request('tools/call', { name: 'explain_access', arguments: {} })).statusCode, 401)
  })

  t.test('explain_access shows what the caller may and may not call, and why', async t => {
    const { principal, roles, tools } = await clientOf(
      app,
      await token('alice', { scope: 'kafscale:observe', groups: ['team'], azp: 'agent' })
    ).ask('explain_access')
    t.strictSame(principal, { subject: 'alice', issuer: 'https://issuer.example', client_id: 'agent', method: 'jwks' })
    t.strictSame(roles, ['lister'])
    t.strictSame(tools, TOOLS.map(name => ['explain_access', 'list_topics'].includes(name)
      ? { name, allowed: true, rule: 'lister.allow[0]', needs: null }
      : { name, allowed: false, rule: 'no-rule', needs: `a role that allows ${name}` }))
  })

  t.test('the input of a denied call is not examined', async t => {
    const client = clientOf(app, await token('alice'))
    t.equal(codeOf(await client.call('list_topics', { limit: 0 })), 'PERMISSION_DENIED')
    t.equal(codeOf(await client.call('describe_group', {})), 'PERMISSION_DENIED')
  })

  t.test('concurrent callers with the same request id each get their own answer', async t => {
    const clients = await Promise.all(
      [{ groups: 'nobody' }, { groups: 'team' }].map(async claims => clientOf(app, await token('alice', claims)))
    )
    for (const [index, list] of (await Promise.all([...clients, ...clients, ...clients].map(names))).entries()) {
      t.equal(list.length, index % 2 === 0 ? 1 : 2)
    }
  })
})

t.test('the answer of tools/list may be cached only for its caller', async t => {
  const { env, token } = await authority(t)
  const app = await buildTestApp(t, env)
  const client = clientOf(app, await token('alice'))
  t.match((await client.request('tools/list')).json(), { result: { cacheScope: 'private' } })
})

t.test('tools/list, tools/call and explain_access agree for every principal and tool', async t => {
  const { env, token, policyFile } = await authority(t)
  const from = random(1)
  const some = <T>(values: readonly T[]) => from.chance(0.4) ? {} : { some: from.some(values, 1 + from.int(4)) }
  const rule = () => {
    const { some: tools } = some(TOOLS)
    const { some: operations } = some(['observe', 'propose', 'apply', 'mutate'])
    const { some: environments } = some(['prod', 'p*', 'test', '*'])
    return {
      ...tools && { tools },
      ...operations && { operations },
      ...environments && { environments },
      ...from.chance(0.3) && { topics: ['a*'] },
      ...from.chance(0.1) && { groups: [] },
    }
  }
  const rules = (most: number) =>
    Array.from({ length: from.int(most) }, rule).filter(rule => Object.keys(rule).length > 0)
  const roles = Object.fromEntries(
    Array.from({ length: 40 }, (_, index) => [`role-${index}`, { allow: rules(5), deny: rules(3) }])
  )
  const bindings = Object.keys(roles).map(role => ({ role, claim: 'roles', value: role }))
  const app = await buildTestApp(t, {
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile({ roles, bindings }),
    KAFSCALE_MCP_ENVIRONMENT: 'prod',
  })
  let allowed = 0
  for (let principal = 0; principal < 40; principal++) {
    const held = from.some(Object.keys(roles), from.int(3))
    const bearer = await token(`alice-${principal}`, {
      roles: held,
      ...from.chance(0.7) && { scope: from.chance(0.8) ? 'kafscale:observe' : 'openid' },
    })
    for (const form of [modern, legacy]) {
      const client = clientOf(app, bearer, form)
      const listed = await names(client)
      const callable = []
      for (const tool of TOOLS) if (await refusal(client, tool) === undefined) callable.push(tool)
      t.strictSame(listed, callable, held.join())
      const { tools } = await client.ask('explain_access') as {
        tools: { name: string, allowed: boolean, needs: string | null }[]
      }
      t.strictSame(tools.filter(({ allowed }) => allowed).map(({ name }) => name), callable, 'explain_access')
      t.strictSame(
        tools.filter(({ allowed, needs }) => allowed === (needs !== null)),
        [],
        'every denial says what the call requires'
      )
      allowed += callable.length
    }
  }
  t.ok(allowed > 100, 'many calls are allowed')
})

t.test('a rule that denies explain_access has no effect, and is reported', async t => {
  const { env, token, policyFile } = await authority(t)
  const service = startService(t, {
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile({
      roles: { quiet: { deny: [{ tools: ['explain_access'] }] }, silent: { deny: [{ operations: ['observe'] }] } },
      bindings: [{ role: 'quiet', claim: 'sub', value: 'alice' }, { role: 'silent', claim: 'sub', value: 'bob' }],
    }),
  })
  for (const subject of ['alice', 'bob']) {
    const { headers, payload } = modern('tools/call', { name: 'explain_access', arguments: {} })
    const response = await fetch(await service.url, {
      method: 'POST',
      headers: { ...headers, authorization: `Bearer ${await token(subject)}` },
      body: JSON.stringify(payload),
    })
    t.match(await response.json(), { result: { structuredContent: { principal: { subject } } } })
  }
  const warnings = service.output.stderr.split('\n').filter(line => line.includes('the policy denies explain_access'))
  t.equal(warnings.length, 1)
  t.match(warnings[0], /"role":"quiet".*KAFSCALE_MCP_DISABLED_TOOLS/)
})

t.test('a disabled tool does not exist, whatever the policy says', async t => {
  const { env, token, policyFile } = await authority(t)
  const policy = policyFile({
    roles: { r: { allow: [{ tools: TOOLS }] } },
    bindings: [{ role: 'r', claim: 'sub', value: 'alice' }],
  })
  for (
    const [switches, left] of [
      [{ KAFSCALE_MCP_TOOLS: 'list_topics, explain_access' }, ['explain_access', 'list_topics']],
      [{ KAFSCALE_MCP_DISABLED_TOOLS: 'list_groups' }, TOOLS.filter(name => name !== 'list_groups')],
      [{ KAFSCALE_MCP_TOOLS: 'explain_access,list_topics,list_groups', KAFSCALE_MCP_DISABLED_TOOLS: 'list_groups' }, [
        'explain_access',
        'list_topics',
      ]],
    ] as const
  ) {
    const app = await buildTestApp(t, { ...env, KAFSCALE_MCP_POLICY_FILE: policy, ...switches })
    for (const form of [modern, legacy]) {
      const client = clientOf(app, await token('alice'), form)
      t.strictSame(await names(client), left)
      const response = await client.request('tools/call', { name: 'list_groups', arguments: {} })
      t.match(response.json(), { error: { code: -32602 } })
      t.strictSame(
        response.json().error.message.replace('list_groups', 'nope'),
        (await client.request('tools/call', { name: 'nope' })).json().error.message,
        'like an unknown tool'
      )
      const { tools } = await client.ask('explain_access') as { tools: { name: string }[] }
      t.strictSame(tools.map(({ name }) => name), left)
      const unscoped = await clientOf(app, await token('alice', { scope: 'openid' }), form).request('tools/call', {
        name: 'list_groups',
      })
      t.match(unscoped.json(), { error: { code: -32602 } }, 'also for a token without the scope')
    }
    await app.close()
  }
})

t.test('the service does not start', async t => {
  const { env, dir } = await authority(t)
  const failure = async (more: Record<string, string>) => {
    const { exit, output } = startService(t, { ...env, ...more })
    t.equal(await exit, 1)
    t.notMatch(output.stderr, /^ +at /m, 'no stack')
    return output.stderr
  }

  t.test('if a setting names an unknown tool', async t => {
    t.match(
      await failure({ KAFSCALE_MCP_TOOLS: 'list_topics,drop_all', KAFSCALE_MCP_DISABLED_TOOLS: 'list_topic' }),
      new RegExp(
        '^kafscale-mcp does not start:\nKAFSCALE_MCP_TOOLS and KAFSCALE_MCP_DISABLED_TOOLS name "drop_all", ' +
        '"list_topic": expected names of apply_change, .*, update_topic_config\n$'
      )
    )
  })

  t.test('if the policy has mistakes, which are listed with their lines', async t => {
    const path = join(dir, 'broken.yaml')
    writeFileSync(path, 'roles:\n  r: { allow: [{ topic: [a] }] }\nbindings:\n  - { role: q, claim: sub }\n')
    t.equal(await failure({ KAFSCALE_MCP_POLICY_FILE: path }), `kafscale-mcp does not start:
KAFSCALE_MCP_POLICY_FILE is "${path}": expected a valid policy
line 2: roles.r.allow.0 must NOT have additional properties (topic)
line 4: bindings.0 must have required property 'value' (value)
`)
    writeFileSync(path, 'bindings: *nowhere\n')
    t.match(await failure({ KAFSCALE_MCP_POLICY_FILE: path }), /\nline 1: there is no anchor nowhere\n$/)
  })

  t.test('if the policy file is missing', async t => {
    t.match(
      await failure({ KAFSCALE_MCP_POLICY_FILE: join(dir, 'none.yaml') }),
      /^kafscale-mcp does not start:\nKAFSCALE_MCP_POLICY_FILE is ".*none\.yaml": expected a file that can be read\n$/
    )
  })
})

t.test('a call that reaches no tool is recorded too, once', async t => {
  const { env, token, recorded } = await authority(t)
  const app = await buildTestApp(t, { ...env, KAFSCALE_MCP_DISABLED_TOOLS: 'list_groups' })
  const post = async (bearer: string, form: typeof modern | typeof legacy, params: Record<string, unknown>) => {
    const { headers, ...request } = form('tools/call', params)
    return await app.inject({ ...request, headers: { ...headers, authorization: `Bearer ${bearer}` } })
  }
  const alice = await token('alice')
  t.equal((await post(alice, modern, { name: 'list_topics', arguments: {} })).statusCode, 200)
  const refused: [params: Record<string, unknown>, what: object][] = [
    [{ name: 'drop_all', arguments: { topic: 'a' } }, { tool: 'drop_all', operation: null, arguments: { topic: 'a' } }],
    [{ name: 'list_groups', arguments: {} }, { tool: 'list_groups', operation: null }],
    [{ name: 'x'.repeat(1_000) }, { tool: 'x'.repeat(128), operation: null, arguments: {} }],
    [{ name: 'list_topics', arguments: 'all' }, { tool: 'list_topics', operation: 'observe', arguments: 'all' }],
    [{ name: 'list_topics', arguments: [1] }, { tool: 'list_topics', operation: 'observe', arguments: [1] }],
  ]
  for (const form of [modern, legacy]) {
    for (const [params, what] of refused) {
      const { length: before } = recorded('tool_call')
      t.match((await post(alice, form, params)).json(), { error: { code: -32602 } }, JSON.stringify(what))
      t.match(recorded('tool_call').slice(before), [{
        who: { subject: 'alice' },
        what,
        outcome: 'error',
        error_code: 'INVALID_PARAMS',
        result: null,
      }])
    }
  }
  for (const params of [{}, { name: 7 }, { name: ['list_topics'] }, { name: { toString: 'x' } }]) {
    const { length: before } = recorded('tool_call')
    t.match((await post(alice, legacy, params)).json(), { error: { code: -32602 } })
    t.match(recorded('tool_call').slice(before), [{
      what: { tool: null, operation: null },
      decision: null,
      rule: null,
      error_code: 'INVALID_PARAMS',
    }])
  }

  const { length: before } = recorded('tool_call')
  t.match(
    await post(await token('bob', { scope: 'openid' }), legacy, { name: 'list_topics', arguments: [] }),
    insufficientScope
  )
  t.match(recorded('tool_call').slice(before), [{
    who: { subject: 'bob' },
    decision: 'denied',
    rule: 'no-scope',
    outcome: 'denied',
  }])
})

t.test('a call in progress is answered under the policy with which it started', needsEtcd(), async t => {
  const { env, token, policyFile, recorded } = await authority(t)
  const policy = (topic: string, bound: string) => ({
    roles: { team: { allow: [{ operations: ['observe'], topics: [topic] }] } },
    bindings: [{ role: 'team', claim: 'sub', value: bound }],
  })
  const path = policyFile(policy('audit-*', 'bob'))
  const etcd = await startEtcd(t)
  await fill(etcd, [{
    key: formatKey({ kind: 'snapshot' }),
    value: JSON.stringify({ Topics: [{ Topic: 'orders' }, { Topic: 'audit-1' }] }),
  }])
  const app = await buildSyncedApp(t, etcd, { ...env, KAFSCALE_MCP_POLICY_FILE: path })
  const [started, changed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  app.tools.declare(tool({
    name: 'slow',
    answer: async (_, __, context) => {
      started.resolve()
      await changed.promise
      return { topics: context.mirror().topics.map(({ name }) => name) }
    },
  }))
  const bob = clientOf(app, await token('bob'))
  const answer = bob.ask('slow')
  await started.promise
  policyFile(policy('orders', 'alice'))
  await waitFor(() => recorded('policy_reload').length === 1, RELOAD_BOUND_MS, 'the record of the reload')
  changed.resolve()
  t.strictSame(await answer, { topics: ['audit-1'] })
  t.match(await bob.call('slow'), { isError: true, content: [{ text: /^PERMISSION_DENIED/ }] })
})

t.test('the policy is reloaded while the service runs', async t => {
  const { env, token, dir, recorded } = await authority(t)
  const allowing = (tool: string) =>
    `roles: { r: { allow: [{ tools: [${tool}] }] } }\nbindings: [{ role: r, claim: sub, value: alice }]\n`
  const release = (name: string, policy: string) => {
    mkdirSync(join(dir, name))
    writeFileSync(join(dir, name, 'policy.yaml'), policy)
    symlinkSync(name, join(dir, '..data_tmp'))
    renameSync(join(dir, '..data_tmp'), join(dir, '..data'))
  }
  // The layout of a ConfigMap volume in Kubernetes.
  release('..2026_1', allowing('list_topics'))
  const policy = join(dir, 'policy.yaml')
  symlinkSync(join('..data', 'policy.yaml'), policy)

  const service = startService(t, { ...env, KAFSCALE_MCP_POLICY_FILE: policy })
  const url = await service.url
  const authorization = `Bearer ${await token('alice')}`
  const tools = async () => {
    const { headers, payload } = modern('tools/list')
    const response = await fetch(url, {
      method: 'POST',
      headers: { ...headers, authorization },
      body: JSON.stringify(payload),
    })
    const { result } = await response.json() as { result: { tools: { name: string }[] } }
    return result.tools.map(({ name }) => name).filter(name => name !== 'explain_access').join()
  }
  const becomes = async (wanted: string) => {
    await waitFor(
      async () => {
        const seen = await tools()
        return seen === wanted || seen
      },
      RELOAD_BOUND_MS,
      wanted
    )
  }
  t.equal(await tools(), 'list_topics')

  t.test('when Kubernetes swaps the symbolic link', async t => {
    release('..2026_2', allowing('list_groups'))
    await becomes('list_groups')
    t.match(recorded('policy_reload'), [{ outcome: 'ok', warning: null }])
  })

  t.test('unless it is invalid: the old one stays, and the mistake is logged and recorded', async t => {
    release('..2026_3', allowing('drop_all'))
    await waitFor(() => recorded('policy_reload').length === 2, RELOAD_BOUND_MS, 'the record of the reload')
    t.match(recorded('policy_reload')[1], { outcome: 'error', warning: 'line 1: there is no tool drop_all' })
    await waitFor(
      () =>
        /"mistakes":"line 1: there is no tool drop_all".*the old one stays/.test(service.output.stderr) ||
        service.output.stderr,
      RELOAD_BOUND_MS,
      'the log message'
    )
    release('..2026_4', 'bindings: *nowhere\n')
    await waitFor(() => recorded('policy_reload').length === 3, RELOAD_BOUND_MS, 'the record of the reload')
    t.equal(await tools(), 'list_groups')
  })

  t.test('when the file is replaced by renaming another', async () => {
    writeFileSync(`${policy}.new`, allowing('cluster_status'))
    renameSync(`${policy}.new`, policy)
    await becomes('cluster_status')
  })

  t.test('when the file is written in place', async () => {
    writeFileSync(policy, readFileSync(policy, 'utf8').replace('cluster_status', 'describe_group'))
    await becomes('describe_group')
  })
})
