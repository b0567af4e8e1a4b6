/** `docs/tools.md` matches the definitions of the tools, and these match the behavior. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { TOOLS_OF_CHANGES } from '../../plugins/changes/change.ts'
import { allTools, toolsPage } from '../../scripts/docs-tools.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { ROOT } from '../support/paths.ts'
import { buildSyncedApp, buildTestApp, CALLER, callTool, fill, recordedKeyspace } from '../support/service.ts'

const tools = await allTools()

t.test('docs/tools.md is up to date with the definitions', async t => {
  const app = await buildTestApp(t)
  t.strictSame(
    tools.map(({ name }) => name).filter(name => !TOOLS_OF_CHANGES.includes(name)),
    app.tools.list(CALLER.principal).map(({ name }) => name)
  )
  const examples = JSON.parse(readFileSync(join(ROOT, 'docs/tool-examples.json'), 'utf8'))
  t.equal(readFileSync(join(ROOT, 'docs/tools.md'), 'utf8'), toolsPage(tools, examples), 'run npm run docs:tools')
})

t.test('each tool fails with the errors that its definition lists, and no others', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const unsynced = await buildTestApp(t, { KAFSCALE_MCP_BROKER_METRICS_URL: 'auto' })
  const synced = await buildSyncedApp(t, etcd)
  const withDeadBroker = await buildSyncedApp(t, etcd, {
    KAFSCALE_MCP_BROKER_METRICS_URL: 'http://127.0.0.1:1/metrics',
  })
  const attempts: [FastifyInstance, Record<string, unknown>][] = [
    [unsynced, { group_id: 'none' }],
    [synced, { group_id: 'none' }],
    [synced, { group_id: 'analytics', cursor: 'none' }],
    [withDeadBroker, {}],
  ]
  await unsynced.ready()
  for (const { name, input, errors = [] } of tools.filter(({ name }) => !TOOLS_OF_CHANGES.includes(name))) {
    const seen = new Set<unknown>()
    for (const [app, given] of attempts) {
      const known = Object.entries(given).filter(([property]) => Object.hasOwn(input.properties, property))
      const { _meta: meta } = await callTool(app, name, Object.fromEntries(known))
      const code = (meta?.['kafscale-mcp/error'] as { code?: string } | undefined)?.code
      if (code !== undefined && code !== 'INVALID_ARGUMENT') seen.add(code)
    }
    t.strictSame([...seen].sort(), [...errors].sort(), name)
  }
})
