/** A policy that requires approvals in this environment needs approvers who can sign in. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { buildApp } from '../../../app.ts'
import { ConfigError } from '../../../errors.ts'
import { buildTestApp } from '../../support/service.ts'

const BINDINGS = 'bindings: [{ role: observer, claim: sub, value: alice }]'
const APPROVED = `${BINDINGS}\nchanges: [{ environments: [staging], tools: [create_topic], mode: approval },
  { environments: [staging], mode: direct }]`

/** The settings of changes, with a policy. */
function settings (t: Test, policy: string, more: Record<string, string | undefined> = {}): Record<string, string> {
  const dir = t.testdir({ policy, jwks: '{"keys":[]}' })
  return Object.fromEntries(Object.entries({
    HTTP_ADDR: '127.0.0.1:0',
    TELEMETRY_ADDR: 'off',
    LOG_LEVEL: 'silent',
    ETCD_ENDPOINTS: 'http://127.0.0.1:1',
    OIDC_ISSUER: 'http://127.0.0.1:1',
    CHANGES: 'enabled',
    EXPECTED_CLUSTER_ID: '0d5b0f2e',
    KAFKA_BROKERS: '127.0.0.1:1',
    ENVIRONMENT: 'staging',
    POLICY_FILE: join(dir, 'policy'),
    AUDIT_SINKS: `file:${join(dir, 'audit.jsonl')}`,
    AUTH_JWKS_FILE: more['AUTH_JWKS_ISSUER'] && join(dir, 'jwks'),
    ...more,
  }).flatMap(([name, value]) => value === undefined ? [] : [[`KAFSCALE_MCP_${name}`, value]]))
}

const APPROVERS = {
  PUBLIC_URL: 'https://mcp.example',
  OIDC_CLIENT_ID: 'mcp',
  OIDC_CLIENT_SECRET: 'x',
  SESSION_KEY: Buffer.alloc(32, 'k').toString('base64'),
}

async function refusal (build: Promise<unknown>): Promise<string[]> {
  try {
    await build
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n')
    throw error
  }
  return []
}

const cause = 'KAFSCALE_MCP_POLICY_FILE requires approvals in the environment "staging"'
const unset = (name: string) => `KAFSCALE_MCP_${name} is not set: expected a value, since ${cause}`

t.test('a policy that requires an approval here needs what approvers need', async t => {
  const all = ['PUBLIC_URL', 'OIDC_CLIENT_ID', 'OIDC_CLIENT_SECRET', 'SESSION_KEY'] as const
  t.strictSame(await refusal(buildTestApp(t, settings(t, APPROVED, APPROVERS))), [])
  t.strictSame(await refusal(buildApp({ env: settings(t, APPROVED) })), all.map(unset))
  t.strictSame(
    await refusal(buildApp({ env: settings(t, BINDINGS) })),
    all.map(unset),
    'without entries, every environment is treated as production'
  )
  const unnamed = 'KAFSCALE_MCP_POLICY_FILE requires approvals in an environment without a name ' +
    '(KAFSCALE_MCP_ENVIRONMENT is not set)'
  const direct = `${BINDINGS}\nchanges: [{ mode: direct }]`
  const closed = `${BINDINGS}\nchanges: closed`
  t.strictSame(
    await refusal(buildApp({ env: settings(t, direct, { ENVIRONMENT: undefined }) })),
    all.map(name => `KAFSCALE_MCP_${name} is not set: expected a value, since ${unnamed}`)
  )
  t.strictSame(await refusal(buildTestApp(t, settings(t, closed, { ENVIRONMENT: undefined }))), [])
  t.strictSame(await refusal(buildTestApp(t, settings(t, direct))), [], 'no approval, no prerequisites')
  t.strictSame(
    await refusal(buildTestApp(t, settings(t, APPROVED, { CHANGES: 'disabled', SESSION_KEY: undefined }))),
    [],
    'the policy may already have the section while changes are disabled'
  )
})

t.test('approvers need https, except on loopback', async t => {
  const at = (PUBLIC_URL: string) => refusal(buildTestApp(t, settings(t, APPROVED, { ...APPROVERS, PUBLIC_URL })))
  t.strictSame(await at('http://mcp.example'), [
    `KAFSCALE_MCP_PUBLIC_URL is "http://mcp.example": expected https, since ${cause}, and browsers keep no session of ` +
      'approvers over plain http',
  ])
  t.strictSame(await at('http://localhost:8080'), [])
})

t.test('approvals need oidc, and what a sign-in needs', async t => {
  for (const name of ['PUBLIC_URL', 'SESSION_KEY'] as const) {
    t.strictSame(
      await refusal(buildTestApp(t, settings(t, APPROVED, { ...APPROVERS, [name]: undefined }))),
      [unset(name)]
    )
  }
  const withoutClient = { ...APPROVERS, OIDC_CLIENT_ID: undefined, OIDC_CLIENT_SECRET: undefined }
  t.strictSame(
    await refusal(buildTestApp(t, settings(t, APPROVED, withoutClient))),
    [unset('OIDC_CLIENT_ID'), unset('OIDC_CLIENT_SECRET')]
  )
  const [mode, ...others] = await refusal(
    buildTestApp(t, settings(t, APPROVED, { ...withoutClient, OIDC_ISSUER: undefined, AUTH_JWKS_ISSUER: 'ops' }))
  )
  t.equal(mode, `The authentication mode is jwks: expected oidc, since ${cause}`)
  t.strictSame(others, [unset('OIDC_CLIENT_ID'), unset('OIDC_CLIENT_SECRET')])
})
