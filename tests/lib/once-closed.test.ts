import { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import t from 'tap'
import { onceClosed } from '../../lib/once-closed.ts'

/** Two requests on one connection, and how often each was reported as closed. */
function pipelined () {
  const socket = new EventEmitter()
  const responses = [new EventEmitter(), new EventEmitter()] as const
  const closed = [0, 0] as [number, number]
  for (const [index, response] of responses.entries()) {
    onceClosed({ socket } as unknown as IncomingMessage, response as unknown as ServerResponse, () => {
      closed[index as 0 | 1]++
    })
  }
  return { socket, responses, closed }
}

t.test('a response that has been sent is reported once, and no other', async t => {
  const { socket, responses, closed } = pipelined()
  responses[0].emit('close')
  t.strictSame(closed, [1, 0])
  responses[1].emit('close')
  socket.emit('close')
  t.strictSame(closed, [1, 1])
})

t.test('any number of callers wait with one listener', async t => {
  const socket = new EventEmitter()
  const response = new EventEmitter()
  let closed = 0
  for (let caller = 0; caller < 20; caller++) {
    onceClosed({ socket } as unknown as IncomingMessage, response as unknown as ServerResponse, () => { closed++ })
  }
  t.equal(response.listenerCount('close'), 1)
  t.equal(socket.listenerCount('close'), 1)
  response.emit('close')
  t.equal(closed, 20)
})

t.test('a connection that closes reports every response on it, even one that emits nothing', async t => {
  const { socket, responses, closed } = pipelined()
  responses[0].emit('close')
  socket.emit('close')
  t.strictSame(closed, [1, 1])
})
