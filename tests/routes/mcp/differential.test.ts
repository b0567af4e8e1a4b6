/**
 * For any request, `/mcp` answers what the SDK's own HTTP entry answers over the same server to that request without
 * what is `null`: the long-lived exchange only differs in speed.
 */
import { setTimeout } from 'node:timers/promises'
import {
  createMcpHandler,
  isLegacyRequest,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server'
import { Type } from '@sinclair/typebox'
import fc from 'fast-check'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { GroupNotFound } from '../../../errors.ts'
import { withoutNulls } from '../../../routes/mcp/nulls.ts'
import { authInfoOf, McpToolServer } from '../../../routes/mcp/server.ts'
import { scaled } from '../../support/run.ts'
import { buildTestApp, CALLER, legacy, modern } from '../../support/service.ts'

const RUNS = 2_000
/** A request that takes longer is never answered. */
const NO_ANSWER_MS = 2_000

interface Request { headers: Record<string, string>, body: unknown }
interface Answer { status: number, type: string | undefined, body: unknown }

t.test('every answer is the same as the SDK\'s', async t => {
  const app = await buildTestApp(t)
  declareTestTools(app)
  await app.ready()
  const entry = createMcpHandler(() => new McpToolServer(app.tools), { legacy: 'reject' })
  t.teardown(() => entry.close())

  let answered = 0
  await t.resolves(fc.assert(fc.asyncProperty(request, async request => {
    const ours = await answer(app, request)
    const theirs = await sdkAnswer(app, entry, request)
    answered += Number(theirs.status === 200)
    if (JSON.stringify(ours) !== JSON.stringify(theirs)) {
      throw new Error(`ours:   ${JSON.stringify(ours)}\ntheirs: ${JSON.stringify(theirs)}`)
    }
  }), { numRuns: RUNS }))
  t.ok(answered > RUNS / 10, 'many of the requests are valid')
})

function declareTestTools (app: FastifyInstance): void {
  const tool = {
    title: 'Test tool',
    description: 'A tool for this test.',
    operation: 'observe' as const,
    output: Type.Object({}),
  }
  app.tools.declare({
    ...tool,
    name: 'echo',
    input: Type.Object({ text: Type.Optional(Type.String()) }, { additionalProperties: true }),
    answer: (_, input) => input,
  })
  app.tools.declare({
    ...tool,
    name: 'fails',
    input: Type.Object({}),
    answer: () => {
      throw new GroupNotFound('"a"')
    },
  })
  app.tools.declare({
    ...tool,
    name: 'breaks',
    input: Type.Object({}),
    answer: () => {
      throw new Error('internal')
    },
  })
}

async function answer (app: FastifyInstance, { headers, body }: Request): Promise<Answer> {
  const response = await Promise.race([
    app.inject({ method: 'POST', url: '/mcp', headers, payload: textOf(body) }),
    noAnswer(),
  ])
  return response ? read(response.statusCode, response.headers['content-type'], response.body) : UNANSWERED
}

/** An endpoint for both eras, built as the SDK's documentation recommends. */
async function sdkAnswer (
  app: FastifyInstance,
  entry: ReturnType<typeof createMcpHandler>,
  { headers, body }: Request
): Promise<Answer> {
  const text = textWithoutNulls(textOf(body))
  const request = new Request('http://localhost/mcp', { method: 'POST', headers, body: Buffer.from(text) })
  // The one difference: a client that accepts anything is answered with JSON.
  if (ANYTHING.has(request.headers.get('accept'))) request.headers.set('accept', 'application/json, text/event-stream')
  const authInfo = authInfoOf(CALLER)
  const serve = async () => {
    if (!await isLegacyRequest(request)) return await entry.fetch(request, { authInfo })
    const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true })
    await new McpToolServer(app.tools).connect(transport)
    return await transport.handleRequest(request, { authInfo })
  }
  const response = await Promise.race([serve(), noAnswer()])
  return response
    ? read(response.status, response.headers.get('content-type') ?? undefined, await response.text())
    : UNANSWERED
}

const ANYTHING = new Set([null, '', '*/*'])
const UNANSWERED: Answer = { status: 0, type: undefined, body: 'no answer' }

async function noAnswer (): Promise<undefined> {
  await setTimeout(scaled(NO_ANSWER_MS), undefined, { ref: false })
}

function read (status: number, contentType: string | undefined, text: string): Answer {
  const type = contentType?.split(';')[0]
  // The order of an object's members has no meaning.
  return { status, type, body: type === 'application/json' ? sorted(JSON.parse(text)) : text }
}

function sorted (value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([name, member]) => [name, sorted(member)])
  )
}

function textWithoutNulls (text: string): string {
  try {
    return JSON.stringify(withoutNulls(JSON.parse(text.replace(/^\ufeff/, ''))))
  } catch {
    return text
  }
}

/** A string is sent as it is; any other body is sent as JSON. */
function textOf (body: unknown): string {
  return typeof body === 'string' ? body : JSON.stringify(body) ?? ''
}

// --- Requests: a well-formed one with up to three mutations

const json = fc.constantFrom<unknown>(null, true, 0, -1, 1.5, 2 ** 53, '', 'text', [], [1], {}, { a: 1 })
const text = fc.oneof(
  fc.constantFrom('', 'a', 'é', '\u0085\u202e', '__proto__', '2026-07-28', '=?base64?ZWNobw==?='),
  fc.string({ maxLength: 8 })
)
const toolName = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom<unknown>('echo', 'fails', 'breaks') },
  fc.constantFrom<unknown>('nope', '', '__proto__', 'constructor', 'toString', 5, null, {}, 'echo ', 'écho'))
const input = fc.oneof(
  fc.constant<unknown>(undefined),
  fc.record({ text }),
  fc.record({ text: json }),
  json,
  fc.dictionary(text, json, { maxKeys: 3 })
)
const id = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom<unknown>(1, 'one') },
  fc.constantFrom<unknown>('', 0, -1, 1.5, 2 ** 53, 2 ** 53 - 1, null, true, {}, [], undefined)
)
const method = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('tools/call', 'tools/call', 'tools/list') },
  fc.constantFrom(
    'ping',
    'initialize',
    'server/discover',
    'notifications/initialized',
    'notifications/cancelled',
    'notifications/roots/list_changed',
    'resources/list',
    'prompts/get',
    'resources/read',
    'logging/setLevel',
    'completion/complete',
    'tasks/get',
    'sampling/createMessage',
    'nope',
    ''
  )
)

const wellFormed = fc.record({ form: fc.constantFrom(modern, legacy), method, name: toolName, input, id }).map(
  ({ form, method, name, input, id }): Request => {
    const params = method === 'tools/call' ? { name, ...input !== undefined && { arguments: input } } : {}
    const { headers, payload } = form(method, params, id)
    return { headers, body: payload }
  }
)

type Mutation = (request: Request) => Request

const headerValues = {
  // An invalid media type is not included: Fastify rejects it with an error of its own.
  'content-type': ['application/json; charset=utf-8', 'Application/JSON', 'application/jsonx', 'text/plain'],
  accept: ['application/json', 'text/event-stream', '*/*', 'text/event-stream,application/json;q=0.5', ''],
  'mcp-protocol-version': [
    '2026-07-28',
    ' 2026-07-28 ',
    '2025-11-25',
    '2025-06-18',
    '2025-03-26',
    '2024-11-05',
    '2024-10-07',
    '2099-01-01',
    '',
    '1, 2',
  ],
  'mcp-method': ['tools/call', 'tools/list', 'ping', 'nope', ''],
  'mcp-name': ['echo', ' echo', 'nope', '=?base64?ZWNobw==?=', '=?base64?*?=', ''],
  'mcp-session-id': ['a', ''],
  'last-event-id': ['a'],
}
const header = fc.oneof(
  ...Object.entries(headerValues).map(([name, values]) =>
    fc.tuple(fc.constant(name), fc.constantFrom(undefined, ...values))
  )
)
const metaName = fc.constantFrom(
  'io.modelcontextprotocol/protocolVersion',
  'io.modelcontextprotocol/clientInfo',
  'io.modelcontextprotocol/clientCapabilities',
  'io.modelcontextprotocol/logLevel',
  'io.modelcontextprotocol/related-task',
  'io.modelcontextprotocol/serverInfo',
  'io.modelcontextprotocol/subscriptionId',
  'progressToken',
  'traceparent',
  'example.com/a'
)
const metaValue = fc.oneof(
  json,
  fc.constantFrom<unknown>(undefined, '2026-07-28', '2025-11-25', '2099-01-01', 'debug', { name: 'a', version: '1' }, {
    taskId: 'a',
  })
)

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  header.map(([name, value]): Mutation => ({ headers: { [name]: _, ...headers }, body }) => ({
    headers: { ...headers, ...value !== undefined && { [name]: value } },
    body,
  })),
  fc.tuple(
    fc.constantFrom('jsonrpc', 'id', 'method', 'params', 'result', 'error', 'more'),
    fc.oneof(json, fc.constantFrom<unknown>(undefined, '1.0', { code: 1, message: '' }))
  )
    .map(([name, value]) => inBody(message => ({ ...message, [name]: value }))),
  fc.tuple(
    fc.constantFrom('name', 'arguments', 'cursor', 'task', 'inputResponses', 'requestState', '_meta', 'more'),
    fc.oneof(json, fc.constant(undefined))
  )
    .map(([name, value]) =>
      inBody(message => ({ ...message, params: { ...asObject(message['params']), [name]: value } }))
    ),
  fc.tuple(metaName, metaValue).map(([name, value]) =>
    inBody(message => {
      const params = asObject(message['params'])
      return { ...message, params: { ...params, _meta: { ...asObject(params['_meta']), [name]: value } } }
    })
  ),
  fc.constantFrom<Mutation>(
    ({ headers, body }) => ({ headers, body: [body] }),
    ({ headers, body }) => ({ headers, body: [body, { jsonrpc: '2.0', id: 2, method: 'ping' }] }),
    ({ headers, body }) => ({ headers, body: [body, { jsonrpc: '2.0', method: 'notifications/initialized' }] }),
    ({ headers }) => ({ headers, body: [] }),
    ({ headers, body }) => ({ headers, body: textOf(body).slice(0, -1) }),
    ({ headers, body }) => ({ headers, body: ` ${textOf(body)}\n` }),
    ({ headers, body }) => ({ headers, body: `\ufeff${textOf(body)}` }),
    ({ headers }) => ({ headers, body: '' }),
    ({ headers }) => ({ headers, body: 'null' }))
)

const request = fc.tuple(wellFormed, fc.array(mutation, { maxLength: 3 })).map(([request, mutations]) =>
  mutations.reduce((request, mutate) => mutate(request), request))

function inBody (change: (message: Record<string, unknown>) => unknown): Mutation {
  return ({ headers, body }) => ({
    headers,
    body: typeof body === 'object' && !Array.isArray(body) ? change(asObject(body)) : body,
  })
}

function asObject (value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Record<string, unknown> : {}
}
