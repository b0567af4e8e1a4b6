/** A service whose policy requires approvals, with brokers, an agent, and an OpenID provider where people sign in. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { LogRecord } from '../../plugins/audit/record.ts'
import type { Environment } from '../../plugins/config/read.ts'
import type { ToolResult } from '../../tools/tool.ts'
import { recordsOf } from './audit.ts'
import { type BrokerDouble, startBroker } from './brokers/broker.ts'
import { normalize, SNAPSHOT_KEY } from './brokers/store.ts'
import { CLUSTER_ID } from './change-broker.ts'
import { type Etcd, freePort, startEtcd } from './etcd.ts'
import { type IdentityProvider, type People, SERVICE, startProvider } from './oidc-provider.ts'
import { type Teardown, temporaryFolder } from './run.ts'
import { buildSyncedApp, caughtUp, modern } from './service.ts'

export const KEYS = [Buffer.alloc(32, 'k'), Buffer.alloc(32, 'o')].map(key => key.toString('base64'))

export const APPROVAL_POLICY = {
  roles: {
    operator: { allow: [{ operations: ['observe', 'propose', 'apply', 'break-glass'] }] },
    approver: { allow: [{ operations: ['observe', 'approve'] }] },
    reader: { allow: [{ operations: ['observe'] }] },
  },
  bindings: [
    ...['operator', 'approver', 'reader', 'auditor'].map(role => ({ role, claim: 'groups', value: `${role}s` })),
  ],
  changes: [{ environments: ['staging'], mode: 'approval', approvals: 1 }],
}

/** Who is in which groups. Alice asks for changes, and may approve those of others. */
export const GROUPS: Record<string, readonly string[]> = {
  alice: ['operators', 'approvers', 'unrelated'],
  bob: ['approvers', 'unrelated'],
  carol: ['approvers'],
  dave: ['readers'],
  erin: ['auditors', 'readers'],
}

export interface Approvals {
  /** `PUBLIC_URL`. */
  url: string
  app: FastifyInstance
  etcd: Etcd
  broker: BrokerDouble
  provider: IdentityProvider
  people: People
  token: (who: string) => Promise<string>
  /** Sends the parameters of a call with a token of somebody. */
  send: (who: string, params: Record<string, unknown>) => Promise<{ result?: ToolResult }>
  /** Calls a tool with a token of somebody. */
  call: (who: string, tool: string, input?: Record<string, unknown>) => Promise<ToolResult>
  /** Proposes a change of a topic and asks for the approval. Resolves to the id of the change. */
  request: (topic: string, options?: { who?: string, tool?: 'create_topic' | 'delete_topic' }) => Promise<string>
  /** Starts another replica, in the middle of a rotation of the session key. Resolves to its address. */
  replica: () => Promise<string>
  records: (id: string) => LogRecord[]
  policy: string
}

export async function startApprovals (
  t: Teardown,
  { policy = APPROVAL_POLICY, env: more = {}, isPairwise = false }: {
    policy?: object, env?: Environment, isPairwise?: boolean
  } = {}
): Promise<Approvals> {
  const etcd = await startEtcd(t)
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const people: People = { redirectUri: `${url}/sign-in/callback`, groups: GROUPS, isPairwise }
  const provider = await startProvider(t, 0, people)
  const dir = temporaryFolder(t)
  const file = join(dir, 'audit.jsonl')
  const files = [file]
  const broker = await startBroker(t, etcd, { checked: { auditFiles: files } })
  const [Host = '', brokerPort] = broker.address.split(':')
  await etcd.client.put(SNAPSHOT_KEY).value(JSON.stringify(normalize({
    Brokers: [{ NodeID: broker.nodeId, Host, Port: Number(brokerPort) }],
    Topics: [],
    ClusterID: CLUSTER_ID,
  })))
  const policyFile = join(dir, 'policy.yaml')
  writeFileSync(policyFile, JSON.stringify(policy))
  const env = {
    KAFSCALE_MCP_HTTP_ADDR: `127.0.0.1:${port}`,
    KAFSCALE_MCP_PUBLIC_URL: url,
    KAFSCALE_MCP_OIDC_ISSUER: provider.issuer,
    KAFSCALE_MCP_OIDC_CLIENT_ID: SERVICE.id,
    KAFSCALE_MCP_OIDC_CLIENT_SECRET: SERVICE.secret,
    KAFSCALE_MCP_SESSION_KEY: KEYS.join(','),
    KAFSCALE_MCP_AUDIT_SINKS: `file:${file}`,
    KAFSCALE_MCP_POLICY_FILE: policyFile,
    KAFSCALE_MCP_ENVIRONMENT: 'staging',
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_KAFKA_BROKERS: broker.address,
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: CLUSTER_ID,
    ...more,
  }
  const app = await buildSyncedApp(t, etcd, env)
  await app.listen({ host: '127.0.0.1', port })

  const send = async (who: string, params: Record<string, unknown>) => {
    const { headers, payload } = modern('tools/call', params)
    const response = await fetch(`${url}/mcp`, {
      method: 'POST',
      headers: { ...headers, authorization: `Bearer ${await tokenOf(who)}` },
      body: JSON.stringify(payload),
    })
    return await response.json() as { result?: ToolResult }
  }
  const call = async (who: string, tool: string, input: Record<string, unknown> = {}) => {
    const body = await send(who, { name: tool, arguments: input })
    if (!body.result) throw new Error(JSON.stringify(body))
    return body.result
  }
  const tokenOf = async (sub: string) => {
    const now = Math.floor(Date.now() / 1_000)
    return await provider.sign({
      sub,
      iss: provider.issuer,
      aud: `${url}/mcp`,
      iat: now,
      exp: now + 600,
      client_id: 'agent',
      groups: [...GROUPS[sub] ?? []],
    })
  }
  return {
    url,
    app,
    etcd,
    broker,
    provider,
    people,
    token: tokenOf,
    send,
    call,
    async request (topic, { who = 'alice', tool = 'create_topic' } = {}) {
      await caughtUp(app, etcd)
      const input = { topic, ...tool === 'create_topic' && { partitions: 3 } }
      const { structuredContent, content } = await call(who, tool, input)
      if (!structuredContent) throw new Error(content[0]?.text)
      const id = structuredContent['change_id'] as string
      await call(who, 'apply_change', { change_id: id })
      return id
    },
    async replica () {
      const other = join(temporaryFolder(t), 'audit.jsonl')
      files.push(other)
      const replica = await buildSyncedApp(t, etcd, {
        ...env,
        KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
        KAFSCALE_MCP_AUDIT_SINKS: `file:${other}`,
        KAFSCALE_MCP_SESSION_KEY: KEYS.toReversed().join(','),
      })
      return await replica.listen({ host: '127.0.0.1', port: 0 })
    },
    records: id => recordsOf(file).filter(({ change_id: changeId }) => changeId === id),
    policy: policyFile,
  }
}
