import { createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto'
import { mock } from 'node:test'
import { exportJWK, exportSPKI, type JWTHeaderParameters, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose'
import t, { type Test } from 'tap'
import { NOT_ACCESS_TOKENS } from '../../../plugins/auth/access-token.ts'
import type { OidcConfig } from '../../../plugins/config/auth.ts'
import { Secret } from '../../../plugins/config/secret.ts'
import { ask, oidc, startAuthApp } from '../../support/auth.ts'
import { ACCOUNT, AGENT, type IdentityProvider, SCOPE, SERVICE, startProvider } from '../../support/oidc-provider.ts'
import { waitFor } from '../../support/wait-for.ts'

const now = () => Math.floor(Date.now() / 1_000)

async function startBoth (t: Test, more: Partial<OidcConfig> = {}) {
  const provider = await startProvider(t)
  return {
    provider,
    ...await startAuthApp(t, { config: { auth: oidc([provider.issuer], more) } }),
  }
}

const claimsFor = ({ issuer }: IdentityProvider, url: string): JWTPayload =>
  ({ iss: issuer, aud: url, sub: ACCOUNT, iat: now(), exp: now() + 600, scope: SCOPE, jti: randomUUID() })

/** Takes over both clocks, `Date` and `performance`. Returns a function that moves them forward. */
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

t.test('a token that the provider issues authenticates its subject', async t => {
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

t.test('which tokens are accepted', async t => {
  const { provider, url } = await startBoth(t)
  const claims = claimsFor(provider, url)
  const accepted: [what: string, claims: JWTPayload, header?: Partial<JWTHeaderParameters>][] = [
    ['the type in use before RFC 9068', {}, { typ: 'JWT' }],
    ['no type', {}, { typ: undefined as unknown as string }],
    ['the type as a media type', {}, { typ: 'application/AT+jwt' }],
    ['several audiences, including ours', { aud: ['https://other.example', url] }],
    ['expired within the leeway', { iat: now() - 600, exp: now() - 20 }],
    ['not valid yet within the leeway', { nbf: now() + 20 }],
    ['the longest lifetime', { exp: claims.iat as number + 3_600 }],
  ]
  for (const [what, more, header] of accepted) {
    const { status, message } = await ask(url, await provider.sign({ ...claims, ...more }, header))
    t.equal(status, 200, `${what}: ${message}`)
  }
})

t.test('how the claims become a principal', async t => {
  const { provider, url } = await startBoth(t)
  const { scope, ...claims } = claimsFor(provider, url)
  const principal = async (more: JWTPayload) => (await ask(url, await provider.sign({ ...claims, ...more }))).principal
  t.strictSame((await principal({ scope: ' a  b ' })).scopes, ['a', 'b'])
  t.strictSame((await principal({ scp: ['a', 'b'] })).scopes, ['a', 'b'])
  t.strictSame((await principal({ scope: 7 })).scopes, [], 'a malformed scope claim grants nothing')
  t.strictSame((await principal({ scope: '' })).scopes, [])
  t.notOk('scopes' in await principal({}), 'a missing scope claim differs from an empty one')
  t.equal((await principal({ azp: 'azp' })).clientId, 'azp')
  t.equal((await principal({ azp: 'azp', client_id: 'client' })).clientId, 'client')
  t.equal((await principal({ azp: 7 })).clientId, null)
  const { jti, ...anonymous } = claims
  const [one, other] = [await provider.sign(anonymous), await provider.sign({ ...anonymous, sub: 'bob' })]
  const tokenId = async (token: string) => (await ask(url, token)).principal.tokenId
  t.match(await tokenId(one), /^[\w-]{43}$/, 'a digest, without jti')
  t.equal(await tokenId(one), await tokenId(one))
  t.not(await tokenId(other), await tokenId(one))
})

t.test('a Kubernetes cluster is one more issuer, of service account tokens', async t => {
  const provider = await startProvider(t)
  const cluster = await startProvider(t)
  const { url } = await startAuthApp(t, {
    config: { auth: oidc([provider.issuer, cluster.issuer], { audiences: ['kafscale-mcp'] }) },
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
    'all issuers share the audience'
  )
  t.equal(
    (await ask(url, await cluster.sign({ ...claimsFor(provider, 'kafscale-mcp') }))).status,
    401,
    'an issuer cannot sign for another'
  )
})

t.test('which tokens are refused, and why', async t => {
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
  const noKey = /not name a key of its issuer/
  const refused: [what: string, token: string | Promise<string>, message: RegExp][] = [
    ['another issuer', provider.sign({ ...claims, iss: 'https://id.example' }), /another issuer/],
    ['the issuer with a slash', provider.sign({ ...claims, iss: `${iss}/` }), /another issuer/],
    ['no issuer', provider.sign(without('iss')), /has no iss claim/],
    ['another resource', provider.sign({ ...claims, aud: 'https://other.example/mcp' }), /another resource/],
    [
      'another resource, as the provider issues it',
      provider.clientCredentials('https://other.example/mcp'),
      /another resource/,
    ],
    ['a resource above ours', provider.sign({ ...claims, aud: url.replace('/mcp', '') }), /another resource/],
    ['a resource that starts like ours', provider.sign({ ...claims, aud: `${aud}/x` }), /another resource/],
    ['no audience', provider.sign(without('aud')), /has no aud claim, which must contain .*KAFSCALE_MCP_OIDC_AUDIENCE/],
    ['an audience that is null', provider.sign({ ...claims, aud: null as unknown as string }), /another resource/],
    ['expired', provider.sign({ ...claims, iat: now() - 600, exp: now() - 31 }), /expired/],
    ['no expiry', provider.sign(without('exp')), /has no exp claim/],
    [
      'an expiry that is not a number',
      provider.sign({ ...claims, exp: '9999999999' as unknown as number }),
      /when it expires/,
    ],
    ['not valid yet', provider.sign({ ...claims, nbf: now() + 60 }), /not valid yet/],
    [
      'too long-lived',
      provider.sign({ ...claims, exp: iat as number + 3_601 }),
      /valid for longer than the accepted 3600 s: for 3601 s; KAFSCALE_MCP_OIDC_MAX_TOKEN_LIFETIME sets/,
    ],
    [
      'too long-lived, and issued longer ago than that',
      provider.sign({ ...claims, iat: now() - 4_000, exp: now() + 600 }),
      /valid for longer than the accepted 3600 s: for 4600 s/,
    ],
    [
      'too long-lived, issued in the future',
      provider.sign({ ...claims, iat: now() + 7_200, exp: now() + 7_800 }),
      /when it was issued/,
    ],
    ['no time of issue', provider.sign(without('iat')), /has no iat claim/],
    [
      'a time of issue in text',
      provider.sign({ ...claims, iat: '1' as unknown as number }),
      /iat is in the future, or/,
    ],
    ['no subject', provider.sign(without('sub')), /has no sub claim/],
    ['an empty subject', provider.sign({ ...claims, sub: '' }), /no subject/],
    ['a subject that is not a string', provider.sign({ ...claims, sub: 7 as unknown as string }), /no subject/],
    ['an ID token', provider.sign({ ...claims, aud: AGENT.id }), /another resource/],
    ['a logout token', provider.sign(claims, { typ: 'logout+jwt' }), /is a logout token/],
    ['algorithm none', new UnsecuredJWT(claims).encode(), /not a JWT that can be verified|algorithm/],
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
      /not a JWT that can be verified/,
    ],
    ['no JWT', 'opaque', /not a JWT/],
    ['an encrypted JWT', 'a.b.c.d.e', /not a JWT/],
    ['an empty JWT', '..', /not a JWT/],
  ]
  t.equal((await ask(url, good)).status, 200, 'the unmodified token is accepted')
  for (const [what, pending, message] of refused) {
    const token = await pending
    const answer = await ask(url, token)
    t.equal(answer.status, 401, what)
    t.match(answer.message, message, what)
    t.match(answer.challenge, /^Bearer error="invalid_token", error_description="[^"\\]+", resource_metadata=/, what)
    if (token.length > 20) {
      t.notOk(answer.text.includes(token) || log().includes(token), `${what}: the token appears nowhere`)
    }
  }
  t.equal(asked, 0, 'no key is fetched from a URL in the token')
  t.notOk(log().includes(payload) || log().includes(String(sub)), 'claims are not logged')
})

t.test('only an access token is accepted', async t => {
  const { provider, url } = await startBoth(t)
  const claims = claimsFor(provider, url)
  const none = undefined as unknown as string
  const outcome = async (more: JWTPayload, typ: unknown) => {
    const { status, message } = await ask(url, await provider.sign({ ...claims, ...more }, { typ: typ as string }))
    return status === 200 ? 'accepted' : message.replace(/^Not authenticated: |\.$/g, '')
  }
  const { id, refresh, logout, event, other, malformed } = NOT_ACCESS_TOKENS
  const events = { 'http://schemas.openid.net/event/backchannel-logout': {} }
  const rows: [reason: string, claims: JWTPayload, typ: unknown][] = [
    ['accepted', { nonce: 'n' }, 'at+jwt'],
    ['accepted', { nonce: 'n' }, 'application/at+JWT'],
    ['accepted', { nonce: 'n', typ: 'Bearer' }, 'JWT'],
    ['accepted', { nonce: 'n', typ: 'Bearer' }, none],
    ['accepted', { token_use: 'access', token_type: 'Bearer', typ: 'DPoP' }, none],
    ['accepted', { token_type: 'urn:ietf:params:oauth:token-type:access_token' }, 'JWT'],
    [id, { nonce: 'n' }, 'JWT'],
    [id, { nonce: '' }, none],
    [id, { nonce: 'n', token_type: 'Bearer' }, none],
    [id, { nonce: 'n', aud: AGENT.id }, 'JWT'],
    [id, { at_hash: 'h' }, 'at+jwt'],
    [id, { c_hash: 'h', typ: 'Bearer' }, 'JWT'],
    [id, { s_hash: 'h' }, 'JWT'],
    [id, { token_use: 'id' }, 'JWT'],
    [id, { token_use: 'ID', exp: now() - 60 }, 'JWT'],
    [id, { typ: 'ID' }, 'JWT'],
    [id, { typ: 'Serialized-ID' }, 'at+jwt'],
    [id, { token_type: 'urn:ietf:params:oauth:token-type:id_token' }, none],
    [id, {}, 'id_token'],
    [refresh, { typ: 'Refresh' }, 'JWT'],
    [refresh, { typ: 'Offline' }, 'at+jwt'],
    [refresh, { token_type: 'refresh' }, 'JWT'],
    [refresh, { token_use: 'refresh_token' }, none],
    [refresh, {}, 'rt+jwt'],
    [logout, { typ: 'Logout' }, 'JWT'],
    [logout, { events }, 'at+jwt'],
    [logout, { events, exp: now() - 60 }, none],
    [logout, {}, 'logout+jwt'],
    [logout, {}, 'application/LOGOUT+jwt'],
    [event, {}, 'secevent+jwt'],
    [event, { events: { 'https://schemas.openid.net/secevent/caep/event-type/session-revoked': {} } }, 'JWT'],
    [event, { events: null }, 'JWT'],
    [other, { typ: 'reset-credentials' }, 'JWT'],
    [other, { typ: '' }, 'JWT'],
    [other, { token_use: 'client_assertion' }, none],
    [other, { token_type: 'N_A' }, none],
    [other, {}, 'dpop+jwt'],
    [other, {}, 'Bearer'],
    [other, {}, ''],
    [malformed, {}, ['at+jwt']],
    [malformed, {}, 7],
    [malformed, {}, null],
    [malformed, {}, { toString: 'at+jwt' }],
    [malformed, { typ: ['Bearer'] }, 'at+jwt'],
    [malformed, { token_use: null }, 'JWT'],
    [malformed, { token_type: { access: true } }, none],
  ]
  for (const [reason, more, typ] of rows) {
    t.equal(await outcome(more, typ), reason, JSON.stringify({ ...more, header: typ }))
  }
})

t.test('a token has one spelling, and one token_id', async t => {
  const client = { introspection: { clientId: SERVICE.id, clientSecret: new Secret(SERVICE.secret) } }
  const { provider, url } = await startBoth(t, client)
  const { jti, ...claims } = claimsFor(provider, url)
  const introspections = () => provider.requests.filter(path => path === '/token/introspection').length
  // Of the lengths modulo 3, every one: the last character of each part has unused bits or none.
  for (const filler of ['', 'x', 'xx']) {
    const token = await provider.sign({ ...claims, filler })
    const { status, principal: { tokenId } } = await ask(url, token)
    t.equal(status, 200)
    const parts = token.split('.')
    for (const [index, part] of parts.entries()) {
      const last = part.slice(-1)
      const respelled = [
        `${part}=`,
        `${part}==`,
        `${part}!`,
        `${part}A`,
        part.replaceAll('-', '+').replaceAll('_', '/'),
        ...['A', 'B', 'C', 'D', 'E', 'I', 'Q', 'g', 'w', '8', 'M', 'Y', 'Z', 'b'].map(next =>
          part.slice(0, -1) + next),
        `${part.slice(0, 4)}=${part.slice(4)}`,
        `${part.slice(0, 4)}*${part.slice(4)}`,
      ].filter(other => other !== part)
      for (const other of respelled) {
        const before = introspections()
        const answer = await ask(url, parts.toSpliced(index, 1, other).join('.'))
        t.equal(answer.status, 401, `part ${index}, which ends with ${last}, as ${other.slice(-6)}`)
        if (Buffer.from(other, 'base64url').equals(Buffer.from(part, 'base64url'))) {
          t.match(answer.message, /not a JWT in its only spelling/)
          t.equal(introspections(), before, 'the issuer, which may read it leniently, is not asked')
        }
      }
    }
    for (const other of [`${token}.`, `.${token}`, token.replace('.', '..')]) {
      t.match(await ask(url, other), { status: 401, message: /not a JWT in its only spelling/ })
    }

    // The order of P-256: (r, n − s) is a signature too.
    const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
    const signature = Buffer.from(parts[2] as string, 'base64url')
    const s = n - BigInt(`0x${signature.toString('hex', 32)}`)
    const twin = Buffer.concat([signature.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, '0'), 'hex')])
    const answer = await ask(url, parts.toSpliced(2, 1, twin.toString('base64url')).join('.'))
    t.equal(answer.status, 200)
    t.equal(answer.principal.tokenId, tokenId, 'a second signature changes nothing')
  }
  const encrypted = Buffer.from('{"alg":"dir","enc":"A256GCM"}').toString('base64url')
  t.match(await ask(url, `${encrypted}..AAAA.AAAA=.AAAA`), { status: 401, message: /not a JWT in its only spelling/ })
})

t.test('a new key is found, and a withdrawn key is no longer accepted', async t => {
  const { provider, url } = await startBoth(t)
  const move = travel(t)
  const old = await provider.clientCredentials(url)
  t.equal((await ask(url, old)).status, 200)

  await provider.rotateKey()
  move(31_000)
  t.equal((await ask(url, await provider.clientCredentials(url))).status, 200, 'rotated')
  t.match((await ask(url, old)).message, /not name a key of its issuer/, 'even a token that was accepted before')
})

t.test('an unknown key causes a request at most every 30 s', async t => {
  const { provider, url } = await startBoth(t)
  const move = travel(t)
  t.equal((await ask(url, await provider.clientCredentials(url))).status, 200)
  const fetches = () => provider.requests.filter(path => path === '/jwks').length
  const unknown = async () => await ask(url, await provider.sign(claimsFor(provider, url), { kid: randomUUID() }))
  t.equal(fetches(), 1)
  for (let times = 0; times < 5; times++) t.equal((await unknown()).status, 401)
  t.equal(fetches(), 1, 'the keys have just been fetched')
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
  t.equal(fetches(), 2, 'a failed attempt counts too')
})

t.test('while the issuer is down its last keys stay in use', async t => {
  const { provider, url, log } = await startBoth(t)
  const move = travel(t)
  const claims = claimsFor(provider, url)
  t.equal((await ask(url, await provider.sign(claims))).status, 200)
  await provider.stop()
  move(120_000)
  t.equal((await ask(url, await provider.sign(claims, { kid: 'unknown' }))).status, 401)
  t.match(log(), 'the token issuer cannot be reached')
  t.equal((await ask(url, await provider.sign({ ...claims, jti: 'new' }))).status, 200)
  t.equal((await ask(url, await provider.sign({ ...claims, exp: now() - 31 }))).status, 401, 'with the same checks')
})

t.test('an issuer that is down at startup is retried until it answers', async t => {
  const provider = await startProvider(t)
  await provider.stop()
  const { url, log } = await startAuthApp(t, { config: { auth: oidc([provider.issuer]) } })
  const token = await provider.sign(claimsFor(provider, url))
  const { status, challenge, message } = await ask(url, token)
  t.equal(status, 503, 'the token may be valid: a 401 would make the client discard it')
  t.equal(challenge, null)
  t.match(message, /issuer has not been reached yet/)
  t.equal((await ask(url)).status, 401, 'without a token the client is asked for one')
  t.match(log(), 'ECONNREFUSED')
  await provider.start()
  await waitFor(async () => (await ask(url, token)).status === 200, 10_000, 'the issuer has been reached')
})

t.test('an issuer that does not identify itself exactly as configured is refused', async t => {
  const provider = await startProvider(t)
  for (
    const issuer of [
      `${provider.issuer}/`,
      provider.issuer.replace('127.0.0.1', 'localhost'),
      `${provider.issuer}/.well-known/openid-configuration`,
    ]
  ) {
    const { url, log } = await startAuthApp(t, { config: { auth: oidc([issuer]) } })
    t.equal((await ask(url, await provider.sign({ ...claimsFor(provider, url), iss: issuer }))).status, 503, issuer)
    t.match(log(), 'the token issuer cannot be reached')
  }
})

t.test('an accepted token is refused once it has expired', async t => {
  const { provider, url } = await startBoth(t)
  const move = travel(t)
  const token = await provider.sign({ ...claimsFor(provider, url), exp: now() + 60 })
  t.equal((await ask(url, token)).status, 200)
  move(89_000)
  t.equal((await ask(url, token)).status, 200, 'within the leeway')
  move(2_000)
  t.match((await ask(url, token)).message, /expired/)
})

t.test('the accepted lifetime is configurable', async t => {
  const { provider, url } = await startBoth(t, { maxTokenLifetimeMs: 300_000 })
  const claims = claimsFor(provider, url)
  t.equal((await ask(url, await provider.sign({ ...claims, exp: claims.iat as number + 300 }))).status, 200)
  t.match(
    (await ask(url, await provider.sign({ ...claims, exp: claims.iat as number + 301 }))).message,
    /valid for longer than the accepted 300 s/
  )
})

t.test('the log says once that a token is valid for too long, at info', async t => {
  const { provider, url, log } = await startBoth(t)
  const claims = claimsFor(provider, url)
  for (const lifetimeS of [5_400, 3_900, 5_277]) {
    t.equal((await ask(url, await provider.sign({ ...claims, exp: claims.iat as number + lifetimeS }))).status, 401)
  }
  const lines = log().split('\n').filter(line => line.includes('KAFSCALE_MCP_OIDC_MAX_TOKEN_LIFETIME allows'))
  t.equal(lines.length, 1)
  t.match(JSON.parse(String(lines[0])), { level: 30, issuer: provider.issuer, lifetime_s: 5_400, accepted_s: 3_600 })
})

t.test('a limit of 0 is none', async t => {
  const { provider, url } = await startBoth(t, { maxTokenLifetimeMs: 0 })
  const claims = claimsFor(provider, url)
  const { iat = 0, ...others } = claims
  t.equal((await ask(url, await provider.sign({ ...claims, exp: iat + 10 * 365 * 86_400 }))).status, 200)
  t.equal((await ask(url, await provider.sign({ ...claims, iat: 1, exp: now() + 60 }))).status, 200)
  t.match(await ask(url, await provider.sign(others)), { status: 401, message: /has no iat claim/ })
  t.match(await ask(url, await provider.sign({ ...claims, iat: now() + 60 })), { status: 401, message: /the future/ })
  t.match(await ask(url, await provider.sign({ ...claims, exp: now() - 60 })), { status: 401, message: /expired/ })
})

t.test('a limit may be longer than 596 hours', async t => {
  const { provider, url } = await startBoth(t, { maxTokenLifetimeMs: 1_000 * 3_600_000 })
  const claims = claimsFor(provider, url)
  const withLifetime = async (hours: number) =>
    (await ask(url, await provider.sign({ ...claims, exp: claims.iat as number + hours * 3_600 }))).status
  t.equal(await withLifetime(999), 200)
  t.equal(await withLifetime(1_001), 401)
})

t.test('opaque tokens are introspected', async t => {
  const client = { introspection: { clientId: SERVICE.id, clientSecret: new Secret(SERVICE.secret) } }

  t.test('and authenticate their subject', async t => {
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

  t.test('only with client credentials', async t => {
    const { provider, url } = await startBoth(t)
    t.match(await ask(url, await provider.opaqueToken(url)), { status: 401, message: /not a JWT/ })
    t.notOk(provider.requests.includes('/token/introspection'))
  })

  t.test('unknown tokens and tokens for another resource are refused', async t => {
    const { provider, url, log } = await startBoth(t, client)
    t.match(await ask(url, 'unknown-unknown-unknown'), { status: 401, message: /not active/ })
    const other = await provider.opaqueToken('https://other.example/mcp')
    t.match(await ask(url, other), { status: 401, message: /another resource/ })
    t.notOk(log().includes(other) || log().includes('unknown-unknown'), 'tokens are not logged')
  })

  t.test('a revoked token is accepted for 30 s at most', async t => {
    const { provider, url } = await startBoth(t, client)
    const move = travel(t)
    const token = await provider.opaqueToken(url)
    const introspections = () => provider.requests.filter(path => path === '/token/introspection').length
    t.equal((await ask(url, token)).status, 200)
    move(29_000)
    t.equal((await ask(url, token)).status, 200)
    t.equal(introspections(), 1, 'the answer is reused')
    await provider.revoke(token)
    move(2_000)
    t.match(await ask(url, token), { status: 401, message: /not active/ })
    t.equal(introspections(), 2)
  })

  t.test('no answer is reused past the expiry of the token', async t => {
    const { provider, url } = await startBoth(t, client)
    const move = travel(t)
    const token = await provider.opaqueToken(url)
    move(590_000)
    t.equal((await ask(url, token)).status, 200)
    move(11_000)
    t.equal((await ask(url, token)).status, 401)
  })

  t.test('while the issuer is down they cannot be verified', async t => {
    const { provider, url, log } = await startBoth(t, client)
    const token = await provider.opaqueToken(url)
    const reached = 'the token issuer has been reached'
    await waitFor(() => log().includes(reached) || log(), 5_000, reached)
    await provider.stop()
    t.match(await ask(url, token), { status: 503, message: /does not answer/, challenge: null })
    t.match(log(), 'a token could not be introspected')
    t.notOk(log().includes(token) || log().includes(SERVICE.secret))
  })

  t.test('at the first issuer only, where the client is registered', async t => {
    const first = await startProvider(t)
    const second = await startProvider(t)
    const { url } = await startAuthApp(t, {
      config: { auth: oidc([first.issuer, second.issuer], client) },
    })
    t.equal((await ask(url, 'unknown-unknown-unknown')).status, 401)
    t.notOk(second.requests.includes('/token/introspection'))
    t.equal((await ask(url, await second.sign(claimsFor(second, url)))).status, 200, 'JWTs of the second are accepted')
  })
})
