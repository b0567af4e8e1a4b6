/** Bounds the connections that the service holds open, before it knows who is calling. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { BlockList, isIPv6, type Socket } from 'node:net'
import { normalizeIP } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { isLoopback } from '../../lib/address.ts'
import { onceClosed } from '../../lib/once-closed.ts'
import { variableOf } from '../config/schema.ts'
import { Tally } from './tally.ts'

/** How long a connection may be idle on which no request has been authenticated. */
const IDLE_MS = 30_000
const CHECK_INTERVAL_MS = 1_000
const LOG_INTERVAL_MS = 60_000

/**
 * Why a connection was closed: the limit for all, or for its address, was reached; it was idle for too long; or the
 * limit for all was reached and a new connection took its place.
 */
type Reason = 'total' | 'address' | 'idle' | 'displaced'

/** For metrics. */
export interface ConnectionCounts {
  readonly open: number
  readonly closed: Readonly<Record<Reason, number>>
}

interface Connection {
  readonly socket: Socket
  readonly key: string
  /** Key of the limit per address; undefined for an address that has none. */
  readonly address: string | undefined
  /** May be idle: it comes from a proxy, or a request on it has been authenticated. */
  trusted: boolean
  /** Requests whose answers are not complete. */
  requests: number
  /** Since when it has been idle, and how many bytes it had received by then. */
  idleSinceMs: number
  bytesRead: number
}

/**
 * Closes connections above `MAX_CONNECTIONS` and `ADDRESS_MAX_CONNECTIONS`, and those on which nobody signs in. When
 * the limit for all is reached, a new connection takes the place of the one that has been idle for longest without a
 * sign-in.
 * @returns what to call for each authenticated request, and the counts
 */
export function limitConnections (app: FastifyInstance, idleMs = IDLE_MS) {
  const { maxConnections, addressMaxConnections, trustedProxies = [], requestTimeoutMs, auth } = app.config
  const connections = new Map<string, Connection>()
  /** Idle connections that are not trusted, in the order in which they became idle. */
  const idle = new Set<Connection>()
  const perAddress = new Tally()
  const closed = { total: 0, address: 0, idle: 0, displaced: 0 }
  const isProxy = matcher(trustedProxies)
  const warn = warnings(app)

  // Node.js looks up the address of a client when it is first asked. Later, the client may be gone. With TLS, requests
  // have another socket, which is asked by itself.
  app.server.on('secureConnection', (socket: Socket) => {
    if (socket.remoteAddress === undefined) socket.destroy()
  })
  app.server.on('connection', (socket: Socket) => {
    const remote = plainAddress(socket.remoteAddress)
    if (remote === undefined) return socket.destroy() // it has disconnected already
    // A proxy opens connections in advance, and decides itself which one to close.
    const trusted = isProxy(remote)
    const address = trusted || (auth.mode === 'none' && isLoopback(remote)) ? undefined : normalizeIP(remote)
    const ofAddress = address === undefined ? 0 : perAddress.of(address)
    if (addressMaxConnections > 0 && ofAddress >= addressMaxConnections) return refuse(socket, 'address')
    if (maxConnections > 0 && connections.size >= maxConnections) {
      const [longest] = idle
      if (!longest) return refuse(socket, 'total')
      warn('displaced')
      close(longest, 'displaced')
    }
    const connection = { socket, key: keyOf(socket), address, trusted, requests: 0, idleSinceMs: 0, bytesRead: 0 }
    connections.set(connection.key, connection)
    if (address !== undefined) perAddress.add(address)
    rest(connection)
    socket.once('close', () => remove(connection))
  })

  app.server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    const connection = connections.get(keyOf(request.socket))
    if (!connection) return
    connection.requests++
    idle.delete(connection)
    onceClosed(request, response, () => {
      connection.requests--
      rest(connection)
    })
  })

  const timer = setInterval(() => {
    const nowMs = performance.now()
    for (const connection of idle) {
      const idleForMs = nowMs - connection.idleSinceMs
      if (idleForMs < idleMs) break
      // While a request arrives, REQUEST_TIMEOUT applies.
      const receives = connection.socket.bytesRead > connection.bytesRead
      if (!receives || (requestTimeoutMs > 0 && idleForMs >= idleMs + requestTimeoutMs)) close(connection, 'idle')
    }
  }, Math.min(CHECK_INTERVAL_MS, idleMs)).unref()
  app.addHook('onClose', async () => clearInterval(timer))

  function rest (connection: Connection): void {
    const { socket, key, trusted, requests } = connection
    if (trusted || requests > 0 || connections.get(key) !== connection) return
    connection.idleSinceMs = performance.now()
    connection.bytesRead = socket.bytesRead
    idle.add(connection)
  }

  function remove (connection: Connection): void {
    const { key, address } = connection
    idle.delete(connection)
    if (connections.get(key) !== connection) return
    connections.delete(key)
    if (address !== undefined) perAddress.subtract(address)
  }

  function close (connection: Connection, reason: Reason): void {
    closed[reason]++
    remove(connection)
    connection.socket.destroy()
  }

  function refuse (socket: Socket, reason: 'total' | 'address'): void {
    closed[reason]++
    warn(reason)
    socket.destroy()
  }

  return {
    signedIn ({ raw: { socket } }: FastifyRequest): void {
      const connection = connections.get(keyOf(socket))
      if (connection) connection.trusted = true
    },
    counts: { get open () { return connections.size }, closed } satisfies ConnectionCounts,
  }
}

/** Logs which limit has been reached, at most once a minute for each. */
function warnings ({ log }: FastifyInstance): (reason: Exclude<Reason, 'idle'>) => void {
  const messages = {
    total: `connections are refused: ${variableOf('maxConnections')} is reached, and none of them can be closed`,
    address: `connections are refused: an address has reached ${variableOf('addressMaxConnections')}`,
    displaced: `idle connections are closed to make room for new ones: ${variableOf('maxConnections')} is reached`,
  }
  const loggedMs = new Map<string, number>()
  return reason => {
    const nowMs = performance.now()
    if (nowMs - (loggedMs.get(reason) ?? -Infinity) < LOG_INTERVAL_MS) return
    loggedMs.set(reason, nowMs)
    log.warn(messages[reason])
  }
}

/** Identifies a connection by its ends: with TLS, requests have another socket than the connection. */
function keyOf ({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`
}

function matcher (ranges: readonly string[]): (address: string) => boolean {
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', bits] = range.split('/')
    const family = familyOf(address)
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return address => list.check(address, familyOf(address))
}

function familyOf (address: string): 'ipv4' | 'ipv6' {
  return isIPv6(address) ? 'ipv6' : 'ipv4'
}

/** An IPv4 address without the prefix that it has on a socket for both families. */
function plainAddress (address: string | undefined): string | undefined {
  return address?.replace(/^::ffff:(?=\d+\.)/i, '')
}
