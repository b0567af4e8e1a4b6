/**
 * The internals of dependencies that the service relies on. Types and semantic versioning do not protect them, so each
 * has a test of the behavior that is relied on. A failing assertion says what the internal is for and what to do.
 */
import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'
import { promisify } from 'node:util'
import * as grpc from '@grpc/grpc-js'
import type { JSONRPCRequest, MessageExtraInfo } from '@modelcontextprotocol/server'
import protobuf from 'protobufjs/minimal.js'
import t, { type Test } from 'tap'
import { EtcdConnection } from '../plugins/etcd/connection.ts'
import type { Tools } from '../plugins/tool-registry/index.ts'
import { ExchangeTransport } from '../routes/mcp/exchange.ts'
import { authInfoOf, McpToolServer } from '../routes/mcp/server.ts'
import type { ToolResult } from '../tools/tool.ts'
import { CALLER, legacy, MODERN, modern } from './support/service.ts'
import { waitFor } from './support/wait-for.ts'

const WAIT_MS = 5_000
const OPEN_MS = 500

const CREDENTIALS = { http: grpc.credentials.createInsecure(), https: grpc.credentials.createSsl() }

const RESULT: ToolResult = { content: [{ type: 'text', text: '{"a":1}' }], structuredContent: { a: 1 } }
const TOOLS: Tools = {
  known: ['test'],
  declare: () => {},
  operation: () => 'observe',
  list: () => [],
  call: async () => RESULT,
  refuse: async () => {},
}
const MODERN_EXTRA: MessageExtraInfo = {
  authInfo: authInfoOf(CALLER),
  classification: { era: 'modern', revision: MODERN },
}
const LEGACY_EXTRA: MessageExtraInfo = { authInfo: authInfoOf(CALLER) }

async function exchange (server: McpToolServer, { payload }: { payload: object }, extra: MessageExtraInfo) {
  const transport = await ExchangeTransport.connect(server)
  const reply = await transport.exchange(payload as JSONRPCRequest, extra, new AbortController().signal)
  return 'error' in reply ? { error: reply.error } : { result: reply.result }
}

t.test('MCP SDK: Server._wrapHandler', async t => {
  const why =
    'McpToolServer overrides _wrapHandler so that the SDK neither validates nor copies the results of tools, ' +
    'which costs more than most tools, and so that malformed params get a message of their own. If this fails, ' +
    'find the hook that wraps the handler of tools/call now, and override it in routes/mcp/server.ts.'
  const params = { name: 'test', arguments: {} }
  const requests = [
    [new McpToolServer(TOOLS, MODERN), modern('tools/call', params), MODERN_EXTRA],
    [new McpToolServer(TOOLS), legacy('tools/call', params), LEGACY_EXTRA],
  ] as const
  for (const [server, request, extra] of requests) {
    const { result } = await exchange(server, request, extra)
    t.ok(result?.content === RESULT.content, why)
    t.ok(result?.structuredContent === RESULT.structuredContent, why)
  }
  t.match(
    await exchange(new McpToolServer(TOOLS), legacy('tools/call', { name: 5 }), LEGACY_EXTRA),
    { error: { code: -32602, message: /^The params of tools\/call must be / } },
    why
  )
})

t.test('MCP SDK: Server._negotiatedProtocolVersion', async t => {
  const why =
    'McpToolServer sets _negotiatedProtocolVersion so that one long-lived server answers requests of revision ' +
    `${MODERN} without a handshake. If this fails, they are still answered, but slowly: by the SDK's own HTTP ` +
    'entry, with a server per request. Find how createMcpHandler binds a server to a revision now, and do the ' +
    'same in routes/mcp/server.ts.'
  const list = modern('tools/list')
  t.match(
    await exchange(new McpToolServer(TOOLS, MODERN), list, MODERN_EXTRA),
    { result: { tools: [], resultType: 'complete', ttlMs: Number } },
    why
  )
  t.match(
    await exchange(new McpToolServer(TOOLS), list, MODERN_EXTRA),
    { error: { message: /^Unsupported protocol version/ } },
    'a server that is not bound to the revision refuses the request'
  )
})

t.test('grpc-js: ChannelCredentials._createSecureConnector', async t => {
  const why =
    'EtcdConnection wraps the channel credentials and overrides _createSecureConnector (with _isSecure and ' +
    '_equals) to track the sockets, because grpc-js leaves one open if the channel is closed during the ' +
    'handshake. If this fails, each attempt to reach an etcd that accepts connections but never answers leaks a ' +
    'socket. Find how grpc-js hands new sockets to the credentials now, and adapt TrackedSockets in ' +
    'plugins/etcd/connection.ts.'
  for (const [scheme, credentials] of Object.entries(CREDENTIALS)) {
    // Without the method, grpc-js throws where no test can catch it.
    if (!t.type(credentials._createSecureConnector, 'function', why)) return
    const { port, sockets } = await startSilentServer(t)
    const connection = new EtcdConnection(`${scheme}://127.0.0.1:${port}`, credentials, undefined)
    connection.probe().catch(() => {})
    t.ok(await happens(() => sockets.length === 1), why)
    connection.close()
    t.ok(await happens(() => sockets[0]?.closed), why)
  }

  const { port, sockets } = await startSilentServer(t)
  const client = new grpc.Client(`dns:127.0.0.1:${port}`, CREDENTIALS.http, { 'grpc.use_local_subchannel_pool': 1 })
  client.waitForReady(Date.now() + WAIT_MS, () => {})
  t.ok(await happens(() => sockets.length === 1))
  client.close()
  await delay(OPEN_MS)
  t.equal(sockets[0]?.closed, false,
    'grpc-js now closes the socket itself: remove TrackedSockets from plugins/etcd/connection.ts, and this assertion')
})

async function happens (check: () => unknown): Promise<boolean> {
  return await waitFor(check, WAIT_MS, 'the condition').then(() => true, () => false)
}

/** A server that accepts connections and never answers. */
async function startSilentServer (t: Test): Promise<{ port: number, sockets: Socket[] }> {
  const sockets: Socket[] = []
  const server = createServer(socket => { sockets.push(socket.on('error', () => {}).resume()) })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, sockets }
}

t.test('protobufjs: Reader.buf, Reader.pos and Reader.bytes', async t => {
  const why =
    'The decoders in plugins/etcd/messages.ts and kafscale/records.ts read varints from reader.buf at reader.pos, ' +
    'and rely on reader.bytes() to return a Buffer that shares the memory of the message, since copies would slow ' +
    'down a load. If this fails, adapt varint, varint64 and decodeKeyValue there.'
  const message = Buffer.from([2, 0x61, 0x62, 0x96, 0x01, 7])
  const reader = protobuf.Reader.create(message)
  const bytes = reader.bytes()
  t.type(bytes, Buffer, why)
  t.equal(bytes.toString(), 'ab', why)
  t.equal(bytes.buffer, message.buffer, why)
  t.equal(reader.buf, message, why)
  t.strictSame([reader.buf[reader.pos++], reader.buf[reader.pos++]], [0x96, 0x01], why)
  t.equal(reader.uint32(), 7, why)
  t.equal(reader.pos, reader.len, why)
})

t.test('Node.js: process.execve', { skip: process.platform === 'win32' && 'Windows has no execve' }, async t => {
  const why =
    'bin/kafscale-mcp.js calls process.execve, which is experimental, to continue as the service with V8 options ' +
    'that only take effect when a process starts. Process id, environment and output stay the same. If this ' +
    'fails, start the service as a child process there, and forward signals and the exit code.'
  const next = 'process.stdout.write([process.pid, process.env.MARK, process.execArgv[0]].join())'
  const script = 'process.stdout.write(process.pid + "\\n");' +
    `process.execve(process.execPath, [process.execPath, "--max-semi-space-size=8", "-e", ${JSON.stringify(next)}])`
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script], { env: { MARK: 'kept' } })
    .catch((error: Error) => ({ stdout: error.message }))
  const [pid = '', after] = stdout.split('\n')
  t.equal(after, `${pid},kept,--max-semi-space-size=8`, why)
})

t.test('Node.js: socket._handle', async t => {
  const why =
    'plugins/limits/unread.ts reads bytesWritten and writeQueueSize of socket._handle to tell a client that reads ' +
    'slowly from one that does not read. Without them, it would disconnect both. If this fails, find what counts the ' +
    'bytes that the operating system has taken now.'
  interface Handle { bytesWritten?: unknown, writeQueueSize?: unknown }
  for (const secure of [false, true]) {
    const { key, cert } = secure ? selfSigned(t) : {}
    const server = secure ? createTlsServer({ key, cert }) : createServer()
    server.listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const client = secure ? connectTls({ port, rejectUnauthorized: false }) : connect({ port })
    t.teardown(() => client.destroy())
    const [socket] = await once(server, secure ? 'secureConnection' : 'connection') as [Socket]
    t.teardown(() => socket.destroy())
    const { _handle: handle } = socket as Socket & { _handle?: Handle }
    client.pause()
    while (socket.write(Buffer.alloc(1024 * 1024))); // until the operating system takes no more
    const name = secure ? 'TLS' : 'TCP'
    const taken = () => Number(handle?.bytesWritten) - Number(handle?.writeQueueSize)
    t.ok(Number(handle?.writeQueueSize) > 0, `${name}: something waits. ${why}`)
    const before = taken()
    client.resume()
    await waitFor(() => taken() > before || taken(), WAIT_MS, `${name}: the bytes taken grow. ${why}`)
  }
})

function selfSigned (t: Test): { key: Buffer, cert: Buffer } {
  const dir = t.testdir()
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '1',
    '-subj', '/CN=test', '-keyout', `${dir}/key`, '-out', `${dir}/cert`,
  ], { stdio: 'pipe' })
  return { key: readFileSync(`${dir}/key`), cert: readFileSync(`${dir}/cert`) }
}
