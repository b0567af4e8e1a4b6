/** Issuers that behave as no real provider does. */
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { Secret } from '../../../plugins/config/secret.ts'
import { ask, oidc, startAuthApp } from '../../support/auth.ts'
import { waitFor } from '../../support/wait-for.ts'

const now = () => Math.floor(Date.now() / 1_000)

/** Starts an issuer with the given metadata, discovery path and introspection answer, and a service that trusts it. */
async function startIssuer (
  t: Test,
  { metadata = {}, discovery = '/.well-known/openid-configuration', introspection, answerIntrospection, internal }: {
    metadata?: object
    discovery?: string
    introspection?: object
    /** Responds to introspections in place of `introspection`. */
    answerIntrospection?: (response: ServerResponse, body: string) => unknown
    /** The service is given the addresses of the keys, of introspection or of both, and this name of the issuer. */
    internal?: { name: string, keys?: boolean, introspection?: boolean }
  } = {}
) {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const asked: { authorization: string | undefined, body: string }[] = []
  const requests: string[] = []
  const answers: Record<string, () => object | undefined> = {
    [discovery]: () => ({
      issuer,
      jwks_uri: `${issuer}/jwks`,
      introspection_endpoint: `${issuer}/introspect`,
      ...metadata,
    }),
    '/jwks': () => jwks,
    '/introspect': () => introspection,
  }
  const server = createServer(async (request: IncomingMessage, response: ServerResponse) => {
    requests.push(String(request.url))
    const body = (await request.toArray()).join('')
    if (request.url === '/introspect') {
      asked.push({ authorization: request.headers.authorization, body })
      if (answerIntrospection) return answerIntrospection(response, body)
    }
    const answer = answers[String(request.url)]?.()
    response.writeHead(answer ? 200 : 404, { 'content-type': 'application/json' }).end(JSON.stringify(answer ?? {}))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const jwks = { keys: [{ ...await exportJWK(publicKey), kid: 'a' }] }
  const identifier = internal?.name ?? issuer
  const { app, url, log } = await startAuthApp(t, {
    config: {
      auth: oidc([identifier], {
        audiences: ['us'],
        ...internal?.keys && { jwksUrls: [`${issuer}/jwks`] },
        introspection: {
          clientId: 'id',
          clientSecret: new Secret('hunter2'),
          ...internal?.introspection && { url: `${issuer}/introspect` },
        },
      }),
    },
  })
  const token = await new SignJWT({ iss: identifier, aud: 'us', sub: 'alice', iat: now(), exp: now() + 60 })
    .setProtectedHeader({ alg: 'EdDSA', kid: 'a' }).sign(privateKey)
  return { app, url, log, token, asked, issuer, requests }
}

t.test('an issuer with RFC 8414 metadata only is discovered', async t => {
  const { url, token } = await startIssuer(t, { discovery: '/.well-known/oauth-authorization-server' })
  t.equal((await ask(url, token)).status, 200)
})

t.test('an issuer without an https URL of its keys is refused', async t => {
  for (const jwksUri of ['http://id.example/jwks', 'ftp://127.0.0.1/jwks', undefined]) {
    const { url, token, log } = await startIssuer(t, { metadata: { jwks_uri: jwksUri } })
    t.equal((await ask(url, token)).status, 503)
    t.match(log(), 'its metadata has no https URL of its keys')
  }
})

t.test('an issuer that identifies itself differently is refused', async t => {
  const { url, token, log } = await startIssuer(t, { metadata: { issuer: 'https://id.example' } })
  t.equal((await ask(url, token)).status, 503)
  t.match(log(), 'the token issuer cannot be reached')
})

const inactive = { active: false }
const active = { active: true, sub: 'alice', aud: 'us', exp: now() + 3_000, iat: now() }

t.test('an issuer with internal addresses is not discovered', async t => {
  const name = 'https://id.invalid/realms/main'
  const { url, token, requests, asked, app } = await startIssuer(t, {
    internal: { name, keys: true, introspection: true },
    introspection: active,
  })
  t.match(await ask(url, token), { status: 200, principal: { issuer: name, subject: 'alice' } })
  t.match(await ask(url, 'opaque'), { status: 200, principal: { issuer: name, subject: 'alice' } })
  t.strictSame(asked.map(({ authorization }) => authorization), [`Basic ${btoa('id:hunter2')}`])
  t.strictSame(requests, ['/jwks', '/introspect'])
  t.strictSame(app.tokenIssuers.map(({ state }) => state), [{ issuer: name, state: 'reachable' }])
})

t.test('an internal address replaces the discovered one', async t => {
  const provider = await startIssuer(t, {
    metadata: { introspection_endpoint_auth_methods_supported: ['client_secret_post'] },
  })
  const { issuer } = provider
  const { url } = await startAuthApp(t, {
    config: {
      auth: oidc([issuer], {
        audiences: ['us'],
        introspection: { clientId: 'id', clientSecret: new Secret('hunter2'), url: `${issuer}/internal` },
      }),
    },
  })
  t.equal((await ask(url, provider.token)).status, 200)
  await ask(url, 'opaque')
  t.ok(provider.requests.includes('/internal'))
  t.notOk(provider.requests.includes('/introspect'))
})

t.test('issuers without an internal address are discovered', async t => {
  const internal = await startIssuer(t, { internal: { name: 'https://id.invalid', keys: true } })
  const discovered = await startIssuer(t)
  const { url } = await startAuthApp(t, {
    config: {
      auth: oidc(['https://id.invalid', discovered.issuer], {
        audiences: ['us'],
        jwksUrls: [`${internal.issuer}/jwks`],
      }),
    },
  })
  t.equal((await ask(url, internal.token)).status, 200)
  t.equal((await ask(url, discovered.token)).status, 200)
})

/** The lines of a log with a message, parsed. */
const lines = (log: string, message: string) =>
  log.trim().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)
    .filter(({ msg }) => String(msg).includes(message))

t.test('a wrong client secret is reported as exactly that', async t => {
  const json = { 'content-type': 'application/json' }
  const answers: [code: string | undefined, status: number, answer: (response: ServerResponse) => unknown][] = [
    ['invalid_client', 401, response => response.writeHead(401, json).end('{"error":"invalid_client"}')],
    ['unauthorized_client', 400, response => response.writeHead(400, json).end('{"error":"unauthorized_client"}')],
    ['invalid_client', 400, response => response.writeHead(400, json).end('{"error":"invalid_client"}')],
    [undefined, 401, response => response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()],
  ]
  for (const [code, status, answer] of answers) {
    const { url, log, app } = await startIssuer(t, { answerIntrospection: answer })
    t.match(await ask(url, 'opaque'), {
      status: 503,
      challenge: null,
      message: /its issuer refuses the client credentials of this service/,
    })
    const reason = 'the token issuer refuses the client credentials of the service: ' +
      'KAFSCALE_MCP_OIDC_CLIENT_ID or KAFSCALE_MCP_OIDC_CLIENT_SECRET is wrong'
    const [line, ...more] = lines(log(), reason)
    t.match(line, { level: 40, status, ...code !== undefined && { code } })
    t.equal(more.length, 0)
    t.match(app.tokenIssuers[0]?.state, { state: 'reachable', introspection: { state: 'failing', reason } })
    t.notMatch(log(), /hunter2|opaque/)
  }
})

t.test('what fails at an issuer is logged with its code and status', async t => {
  const started = async (respond?: (path: string, response: ServerResponse) => void) => {
    const server = createServer((request, response) => respond?.(String(request.url), response))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    if (!respond) server.close()
    t.teardown(() => server.close())
    const { url, log, app } = await startAuthApp(t, { config: { auth: oidc([issuer]) } })
    const missing = 'the token issuer cannot be reached'
    await waitFor(() => log().includes(missing) || log(), 5_000, missing)
    t.match(await ask(url, `${btoa('{"alg":"ES256"}')}.${btoa(JSON.stringify({ iss: issuer }))}.x`), { status: 401 })
    return { line: lines(log(), missing)[0], state: app.tokenIssuers[0]?.state, issuer }
  }
  const refused = await started()
  t.match(refused.line, { level: 40, code: 'ECONNREFUSED', issuer: refused.issuer })
  t.strictSame(refused.state, {
    issuer: refused.issuer, state: 'unreachable', reason: 'the token issuer cannot be reached: ECONNREFUSED',
  })
  const failing = await started((_, response) => response.writeHead(502).end())
  t.match(failing.line, { level: 40, status: 502 })
  t.match(failing.state, { state: 'unreachable', reason: 'the token issuer answers with HTTP 502' })
  const withoutKeys = await started((path, response) => {
    const { host } = response.req.headers
    if (path === '/jwks') response.writeHead(403).end()
    else response.end(JSON.stringify({ issuer: `http://${host}`, jwks_uri: `http://${host}/jwks` }))
  })
  t.match(withoutKeys.line, { level: 40, status: 403 })
  t.match(withoutKeys.state, { reason: 'the token issuer answers with HTTP 403' })
})

t.test('the client authenticates by a method that the issuer supports', async t => {
  const basic = await startIssuer(t, { introspection: inactive })
  await ask(basic.url, 'opaque')
  t.strictSame(basic.asked.map(({ authorization }) => authorization), [`Basic ${btoa('id:hunter2')}`])
  const post = await startIssuer(t, {
    introspection: inactive,
    metadata: { introspection_endpoint_auth_methods_supported: ['client_secret_post'] },
  })
  await ask(post.url, 'opaque')
  t.match(post.asked, [{ authorization: undefined, body: /client_secret=hunter2/ }])
  const asToken = await startIssuer(t, {
    introspection: inactive,
    metadata: { token_endpoint_auth_methods_supported: ['client_secret_post'] },
  })
  await ask(asToken.url, 'opaque')
  t.match(asToken.asked, [{ authorization: undefined }])
  t.notMatch(basic.log() + post.log(), /hunter2|opaque/)
})

t.test('what an introspection must contain', async t => {
  const good = { active: true, sub: 'alice', aud: ['other', 'us'], exp: now() + 60, iat: now() }
  const status = async (introspection: object) => {
    const { url } = await startIssuer(t, { introspection })
    const { status, message } = await ask(url, 'opaque')
    return status === 200 ? 'accepted' : message
  }
  t.equal(await status(good), 'accepted')
  t.equal(await status({ ...good, nbf: now() + 20 }), 'accepted', 'within the leeway')
  for (const iat of [undefined, null]) {
    t.equal(await status({ ...good, iat, exp: now() + 3_500 }), 'accepted', 'without iat, if it expires soon')
  }
  t.equal(await status({ ...good, token_type: 'Bearer', token_use: 'access_token' }), 'accepted')
  t.equal(await status({ ...good, typ: 'Bearer', nonce: 'n' }), 'accepted')
  const refused: [object, RegExp][] = [
    [{ ...good, active: false }, /not active/],
    [{ ...good, iss: 'https://other.example' }, /another issuer/],
    [{ ...good, aud: 'other' }, /another resource/],
    [{ ...good, aud: undefined }, /has no aud claim/],
    [{ ...good, exp: undefined }, /has no exp claim/],
    [{ ...good, exp: 'soon' }, /when it expires/],
    [{ ...good, exp: now() }, /expired/],
    [{ ...good, iat: undefined, exp: now() + 3_700 }, /valid for longer than the accepted 3600 s/],
    [{ ...good, iat: 'now' }, /when it was issued/],
    [{ ...good, iat: now() + 60, exp: now() + 120 }, /when it was issued/],
    [{ ...good, nbf: now() + 60 }, /not valid yet/],
    [{ ...good, sub: undefined }, /has no sub claim/],
    [{ ...good, sub: '' }, /no subject/],
    [{ ...good, exp: now() + 3_700 }, /valid for longer/],
    [{ ...good, token_type: 'refresh_token' }, /is a refresh token/],
    [{ ...good, token_type: 'Bearer', token_use: 'refresh_token', aud: undefined }, /is a refresh token/],
    [{ ...good, typ: 'Offline' }, /is a refresh token/],
    [{ ...good, token_use: 'id' }, /is an ID token/],
    [{ ...good, nonce: 'n' }, /is an ID token/],
    [{ ...good, at_hash: 'h', typ: 'Bearer' }, /is an ID token/],
    [{ ...good, events: {} }, /is a security event token/],
    [{ ...good, token_type: ['Bearer'] }, /is not a string/],
  ]
  for (const [introspection, message] of refused) {
    t.match(await status(introspection), message, JSON.stringify(introspection))
  }
})

t.test('without an introspection endpoint opaque tokens are refused', async t => {
  const { url } = await startIssuer(t, { metadata: { introspection_endpoint: undefined } })
  t.match(await ask(url, 'opaque'), { status: 401, message: /not active/ })
})

t.test('an error about one token holds up no other', async t => {
  let answer: (response: ServerResponse) => unknown
  const valid = { active: true, sub: 'alice', aud: 'us', exp: now() + 60, iat: now() }
  const { url, asked, log } = await startIssuer(t, {
    answerIntrospection (response, body) {
      if (!body.includes('token=bad')) response.setHeader('content-type', 'application/json').end(JSON.stringify(valid))
      else answer(response)
    },
  })
  const json = { 'content-type': 'application/json' }
  const notUnderstood = { status: 401, message: /the token is not understood by its issuer/, challenge: /_token"/ }
  const anError = { status: 503, message: /its issuer answers with an error/, challenge: null }
  const cases: [what: string, answer: (response: ServerResponse) => unknown, expected: object][] = [
    ['400', response => response.writeHead(400, json).end('{"error":"invalid_request"}'), notUnderstood],
    ['400 with a challenge', response => response.writeHead(400, { 'www-authenticate': 'Basic' }).end(), notUnderstood],
    ['404', response => response.writeHead(404).end(), notUnderstood],
    ['413 in HTML', response => response.writeHead(413, { 'content-type': 'text/html' }).end('<p>'), notUnderstood],
    ['422', response => response.writeHead(422, json).end('{'), notUnderstood],
    ['no JSON', response => response.writeHead(200, json).end('{'), notUnderstood],
    ['no object', response => response.writeHead(200, json).end('[]'), notUnderstood],
    ['HTML', response => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>'), notUnderstood],
    ['no active', response => response.writeHead(200, json).end('{}'), notUnderstood],
    ['active as text', response => response.writeHead(200, json).end('{"active":"true"}'), notUnderstood],
    ['201', response => response.writeHead(201, json).end('{"active":true}'), notUnderstood],
    ['302', response => response.writeHead(302, { location: '/' }).end(), anError],
    ['401', response => response.writeHead(401, { 'www-authenticate': 'Basic' }).end(), { status: 503 }],
    ['403', response => response.writeHead(403, json).end('{"error":"access_denied"}'), anError],
    ['429', response => response.writeHead(429).end(), anError],
    ['500', response => response.writeHead(500, json).end('{"error":"x"}'), anError],
    ['503', response => response.writeHead(503).end(), anError],
  ]
  for (const [index, [what, respond, expected]] of cases.entries()) {
    answer = respond
    t.match(await ask(url, `bad-${index}`), expected, what)
    t.equal((await ask(url, `good-${index}`)).status, 200, `a valid token after ${what}`)
  }
  t.equal(asked.length, 2 * cases.length)

  for (
    const [index, respond] of [
      (response: ServerResponse) => response.destroy(),
      (response: ServerResponse) => response.writeHead(200, { ...json, 'content-length': 9 }).write('{', () =>
        response.destroy()),
    ].entries()
  ) {
    answer = respond
    const answered = asked.length
    await waitFor(async () => {
      const { status, message } = await ask(url, `bad-unanswered-${index}`)
      t.match({ status, message }, { status: 503, message: /does not answer/ })
      return asked.length > answered
    }, 5_000, 'the issuer is asked')
    t.match(await ask(url, `good-unanswered-${index}`), { status: 503, message: /its issuer does not answer/ })
    t.equal(asked.length, answered + 1, 'the issuer is not asked for a second')
  }
  t.notMatch(log(), /bad-|good-/, 'tokens are not logged')
})

t.test('an opaque token of more than 8,192 characters never reaches the issuer', async t => {
  const { url, asked } = await startIssuer(t, { introspection: inactive })
  t.match(await ask(url, 'x'.repeat(8_192)), { status: 401, message: /not active/ })
  t.match(await ask(url, 'x'.repeat(8_193)), { status: 401, message: /longer than the accepted 8192 characters/ })
  t.match(await ask(url, 'x'.repeat(15_000)), { status: 401, message: /longer than the accepted 8192 characters/ })
  t.equal(asked.length, 1)
})
