/** Whole services, over the wire. The brokers check that a service had the right to send a change. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { ToolResult } from '../../../tools/tool.ts'
import { authority } from '../../support/authorization.ts'
import { type BrokerDouble, startBroker } from '../../support/brokers/broker.ts'
import { normalize, SNAPSHOT_KEY } from '../../support/brokers/store.ts'
import { CLUSTER_ID } from '../../support/change-broker.ts'
import { type Etcd, needsEtcd, startEtcd } from '../../support/etcd.ts'
import { ROOT } from '../../support/paths.ts'
import { caller, NO_PROGRESS } from '../../support/replica.ts'
import { buildSyncedApp, caughtUp, modern, type Service, startService } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const ALICE = caller('alice', { method: 'jwks', issuer: 'https://issuer.example', claims: { sub: 'alice' } })
const POLICY = {
  roles: { operator: { allow: [{ operations: ['observe', 'propose', 'apply'] }] } },
  bindings: [{ role: 'operator', claim: 'sub', value: 'alice' }],
  changes: [{ environments: ['dev'], mode: 'direct' }],
}
const BOUND_MS = 8_000
const SCOPES = 'kafscale:observe kafscale:propose kafscale:apply'
const CLI = join(ROOT, 'bin/kafscale-mcp.js')

/** Writes the snapshot of a cluster without topics, as the operator does. */
async function storeCluster ({ client }: Etcd, brokers: readonly BrokerDouble[]): Promise<void> {
  await client.put(SNAPSHOT_KEY).value(JSON.stringify(normalize({
    Brokers: brokers.map(({ nodeId: NodeID, address }) => {
      const [Host = '', port] = address.split(':')
      return { NodeID, Host, Port: Number(port) }
    }),
    Topics: [],
    ClusterID: CLUSTER_ID,
  })))
}

const settingsFor = (brokers: readonly BrokerDouble[]) => ({
  KAFSCALE_MCP_ENVIRONMENT: 'dev',
  KAFSCALE_MCP_CHANGES: 'enabled',
  KAFSCALE_MCP_KAFKA_BROKERS: brokers.map(({ address }) => address).join(','),
  KAFSCALE_MCP_EXPECTED_CLUSTER_ID: CLUSTER_ID,
})

/** Calls the tools of a service over HTTP. */
function httpClient (url: string, token: string) {
  const call = async (tool: string, input: Record<string, unknown> = {}): Promise<ToolResult> => {
    const { method, headers, payload } = modern('tools/call', { name: tool, arguments: input })
    const response = await fetch(url, {
      method, headers: { ...headers, authorization: `Bearer ${token}` }, body: JSON.stringify(payload),
    })
    const body = await response.text()
    const { result } = JSON.parse(body) as { result?: ToolResult }
    if (!result) throw new Error(`HTTP ${response.status}: ${body}`)
    return result
  }
  const ask = async (tool: string, input: Record<string, unknown>): Promise<Record<string, unknown>> => {
    const { isError, content, structuredContent } = await call(tool, input)
    if (isError || !structuredContent) throw new Error(content[0]?.text)
    return structuredContent
  }
  return { call, ask }
}
type Client = ReturnType<typeof httpClient>

/** Starts brokers, which log to `files` what they check against, and replicas of the service. */
async function start (t: Test, etcd: Etcd, { brokers: brokerCount = 1, replicas = 1 } = {}) {
  const files: string[] = []
  const brokers: BrokerDouble[] = []
  for (let nodeId = 0; nodeId < brokerCount; nodeId++) {
    brokers.push(await startBroker(t, etcd, { nodeId, checked: { auditFiles: files } }))
  }
  await storeCluster(etcd, brokers)
  const apps = []
  for (let replica = 0; replica < replicas; replica++) {
    const { dir, env, policyFile } = await authority(t)
    files.push(`${dir}/audit.jsonl`)
    apps.push(await buildSyncedApp(t, etcd, {
      ...env,
      ...settingsFor(brokers),
      KAFSCALE_MCP_POLICY_FILE: policyFile(POLICY),
    }))
  }
  return { brokers, apps }
}

const propose = async ({ changes }: Awaited<ReturnType<typeof buildSyncedApp>>, topic: string) =>
  (await changes.propose(ALICE, 'create_topic', { topic, partitions: 3 }, new AbortController().signal)).change

t.test('a change goes through one broker, once, and the mirror proves it', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers, apps: [app] } = await start(t, etcd, { brokers: 2 })
  for (const topic of ['orders', 'payments']) {
    const { change_id: id } = await propose(app!, topic)
    t.match(await app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), {
      change: { state: 'applied', execution: { broker: brokers[0]!.address } },
    })
    await caughtUp(app!, etcd)
    t.equal(app!.metadata.mirror?.topic(topic)?.info?.partitions.length, 3)
  }
  t.strictSame(brokers.map(({ mutations }) => mutations.length), [2, 0], 'always the same one while it answers')
  await brokers[0]!.close()
  const { change_id: id } = await propose(app!, 'refunds')
  t.match(await app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), {
    change: { state: 'applied', execution: { broker: brokers[1]!.address } },
  })
})

t.test('two services that apply the same change at once send it once', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers: [broker], apps } = await start(t, etcd, { replicas: 2 })
  const { change_id: id } = await propose(apps[0]!, 'orders')
  await Promise.allSettled(apps.map(async ({ changes }) => await changes.apply(ALICE, id, undefined, NO_PROGRESS)))
  t.equal(broker!.mutations.length, 1)
  t.equal((await apps[1]!.changes.get(ALICE, id)).change.state, 'applied')
})

t.test('a broker with a stale view gets nothing', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers: [broker], apps: [app] } = await start(t, etcd)
  const { change_id: id } = await propose(app!, 'orders')
  broker!.goStale()
  await etcd.client.put(SNAPSHOT_KEY).value(JSON.stringify({ ...broker!.view, Topics: [{ Topic: 'other' }] }))
  await caughtUp(app!, etcd)
  const lacks = { code: 'BROKER_STALE', message: /it lacks the topic "other"/ }
  await t.rejects(app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), lacks)
  broker!.view.ClusterID = 'another'
  await t.rejects(app!.changes.apply(ALICE, id, undefined, NO_PROGRESS), { code: 'CLUSTER_MISMATCH' })
  t.strictSame(broker!.mutations, [])
})

t.test('a lost answer and a ghost are ambiguous, and settled by the mirror', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers: [broker], apps: [app] } = await start(t, etcd)
  const stateOf = async (id: string) => (await app!.changes.get(ALICE, id)).change.state

  const lost = await propose(app!, 'lost')
  broker!.inject({ api: 'CreateTopics', when: 'after', what: 'drop' })
  const { change } = await app!.changes.apply(ALICE, lost.change_id, undefined, NO_PROGRESS)
  t.equal(change.state, 'ambiguous')
  await waitFor(async () => await stateOf(lost.change_id) === 'applied', BOUND_MS, 'settled')

  const ghost = await propose(app!, 'ghost')
  broker!.inject({ api: 'CreateTopics', what: 'ghost' })
  t.match(await app!.changes.apply(ALICE, ghost.change_id, undefined, NO_PROGRESS), { change: { state: 'ambiguous' } })
  t.equal(broker!.mutations.length, 2)
})

t.test('a service that stops finishes what it applies', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const { brokers: [broker], apps } = await start(t, etcd, { replicas: 2 })
  const [app, other] = apps as [typeof apps[number], typeof apps[number]]
  const { change_id: id } = await propose(app, 'orders')
  const hold = broker!.inject({ api: 'CreateTopics', what: 'hold' })
  const applied = app.changes.apply(ALICE, id, undefined, NO_PROGRESS)
  await hold.reached
  const closed = app.close()
  hold.release()
  t.match(await applied, { change: { state: 'applied' } })
  await closed
  t.equal((await other.changes.get(ALICE, id)).change.state, 'applied')
})

t.test('services in processes of their own', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const files: string[] = []
  const broker = await startBroker(t, etcd, { checked: { auditFiles: files } })
  await storeCluster(etcd, [broker])
  const replicas: { service: Service, client: Client }[] = []
  const identity = await authority(t)
  for (const name of ['one', 'other']) {
    const file = join(identity.dir, `${name}.jsonl`)
    files.push(file)
    const service = startService(t, {
      ...etcd.env,
      ...identity.env,
      ...settingsFor([broker]),
      KAFSCALE_MCP_POLICY_FILE: identity.policyFile(POLICY),
      KAFSCALE_MCP_AUDIT_SINKS: `file:${file}`,
    })
    replicas.push({ service, client: httpClient(await service.url, await identity.token('alice', { scope: SCOPES })) })
  }
  const [one, other] = replicas as [typeof replicas[number], typeof replicas[number]]
  await waitFor(async () => (await one.client.call('list_topics')).isError !== true, BOUND_MS, 'synced')

  await t.test('a change proposed through one is applied through another, and its story is told', async t => {
    const { change_id: id } = await one.client.ask('create_topic', { topic: 'orders', partitions: 3 })
    t.match(await other.client.ask('apply_change', { change_id: id }), { state: 'applied' })
    t.match(await one.client.ask('get_change', { change_id: id }), { state: 'applied' })
    t.equal(broker.mutations.length, 1)
    const show = [CLI, 'audit', 'show', '--change', String(id), ...files]
    const { stdout } = await promisify(execFile)(process.execPath, show)
    const lines = stdout.split('\n').filter(line => line !== '' && !line.startsWith(' ')).map(line => line.slice(26))
    t.strictSame(lines, [
      'plan  by alice  ok', 'intent  by alice  ok', 'outcome  by alice  ok', 'call of apply_change  by alice  ok',
      'call of get_change  by alice  ok',
    ])
    t.match(stdout, /create_topic \{"partitions":3,"replication_factor":1,"topic":"orders"\}/)
    t.match(stdout, /exists: false → true/)
  })

  await t.test('one that is killed while the broker works is replaced by another', async t => {
    const { change_id: id } = await one.client.ask('create_topic', { topic: 'payments', partitions: 1 })
    const hold = broker.inject({ api: 'CreateTopics', what: 'hold' })
    one.client.call('apply_change', { change_id: id }).catch(() => {})
    await hold.reached
    one.service.process.kill('SIGKILL')
    await one.service.exit
    t.match(await other.client.ask('get_change', { change_id: id }), { state: 'applying' })
    t.match(await other.client.call('apply_change', { change_id: id }), {
      isError: true, content: [{ text: /CHANGE_IN_PROGRESS/ }],
    })
    hold.release()
    const stateOf = async () => (await other.client.ask('get_change', { change_id: id }))['state']
    await waitFor(async () => await stateOf() === 'applied' || await stateOf(), 40_000, 'settled')
    t.match(await other.client.ask('apply_change', { change_id: id }), { state: 'applied' })
    t.equal(broker.mutations.length, 2, 'nothing was sent twice')
  })
})
