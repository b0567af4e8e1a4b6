import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Teardown } from '../tests/support/etcd.ts'
import { TOPICS } from './keyspace.ts'
import { call, type McpServer } from './mcp-client.ts'

const ROOT = join(import.meta.dirname, '..')
const SUBJECT = 'bench'
const ISSUER = 'kafscale-mcp'
const BASE_URL = 'http://127.0.0.1:8090'
/** The number of rules of each kind, allow and deny. */
const RULES = 25

/** Additional settings of a service, and the headers that calls to it need. */
export interface Variant { env?: Record<string, string>, headers?: Record<string, string> }

/** No authentication, no audit and no metrics endpoint, since several services run at once. */
export const NOTHING_ON = {
  KAFSCALE_MCP_AUTH_MODE: 'none',
  KAFSCALE_MCP_AUDIT_SINKS: 'none',
  KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
}

/** No limit in practice, but calls are still counted: an open loop must not have calls rejected after a short stall. */
export const UNBOUNDED = { KAFSCALE_MCP_MAX_CONCURRENT_CALLS: '100000' }

/**
 * `audited`: audit to a file, with signed checkpoints. `everything`: also tokens and a policy of 50 rules. The folder
 * with keys, policy and logs is removed at the end of the benchmark.
 */
export function everythingOn (t: Teardown): Record<'audited' | 'everything', Variant> {
  const dir = mkdtempSync(join(tmpdir(), 'kafscale-mcp-bench-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const keyFile = join(dir, 'key.pem')
  const jwksFile = join(dir, 'jwks.json')
  const policyFile = join(dir, 'policy.json')
  token('keygen', { key: keyFile, jwks: jwksFile })
  const bearer = token('issue', {
    key: keyFile,
    issuer: ISSUER,
    audience: `${BASE_URL}/mcp`,
    subject: SUBJECT,
    scope: 'kafscale:observe',
    ttl: '1h',
  })
  writeFileSync(policyFile, JSON.stringify(policy()))
  // Any Ed25519 key can sign checkpoints. A real deployment uses a separate one.
  const auditTo = (name: string) => ({
    KAFSCALE_MCP_AUDIT_SINKS: `file:${join(dir, name, 'audit.jsonl')}`,
    KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE: keyFile,
  })
  return {
    audited: { env: auditTo('audited') },
    everything: {
      env: {
        ...auditTo('everything'),
        KAFSCALE_MCP_AUTH_MODE: 'jwks',
        KAFSCALE_MCP_AUTH_JWKS_FILE: jwksFile,
        KAFSCALE_MCP_AUTH_JWKS_ISSUER: ISSUER,
        KAFSCALE_MCP_RATE_LIMIT: '0',
        KAFSCALE_MCP_PUBLIC_URL: BASE_URL,
        KAFSCALE_MCP_POLICY_FILE: policyFile,
      },
      headers: { authorization: `Bearer ${bearer}` },
    },
  }
}

/** @throws unless the policy hides exactly the topics that it should, which proves that filtering is measured */
export async function verifyRestricted (server: McpServer): Promise<void> {
  const { content: { topics } } = await call(server.request('list_topics', { limit: TOPICS }))
  const seen = (topics as unknown[]).length
  if (seen !== TOPICS - RULES) {
    throw new Error(`${server.url}: the policy shows ${seen} topics instead of ${TOPICS - RULES}`)
  }
}

/**
 * A role with 50 rules. The last allow rule covers the benchmark's names; each deny rule hides one topic and one group.
 */
function policy () {
  const numbers = Array.from({ length: RULES }, (_, number) => String(number).padStart(2, '0'))
  const teams = numbers.slice(1).map(number => ({
    operations: ['observe'],
    topics: [`team-${number}-*`],
    groups: [`team-${number}-*`],
  }))
  return {
    roles: {
      operator: {
        allow: [...teams, { operations: ['observe'], topics: ['topic-*'], groups: ['group-*'] }],
        deny: numbers.map(number => ({ topics: [`topic-?4${number}`], groups: [`group-?9${number}`] })),
      },
    },
    bindings: [{ role: 'operator', claim: 'sub', value: SUBJECT, issuer: ISSUER }],
  }
}

function token (command: string, options: Record<string, string>): string {
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const launcher = join(ROOT, 'bin/kafscale-mcp.js')
  return execFileSync(process.execPath, [launcher, 'token', command, ...args], { encoding: 'utf8' }).trim()
}
