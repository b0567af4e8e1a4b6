import type { IncomingMessage, ServerResponse } from 'node:http'

/** What to call when a response, or the socket of its request, closes: one listener serves all. */
const waiting = new WeakMap<object, Set<() => void>>()

/**
 * Calls `done` once, when the response has been sent or its connection has closed. The response's `close` event is not
 * enough: in Node.js 22, a response that waits for an earlier one does not emit it when their connection closes.
 */
export function onceClosed ({ socket }: IncomingMessage, response: ServerResponse, done: () => void): void {
  const sets = [waitingFor(socket), waitingFor(response)]
  const once = () => {
    for (const set of sets) set.delete(once)
    done()
  }
  for (const set of sets) set.add(once)
}

function waitingFor (emitter: IncomingMessage['socket'] | ServerResponse): Set<() => void> {
  const known = waiting.get(emitter)
  if (known) return known
  const added = new Set<() => void>()
  waiting.set(emitter, added)
  emitter.once('close', () => { for (const each of added) each() })
  return added
}
