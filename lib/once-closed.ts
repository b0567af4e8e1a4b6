import type { IncomingMessage, ServerResponse } from 'node:http'

/** What to call when a socket closes; one listener serves all requests on it. */
const waitingFor = new WeakMap<object, Set<() => void>>()

/**
 * Calls `done` once, when the response has been sent or its connection has closed. The response's `close` event is not
 * enough: in Node.js 22, a response that waits for an earlier one does not emit it when their connection closes.
 */
export function onceClosed ({ socket }: IncomingMessage, response: ServerResponse, done: () => void): void {
  const waiting = waitingFor.get(socket) ?? new Set()
  if (!waitingFor.has(socket)) {
    waitingFor.set(socket, waiting)
    socket.once('close', () => { for (const each of waiting) each() })
  }
  const once = () => { if (waiting.delete(once)) done() }
  waiting.add(once)
  response.once('close', once)
}
