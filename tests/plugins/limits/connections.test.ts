/** How many connections clients can hold open, and for how long, before anybody has signed in. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { readConfig } from '../../../plugins/config/read.ts'
import { limitConnections } from '../../../plugins/limits/connections.ts'
import { authority } from '../../support/authority.ts'
import { buildTestApp, startService } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const ACT_BOUND_MS = 5_000
const TOKEN = '0123456789abcdef'.repeat(2)
type Client = Awaited<ReturnType<typeof open>>

/** Opens a connection. `closed` says whether the service has closed it. */
async function open (t: Test, { port, from, ca }: { port: number, from?: string, ca?: Buffer }) {
  const to = { port, host: '127.0.0.1', ...from !== undefined && { localAddress: from } }
  const socket: Socket = ca ? connectTls({ ...to, ca }) : connect(to)
  const client = { socket, text: '', closed: false }
  socket.on('error', () => {}).on('data', chunk => { client.text += String(chunk) })
    .on('close', () => { client.closed = true })
  t.teardown(() => socket.destroy())
  await Promise.race([once(socket, ca ? 'secureConnect' : 'connect'), once(socket, 'close')]).catch(() => {})
  return client
}

/** Sends a request on an open connection, and waits for the status of its answer. */
async function ask (client: Client, { path = '/healthz', token }: { path?: string, token?: string } = {}) {
  client.text = ''
  const authorization = token === undefined ? '' : `authorization: Bearer ${token}\r\n`
  client.socket.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n${authorization}\r\n`)
  await waitFor(() => client.closed || /^HTTP\/1\.1 \d+/.test(client.text), ACT_BOUND_MS, 'answered')
  return Number(/^HTTP\/1\.1 (\d+)/.exec(client.text)?.[1])
}

const closed = (client: Client) => waitFor(() => client.closed, ACT_BOUND_MS, 'closed')
const portOf = (app: FastifyInstance) => (app.server.address() as AddressInfo).port

async function start (t: Test, limits: Record<string, string>, mode: 'token' | 'none' = 'token') {
  const app = await buildTestApp(t, {
    ...mode === 'token' && {
      KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
      KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdir({})}/audit.jsonl`,
    },
    ...limits,
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, port: portOf(app), counts: app.limits.connections }
}

t.test('connections of one address above its limit are closed at once', async t => {
  const { port, counts } = await start(t, { KAFSCALE_MCP_ADDRESS_MAX_CONNECTIONS: '2' })
  const [first, second] = [await open(t, { port }), await open(t, { port })]
  await closed(await open(t, { port }))
  t.equal(await ask(first), 200)
  t.equal(await ask(await open(t, { port, from: '127.0.0.2' })), 200, 'other addresses have their own')
  t.match(counts, { open: 3, closed: { address: 1, total: 0, displaced: 0 } })
  second.socket.destroy()
  await waitFor(() => counts.open === 2, ACT_BOUND_MS, 'one is gone')
  t.equal(await ask(await open(t, { port })), 200)
})

t.test('trusted proxies, and this machine without authentication, have no limit per address', async t => {
  for (
    const { port, counts } of [
      await start(t, { KAFSCALE_MCP_ADDRESS_MAX_CONNECTIONS: '1', KAFSCALE_MCP_TRUSTED_PROXIES: '127.0.0.0/8' }),
      await start(t, { KAFSCALE_MCP_ADDRESS_MAX_CONNECTIONS: '1' }, 'none'),
    ]
  ) {
    await open(t, { port })
    t.equal(await ask(await open(t, { port })), 200)
    t.match(counts, { open: 2, closed: { address: 0 } })
  }
})

t.test('0 means no limit', async t => {
  const { port, counts } = await start(t, {
    KAFSCALE_MCP_MAX_CONNECTIONS: '0',
    KAFSCALE_MCP_ADDRESS_MAX_CONNECTIONS: '0',
  })
  for (let opened = 0; opened < 300; opened++) await open(t, { port })
  await waitFor(() => counts.open === 300 || counts.open, ACT_BOUND_MS, 'open')
})

t.test('a new connection takes the place of the one that is idle for longest without a sign-in', async t => {
  const { port, counts } = await start(t, { KAFSCALE_MCP_MAX_CONNECTIONS: '3' })
  const signedIn = await open(t, { port })
  t.equal(await ask(signedIn, { path: '/mcp', token: TOKEN }), 405)
  const idle = await open(t, { port })
  const refused = await open(t, { port })
  t.equal(await ask(idle), 200, 'is no longer the one that is idle for longest')
  t.equal(await ask(await open(t, { port })), 200)
  await closed(refused)
  t.equal(await ask(await open(t, { port }), { path: '/mcp', token: 'wrong' }), 401)
  await closed(idle)
  t.equal(await ask(signedIn), 200)
  t.match(counts, { open: 3, closed: { displaced: 2, total: 0 } })
})

t.test('when all connections are signed in, new ones are refused', async t => {
  const { port, counts } = await start(t, { KAFSCALE_MCP_MAX_CONNECTIONS: '2' })
  for (let opened = 0; opened < 2; opened++) {
    t.equal(await ask(await open(t, { port }), { path: '/mcp', token: TOKEN }), 405)
  }
  await closed(await open(t, { port }))
  t.match(counts, { open: 2, closed: { total: 1, displaced: 0 } })
})

t.test('the same holds over TLS', async t => {
  const dir = t.testdir({})
  const ca = authority(dir, 'ca')
  const service = ca.issue('/CN=localhost', 'service')
  const app = await buildTestApp(t, {
    KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
    KAFSCALE_MCP_AUDIT_SINKS: `file:${dir}/audit.jsonl`,
    KAFSCALE_MCP_TLS_CERT_FILE: service.cert,
    KAFSCALE_MCP_TLS_KEY_FILE: service.key,
    KAFSCALE_MCP_MAX_CONNECTIONS: '2',
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const to = { port: portOf(app), ca: readFileSync(ca.ca) }
  const signedIn = await open(t, to)
  t.equal(await ask(signedIn, { path: '/mcp', token: TOKEN }), 405)
  const idle = await open(t, to)
  t.equal(await ask(idle), 200)
  t.equal(await ask(await open(t, to)), 200)
  await closed(idle)
  t.equal(await ask(signedIn), 200)
})

t.test('a connection on which nobody signs in is closed when it is idle for too long', async t => {
  const app = Fastify()
  app.decorate('config', readConfig({
    KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1',
    KAFSCALE_MCP_REQUEST_TIMEOUT: '1h',
  }))
  const { signedIn, counts } = limitConnections(app, 50)
  app.get('/healthz', async () => 'ok')
  app.get('/mcp', async request => signedIn(request))
  const slow = Promise.withResolvers<string>()
  app.get('/slow', () => slow.promise)
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const port = portOf(app)
  const user = await open(t, { port })
  await ask(user, { path: '/mcp' })
  const waiting = await open(t, { port })
  const answered = ask(waiting, { path: '/slow' })
  const sending = await open(t, { port })
  sending.socket.write('GET /healthz HTTP/1.1\r\n')
  await waitFor(() => counts.open === 3, ACT_BOUND_MS, 'open')
  const nothing = await open(t, { port })
  const anonymous = await open(t, { port })
  t.equal(await ask(anonymous), 200)
  await closed(nothing)
  await closed(anonymous)
  t.match(counts, { open: 3, closed: { idle: 2 } })
  t.notOk(user.closed || sending.closed || waiting.closed, 'the others are in use, or somebody has signed in')
  slow.resolve('done')
  t.equal(await answered, 200)
  await closed(waiting)
})

t.test('a client without a token cannot use up the file descriptors', async t => {
  const service = startService(t, {
    KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
    KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdir({})}/audit.jsonl`,
    KAFSCALE_MCP_MAX_CONNECTIONS: '20',
    KAFSCALE_MCP_ADDRESS_MAX_CONNECTIONS: '0',
  })
  const port = Number(new URL(await service.url).port)
  const clients: Client[] = []
  for (let opened = 0; opened < 100; opened++) clients.push(await open(t, { port }))
  await waitFor(() => clients.filter(client => client.closed).length === 80, ACT_BOUND_MS, 'closed')
  t.equal(await ask(await open(t, { port }), { path: '/mcp', token: TOKEN }), 405)
  t.equal(service.output.stderr.match(/idle connections are closed to make room/g)?.length, 1, 'logged once')
})
