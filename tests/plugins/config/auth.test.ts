import t from 'tap'
import { authModeOf, authWarnings } from '../../../plugins/config/auth.ts'
import { contradictions } from '../../../plugins/config/contradictions.ts'
import { parseIssuer, parseToken } from '../../../plugins/config/parsers.ts'
import type { Settings } from '../../../plugins/config/schema.ts'
import { Secret } from '../../../plugins/config/secret.ts'

const LOOPBACK = { host: '127.0.0.1', port: 8090 }
const EVERYWHERE = { host: '::', port: 8090 }
const TOKEN = { authToken: new Secret('a'.repeat(32)) }
const OIDC = { oidcIssuer: ['https://id.example'] }
const OIDC_CLIENT = { oidcClientId: 'x', oidcClientSecret: new Secret('hunter2') }
const JWKS = { authJwksFile: '/keys.json', authJwksIssuer: 'kafscale-mcp' }

function resolve (settings: Partial<Settings>) {
  const all = { httpAddr: LOOPBACK, ...settings }
  const mode = authModeOf(all)
  return {
    mode,
    mistakes: contradictions(all, mode).map(({ message }) => message),
    warnings: authWarnings(mode, all),
  }
}

t.test('the mode is derived from the settings, and is none without any', async t => {
  const derived: [settings: Partial<Settings>, mode: string][] = [
    [{}, 'none'],
    [OIDC, 'oidc'],
    [{ ...OIDC, ...OIDC_CLIENT }, 'oidc'],
    [JWKS, 'jwks'],
    [TOKEN, 'token'],
    [{ authMode: 'none' }, 'none'],
    [{ authMode: 'token', ...TOKEN }, 'token'],
  ]
  for (const [settings, mode] of derived) {
    t.match(resolve(settings), { mode, mistakes: [] }, JSON.stringify(settings))
    if (mode !== 'none') {
      t.strictSame(resolve({ ...settings, httpAddr: EVERYWHERE }).mistakes, [], 'on any address')
    }
  }
})

t.test('without authentication only loopback is accepted; the message lists the alternatives', async t => {
  const alternatives =
    'set KAFSCALE_MCP_OIDC_ISSUER (an identity provider), KAFSCALE_MCP_AUTH_JWKS_FILE and ' +
    'KAFSCALE_MCP_AUTH_JWKS_ISSUER (your own keys), or KAFSCALE_MCP_AUTH_TOKEN (one shared secret); ' +
    'or listen on 127.0.0.1:8090'
  for (const authMode of [undefined, 'none'] as const) {
    for (
      const [host, shown = host] of [
        ['::', '[::]'],
        ['0.0.0.0'],
        ['10.0.0.1'],
        ['mcp.example'],
        ['127.0.0.1.example'],
        ['::ffff:127.0.0.1', '[::ffff:127.0.0.1]'],
      ]
    ) {
      t.strictSame(resolve({ authMode, httpAddr: { host: String(host), port: 8090 } }).mistakes, [
        `KAFSCALE_MCP_HTTP_ADDR (${shown}:8090) is not a loopback address, and no authentication is configured: ` +
        alternatives,
      ])
    }
    for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost']) {
      t.strictSame(resolve({ authMode, httpAddr: { host, port: 8090 } }).mistakes, [])
    }
  }
})

t.test('contradictions are mistakes, in messages that name the variables', async t => {
  const one = 'expected one authentication mode; unset the settings of the other'
  const required = (mode: string) => `expected a value, since the authentication mode is ${mode}`
  const mistakes: [settings: Partial<Settings>, ...messages: string[]][] = [
    [{ ...OIDC, ...TOKEN }, `KAFSCALE_MCP_OIDC_ISSUER and KAFSCALE_MCP_AUTH_TOKEN are both set: ${one}`],
    [{ ...JWKS, ...TOKEN }, `KAFSCALE_MCP_AUTH_JWKS_FILE and KAFSCALE_MCP_AUTH_TOKEN are both set: ${one}`],
    [
      { ...OIDC, ...JWKS, ...TOKEN },
      `KAFSCALE_MCP_OIDC_ISSUER and KAFSCALE_MCP_AUTH_JWKS_FILE are both set: ${one}`,
      `KAFSCALE_MCP_OIDC_ISSUER and KAFSCALE_MCP_AUTH_TOKEN are both set: ${one}`,
    ],
    [
      { authMode: 'none', ...TOKEN },
      'KAFSCALE_MCP_AUTH_TOKEN is set and KAFSCALE_MCP_AUTH_MODE is none: expected one or the other',
    ],
    [
      { authMode: 'none', ...OIDC },
      'KAFSCALE_MCP_OIDC_ISSUER is set and KAFSCALE_MCP_AUTH_MODE is none: expected one or the other',
    ],
    [
      { authMode: 'oidc', ...OIDC, ...TOKEN },
      'KAFSCALE_MCP_AUTH_TOKEN is set and KAFSCALE_MCP_AUTH_MODE is oidc: expected one or the other',
    ],
    [
      { authMode: 'token', ...JWKS },
      'KAFSCALE_MCP_AUTH_JWKS_FILE is set and KAFSCALE_MCP_AUTH_MODE is token: expected one or the other',
      `KAFSCALE_MCP_AUTH_TOKEN is not set: ${required('token')}`,
    ],
    [{ authMode: 'oidc' }, `KAFSCALE_MCP_OIDC_ISSUER is not set: ${required('oidc')}`],
    [
      { authMode: 'jwks' },
      `KAFSCALE_MCP_AUTH_JWKS_FILE is not set: ${required('jwks')}`,
      `KAFSCALE_MCP_AUTH_JWKS_ISSUER is not set: ${required('jwks')}`,
    ],
    [{ authJwksFile: '/keys.json' }, `KAFSCALE_MCP_AUTH_JWKS_ISSUER is not set: ${required('jwks')}`],
    [{ authJwksIssuer: 'x' }, `KAFSCALE_MCP_AUTH_JWKS_FILE is not set: ${required('jwks')}`],
    [
      { ...OIDC, ...OIDC_CLIENT, oidcClientSecret: undefined },
      'KAFSCALE_MCP_OIDC_CLIENT_ID is set and KAFSCALE_MCP_OIDC_CLIENT_SECRET is not: expected both or neither',
    ],
    [
      { ...OIDC, ...OIDC_CLIENT, oidcClientId: undefined },
      'KAFSCALE_MCP_OIDC_CLIENT_SECRET is set and KAFSCALE_MCP_OIDC_CLIENT_ID is not: expected both or neither',
    ],
    [
      { tlsCertFile: '/cert' },
      'KAFSCALE_MCP_TLS_CERT_FILE is set and KAFSCALE_MCP_TLS_KEY_FILE is not: expected both or neither',
    ],
    [
      { tlsKeyFile: '/key' },
      'KAFSCALE_MCP_TLS_KEY_FILE is set and KAFSCALE_MCP_TLS_CERT_FILE is not: expected both or neither',
    ],
    [
      { tlsClientCaFile: '/ca' },
      'KAFSCALE_MCP_TLS_CLIENT_CA_FILE is set and KAFSCALE_MCP_TLS_CERT_FILE is not: ' +
      'expected both, since only TLS asks clients for a certificate',
    ],
  ]
  for (const [settings, ...messages] of mistakes) {
    t.strictSame(resolve(settings).mistakes, messages, JSON.stringify(settings))
    t.notMatch(messages.join('\n'), /hunter2|aaaa/, 'no secret')
  }
})

t.test('an issuer is reached over https, or over http on loopback', async t => {
  for (const issuer of ['https://id.example', 'http://127.0.0.1:3000', 'http://[::1]:3000', 'http://localhost/realm']) {
    t.equal(parseIssuer(issuer), issuer)
  }
  for (const issuer of ['http://id.example', 'http://127.0.0.1.example']) {
    t.throws(() => parseIssuer(issuer), { message: 'https URLs; http is accepted on loopback only' }, issuer)
  }
  for (const issuer of ['ftp://id.example', 'id.example']) {
    t.throws(() => parseIssuer(issuer), { message: 'issuers such as https://id.example' }, issuer)
  }
})

t.test('a static token is long enough, and a header can carry it unchanged', async t => {
  const token = 'a'.repeat(32)
  t.doesNotThrow(() => parseToken(token))
  for (const text of ['a'.repeat(31), '', 'a b'.repeat(32), 'ä'.repeat(32), `${token}\n`]) {
    t.throws(() => parseToken(text), { message: 'at least 32 characters, all of them visible ASCII' })
  }
})

t.test('what is valid but probably not intended causes a warning', async t => {
  const shared =
    'KAFSCALE_MCP_AUTH_TOKEN is a shared secret: every caller is static-token, and audit records cannot tell callers ' +
    'apart; KAFSCALE_MCP_OIDC_ISSUER or KAFSCALE_MCP_AUTH_JWKS_FILE identifies them'
  t.strictSame(resolve({}).warnings, [])
  t.strictSame(resolve(OIDC).warnings, [])
  t.strictSame(resolve(TOKEN).warnings, [shared])
  for (const mode of [OIDC, JWKS]) {
    t.match(resolve({ ...mode, oidcMaxTokenLifetimeMs: 0 }).warnings, [
      /^KAFSCALE_MCP_OIDC_MAX_TOKEN_LIFETIME is 0: tokens are accepted however long they are valid/,
    ])
  }
  t.strictSame(resolve({ ...TOKEN, oidcMaxTokenLifetimeMs: 0 }).warnings, [shared])
  t.strictSame(resolve({ ...OIDC, publicUrl: 'http://mcp.example' }).warnings, [
    'KAFSCALE_MCP_PUBLIC_URL is not https: tokens can be intercepted on the way; serve it over https',
  ])
  t.match(resolve({ ...OIDC, oidcJwksUrl: ['http://id.svc/jwks'], oidcAllowHttp: 'true' }), {
    mistakes: [],
    warnings: [/^KAFSCALE_MCP_OIDC_JWKS_URL contains "http:\/\/id\.svc\/jwks", which is plain http: whoever/],
  })
  t.match(resolve({ ...OIDC, oidcJwksUrl: ['http://127.0.0.1/jwks'] }), { mistakes: [], warnings: [] })
  t.match(resolve({ ...OIDC, oidcIdTokenIssuers: OIDC.oidcIssuer }).warnings, [
    /^KAFSCALE_MCP_OIDC_ID_TOKEN_ISSUERS is set: ID tokens of https:\/\/id\.example are accepted as access tokens/,
  ])
  t.strictSame(resolve({ ...OIDC, publicUrl: 'http://localhost:8090' }).warnings, [])
  t.strictSame(resolve({ ...OIDC, httpAddr: EVERYWHERE, publicUrl: 'https://mcp.example' }).warnings, [])
  for (const [host, shown] of [['::', '[::]'], ['0.0.0.0', '0.0.0.0']] as const) {
    t.strictSame(resolve({ ...OIDC, httpAddr: { host, port: 1 } }).warnings, [
      `KAFSCALE_MCP_PUBLIC_URL is not set: clients are directed to ${shown}:1, where they cannot connect; ` +
      'set it to the URL at which clients reach the service',
    ])
  }
})

t.test('a setting that could not be parsed contradicts nothing', async t => {
  t.equal(authModeOf({}), 'none')
  t.strictSame(contradictions({}, 'none'), [])
  t.strictSame(authWarnings('none', {}), [])
  t.strictSame(contradictions(OIDC, authModeOf(OIDC)), [])
})
