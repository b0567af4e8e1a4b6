import type {
  JSONRPCErrorResponse, JSONRPCMessage, JSONRPCRequest, JSONRPCResultResponse, MessageExtraInfo, Server, Transport
} from '@modelcontextprotocol/server'

type Reply = JSONRPCResultResponse | JSONRPCErrorResponse

/**
 * A transport between one long-lived MCP server and any number of callers. For each request, the SDK's HTTP handler
 * creates a server, its handlers and its streams, which a request with a single response does not need. Ids of
 * different callers can collide, so each request gets an internal id.
 */
export class ExchangeTransport implements Transport {
  onmessage?: (message: JSONRPCMessage, extra?: MessageExtraInfo) => void
  onclose?: () => void
  readonly #pending = new Map<number, (reply: Reply) => void>()
  #lastId = 0

  static async connect (server: Server): Promise<ExchangeTransport> {
    const transport = new ExchangeTransport()
    await server.connect(transport)
    return transport
  }

  async start (): Promise<void> {}

  async close (): Promise<void> {
    this.onclose?.()
  }

  async send (message: JSONRPCMessage): Promise<void> {
    // Notifications have no recipient, because requests for progress do not use this transport.
    if (!('id' in message) || 'method' in message) return
    const id = message.id as number
    const resolve = this.#pending.get(id)
    this.#pending.delete(id)
    resolve?.(message)
  }

  /**
   * Passes a request to the server and resolves with the reply, under the caller's id. Aborting the signal cancels the
   * call like a cancellation by the caller. The promise then never settles.
   */
  exchange (request: JSONRPCRequest, extra: MessageExtraInfo, signal: AbortSignal): Promise<Reply> {
    const id = ++this.#lastId
    return new Promise(resolve => {
      this.#pending.set(id, reply => resolve({ ...reply, id: request.id }))
      signal.addEventListener('abort', () => {
        if (!this.#pending.delete(id)) return
        this.onmessage?.({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: id } })
      })
      this.onmessage?.({ ...request, id }, extra)
    })
  }
}
