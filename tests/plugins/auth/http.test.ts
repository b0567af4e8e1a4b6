import crypto from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { syncBuiltinESMExports } from 'node:module'
import t from 'tap'
import { InsufficientScope, Unauthenticated } from '../../../errors.ts'
import { InvalidArgument } from '../../../errors.ts'
import { challenge } from '../../../plugins/auth/challenge.ts'
import { ask, oidc, startAuthApp, staticToken } from '../../support/auth.ts'

const TOKEN = 'correct-horse-battery-staple-0123456789'
const config = { auth: staticToken(TOKEN) }

/** Sends headers exactly as given, duplicates included. Resolves to the status. */
function raw (url: string, ...headers: string[]): Promise<number> {
  const { host } = new URL(url)
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, {
      method: 'POST',
      agent: false,
      headers: ['Host', host, 'Content-Length', '0', ...headers] as unknown as Record<string, string>,
    }, response => {
      response.resume()
      resolve(response.statusCode as number)
    })
    request.on('error', reject)
    request.end()
  })
}

t.test('the static token', async t => {
  const { url, log } = await startAuthApp(t, { config })

  t.test('authenticates everyone who sends it', async t => {
    const { status, principal } = await ask(url, TOKEN)
    t.equal(status, 200)
    t.strictSame(principal, {
      subject: 'static-token',
      issuer: null,
      clientId: null,
      method: 'token',
      tokenId: null,
      expiresAt: null,
      claims: {},
      clientCertificate: null,
    })
  })

  t.test('is refused with any difference', async t => {
    for (
      const token of [
        TOKEN.slice(0, -1),
        `${TOKEN}x`,
        TOKEN.toUpperCase(),
        `x${TOKEN.slice(1)}`,
        `${TOKEN.slice(0, -1)}x`,
        TOKEN.repeat(100),
        'x',
      ]
    ) {
      const answer = await ask(url, token)
      t.equal(answer.status, 401)
      const description = 'Not authenticated: the token is not the configured one.'
      t.ok(answer.challenge?.startsWith(`Bearer error="invalid_token", error_description="${description}"`))
      t.notOk(answer.text.includes(token) && token !== 'x')
    }
  })

  t.notOk(log().includes(TOKEN), 'and does not appear in the log')
})

t.test('a comparison takes the same time wherever the tokens differ', async t => {
  const { app } = await startAuthApp(t, { config })
  const compared: [number, number][] = []
  const { timingSafeEqual } = crypto
  t.intercept(crypto, 'timingSafeEqual', {
    value: (a: Buffer, b: Buffer) => {
      compared.push([a.length, b.length])
      return timingSafeEqual(a, b)
    }
  })
  syncBuiltinESMExports()
  t.teardown(syncBuiltinESMExports)
  for (const token of ['x', TOKEN, TOKEN.repeat(10)]) {
    await app.inject({ method: 'POST', url: '/mcp', headers: { authorization: `Bearer ${token}` } })
  }
  t.strictSame(compared, [[32, 32], [32, 32], [32, 32]], 'digests of equal length, by timingSafeEqual')
})

t.test('which Authorization headers are accepted', async t => {
  const { url } = await startAuthApp(t, { config })
  for (const authorization of [`Bearer ${TOKEN}`, `bearer ${TOKEN}`, `BEARER ${TOKEN}`, `bEaReR   ${TOKEN}  `]) {
    t.equal((await ask(url, { authorization })).status, 200, authorization)
  }
  for (
    const [authorization, error] of [
      ['', null],
      ['Bearer', null],
      ['Bearer ', null],
      [TOKEN, null],
      [`Basic ${btoa(`a:${TOKEN}`)}`, null],
      [`DPoP ${TOKEN}`, null],
      [`Bearer${TOKEN}`, null],
      [`Bearer: ${TOKEN}`, null],
      [`Bearer ${TOKEN} ${TOKEN}`, 'invalid_request'],
      [`Bearer x, Bearer ${TOKEN}`, 'invalid_request'],
      [`Bearer ${TOKEN}, x`, 'invalid_request'],
      [`Bearer x,${TOKEN}`, 'invalid_token'],
      [`Bearer "${TOKEN}"`, 'invalid_token'],
      [`Bearer ${encodeURIComponent(`${TOKEN}%`)}`, 'invalid_token'],
    ] as const
  ) {
    const { status, challenge } = await ask(url, { authorization })
    t.equal(status, 401, authorization)
    t.equal(/error="(\w+)"/.exec(String(challenge))?.[1] ?? null, error, authorization)
  }
  for (
    const header of [
      'proxy-authorization',
      'x-forwarded-authorization',
      'x-authorization',
      'x-forwarded-access-token',
      'cookie',
      'x-original-authorization',
    ]
  ) {
    t.equal((await ask(url, { [header]: `Bearer ${TOKEN}` })).status, 401, header)
  }
})

t.test('a second Authorization header cannot get past a proxy that checks one', async t => {
  const { url } = await startAuthApp(t, { config })
  const good = `Bearer ${TOKEN}`
  t.equal(await raw(url, 'Authorization', good), 200)
  t.equal(await raw(url, 'aUTHORIZATION', good), 200)
  t.equal(await raw(url, 'Authorization', good, 'Authorization', 'Bearer x'), 401)
  t.equal(await raw(url, 'Authorization', 'Bearer x', 'authorization', good), 401)
  t.equal(await raw(url, 'Authorization', good, 'AUTHORIZATION', good), 401, 'even if both are equal')
  t.equal(await raw(url, 'Authorization', '', 'Authorization', good), 401)
  t.equal(await raw(url, 'Authorization', good, 'X-Authorization', 'Bearer x'), 200, 'other headers are ignored')
})

t.test('a token in the query string is refused, even with a valid one in the header', async t => {
  const { url } = await startAuthApp(t, { config })
  for (
    const query of [
      `access_token=${TOKEN}`,
      `Access_Token=${TOKEN}`,
      `%61ccess_token=${TOKEN}`,
      'access_token=',
      `a=b&access_token=x&access_token=${TOKEN}`,
    ]
  ) {
    for (const headers of [{}, { authorization: `Bearer ${TOKEN}` }]) {
      const { status, challenge, text } = await ask(`${url}?${query}`, headers)
      t.equal(status, 401, query)
      t.match(challenge, /error="invalid_request", error_description="Not authenticated: a token in the query string/)
      t.notOk(text.includes(TOKEN))
    }
  }
  t.equal((await ask(`${url}?a=access_token`, TOKEN)).status, 200)
})

t.test('the challenge says where to get a token and for which scope', async t => {
  const { url, app } = await startAuthApp(t, { config })
  const metadata = url.replace('/mcp', '/.well-known/oauth-protected-resource/mcp')
  const { status, challenge: header } = await ask(url)
  t.equal(status, 401)
  t.equal(
    header,
    `Bearer resource_metadata="${metadata}", scope="kafscale:observe"`,
    'no error, since no token was sent'
  )
  t.equal(
    challenge(new InsufficientScope(['kafscale:observe', 'kafscale:mutate']), app),
    'Bearer error="insufficient_scope", ' +
    'error_description="The token lacks a scope. The call requires: kafscale:observe kafscale:mutate.", ' +
    `resource_metadata="${metadata}", scope="kafscale:observe kafscale:mutate"`)
  t.match(new InsufficientScope(['a']), { code: 'INSUFFICIENT_SCOPE', statusCode: 403 })
  t.match(new Unauthenticated('x'), { code: 'UNAUTHENTICATED', statusCode: 401 })
  t.equal(challenge(new InvalidArgument('x'), app), undefined)
})

t.test('without authentication every caller is anonymous', async t => {
  const { url } = await startAuthApp(t)
  for (const credentials of [undefined, 'x', { authorization: 'Basic x' }]) {
    const { status, principal } = await ask(url, credentials)
    t.equal(status, 200)
    t.match(principal, { subject: 'anonymous', method: 'none', issuer: null, tokenId: null, expiresAt: null })
  }
})

t.test('a route outside the authenticated scope needs no token', async t => {
  const { app } = await startAuthApp(t, { config, routes: app => { app.get('/mcp', async () => 'x') } })
  const served = await app.inject('/.well-known/oauth-protected-resource')
  t.equal(served.statusCode, 200)
})

t.test('the protected resource metadata', async t => {
  const paths = ['/.well-known/oauth-protected-resource', '/.well-known/oauth-protected-resource/mcp']
  const metadataOf = async (config: object, extra: string[] = []) => {
    const { url, app } = await startAuthApp(t, { config })
    const found = await Promise.all(
      [...paths, ...extra].map(async path => (await app.inject(path)).json<Record<string, unknown>>())
    )
    for (const other of found) t.strictSame(other, found[0])
    return { url, metadata: found[0], app }
  }
  const { url, metadata } = await metadataOf(config)
  t.strictSame(metadata, {
    resource: url,
    scopes_supported: ['kafscale:observe'],
    bearer_methods_supported: ['header'],
    resource_name: 'KafScale',
  }, 'no authorization server without an issuer')

  const issuers = ['http://127.0.0.1:1', 'http://127.0.0.1:2/realm']
  const withIssuers = await metadataOf({ auth: oidc(issuers), publicUrl: 'https://mcp.example/' })
  t.match(withIssuers.metadata, { resource: 'https://mcp.example/mcp', authorization_servers: issuers })

  const behind = await metadataOf({ ...config, publicUrl: 'https://example.com:443/kafscale' }, [
    '/.well-known/oauth-protected-resource/kafscale/mcp',
  ])
  t.equal(behind.metadata?.['resource'], 'https://example.com/kafscale/mcp')
  t.equal(
    challenge(new Unauthenticated('x'), behind.app),
    'Bearer resource_metadata="https://example.com/kafscale/.well-known/oauth-protected-resource/mcp", scope="kafscale:observe"'
  )

  const { app } = await startAuthApp(t)
  for (const path of paths) t.equal((await app.inject(path)).statusCode, 404, 'not served when no token is needed')
})

t.test('without PUBLIC_URL the resource follows the listen address', async t => {
  const { url } = await startAuthApp(t, { config: { ...config, httpAddr: { host: '::1', port: 0 } } })
  t.match(
    (await ask(url)).challenge,
    `resource_metadata="${url.replace('/mcp', '/.well-known/oauth-protected-resource/mcp')}"`
  )
})
