/** The proxy cuts as the tests of network faults need it. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { startProxy } from './support/proxy.ts'
import { scaled } from './support/run.ts'

const ANSWER_BOUND_MS = 5_000
const QUIET_MS = 100

/** A proxy in front of a server that sends back what it gets. */
async function startEcho (t: Test) {
  const accepted: Socket[] = []
  const server = createServer(socket => {
    accepted.push(socket)
    socket.on('error', () => {}).pipe(socket)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => {
    for (const socket of accepted) socket.destroy()
    server.close()
  })
  return { proxy: await startProxy(t, `http://localhost:${(server.address() as AddressInfo).port}`), accepted }
}

function open (
  t: Test,
  endpoint: string
): {
    socket: Socket
    events: string[]
    closed: Promise<void>
    echo: (text: string, boundMs?: number) => Promise<string | undefined>
  } {
  const events: string[] = []
  const socket = connect(Number(new URL(endpoint).port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.on('end', () => events.push('end'))
  socket.on('error', ({ code }: NodeJS.ErrnoException) => events.push(`${code}`))
  const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
  const echo = async (text: string, boundMs = ANSWER_BOUND_MS) => {
    socket.write(text)
    return await Promise.race([
      once(socket, 'data').then(([data]) => String(data)),
      setTimeout(scaled(boundMs), undefined, { ref: false }),
    ])
  }
  return { socket, events, closed, echo }
}

t.test('lets through what is sent, and its end', async t => {
  const { proxy } = await startEcho(t)
  const { socket, echo } = open(t, proxy.endpoint)
  t.equal(await echo('a'), 'a')
  socket.end()
  await once(socket, 'end')
})

t.test('half open: accepts, swallows, and tells nobody', async t => {
  const { proxy, accepted } = await startEcho(t)
  const before = open(t, proxy.endpoint)
  t.equal(await before.echo('a'), 'a')
  proxy.halfOpen()
  const during = open(t, proxy.endpoint)
  t.equal(await before.echo('b', QUIET_MS), undefined)
  t.equal(await during.echo('b', QUIET_MS), undefined)
  t.equal(during.socket.readyState, 'open')
  accepted[0]!.end('c')
  t.equal(await before.echo('c', QUIET_MS), undefined, 'neither bytes nor the end come from the server')

  proxy.heal()
  const after = open(t, proxy.endpoint)
  t.equal(await after.echo('d'), 'd')
  t.equal(await before.echo('d', QUIET_MS), undefined, 'a connection that lost bytes stays half open')
  t.equal(await during.echo('d', QUIET_MS), undefined)
  t.same([before.events, during.events], [[], []])
})

t.test('cut: resets what is there and what comes', async t => {
  const { proxy } = await startEcho(t)
  const before = open(t, proxy.endpoint)
  t.equal(await before.echo('a'), 'a')
  proxy.cut()
  await before.closed
  const during = open(t, proxy.endpoint)
  await during.closed
  t.same([before.events, during.events], [['ECONNRESET'], ['ECONNRESET']])

  proxy.heal()
  t.equal(await open(t, proxy.endpoint).echo('b'), 'b')
})
