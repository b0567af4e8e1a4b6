import {
  type AuthInfo,
  CLIENT_INFO_META_KEY,
  createMcpHandler,
  isJsonContentType,
  isJSONRPCErrorResponse,
  isJSONRPCRequest,
  isLegacyRequest,
  type JSONRPCRequest,
  type JSONRPCResultResponse,
  type MessageExtraInfo,
  PROTOCOL_VERSION_META_KEY,
  SUPPORTED_PROTOCOL_VERSIONS,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BatchTooLong, IdTooLong, InsufficientScope, MethodTooLong } from '../../errors.ts'
import { onceClosed } from '../../lib/once-closed.ts'
import { escapeUnprintable } from '../../lib/printable.ts'
import type { Principal } from '../../plugins/auth/principal.ts'
import { NO_SCOPE } from '../../plugins/rbac/decide.ts'
import type { Caller } from '../../tools/tool.ts'
import { sourceOf } from '../request-source.ts'
import { ACCEPT_BOTH, acceptsBoth } from './accept.ts'
import { parseBody } from './body.ts'
import { clientName } from './client-name.ts'
import { ExchangeTransport } from './exchange.ts'
import { withoutNulls } from './nulls.ts'
import { authInfoOf, McpToolServer } from './server.ts'

const MODERN = '2026-07-28'
/** Only revision 2025-03-26 has batches. The message of `BATCH_TOO_LONG` repeats this number. */
const MAX_BATCH = 10
/** A reply repeats the id of its request. The message of `ID_TOO_LONG` repeats this number. */
const MAX_ID_LENGTH = 256
/** Far longer than any method of MCP. The message of `METHOD_TOO_LONG` repeats this number. */
const MAX_METHOD_LENGTH = 256
/** Requests with a single response in every revision. */
const ONE_MESSAGE_METHODS = new Set(['tools/call', 'tools/list'])

/** The body as received, and as parsed, without what is `null`; `json` is `undefined` if it is not valid JSON. */
interface Body { text: string, json: unknown }

/**
 * `POST /mcp`: MCP over streamable HTTP, revision 2026-07-28 and the 2025 revisions, without sessions.
 *
 * A request that has exactly the form of its revision and a single response goes to a long-lived server. Everything
 * else (handshakes, notifications, batches, subscriptions, and anything malformed) goes to the SDK's HTTP handler, so
 * that the SDK alone decides what is valid.
 */
export default async function mcp (app: FastifyInstance) {
  const modern = createMcpHandler(() => new McpToolServer(app.tools, undefined, app), {
    legacy: 'reject',
    onerror: error => app.log.debug({ err: error }, 'mcp'),
  })
  const modernExchange = await ExchangeTransport.connect(new McpToolServer(app.tools, MODERN, app))
  const legacyExchange = await ExchangeTransport.connect(new McpToolServer(app.tools))
  app.addHook('onClose', () => modern.close())

  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string' }, async (_: FastifyRequest, text: string): Promise<Body> =>
    ({ text, json: withoutNulls(parseBody(text)) }))

  app.post<{ Body: Body | undefined }>('/mcp', async (request, reply) => {
    const message = request.body?.json
    if (Array.isArray(message) && message.length > MAX_BATCH) throw new BatchTooLong()
    if ([message].flat().some(message => isLongText(message, 'id', MAX_ID_LENGTH))) throw new IdTooLong()
    if ([message].flat().some(message => isLongText(message, 'method', MAX_METHOD_LENGTH))) throw new MethodTooLong()
    const caller = callerOf(request, message)
    // Each call in a batch counts towards the limits.
    for (let calls = callsIn(message).length; calls > 1; calls--) await app.limits.admit(request, reply)
    await admitCalls(app, caller, message)
    const authInfo = authInfoOf(caller)
    const signal = disconnectSignal(request, reply)
    if (isPlain(request, message)) {
      const { [PROTOCOL_VERSION_META_KEY]: revision } = message.params?._meta ?? {}
      const extra: MessageExtraInfo = {
        authInfo,
        ...(revision !== undefined && { classification: { era: 'modern', revision: MODERN } }),
      }
      const answer = await (revision === undefined ? legacyExchange : modernExchange).exchange(message, extra, signal)
      // A protocol error has an HTTP status, which the SDK's handler below determines.
      if (!isJSONRPCErrorResponse(answer)) return reply.type('application/json').send(serialize(answer))
    }
    return await sendResponse(reply, await serve(request, authInfo, signal))
  })

  // Without sessions, there is no stream to open and no session to end.
  app.route({
    method: ['GET', 'DELETE'],
    url: '/mcp',
    handler: async (_, reply) =>
      reply.code(405).header('allow', 'POST')
        .send({
          jsonrpc: '2.0',
          id: null,
          error: { code: -32000, message: 'Method not allowed: send a POST. This server has no sessions.' },
        }),
  })

  /** Serves a request through the SDK's HTTP handler, with a new server. */
  async function serve (
    request: FastifyRequest<{ Body: Body | undefined }>,
    authInfo: AuthInfo,
    signal: AbortSignal
  ): Promise<Response> {
    const { text = '', json } = request.body ?? {}
    const headers = new Headers()
    for (const [name, value] of Object.entries(request.headers)) {
      if (value !== undefined) headers.set(name, String(value))
    }
    // The SDK's comparison is one of text.
    if (acceptsBoth(request.headers.accept)) headers.set('accept', ACCEPT_BOTH)
    // The SDK must not parse what was not parsed here, because its scopes were not checked.
    const webRequest = new Request('http://localhost/mcp', {
      method: 'POST',
      headers,
      body: json === undefined ? '' : text,
      signal,
    })
    const parsed = { authInfo, ...(json !== undefined && { parsedBody: json }) }
    if (!await isLegacyRequest(webRequest, json)) return await modern.fetch(webRequest, parsed)

    const server = new McpToolServer(app.tools)
    // As one JSON answer, unless the client wants to be told the steps of a change while it is applied.
    const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: !reportsProgress(app, json) })
    signal.addEventListener('abort', () => server.close())
    await server.connect(transport)
    return await transport.handleRequest(webRequest, parsed)
  }
}

/**
 * Rejects a request if one of its calls lacks its scope, and records the calls. Also records calls of unknown tools and
 * with arguments that are not an object, which the SDK then rejects.
 * @throws {InsufficientScope} listing every scope that the request requires, and those that the token has
 */
async function admitCalls (
  { tools, authorize, config }: FastifyInstance,
  caller: Caller,
  message: unknown
): Promise<void> {
  const calls = callsIn(message).map(({ params }) => {
    const { name, arguments: input } = isObject(params) ? params : {}
    const operation = typeof name === 'string' ? tools.operation(name) : undefined
    return { name, input, operation, callable: operation !== undefined && (input === undefined || isObject(input)) }
  })
  const lacking = calls.some(({ name, operation }) =>
    operation !== undefined && authorize.decide(caller.principal, { name: String(name), operation }).rule === NO_SCOPE
  )
  for (const { name, input, callable } of calls) {
    if (!callable) await tools.refuse({ name, input, code: 'INVALID_PARAMS' }, caller)
    else if (lacking) await tools.refuse({ name, input, code: 'INSUFFICIENT_SCOPE' }, caller)
  }
  if (lacking) {
    const required = new Set(calls.flatMap(({ operation }) => operation === undefined ? [] : config.scopes[operation]))
    // A client that signs in again requests these scopes and no others, so it would lose those that it has.
    const { observe, propose, apply, mutate } = config.scopes
    throw new InsufficientScope(
      [observe, propose, apply, mutate].filter(scope => required.has(scope) || caller.principal.scopes?.has(scope))
    )
  }
}

function callsIn (message: unknown): { params?: unknown }[] {
  return [message].flat().filter(isObject).filter(({ method }) => method === 'tools/call')
}

function isLongText (message: unknown, member: 'id' | 'method', maxLength: number): boolean {
  const text = isObject(message) ? message[member] : undefined
  return typeof text === 'string' && text.length > maxLength
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function callerOf (request: FastifyRequest, message: unknown): Caller {
  return {
    principal: request.principal as Principal,
    receivedAt: new Date(),
    ...sourceOf(request, message),
    mcpClient: clientName(isJSONRPCRequest(message) ? message.params?._meta?.[CLIENT_INFO_META_KEY] : undefined),
    batchSize: Math.max(1, callsIn(message).length),
  }
}

/** Whether a request has exactly the form of its revision and a single response. */
function isPlain ({ headers }: FastifyRequest, message: unknown): message is JSONRPCRequest {
  if (
    !isJSONRPCRequest(message) || !ONE_MESSAGE_METHODS.has(message.method) ||
    !isJsonContentType(headers['content-type'])
  ) return false
  const { method, params = {} } = message
  const { _meta: meta = {} } = params
  if ('inputResponses' in params || 'requestState' in params || 'progressToken' in meta) return false

  const version = headers['mcp-protocol-version']
  if (version === MODERN) {
    return meta[PROTOCOL_VERSION_META_KEY] === MODERN && headers['mcp-method'] === method &&
      headers['mcp-name'] === params.name
  }
  return (version === undefined || SUPPORTED_PROTOCOL_VERSIONS.includes(String(version))) &&
    !Object.keys(meta).some(key => key.startsWith('io.modelcontextprotocol/')) &&
    headers['mcp-session-id'] === undefined && acceptsBoth(headers.accept)
}

/** Whether a client of a 2025 revision asks for the progress of a call that has steps to report. */
function reportsProgress ({ tools }: FastifyInstance, message: unknown): boolean {
  if (!isJSONRPCRequest(message) || message.method !== 'tools/call') return false
  const { name, _meta: meta } = message.params ?? {}
  return meta?.progressToken !== undefined && tools.operation(String(name)) === 'apply'
}

/** Aborts if the client disconnects before it has received the response. */
function disconnectSignal ({ raw: request }: FastifyRequest, { raw: response }: FastifyReply): AbortSignal {
  const controller = new AbortController()
  onceClosed(request, response, () => { if (!response.writableFinished) controller.abort() })
  return controller.signal
}

/**
 * A reply as JSON. It contains a tool's answer twice, as text and as a value. The text is the JSON of the value, so the
 * value need not be serialized again.
 */
function serialize ({ id, result: { content, structuredContent, ...rest } }: JSONRPCResultResponse): string {
  const [first] = Array.isArray(content) ? content : []
  if (structuredContent === undefined || first === undefined) {
    return escapeUnprintable(JSON.stringify({ jsonrpc: '2.0', id, result: { content, ...rest } }))
  }
  const head = escapeUnprintable(JSON.stringify({ jsonrpc: '2.0', id, result: rest })).slice(0, -2)
  const comma = head.endsWith('{') ? '' : ','
  return `${head}${comma}"content":[{"type":"text","text":${
    JSON.stringify(first.text)
  }}],"structuredContent":${first.text}}}`
}

async function sendResponse (reply: FastifyReply, response: Response): Promise<FastifyReply> {
  if (!isJsonContentType(response.headers.get('content-type'))) return reply.send(withEscapedEvents(response))
  reply.code(response.status)
  response.headers.forEach((value, name) => reply.header(name, value))
  return reply.send(escapeUnprintable(await response.text()))
}

/** A stream of events whose JSON has the same escapes as any other answer. No escaped character is in two chunks. */
function withEscapedEvents (response: Response): Response {
  if (!response.body || !response.headers.get('content-type')?.startsWith('text/event-stream')) return response
  const escaped = new TransformStream<string, string>({
    transform: (text, stream) => stream.enqueue(text.split('\n').map(escapeUnprintable).join('\n')),
  })
  const body = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(escaped)
    .pipeThrough(new TextEncoderStream())
  return new Response(body, response)
}
