import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { json } from 'node:stream/consumers'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { Environment } from '../../../plugins/config/read.ts'
import { buildTestApp, legacy, MODERN, modern, tool } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const ACT_BOUND_MS = 1_000
const forms = { '2026-07-28': modern, '2025-11-25': legacy }

/** Declares a tool that returns its input after `release` is called, and lists its calls. */
function declareWaitingTool (app: FastifyInstance) {
  const calls: { text: string, signal: AbortSignal }[] = []
  const released = Promise.withResolvers<void>()
  app.tools.declare(tool({
    name: 'wait',
    properties: { text: Type.String() },
    output: Type.Object({ text: Type.String() }),
    answer: async (_, { text }, { signal }) => {
      calls.push({ text: String(text), signal })
      await released.promise
      return { text: String(text) }
    },
  }))
  return { calls, release: () => released.resolve() }
}

/** Sends a request over its own socket, without waiting for the response. */
async function send (app: FastifyInstance, { headers, payload }: ReturnType<typeof modern>) {
  if (!app.server.listening) await app.listen({ port: 0, host: '127.0.0.1' })
  const request = httpRequest(`${app.listeningOrigin}/mcp`, { method: 'POST', headers, agent: false })
  request.on('error', () => {}) // a test may destroy it
  request.end(JSON.stringify(payload))
  return request
}

t.test('a request of either generation is answered with one JSON message', async t => {
  const app = await buildTestApp(t)
  for (const [revision, form] of Object.entries(forms)) {
    for (const method of ['tools/list', revision === MODERN ? 'server/discover' : 'ping']) {
      const response = await app.inject(form(method, {}, 'an id'))
      t.equal(response.statusCode, 200, `${revision} ${method}`)
      t.match(response.headers['content-type'], /^application\/json/)
      t.match(response.json(), { jsonrpc: '2.0', id: 'an id', result: {} })
    }
  }
})

t.test('/mcp/ is the same as /mcp', async t => {
  const app = await buildTestApp(t)
  for (const form of Object.values(forms)) {
    const [{ body }, slashed] = [
      await app.inject(form('tools/list')),
      await app.inject({ ...form('tools/list'), url: '/mcp/' }),
    ]
    t.equal(slashed.statusCode, 200)
    t.equal(slashed.body, body)
  }
})

t.test('a client learns what the service is and how to combine its tools', async t => {
  const app = await buildTestApp(t)
  const initialized = (await app.inject(
    legacy('initialize', {
      protocolVersion: '2025-06-18',
      capabilities: {},
      clientInfo: { name: 'a', version: '1' },
    })
  )).json().result
  const discovered = (await app.inject(modern('server/discover'))).json().result
  t.match(initialized, {
    protocolVersion: '2025-06-18',
    serverInfo: { name: 'kafscale-mcp', title: 'KafScale' },
    capabilities: { tools: {} },
  })
  t.match(discovered, { supportedVersions: [MODERN], capabilities: { tools: {} } })
  t.equal(initialized.instructions, discovered.instructions)
  t.match(initialized.instructions, /Start with cluster_status/)
})

t.test('tools/list says how long and by whom it may be cached', async t => {
  const app = await buildTestApp(t)
  t.match((await app.inject(modern('tools/list'))).json().result, { ttlMs: 300_000, cacheScope: 'private' })
})

t.test('DNS rebinding is prevented', async t => {
  const call = async (env: Environment, headers: Record<string, string>) => {
    const app = await buildTestApp(t, env)
    const request = modern('tools/list')
    return await app.inject({ ...request, headers: { ...request.headers, ...headers } })
  }
  const refusal =
    /^Invalid (?:Host: .* KAFSCALE_MCP_ALLOWED_HOSTS|Origin: .* KAFSCALE_MCP_ALLOWED_ORIGINS)/
  const refused = async (t: Test, env: Environment, headers: Record<string, string>) => {
    const response = await call(env, headers)
    t.equal(response.statusCode, 403, `${JSON.stringify(headers)} is refused`)
    t.match(response.json(), {
      jsonrpc: '2.0',
      id: null,
      error: { code: -32000, message: refusal },
    })
  }
  const allowed = async (t: Test, env: Environment, headers: Record<string, string>) =>
    t.equal((await call(env, headers)).statusCode, 200, `${JSON.stringify(headers)} is allowed`)

  t.test('on a loopback address, by accepting loopback names only', async t => {
    for (
      const host of [
        'localhost',
        'localhost:8090',
        'LOCALHOST',
        'localhost.',
        'Localhost.:8090',
        '127.0.0.1',
        '127.0.0.1:1',
        '[::1]:8090',
      ]
    ) {
      await allowed(t, {}, { host })
    }
    for (
      const host of [
        'evil.example',
        'evil.example:8090',
        'localhost.evil.example',
        '127.0.0.1.evil.example',
        '127.0.0.2',
        '10.0.0.1',
        ' ',
        'a b',
      ]
    ) {
      await refused(t, {}, { host })
    }
    for (const origin of ['http://localhost:3000', 'https://localhost', 'http://127.0.0.1:1', 'http://[::1]']) {
      await allowed(t, {}, { origin })
    }
    for (const origin of ['https://evil.example', 'http://localhost.evil.example', 'null', 'file://', 'localhost']) {
      await refused(t, {}, { origin })
    }
  })

  t.test('and also the address on which the service listens', async t => {
    await allowed(t, { KAFSCALE_MCP_HTTP_ADDR: '127.0.0.2:0' }, { host: '127.0.0.2:8090' })
    await allowed(t, { KAFSCALE_MCP_HTTP_ADDR: 'localhost.:0' }, { host: 'localhost' })
  })

  t.test('and the host of the public URL, which a proxy on the same machine passes on', async t => {
    const env = { KAFSCALE_MCP_PUBLIC_URL: 'https://MCP.example.:8443/kafscale' }
    for (const host of ['mcp.example', 'mcp.example:8443', 'mcp.example.', 'localhost']) await allowed(t, env, { host })
    await allowed(t, { KAFSCALE_MCP_PUBLIC_URL: 'https://[fd00::1]' }, { host: '[fd00::1]' })
    for (const host of ['evil.example', 'x.mcp.example']) await refused(t, env, { host })
    const explicit = { ...env, KAFSCALE_MCP_ALLOWED_HOSTS: 'api.example' }
    await refused(t, explicit, { host: 'mcp.example' })
  })

  t.test('by accepting configured host names only', async t => {
    const env = { KAFSCALE_MCP_ALLOWED_HOSTS: 'MCP.example,[fd00::1],api.example.' }
    for (
      const host of [
        'mcp.example',
        'mcp.example:443',
        'MCP.EXAMPLE',
        '[fd00::1]:8090',
        'mcp.example.',
        'mcp.example.:443',
        'api.example',
        'api.example.',
      ]
    ) {
      await allowed(t, env, { host })
    }
    for (const host of ['localhost', '127.0.0.1', 'example', 'x.mcp.example', 'mcp.example..']) {
      await refused(t, env, { host })
    }
  })

  t.test('by accepting configured origins only', async t => {
    const env = { KAFSCALE_MCP_ALLOWED_ORIGINS: 'https://app.example,http://localhost:3000' }
    for (const origin of ['https://app.example', 'http://localhost:3000']) await allowed(t, env, { origin })
    for (
      const origin of [
        'http://app.example',
        'https://app.example:8443',
        'http://localhost',
        'https://x.app.example',
        'null',
      ]
    ) await refused(t, env, { origin })
    await allowed(t, env, {})
  })

  t.test('for every method', async t => {
    const app = await buildTestApp(t)
    for (const method of ['GET', 'POST', 'DELETE'] as const) {
      t.equal((await app.inject({ method, url: '/mcp', headers: { host: 'evil.example' } })).statusCode, 403, method)
    }
  })

  t.test('for the audit stream', async t => {
    const app = await buildTestApp(t)
    for (const headers of [{ host: 'evil.example' }, { origin: 'https://evil.example' }]) {
      const response = await app.inject({ url: '/audit/stream', headers: { accept: 'text/event-stream', ...headers } })
      t.match({ status: response.statusCode, body: response.json() }, {
        status: 403,
        body: { error: { message: /^Invalid (Host|Origin)/ } },
      })
    }
  })

  t.test('but not for health checks, which the kubelet sends to the address of the pod', async t => {
    const app = await buildTestApp(t)
    const headers = { host: '10.0.0.1:8090', origin: 'https://evil.example' }
    t.equal((await app.inject({ url: '/healthz', headers })).statusCode, 200)
    t.equal((await app.inject({ url: '/readyz', headers })).statusCode, 503)
  })
})

t.test('a connection stays open for longer than load balancers reuse it, or for as long as configured', async t => {
  const headerOf = async (env: Environment) => {
    const app = await buildTestApp(t, env)
    await app.listen({ port: 0, host: '127.0.0.1' })
    const request = httpRequest(`${app.listeningOrigin}/healthz`, { headers: { connection: 'keep-alive' } })
    request.end()
    const [response] = await once(request, 'response')
    response.resume()
    request.destroy()
    return response.headers['keep-alive']
  }
  t.equal(await headerOf({}), 'timeout=620')
  t.equal(await headerOf({ KAFSCALE_MCP_KEEP_ALIVE_TIMEOUT: '75s' }), 'timeout=75')
  t.equal(await headerOf({ KAFSCALE_MCP_KEEP_ALIVE_TIMEOUT: '0' }), 'timeout=2147473', '24 days')
})

t.test('GET and DELETE are not allowed, because there are no sessions', async t => {
  const app = await buildTestApp(t)
  for (const method of ['GET', 'DELETE'] as const) {
    const response = await app.inject({
      method,
      url: '/mcp',
      headers: { accept: 'text/event-stream', 'mcp-session-id': 'a' },
    })
    t.equal(response.statusCode, 405, method)
    t.equal(response.headers.allow, 'POST')
    t.match(response.json(), { jsonrpc: '2.0', id: null, error: { code: -32000, message: /Method not allowed/ } })
  }
})

t.test('a client is answered with JSON unless its Accept excludes that', async t => {
  const app = await buildTestApp(t)
  const accepted = [
    undefined,
    '',
    '*/*',
    'Application/JSON, Text/Event-Stream',
    'TEXT/EVENT-STREAM;q=0.9,APPLICATION/JSON',
    'application/*, text/*',
    'text/html, */*;q=0.1',
    'application/json, */*',
  ]
  for (const [revision, form] of Object.entries(forms)) {
    for (const method of ['tools/list', revision === MODERN ? 'server/discover' : 'ping']) {
      for (const accept of accepted) {
        const { headers: { accept: _, ...headers }, ...request } = form(method)
        const sent = { ...headers, ...accept !== undefined && { accept } }
        const response = await app.inject({ ...request, headers: sent })
        t.equal(response.statusCode, 200, `${revision} ${method} ${accept}`)
        t.match(response.headers['content-type'], /^application\/json/)
        t.match(response.json(), { jsonrpc: '2.0', id: 1, result: {} })
      }
    }
  }
})

t.test('an invalid request is rejected in JSON', async t => {
  const app = await buildTestApp(t)
  const refusal = async (form: typeof modern | typeof legacy, headers: Record<string, string>, payload?: string) => {
    const request = form('tools/list')
    const response = await app.inject({
      ...request,
      headers: { ...request.headers, ...headers },
      payload: payload ?? request.payload,
    })
    return { status: response.statusCode, code: response.json().error.code, data: response.json().error.data }
  }
  for (const [revision, form] of Object.entries(forms)) {
    t.match(await refusal(form, {}, '{"jsonrpc":'), { status: 400, code: -32700 }, `${revision}: broken JSON`)
    t.match(await refusal(form, {}, ''), { status: 400, code: -32700 }, `${revision}: an empty body`)
    t.match(
      await refusal(form, {}, '{"method":"tools/list"}'),
      { status: 400, code: -32600 },
      `${revision}: not JSON-RPC`
    )
    t.match(
      await refusal(form, { 'content-type': 'text/plain' }),
      { status: 415, code: -32000 },
      `${revision}: a content type other than JSON`
    )
    t.match(
      await refusal(form, { 'content-type': 'nonsense' }),
      { status: 415, code: -32600 },
      `${revision}: an invalid content type`
    )
    t.match(
      await refusal(form, {}, ' '.repeat(256 * 1024 + 1)),
      { status: 413, code: -32600 },
      `${revision}: over 256 KB`
    )
  }
  for (const accept of ['application/json', 'text/event-stream', 'text/html', 'application/*']) {
    t.match(await refusal(legacy, { accept }), { status: 406, code: -32000 }, `2025: Accept: ${accept}`)
  }
  t.match(
    await refusal(legacy, { 'mcp-protocol-version': '2025-01-01' }),
    { status: 400, code: -32000 },
    '2025: an unknown revision'
  )
  t.match(
    await refusal(legacy, { 'mcp-protocol-version': MODERN }),
    { status: 400, code: -32602 },
    '2025: a header that names the other generation'
  )
  t.match(
    await refusal(modern, { 'mcp-protocol-version': '2025-11-25' }),
    { status: 400, code: -32020 },
    '2026: different revisions in header and body'
  )
  t.match(
    await refusal(modern, { 'mcp-method': 'tools/call' }),
    { status: 400, code: -32020 },
    '2026: different methods in header and body'
  )

  const future = modern('tools/list', { _meta: { 'io.modelcontextprotocol/protocolVersion': '2099-01-01' } })
  t.match(
    (await app.inject({ ...future, headers: { ...future.headers, 'mcp-protocol-version': '2099-01-01' } })).json()
      .error,
    { code: -32022, data: { supported: [MODERN], requested: '2099-01-01' } },
    '2026: an unknown revision'
  )
  const call = modern('tools/call', { name: 'list_topics' })
  t.match((await app.inject({ ...call, headers: { ...call.headers, 'mcp-name': 'list_groups' } })).json().error, {
    code: -32020,
  }, '2026: different tools in header and body')
})

t.test('an unknown tool is a protocol error, which escapes invisible characters in its name', async t => {
  const app = await buildTestApp(t)
  for (const form of Object.values(forms)) {
    for (const name of ['nope', '__proto__', 'constructor', '']) {
      const { error } = (await app.inject(form('tools/call', { name }))).json()
      t.strictSame(error, {
        code: -32602,
        message: `Tool ${JSON.stringify(name)} does not exist. Call tools/list for those that do.`,
      })
    }
  }
  const x = (count: number) => 'x'.repeat(count)
  const { error } = (await app.inject(legacy('tools/call', { name: `\u202e\u0085\n${x(1_000)}` }))).json()
  t.equal(error.message, `Tool "\\u202e\\u0085\\n${x(125)}" does not exist. Call tools/list for those that do.`)
})

t.test('parameters that do not match the schema of their request are named', async t => {
  const app = await buildTestApp(t)
  const errorOf = async (form: typeof modern | typeof legacy, method: string, params: object) =>
    (await app.inject(form(method, { ...params }))).json().error
  for (const form of Object.values(forms)) {
    t.match(await errorOf(form, 'tools/list', { cursor: 5 }), {
      code: -32602,
      message: 'The params of tools/list are not valid: params.cursor: Invalid input: expected string, received number',
    })
    t.match(await errorOf(form, 'tools/call', { name: 'list_topics', arguments: [] }), {
      code: -32602,
      message: 'The params of tools/call must be name (a string) and arguments (an object)',
    })
  }
  t.match(await errorOf(legacy, 'initialize', { protocolVersion: '2025-06-18', capabilities: {} }), {
    code: -32602,
    message: /^The params of initialize are not valid: params\.clientInfo: /,
  })
})

t.test('null in the parameters of a request means absent', async t => {
  const app = await buildTestApp(t)
  app.tools.declare(tool({ name: 'echo', properties: { text: Type.Optional(Type.String()) } }))
  const send = async ({ payload, ...request }: ReturnType<typeof modern | typeof legacy>, params: object | null) => {
    const response = await app.inject({ ...request, payload: { ...payload, params } })
    return { status: response.statusCode, body: response.json() }
  }

  t.test('in the revisions of 2025, for every method', async t => {
    const clientInfo = { name: 'a', version: '1' }
    const initialize = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo }
    for (const [method, params, same] of [
      ['tools/list', null, undefined],
      ['tools/list', { cursor: null }, {}],
      ['tools/list', { cursor: null, _meta: null }, {}],
      ['tools/list', { _meta: { progressToken: null, 'example.com/a': null } }, {}],
      ['tools/call', { name: 'echo', arguments: null }, { name: 'echo' }],
      ['tools/call', { name: 'echo', arguments: null, _meta: null, task: null }, { name: 'echo' }],
      ['tools/call', null, undefined],
      ['ping', null, undefined],
      ['ping', { _meta: null }, {}],
      ['resources/list', { cursor: null }, {}],
      ['prompts/list', { cursor: null }, {}],
      ['initialize', { ...initialize, _meta: null }, initialize],
      ['initialize', {
        ...initialize,
        capabilities: { roots: null, sampling: null, elicitation: null, experimental: null },
        clientInfo: { ...clientInfo, title: null, icons: null },
      }, initialize],
      ['nope', null, undefined],
    ] as const) {
      const name = `${method} ${JSON.stringify(params)}`
      const { payload, ...request } = legacy(method)
      const without = await app.inject({ ...request, payload: { ...payload, params: same } })
      t.strictSame(await send(legacy(method), params), { status: without.statusCode, body: without.json() }, name)
    }
    t.match(await send(legacy('tools/list'), null), { status: 200, body: { result: { tools: [] } } })
    t.match(await send(legacy('tools/call'), { name: 'echo', arguments: null }), {
      status: 200,
      body: { result: { structuredContent: { input: {} } } },
    })
    const { payload, ...notification } = legacy('notifications/initialized')
    const { id: _, ...message } = payload
    t.equal((await app.inject({ ...notification, payload: { ...message, params: null } })).statusCode, 202)
  })

  t.test('in revision 2026-07-28', async t => {
    for (const [method, params] of [
      ['tools/list', { cursor: null }],
      ['tools/call', { name: 'echo', arguments: null }],
      ['tools/call', { name: 'echo', arguments: { text: null }, _meta: { progressToken: null } }],
      ['server/discover', { cursor: null }],
    ] as const) {
      const request = modern(method, params)
      const { payload: { params: { _meta: meta } } } = modern(method)
      const without = await app.inject(modern(method, method === 'tools/call' ? { name: 'echo' } : {}))
      t.equal(without.statusCode, 200)
      t.strictSame(await send(request, { ...params, _meta: { ...meta, progressToken: null, 'a/b': null } }), {
        status: 200,
        body: without.json(),
      }, `${method} ${JSON.stringify(params)}`)
    }
  })

  t.test('in each message of a batch', async t => {
    const { headers, payload } = legacy('tools/call')
    const response = await app.inject({
      ...legacy('ping'),
      headers: { ...headers, 'mcp-protocol-version': '2025-03-26' },
      payload: [1, 2].map(id => ({ ...payload, id, params: { name: 'echo', arguments: null, _meta: null } })),
    })
    t.match(response.json(), [1, 2].map(id => ({ id, result: { structuredContent: { input: {} } } })))
  })
})

t.test('an id of more than 256 characters is refused, and not repeated', async t => {
  const app = await buildTestApp(t)
  for (const form of Object.values(forms)) {
    for (const method of ['tools/list', 'ping', 'nope']) {
      const request = form(method)
      const ask = async (payload: object) => await app.inject({ ...request, payload: JSON.stringify(payload) })
      const tooLong = { ...request.payload, id: 'x'.repeat(257) }
      for (const payload of [tooLong, [request.payload, tooLong]]) {
        const response = await ask(payload)
        t.equal(response.statusCode, 400)
        t.match(response.json(), { id: null, error: { message: /^A JSON-RPC id has at most 256 characters/ } })
      }
      const id = 'x'.repeat(256)
      t.notMatch((await ask({ ...request.payload, id })).body, /at most 256/)
    }
  }
})

t.test('a method of more than 256 characters is refused, and not repeated', async t => {
  const app = await buildTestApp(t)
  for (const form of Object.values(forms)) {
    const ask = async (method: string, inBatch: boolean) => {
      const request = form('ping')
      const payload = { ...request.payload, method }
      return await app.inject({ ...request, payload: JSON.stringify(inBatch ? [request.payload, payload] : payload) })
    }
    for (const inBatch of [false, true]) {
      const response = await ask('x'.repeat(257), inBatch)
      t.equal(response.statusCode, 400)
      t.match(response.json(), { id: null, error: { message: /^A JSON-RPC method has at most 256 characters/ } })
    }
    t.notMatch((await ask('x'.repeat(256), false)).body, /at most 256/)
  }
})

t.test('the calls of a batch share the limit of an answer', async t => {
  const app = await buildTestApp(t)
  app.tools.declare(tool({ answer: () => ({ text: 'x'.repeat(200_000) }) }))
  const batch = async (size: number) => {
    const { headers, payload } = legacy('tools/call', { name: 'test' })
    const messages = Array.from({ length: size }, (_, id) => ({ ...payload, id }))
    const response = await app.inject({
      ...legacy('ping'),
      headers: { ...headers, 'mcp-protocol-version': '2025-03-26' },
      payload: JSON.stringify(messages),
    })
    return (response.json() as { result: { isError?: true } }[]).filter(({ result }) => !result.isError).length
  }
  t.equal(await batch(5), 5)
  t.equal(await batch(6), 0)
})

t.test('callers may use the same id at the same time', async t => {
  const app = await buildTestApp(t)
  const { calls, release } = declareWaitingTool(app)
  const texts = Array.from({ length: 20 }, (_, index) => `call ${index}`)
  const answers = texts.map((text, index) =>
    app.inject(Object.values(forms)[index % 2]!('tools/call', { name: 'wait', arguments: { text } }, 7))
  )
  await waitFor(() => calls.length === texts.length || calls.length, ACT_BOUND_MS, 'all calls are in progress')
  release()
  for (const [index, answer] of answers.entries()) {
    t.match((await answer).json(), { id: 7, result: { structuredContent: { text: texts[index]! } } })
  }
})

t.test('a client that disconnects cancels its own call only', async t => {
  const app = await buildTestApp(t)
  const { calls, release } = declareWaitingTool(app)
  const call = async (form: typeof modern | typeof legacy, params: object = {}) => {
    const request = await send(
      app,
      form('tools/call', { name: 'wait', arguments: { text: 'a' }, ...params }) as ReturnType<typeof modern>
    )
    const count = calls.length + 1
    await waitFor(() => calls.length === count || calls.length, ACT_BOUND_MS, 'the call is in progress')
    return { request, signal: calls.at(-1)!.signal }
  }
  const stays = await call(modern)
  for (const [revision, form] of Object.entries(forms)) {
    for (const params of [{}, { _meta: { progressToken: 1 } }]) {
      const { request, signal } = await call(form, params)
      t.equal(signal.aborted, false)
      request.destroy()
      await waitFor(() => signal.aborted, ACT_BOUND_MS, 'the call is cancelled')
      t.pass(`${revision} ${JSON.stringify(params)}`)
    }
  }
  t.equal(stays.signal.aborted, false)
  release()
  const [response] = await once(stays.request, 'response')
  t.equal(response.statusCode, 200)
})

t.test('subscriptions/listen is an event stream that ends at once, because the tools never change', async t => {
  const app = await buildTestApp(t)
  const response = await app.inject(modern('subscriptions/listen', { notifications: { toolsListChanged: true } }))
  t.equal(response.statusCode, 200)
  t.match(response.headers['content-type'], /^text\/event-stream/)
  const messages = response.body.split('\n').filter(line => line.startsWith('data: ')).map(line =>
    JSON.parse(line.slice('data: '.length))
  )
  t.match(messages, [{ method: 'notifications/subscriptions/acknowledged', params: { notifications: {} } }, {
    id: 1,
    result: {},
  }])
})

t.test('calls in progress finish when the service closes, on either path of a request', async t => {
  const app = await buildTestApp(t)
  const { calls, release } = declareWaitingTool(app)
  const requests = await Promise.all(
    [{}, { _meta: { progressToken: 1 } }].flatMap(params =>
      Object.values(forms).map(form =>
        send(
          app,
          form('tools/call', { name: 'wait', arguments: { text: 'a' }, ...params }) as ReturnType<typeof modern>
        )
      )
    )
  )
  const responses = requests.map(request => once(request, 'response'))
  await waitFor(() => calls.length === 4 || calls.length, ACT_BOUND_MS, 'all calls are in progress')
  const closed = app.close()
  await waitFor(() => !app.server.listening, ACT_BOUND_MS, 'the server stops listening')
  release()
  for (const response of responses) {
    t.match(await json((await response)[0]), { result: { structuredContent: { text: 'a' } } })
  }
  await closed
})

t.test('a malformed Host that no browser can send is accepted', async t => {
  const app = await buildTestApp(t)
  for (const host of ['a@localhost', 'localhost/a?b', 'localhost#']) {
    const request = legacy('ping')
    t.equal((await app.inject({ ...request, headers: { ...request.headers, host } })).statusCode, 200, host)
  }
})

t.test('a second Host cannot get past a proxy that checks one', async t => {
  for (const env of [{}, { KAFSCALE_MCP_ALLOWED_HOSTS: 'localhost' }]) {
    const app = await buildTestApp(t, env)
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { headers, payload } = modern('tools/list')
    const answer = async (path: string, ...hosts: string[]) => {
      const request = httpRequest(app.listeningOrigin + path, {
        method: 'POST',
        agent: false,
        headers: [...Object.entries(headers).flat(), ...hosts] as unknown as Record<string, string>,
      })
      request.end(JSON.stringify(payload))
      const [response] = await once(request, 'response')
      return { status: response.statusCode, body: await json(response) }
    }
    t.match(await answer('/mcp', 'Host', 'localhost'), { status: 200 })
    const refused = { status: 400, body: { error: { message: /^Invalid Host: the request has more than one Host/ } } }
    t.match(await answer('/mcp', 'Host', 'localhost', 'Host', 'evil.example'), refused)
    t.match(await answer('/mcp', 'Host', 'evil.example', 'hOST', 'localhost'), refused)
    t.match(await answer('/mcp', 'Host', 'localhost', 'host', 'localhost'), refused, 'even if both are equal')
    t.match(await answer('/mcp', 'Host', 'localhost', 'host', ''), refused)
  }
})
