import type {
  JSONRPCErrorResponse, JSONRPCMessage, JSONRPCRequest, JSONRPCResultResponse, MessageExtraInfo, Server, Transport
} from '@modelcontextprotocol/server'

type Reply = JSONRPCResultResponse | JSONRPCErrorResponse

/**
 * A transport between one long-lived MCP server and any number of callers. The HTTP entry of the SDK builds a server,
 * its handlers and its streams for each request. A request that is one message in and one message out needs none of
 * them. Ids of different callers may collide, so each request is exchanged under an id of its own.
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
    // Requests that ask for progress do not come this way, so notifications have no recipient.
    if (!('id' in message) || 'method' in message) return
    const id = message.id as number
    const resolve = this.#pending.get(id)
    this.#pending.delete(id)
    resolve?.(message)
  }

  /**
   * Passes a request to the server and resolves with its reply, under the caller's id. Aborting the signal cancels the
   * call, as a cancellation by the caller would; the promise then never settles.
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
