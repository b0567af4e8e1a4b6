import type {
  JSONRPCErrorResponse, JSONRPCMessage, JSONRPCRequest, JSONRPCResultResponse, MessageExtraInfo, Server, Transport
} from '@modelcontextprotocol/server'

type Reply = JSONRPCResultResponse | JSONRPCErrorResponse

/**
 * A transport between one long-lived MCP server and any number of callers. The SDK's own HTTP entry builds a server, its
 * handlers and its streams for every request; where a request is one message in and one message out, none of them is
 * needed. Ids of callers may collide, so each request travels under an id of its own.
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
    // Progress and other notifications have nowhere to go: a request that asks for them doesn't come this way.
    if (!('id' in message) || 'method' in message) return
    const id = message.id as number
    const resolve = this.#pending.get(id)
    this.#pending.delete(id)
    resolve?.(message)
  }

  /**
   * Hands a request to the server and resolves with its reply, under the caller's id. Aborting the signal cancels the call,
   * as the caller's own cancellation would; then the promise is never settled.
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
