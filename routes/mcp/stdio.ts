import { Readable, Transform, type Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import {
  CLIENT_INFO_META_KEY,
  isJSONRPCNotification,
  isJSONRPCRequest,
  isJSONRPCResponse,
  type JSONRPCMessage,
  type JSONRPCRequest,
  type RequestId,
  type Result,
  type ServerContext,
} from '@modelcontextprotocol/server'
import { serveStdio, StdioServerTransport } from '@modelcontextprotocol/server/stdio'
import type { FastifyInstance } from 'fastify'
import { TooComplex } from '../../errors.ts'
import { escapeUnprintable } from '../../lib/printable.ts'
import { LOCAL } from '../../plugins/auth/principal.ts'
import { traceIdOf } from '../../plugins/telemetry/trace-context.ts'
import type { Caller } from '../../tools/tool.ts'
import { parseBody } from './body.ts'
import { clientName } from './client-name.ts'
import { withoutNulls } from './nulls.ts'
import { McpToolServer } from './server.ts'

/** How long the first calls wait for the first load: a client starts the process and calls at once. */
const FIRST_LOAD_MS = 3_000
const FIRST_LOAD_POLL_MS = 20
/** How long calls may take to finish after the client has closed its side. */
const FINISH_CALLS_MS = 3_000
const PARSE_ERROR = -32700
const INVALID_REQUEST = -32600

/**
 * Serves MCP to the client on standard input and output once the app is ready, in the revision that the client opens
 * with. Resolves once the client is gone.
 */
export async function serveClient (
  app: FastifyInstance,
  input: Readable = process.stdin,
  output: Writable = process.stdout
): Promise<void> {
  const wire = new Wire(input, output)
  app.addHook('onReady', async () => {
    const firstLoad = waitForFirstLoad(app)
    serveStdio(() => new StdioToolServer(app, firstLoad), {
      transport: wire,
      onerror: error => app.log.debug({ err: error }, 'mcp'),
    })
    app.log.info('serving the client on standard input and output')
  })
  app.addHook('onClose', () => wire.close())
  await wire.ended
}

/** Resolves after the first load of the mirror, or once that takes too long. */
async function waitForFirstLoad ({ metadata }: FastifyInstance): Promise<void> {
  const deadlineMs = performance.now() + FIRST_LOAD_MS
  while (!metadata.mirror && performance.now() < deadlineMs) await delay(FIRST_LOAD_POLL_MS)
}

/** The same tools for the client that started the process. */
class StdioToolServer extends McpToolServer {
  readonly #app: FastifyInstance
  readonly #firstLoad: Promise<void>

  constructor (app: FastifyInstance, firstLoad: Promise<void>) {
    super(app.tools)
    this.#app = app
    this.#firstLoad = firstLoad
  }

  protected override callerOf ({ mcpReq: { id, _meta, envelope } }: ServerContext): Caller {
    const info = (envelope as Record<string, unknown> | undefined)?.[CLIENT_INFO_META_KEY] ?? this.getClientVersion()
    return {
      principal: LOCAL,
      receivedAt: new Date(),
      remoteAddress: null,
      userAgent: null,
      mcpClient: clientName(info),
      requestId: String(id),
      traceId: traceIdOf({}, { params: { _meta } }),
    }
  }

  /** Records the calls that do not reach a tool, too. */
  protected override _wrapHandler (
    method: string,
    handler: (request: JSONRPCRequest, context: ServerContext) => Promise<Result>
  ) {
    const wrapped = super._wrapHandler(method, handler)
    if (method !== 'tools/call') return wrapped
    return async (request: JSONRPCRequest, context: ServerContext) => {
      await this.#firstLoad
      try {
        return await wrapped(request, context)
      } catch (error) {
        const { name, arguments: input } = request.params ?? {}
        await this.#app.tools.refuse({ name, input, code: 'INVALID_PARAMS' }, this.callerOf(context))
        throw error
      }
    }
  }
}

/**
 * The SDK's transport, with what HTTP does too: a line that is not a message gets an answer, members that are `null`
 * count as absent, and characters that are not seen are escaped. The calls of a client that has closed its side are
 * still answered, so that a script can pipe messages to the process.
 */
class Wire extends StdioServerTransport {
  readonly #ended = Promise.withResolvers<void>()
  readonly #pending = new Set<RequestId>()
  readonly #answered: { resolve: () => void }[] = []

  constructor (input: Readable, output: Writable) {
    // One chunk is one message, with the line break that ends it.
    const escaped = new Transform({
      transform: (chunk, _, done) => done(null, `${escapeUnprintable(String(chunk).slice(0, -1))}\n`),
    })
    // The client no longer reads.
    output.on('error', error => escaped.destroy(error))
    escaped.pipe(output)
    const refuse = (id: unknown, code: number, message: string) => {
      escaped.write(`${JSON.stringify({ jsonrpc: '2.0', id, error: { code, message } })}\n`)
    }
    const messages = async function * (received: (message: JSONRPCMessage) => void, finish: () => Promise<void>) {
      for await (const line of linesOf(input)) {
        const message = messageIn(line, refuse)
        if (!message) continue
        received(message)
        yield Buffer.from(`${JSON.stringify(message)}\n`)
      }
      await finish()
    }
    super(Readable.from(messages(
      message => this.#received(message),
      async () => await Promise.race([this.#finish(), delay(FINISH_CALLS_MS)])
    )), escaped)
  }

  get ended (): Promise<void> {
    return this.#ended.promise
  }

  override async send (message: JSONRPCMessage): Promise<void> {
    await super.send(message)
    if (isJSONRPCResponse(message)) this.#settle(message.id)
  }

  override async close (): Promise<void> {
    await super.close()
    this.#ended.resolve()
  }

  #received (message: JSONRPCMessage): void {
    if (isJSONRPCRequest(message)) this.#pending.add(message.id)
    else if (isJSONRPCNotification(message) && message.method === 'notifications/cancelled') {
      this.#settle(message.params?.['requestId'] as RequestId | undefined)
    }
  }

  #settle (id: RequestId | undefined): void {
    if (id !== undefined) this.#pending.delete(id)
    if (this.#pending.size === 0) for (const { resolve } of this.#answered.splice(0)) resolve()
  }

  /** Resolves once every request has its answer. */
  async #finish (): Promise<void> {
    const answered = Promise.withResolvers<void>()
    this.#answered.push(answered)
    this.#settle(undefined)
    await answered.promise
  }
}

/** The lines of a stream, without their ends. */
async function * linesOf (input: Readable): AsyncGenerator<string> {
  let begun = ''
  for await (const chunk of input.setEncoding('utf8') as AsyncIterable<string>) {
    const [first = '', ...others] = chunk.split('\n')
    begun += first
    for (const next of others) {
      yield begun
      begun = next
    }
  }
  yield begun
}

/** The message in a line; `undefined` if there is none. Calls `refuse` for a line with anything else. */
function messageIn (
  line: string,
  refuse: (id: unknown, code: number, message: string) => void
): JSONRPCMessage | undefined {
  if (line.trim() === '') return undefined
  let json: unknown
  try {
    json = withoutNulls(parseBody(line))
  } catch (error) {
    if (!(error instanceof TooComplex)) throw error
    refuse(null, INVALID_REQUEST, error.message)
    return undefined
  }
  if (isJSONRPCRequest(json) || isJSONRPCNotification(json) || isJSONRPCResponse(json)) return json
  if (json === undefined) {
    refuse(null, PARSE_ERROR, 'The line is not valid JSON: send each message as one line of JSON.')
  } else if (Array.isArray(json)) {
    refuse(null, INVALID_REQUEST, 'There are no batches over standard input and output: send each message by itself.')
  } else {
    const { id = null } = (json ?? {}) as { id?: unknown }
    refuse(['string', 'number'].includes(typeof id) ? id : null, INVALID_REQUEST, 'The line is not a JSON-RPC message.')
  }
  return undefined
}
