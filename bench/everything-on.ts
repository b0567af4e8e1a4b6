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
/** Of each kind: allow and deny. */
const RULES = 25

/** How a service is told what to do besides answering, and the header with which it is then called. */
export interface Variant { env?: Record<string, string>, headers?: Record<string, string> }

/** Neither authentication nor audit, nor a page of metrics: several services run at once. */
export const NOTHING_ON = {
  KAFSCALE_MCP_AUTH_MODE: 'none',
  KAFSCALE_MCP_AUDIT_SINKS: 'none',
  KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
}

/** An open loop is not to be cut where the machine halts for some ms: calls at once are counted, and none is refused. */
export const UNBOUNDED = { KAFSCALE_MCP_MAX_CONCURRENT_CALLS: '100000' }

/**
 * Audit to a file, with signed checkpoints; and with it tokens and a policy of 50 rules. Keys, policy and logs are in a
 * folder that the end of the benchmark removes.
 */
export function everythingOn (t: Teardown): Record<'audited' | 'everything', Variant> {
  const dir = mkdtempSync(join(tmpdir(), 'kafscale-mcp-bench-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const [keyFile, jwksFile, policyFile] = ['key.pem', 'jwks.json', 'policy.json'].map(name => join(dir, name)) as [
    string,
    string,
    string
  ]
  token('keygen', '--key', keyFile, '--jwks', jwksFile)
  const bearer = token(
    'issue',
    '--key',
    keyFile,
    '--issuer',
    ISSUER,
    '--audience',
    `${BASE_URL}/mcp`,
    '--subject',
    SUBJECT,
    '--scope',
    'kafscale:observe',
    '--ttl',
    '1h'
  )
  writeFileSync(policyFile, JSON.stringify(policy()))
  // Any Ed25519 key signs checkpoints; in earnest it is another.
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
        KAFSCALE_MCP_PUBLIC_URL: BASE_URL,
        KAFSCALE_MCP_POLICY_FILE: policyFile,
      },
      headers: { authorization: `Bearer ${bearer}` },
    },
  }
}

/** @throws unless the policy hides what it is to hide and nothing else, so that filtering is what is measured */
export async function verifyRestricted (server: McpServer): Promise<void> {
  const { content: { topics } } = await call(server.request('list_topics', { limit: TOPICS }))
  const seen = (topics as unknown[]).length
  if (seen !== TOPICS - RULES) {
    throw new Error(`${server.url}: the policy lets ${seen} topics be seen instead of ${TOPICS - RULES}`)
  }
}

/** One role of 50 rules, of which the last one allows the benchmark's own names, and each denial hides a topic and a group. */
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

function token (...args: string[]): string {
  return execFileSync(process.execPath, [join(ROOT, 'bin/kafscale-mcp.js'), 'token', ...args], { encoding: 'utf8' })
    .trim()
}
