import {
  createMcpHandler, isJsonContentType, isJSONRPCErrorResponse, isJSONRPCRequest, isLegacyRequest, localhostAllowedHostnames, localhostAllowedOrigins,
  PROTOCOL_VERSION_META_KEY, SUPPORTED_PROTOCOL_VERSIONS, validateHostHeader, validateOriginHeader, WebStandardStreamableHTTPServerTransport,
  type JSONRPCRequest, type JSONRPCResultResponse, type MessageExtraInfo
} from '@modelcontextprotocol/server'
import createError from '@fastify/error'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { escapeUnprintable } from '../errors.ts'
import { ExchangeTransport } from './mcp-exchange.ts'
import { McpToolServer } from './mcp-server.ts'

const MODERN = '2026-07-28'
/** Batches, which revision 2025-03-26 alone has, are answered all at once. */
const MAX_BATCH = 10
const BatchTooLong = createError<[]>('BATCH_TOO_LONG', `A batch may have ${MAX_BATCH} messages at most`, 400)
/** Requests that are answered by one message, whatever the revision. */
const ONE_MESSAGE_METHODS = new Set(['tools/call', 'tools/list'])

/** The body as it came, and what it says where it is JSON. */
interface Body { text: string, json: unknown }

/**
 * `POST /mcp`: MCP over streamable HTTP, of revision 2026-07-28 and the 2025 revisions, without sessions.
 *
 * A request that is written exactly as its revision says, and answered by one message, is exchanged with a long-lived
 * server. Any other (handshakes, notifications, batches, subscriptions, and everything that is wrong in any way) goes to
 * the SDK's own HTTP entry, so the SDK alone says what is right.
 */
export default async function mcp (app: FastifyInstance) {
  const modern = createMcpHandler(() => new McpToolServer(app.tools), { legacy: 'reject', onerror: error => app.log.debug({ err: error }, 'mcp') })
  const modernExchange = await ExchangeTransport.connect(new McpToolServer(app.tools, MODERN))
  const legacyExchange = await ExchangeTransport.connect(new McpToolServer(app.tools))
  app.addHook('onClose', () => modern.close())

  app.addHook('onRequest', guard(app))
  app.setErrorHandler(async (error: FastifyError, request, reply) => {
    const { statusCode = 500 } = error
    if (statusCode >= 500) request.log.error({ err: error }, 'a request failed')
    const message = statusCode >= 500 ? 'Internal error' : error.message
    return reply.code(statusCode).send({ jsonrpc: '2.0', id: null, error: { code: statusCode >= 500 ? -32603 : -32600, message } })
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string' }, (_, text, done) => { done(null, { text, json: parseJson(String(text)) }) })

  app.post<{ Body: Body | undefined }>('/mcp', async (request, reply) => {
    const message = request.body?.json
    if (Array.isArray(message) && message.length > MAX_BATCH) throw new BatchTooLong()
    const { signal } = aborts(reply)
    if (isPlain(request, message)) {
      const { [PROTOCOL_VERSION_META_KEY]: revision } = message.params?._meta ?? {}
      const extra: MessageExtraInfo = revision === undefined ? {} : { classification: { era: 'modern', revision: MODERN } }
      const answer = await (revision === undefined ? legacyExchange : modernExchange).exchange(message, extra, signal)
      // An error of the protocol has an HTTP status of its own, which the SDK's entry knows.
      if (!isJSONRPCErrorResponse(answer)) return reply.type('application/json').send(serialize(answer))
    }
    return await sendResponse(reply, await serve(request, signal))
  })

  // Sessions and their streams no longer exist.
  app.route({
    method: ['GET', 'DELETE'],
    url: '/mcp',
    handler: async (_, reply) => reply.code(405).header('allow', 'POST')
      .send({ jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Method not allowed: send a POST. This server has no sessions.' } }),
  })

  /** Serves a request through the SDK's own HTTP entry, with a server of its own. */
  async function serve (request: FastifyRequest<{ Body: Body | undefined }>, signal: AbortSignal): Promise<Response> {
    const { text = '', json } = request.body ?? {}
    const headers = new Headers()
    for (const [name, value] of Object.entries(request.headers)) if (value !== undefined) headers.set(name, String(value))
    const webRequest = new Request('http://localhost/mcp', { method: 'POST', headers, body: text, signal })
    const parsed = json === undefined ? {} : { parsedBody: json }
    if (!await isLegacyRequest(webRequest, json)) return await modern.fetch(webRequest, parsed)

    const server = new McpToolServer(app.tools)
    const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true })
    signal.addEventListener('abort', () => server.close())
    await server.connect(transport)
    return await transport.handleRequest(webRequest, parsed)
  }
}

/** Whether a request is written exactly as its revision says and is answered by one message. */
function isPlain ({ headers }: FastifyRequest, message: unknown): message is JSONRPCRequest {
  if (!isJSONRPCRequest(message) || !ONE_MESSAGE_METHODS.has(message.method) || !isJsonContentType(headers['content-type'])) return false
  const { method, params = {} } = message
  const { _meta: meta = {} } = params
  if ('inputResponses' in params || 'requestState' in params || 'progressToken' in meta) return false

  const version = headers['mcp-protocol-version']
  if (version === MODERN) {
    return meta[PROTOCOL_VERSION_META_KEY] === MODERN && headers['mcp-method'] === method && headers['mcp-name'] === params.name
  }
  const { accept = '' } = headers
  return (version === undefined || SUPPORTED_PROTOCOL_VERSIONS.includes(String(version))) &&
    !Object.keys(meta).some(key => key.startsWith('io.modelcontextprotocol/')) &&
    headers['mcp-session-id'] === undefined && accept.includes('application/json') && accept.includes('text/event-stream')
}

function parseJson (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Aborts when the client goes away before it has its answer. */
function aborts ({ raw: response }: FastifyReply): AbortController {
  const controller = new AbortController()
  response.once('close', () => { if (!response.writableFinished) controller.abort() })
  return controller
}

/**
 * A reply as JSON. What a tool answers stands in it twice, as text and as value: the text is the JSON of the value, so it
 * serves for both.
 */
function serialize ({ id, result: { content, structuredContent, ...rest } }: JSONRPCResultResponse): string {
  const [first] = Array.isArray(content) ? content : []
  if (structuredContent === undefined || first === undefined) {
    return escapeUnprintable(JSON.stringify({ jsonrpc: '2.0', id, result: { content, ...rest } }))
  }
  const head = escapeUnprintable(JSON.stringify({ jsonrpc: '2.0', id, result: rest })).slice(0, -2)
  const comma = head.endsWith('{') ? '' : ','
  return `${head}${comma}"content":[{"type":"text","text":${JSON.stringify(first.text)}}],"structuredContent":${first.text}}}`
}

async function sendResponse (reply: FastifyReply, response: Response): Promise<FastifyReply> {
  if (!isJsonContentType(response.headers.get('content-type'))) return reply.send(response)
  reply.code(response.status)
  response.headers.forEach((value, name) => reply.header(name, value))
  return reply.send(escapeUnprintable(await response.text()))
}

/**
 * Refuses a request whose Host or Origin is not expected, as a page makes that has rebound its own name to this address.
 * What is configured is expected, the loopback names where nothing is.
 */
function guard (app: FastifyInstance) {
  const { allowedHosts, allowedOrigins, httpAddr: { host } } = app.config
  const loopback = [...localhostAllowedHostnames(), host]
  return async ({ headers, host: hostHeader }: FastifyRequest, reply: FastifyReply) => {
    const result = validateHostHeader(hostHeader, allowedHosts ?? loopback)
    const origin = allowedOrigins
      ? { ok: headers.origin === undefined || allowedOrigins.includes(headers.origin), message: 'Invalid Origin' }
      : validateOriginHeader(headers.origin, localhostAllowedOrigins())
    const refused = !result.ok ? result : !origin.ok ? origin : undefined
    if (refused) return reply.code(403).send({ jsonrpc: '2.0', id: null, error: { code: -32000, message: refused.message } })
  }
}
