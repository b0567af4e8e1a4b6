/** Who is signed in on the pages, and what a sign-in is good for. */
import t from 'tap'
import { APPROVAL_POLICY, GROUPS, KEYS, startApprovals } from '../../support/approvals.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { buildTestApp } from '../../support/service.ts'
import { fieldsOf, textOf, Visitor } from '../../support/visitor.ts'

const SESSION = 'kafscale-mcp-session'

t.test('a sign-in', needsEtcd(), async t => {
  const { url, provider, people, request } = await startApprovals(t)
  const id = await request('orders')
  const page = `${url}/changes/${id}`

  await t.test('uses PKCE, state and nonce, and returns to the page', async t => {
    const bob = new Visitor()
    const seen = await bob.signIn(page, 'bob')
    t.match(seen, { status: 200, url: page })
    t.match(textOf(seen), /Signed in as bob/)
    const authorization = new URL(bob.visited.find(each => each.startsWith(`${provider.issuer}/auth?`)) as string)
    t.match(Object.fromEntries(authorization.searchParams), {
      response_type: 'code',
      scope: 'openid',
      redirect_uri: `${url}/sign-in/callback`,
      code_challenge_method: 'S256',
      code_challenge: /^[\w-]{43}$/,
      state: /^[\w-]{43}$/,
      nonce: /^[\w-]{43}$/,
    })
  })

  await t.test('is not a bearer token, and a bearer token is none', async t => {
    const bob = new Visitor()
    await bob.signIn(page, 'bob')
    const cookie = [...bob.cookies].map(([key, value]) => `${key.split(' ')[1]}=${value}`).join('; ')
    const headers = { cookie, 'content-type': 'application/json' }
    t.equal((await fetch(`${url}/mcp`, { method: 'POST', headers, body: '{}' })).status, 401)
    t.equal((await fetch(`${url}/audit/stream`, { headers })).status, 401)
    const now = Math.floor(Date.now() / 1_000)
    const token = await provider.sign({ sub: 'bob', iss: provider.issuer, aud: `${url}/mcp`, iat: now, exp: now + 60 })
    const authorization = `Bearer ${token}`
    const opened = await fetch(page, { headers: { authorization }, redirect: 'manual' })
    t.equal(opened.status, 303)
    t.match(opened.headers.get('location'), `${url}/sign-in?to=`)
    const decided = await fetch(page, {
      method: 'POST',
      headers: { authorization, origin: url },
      body: new URLSearchParams({ action: 'approve' }),
    })
    t.equal(decided.status, 403)
  })

  await t.test('is good once, and only in the browser that asked for it', async t => {
    const bob = new Visitor()
    await bob.signIn(page, 'bob')
    const callback = bob.visited.find(each => each.startsWith(`${url}/sign-in/callback?`)) as string
    for (const visitor of [bob, new Visitor()]) {
      const seen = await visitor.get(callback)
      t.equal(seen.status, 403)
      t.match(textOf(seen), /this browser has not asked for this sign-in.*SIGN_IN_FAILED/s)
    }
    const mallory = new Visitor()
    await mallory.get(`${url}/sign-in`)
    t.equal((await mallory.get(callback)).status, 403, 'an answer to somebody else')
    t.notOk(mallory.cookie(SESSION))
    t.match(await bob.get(page), { status: 200 }, 'who was signed in still is')
  })

  await t.test('begins a session with nothing of the one before', async t => {
    const bob = new Visitor()
    const { _csrf: token = '' } = fieldsOf(await bob.signIn(page, 'bob'))
    const before = bob.cookie(SESSION)
    const again = await bob.signIn(`${url}/sign-in?again&to=/changes/${id}`, 'bob')
    t.match(textOf(again), /Signed in as bob/)
    t.not(bob.cookie(SESSION), before)
    const old = await bob.post(page, { ...fieldsOf(again), _csrf: token, action: 'approve' })
    t.equal(old.status, 403)
    t.match(textOf(old), /FORM_NOT_YOURS/)
  })

  await t.test('returns to pages of this service only', async t => {
    for (const to of ['https://evil.example/', '//evil.example', '/\\evil.example', '/mcp', '/changes/../mcp', '/changes/%2f']) {
      const seen = await new Visitor().signIn(`${url}/sign-in?to=${encodeURIComponent(to)}`, 'bob')
      t.match(seen, { status: 200, url: `${url}/changes` }, to)
    }
  })

  await t.test('ends', async t => {
    const bob = new Visitor()
    const { _csrf: token = '' } = fieldsOf(await bob.signIn(page, 'bob'))
    t.equal((await bob.post(`${url}/sign-out`, {})).status, 403, 'not by a forged form')
    t.ok(bob.cookie(SESSION))
    t.match(textOf(await bob.post(`${url}/sign-out`, { _csrf: token })), /You are signed out here/)
    t.notOk(bob.cookie(SESSION))
    t.match((await bob.get(page, { follow: false })).status, 303)
  })

  await t.test('that fails says why', async t => {
    const bob = new Visitor()
    await bob.get(`${url}/sign-in`)
    const authorization = new URL(bob.visited.find(each => each.startsWith(`${provider.issuer}/auth?`)) as string)
    const state = authorization.searchParams.get('state')
    const denied = await bob.get(`${url}/sign-in/callback?error=access_denied&state=${state}&iss=${provider.issuer}`)
    t.equal(denied.status, 403)
    t.match(textOf(denied), /you have cancelled it/)

    people.signedInAgoS = -3_600
    t.match(textOf(await new Visitor().signIn(page, 'bob')), /asked for your credentials in the future/)
    people.signedInAgoS = 0
  })
})

t.test('answers', needsEtcd(), async t => {
  const { url, request } = await startApprovals(t)
  const page = `${url}/changes/${await request('orders')}`
  const { headers } = await new Visitor().signIn(page, 'bob')
  t.equal(headers.get('cache-control'), 'no-store')
  t.equal(headers.get('referrer-policy'), 'same-origin')
  t.equal(headers.get('x-content-type-options'), 'nosniff')
  t.equal(
    headers.get('content-security-policy'),
    "default-src 'none';style-src 'self';script-src 'self';connect-src 'self';form-action 'self';base-uri 'none';" +
      "frame-ancestors 'none'"
  )
  for (const path of ['/changes', '/sign-in']) {
    const answer = await fetch(url + path, { redirect: 'manual' })
    t.match([answer.status, answer.headers.get('cache-control')], [303, 'no-store'])
  }
})

t.test('cookies are for this host, over https, and not for scripts', needsEtcd(), async t => {
  const { provider, policy, etcd } = await startApprovals(t)
  const build = async (url: string) => {
    return await buildTestApp(t, {
      ...etcd.env,
      KAFSCALE_MCP_PUBLIC_URL: url,
      KAFSCALE_MCP_OIDC_ISSUER: provider.issuer,
      KAFSCALE_MCP_OIDC_CLIENT_ID: 'kafscale-mcp',
      KAFSCALE_MCP_OIDC_CLIENT_SECRET: 'secret',
      KAFSCALE_MCP_SESSION_KEY: String(KEYS[0]),
      KAFSCALE_MCP_POLICY_FILE: policy,
      KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdir()}/audit.jsonl`,
      KAFSCALE_MCP_ENVIRONMENT: 'staging',
      KAFSCALE_MCP_CHANGES: 'enabled',
      KAFSCALE_MCP_KAFKA_BROKERS: '127.0.0.1:1',
      KAFSCALE_MCP_EXPECTED_CLUSTER_ID: 'cluster-1',
    })
  }
  const attributes = async (url: string) => {
    const app = await build(url)
    const { headers } = await app.inject('/sign-in')
    return String(headers['set-cookie']).replace(/=[^;]*;/, '=…;')
  }
  t.equal(
    await attributes('https://mcp.example'),
    '__Host-kafscale-mcp-sign-in=…; Path=/; HttpOnly; Secure; SameSite=Lax'
  )
  t.equal(await attributes('http://localhost:8080'), 'kafscale-mcp-sign-in=…; Path=/; HttpOnly; SameSite=Lax')
})

t.test('nobody signs in', needsEtcd(), async t => {
  await t.test('while the issuer does not answer, or refuses the client', async t => {
    const { url, provider } = await startApprovals(t, { env: { KAFSCALE_MCP_OIDC_CLIENT_SECRET: 'another' } })
    await provider.stop()
    const stopped = await new Visitor().get(`${url}/sign-in`)
    t.equal(stopped.status, 503)
    t.match(textOf(stopped), /Nobody can sign in now: the issuer does not answer.*SIGN_IN_UNAVAILABLE/s)
    await provider.start()
    const refused = await new Visitor().signIn(`${url}/changes`, 'bob')
    t.equal(refused.status, 503)
    t.match(textOf(refused), /the issuer refuses the client of this service/)
  })

  await t.test('whom the service could not recognize as the requester', async t => {
    const { url } = await startApprovals(t, { isPairwise: true })
    const seen = await new Visitor().get(`${url}/sign-in`)
    t.equal(seen.status, 503)
    t.match(textOf(seen), /gives each client another subject.*KAFSCALE_MCP_OIDC_AUDIENCE/s)
    const same = await startApprovals(t, { isPairwise: true, env: { KAFSCALE_MCP_OIDC_AUDIENCE: 'kafscale-mcp' } })
    t.match(textOf(await new Visitor().signIn(`${same.url}/changes`, 'bob')), /Signed in as bob@kafscale-mcp/)
  })

  await t.test('whose claims do not fit into a cookie', async t => {
    const many = Array.from({ length: 200 }, (_, index) => `a-group-with-a-long-name-${index}`)
    GROUPS['frank'] = many
    t.teardown(() => { delete GROUPS['frank'] })
    const { url } = await startApprovals(t, {
      policy: {
        ...APPROVAL_POLICY,
        bindings: [...APPROVAL_POLICY.bindings, ...many.map(value => ({ role: 'reader', claim: 'groups', value }))],
      },
    })
    const seen = await new Visitor().signIn(`${url}/changes`, 'frank')
    t.equal(seen.status, 403)
    t.match(textOf(seen), /more of your claims to roles than fit into a cookie/)
  })
})
