/** What `npm run demo -- --changes` adds: brokers that change the cluster, and an OpenID provider with its people. */
import { randomBytes } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { serveBrokers } from './brokers.ts'
import { CLUSTER_ID, type SimulatedCluster } from './cluster.ts'
import { serveIdentityProvider, TOKEN_LIFETIME_S } from './identity-provider.ts'
import { serveWebhook } from './webhook.ts'

const AGENT = 'demo-agent'
/** Their passwords are printed, and the service listens on a loopback address only. */
const PEOPLE = { approver: 'demo-approver', auditor: 'demo-auditor' }
const SCOPE = 'kafscale:observe kafscale:propose kafscale:apply'

const POLICY = `\
# The policy of this demo. The service reads it again when it changes: try "changes: closed".
roles:
  agent:    { allow: [{ operations: [observe, propose, apply] }] }
  approver: { allow: [{ operations: [observe, approve] }] }
bindings:
  - { role: agent, claim: sub, value: ${AGENT} }
  - { role: approver, claim: sub, value: approver }
  - { role: observer, claim: sub, value: auditor }
  - { role: auditor, claim: sub, value: auditor }
changes:
  - { environments: [dev], tools: [delete_topic], mode: approval }
  - { environments: [dev], mode: direct }
protected: { topics: [audit-log] }
`

export interface ChangesDemo {
  /** The settings that enable changes. */
  env: Record<string, string>
  /** The agent's. */
  token: string
}

/**
 * Starts what changes need. It runs until the process ends.
 * @param publicUrl where the service will be
 * @param policyFile is removed when the process ends
 */
export async function prepareChanges (
  cluster: SimulatedCluster,
  publicUrl: string,
  policyFile: string
): Promise<ChangesDemo> {
  writeFileSync(policyFile, POLICY)
  process.once('exit', () => rmSync(policyFile, { force: true }))
  const agent = { id: AGENT, secret: newSecret() }
  const service = { id: 'kafscale-mcp', secret: newSecret(), redirectUri: `${publicUrl}/sign-in/callback` }
  const [brokers, webhook, provider] = await Promise.all([
    serveBrokers(cluster),
    serveWebhook(),
    serveIdentityProvider({ agent, service, people: PEOPLE, audience: `${publicUrl}/mcp`, scope: SCOPE }),
  ])
  return {
    token: await provider.token(agent),
    env: {
      KAFSCALE_MCP_CHANGES: 'enabled',
      KAFSCALE_MCP_ENVIRONMENT: 'dev',
      KAFSCALE_MCP_EXPECTED_CLUSTER_ID: CLUSTER_ID,
      KAFSCALE_MCP_KAFKA_BROKERS: brokers.join(),
      KAFSCALE_MCP_OIDC_CLIENT_ID: service.id,
      KAFSCALE_MCP_OIDC_CLIENT_SECRET: service.secret,
      KAFSCALE_MCP_OIDC_ISSUER: provider.issuer,
      KAFSCALE_MCP_OIDC_MAX_TOKEN_LIFETIME: `${TOKEN_LIFETIME_S}s`,
      KAFSCALE_MCP_POLICY_FILE: policyFile,
      KAFSCALE_MCP_PUBLIC_URL: publicUrl,
      KAFSCALE_MCP_SESSION_KEY: randomBytes(32).toString('base64'),
      KAFSCALE_MCP_WEBHOOK_SECRET: newSecret(),
      KAFSCALE_MCP_WEBHOOK_URL: webhook,
    },
  }
}

function newSecret (): string {
  return randomBytes(32).toString('base64url')
}

/** Prints an answer from standard input: one member a line, or the text of an error. */
const ANSWER = "answer() { node -e 'const all = JSON.parse(fs.readFileSync(0)), { result = {} } = all; " +
  'if (!result.structuredContent) console.log(result.content?.[0].text ?? all); ' +
  'for (const [name, value] of Object.entries(result.structuredContent ?? {})) ' +
  'console.log(name + ":", JSON.stringify(value))\'; }'

interface Printed {
  /** The endpoint of MCP. */
  url: string
  publicUrl: string
  token: string
  auditFile: string
  policyFile: string
}

/** What a reader does next: each command line can be pasted into a POSIX shell. */
export function instructions ({ url, publicUrl, token, auditFile, policyFile }: Printed): string {
  const call = (name: string, input: string) =>
    `curl -sS ${url} -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' ` +
    "-H 'accept: application/json, text/event-stream' " +
    `-d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"${name}","arguments":${input}}}' | answer`
  const propose = (name: string, input: string) =>
    `PLAN=$(${call(name, input)}); printf '%s\\n' "$PLAN"; ` +
    'CHANGE=$(printf %s "$PLAN" | grep -o "chg-[0-9a-f]*" | head -n 1)'
  const apply = call('apply_change', '{"change_id":"\'$CHANGE\'"}')
  return `
The demo cluster is up, and kafscale-mcp changes it through its brokers. The service is at

  ${url}

Open a second terminal in this folder, and paste one command after the other.

1. The token of an agent, which expires after 12 hours, and a function that prints answers in a readable form:

TOKEN=${token}
${ANSWER}

2. The agent proposes a topic. This changes nothing: the answer is the plan.

${propose('create_topic', '{"topic":"orders-eu","partitions":3}')}

3. The agent applies the plan, by its change_id. The policy lets it do so directly. The answer has the outcome.

${apply}

4. The record of the change, from the plan to the outcome:

npx kafscale-mcp audit show --change $CHANGE ${auditFile}

${approvals(propose('delete_topic', '{"topic":"dead-letters"}'), apply, publicUrl)}
  approver   ${PEOPLE.approver}
  auditor    ${PEOPLE.auditor}

This terminal shows what approvers are told, such as that a change was undone: propose to delete the group "shipping",
apply that, and wait until its members have joined again.

The policy is in ${policyFile}. The service reads it again when you change it; replace the section "changes" by
"changes: closed" to stop everything. The audit log is in ${auditFile}. The next start replaces both.

Claude Code, as the agent:

claude mcp add --transport http kafscale ${url} --header "Authorization: Bearer $TOKEN"

Press Ctrl-C to stop.
`
}

function approvals (propose: string, apply: string, publicUrl: string): string {
  return `5. Deleting a topic needs an approval. The agent proposes it, and asks for the approval by applying it:

${propose}
${apply}

The answer has the link of a page, about which approvers are also told in this terminal. Open it, sign in as the
approver, and approve the change. Then apply it again:

${apply}

All changes are on ${publicUrl}/changes. The names and passwords for the pages:
`
}
