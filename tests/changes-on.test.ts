/** With `KAFSCALE_MCP_CHANGES=enabled` and what it requires, the service starts and takes a proposal. */
import { Range } from 'etcd3'
import t from 'tap'
import { TOOLS_OF_CHANGES } from '../plugins/changes/change.ts'
import { authority } from './support/authorization.ts'
import { startBroker } from './support/brokers/broker.ts'
import { startControl } from './support/brokers/control.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { fill, modern, startService } from './support/service.ts'
import { snapshot } from './support/stored.ts'
import { waitFor } from './support/wait-for.ts'

const CLUSTER_ID = '0d5b0f2e-6f3b-4a5c-9f43-1f1c1f7f3c11'
const LEDGER = '/kafscale-mcp/changes/'

const POLICY = {
  roles: { operator: { allow: [{ operations: ['observe', 'propose', 'apply'] }] } },
  bindings: [{ role: 'operator', claim: 'sub', value: 'alice' }],
  changes: [{ environments: ['staging'], mode: 'direct' }],
}

t.test('a service with everything that changes require', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  const { key, value } = snapshot({ orders: [0, 1] }, [0])
  await fill(etcd, [{ key, value: JSON.stringify({ ...JSON.parse(String(value)), ClusterID: CLUSTER_ID }) }])
  const role = await etcd.client.role('ledger').create()
  await role.grant({ permission: 'Readwrite', range: Range.prefix(LEDGER) })
  await (await etcd.client.user('ledger').create('ledger')).addRole(role)
  const { env, policyFile, token, recorded } = await authority(t)
  const broker = await startBroker(t, etcd, { checked: { exempt: 'nothing is applied here' } })
  const control = await startControl(t)

  const service = startService(t, {
    ...etcd.env,
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile(POLICY),
    KAFSCALE_MCP_ENVIRONMENT: 'staging',
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: CLUSTER_ID,
    KAFSCALE_MCP_KAFKA_BROKERS: broker.address,
    KAFSCALE_MCP_BROKER_CONTROL_ADDR: control.address,
    KAFSCALE_MCP_CHANGES_ETCD_USERNAME: 'ledger',
    KAFSCALE_MCP_CHANGES_ETCD_PASSWORD: 'ledger',
  })
  const url = await service.url
  await waitFor(async () => (await fetch(new URL('/readyz', url))).status === 200, 10_000, 'ready')
  const authorization = `Bearer ${await token('alice', { scope: 'kafscale:observe kafscale:mutate' })}`
  const call = async (method: string, params: Record<string, unknown> = {}) => {
    const { headers, payload } = modern(method, params)
    const body = JSON.stringify(payload)
    const response = await fetch(url, { method: 'POST', headers: { ...headers, authorization }, body })
    return (await response.json() as { result: Record<string, unknown> }).result
  }
  const listed = (await call('tools/list'))['tools'] as { name: string }[]
  const names = new Set(listed.map(({ name }) => name))
  t.strictSame(TOOLS_OF_CHANGES.filter(name => name !== 'broker_status' && !names.has(name)), [])

  const input = { topic: 'payments', partitions: 3, replication_factor: 1 }
  const result = await call('tools/call', { name: 'create_topic', arguments: input })
  t.match(result, {
    structuredContent: { state: 'planned', tool: 'create_topic', environment: 'staging', cluster_id: CLUSTER_ID },
  })
  const written = await etcd.client.getAll().prefix('/kafscale-mcp/').keys()
  t.ok(written.some(key => key.startsWith(`${LEDGER}by-id/`)))
  t.strictSame(written.filter(key => !key.startsWith(LEDGER)), [])
  t.strictSame(broker.mutations, [], 'a proposal changes nothing')
  t.equal(recorded('plan').length, 1)
})
