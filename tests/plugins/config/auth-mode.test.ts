import t from 'tap'
import { type AuthSettings, isConfidential, isLoopback, resolveMode } from '../../../plugins/config/auth-mode.ts'

const LOOPBACK = { host: '127.0.0.1', port: 8090 }
const EVERYWHERE = { host: '::', port: 8090 }
const TOKEN = 'a'.repeat(32)
const OIDC = { oidcIssuer: ['https://id.example'] }
const JWKS = { authJwksFile: '/keys.json', authJwksIssuer: 'kafscale-mcp' }

const resolve = (settings: AuthSettings) => resolveMode({ httpAddr: LOOPBACK, ...settings })

t.test('the mode follows from what is set, and is none when nothing is', async t => {
  const derived: [settings: AuthSettings, mode: string][] = [
    [{}, 'none'],
    [OIDC, 'oidc'],
    [{ ...OIDC, oidcClientId: 'x', oidcClientSecret: 'x' }, 'oidc'],
    [JWKS, 'jwks'],
    [{ authToken: TOKEN }, 'token'],
    [{ authMode: 'none' }, 'none'],
    [{ authMode: 'token', authToken: TOKEN }, 'token'],
  ]
  for (const [settings, mode] of derived) {
    t.match(resolve(settings), { mode, wrong: [] }, JSON.stringify(settings))
    if (mode !== 'none') {
      t.strictSame(resolve({ ...settings, httpAddr: EVERYWHERE }).wrong, [], 'and then others may reach it')
    }
  }
})

t.test('an address that others reach needs a way to authenticate; the sentence says which', async t => {
  const ways =
    'set KAFSCALE_MCP_OIDC_ISSUER (an identity provider), KAFSCALE_MCP_AUTH_JWKS_FILE and KAFSCALE_MCP_AUTH_JWKS_ISSUER (keys of your own) ' +
    'or KAFSCALE_MCP_AUTH_TOKEN (one shared secret); or listen on 127.0.0.1:8090'
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
      t.strictSame(resolve({ authMode, httpAddr: { host: String(host), port: 8090 } }).wrong, [
        `KAFSCALE_MCP_HTTP_ADDR (${shown}:8090) is no loopback address, and nothing says who may call: ${ways}`,
      ])
    }
    for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost']) {
      t.strictSame(resolve({ authMode, httpAddr: { host, port: 8090 } }).wrong, [])
    }
  }
})

t.test('what contradicts itself is wrong, in sentences that name the variables', async t => {
  const both = 'expected one way to authenticate, or KAFSCALE_MCP_AUTH_MODE and what belongs to it'
  const wrong: [settings: AuthSettings, ...sentences: string[]][] = [
    [{ ...OIDC, authToken: TOKEN }, `KAFSCALE_MCP_OIDC_ISSUER and KAFSCALE_MCP_AUTH_TOKEN are both set: ${both}`],
    [{ ...JWKS, authToken: TOKEN }, `KAFSCALE_MCP_AUTH_JWKS_FILE and KAFSCALE_MCP_AUTH_TOKEN are both set: ${both}`],
    [{ ...OIDC, ...JWKS, authToken: TOKEN },
      `KAFSCALE_MCP_OIDC_ISSUER and KAFSCALE_MCP_AUTH_JWKS_FILE are both set: ${both}`,
      `KAFSCALE_MCP_OIDC_ISSUER and KAFSCALE_MCP_AUTH_TOKEN are both set: ${both}`,
    ],
    [
      { authMode: 'none', authToken: TOKEN },
      'KAFSCALE_MCP_AUTH_TOKEN is set and KAFSCALE_MCP_AUTH_MODE is none: expected one or the other',
    ],
    [
      { authMode: 'none', ...OIDC },
      'KAFSCALE_MCP_OIDC_ISSUER is set and KAFSCALE_MCP_AUTH_MODE is none: expected one or the other',
    ],
    [
      { authMode: 'oidc', ...OIDC, authToken: TOKEN },
      'KAFSCALE_MCP_AUTH_TOKEN is set and KAFSCALE_MCP_AUTH_MODE is oidc: expected one or the other',
    ],
    [
      { authMode: 'token', ...JWKS },
      'KAFSCALE_MCP_AUTH_JWKS_FILE is set and KAFSCALE_MCP_AUTH_MODE is token: expected one or the other',
      'KAFSCALE_MCP_AUTH_TOKEN is not set: expected it in the mode token'],
    [{ authMode: 'oidc' }, 'KAFSCALE_MCP_OIDC_ISSUER is not set: expected it in the mode oidc'],
    [
      { authMode: 'jwks' },
      'KAFSCALE_MCP_AUTH_JWKS_FILE is not set: expected it in the mode jwks',
      'KAFSCALE_MCP_AUTH_JWKS_ISSUER is not set: expected it in the mode jwks',
    ],
    [{ authJwksFile: '/keys.json' }, 'KAFSCALE_MCP_AUTH_JWKS_ISSUER is not set: expected it in the mode jwks'],
    [{ authJwksIssuer: 'x' }, 'KAFSCALE_MCP_AUTH_JWKS_FILE is not set: expected it in the mode jwks'],
    [
      { ...OIDC, oidcClientId: 'x' },
      'KAFSCALE_MCP_OIDC_CLIENT_ID is set and KAFSCALE_MCP_OIDC_CLIENT_SECRET is not: expected both or neither',
    ],
    [
      { ...OIDC, oidcClientSecret: 'hunter2' },
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
      "KAFSCALE_MCP_TLS_CLIENT_CA_FILE is set and KAFSCALE_MCP_TLS_CERT_FILE is not: expected a certificate of this service, since only TLS asks for the client's",
    ],
    ...['http://id.example', 'ftp://id.example', 'id.example', 'http://127.0.0.1.example'].map((
      issuer
    ): [AuthSettings, string] => [
      { oidcIssuer: ['https://a.example', issuer] },
      `KAFSCALE_MCP_OIDC_ISSUER is "${issuer}": expected an https URL; http is accepted on loopback only`,
    ]),
    ...['a'.repeat(31), '', 'a b'.repeat(32), 'ä'.repeat(32), `${TOKEN}\n`].map((
      authToken
    ): [AuthSettings, string] => [
      { authToken },
      'KAFSCALE_MCP_AUTH_TOKEN is not valid: expected at least 32 characters, all of them visible ASCII',
    ]),
  ]
  for (const [settings, ...sentences] of wrong) {
    t.strictSame(resolve(settings).wrong, sentences, JSON.stringify(settings))
    t.notMatch(sentences.join('\n'), /hunter2|aaaa/, 'no secret')
  }
  t.strictSame(
    resolve({ oidcIssuer: ['http://127.0.0.1:3000', 'http://[::1]:3000', 'http://localhost/realm'] }).wrong,
    []
  )
})

t.test('what is worth a warning', async t => {
  const secret =
    'KAFSCALE_MCP_AUTH_TOKEN is a shared secret: whoever has it is static-token, and nobody can tell who that was'
  t.strictSame(resolve({}).warnings, [])
  t.strictSame(resolve(OIDC).warnings, [])
  t.strictSame(resolve({ authToken: TOKEN }).warnings, [secret])
  t.strictSame(resolve({ ...OIDC, publicUrl: 'http://mcp.example' }).warnings, [
    'KAFSCALE_MCP_PUBLIC_URL is not https: tokens can be read on the way',
  ])
  t.strictSame(resolve({ ...OIDC, publicUrl: 'http://localhost:8090' }).warnings, [])
  t.strictSame(resolve({ ...OIDC, httpAddr: EVERYWHERE, publicUrl: 'https://mcp.example' }).warnings, [])
  for (const host of ['::', '0.0.0.0']) {
    t.strictSame(resolve({ ...OIDC, httpAddr: { host, port: 1 } }).warnings, [
      "KAFSCALE_MCP_PUBLIC_URL is not set: clients are sent to the address that this service listens on, which is nobody's",
    ])
  }
})

t.test('what could not be parsed is no contradiction besides', async t => {
  t.strictSame(resolveMode({}), { mode: 'none', wrong: [], warnings: [] })
  t.strictSame(resolveMode(OIDC).wrong, [])
})

t.test('who reaches a host, and who reads what is sent to a URL', async t => {
  for (const host of ['localhost', '127.0.0.1', '127.255.255.254', '::1', '[::1]']) t.ok(isLoopback(host), host)
  for (const host of ['', '::', '0.0.0.0', '127.1', 'localhost.example', '127.0.0.1.example', '::2']) {
    t.notOk(isLoopback(host), host)
  }
  for (const url of ['https://a', 'http://localhost:1/x', 'http://127.1', 'http://[::1]:1']) {
    t.ok(isConfidential(url), url)
  }
  for (const url of ['http://a', 'ws://localhost', 'localhost', '']) t.notOk(isConfidential(url), url)
})
