import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { Teardown } from './etcd.ts'

/** A TCP proxy that can fail as a network does. */
export interface Proxy {
  /** The target's URL with the address of the proxy. */
  endpoint: string
  /** Nothing gets through in either direction any more, but connections stay open and new ones are accepted. */
  halfOpen: () => void
  /** Resets all connections, and every new one. */
  cut: () => void
  /** New connections get through again. Half-open ones have lost bytes and stay half open. */
  heal: () => void
}

/** Starts a TCP proxy on loopback in front of `target`, a URL with a port. */
export async function startProxy (t: Teardown, target: string): Promise<Proxy> {
  const url = new URL(target)
  let state: 'open' | 'half-open' | 'cut' = 'open'
  const sockets = new Set<Socket>()
  const stuck = new WeakSet<Socket>()

  const track = (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {}) // 'close' follows
    socket.on('close', () => sockets.delete(socket))
    return socket
  }
  const forward = (from: Socket, to: Socket) => {
    const unlessStuck = (action: () => void) => { if (!stuck.has(from)) action() }
    from.on('data', chunk => unlessStuck(() => to.write(chunk)))
    from.on('end', () => unlessStuck(() => to.end()))
    from.on('close', () => unlessStuck(() => to.destroy()))
  }
  const server = createServer({ allowHalfOpen: true }, socket => {
    track(socket)
    if (state === 'cut') {
      socket.resetAndDestroy()
    } else if (state === 'half-open') {
      socket.resume()
    } else {
      const upstream = track(connect({ host: url.hostname, port: Number(url.port), allowHalfOpen: true }))
      forward(socket, upstream)
      forward(upstream, socket)
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const reset = () => { for (const socket of sockets) socket.resetAndDestroy() }
  t.teardown(() => {
    reset()
    server.close()
  })

  return {
    endpoint: `${url.protocol}//127.0.0.1:${(server.address() as AddressInfo).port}`,
    halfOpen: () => {
      state = 'half-open'
      for (const socket of sockets) stuck.add(socket)
    },
    cut: () => {
      state = 'cut'
      reset()
    },
    heal: () => { state = 'open' },
  }
}
