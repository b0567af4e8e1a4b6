/** A change from a proposal to its outcome, over MCP, through a real ledger and a double of a broker. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { authority, clientOf } from '../support/authorization.ts'
import { startBroker } from '../support/brokers/broker.ts'
import { initialSnapshot, SNAPSHOT_KEY } from '../support/brokers/store.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { buildSyncedApp, caughtUp } from '../support/service.ts'

const CLUSTER_ID = 'cluster-1'
const SCOPE = 'kafscale:observe kafscale:propose kafscale:apply'

async function setUp (t: Test) {
  const etcd = await startEtcd(t)
  const { dir, env, token, policyFile, recorded } = await authority(t)
  const log = join(dir, 'audit.jsonl')
  writeFileSync(log, '')
  const broker = await startBroker(t, etcd, { checked: { auditFiles: [log] } })
  const [host = '', port] = broker.address.split(':')
  const snapshot = { ...initialSnapshot(0, host, Number(port)), ClusterID: CLUSTER_ID, Topics: null }
  await etcd.client.put(SNAPSHOT_KEY).value(JSON.stringify(snapshot))
  const app = await buildSyncedApp(t, etcd, {
    ...env,
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_ENVIRONMENT: 'dev',
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: CLUSTER_ID,
    KAFSCALE_MCP_KAFKA_BROKERS: broker.address,
    KAFSCALE_MCP_POLICY_FILE: policyFile({
      roles: {
        operator: {
          allow: [{ operations: ['observe', 'propose', 'apply'] }],
        },
      },
      bindings: [{ role: 'operator', claim: 'sub', value: 'alice' }],
      changes: [{ environments: ['dev'], mode: 'direct' }],
    }),
  })
  const alice = clientOf(app, await token('alice', { scope: SCOPE }))
  /** Proposes a change and applies it. */
  const change = async (tool: string, input: Record<string, unknown>) => {
    const { change_id: id } = await alice.ask(tool, input)
    const applied = await alice.ask('apply_change', { change_id: id })
    await caughtUp(app, etcd)
    return applied
  }
  return { app, etcd, broker, alice, change, recorded }
}

t.test('a change over MCP', needsEtcd(), async t => {
  const { app, alice, broker, change, recorded } = await setUp(t)
  const mutations = () => broker.log.filter(({ mutation }) => mutation).length

  t.test('is proposed without a trace, and applied once', async t => {
    const planned = await alice.ask('create_topic', { topic: 'orders', partitions: 3 })
    t.match(planned, { state: 'planned', arguments: { topic: 'orders', partitions: 3, replication_factor: 1 } })
    t.equal(mutations(), 0)
    const applied = await alice.ask('apply_change', { change_id: planned['change_id'] })
    t.match(applied, { state: 'applied', outcome: { observed_diff: [{ field: 'exists' }, {}, {}] } })
    t.strictSame(await alice.ask('apply_change', { change_id: planned['change_id'] }), applied)
    t.equal(mutations(), 1)
    t.strictSame(await alice.ask('get_change', { change_id: planned['change_id'] }), applied)
    t.match(await alice.ask('list_changes', { topic: 'orders' }), { total: 1 })
  })

  t.test('of every kind takes effect, and its undo is accepted where it has one', async t => {
    t.match(await change('create_partitions', { topic: 'orders', partitions: 4 }), { state: 'applied', undo: null })
    const config = { 'retention.ms': '60000', 'retention.bytes': '9223372036854775807' }
    const { state, undo } = await change('update_topic_config', { topic: 'orders', config })
    t.equal(state, 'applied')
    t.match(await alice.ask('describe_configs', { topics: ['orders'] }), {
      configs: [{ retention_ms: 60_000, retention_bytes: '9223372036854775807' }]
    })
    const { tool, arguments: input } = undo as { tool: string, arguments: Record<string, unknown> }
    t.match(await change(tool, input), { state: 'applied' })
    t.match(await change('delete_topic', { topic: 'orders' }), { state: 'applied' })
    t.match(await alice.ask('list_topics'), { total: 0 })
  })

  t.test('is refused where the cluster does not allow it', async t => {
    const { _meta: meta, content } = await alice.call('delete_topic', { topic: 'nope' })
    t.match(meta, { 'kafscale-mcp/error': { code: 'CHANGE_IMPOSSIBLE' } })
    t.match(content[0]?.text, 'call list_topics for those that do')
  })

  t.test('of a broker is refused without its control plane, and the audit log names the broker', async t => {
    const { content } = await alice.call('flush_broker', { node_id: 0 })
    t.match(content[0]?.text, /^CHANGE_IMPOSSIBLE: .* must set KAFSCALE_MCP_BROKER_CONTROL_ADDR/)
    t.match(recorded('tool_call').at(-1)?.what, { tool: 'flush_broker', resources: { brokers: ['0'] } })
  })

  t.test('is proposed and listed with the tools that exist', async t => {
    const names = (await alice.tools()).map(({ name }) => name)
    t.ok(['create_topic', 'apply_change', 'list_changes', 'list_topics'].every(name => names.includes(name)))
    t.equal(app.tools.operation('apply_change'), 'apply')
  })
})
