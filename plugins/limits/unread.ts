/** Bounds what the service holds for clients that do not read their answers. */
import { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { RateLimited, UnreadAnswers } from '../../errors.ts'
import { onceClosed } from '../../lib/once-closed.ts'
import { Tally } from './tally.ts'

/** A smaller answer is always sent: errors are such answers. */
const SMALL_BYTES = 64 * 1024
const CHECK_INTERVAL_MS = 1_000

/** What the operating system has taken of a socket's data does not appear in Node.js's public API. */
interface Handle { bytesWritten: number, writeQueueSize: number }

/**
 * Counts the bytes of answers until the operating system has taken them, and closes connections on which it takes none
 * for `RESPONSE_TIMEOUT`. Returns the check to run before a request.
 * @throws {RateLimited} when the principal has too many bytes in flight
 * @throws {UnreadAnswers} when all clients together have
 */
export function limitUnread (app: FastifyInstance, keyOf: (request: FastifyRequest) => string) {
  const { responseTimeoutMs, maxUnreadBytes, totalMaxUnreadBytes } = app.config
  const unread = new Tally()
  let total = 0

  function check (key: string | undefined, reply: FastifyReply, more: number): void {
    const own = key === undefined ? 0 : unread.of(key)
    if (maxUnreadBytes > 0 && own > 0 && own + more > maxUnreadBytes) {
      reply.header('retry-after', 1)
      throw new RateLimited(`more than ${maxUnreadBytes} bytes of answers not read yet (KAFSCALE_MCP_MAX_UNREAD_BYTES)`)
    }
    if (totalMaxUnreadBytes > 0 && total > 0 && total + more > totalMaxUnreadBytes) throw new UnreadAnswers()
  }

  app.addHook('onSend', async (request, reply, payload) => {
    if (typeof payload !== 'string') return
    const bytes = Buffer.byteLength(payload)
    const key = request.principal ? keyOf(request) : undefined
    if (bytes > SMALL_BYTES) check(key, reply, bytes)
    total += bytes
    if (key !== undefined) unread.add(key, bytes)
    onceClosed(request.raw, reply.raw, () => {
      total -= bytes
      if (key !== undefined) unread.subtract(key, bytes)
    })
  })
  if (responseTimeoutMs > 0) closeStalled(app, responseTimeoutMs)
  return (request: FastifyRequest, reply: FastifyReply): void => check(keyOf(request), reply, 1)
}

function closeStalled (app: FastifyInstance, timeoutMs: number): void {
  const sockets = new Map<Socket, { taken: number, sinceMs: number }>()
  app.addHook('onRequest', async ({ raw: { socket } }) => {
    if (!(socket instanceof Socket) || sockets.has(socket)) return
    sockets.set(socket, { taken: takenOf(socket), sinceMs: performance.now() })
    socket.once('close', () => sockets.delete(socket))
  })
  const timer = setInterval(() => {
    const nowMs = performance.now()
    for (const [socket, { taken, sinceMs }] of sockets) {
      const now = takenOf(socket)
      if (socket.writableLength === 0 || now !== taken) sockets.set(socket, { taken: now, sinceMs: nowMs })
      else if (nowMs - sinceMs >= timeoutMs) socket.destroy()
    }
  }, Math.min(CHECK_INTERVAL_MS, timeoutMs)).unref()
  app.addHook('onClose', async () => clearInterval(timer))
}

/** The bytes that the operating system has taken. They grow only while the client reads. */
function takenOf (socket: Socket): number {
  const { bytesWritten = 0, writeQueueSize = 0 } = (socket as Socket & { _handle?: Handle | null })._handle ?? {}
  return bytesWritten - writeQueueSize
}
