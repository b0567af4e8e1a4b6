/** A service that has been through everything that its metrics can tell of, and the page of them. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { startEtcd } from './etcd.ts'
import { buildSyncedApp, CALLER, modern } from './service.ts'

const TOKEN = 'a secret of no less than 32 characters'.replaceAll(' ', '-')
const AUTHORIZED = { authorization: `Bearer ${TOKEN}` }

/** Somebody whom no role is given. */
export const NOBODY = {
  ...CALLER,
  principal: {
    ...CALLER.principal,
    subject: 'nobody-in-particular',
    method: 'oidc' as const,
    issuer: 'https://id.example',
  },
}

/** Somebody whose token has a scope claim, without the scope. */
const WITHOUT_SCOPE = { ...CALLER, principal: { ...NOBODY.principal, scopes: new Set<string>() } }

/** Calls of every outcome, failed sign-ins, a scrape, records. */
export async function experienced (t: Test): Promise<FastifyInstance> {
  const broker = createServer((_, response) => response.end('no metrics\n')).listen(0, '127.0.0.1')
  await once(broker, 'listening')
  t.teardown(() => broker.close())
  const app = await buildSyncedApp(t, await startEtcd(t), {
    KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
    KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdir()}/audit.jsonl`,
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:${(broker.address() as AddressInfo).port}/metrics`,
    KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0',
  })
  const call = async (tool: string, headers: Record<string, string> = AUTHORIZED) => {
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

/** The samples of a page: what stands before each value, and the value. */
export function samples (page: string): Map<string, number> {
  const lines = page.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))])
  )
}

/** Whether there is a promtool; where `CI` is set there must be. */
export const promtoolMissing = process.env['CI'] || spawnSync('promtool', ['--version']).error === undefined
  ? false
  : 'there is no promtool: apt-get install prometheus'

/** Runs promtool, which must exit with 0; what it says otherwise is in the error. */
export function promtool (args: string[], input = ''): void {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { input, encoding: 'utf8' })
  if (status !== 0) throw new Error(`promtool ${args.join(' ')}: ${error?.message ?? `${stdout}${stderr}`}`)
}
