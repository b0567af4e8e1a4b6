/** The service, in the test's process or in its own, and requests to it. */
import type { ChildProcess } from 'node:child_process'
import { type TProperties, Type } from '@sinclair/typebox'
import type { FastifyInstance, InjectOptions } from 'fastify'
import { buildApp } from '../../app.ts'
import packageJson from '../../package.json' with { type: 'json' }
import type { Environment } from '../../plugins/config/read.ts'
import type { Caller, Tool, ToolResult } from '../../tools/tool.ts'
import { CHECKED } from './check-records.ts'
import type { Etcd, Teardown } from './etcd.ts'
import { recording, ROOT } from './paths.ts'
import { follow, spawnClean } from './spawn.ts'
import { waitFor } from './wait-for.ts'

export const MODERN = '2026-07-28'
export const LEGACY = '2025-11-25'
/** Nothing listens on this port. */
const NO_ETCD = 'http://127.0.0.1:1'
const START_BOUND_MS = 10_000
const CLIENT_INFO = { name: 'test', version: '1' }
/** The service is synced this soon after it starts, or after etcd answers again. */
const SYNC_BOUND_MS = 2_000

/** The caller of tests that call the registry directly: anonymous, as in the mode `none`. */
export const CALLER: Caller = {
  principal: {
    subject: 'anonymous',
    issuer: null,
    clientId: null,
    method: 'none',
    scopes: undefined,
    tokenId: null,
    expiresAt: null,
    claims: {},
    clientCertificate: null,
  },
  receivedAt: new Date(),
  remoteAddress: '127.0.0.1',
  userAgent: null,
  mcpClient: null,
  requestId: null,
  traceId: null,
}

/** Defaults of the service in tests. A busy machine is not what they test: those that do set the event loop's delay. */
const ENVIRONMENT = {
  KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
  KAFSCALE_MCP_ETCD_ENDPOINTS: NO_ETCD,
  KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
  KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: '0',
}

/**
 * Builds the app, by default silent and without etcd. It need not be ready yet, so a test can still add to it.
 */
export async function buildTestApp (t: Teardown, env: Environment = {}): Promise<FastifyInstance> {
  const app = await buildApp({
    env: {
      ...ENVIRONMENT,
      KAFSCALE_MCP_LOG_LEVEL: 'silent',
      ...withoutRecords(env),
      ...env,
    }
  })
  t.teardown(() => app.close())
  return app
}

/** Keeps records off standard output, which is tap's, unless callers authenticate: then audit sinks are required. */
function withoutRecords (env: Environment): Environment {
  return Object.keys(env).some(name => /^KAFSCALE_MCP_(?:AUTH|OIDC)_/.test(name))
    ? {}
    : { KAFSCALE_MCP_AUDIT_SINKS: 'none' }
}

/** Builds the app over a running etcd and waits until it is synced. */
export async function buildSyncedApp (t: Teardown, { env }: Etcd, more: Environment = {}): Promise<FastifyInstance> {
  const app = await buildTestApp(t, { ...env, ...more })
  await app.ready()
  await waitFor(() => app.metadata.state === 'synced' || app.metadata.reason, SYNC_BOUND_MS, 'synced')
  return app
}

/** Waits until the mirror has reached etcd's current revision. */
export async function caughtUp (app: FastifyInstance, { client }: Etcd): Promise<void> {
  const { header } = await client.kv.range({ key: Buffer.from('/kafscale/'), count_only: true })
  await waitFor(
    () => (app.metadata.mirror?.revision ?? 0) >= Number(header.revision) || app.metadata.mirror?.revision,
    SYNC_BOUND_MS,
    'caught up'
  )
}

/** The service in a process of its own. */
export interface Service {
  process: ChildProcess
  /** Everything written so far. */
  output: { stdout: string, stderr: string }
  /** Resolves once it listens. */
  url: Promise<string>
  /** Resolves to its exit code, or to the signal that ended it. */
  exit: Promise<number | NodeJS.Signals>
}

/** Starts the service as `npm start` does, with only `env` in its environment. The teardown of `t` ends it. */
export function startService (t: Teardown, env: Environment = {}): Service {
  const [, ...args] = packageJson.scripts.start.replace('$PPID', `${globalThis.process.pid}`).split(' ')
  const process = spawnClean(globalThis.process.execPath, args, {
    cwd: ROOT,
    env: {
      ...ENVIRONMENT,
      ...CHECKED,
      ...withoutRecords(env),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const { output, exit, hasEnded } = follow(process)
  t.teardown(async () => {
    process.kill('SIGKILL')
    await exit
  })
  const listening = /"url":"([^"]+)","msg":"listening"/
  const url = waitFor(() => hasEnded() || listening.test(output.stderr) || output.stderr, START_BOUND_MS, 'listening')
    .then(() => {
      const [, url] = listening.exec(output.stderr) ?? []
      if (url === undefined) throw new Error(`the service does not start: ${output.stderr}`)
      return url
    })
  url.catch(() => {}) // nobody awaits the URL of a service that must not start
  return { process, output, url, exit }
}

/** Every key of the recorded cluster at the start of the recording. */
export function recordedKeyspace (): { key: string, value: Buffer }[] {
  const [, ...keys] = recording<{ key: string, value: string }>('keyspace.jsonl')
  return keys.map(({ key, value }) => ({ key, value: Buffer.from(value, 'base64') }))
}

/** Writes keys in transactions within etcd's default limits: 128 operations and 1.5 MB. */
export async function fill ({ client }: Etcd, keys: { key: string | Buffer, value: string | Buffer }[]): Promise<void> {
  let puts: { request_put: { key: Buffer, value: Buffer } }[] = []
  let bytes = 0
  const flush = async () => {
    await client.kv.txn({ compare: [], success: puts, failure: [] })
    puts = []
    bytes = 0
  }
  for (const { key, value } of keys) {
    const put = { key: Buffer.from(key), value: Buffer.from(value) }
    if (puts.length === 128 || bytes + put.value.length > 1_000_000) await flush()
    puts.push({ request_put: put })
    bytes += put.key.length + put.value.length
  }
  await flush()
}

/** A request of protocol revision 2026-07-28. */
export function modern (method: string, params: Record<string, unknown> = {}, id: unknown = 1) {
  return {
    method: 'POST' as const,
    url: '/mcp',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': MODERN,
      'mcp-method': method,
      ...typeof params['name'] === 'string' && { 'mcp-name': params['name'] },
    } as Record<string, string>,
    payload: {
      jsonrpc: '2.0',
      id,
      method,
      params: {
        ...params,
        _meta: {
          'io.modelcontextprotocol/protocolVersion': MODERN,
          'io.modelcontextprotocol/clientInfo': CLIENT_INFO,
          'io.modelcontextprotocol/clientCapabilities': {},
          ...params['_meta'] as object | undefined,
        },
      },
    },
  } satisfies InjectOptions
}

/** A request of the 2025 protocol revisions. */
export function legacy (method: string, params: Record<string, unknown> = {}, id: unknown = 1) {
  return {
    method: 'POST' as const,
    url: '/mcp',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': LEGACY,
    } as Record<string, string>,
    payload: { jsonrpc: '2.0', id, method, params },
  } satisfies InjectOptions
}

/** Calls a tool in revision 2026-07-28. @throws when the response is not a tool result, failed or not */
export async function callTool (
  app: FastifyInstance,
  name: string,
  input: Record<string, unknown> = {}
): Promise<ToolResult> {
  return await resultOf(app, modern('tools/call', { name, arguments: input }))
}

/** Calls a tool in the 2025 revisions. */
export async function callTool2025 (
  app: FastifyInstance,
  name: string,
  input: Record<string, unknown> = {}
): Promise<ToolResult> {
  return await resultOf(app, legacy('tools/call', { name, arguments: input }))
}

/** Calls a tool and returns its structured content. @throws with the tool's text when it fails */
export async function ask (
  app: FastifyInstance,
  name: string,
  input: Record<string, unknown> = {}
): Promise<Record<string, unknown>> {
  const { isError, content, structuredContent } = await callTool(app, name, input)
  if (isError || !structuredContent) throw new Error(content[0]?.text)
  return structuredContent
}

async function resultOf (app: FastifyInstance, request: InjectOptions): Promise<ToolResult> {
  const response = await app.inject(request)
  const { result } = response.json<{ result?: ToolResult }>()
  if (response.statusCode !== 200 || !result) throw new Error(`HTTP ${response.statusCode}: ${response.body}`)
  return result
}

/** A tool that answers with its input, with the given overrides. */
export function tool ({ properties = {}, ...rest }: Partial<Tool> & { properties?: TProperties }): Tool {
  return {
    name: 'test',
    title: 'Test',
    description: 'For the test',
    operation: 'observe',
    input: Type.Object(properties, { additionalProperties: false }),
    output: Type.Object({}),
    answer: (_, input) => ({ input }),
    ...rest,
  }
}
