/** Which requests of the service go through the proxies of its environment, and which never do. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import t, { type Test } from 'tap'
import { type Proxies, proxiesOf } from '../../plugins/config/proxies.ts'
import { reveal } from '../../plugins/config/secret.ts'
import { fetchOutbound } from '../../plugins/outbound.ts'
import { temporaryFolder } from '../support/run.ts'
import { modern, type Service, startService } from '../support/service.ts'
import { waitFor } from '../support/wait-for.ts'

const REQUEST_BOUND_MS = 10_000
const ISSUER = 'https://id.example'
const CREDENTIALS = `Basic ${Buffer.from('reader:hunter2').toString('base64')}`

/** Whatever the service asks for over TLS: an issuer and a collector. `paths` lists what it has asked for. */
async function startOrigin (t: Test) {
  const dir = temporaryFolder(t)
  const files = { key: `${dir}/key.pem`, cert: `${dir}/cert.pem` }
  const names = ['id.example', 'collector.example', '127.0.0.1.example'].map(name => `DNS:${name}`).join(',')
  execFileSync('openssl', [
    ...'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=example'.split(' '),
    ...['-addext', `subjectAltName=${names}`, '-keyout', files.key, '-out', files.cert],
  ], { stdio: 'ignore' })
  const paths = new Set<string>()
  const pair = { key: readFileSync(files.key), cert: readFileSync(files.cert) }
  const server = createTlsServer(pair, (request, response) => {
    paths.add(`${request.headers.host}${request.url}`)
    request.resume()
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({
      issuer: ISSUER,
      jwks_uri: `${ISSUER}/keys`,
      introspection_endpoint: `${ISSUER}/introspect`,
      keys: [],
      active: false,
    }))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { paths, ca: files.cert, port: (server.address() as AddressInfo).port }
}

/** A proxy that tunnels everything to one port, and answers requests without a tunnel with `status`. */
async function startProxy (t: Test, port: number, { status = 200, tunnels = true } = {}) {
  const seen = new Set<string>()
  const credentials = new Set<string | undefined>()
  const see = (request: IncomingMessage) => {
    seen.add(`${request.method} ${request.url}`)
    credentials.add(request.headers['proxy-authorization'])
  }
  const server = createServer((request, response) => {
    see(request)
    request.resume()
    response.writeHead(status).end()
  }).listen(0, '127.0.0.1')
  server.on('connect', (request, socket) => {
    see(request)
    socket.on('error', () => {})
    if (!tunnels) return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    const upstream = connect(port, '127.0.0.1').on('error', () => {})
    socket.pipe(upstream).pipe(socket)
    socket.on('close', () => upstream.destroy())
  })
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { seen, credentials, url: `http://reader:hunter2@127.0.0.1:${(server.address() as AddressInfo).port}` }
}

async function call (service: Service, token: string, tool: string): Promise<number> {
  const { headers, payload } = modern('tools/call', { name: tool, arguments: {} })
  const authorization = `Bearer ${token}`
  return (await fetch(await service.url, {
    method: 'POST',
    headers: { ...headers, authorization },
    body: JSON.stringify(payload),
  })).status
}

for (const spell of [(name: string) => name, (name: string) => name.toLowerCase()]) {
  t.test(`${spell('HTTPS_PROXY')} carries requests to issuers and collectors only`, async t => {
    const origin = await startOrigin(t)
    const proxy = await startProxy(t, origin.port)
    const service = startService(t, {
      [spell('HTTPS_PROXY')]: proxy.url,
      [spell('HTTP_PROXY')]: proxy.url,
      grpc_proxy: proxy.url,
      NODE_EXTRA_CA_CERTS: origin.ca,
      KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://etcd.example:2379',
      KAFSCALE_MCP_BROKER_METRICS_URL: 'http://broker.example:9093/metrics,https://broker.example:9093/metrics',
      KAFSCALE_MCP_OIDC_ISSUER: ISSUER,
      KAFSCALE_MCP_OIDC_CLIENT_ID: 'kafscale-mcp',
      KAFSCALE_MCP_OIDC_CLIENT_SECRET: 'x',
      KAFSCALE_MCP_AUDIT_SINKS: 'http://collector.example/plain,https://collector.example/tls',
    })
    await waitFor(() => origin.paths.has('id.example/keys') || service.output.stderr, REQUEST_BOUND_MS, 'keys')
    t.equal(await call(service, 'an-opaque-token', 'cluster_metrics'), 401)
    await waitFor(() => proxy.seen.size === 3 || [...proxy.seen], REQUEST_BOUND_MS, 'all requests')
    const triedEtcd = /"msg":"etcd lost"/
    await waitFor(() => triedEtcd.test(service.output.stderr) || service.output.stderr, REQUEST_BOUND_MS, 'etcd')
    t.strictSame([...origin.paths].sort(), [
      'collector.example/tls',
      'id.example/.well-known/openid-configuration',
      'id.example/introspect',
      'id.example/keys',
    ])
    t.strictSame([...proxy.seen].sort(), [
      'CONNECT collector.example:443',
      'CONNECT id.example:443',
      'POST http://collector.example/plain',
    ])
    t.strictSame([...proxy.credentials], [CREDENTIALS])
    t.notMatch(service.output.stderr, 'hunter2')
  })
}

t.test('brokers are scraped directly', async t => {
  const broker = createServer((_, response) => response.end('kafscale_up 1\n')).listen(0, '127.0.0.1')
  await once(broker, 'listening')
  t.teardown(() => broker.close())
  const proxy = await startProxy(t, 1)
  const service = startService(t, {
    HTTPS_PROXY: proxy.url,
    HTTP_PROXY: proxy.url,
    NODE_USE_ENV_PROXY: '1',
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:${(broker.address() as AddressInfo).port}/metrics`,
  })
  t.equal(await call(service, 'x', 'cluster_metrics'), 200)
  t.strictSame([...proxy.seen], [])
})

t.test('NO_PROXY and this machine are reached directly', async t => {
  const origin = await startOrigin(t)
  const proxy = await startProxy(t, origin.port)
  const local = createServer((_, response) => {
    response.setHeader('content-type', 'application/json')
    const issuer = `http://127.0.0.1:${port}`
    response.end(JSON.stringify({ issuer, jwks_uri: `${issuer}/keys`, keys: [] }))
  }).listen(0, '127.0.0.1')
  await once(local, 'listening')
  t.teardown(() => {
    local.closeAllConnections()
    local.close()
  })
  const { port } = local.address() as AddressInfo
  const service = startService(t, {
    HTTPS_PROXY: proxy.url,
    HTTP_PROXY: proxy.url,
    NO_PROXY: 'other.example,.collector.example',
    KAFSCALE_MCP_OIDC_ISSUER: `http://127.0.0.1:${port}`,
    KAFSCALE_MCP_AUDIT_SINKS: 'stdout,http://a.collector.example/audit',
  })
  const reached = /"msg":"the token issuer has been reached"/
  await waitFor(() => reached.test(service.output.stderr) || service.output.stderr, REQUEST_BOUND_MS, 'the issuer')
  await waitFor(() => /not accepting records/.test(service.output.stderr) || service.output.stderr, REQUEST_BOUND_MS,
    'the collector, whose name does not exist, is not reached')
  t.strictSame([...proxy.seen], [])
})

t.test('a proxy that refuses is named as the reason', async t => {
  const proxy = await startProxy(t, 1, { tunnels: false })
  const service = startService(t, {
    HTTPS_PROXY: proxy.url,
    KAFSCALE_MCP_OIDC_ISSUER: ISSUER,
    KAFSCALE_MCP_AUDIT_SINKS: 'stdout',
  })
  const reason = /the token issuer cannot be reached/
  await waitFor(() => reason.test(service.output.stderr) || service.output.stderr, REQUEST_BOUND_MS, 'a warning')
  t.match(service.output.stderr, /"reason":"[^"]*tunnel to id\.example:443 via http:\/\/127\.0\.0\.1:\d+[^"]* 403/)
  t.notMatch(service.output.stderr, 'hunter2')
})

t.test('a request through a proxy fails as fetch does', async t => {
  const answers: Record<string, (response: ServerResponse) => void> = {
    'http://a.example/whole': response => response.setHeader('set-cookie', ['a=1', 'b=2']).end('whole'),
    'http://a.example/empty': response => response.writeHead(204).end(),
    'http://a.example/elsewhere': response => response.writeHead(302, { location: 'http://b.example/' }).end(),
    'http://a.example/half': response => {
      response.writeHead(200, { 'content-length': 10 }).write('half')
      setImmediate(() => response.destroy())
    },
    'http://a.example/never': () => {},
  }
  const proxy = createServer((request, response) => answers[request.url ?? '']?.(response)).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  t.teardown(() => {
    proxy.closeAllConnections()
    proxy.close()
  })
  const send = fetchOutbound(proxiesOf({ HTTP_PROXY: `127.0.0.1:${(proxy.address() as AddressInfo).port}` }))

  const whole = await send('http://a.example/whole', { method: 'POST', body: new URLSearchParams({ token: 'x' }) })
  t.strictSame([whole.status, await whole.text(), whole.headers.getSetCookie()], [200, 'whole', ['a=1', 'b=2']])
  t.equal((await send('http://a.example/empty')).status, 204)
  t.equal((await send('http://a.example/elsewhere')).status, 302, 'a redirect is not followed')
  await t.rejects(send('http://a.example/half'), TypeError)
  await t.rejects(send('http://a.example/never', { signal: AbortSignal.timeout(100) }), { name: 'TimeoutError' })
})

t.test('which URLs NO_PROXY excepts', async t => {
  const bypasses = (rules: string, url: string) =>
    (proxiesOf({ HTTPS_PROXY: 'proxy:3128', NO_PROXY: rules }).proxies as Proxies).bypasses(new URL(url))
  const excepted: [rules: string, url: string][] = [
    ['*', 'https://a.example'],
    ['a.example', 'https://a.example'],
    ['a.example', 'https://A.EXAMPLE.:8443/x'],
    ['example', 'https://a.b.example'],
    ['.svc.cluster.local, .svc', 'http://collector.monitoring.svc:8080'],
    ['x *.a.example', 'https://b.a.example'],
    ['A.Example:443', 'https://a.example'],
    ['a.example:80', 'http://a.example'],
    ['10.0.0.0/8', 'https://10.1.2.3'],
    ['10.1.2.3', 'https://10.1.2.3:8443'],
    ['10.1.2.3:8443', 'https://10.1.2.3:8443'],
    ['fd00::/8', 'https://[fd00::1]'],
    ['fd00::1', 'https://[fd00::1]:8443'],
    ['[fd00::1]:8443', 'https://[fd00::1]:8443'],
    ['', 'http://localhost:9000'],
    ['', 'https://127.0.0.1'],
    ['', 'https://[::1]'],
  ]
  for (const [rules, url] of excepted) t.ok(bypasses(rules, url), `${rules}: ${url}`)
  const proxied: [rules: string, url: string][] = [
    ['', 'https://a.example'],
    [' , ', 'https://a.example'],
    ['.', 'https://a.example'],
    ['a.example', 'https://ba.example'],
    ['a.example:80', 'https://a.example'],
    ['b.a.example', 'https://a.example'],
    ['10.0.0.0/8', 'https://11.0.0.1'],
    ['10.0.0.0/99', 'https://10.0.0.1'],
    ['10.0.0.0/8', 'https://10.example'],
    ['fd00::/8', 'https://[fe80::1]'],
  ]
  for (const [rules, url] of proxied) t.notOk(bypasses(rules, url), `${rules}: ${url}`)
})

t.test('which proxies are accepted', async t => {
  const read = (env: Record<string, string>) => {
    const { proxies, mistakes } = proxiesOf(env)
    return { http: proxies?.http && reveal(proxies.http), https: proxies?.https && reveal(proxies.https), mistakes }
  }
  t.strictSame(read({}), { http: undefined, https: undefined, mistakes: [] })
  t.strictSame(read({ https_proxy: ' ', HTTPS_PROXY: '' }), { http: undefined, https: undefined, mistakes: [] })
  t.match(read({ HTTPS_PROXY: ' proxy:3128\n' }), { http: undefined, https: 'http://proxy:3128/' })
  t.match(read({ https_proxy: 'https://a', HTTPS_PROXY: 'http://b' }), { https: 'https://a/' }, 'lower case first')
  t.match(read({ HTTP_PROXY: 'http://u:p@a:1' }), { http: 'http://u:p@a:1/', https: undefined })
  for (const text of ['socks5://hunter2@proxy', 'http://', 'http://proxy/path', 'http://a b']) {
    t.strictSame(read({ HTTPS_PROXY: text }).mistakes, [
      'HTTPS_PROXY is not valid: expected the URL of a proxy, such as http://proxy.example:3128',
    ], text)
  }
})
