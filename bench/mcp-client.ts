/**
 * Calls the tools of any MCP server over HTTP, in revision 2026-07-28 if the server has it, otherwise in a 2025 one.
 */

const MODERN = '2026-07-28'
const LEGACY = '2025-11-25'
const CLIENT_INFO = { name: 'kafscale-mcp-bench', version: '1' }
const TIMEOUT_MS = 60_000

export interface HttpRequest { url: string, headers: Record<string, string>, body: string }

interface InputSchema { properties?: Record<string, unknown>, required?: string[] }

/** A tool's answer, and the size of its HTTP body. */
export interface ToolAnswer { content: Record<string, unknown>, bytes: number }

export interface McpServer {
  url: string
  has: (tool: string) => boolean
  /** The request for a call. Inputs that the server's tool doesn't have are left out; required ones default to null. */
  request: (tool: string, input: Record<string, unknown>) => HttpRequest
}

type Params = Record<string, unknown>
type WriteRequest = (method: string, params: Params) => HttpRequest

/**
 * Finds out the revision and tools of a server, and opens a session if the server has sessions.
 * @param authorization the header to send with every request, to a server of revision 2026-07-28
 * @throws when no MCP server answers
 */
export async function connect (url: string, authorization: Record<string, string> = {}): Promise<McpServer> {
  const modern = modernRequest(url, authorization)
  const write = await offers(modern)
    ? modern
    : await initialize(url).catch((cause: Error) => {
      throw new Error(`no MCP server answers at ${url}: ${cause.message}`, { cause: cause.cause })
    })
  const { result } = await exchange(write('tools/list', {}))
  const schemas = new Map(
    (result as { tools: { name: string, inputSchema: InputSchema }[] }).tools.map(
      tool => [tool.name, tool.inputSchema]
    )
  )
  return {
    url,
    has: tool => schemas.has(tool),
    request (tool, input) {
      const { properties = {}, required = [] } = schemas.get(tool) ?? {}
      const known = Object.entries(input).filter(([name]) => Object.hasOwn(properties, name))
      return write('tools/call', {
        name: tool,
        arguments: { ...Object.fromEntries(required.map(name => [name, null])), ...Object.fromEntries(known) },
      })
    },
  }
}

/**
 * Makes a call once.
 * @throws unless it succeeds with structured content
 */
export async function call (request: HttpRequest): Promise<ToolAnswer> {
  const { result, bytes } = await exchange(request)
  const { isError, structuredContent } = result as { isError?: boolean, structuredContent?: Record<string, unknown> }
  if (isError || !structuredContent) throw new Error(`${request.body} failed: ${JSON.stringify(result).slice(0, 500)}`)
  return { content: structuredContent, bytes }
}

export function modernRequest (url: string, authorization: Record<string, string> = {}): WriteRequest {
  return (method, params) => jsonRequest(url, {
    ...authorization,
    'mcp-protocol-version': MODERN,
    'mcp-method': method,
    ...typeof params.name === 'string' && { 'mcp-name': params.name },
  }, method, {
    ...params,
    _meta: {
      'io.modelcontextprotocol/protocolVersion': MODERN,
      'io.modelcontextprotocol/clientInfo': CLIENT_INFO,
      'io.modelcontextprotocol/clientCapabilities': {},
    },
  })
}

async function offers (write: WriteRequest): Promise<boolean> {
  try {
    await exchange(write('tools/list', {}))
    return true
  } catch {
    return false
  }
}

/** A request of revision 2025-11-25, to a server without sessions. */
export function legacyRequest (url: string): WriteRequest {
  return (method, params) => jsonRequest(url, { 'mcp-protocol-version': LEGACY }, method, params)
}

async function initialize (url: string): Promise<WriteRequest> {
  const params = { protocolVersion: LEGACY, clientInfo: CLIENT_INFO, capabilities: {} }
  const { result, sessionId } = await exchange(jsonRequest(url, {}, 'initialize', params))
  const { protocolVersion } = result as { protocolVersion: string }
  const headers = { 'mcp-protocol-version': protocolVersion, ...sessionId !== null && { 'mcp-session-id': sessionId } }
  const initialized = jsonRequest(url, headers, 'notifications/initialized', {})
  await post({ ...initialized, body: JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' }) })
  return (method, params) => jsonRequest(url, headers, method, params)
}

function jsonRequest (url: string, headers: Record<string, string>, method: string, params: Params): HttpRequest {
  return {
    url,
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...headers },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  }
}

async function post ({ url, headers, body }: HttpRequest): Promise<Response> {
  const response = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(TIMEOUT_MS) })
  if (!response.ok) {
    throw new Error(`${url} answered ${body} with ${response.status}: ${(await response.text()).slice(0, 500)}`)
  }
  return response
}

async function exchange (request: HttpRequest): Promise<{ result: unknown, bytes: number, sessionId: string | null }> {
  const response = await post(request)
  const text = await response.text()
  const stream = response.headers.get('content-type')?.startsWith('text/event-stream')
  const events = stream
    ? text.split('\n').filter(line => line.startsWith('data:')).map(line => line.slice('data:'.length))
    : [text]
  const message = events.filter(event => event.trim() !== '').map(event =>
    JSON.parse(event) as { id?: unknown, result?: unknown }
  ).find(({ id }) => id === 1)
  if (message?.result === undefined) {
    throw new Error(`${request.url} answered ${request.body} with ${text.slice(0, 500)}`)
  }
  return { result: message.result, bytes: Buffer.byteLength(text), sessionId: response.headers.get('mcp-session-id') }
}
