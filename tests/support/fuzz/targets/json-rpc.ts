import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { buildApp } from '../../../../app.ts'
import { TooComplex } from '../../../../errors.ts'
import { parseBody } from '../../../../routes/mcp/body.ts'
import type { Target } from '../target.ts'

const ENV = {
  KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1', // nothing listens there
  KAFSCALE_MCP_LOG_LEVEL: 'silent',
  KAFSCALE_MCP_AUDIT_SINKS: 'none',
  KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
  KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: '0',
}
const MODERN = '2026-07-28'
const METHODS = [
  'tools/call', 'tools/list', 'initialize', 'ping', 'notifications/initialized', 'notifications/cancelled',
  'resources/read', 'prompts/get', 'logging/setLevel', 'completion/complete', 'server/discover', 'rpc.discover',
]
const TOOLS = ['list_topics', 'describe_group', 'consumer_lag', 'explain_access', 'cluster_metrics']

// --- Messages

const text = fc.string({ unit: 'binary', maxLength: 300 })
const json = fc.jsonValue({ stringUnit: 'binary' })
const id = fc.oneof(fc.integer(), fc.string(), text, json)
const name = fc.oneof(fc.constantFrom(...TOOLS, '__proto__', 'constructor', ''), text, json)
const meta = fc.oneof(
  fc.record({
    'io.modelcontextprotocol/protocolVersion': fc.oneof(fc.constant(MODERN), json),
    'io.modelcontextprotocol/clientInfo': fc.oneof(fc.constant({ name: 'fuzz', version: '1' }), json),
    'io.modelcontextprotocol/clientCapabilities': fc.oneof(fc.constant({}), json),
    progressToken: json,
  }, { requiredKeys: [] }),
  json
)
const input = fc.oneof(
  fc.dictionary(fc.oneof(fc.constantFrom('topics', 'pattern', 'group_id', 'limit', 'cursor', '__proto__'), text), json),
  json
)
const params = fc.oneof(
  fc.record({ name, arguments: input, _meta: meta, protocolVersion: json, cursor: json }, { requiredKeys: [] }),
  json
)
const message = fc.oneof(
  fc.record({
    jsonrpc: fc.oneof(fc.constant('2.0'), json),
    id,
    method: fc.oneof(fc.constantFrom(...METHODS), text, json),
    params,
    result: json,
    error: json,
  }, { requiredKeys: [] }),
  json
)
const body = fc.oneof(
  fc.oneof(message, fc.array(message, { maxLength: 12 })).map(value => JSON.stringify(value)),
  fc.array(fc.constantFrom('[', ']', '{', '}', '"', ',', ':', '\\', '1', 'null', '"a"', ' ', '\ufeff'))
    .map(parts => parts.join('')),
  text
)
const headers = fc.record({
  'mcp-protocol-version': fc.constantFrom(MODERN, '2025-11-25', '2025-03-26', '1', 'x'.repeat(500)),
  'mcp-method': fc.constantFrom(...METHODS),
  'mcp-name': fc.constantFrom(...TOOLS, '__proto__'),
  accept: fc.constantFrom('application/json, text/event-stream', 'application/json', '*/*', ''),
  'content-type': fc.constantFrom('application/json', 'application/json; charset=utf-8', 'text/plain'),
}, { requiredKeys: ['content-type'] })

/** Characters that an answer must have escaped. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u

// --- What the limits mean, written as a reader would

function valuesIn (value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  const items = Object.values(value)
  return Math.max(1, items.length) + items.reduce((sum: number, item) => sum + valuesIn(item), 0)
}

function depthOf (value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  return 1 + Math.max(0, ...Object.values(value).map(depthOf))
}

/** What is parsed, or undefined when it is too complex. Whatever else is thrown is a finding. */
function parse (text: string): { json: unknown } | undefined {
  try {
    return { json: parseBody(text) }
  } catch (error) {
    if (error instanceof TooComplex) return undefined
    throw error
  }
}

const wide = fc.tuple(json, fc.nat(40), fc.oneof(fc.nat(10), fc.integer({ min: 19_000, max: 21_000 })))
  .map(([value, depth, width]) => {
    let nested: unknown = [value, ...Array<number>(width).fill(0)]
    for (let level = 0; level < depth; level++) nested = level % 2 === 0 ? { a: nested } : [nested]
    return nested
  })

export default {
  name: 'json-rpc',
  async run (seed) {
    const options = { seed, numRuns: 200 }
    fc.assert(
      fc.property(fc.oneof(json, wide), value => {
        const parsed = parse(JSON.stringify(value))
        const fits = depthOf(value) <= 33 && valuesIn(value) <= 20_000
        return fits ? parsed !== undefined && isDeepStrictEqual(parsed.json, toJson(value)) : parsed === undefined
      }),
      { ...options, numRuns: 50 }
    )

    const app = await buildApp({ env: ENV })
    try {
      await fc.assert(
        fc.asyncProperty(body, headers, async (body, headers) => {
          const { statusCode, payload } = await app.inject({ method: 'POST', url: '/mcp', headers, payload: body })
          if (statusCode >= 500 || UNSEEN.test(payload.replaceAll('\n', ''))) return false
          return payload === '' || payload.startsWith('event:') || [JSON.parse(payload)].flat().every(isResponse)
        }),
        options
      )
    } finally {
      await app.close()
    }
  },
} satisfies Target

function toJson (value: unknown): unknown {
  return JSON.parse(JSON.stringify(value))
}

function isResponse (value: { jsonrpc?: unknown, result?: unknown, error?: { code?: unknown, message?: unknown } }) {
  const { jsonrpc, result, error } = value
  return jsonrpc === '2.0' && (error === undefined
    ? result !== undefined
    : Number.isInteger(error.code) && typeof error.message === 'string')
}
