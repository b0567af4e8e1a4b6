import { createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto'
import { mock } from 'node:test'
import { exportJWK, exportSPKI, type JWTHeaderParameters, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose'
import t, { type Test } from 'tap'
import { ask, startAuthApp } from '../../support/auth.ts'
import { ACCOUNT, AGENT, type IdentityProvider, SCOPE, SERVICE, startProvider } from '../../support/oidc-provider.ts'
import { waitFor } from '../../support/wait-for.ts'

const now = () => Math.floor(Date.now() / 1_000)

async function startBoth (t: Test, config: object = {}) {
  const provider = await startProvider(t)
  return {
    provider,
    ...await startAuthApp(t, { config: { authMode: 'oidc', oidcIssuer: [provider.issuer], ...config } }),
  }
}

const claimsFor = ({ issuer }: IdentityProvider, url: string): JWTPayload =>
  ({ iss: issuer, aud: url, sub: ACCOUNT, iat: now(), exp: now() + 600, scope: SCOPE, jti: randomUUID() })

/** Stops the clocks of tokens and of durations. The returned function moves them on. */
function travel (t: Test) {
  mock.timers.enable({ apis: ['Date'], now: Date.now() })
  let nowMs = performance.now()
  t.intercept(performance, 'now', { value: () => nowMs })
  t.teardown(() => mock.timers.reset())
  return (ms: number) => {
    mock.timers.setTime(Date.now() + ms)
    nowMs += ms
  }
}

t.test('a token that the provider issues says who is asking', async t => {
  const { provider, url } = await startBoth(t)
  const token = await provider.clientCredentials(url)
  const { status, principal } = await ask(url, token)
  t.equal(status, 200)
  const { claims, tokenId, expiresAt, ...who } = principal
  t.strictSame(who, {
    subject: AGENT.id,
    issuer: provider.issuer,
    clientId: AGENT.id,
    method: 'oidc',
    scopes: [SCOPE],
    clientCertificate: null,
  })
  t.equal(tokenId, claims['jti'])
  t.equal(Date.parse(String(expiresAt)), Number(claims['exp']) * 1_000)
  t.equal(claims['aud'], url)
})

t.test('what is accepted', async t => {
  const { provider, url } = await startBoth(t)
  const claims = claimsFor(provider, url)
  const accepted: [what: string, claims: JWTPayload, header?: Partial<JWTHeaderParameters>][] = [
    ['the type of before RFC 9068', {}, { typ: 'JWT' }],
    ['no type', {}, { typ: undefined as unknown as string }],
    ['the type as a media type', {}, { typ: 'application/AT+jwt' }],
    ['several audiences, ours among them', { aud: ['https://other.example', url] }],
    ['expired within the leeway', { iat: now() - 600, exp: now() - 20 }],
    ['not valid yet within the leeway', { nbf: now() + 20 }],
    ['the longest life', { exp: claims.iat as number + 3_600 }],
  ]
  for (const [what, more, header] of accepted) {
    const { status, message } = await ask(url, await provider.sign({ ...claims, ...more }, header))
    t.equal(status, 200, `${what}: ${message}`)
  }
})

t.test('what a principal is made of', async t => {
  const { provider, url } = await startBoth(t)
  const { scope, ...claims } = claimsFor(provider, url)
  const principal = async (more: JWTPayload) => (await ask(url, await provider.sign({ ...claims, ...more }))).principal
  t.strictSame((await principal({ scope: ' a  b ' })).scopes, ['a', 'b'])
  t.strictSame((await principal({ scp: ['a', 'b'] })).scopes, ['a', 'b'])
  t.strictSame((await principal({ scope: 7 })).scopes, [], 'a scope claim that is none grants nothing')
  t.strictSame((await principal({ scope: '' })).scopes, [])
  t.notOk('scopes' in await principal({}), 'no scope claim is not an empty one')
  t.equal((await principal({ azp: 'azp' })).clientId, 'azp')
  t.equal((await principal({ azp: 'azp', client_id: 'client' })).clientId, 'client')
  t.equal((await principal({ azp: 7 })).clientId, null)
  const { jti, ...anonymous } = claims
  const [one, other] = [await provider.sign(anonymous), await provider.sign({ ...anonymous, sub: 'bob' })]
  const tokenId = async (token: string) => (await ask(url, token)).principal.tokenId
  t.match(await tokenId(one), /^[\w-]{43}$/, 'without jti a digest')
  t.equal(await tokenId(one), await tokenId(one))
  t.not(await tokenId(other), await tokenId(one))
})

t.test('a service account of Kubernetes is a token of one more issuer', async t => {
  const provider = await startProvider(t)
  const cluster = await startProvider(t)
  const { url } = await startAuthApp(t, {
    config: { authMode: 'oidc', oidcIssuer: [provider.issuer, cluster.issuer], oidcAudience: 'kafscale-mcp' },
  })
  const token = await cluster.sign({
    aud: ['kafscale-mcp'],
    iss: cluster.issuer,
    sub: 'system:serviceaccount:agents:triage',
    iat: now(),
    nbf: now(),
    exp: now() + 3_600,
    jti: randomUUID(),
    'kubernetes.io': { namespace: 'agents', serviceaccount: { name: 'triage', uid: randomUUID() } },
  }, { typ: undefined as unknown as string })
  const { status, principal } = await ask(url, token)
  t.equal(status, 200)
  t.match(principal, {
    subject: 'system:serviceaccount:agents:triage',
    issuer: cluster.issuer,
    claims: { 'kubernetes.io': { namespace: 'agents' } },
  })
  t.notOk('scopes' in principal)
  t.equal(
    (await ask(url, await provider.clientCredentials('kafscale-mcp:'))).status,
    401,
    'the audience is the same for all'
  )
  t.equal(
    (await ask(url, await cluster.sign({ ...claimsFor(provider, 'kafscale-mcp') }))).status,
    401,
    'no issuer signs for another'
  )
})

t.test('what is refused, and why', async t => {
  const { provider, url, log } = await startBoth(t)
  const claims = claimsFor(provider, url)
  const { iat, sub, aud, iss } = claims
  const without = (name: string) => Object.fromEntries(Object.entries(claims).filter(([key]) => key !== name))
  const attacker = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const attackerJwk = await exportJWK(createPublicKey(attacker))
  const signedByAttacker = (header: Partial<JWTHeaderParameters> = {}) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: provider.kid, ...header }).sign(attacker)
  const publicKey = createPublicKey(provider.key)
  const hmac = async (secret: string | Uint8Array, alg = 'HS256') =>
    await new SignJWT(claims).setProtectedHeader({ alg, kid: provider.kid }).sign(Buffer.from(secret))
  const good = await provider.sign(claims)
  const [header, payload, signature] = good.split('.') as [string, string, string]
  const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  let asked = 0
  const listening = await startAuthApp(t, {
    routes: app => {
      app.get('/mcp', async () => {
        asked++
        return { keys: [attackerJwk] }
      })
    },
  })

  const wrongKey = /not signed by its issuer/
  const noKey = /no key of its issuer/
  const refused: [what: string, token: string | Promise<string>, message: RegExp][] = [
    ['another issuer', provider.sign({ ...claims, iss: 'https://id.example' }), /another issuer/],
    ['the issuer with a slash', provider.sign({ ...claims, iss: `${iss}/` }), /another issuer/],
    ['no issuer', provider.sign(without('iss')), /another issuer/],
    ['another resource', provider.sign({ ...claims, aud: 'https://other.example/mcp' }), /another resource/],
    [
      'another resource, as the provider issues it',
      provider.clientCredentials('https://other.example/mcp'),
      /another resource/,
    ],
    ['a resource above ours', provider.sign({ ...claims, aud: url.replace('/mcp', '') }), /another resource/],
    ['a resource that begins as ours does', provider.sign({ ...claims, aud: `${aud}/x` }), /another resource/],
    ['no audience', provider.sign(without('aud')), /another resource/],
    ['expired', provider.sign({ ...claims, iat: now() - 600, exp: now() - 31 }), /expired/],
    ['no end', provider.sign(without('exp')), /when it expires/],
    [
      'an end that is no number',
      provider.sign({ ...claims, exp: '9999999999' as unknown as number }),
      /when it expires/,
    ],
    ['not valid yet', provider.sign({ ...claims, nbf: now() + 60 }), /not valid yet/],
    ['too long-lived', provider.sign({ ...claims, exp: iat as number + 3_601 }), /lives longer than the 3600 s/],
    [
      'too long-lived, issued in the future',
      provider.sign({ ...claims, iat: now() + 7_200, exp: now() + 7_800 }),
      /when it was issued/,
    ],
    ['no beginning', provider.sign(without('iat')), /when it was issued/],
    ['no subject', provider.sign(without('sub')), /no subject/],
    ['an empty subject', provider.sign({ ...claims, sub: '' }), /no subject/],
    ['a subject that is no text', provider.sign({ ...claims, sub: 7 as unknown as string }), /no subject/],
    ['an ID token', provider.sign({ ...claims, aud: AGENT.id }), /another resource/],
    ['a logout token', provider.sign(claims, { typ: 'logout+jwt' }), /no access token/],
    ['algorithm none', new UnsecuredJWT(claims).encode(), /no JWT that can be verified|algorithm/],
    [
      'algorithm none with a signature',
      `${encoded({ alg: 'none', kid: provider.kid })}.${payload}.${signature}`,
      /algorithm/,
    ],
    ['algorithm None', `${encoded({ alg: 'None' })}.${payload}.`, /algorithm/],
    ['HS256 with the public key in PEM as the secret', hmac(await exportSPKI(publicKey)), /algorithm/],
    [
      'HS256 with the public key in DER as the secret',
      hmac(publicKey.export({ type: 'spki', format: 'der' })),
      /algorithm/,
    ],
    [
      'HS512 with the public key as JWK as the secret',
      hmac(JSON.stringify(await exportJWK(publicKey)).padEnd(64), 'HS512'),
      /algorithm/,
    ],
    [
      "an algorithm that is not the key's",
      `${encoded({ alg: 'RS256', kid: provider.kid })}.${payload}.${signature}`,
      noKey,
    ],
    ['signed by another key', signedByAttacker(), wrongKey],
    ['signed by the key in its own header', signedByAttacker({ jwk: attackerJwk }), wrongKey],
    [
      'signed by a key that its header points to',
      signedByAttacker({ jku: listening.url, kid: provider.kid }),
      wrongKey,
    ],
    ['signed by the certificate that its header points to', signedByAttacker({ x5u: listening.url }), wrongKey],
    ['an unknown key', signedByAttacker({ kid: 'unknown' }), noKey],
    ['a key that is a path', signedByAttacker({ kid: '../../../dev/null' }), noKey],
    ['claims changed', `${header}.${encoded({ ...claims, sub: 'root' })}.${signature}`, wrongKey],
    ['signature cut off', `${header}.${payload}.`, /./],
    [
      'a critical header that is not understood',
      `${encoded({ alg: 'ES256', kid: provider.kid, crit: ['unknown'], unknown: 1 })}.${payload}.${signature}`,
      /no JWT that can be verified/,
    ],
    ['no JWT', 'opaque', /no JWT/],
    ['an encrypted JWT', 'a.b.c.d.e', /no JWT/],
    ['an empty JWT', '..', /no JWT/],
  ]
  t.equal((await ask(url, good)).status, 200, 'else all this says nothing')
  for (const [what, pending, message] of refused) {
    const token = await pending
    const answer = await ask(url, token)
    t.equal(answer.status, 401, what)
    t.match(answer.message, message, what)
    t.match(answer.challenge, /^Bearer error="invalid_token", error_description="[^"\\]+", resource_metadata=/, what)
    if (token.length > 20) {
      t.notOk(answer.text.includes(token) || log().includes(token), `${what}: the token is nowhere`)
    }
  }
  t.equal(asked, 0, 'no key is fetched from where a token says')
  t.notOk(log().includes(payload) || log().includes(String(sub)), 'nor what it says')
})

t.test('a key that is new is found, and one that is withdrawn is not taken any more', async t => {
  const { provider, url } = await startBoth(t)
  const move = travel(t)
  const old = await provider.clientCredentials(url)
  t.equal((await ask(url, old)).status, 200)

  await provider.rotateKey()
  move(31_000)
  t.equal((await ask(url, await provider.clientCredentials(url))).status, 200, 'rotated')
  t.match((await ask(url, old)).message, /no key of its issuer/, 'also one that was verified before')
})

t.test('an unknown key is asked for every 30 s at most', async t => {
  const { provider, url } = await startBoth(t)
  const move = travel(t)
  t.equal((await ask(url, await provider.clientCredentials(url))).status, 200)
  const fetches = () => provider.requests.filter(path => path === '/jwks').length
  const unknown = async () => await ask(url, await provider.sign(claimsFor(provider, url), { kid: randomUUID() }))
  t.equal(fetches(), 1)
  for (let times = 0; times < 5; times++) t.equal((await unknown()).status, 401)
  t.equal(fetches(), 1, 'it has been fetched just now')
  move(29_000)
  await unknown()
  t.equal(fetches(), 1)
  move(2_000)
  await Promise.all([unknown(), unknown(), unknown()])
  await unknown()
  t.equal(fetches(), 2)
  move(31_000)
  await provider.stop()
  t.equal((await unknown()).status, 401)
  await provider.start()
  await unknown()
  t.equal(fetches(), 2, 'an attempt that failed counts as well')
})

t.test('while the issuer is down its last keys serve', async t => {
  const { provider, url, log } = await startBoth(t)
  const move = travel(t)
  const claims = claimsFor(provider, url)
  t.equal((await ask(url, await provider.sign(claims))).status, 200)
  await provider.stop()
  move(120_000)
  t.equal((await ask(url, await provider.sign(claims, { kid: 'unknown' }))).status, 401)
  t.match(log(), 'the issuer of tokens is not reached')
  t.equal((await ask(url, await provider.sign({ ...claims, jti: 'new' }))).status, 200)
  t.equal((await ask(url, await provider.sign({ ...claims, exp: now() - 31 }))).status, 401, 'no less strictly')
})

t.test('an issuer that is down at start is asked until it answers', async t => {
  const provider = await startProvider(t)
  await provider.stop()
  const { url, log } = await startAuthApp(t, { config: { authMode: 'oidc', oidcIssuer: [provider.issuer] } })
  const token = await provider.sign(claimsFor(provider, url))
  const { status, challenge, message } = await ask(url, token)
  t.equal(status, 503, 'the token may be good: no 401 that would make a client throw it away')
  t.equal(challenge, null)
  t.match(message, /issuer has not been reached yet/)
  t.equal((await ask(url)).status, 401, 'without a token it is the client\'s turn')
  t.match(log(), 'ECONNREFUSED')
  await provider.start()
  await waitFor(async () => (await ask(url, token)).status === 200, 10_000, 'known')
})

t.test('an issuer that is not who it was set to be is not taken', async t => {
  const provider = await startProvider(t)
  for (
    const issuer of [
      `${provider.issuer}/`,
      provider.issuer.replace('127.0.0.1', 'localhost'),
      `${provider.issuer}/.well-known/openid-configuration`,
    ]
  ) {
    const { url, log } = await startAuthApp(t, { config: { authMode: 'oidc', oidcIssuer: [issuer] } })
    t.equal((await ask(url, await provider.sign({ ...claimsFor(provider, url), iss: issuer }))).status, 503, issuer)
    t.match(log(), 'the issuer of tokens is not reached')
  }
})

t.test('a token that was verified is still refused once it has expired', async t => {
  const { provider, url } = await startBoth(t)
  const move = travel(t)
  const token = await provider.sign({ ...claimsFor(provider, url), exp: now() + 60 })
  t.equal((await ask(url, token)).status, 200)
  move(89_000)
  t.equal((await ask(url, token)).status, 200, 'within the leeway')
  move(2_000)
  t.match((await ask(url, token)).message, /expired/)
})

t.test('the lifetime that is accepted can be set', async t => {
  const { provider, url } = await startBoth(t, { oidcMaxTokenLifetime: 300_000 })
  const claims = claimsFor(provider, url)
  t.equal((await ask(url, await provider.sign({ ...claims, exp: claims.iat as number + 300 }))).status, 200)
  t.match(
    (await ask(url, await provider.sign({ ...claims, exp: claims.iat as number + 301 }))).message,
    /lives longer than the 300 s/
  )
})

t.test('opaque tokens are introspected', async t => {
  const client = { oidcClientId: SERVICE.id, oidcClientSecret: SERVICE.secret }

  t.test('and say who is asking', async t => {
    const { provider, url } = await startBoth(t, client)
    const { status, principal } = await ask(url, await provider.opaqueToken(url))
    t.equal(status, 200)
    t.match(principal, {
      subject: ACCOUNT,
      issuer: provider.issuer,
      clientId: AGENT.id,
      method: 'oidc',
      scopes: [SCOPE],
    })
  })

  t.test('not without credentials', async t => {
    const { provider, url } = await startBoth(t)
    t.match(await ask(url, await provider.opaqueToken(url)), { status: 401, message: /no JWT/ })
    t.notOk(provider.requests.includes('/token/introspection'))
  })

  t.test('one that is unknown is not active, one for another resource is not for us', async t => {
    const { provider, url, log } = await startBoth(t, client)
    t.match(await ask(url, 'unknown-unknown-unknown'), { status: 401, message: /not active/ })
    const other = await provider.opaqueToken('https://other.example/mcp')
    t.match(await ask(url, other), { status: 401, message: /another resource/ })
    t.notOk(log().includes(other) || log().includes('unknown-unknown'), 'the token is nowhere')
  })

  t.test('one that is revoked is good for 30 s at most', async t => {
    const { provider, url } = await startBoth(t, client)
    const move = travel(t)
    const token = await provider.opaqueToken(url)
    const introspections = () => provider.requests.filter(path => path === '/token/introspection').length
    t.equal((await ask(url, token)).status, 200)
    move(29_000)
    t.equal((await ask(url, token)).status, 200)
    t.equal(introspections(), 1, 'remembered')
    await provider.revoke(token)
    move(2_000)
    t.match(await ask(url, token), { status: 401, message: /not active/ })
    t.equal(introspections(), 2)
  })

  t.test('and is never good past its end', async t => {
    const { provider, url } = await startBoth(t, client)
    const move = travel(t)
    const token = await provider.opaqueToken(url)
    move(590_000)
    t.equal((await ask(url, token)).status, 200)
    move(11_000)
    t.equal((await ask(url, token)).status, 401)
  })

  t.test('while the issuer is down nobody knows', async t => {
    const { provider, url, log } = await startBoth(t, client)
    const token = await provider.opaqueToken(url)
    await waitFor(() => log().includes('the issuer of tokens is known') || log(), 5_000, 'known')
    await provider.stop()
    t.match(await ask(url, token), { status: 503, message: /does not answer/, challenge: null })
    t.match(log(), 'a token could not be introspected')
    t.notOk(log().includes(token) || log().includes(SERVICE.secret))
  })

  t.test('by the first issuer alone, whose credentials they are', async t => {
    const first = await startProvider(t)
    const second = await startProvider(t)
    const { url } = await startAuthApp(t, {
      config: { authMode: 'oidc', oidcIssuer: [first.issuer, second.issuer], ...client },
    })
    t.equal((await ask(url, 'unknown-unknown-unknown')).status, 401)
    t.notOk(second.requests.includes('/token/introspection'))
    t.equal((await ask(url, await second.sign(claimsFor(second, url)))).status, 200, 'the second signs')
  })
})
