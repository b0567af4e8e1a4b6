declare module 'autocannon' {
  import type { EventEmitter } from 'node:events'

  interface Client {
    /** The requests that its connection sends, in turn. */
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
    /** The number of requests over all connections, instead of a duration. */
    amount?: number
    /** The timeout of a request, in seconds. */
    timeout: number
    /** The interval at which it checks whether the duration is over, in milliseconds. */
    sampleInt: number
  }
  interface Result { errors: number, non2xx: number }
  interface Events { response: [client: Client, statusCode: number, bytes: number, responseTimeMs: number] }
  interface Run extends EventEmitter<Events>, PromiseLike<Result> {}
  export default function autocannon (options: Options): Run
}
