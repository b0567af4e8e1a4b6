/** The service as a process: how it starts, refuses to start, and shuts down. */
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { Agent, createServer, type IncomingMessage, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import { constants } from 'node:os'
import { json } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { authority } from './support/authority.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { ROOT } from './support/paths.ts'
import { scaled, temporaryFolder } from './support/run.ts'
import { legacy, modern, type Service, startService } from './support/service.ts'
import { spawnClean } from './support/spawn.ts'
import { waitFor } from './support/wait-for.ts'

t.jobs = 2 // some of the time is waiting

const ACT_BOUND_MS = 2_000
const REFUSED = 1
const INFO = 30
const WARN = 40

/** A broker whose metrics page is not answered until it is released, which keeps a call in flight. */
async function slowBroker (t: Test) {
  const waiting: { end: () => void }[] = []
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'text/plain' })
    waiting.push({ end: () => response.end('not metrics') })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    env: {
      KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`,
      KAFSCALE_MCP_METRICS_MAX_AGE: '0',
    },
    asked: () => waiting.length,
    release: () => { for (const response of waiting.splice(0)) response.end() },
  }
}

/** Sends a request over a new socket, or one of an agent; resolves to the response once it begins. */
function post (
  url: string,
  { headers, payload }: ReturnType<typeof modern> | ReturnType<typeof legacy>,
  agent: Agent | false = false
): Promise<IncomingMessage> {
  // The test trusts the service's own certificate.
  const request = url.startsWith('https:')
    ? httpsRequest(url, { method: 'POST', headers, agent: false, rejectUnauthorized: false })
    : httpRequest(url, { method: 'POST', headers, agent })
  request.end(JSON.stringify(payload))
  return once(request, 'response').then(([response]) => response)
}

async function listens (url: string): Promise<boolean> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Connects, and sends the start of a request. */
async function begin (t: Test, url: string, text: string): Promise<void> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {}) // the service closes it
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  socket.write(text)
}

function logged ({ output }: Service): { msg: string, level: number, url?: string, signal?: string }[] {
  return output.stderr.split('\n').slice(0, -1).map(line => JSON.parse(line))
}

/** Makes `bind` of an IPv6 address fail, as where the kernel has none or a seccomp profile forbids them. */
const withoutIpv6 = (code: 'EAFNOSUPPORT' | 'EPERM') => ({
  NODE_OPTIONS: `--import=data:text/javascript,${
    encodeURIComponent(`process.binding('tcp_wrap').TCP.prototype.bind6 = () => ${-constants.errno[code]}`)
  }`,
})

/** Starts a service that must refuse to start. Returns its exit code and what it has written. */
async function refusal (t: Test, env: Record<string, string>): Promise<{ exit: unknown, lines: string[] }> {
  const service = startService(t, env)
  const exit = await service.exit
  t.equal(service.output.stdout, '')
  return { exit, lines: service.output.stderr.trim().split('\n') }
}

t.test('it starts without etcd, and reports that as the reason why it is not ready', async t => {
  const service = startService(t)
  const url = await service.url
  t.match(url, /^http:\/\/127\.0\.0\.1:\d+\/mcp$/)

  const health = await fetch(new URL('/healthz', url))
  t.equal(health.status, 200)
  t.match(await health.json(), {
    status: 'ok',
    version: /^\d+\.\d+\.\d+$/,
    uptime_seconds: Number,
    dependencies: { etcd: { state: 'unavailable', reason: /./ }, brokers: { state: 'not_configured' } },
  })
  const ready = await fetch(new URL('/readyz', url))
  t.equal(ready.status, 503)
  t.match(await ready.json(), { status: 'not ready', reason: /./ })
  for (const form of [modern, legacy]) {
    t.match(await json(await post(url, form('tools/call', { name: 'list_topics', arguments: {} }))), {
      result: {
        isError: true,
        content: [{ text: /^METADATA_UNAVAILABLE: / }],
        _meta: { 'kafscale-mcp/error': { code: 'METADATA_UNAVAILABLE', retryable: true, retry_after_ms: 2_000 } },
      },
    })
  }
})

t.test('it logs on standard error where it listens, and warnings; standard output has only audit records', async t => {
  const token = 'hunter2'.repeat(5)
  const service = startService(t, {
    KAFSCALE_MCP_SESSION_TIMEOUT: '10m',
    KAFSCALE_MCP_AUTH_TOKEN: token,
    KAFSCALE_MCP_AUTH_TOKENS: token,
    KAFSCALE_MCP_AUDIT_SINKS: 'stdout',
  })
  const url = await service.url
  const lines = logged(service)
  t.match(lines.find(({ msg }) => msg === 'listening'), { url, level: INFO })
  for (const message of [
    'KAFSCALE_MCP_SESSION_TIMEOUT has no effect: sessions no longer exist',
    'KAFSCALE_MCP_AUTH_TOKENS is not a variable of this service: it has no effect',
    'KAFSCALE_MCP_AUTH_TOKEN is a shared secret: every caller is static-token, and audit records cannot tell callers ' +
    'apart; KAFSCALE_MCP_OIDC_ISSUER or KAFSCALE_MCP_AUTH_JWKS_FILE identifies them',
  ]) t.match(lines.find(({ msg }) => msg === message), { level: WARN }, message)

  const call = modern('tools/call', { name: 'list_topics', arguments: {} })
  t.equal((await post(url, call)).statusCode, 401)
  t.equal(
    (await post(url, { ...call, headers: { ...call.headers, authorization: `Bearer ${token}` } })).statusCode,
    200
  )
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
  const records = service.output.stdout.trim().split('\n').map(line => JSON.parse(line))
  for (const record of records) t.match(record, { schema: 1 })
  const events = ['start', 'authentication_failure', 'tool_call', 'stop']
  t.strictSame(records.map(({ event }) => event).filter(event => events.includes(event)), events)
  t.match(records.find(({ event }) => event === 'tool_call'), {
    who: { subject: 'static-token', roles: ['observer'] },
    what: { tool: 'list_topics' },
    warning: /shared secret/,
  })
  t.notMatch(service.output.stderr + service.output.stdout, 'hunter2')
})

t.test('without authentication, auditing can be turned off', async t => {
  const service = startService(t, { KAFSCALE_MCP_AUDIT_SINKS: 'none' })
  await json(await post(await service.url, modern('tools/list')))
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
  t.equal(service.output.stdout, '')
})

t.test('it is ready once it has loaded the metadata', needsEtcd(), async t => {
  const { env, client } = await startEtcd(t)
  await client.put('/kafscale/topics/orders/partitions/0/next_offset').value('5')
  const url = await startService(t, env).url
  await waitFor(async () => (await fetch(new URL('/readyz', url))).status === 200, ACT_BOUND_MS, 'ready')
  t.match(await (await fetch(new URL('/healthz', url))).json(), {
    dependencies: { etcd: { state: 'connected', keys: 1, undecodable: 0 } },
  })
})

t.test('it does not start with invalid settings, and reports each of them', async t => {
  t.strictSame(
    await refusal(t, {
      KAFSCALE_MCP_HTTP_ADDR: '0.0.0.0:8090',
      KAFSCALE_MCP_ETCD_ENDPOINTS: '',
      KAFSCALE_MCP_LOG_LEVEL: 'loud',
      KAFSCALE_MCP_ETCD_PASSWORD: 'hunter2',
    }),
    {
      exit: REFUSED,
      lines: [
        'kafscale-mcp does not start:',
        'KAFSCALE_MCP_ETCD_ENDPOINTS is not set: expected etcd endpoints, comma-separated: ' +
        'http://host:port or https://host:port; http if no scheme is given',
        'KAFSCALE_MCP_LOG_LEVEL is "loud": expected one of fatal, error, warn, info, debug, trace, silent',
        'KAFSCALE_MCP_ETCD_PASSWORD is set and KAFSCALE_MCP_ETCD_USERNAME is not: expected both or neither',
        'KAFSCALE_MCP_HTTP_ADDR (0.0.0.0:8090) is not a loopback address, and no authentication is configured: ' +
        'set KAFSCALE_MCP_OIDC_ISSUER (an identity provider), KAFSCALE_MCP_AUTH_JWKS_FILE and ' +
        'KAFSCALE_MCP_AUTH_JWKS_ISSUER (your own keys), or KAFSCALE_MCP_AUTH_TOKEN (one shared secret); ' +
        'or listen on 127.0.0.1:8090',
      ]
    })
})

t.test('it does not start with invalid tools, keys or policies', async t => {
  const dir = t.testdir({ 'policy.yaml': 'roles:\n  reader:\n    allow: [{ topic: [orders] }]\nbindings: []\n' })
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  writeFileSync(`${dir}/ec.key`, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const sentences = async (env: Record<string, string>) => {
    const { exit, lines: [first, ...rest] } = await refusal(t, { ...env, KAFSCALE_MCP_LOG_LEVEL: 'silent' })
    t.strictSame([exit, first], [REFUSED, 'kafscale-mcp does not start:'])
    return rest
  }
  t.match(await sentences({ KAFSCALE_MCP_TOOLS: 'list_topcis' }), [
    /^KAFSCALE_MCP_TOOLS .*"list_topcis": expected names of apply_change, /,
  ])
  t.match(await sentences({ KAFSCALE_MCP_POLICY_FILE: `${dir}/policy.yaml` }), [
    /^KAFSCALE_MCP_POLICY_FILE is ".*policy\.yaml": expected a valid policy$/,
    /^line 3: .*topic/,
  ])
  t.strictSame(
    await sentences({ KAFSCALE_MCP_AUDIT_SINKS: 'stdout', KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE: `${dir}/ec.key` }),
    [
      `KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE is "${dir}/ec.key": ` +
      'expected a file with an unencrypted Ed25519 private key in PEM',
    ]
  )
})

t.test('it does not start where it cannot listen, and reports why', async t => {
  const occupy = async (host: string) => {
    const taken = createServer().listen(0, host)
    await once(taken, 'listening')
    t.teardown(() => taken.close())
    return (taken.address() as AddressInfo).port
  }
  const port = await occupy('127.0.0.1')
  const sentence = async (address: string) => {
    const { exit, lines } = await refusal(t, { KAFSCALE_MCP_HTTP_ADDR: address, KAFSCALE_MCP_LOG_LEVEL: 'silent' })
    t.equal(exit, REFUSED)
    t.equal(lines[0], 'kafscale-mcp does not start:')
    t.equal(lines.length, 2)
    return lines[1]
  }
  t.equal(
    await sentence(`127.0.0.1:${port}`),
    `KAFSCALE_MCP_HTTP_ADDR (127.0.0.1:${port}) is in use: stop the process that listens there, or choose another port.`
  )
  t.match(await sentence(`localhost:${port}`), /^KAFSCALE_MCP_HTTP_ADDR \(127\.0\.0\.1:\d+\) is in use: /)
  t.match(await sentence(`[::1]:${await occupy('::1')}`), /^KAFSCALE_MCP_HTTP_ADDR \(\[::1\]:\d+\) is in use: /)
})

t.test('without IPv6, it listens on every IPv4 address instead of every address', async t => {
  for (const code of ['EAFNOSUPPORT', 'EPERM'] as const) {
    const service = startService(t, {
      ...withoutIpv6(code),
      KAFSCALE_MCP_HTTP_ADDR: ':0',
      KAFSCALE_MCP_TELEMETRY_ADDR: ':0',
      KAFSCALE_MCP_AUTH_TOKEN: 'x'.repeat(32),
      KAFSCALE_MCP_AUDIT_SINKS: `file:${temporaryFolder(t)}/audit.jsonl`,
    })
    const { port } = new URL(await service.url)
    t.equal((await fetch(`http://127.0.0.1:${port}/healthz`)).status, 200, code)
    const metricsUrl = () => logged(service).find(({ msg }) => msg === 'metrics are served')?.url
    await waitFor(() => metricsUrl() !== undefined || service.output.stderr, ACT_BOUND_MS, 'metrics')
    t.match(metricsUrl(), /^http:\/\/0\.0\.0\.0:\d+\/metrics$/)
    t.equal((await fetch(String(metricsUrl()).replace('0.0.0.0', '127.0.0.1'))).status, 200)
  }
})

t.test('every address that cannot be listened on is one sentence with its setting', async t => {
  const token = { KAFSCALE_MCP_AUTH_TOKEN: 'x'.repeat(32) }
  const records = () => `file:${temporaryFolder(t)}/audit.jsonl`
  const problems: [address: string, env: Record<string, string>, sentence: RegExp][] = [
    ['[::1]:8090', withoutIpv6('EPERM'), /\(\[::1\]:8090\) is not permitted \(EPERM\) by a security policy of this /],
    [
      '[::1]:8090',
      withoutIpv6('EAFNOSUPPORT'),
      /\(\[::1\]:8090\) is an IPv6 address, and this machine has no IPv6: choose an IPv4 /,
    ],
    ['192.0.2.1:0', token, /\(192\.0\.2\.1:0\) is not an address of this machine: choose one that is/],
    ['nowhere.invalid:0', token, /\(nowhere\.invalid:0\) has a host name that cannot be resolved \(E\w+\): /],
    ['[fe80::1]:0', token, /\(\[fe80::1\]:0\) is not an address to listen on: a link-local address needs its /],
  ]
  for (const [address, env, sentence] of problems) {
    const { exit, lines } = await refusal(t, {
      ...env,
      KAFSCALE_MCP_HTTP_ADDR: address,
      KAFSCALE_MCP_LOG_LEVEL: 'silent',
      KAFSCALE_MCP_AUDIT_SINKS: records(),
    })
    t.equal(exit, REFUSED)
    t.equal(lines.length, 2, address)
    t.match(lines[1], new RegExp(`^KAFSCALE_MCP_HTTP_ADDR ${sentence.source}`))

    const service = startService(t, {
      ...env,
      KAFSCALE_MCP_TELEMETRY_ADDR: address,
      KAFSCALE_MCP_AUDIT_SINKS: records(),
    })
    await service.url
    const warning = new RegExp(`^cannot listen on .* no metrics: KAFSCALE_MCP_TELEMETRY_ADDR ${sentence.source}`)
    await waitFor(
      () => logged(service).some(({ msg, level }) => level === WARN && warning.test(msg)) || service.output.stderr,
      ACT_BOUND_MS,
      'a warning'
    )
  }
})

t.test('on a signal it finishes the calls in flight, accepts no others, and exits with 0', async t => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    t.test(signal, async t => {
      const { env, asked, release } = await slowBroker(t)
      const service = startService(t, env)
      const url = await service.url
      const forms = [modern, legacy].flatMap(form =>
        [{}, { _meta: { progressToken: 1 } }].map(meta =>
          form('tools/call', { name: 'cluster_metrics', arguments: {}, ...meta })
        )
      )
      const responses = forms.map(request => post(url, request))
      await waitFor(() => asked() === 1 || asked(), ACT_BOUND_MS, 'the call is in flight')
      await fetch(new URL('/healthz', url)) // it has read the others before

      service.process.kill(signal)
      await waitFor(async () => !await listens(url), ACT_BOUND_MS, 'it no longer listens')
      t.equal(service.process.exitCode, null, 'it waits for the calls')
      release()
      for (const response of responses) {
        t.match(await json(await response), { result: { content: [{ text: /^METRICS_UNAVAILABLE: / }] } })
      }
      t.equal(await service.exit, 0)
      t.equal(await listens(url), false)
      t.match(logged(service).filter(({ msg }) => /^shut/.test(msg)), [
        { level: INFO, signal, msg: 'shutting down' },
        { level: INFO, msg: 'shutdown complete' },
      ])
    })
  }
})

t.test('on a signal it finishes the calls in flight over TLS, too', async t => {
  const { cert, key } = authority(temporaryFolder(t), 'ca').issue('/CN=localhost', 'server')
  const { env, asked, release } = await slowBroker(t)
  const service = startService(t, { ...env, KAFSCALE_MCP_TLS_CERT_FILE: cert, KAFSCALE_MCP_TLS_KEY_FILE: key })
  const url = await service.url
  t.match(url, /^https:/)
  const response = post(url, modern('tools/call', { name: 'cluster_metrics', arguments: {} }))
  await waitFor(() => asked() === 1 || asked(), ACT_BOUND_MS, 'the call is in flight')
  service.process.kill('SIGTERM')
  await waitFor(async () => !await listens(url), ACT_BOUND_MS, 'it no longer listens')
  release()
  t.match(await json(await response), { result: { content: [{ text: /^METRICS_UNAVAILABLE: / }] } })
  t.equal(await service.exit, 0)
})

t.test('on a signal it does not wait for connections without a request', async t => {
  const service = startService(t)
  const url = await service.url
  const agent = new Agent({ keepAlive: true })
  t.teardown(() => agent.destroy())
  await json(await post(url, modern('tools/list'), agent))
  await begin(t, url, '')
  await begin(t, url, 'POST /mcp HTTP/1.1\r\nhost: localhost\r\n')
  const toldAtMs = performance.now()
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
  t.ok(performance.now() - toldAtMs < scaled(ACT_BOUND_MS))
})

t.test('on a signal it cuts off calls after 10 s', async t => {
  const service = startService(t)
  const url = await service.url
  await begin(
    t,
    url,
    'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{'
  )
  await fetch(new URL('/healthz', url)) // it has begun to read the other before
  const toldAtMs = performance.now()
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)
  const tookMs = performance.now() - toldAtMs
  t.ok(tookMs >= 9_900 && tookMs < 10_000 + scaled(ACT_BOUND_MS), `${tookMs} ms`)
})

t.test('a second signal ends it at once', async t => {
  /** A service that waits for a call after a first SIGTERM, sent at `signalledAtMs`. */
  const waiting = async (t: Test) => {
    const { env, asked } = await slowBroker(t)
    const service = startService(t, env)
    const url = await service.url
    // It is never answered.
    post(url, modern('tools/call', { name: 'cluster_metrics', arguments: {} })).catch(() => {})
    await waitFor(() => asked() === 1 || asked(), ACT_BOUND_MS, 'the call is in flight')
    const signalledAtMs = performance.now()
    service.process.kill('SIGTERM')
    await waitFor(() => service.output.stderr.includes('shutting down'), ACT_BOUND_MS, 'shutting down')
    return { service, signalledAtMs }
  }

  t.test('another one', async t => {
    const { service } = await waiting(t)
    service.process.kill('SIGINT')
    t.equal(await service.exit, REFUSED)
  })

  t.test('the same one, but only after a second: npm forwards what the terminal has already sent', async t => {
    const { service, signalledAtMs } = await waiting(t)
    const exited = () => service.process.exitCode !== null
    await waitFor(() => {
      service.process.kill('SIGTERM')
      return exited()
    }, ACT_BOUND_MS, 'exited')
    t.ok(performance.now() - signalledAtMs > 1_000, 'signals within a second count as one')
    t.equal(await service.exit, REFUSED)
  })
})

t.test('nothing keeps the process running once its app is closed', needsEtcd(), async t => {
  const { env } = await startEtcd(t)
  const { env: metrics, release, asked } = await slowBroker(t)
  const script = `
    import { buildApp } from './app.ts'
    const app = await buildApp()
    const origin = await app.listen({ port: 0, host: '127.0.0.1' })
    const call = ${JSON.stringify(modern('tools/call', { name: 'cluster_metrics', arguments: {} }))}
    while (app.metadata.state !== 'synced') await new Promise(resolve => setTimeout(resolve, 10))
    const body = JSON.stringify(call.payload)
    const response = await fetch(origin + '/mcp', { method: 'POST', headers: call.headers, body })
    if (!response.ok) throw new Error(await response.text())
    await response.text()
    await app.close()
    process.stdout.write('closed')
  `
  const child = spawnClean(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: ROOT,
    env: {
      KAFSCALE_MCP_LOG_LEVEL: 'silent',
      KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
      KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0',
      KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: '0',
      ...env,
      ...metrics,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  let closedAtMs = Infinity
  child.stdout?.on('data', () => { closedAtMs = performance.now() })
  const exit = once(child, 'exit')
  await waitFor(() => asked() === 1 || asked(), 10_000, 'the call is in flight')
  release()
  t.strictSame(await exit, [0, null])
  t.ok(performance.now() - closedAtMs < scaled(ACT_BOUND_MS))
})
