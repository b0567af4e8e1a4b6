/** Principals of a real service in the mode `jwks`, with tokens signed by the test. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance, LightMyRequestResponse } from 'fastify'
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import type { AuditEntry } from '../../plugins/audit/record.ts'
import type { Environment } from '../../plugins/config/read.ts'
import type { ToolDefinition } from '../../plugins/tool-registry/index.ts'
import type { ToolResult } from '../../tools/tool.ts'
import { type Teardown, temporaryFolder } from './run.ts'
import { type legacy, modern } from './service.ts'

const PUBLIC_URL = 'https://kafscale-mcp.example'

export interface Authority {
  /** Makes a service accept the tokens and record every call in a file. */
  env: Environment
  /** Signs a token for the subject `sub`, with the scope to observe unless `claims` replaces it. */
  token: (sub: string, claims?: JWTPayload) => Promise<string>
  /** Writes a policy and returns its path. `env` does not use it. */
  policyFile: (policy: object | string) => string
  /** The audit records of an event. */
  recorded: (event: AuditEntry['event']) => AuditEntry[]
  dir: string
}

/** Creates keys in a folder that the teardown of `t` removes. */
export async function authority (t: Teardown, issuer = 'https://issuer.example'): Promise<Authority> {
  const dir = temporaryFolder(t)
  const { publicKey, privateKey } = await generateKeyPair('EdDSA')
  writeFileSync(join(dir, 'jwks.json'), JSON.stringify({ keys: [{ ...await exportJWK(publicKey), kid: 'a' }] }))
  const records = join(dir, 'audit.jsonl')
  return {
    dir,
    env: {
      KAFSCALE_MCP_AUTH_JWKS_FILE: join(dir, 'jwks.json'),
      KAFSCALE_MCP_AUTH_JWKS_ISSUER: issuer,
      KAFSCALE_MCP_PUBLIC_URL: PUBLIC_URL,
      KAFSCALE_MCP_AUDIT_SINKS: `file:${records}`,
    },
    token: async (sub, claims = { scope: 'kafscale:observe' }) =>
      await new SignJWT({ ...claims, sub })
        .setProtectedHeader({ alg: 'EdDSA', kid: 'a' }).setIssuer(issuer).setAudience(`${PUBLIC_URL}/mcp`).setIssuedAt()
        .setExpirationTime('10m')
        .sign(privateKey),
    policyFile (policy) {
      const path = join(dir, 'policy.yaml')
      writeFileSync(path, typeof policy === 'string' ? policy : JSON.stringify(policy))
      return path
    },
    recorded: event =>
      readFileSync(records, 'utf8').trim().split('\n').map(line => JSON.parse(line) as AuditEntry).filter(entry =>
        entry.event === event
      ),
  }
}

/** Calls a service as one principal. */
export interface Client {
  request: (method: string, params?: Record<string, unknown>) => Promise<LightMyRequestResponse>
  call: (tool: string, input?: Record<string, unknown>) => Promise<ToolResult>
  /** The structured content of a tool's answer. Throws with the tool's text when it fails. */
  ask: (tool: string, input?: Record<string, unknown>) => Promise<Record<string, unknown>>
  tools: () => Promise<ToolDefinition[]>
}

/** Without a token, the principal is anonymous. */
export function clientOf (app: FastifyInstance, token?: string, form: typeof modern | typeof legacy = modern): Client {
  const client: Client = {
    async request (method, params) {
      const { headers, ...rest } = form(method, params)
      return await app.inject({
        ...rest,
        headers: { ...headers, ...token !== undefined && { authorization: `Bearer ${token}` } },
      })
    },
    async call (tool, input = {}) {
      return resultOf<ToolResult>(await client.request('tools/call', { name: tool, arguments: input }))
    },
    async ask (tool, input) {
      const { isError, content, structuredContent } = await client.call(tool, input)
      if (isError || !structuredContent) throw new Error(content[0]?.text)
      return structuredContent
    },
    tools: async () => resultOf<{ tools: ToolDefinition[] }>(await client.request('tools/list')).tools,
  }
  return client
}

function resultOf<T> (response: LightMyRequestResponse): T {
  const { result } = response.json<{ result?: T }>()
  if (response.statusCode !== 200 || !result) throw new Error(`HTTP ${response.statusCode}: ${response.body}`)
  return result
}
