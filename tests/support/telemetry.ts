/** An app whose every metric has a value, and its metrics page. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { authority } from './authorization.ts'
import { startEtcd } from './etcd.ts'
import { exists } from './programs.ts'
import { buildSyncedApp, CALLER, modern } from './service.ts'

/** A caller without a role. */
export const NOBODY = {
  ...CALLER,
  principal: {
    ...CALLER.principal,
    subject: 'nobody-in-particular',
    method: 'oidc' as const,
    issuer: 'https://id.example',
  },
}

/** A caller whose token has a scope claim without the required scope. */
const WITHOUT_SCOPE = { ...CALLER, principal: { ...NOBODY.principal, scopes: new Set<string>() } }

/** Builds an app with changes, and makes calls with every outcome, failed authentications, a scrape and records. */
export async function experienced (t: Test): Promise<FastifyInstance> {
  const broker = createServer((_, response) => response.end('no metrics\n')).listen(0, '127.0.0.1')
  await once(broker, 'listening')
  t.teardown(() => broker.close())
  const { env, token, policyFile } = await authority(t)
  const app = await buildSyncedApp(t, await startEtcd(t), {
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile({
      bindings: [{ role: 'observer', claim: 'sub', value: 'watcher' }],
      changes: [{ mode: 'direct' }],
    }),
    KAFSCALE_MCP_ENVIRONMENT: 'dev',
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: 'cluster-1',
    KAFSCALE_MCP_KAFKA_BROKERS: '127.0.0.1:1', // nothing connects to it
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:${(broker.address() as AddressInfo).port}/metrics`,
    KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0',
  })
  const authorized = { authorization: `Bearer ${await token('watcher')}` }
  const call = async (tool: string, headers: Record<string, string> = authorized) => {
    const request = modern('tools/call', { name: tool, arguments: {} })
    return await app.inject({ ...request, headers: { ...request.headers, ...headers } })
  }
  await call('list_topics')
  await call('describe_group')
  await call('cluster_metrics')
  await call('no_such_tool')
  await call('list_topics', {})
  await call('list_topics', { authorization: 'Bearer no-token-of-ours' })
  await app.tools.call('list_topics', {}, NOBODY, new AbortController().signal)
  await app.tools.refuse({ name: 'list_topics', input: {}, code: 'INSUFFICIENT_SCOPE' }, WITHOUT_SCOPE)
  return app
}

/** The samples of a page: the value by name and labels. */
export function samples (page: string): Map<string, number> {
  const lines = page.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))])
  )
}

/** Options of a test that needs promtool: it is skipped where there is none. */
export const needsPromtool = () =>
  ({ skip: exists('promtool') ? false : 'there is no promtool: npm run test:setup -- --all' })

/** Runs promtool. @throws with its output unless it exits with 0 */
export function promtool (args: string[], input = ''): void {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { input, encoding: 'utf8' })
  if (status !== 0) throw new Error(`promtool ${args.join(' ')}: ${error?.message ?? `${stdout}${stderr}`}`)
}
