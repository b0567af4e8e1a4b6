/** Pages in a browser as clients: which of them may call the service, and what they can read of its answers. */
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { Environment } from '../../plugins/config/read.ts'
import { fetchFrom, fetchInChromium, needsChromium, type PageRequest } from '../support/browser.ts'
import { type Teardown, temporaryFolder } from '../support/run.ts'
import { buildTestApp, legacy, modern } from '../support/service.ts'

const METADATA = '/.well-known/oauth-protected-resource/mcp'
const TOKEN = 'hunter2'.repeat(5)
const APP = 'https://app.example'
const PAGES = { KAFSCALE_MCP_AUTH_TOKEN: TOKEN, KAFSCALE_MCP_ALLOWED_ORIGINS: APP }
const forms = { '2026-07-28': modern, '2025-11-25': legacy }

/** Builds the app, with its records in a file. */
async function build (t: Teardown, env: Environment = {}): Promise<FastifyInstance> {
  return await buildTestApp(t, { ...env, KAFSCALE_MCP_AUDIT_SINKS: `file:${temporaryFolder(t)}/audit.jsonl` })
}

/** The URL of a service that listens. */
async function start (t: Teardown, env: Environment = {}): Promise<string> {
  const app = await build(t, env)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return app.listeningOrigin
}

/** A call as a client in a page sends it. */
function call (form: typeof modern | typeof legacy, token?: string): PageRequest {
  const { headers, payload } = form('tools/list')
  return {
    method: 'POST',
    headers: { ...headers, traceparent: '00-0', ...token !== undefined && { authorization: `Bearer ${token}` } },
    body: JSON.stringify(payload),
  }
}

function preflight (origin: string, method = 'POST') {
  return { method: 'OPTIONS' as const, headers: { origin, 'access-control-request-method': method } }
}

t.test('a page of an allowed origin signs in and calls', async t => {
  const base = await start(t, PAGES)
  for (const [revision, form] of Object.entries(forms)) {
    t.match(await fetchFrom(APP, `${base}/mcp`, call(form)), {
      status: 401,
      headers: { 'www-authenticate': /resource_metadata="http/ },
      body: /no bearer token was sent/,
    }, `${revision}: it learns where to get a token`)
    t.match(await fetchFrom(APP, `${base}/mcp`, call(form, TOKEN)), { status: 200, body: /cluster_status/ }, revision)
  }
  t.match(await fetchFrom(APP, `${base}${METADATA}`, { headers: { 'mcp-protocol-version': '2025-11-25' } }), {
    status: 200,
    body: /bearer_methods_supported/,
  })
  for (const method of ['GET', 'DELETE']) {
    t.match(await fetchFrom(APP, `${base}/mcp`, { method, headers: { authorization: `Bearer ${TOKEN}` } }), {
      status: 405,
    }, `${method}, which clients try`)
  }
  t.match(await fetchFrom(APP, `${base}/.well-known/openid-configuration`, { headers: { 'mcp-method': 'a' } }), {
    status: 404,
  }, 'a page can tell what does not exist from a network failure')
  const stream = { headers: { authorization: `Bearer ${TOKEN}`, accept: 'text/event-stream' } }
  t.match(await fetchFrom(APP, `${base}/audit/stream`, stream), { status: 403, body: /requires the role auditor/ })
})

t.test('every error has the headers', async t => {
  const base = await start(t, { ...PAGES, KAFSCALE_MCP_RATE_LIMIT: '1', KAFSCALE_MCP_MAX_BODY_BYTES: '1000' })
  const request = call(modern, TOKEN)
  t.match(await fetchFrom(APP, `${base}/mcp`, { ...request, body: '{' }), { status: 400 })
  t.match(await fetchFrom(APP, `${base}/mcp`, request), { status: 429, headers: { 'retry-after': /^\d+$/ } })
  t.match(await fetchFrom(APP, `${base}/mcp`, call(modern, 'x')), { status: 401 })
  const other = await start(t, { ...PAGES, KAFSCALE_MCP_MAX_BODY_BYTES: '10' })
  t.match(await fetchFrom(APP, `${other}/mcp`, request), { status: 413 })
  const hosts = await start(t, { ...PAGES, KAFSCALE_MCP_ALLOWED_HOSTS: 'mcp.example' })
  t.match(await fetchFrom(APP, `${hosts}/mcp`, request), { status: 403, body: /^.*Invalid Host/ })
})

t.test('a page of another origin is refused, with a message that names the setting', async t => {
  const app = await build(t, PAGES)
  const others = ['https://evil.example', 'http://app.example', 'https://app.example:8443', 'null', 'tauri://localhost']
  for (const origin of others) {
    for (const url of ['/mcp', METADATA, '/audit/stream', '/nope']) {
      const response = await app.inject({ ...preflight(origin), url })
      t.equal(response.statusCode, 403, `${origin} ${url}`)
      t.match(response.json(), { error: { message: /^Invalid Origin: .*KAFSCALE_MCP_ALLOWED_ORIGINS/ } })
      t.equal(response.headers['access-control-allow-origin'], undefined)
    }
    for (const request of [{ method: 'POST', url: '/mcp' }, { method: 'GET', url: METADATA }] as const) {
      const response = await app.inject({ ...request, headers: { origin } })
      t.equal(response.statusCode, 403, `${origin} ${request.url}`)
      t.equal(response.headers['access-control-allow-origin'], undefined)
    }
  }
})

t.test('without authentication, pages on this machine may call', async t => {
  const base = await start(t)
  for (const origin of ['http://localhost:6274', 'http://127.0.0.1:1', 'https://localhost', 'http://[::1]:3000']) {
    t.match(await fetchFrom(origin, `${base}/mcp`, call(modern)), { status: 200 }, origin)
  }
  for (const origin of ['https://app.example', 'http://localhost.evil.example', 'http://10.0.0.1']) {
    t.match(await fetchFrom(origin, `${base}/mcp`, call(modern)), { blocked: /^preflight/ }, origin)
  }
})

t.test('an allowed origin is compared as browsers compare origins', async t => {
  const origins = 'https://App.example:443, http://intranet:80/, tauri://localhost, vscode-webview://*, http://[::1]:3000'
  const app = await build(t, { KAFSCALE_MCP_ALLOWED_ORIGINS: origins })
  const statusOf = async (origin: string) => (await app.inject({ ...preflight(origin), url: '/mcp' })).statusCode
  for (
    const origin of [
      'https://app.example',
      'https://app.example:443',
      'https://app.example.',
      'http://intranet',
      'tauri://localhost',
      'vscode-webview://1s4q3mbv0n',
      'http://[::1]:3000',
    ]
  ) {
    t.equal(await statusOf(origin), 204, origin)
  }
  for (
    const origin of [
      'http://app.example',
      'https://app.example:80',
      'https://intranet',
      'tauri://other',
      'vscode-webview-x://a',
      'http://localhost:3000',
      'https://*',
    ]
  ) {
    t.equal(await statusOf(origin), 403, origin)
  }
})

t.test('clients other than browsers notice nothing', async t => {
  const app = await build(t, PAGES)
  const response = await app.inject({ url: METADATA })
  t.equal(response.statusCode, 200)
  t.equal(response.headers['access-control-allow-origin'], undefined)
  t.equal((await app.inject({ method: 'OPTIONS', url: '/mcp' })).statusCode, 404)
  t.equal((await app.inject({ url: '/healthz', headers: { origin: 'https://evil.example' } })).statusCode, 200)
})

t.test('Chromium agrees', needsChromium(), async t => {
  const base = await start(t)
  const strict = await start(t, PAGES)
  const { answers } = await fetchInChromium(t, [
    { url: `${base}/mcp`, ...call(modern) },
    { url: `${base}/mcp`, ...call(legacy) },
    { url: `${base}${METADATA}`, headers: { 'mcp-protocol-version': '2025-11-25' } },
    { url: `${strict}/mcp`, ...call(modern, TOKEN) },
  ])
  t.match(answers, [
    { status: 200, body: /cluster_status/ },
    { status: 200, body: /cluster_status/ },
    { status: 404 },
    { blocked: /Failed to fetch/ },
  ])
  const token = await start(t, { KAFSCALE_MCP_AUTH_TOKEN: TOKEN })
  const signedIn = await fetchInChromium(t, [
    { url: `${token}/mcp`, ...call(modern) },
    { url: `${token}/mcp`, ...call(modern, TOKEN) },
  ])
  t.match(signedIn.answers, [
    { status: 401, headers: { 'www-authenticate': /^Bearer resource_metadata=/ } },
    { status: 200 },
  ])
})
