declare module 'autocannon' {
  import type { EventEmitter } from 'node:events'

  interface Client {
    /** What its connection sends, in turn. */
    setRequests: (requests: { method: string, headers: Record<string, string>, body: string }[]) => void
  }
  interface Options {
    url: string
    method: string
    headers: Record<string, string>
    /** Called with each connection's client before it connects. */
    setupClient: (client: Client) => void
    connections: number
    /** Seconds. */
    duration?: number
    /** Requests over all connections; then there is no duration. */
    amount?: number
    /** Seconds that a request may take. */
    timeout: number
    /** Milliseconds after which it looks again whether the duration is over. */
    sampleInt: number
  }
  interface Result { errors: number, non2xx: number }
  interface Run extends EventEmitter<{ response: [client: Client, statusCode: number, bytes: number, responseTimeMs: number] }>, PromiseLike<Result> {}
  export default function autocannon (options: Options): Run
}
