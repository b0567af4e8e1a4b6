import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import type { ChangesConfig, KafkaConfig, SaslConfig } from '../../plugins/config/changes.ts'
import config from '../../plugins/config/index.ts'
import type { Config } from '../../plugins/config/read.ts'
import { Secret } from '../../plugins/config/secret.ts'
import kafkaAdmin, { type AdminCall, type BrokerSession, kafkaAdminOf } from '../../plugins/kafka-admin/index.ts'
import { authority } from '../support/authority.ts'
import { type BrokerDouble, type BrokerOptions, startBroker } from '../support/brokers/broker.ts'
import { type Etcd, needsEtcd, startEtcd } from '../support/etcd.ts'
import { encodeConsumerGroup } from '../support/generate.ts'
import { scaled, temporaryFolder } from '../support/run.ts'
import { buildTestApp, fill } from '../support/service.ts'
import { commit, group, member, snapshot } from '../support/stored.ts'
import { waitFor } from '../support/wait-for.ts'

const EXEMPT: BrokerOptions = { checked: { exempt: 'the client is tested without the service' } }
const SOON_MS = 2_000
/** Nothing listens there. */
const NOWHERE = '127.0.0.1:1'
const NEVER = new AbortController().signal

async function startCluster (t: Test, more: Partial<BrokerOptions> = {}) {
  const etcd = await startEtcd(t)
  await fill(etcd, [snapshot({ orders: [0, 1] }, [0])])
  return { etcd, broker: await startBroker(t, etcd, { ...EXEMPT, ...more }) }
}

function adminOf (t: Test, brokers: string[], more: Partial<KafkaConfig> = {}, answerMs = 15_000) {
  const kafka = { brokers, clientId: 'kafscale-mcp', tls: undefined, sasl: undefined, ...more }
  const admin = kafkaAdminOf(kafka, { connectMs: scaled(1_000), answerMs })
  t.teardown(async () => { await admin.close() })
  return admin
}

async function connect (t: Test, { address }: BrokerDouble, answerMs?: number): Promise<BrokerSession> {
  return await adminOf(t, [address], {}, answerMs).connect(NEVER)
}

async function topicsIn ({ client }: Etcd): Promise<Record<string, number>> {
  const { Topics } = JSON.parse(await client.get('/kafscale/metadata/snapshot').string() ?? '{}')
  return Object.fromEntries((Topics as { Topic: string, Partitions: unknown[] }[]).map(
    ({ Topic, Partitions }) => [Topic, Partitions.length]
  ))
}

const CREATE: AdminCall = { api: 'create_topic', topic: 'payments', partitions: 3, replicationFactor: 1 }
const DELETE: AdminCall = { api: 'delete_topic', topic: 'orders' }
const EXTEND: AdminCall = { api: 'create_partitions', topic: 'orders', partitions: 5 }
const ALTER: AdminCall = { api: 'alter_configs', topic: 'orders', config: { 'retention.ms': '604800000' } }
const DELETE_GROUP: AdminCall = { api: 'delete_group', groupId: 'reports' }
const CALLS = [CREATE, DELETE, EXTEND, ALTER, DELETE_GROUP]

/** The API of the wire that carries out a call. */
const API = {
  create_topic: 'CreateTopics',
  delete_topic: 'DeleteTopics',
  create_partitions: 'CreatePartitions',
  alter_configs: 'AlterConfigs',
  delete_group: 'DeleteGroups',
} as const

t.test('carries out each call with one request, in a version that the broker offers', needsEtcd(), async t => {
  const { etcd, broker } = await startCluster(t)
  await fill(etcd, [group('reports', member('m', { orders: [0] })), commit('reports', 'orders', 0, 7)])
  const session = await connect(t, broker)
  t.equal(session.address, broker.address)
  t.strictSame(await session.send(CREATE), { kind: 'ok' })
  t.strictSame(await session.send(EXTEND), { kind: 'ok' })
  t.strictSame(await topicsIn(etcd), { orders: 5, payments: 3 })
  t.strictSame(await session.send(ALTER), { kind: 'ok' })
  t.ok(await etcd.client.get('/kafscale/topics/orders/config').buffer())
  t.strictSame(await session.send(DELETE_GROUP), { kind: 'ok' })
  t.equal(await etcd.client.get('/kafscale/consumers/reports/metadata').buffer(), null)
  t.ok(await etcd.client.get('/kafscale/consumers/reports/offsets/orders/0').string(), 'the offsets stay')
  t.strictSame(await session.send(DELETE), { kind: 'ok' })
  t.strictSame(await topicsIn(etcd), { payments: 3 })

  t.strictSame(broker.log.map(({ api, version, mutation }) => `${api} v${version}${mutation ? ' changes' : ''}`), [
    'ApiVersions v3',
    'CreateTopics v2 changes',
    'CreatePartitions v3 changes',
    'AlterConfigs v1 changes',
    'DeleteGroups v2 changes',
    'DeleteTopics v2 changes',
  ])
  t.strictSame(new Set(broker.log.map(({ clientId }) => clientId)), new Set(['kafscale-mcp']), 'the principal')
})

t.test('asks for the view of a broker without naming a topic', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  broker.view.ClusterID = 'cluster-1'
  broker.view.Brokers![0] = { NodeID: 2, Host: 'broker-2', Port: 9092, Rack: null, UnknownTags: {} }
  const session = await connect(t, broker)
  t.strictSame(await session.view(NEVER), {
    clusterId: 'cluster-1',
    brokers: [{ nodeId: 2, host: 'broker-2', port: 9092 }],
    topics: new Map([['orders', 2]]),
  })
  t.match(broker.log.at(-1), { api: 'Metadata', version: 12, body: { topics: null }, mutation: false })
})

t.test('a broker without topics has an empty view', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  broker.view.Topics = null
  t.strictSame((await (await connect(t, broker)).view(NEVER)).topics, new Map())
})

t.test('checks a call without doing it, where the broker can', needsEtcd(), async t => {
  const { etcd, broker } = await startCluster(t)
  const session = await connect(t, broker)
  const before = await etcd.client.getAll().prefix('/kafscale/').strings()
  for (const call of [CREATE, EXTEND, ALTER]) {
    t.strictSame(await session.validate(call, NEVER), { kind: 'ok' }, call.api)
  }
  t.match(await session.validate({ ...CREATE, topic: 'orders' }, NEVER), { kind: 'refused', code: 36 })
  t.match(await session.validate({ ...EXTEND, partitions: 2 }, NEVER), { kind: 'refused', code: 37 })
  t.match(await session.validate({ ...ALTER, config: { 'retention.ms': '-5' } }, NEVER), { kind: 'refused', code: 40 })
  const requests = broker.log.length
  for (const call of [DELETE, DELETE_GROUP]) t.equal(await session.validate(call, NEVER), undefined, call.api)
  t.equal(broker.log.length, requests, 'nothing was asked')
  t.strictSame(broker.mutations, [])
  t.strictSame(await etcd.client.getAll().prefix('/kafscale/').strings(), before)
})

t.test('a refusal has the code, its name and what the broker says', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker)
  const refusals: [AdminCall, object][] = [
    [{ ...CREATE, topic: 'orders' }, { code: 36, name: 'TOPIC_ALREADY_EXISTS', message: 'topic already exists' }],
    [{ ...CREATE, replicationFactor: 2 },
      { code: 17, name: 'INVALID_TOPIC_EXCEPTION', message: 'invalid topic configuration' }],
    [{ ...DELETE, topic: 'typo' }, { code: 3, name: 'UNKNOWN_TOPIC_OR_PARTITION', message: null }],
    [{ ...EXTEND, partitions: 2 }, { code: 37, name: 'INVALID_PARTITIONS', message: 'invalid topic configuration' }],
    [{ ...EXTEND, topic: 'typo' }, { code: 3, name: 'UNKNOWN_TOPIC_OR_PARTITION', message: 'unknown topic' }],
    [{ ...ALTER, config: { 'cleanup.policy': 'compact' } }, { code: 40, name: 'INVALID_CONFIG', message: null }],
    [{ ...ALTER, topic: 'typo' }, { code: 3, name: 'UNKNOWN_TOPIC_OR_PARTITION', message: null }],
    [DELETE_GROUP, { code: 69, name: 'GROUP_ID_NOT_FOUND', message: null }],
  ]
  for (const [call, expected] of refusals) {
    t.strictSame(await session.send(call), { kind: 'refused', ...expected }, JSON.stringify(call))
  }
})

t.test('a denied principal, and a broker without etcd, are refusals: nothing was changed', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker)
  broker.store.available = false
  for (const call of CALLS) {
    t.match(await session.send(call), { kind: 'refused', code: 7, name: 'REQUEST_TIMED_OUT' }, call.api)
  }
  broker.denied.add('kafscale-mcp')
  for (const call of CALLS) {
    const code = call.api === 'delete_group' ? 30 : 29
    t.match(await session.send(call), { kind: 'refused', code, name: /_AUTHORIZATION_FAILED$/ }, call.api)
  }
})

t.test('what a broker says is cut, and cannot hide anything', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker)
  const says = `\u202e${'x'.repeat(1_000)}`
  broker.inject({ api: 'CreateTopics', what: 36, message: says })
  t.match(await session.send(CREATE), { message: `\\u202e${'x'.repeat(194)}` })
})

t.test('a success without the item that was named is missing', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker)
  for (const call of CALLS) {
    broker.inject({ api: API[call.api], what: 'missing' })
    t.strictSame(await session.send(call), { kind: 'missing' }, call.api)
  }
})

t.test('two answers for one item that contradict each other are unknown', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker)
  for (const call of CALLS) {
    broker.inject({ api: API[call.api], what: 'twice' })
    t.match(await session.send(call), { kind: 'unknown', reason: /twice/ }, call.api)
  }
})

t.test('−1 is unknown, since the broker may store the change later', needsEtcd(), async t => {
  const { etcd, broker } = await startCluster(t)
  const session = await connect(t, broker)
  for (const call of CALLS) {
    broker.inject({ api: API[call.api], what: -1 })
    t.match(await session.send(call), { kind: 'unknown', reason: /UNKNOWN_SERVER_ERROR/ }, call.api)
  }
  broker.inject({ api: 'CreateTopics', what: 'ghost' })
  t.strictSame(await session.send(CREATE), {
    kind: 'unknown',
    reason: 'the broker answered UNKNOWN_SERVER_ERROR: context deadline exceeded',
  })
  t.strictSame(await session.send(EXTEND), { kind: 'ok' })
  t.strictSame(await topicsIn(etcd), { orders: 5, payments: 3 }, 'it came with the next change')
})

t.test('a connection that is lost after the request is unknown, whatever the broker did', needsEtcd(), async t => {
  const { etcd, broker } = await startCluster(t)
  for (const call of CALLS) {
    const session = await connect(t, broker)
    broker.inject({ api: API[call.api], what: 'drop' })
    t.strictSame(await session.send(call), { kind: 'unknown', reason: 'Connection closed' }, call.api)
    await t.rejects(session.send(call), { code: 'BROKER_UNREACHABLE' }, 'the session has ended')
  }
  t.strictSame(await topicsIn(etcd), { orders: 2 })
  broker.inject({ api: 'CreateTopics', what: 'drop', when: 'after' })
  t.match(await (await connect(t, broker)).send(CREATE), { kind: 'unknown' })
  t.strictSame(await topicsIn(etcd), { orders: 2, payments: 3 })
  t.equal(broker.mutations.length, CALLS.length + 1, 'nothing was sent twice')
})

t.test('no answer in time is unknown, and the late answer is not taken for another one', needsEtcd(), async t => {
  const { etcd, broker } = await startCluster(t)
  const session = await connect(t, broker, scaled(100))
  const held = broker.inject({ api: 'CreateTopics', what: 'hold' })
  t.strictSame(await session.send(CREATE), { kind: 'unknown', reason: `no answer within ${scaled(100) / 1_000} s` })
  await t.rejects(session.send(DELETE), { code: 'BROKER_UNREACHABLE' })
  held.release()
  await waitFor(async () => 'payments' in await topicsIn(etcd), SOON_MS, 'it took effect even so')
  t.equal(broker.mutations.length, 1)
})

t.test('a stopped broker accepts a connection and does not answer', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker, scaled(100))
  broker.freeze()
  t.match(await session.send(CREATE), { kind: 'unknown' })
  await t.rejects(adminOf(t, [broker.address], {}, scaled(100)).connect(NEVER), {
    code: 'BROKER_UNREACHABLE',
    message: `${broker.address} (Request timed out)`,
  })
})

t.test('a connection that was lost before the request is an error: nothing was sent', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker)
  await broker.close()
  await waitFor(
    async () => await session.view(NEVER).then(() => false, () => true),
    SOON_MS,
    'the session knows that the connection is lost'
  )
  await t.rejects(session.send(CREATE), { code: 'BROKER_UNREACHABLE', message: /Nothing was sent/ })
  await t.rejects(session.validate(CREATE, NEVER), { code: 'BROKER_UNREACHABLE' })
  t.strictSame(broker.mutations, [])
})

t.test('requests of a session wait for each other', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const session = await connect(t, broker)
  const held = broker.inject({ api: 'Metadata', what: 'hold' })
  const view = session.view(NEVER)
  const sent = session.send(CREATE)
  await held.reached
  held.release()
  await Promise.all([view, sent])
  t.strictSame(broker.log.map(({ api }) => api), ['ApiVersions', 'Metadata', 'CreateTopics'])
})

t.test('a signal ends a connection, a question and a check', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const reason = new Error('the caller is gone')
  type Ask = (session: BrokerSession, signal: AbortSignal) => Promise<unknown>
  const questions: ['Metadata' | 'CreateTopics', Ask][] = [
    ['Metadata', async (session, signal) => await session.view(signal)],
    ['CreateTopics', async (session, signal) => await session.validate(CREATE, signal)],
  ]
  for (const [api, ask] of questions) {
    const caller = new AbortController()
    const session = await connect(t, broker)
    const held = broker.inject({ api, what: 'hold' })
    const asked = ask(session, caller.signal)
    await held.reached
    caller.abort(reason)
    await t.rejects(asked, reason, api)
    held.release()
  }
  const caller = new AbortController()
  broker.freeze()
  const connecting = adminOf(t, [broker.address]).connect(caller.signal)
  caller.abort(reason)
  await t.rejects(connecting, reason)
  await t.rejects(adminOf(t, [broker.address]).connect(caller.signal), reason, 'also one that was aborted before')
})

t.test('connects to the preferred broker, or else to the first that answers', needsEtcd(), async t => {
  const { etcd, broker } = await startCluster(t)
  const second = await startBroker(t, etcd, { ...EXEMPT, nodeId: 1 })
  const third = await startBroker(t, etcd, { ...EXEMPT, nodeId: 2 })
  const admin = adminOf(t, [NOWHERE, broker.address, second.address])
  t.equal((await admin.connect(NEVER)).address, broker.address)
  t.equal((await admin.connect(NEVER, second.address)).address, second.address)
  t.equal((await admin.connect(NEVER, NOWHERE)).address, broker.address, 'one that does not answer')
  t.equal((await admin.connect(NEVER, third.address)).address, broker.address, 'one that is not configured')
  t.strictSame(third.log, [])
  await broker.close()
  await second.close()
  await t.rejects(admin.connect(NEVER), {
    code: 'BROKER_UNREACHABLE',
    message: new RegExp([NOWHERE, broker.address, second.address].map(address => `${address} \\(.*\\)`).join(', ')),
  })
})

t.test('sends no version that the broker does not offer', needsEtcd(), async t => {
  const { broker } = await startCluster(t, {
    advertised: [[18, 0, 4], [3, 0, 12], [19, -1, -1], [20, 0, 1], [37, 0, 2]],
  })
  const session = await connect(t, broker)
  for (const call of CALLS) {
    t.match(await session.send(call), { kind: 'refused', code: 35, name: 'UNSUPPORTED_VERSION' }, call.api)
  }
  t.match(await session.validate(CREATE, NEVER), { kind: 'refused', code: 35 })
  t.strictSame(broker.log.map(({ api }) => api), ['ApiVersions'])

  const old = await startCluster(t, { advertised: [[18, 0, 4], [3, 0, 11]] })
  await t.rejects(adminOf(t, [old.broker.address]).connect(NEVER), { message: /version 12 of Metadata/ })
})

t.test('what is not a broker is unreachable', async t => {
  const answers = ['HTTP/1.1 400 Bad Request\r\n\r\n', '\0\0\0\u0004\0\0\0\u0001']
  for (const answer of answers) {
    const server = createServer(socket => socket.on('error', () => {}).once('data', () => socket.end(answer)))
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close())
    const { port } = server.address() as { port: number }
    await t.rejects(adminOf(t, [`127.0.0.1:${port}`]).connect(NEVER), { code: 'BROKER_UNREACHABLE' })
  }
})

t.test('speaks TLS with a CA and a client certificate', needsEtcd(), async t => {
  const dir = temporaryFolder(t)
  const pki = authority(dir, 'ca')
  const server = pki.issue('/CN=broker', 'server')
  const client = pki.issue('/CN=kafscale-mcp', 'client')
  const { broker } = await startCluster(t, {
    tls: {
      ca: readFileSync(pki.ca), cert: readFileSync(server.cert), key: readFileSync(server.key), requestCert: true,
    },
  })
  const tls = { caFile: pki.ca, certFile: client.cert, keyFile: client.key }
  const session = await adminOf(t, [broker.address], { tls }).connect(NEVER)
  t.strictSame(await session.send(CREATE), { kind: 'ok' })

  const refused = async (more: Partial<KafkaConfig>, message: RegExp) =>
    await t.rejects(adminOf(t, [broker.address], more).connect(NEVER), { code: 'BROKER_UNREACHABLE', message })
  await refused({ tls: { ...tls, caFile: undefined } }, /certificate/)
  await refused({ tls: { ...tls, certFile: undefined, keyFile: undefined } }, /\(.+\)/)
  await refused({ tls: { ...tls, caFile: `${dir}/gone.pem` } }, /ENOENT.*gone\.pem/)
  await refused({}, /\(.+\)/)
  await t.rejects(
    adminOf(t, [broker.address.replace('127.0.0.1', '127.0.0.2')], { tls }).connect(NEVER),
    { code: 'BROKER_UNREACHABLE' },
    'another host than the certificate names'
  )
})

for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const) {
  t.test(`signs in with SASL ${mechanism}`, needsEtcd(), async t => {
    const { broker } = await startCluster(t, { sasl: { username: 'mcp', password: 'p=a,ss' } })
    const sasl = (password: string): SaslConfig => ({ mechanism, username: 'mcp', password: new Secret(password) })
    const session = await adminOf(t, [broker.address], { sasl: sasl('p=a,ss') }).connect(NEVER)
    t.strictSame(await session.send(CREATE), { kind: 'ok' })
    await t.rejects(adminOf(t, [broker.address], { sasl: sasl('wrong') }).connect(NEVER), {
      code: 'BROKER_UNREACHABLE',
      message: /authentication/i,
    })
    const stranger = await adminOf(t, [broker.address]).connect(NEVER)
    await t.rejects(stranger.view(NEVER), { code: 'BROKER_UNREACHABLE' }, 'without signing in')
  })

  t.test(`a broker without SASL does not receive the password of ${mechanism}`, needsEtcd(), async t => {
    const { broker } = await startCluster(t)
    const sasl = { mechanism, username: 'mcp', password: new Secret('password') }
    await t.rejects(adminOf(t, [broker.address], { sasl }).connect(NEVER), {
      code: 'BROKER_UNREACHABLE',
      message: new RegExp(`it does not offer SASL ${mechanism}: unset KAFSCALE_MCP_KAFKA_SASL_MECHANISM`),
    })
    t.strictSame(broker.log.map(({ api }) => api), ['ApiVersions', 'SaslHandshake'])
  })
}

t.test('sends nothing before it is asked to, and closes its sessions with the app', needsEtcd(), async t => {
  const { broker } = await startCluster(t)
  const app = Fastify()
  const kafka: KafkaConfig = { brokers: [broker.address], clientId: 'agent', tls: undefined, sasl: undefined }
  const changes = { kafka } as unknown as ChangesConfig
  await app.register(config, { config: { changes, warnings: [] } as unknown as Config })
  await app.register(kafkaAdmin)
  await app.ready()
  t.equal(app.kafkaAdmin.principal, 'agent')
  t.equal(broker.connections, 0)
  const session = await app.kafkaAdmin.connect(NEVER)
  const closed = await app.kafkaAdmin.connect(NEVER)
  await closed.close()
  await waitFor(() => broker.connections === 1 || broker.connections, SOON_MS, 'one is closed')
  await app.close()
  await waitFor(() => broker.connections === 0 || broker.connections, SOON_MS, 'both are closed')
  await t.rejects(session.send(CREATE), { code: 'BROKER_UNREACHABLE' })
})

t.test('does not exist unless changes are enabled', async t => {
  const app = await buildTestApp(t)
  await app.ready()
  t.equal(app.hasDecorator('kafkaAdmin'), false)
})

t.test('deletes a group at the broker that it is connected to, whoever coordinates the group', needsEtcd(), async t => {
  const { etcd, broker } = await startCluster(t)
  const coordinator = await startBroker(t, etcd, { ...EXEMPT, nodeId: 1 })
  await coordinator.keepMembers('reports', encodeConsumerGroup({ groupId: 'reports', state: 'stable' }))
  t.strictSame(await (await connect(t, broker)).send(DELETE_GROUP), { kind: 'ok' })
  t.strictSame(coordinator.log, [])
  t.notOk(broker.log.some(({ api }) => api === 'FindCoordinator'))
})
