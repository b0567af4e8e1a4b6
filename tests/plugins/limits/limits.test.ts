/** How much load one principal, one address or one request can cause. */
import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { Environment } from '../../../plugins/config/read.ts'
import { authority } from '../../support/authorization.ts'
import { SERVICE, startProvider } from '../../support/oidc-provider.ts'
import { scaled } from '../../support/run.ts'
import { buildTestApp, legacy, modern, tool } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const ACT_BOUND_MS = 2_000
const ALICE_ADDRESS = '192.0.2.1'
/** The beginning of a request; a header for the length of the body has to follow. */
const HEAD = [
  'POST /mcp HTTP/1.1', 'host: localhost', 'content-type: application/json',
  'accept: application/json, text/event-stream', '',
].join('\r\n')

/** Starts a service with tokens for Alice and Bob. `ask` sends a request with a token from an address. */
async function start (t: Test, limits: Environment) {
  const { env, token, recorded } = await authority(t)
  const app = await buildTestApp(t, { ...env, ...limits })
  const ask = (token: string | undefined, { from = ALICE_ADDRESS, tool }: { from?: string, tool?: string } = {}) => {
    const { headers, ...request } = tool === undefined
      ? modern('tools/list')
      : modern('tools/call', { name: tool, arguments: {} })
    return app.inject({
      ...request,
      headers: { ...headers, ...token !== undefined && { authorization: `Bearer ${token}` } },
      remoteAddress: from,
    })
  }
  const [alice, bob] = [await token('alice'), await token('bob')]
  return {
    app,
    alice,
    bob,
    token,
    ask,
    recorded,
    status: async (...args: Parameters<typeof ask>) => (await ask(...args)).statusCode,
  }
}

/** Starts a service that introspects opaque tokens. `known` is a valid token that it has accepted before. */
async function startIntrospecting (t: Test, limits: Environment = {}) {
  const provider = await startProvider(t)
  const { recorded, env: { KAFSCALE_MCP_PUBLIC_URL: publicUrl, KAFSCALE_MCP_AUDIT_SINKS: auditSinks } } =
    await authority(t)
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_PUBLIC_URL: publicUrl,
    KAFSCALE_MCP_AUDIT_SINKS: auditSinks,
    KAFSCALE_MCP_OIDC_ISSUER: provider.issuer,
    KAFSCALE_MCP_OIDC_CLIENT_ID: SERVICE.id,
    KAFSCALE_MCP_OIDC_CLIENT_SECRET: SERVICE.secret,
    ...limits,
  })
  const ask = async (token: string) => {
    const { headers, ...request } = modern('tools/list')
    return await app.inject({ ...request, headers: { ...headers, authorization: `Bearer ${token}` } })
  }
  const known = await provider.opaqueToken(`${publicUrl}/mcp`)
  t.equal((await ask(known)).statusCode, 200)
  return {
    provider,
    known,
    ask,
    recorded,
    introspections: () => provider.requests.filter(path => path === '/token/introspection').length,
  }
}

/** Declares a tool whose calls wait until they are released. */
function declareWaitingTool (app: FastifyInstance) {
  let calls = 0
  let released = Promise.withResolvers<void>()
  app.tools.declare(tool({
    name: 'wait',
    answer: async () => {
      calls++
      await released.promise
      calls--
      return {}
    },
  }))
  return {
    underWay: async (count: number) =>
      await waitFor(() => calls === count || calls, ACT_BOUND_MS, `${count} calls are under way`),
    release: () => {
      released.resolve()
      released = Promise.withResolvers()
    },
  }
}

const tooMany = (what: string) => ({
  statusCode: 429,
  body: {
    jsonrpc: '2.0',
    id: null,
    error: {
      code: -32600,
      message: `Too many requests: more than ${what}. Wait as long as Retry-After says, then try again.`,
    },
  },
})

/** Asserts that a request was refused, with a `Retry-After`. */
function refused (t: Test, response: Awaited<ReturnType<FastifyInstance['inject']>>, what: string): void {
  t.strictSame({ statusCode: response.statusCode, body: response.json() }, tooMany(what))
  const retryAfterS = Number(response.headers['retry-after'])
  t.ok(Number.isInteger(retryAfterS) && retryAfterS >= 1 && retryAfterS <= 60, `Retry-After: ${retryAfterS}`)
}

/** Moves the clock forward. */
function wait (t: Test, ms: number): void {
  const now = Date.now
  t.intercept(Date, 'now', { value: () => now() + ms })
}

t.test('requests per minute', async t => {
  t.test('of one principal, from any address', async t => {
    const { alice, bob, token, ask, status } = await start(t, { KAFSCALE_MCP_RATE_LIMIT: '3' })
    for (let request = 0; request < 3; request++) t.equal(await status(alice), 200)
    refused(t, await ask(alice), '3 in a minute')
    refused(
      t,
      await ask(await token('alice', { scope: 'kafscale:observe', jti: 'another token' }), { from: '192.0.2.2' }),
      '3 in a minute'
    )
    t.equal(await status(bob), 200, 'another principal at the same address')
    wait(t, 60_001)
    t.equal(await status(alice), 200, 'a minute later')
  })

  t.test('from one address, of any principal', async t => {
    const { alice, bob, ask, status } = await start(t, { KAFSCALE_MCP_ADDRESS_RATE_LIMIT: '3' })
    for (const token of [alice, bob, alice]) t.equal(await status(token), 200)
    refused(t, await ask(bob), '3 in a minute')
    t.equal(await status(alice, { from: '192.0.2.2' }), 200)
    t.equal(await status(alice, { from: '::ffff:192.0.2.1' }), 429, 'the same address, as IPv4-mapped IPv6')
  })

  t.test('from one IPv6 /64 network, in which a client can choose its address', async t => {
    const { alice, status } = await start(t, { KAFSCALE_MCP_ADDRESS_RATE_LIMIT: '1' })
    t.equal(await status(alice, { from: '2001:db8:0:1::1' }), 200)
    t.equal(await status(alice, { from: '2001:db8:0:1::2' }), 429)
    t.equal(await status(alice, { from: '2001:db8:0:2::1' }), 200)
  })

  t.test('are not limited by default', async t => {
    const { alice, status } = await start(t, {})
    for (let request = 0; request < 100; request++) {
      if (await status(alice) !== 200) return t.fail(`request ${request} is refused`)
    }
    t.pass('100 requests')
  })
})

t.test('concurrent calls', async t => {
  t.test('of one principal', async t => {
    const { app, alice, bob, ask, status } = await start(t, { KAFSCALE_MCP_MAX_CONCURRENT_CALLS: '2' })
    const { underWay, release } = declareWaitingTool(app)
    const calls = [ask(alice, { tool: 'wait' }), ask(alice, { tool: 'wait', from: '192.0.2.2' })]
    await underWay(2)
    refused(t, await ask(alice), '2 at once')
    t.equal((await ask(alice)).headers['retry-after'], '1')
    t.equal(await status(bob), 200)
    release()
    for (const call of calls) t.equal((await call).statusCode, 200)
    for (let request = 0; request < 5; request++) {
      t.equal(await status(alice), 200, 'calls that ended or were refused do not count')
    }
  })

  t.test('from one address', async t => {
    const { app, alice, bob, ask, status } = await start(t, { KAFSCALE_MCP_ADDRESS_MAX_CONCURRENT_CALLS: '2' })
    const { underWay, release } = declareWaitingTool(app)
    const calls = [ask(alice, { tool: 'wait' }), ask(bob, { tool: 'wait' })]
    await underWay(2)
    refused(t, await ask(bob), '2 at once')
    t.equal(await status(bob, { from: '192.0.2.2' }), 200)
    release()
    await Promise.all(calls)
    t.equal(await status(bob), 200)
  })

  t.test('are limited to 64 by default, also without authentication', async t => {
    const app = await buildTestApp(t)
    const { underWay, release } = declareWaitingTool(app)
    const calls = Array.from({ length: 64 }, () => app.inject(legacy('tools/call', { name: 'wait' })))
    await underWay(64)
    refused(t, await app.inject(legacy('ping')), '64 at once')
    release()
    t.strictSame(new Set((await Promise.all(calls)).map(({ statusCode }) => statusCode)), new Set([200]))
  })

  t.test('of a client that disconnects no longer count', async t => {
    const app = await buildTestApp(t, { KAFSCALE_MCP_MAX_CONCURRENT_CALLS: '1' })
    const { underWay } = declareWaitingTool(app)
    const socket = await open(t, app)
    const body = JSON.stringify(legacy('tools/call', { name: 'wait', arguments: {} }).payload)
    socket.write(`${HEAD}content-length: ${body.length}\r\n\r\n${body}`)
    await underWay(1)
    t.equal((await app.inject(legacy('ping'))).statusCode, 429)
    socket.destroy()
    await waitFor(async () => (await app.inject(legacy('ping'))).statusCode === 200, ACT_BOUND_MS, 'admitted again')
  })

  t.test('that wait for an earlier answer on their connection no longer count once it closes', async t => {
    const app = await buildTestApp(t, { KAFSCALE_MCP_MAX_CONCURRENT_CALLS: '3' })
    const { underWay, release } = declareWaitingTool(app)
    const socket = await open(t, app)
    const body = JSON.stringify(legacy('tools/call', { name: 'wait', arguments: {} }).payload)
    for (let call = 0; call < 3; call++) socket.write(`${HEAD}content-length: ${body.length}\r\n\r\n${body}`)
    await underWay(3)
    refused(t, await app.inject(legacy('ping')), '3 at once')
    socket.destroy()
    release()
    await underWay(0)
    const calls = Array.from({ length: 3 }, () => app.inject(legacy('tools/call', { name: 'wait' })))
    await underWay(3)
    release()
    for (const call of calls) t.equal((await call).statusCode, 200)
  })
})

t.test('failed sign-ins', async t => {
  t.test('of one address are limited per minute; all are recorded', async t => {
    const { alice, ask, status, recorded } = await start(t, { KAFSCALE_MCP_MAX_AUTH_FAILURES: '3' })
    for (const token of [undefined, 'nonsense', `${alice}x`]) t.equal(await status(token), 401)
    refused(t, await ask('nonsense'), '3 in a minute')
    t.equal(await status('nonsense', { from: '192.0.2.2' }), 401)
    const failures = recorded('authentication_failure')
    t.strictSame(failures.map(({ where }) => where.remote_address), [...Array(4).fill(ALICE_ADDRESS), '192.0.2.2'])
    wait(t, 60_001)
    t.equal(await status('nonsense'), 401, 'a minute later')
  })

  t.test('from an address do not affect valid tokens from it', async t => {
    const { alice, status } = await start(t, { KAFSCALE_MCP_MAX_AUTH_FAILURES: '1' })
    t.strictSame([await status('nonsense'), await status('nonsense'), await status(alice)], [401, 429, 200])
  })

  t.test('over the limit reach no issuer, and do not include those that an issuer did not answer', async t => {
    const { provider, known, ask, introspections } = await startIntrospecting(t, {
      KAFSCALE_MCP_MAX_AUTH_FAILURES: '2',
    })
    await provider.stop()
    for (let attempt = 0; attempt < 3; attempt++) {
      const { statusCode, headers } = await ask('unknown')
      t.match({ statusCode, retryAfter: headers['retry-after'] }, { statusCode: 503, retryAfter: '5' })
    }
    await provider.start()
    const { length: asked } = provider.requests
    t.equal((await ask('unknown-0')).statusCode, 503, 'an issuer that did not answer is not asked for a second')
    t.equal(provider.requests.length, asked)
    await waitFor(async () => (await ask('unknown-1')).statusCode === 401, ACT_BOUND_MS, 'asked again')
    t.equal((await ask('unknown-2')).statusCode, 401)
    refused(t, await ask('unknown-3'), '2 in a minute')
    t.equal(provider.requests.length, asked + 3)
    refused(t, await ask('unknown-4'), '2 in a minute')
    t.equal(provider.requests.length, asked + 3, 'the issuer is not asked')
    t.equal(introspections(), 4)
    t.equal((await ask(known)).statusCode, 200, 'a token accepted before is still accepted')

    wait(t, 31_000)
    t.equal((await ask(known)).statusCode, 200, 'even when it has to be introspected again')
    t.equal(introspections(), 5)
  })

  t.test('introspect 16 tokens at a time, each of them once', async t => {
    const { ask, introspections, recorded } = await startIntrospecting(t)
    const before = introspections()
    const statuses = await Promise.all(
      Array.from({ length: 100 }, async (_, index) => (await ask(`unknown-${index >> 1}`)).statusCode)
    )
    t.strictSame([...new Set(statuses)].sort(), [401, 429])
    t.equal(introspections() - before, 16)
    t.match(recorded('authentication_failure')[0], { error_code: 'RATE_LIMITED', outcome: 'denied' })
  })

  t.test('are limited to 300 per minute by default', async t => {
    const { status } = await start(t, {})
    const statuses: number[] = []
    for (let attempt = 0; attempt < 301; attempt++) statuses.push(await status('nonsense'))
    t.strictSame([statuses.indexOf(429), statuses.length], [300, 301])
  })
})

t.test('without authentication addresses are not limited: every caller is on this machine', async t => {
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_ADDRESS_RATE_LIMIT: '1',
    KAFSCALE_MCP_ADDRESS_MAX_CONCURRENT_CALLS: '1',
    KAFSCALE_MCP_MAX_AUTH_FAILURES: '1',
  })
  const { underWay, release } = declareWaitingTool(app)
  const calls = Array.from({ length: 5 }, () => app.inject(legacy('tools/call', { name: 'wait' })))
  await underWay(5)
  release()
  for (const call of calls) t.equal((await call).statusCode, 200)
})

t.test('a principal may send 1,200 requests in a minute by default, and any number without authentication', async t => {
  const { alice, bob, ask, status } = await start(t, {})
  for (let sent = 0; sent < 1_200; sent++) if (await status(alice) !== 200) t.fail(`request ${sent} is refused`)
  refused(t, await ask(alice), '1200 in a minute')
  t.equal(await status(bob), 200)

  const app = await buildTestApp(t)
  for (let sent = 0; sent < 1_201; sent++) {
    if ((await app.inject(legacy('ping'))).statusCode !== 200) t.fail(`request ${sent} is refused`)
  }
})

t.test('clients that never read are refused further answers, and then disconnected', async t => {
  const service = async (env: Environment) => {
    const app = await buildTestApp(t, {
      KAFSCALE_MCP_RESPONSE_TIMEOUT: '2s',
      KAFSCALE_MCP_MAX_CONCURRENT_CALLS: '0',
      ...env,
    })
    app.tools.declare(tool({ name: 'large', answer: () => ({ text: 'x'.repeat(950_000) }) }))
    await app.listen({ host: '127.0.0.1', port: 0 })
    return app
  }
  const { payload } = legacy('tools/call', { name: 'large', arguments: {} })
  const body = JSON.stringify(payload)
  const idle = async (t: Test, app: FastifyInstance, clients: number) => {
    for (let client = 0; client < clients; client++) {
      const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1').pause().on('error', () => {})
      t.teardown(() => socket.destroy())
      // The operating system's buffers take the first answers.
      for (let request = 0; request < 8; request++) {
        socket.write(`${HEAD}content-length: ${body.length}\r\n\r\n${body}`)
      }
    }
  }
  const connections = (app: FastifyInstance) =>
    new Promise<number>((resolve, reject) => {
      app.server.getConnections((error, count) => error ? reject(error) : resolve(count))
    })
  for (
    const [setting, status, named] of [
      ['KAFSCALE_MCP_MAX_UNREAD_BYTES', 429, /Too many requests: .* \(KAFSCALE_MCP_MAX_UNREAD_BYTES\)/],
      ['KAFSCALE_MCP_TOTAL_MAX_UNREAD_BYTES', 503, /than KAFSCALE_MCP_TOTAL_MAX_UNREAD_BYTES allows/],
    ] as const
  ) {
    await t.test(setting, async t => {
      const app = await service({ [setting]: '4000000' })
      await idle(t, app, 16)
      await waitFor(async () => {
        const { statusCode, body } = await app.inject(legacy('tools/call', { name: 'large', arguments: {} }))
        return (statusCode === status && named.test(body)) || statusCode
      }, ACT_BOUND_MS, 'refused')
      t.equal((await app.inject('/healthz')).statusCode, 200)
      await waitFor(async () => await connections(app) < 16, 10_000, 'those that hold answers are disconnected')
      await waitFor(async () => {
        const { statusCode } = await app.inject(legacy('tools/call', { name: 'large', arguments: {} }))
        return statusCode === 200 || statusCode
      }, 10_000, 'served again: nothing is held any more')
    })
  }
})

t.test('each call of a batch counts', async t => {
  const batch = (calls: number) => {
    const { payload, ...request } = legacy('tools/call', { name: 'list_topics', arguments: {} })
    return { ...request, payload: Array.from({ length: calls }, (_, id) => ({ ...payload, id })) }
  }
  const app = await buildTestApp(t, { KAFSCALE_MCP_MAX_CONCURRENT_CALLS: '3' })
  t.equal((await app.inject(batch(3))).statusCode, 200)
  refused(t, await app.inject(batch(4)), '3 at once')
  await waitFor(async () => (await app.inject(batch(3))).statusCode === 200, ACT_BOUND_MS, 'the batch no longer counts')
  const limited = await buildTestApp(t, { KAFSCALE_MCP_RATE_LIMIT: '5' })
  t.equal((await limited.inject(batch(5))).statusCode, 200)
  refused(t, await limited.inject(legacy('ping')), '5 in a minute')
})

t.test('a body that is too large is refused, with or without a content length', async t => {
  const app = await buildTestApp(t, { KAFSCALE_MCP_MAX_BODY_BYTES: '1000' })
  const { payload, ...request } = legacy('ping')
  const text = JSON.stringify(payload)
  const padded = (bytes: number) => text + ' '.repeat(bytes - text.length)
  t.equal((await app.inject({ ...request, payload: padded(1_000) })).statusCode, 200)
  const response = await app.inject({ ...request, payload: padded(1_001) })
  t.match({ status: response.statusCode, body: response.json() }, {
    status: 413,
    body: { jsonrpc: '2.0', error: { code: -32600 } },
  })

  const socket = await open(t, app)
  const answer = read(socket)
  socket.write(`${HEAD}transfer-encoding: chunked\r\n\r\n3e9\r\n${padded(1_001)}\r\n0\r\n\r\n`)
  await waitFor(() => /^HTTP\/1\.1 413 /.test(answer.text) || answer.text, ACT_BOUND_MS, 'refused')
})

t.test('JSON that is nested too deeply, or has too many values, is refused before it is parsed', async t => {
  const app = await buildTestApp(t)
  const { payload, ...request } = legacy('tools/call', { name: 'list_topics', arguments: {} })
  const ask = async (body: string) => {
    const response = await app.inject({ ...request, payload: body })
    const { result, error } = response.json()
    return {
      status: response.statusCode,
      answered: result !== undefined,
      tooComplex: /nested deeper than 32 levels, or has more than 20,000 values/.test(
        error?.message ?? ''
      ),
    }
  }
  const nested = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`
  const withArgument = (json: string) => JSON.stringify(payload).replace('"arguments":{}', `"arguments":{"a":${json}}`)
  const items = (count: number) => Array(count).fill('0').join()
  const refused = { status: 400, answered: false, tooComplex: true }

  // The request, its params and their arguments are the first three levels.
  t.strictSame(await ask(withArgument(nested(30))), { status: 200, answered: true, tooComplex: false })
  t.strictSame(await ask(withArgument(nested(31))), refused)
  t.strictSame(await ask(withArgument(`{"a":${nested(30)}}`)), refused)
  for (const text of ['['.repeat(40), '\\"'.repeat(40) + ','.repeat(30_000)]) {
    t.strictSame(await ask(withArgument(JSON.stringify(text))), { status: 200, answered: true, tooComplex: false })
  }
  // The request has seven values of its own.
  t.strictSame(await ask(withArgument(`[${items(19_993)}]`)), { status: 200, answered: true, tooComplex: false })
  t.strictSame(await ask(withArgument(`[${items(19_994)}]`)), refused)
  t.strictSame(await ask(withArgument(`[[${items(10_000)}],[${items(10_000)}]]`)), refused)
  t.strictSame(
    await ask(withArgument(`{${Array.from({ length: 20_000 }, (_, index) => `"${index}":0`).join()}}`)),
    refused
  )
  t.strictSame(await ask(`[${items(20_001)}]`), refused, 'a batch')
  t.strictSame(await ask('['.repeat(200_000)), refused, 'what is not JSON at all')
  t.strictSame(await ask(nested(100_000)), refused)
})

/** Opens a connection to the service. */
async function open (t: Test, app: FastifyInstance) {
  if (!app.server.listening) await app.listen({ port: 0, host: '127.0.0.1' })
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  socket.on('error', () => {}) // the service cuts it off
  t.teardown(() => socket.destroy())
  return socket
}

/** Collects what the service sends, until the connection closes. */
function read (socket: Awaited<ReturnType<typeof open>>): { text: string, ended: boolean } {
  const seen = { text: '', ended: false }
  socket.on('data', chunk => { seen.text += String(chunk) })
  socket.on('close', () => { seen.ended = true })
  return seen
}

t.test('a path that does not exist is refused before the body arrives', async t => {
  const app = await buildTestApp(t)
  for (const path of ['/nope', '/healthz']) {
    const socket = await open(t, app)
    const answer = read(socket)
    socket.write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n`)
    await waitFor(() => answer.ended || answer.text, ACT_BOUND_MS, 'the connection is closed')
    t.match(answer.text, /^HTTP\/1\.1 404 /)
  }
})

t.test('a client that is gone when its request is handled still has an address', async t => {
  const { app, recorded } = await start(t, {})
  const body = JSON.stringify(modern('tools/list').payload)
  const request = `${HEAD}authorization: Bearer x\r\ncontent-length: ${body.length}\r\n\r\n${body}`
  const clients = 5
  for (let client = 0; client < clients; client++) {
    const socket = await open(t, app)
    app.server.once('connection', () => socket.write(request.repeat(4), () => socket.resetAndDestroy()))
    await once(socket, 'close')
  }
  await waitFor(() => recorded('authentication_failure').length >= clients || recorded('authentication_failure'),
    ACT_BOUND_MS, 'the failures are recorded')
  t.strictSame(
    new Set(recorded('authentication_failure').map(({ where }) => where.remote_address)),
    new Set(['127.0.0.1'])
  )
})

t.test('a request whose headers or body take too long to arrive is cut off', async t => {
  const app = await buildTestApp(t, { KAFSCALE_MCP_REQUEST_TIMEOUT: '300ms' })
  for (
    const beginning of [
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\n',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
    ]
  ) {
    const socket = await open(t, app)
    const answer = read(socket)
    const sinceMs = performance.now()
    socket.write(beginning)
    await waitFor(() => answer.ended, ACT_BOUND_MS, 'cut off')
    t.ok(performance.now() - sinceMs >= 300)
    t.match(answer.text, /^HTTP\/1\.1 408 /)
  }

  const socket = await open(t, app)
  const answer = read(socket)
  const { payload } = legacy('ping')
  const body = JSON.stringify(payload)
  socket.write(`${HEAD}content-length: ${body.length}\r\n\r\n`)
  socket.write(body)
  await waitFor(() => answer.text.includes('"result"') || answer.text, ACT_BOUND_MS, 'answered')
  t.match(answer.text, /^HTTP\/1\.1 200 /, 'a request that arrives in time')
})

t.test('while the event loop is slow, requests are refused, and /healthz still answers', async t => {
  // As when the process has no file descriptor left.
  t.intercept(process, 'memoryUsage', { value: () => { throw new Error('EMFILE: uv_resident_set_memory') } })
  const app = await buildTestApp(t, { KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: `${scaled(100)}ms` })
  t.equal((await app.inject(legacy('ping'))).statusCode, 200)
  const cell = new Int32Array(new SharedArrayBuffer(4))
  let response = await app.inject(legacy('ping'))
  const deadline = performance.now() + scaled(5_000)
  while (response.statusCode === 200 && performance.now() < deadline) {
    Atomics.wait(cell, 0, 0, scaled(250))
    await setImmediate()
    response = await app.inject(legacy('ping'))
  }
  t.match({ status: response.statusCode, body: response.json() }, {
    status: 503,
    body: { jsonrpc: '2.0', id: null, error: { code: -32603, message: /KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY/ } },
  })
  t.equal(response.headers['retry-after'], '5')
  t.equal((await app.inject('/readyz')).statusCode, 503)
  t.equal((await app.inject('/healthz')).statusCode, 200, 'a busy process must not be restarted')
  await waitFor(async () => (await app.inject(legacy('ping'))).statusCode === 200, 5_000, 'served again')
})

t.test('X-Forwarded-For is trusted from a trusted proxy only', async t => {
  const forwarded = async (t: Test, trusted: string | undefined, from: string, header: string) => {
    const { app, alice, recorded } = await start(t, { KAFSCALE_MCP_TRUSTED_PROXIES: trusted })
    const { headers, ...request } = modern('tools/call', { name: 'explain_access', arguments: {} })
    const response = await app.inject({
      ...request,
      headers: { ...headers, authorization: `Bearer ${alice}`, 'x-forwarded-for': header },
      remoteAddress: from,
    })
    t.equal(response.statusCode, 200)
    return recorded('tool_call').map(({ where }) => where.remote_address)
  }
  t.strictSame(await forwarded(t, undefined, '10.0.0.1', '198.51.100.7'), ['10.0.0.1'], 'none by default')
  t.strictSame(await forwarded(t, '10.0.0.0/8', '10.0.0.1', '198.51.100.7'), ['198.51.100.7'])
  t.strictSame(await forwarded(t, '10.0.0.0/8', '192.0.2.1', '198.51.100.7'), ['192.0.2.1'], 'not a proxy')
  t.strictSame(
    await forwarded(t, '10.0.0.0/8', '10.0.0.1', '127.0.0.1, 198.51.100.7, 10.0.0.2'),
    ['198.51.100.7'],
    'only the part that trusted proxies added'
  )
  for (const text of ['<script>', 'unknown', '198.51.100.7:80', 'fe80::1%x']) {
    t.strictSame(await forwarded(t, '10.0.0.0/8', '10.0.0.1', text), ['10.0.0.1'], `${text} is not an address`)
    t.strictSame(
      await forwarded(t, '10.0.0.0/8', '10.0.0.1', `198.51.100.7, ${text}, 10.0.0.2`),
      ['10.0.0.2'],
      `${text}, as 10.0.0.2 reports`
    )
  }
  t.strictSame(await forwarded(t, '10.0.0.0/8', '10.0.0.1', '2001:db8::1'), ['2001:db8::1'])
})

t.test('limits by address apply to the clients behind a proxy', async t => {
  const { app, alice } = await start(t, {
    KAFSCALE_MCP_ADDRESS_RATE_LIMIT: '1',
    KAFSCALE_MCP_TRUSTED_PROXIES: '10.0.0.1',
  })
  const status = async (client: string) => {
    const { headers, ...request } = modern('tools/list')
    return (await app.inject({
      ...request,
      headers: { ...headers, authorization: `Bearer ${alice}`, 'x-forwarded-for': client },
      remoteAddress: '10.0.0.1',
    })).statusCode
  }
  t.strictSame([await status('198.51.100.7'), await status('198.51.100.8'), await status('198.51.100.7')], [
    200,
    200,
    429,
  ])
  t.strictSame([await status('unknown'), await status('<script>')], [200, 429], 'both count for the proxy')
})
