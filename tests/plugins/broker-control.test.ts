import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import * as grpc from '@grpc/grpc-js'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import brokerControl, { type BrokerControl } from '../../plugins/broker-control/index.ts'
import config from '../../plugins/config/index.ts'
import type { Config } from '../../plugins/config/read.ts'
import { authority } from '../support/authority.ts'
import { startControl, Status } from '../support/brokers/control.ts'

type Control = NonNullable<NonNullable<Config['changes']>['control']>

/** The plugin by itself. Brokers on loopback are allowed. */
async function controlOf (t: Test, control: Control | undefined, allowed = ['127.0.0.0/8']): Promise<BrokerControl> {
  const app = Fastify()
  const settings = { changes: { control }, metricsAllowedHosts: allowed, warnings: [] } as unknown as Config
  await app.register(config, { config: settings })
  await app.register(brokerControl)
  await app.ready()
  t.teardown(() => app.close())
  return app.brokerControl
}

const BROKER = { nodeId: 0, host: '127.0.0.1' }
const EXEMPT = { exempt: 'the client is tested without the service' }
const portOf = (address: string) => address.split(':')[1] as string

t.test('the status of a broker is what KafScale hides in a pseudo partition', async t => {
  const double = await startControl(t)
  const control = await controlOf(t, { addr: `{host}:${portOf(double.address)}`, tls: undefined })
  t.strictSame(await control.status(BROKER), {
    nodeId: 0,
    version: 'dev',
    ready: true,
    s3: { state: 'healthy', latencyMs: 23, errorRate: 0.015 },
  })
  t.equal(control.configured, true)
})

t.test('a broker without the pseudo partition has no figures of S3', async t => {
  const { address } = await startControl(t, {
    GetStatus: () => ({ broker_id: '7', version: '2.0', ready: false, partitions: [] }),
  })
  const control = await controlOf(t, { addr: address, tls: undefined })
  t.strictSame(await control.status(BROKER), { nodeId: 7, version: '2.0', ready: false, s3: null })
})

t.test('the address names the broker by its host or its node id', async t => {
  const double = await startControl(t)
  const control = await controlOf(t, { addr: `127.0.0.{node_id}:${portOf(double.address)}`, tls: undefined })
  await control.status({ nodeId: 1, host: 'broker-1.invalid' })
  t.equal(double.calls.length, 1)
})

t.test('UNIMPLEMENTED is stated plainly, since the broker did nothing', async t => {
  const { address, calls } = await startControl(t, {}, undefined, EXEMPT)
  const control = await controlOf(t, { addr: address, tls: undefined })
  t.strictSame(
    await control.send({ api: 'drain', nodeId: 0, partitions: [], deadlineSeconds: 30 }, BROKER),
    { kind: 'unsupported' }
  )
  t.strictSame(await control.send({ api: 'flush', nodeId: 0 }, BROKER), { kind: 'unsupported' })
  t.equal(calls.length, 2, 'each call was sent once')
})

t.test('a drain names its partitions, and a flush all that are assigned', async t => {
  const orders = { topic: 'orders', partition: 0 }
  const { address, calls } = await startControl(t, {
    DrainPartitions: () => ({ drained: [orders], pending: [] }),
    TriggerFlush: () => ({ flushed: [orders, { topic: 'orders', partition: 1 }] }),
  }, undefined, EXEMPT)
  const control = await controlOf(t, { addr: address, tls: undefined })
  t.strictSame(
    await control.send({ api: 'drain', nodeId: 0, partitions: [orders], deadlineSeconds: 3 }, BROKER),
    { kind: 'ok', figures: { drained_partitions: 1 } }
  )
  t.strictSame(
    await control.send({ api: 'flush', nodeId: 0 }, BROKER),
    { kind: 'ok', figures: { flushed_partitions: 2 } }
  )
  t.match(calls, [
    { method: 'DrainPartitions', request: { partitions: [orders], deadline_seconds: 3 } },
    { method: 'TriggerFlush', request: { partitions: [], all_assigned: true } },
  ])
})

t.test('a drain is done once every partition that it names is drained', async t => {
  const [first, second] = [{ topic: 'orders', partition: 0 }, { topic: 'orders', partition: 1 }]
  let answer: { drained: object[], pending: object[] } = { drained: [], pending: [] }
  const { address } = await startControl(t, { DrainPartitions: () => answer }, undefined, EXEMPT)
  const control = await controlOf(t, { addr: address, tls: undefined })
  const drain = async (partitions = [first, second]) =>
    await control.send({ api: 'drain', nodeId: 0, partitions, deadlineSeconds: null }, BROKER)
  t.strictSame(await drain(), { kind: 'missing' })
  t.strictSame(await drain([]), { kind: 'ok', figures: { drained_partitions: 0 } })
  answer = { drained: [first, second], pending: [] }
  t.strictSame(await drain(), { kind: 'ok', figures: { drained_partitions: 2 } })
  answer = { drained: [], pending: [first, second] }
  t.strictSame(await drain(), { kind: 'unknown', reason: 'the broker has drained 0 of 2 partitions' })
  answer = { drained: [first], pending: [second] }
  t.strictSame(await drain(), { kind: 'unknown', reason: 'the broker has drained 1 of 2 partitions' })
  answer = { drained: [first, first], pending: [] }
  t.strictSame(await drain(), { kind: 'unknown', reason: 'the broker has drained 1 of 2 partitions' })
})

t.test('what a broker says is cut, and cannot hide anything', async t => {
  const TriggerFlush = () => Promise.reject(new Status(grpc.status.NOT_FOUND, `\u202e${'x'.repeat(300)}`))
  const { address } = await startControl(t, { TriggerFlush }, undefined, EXEMPT)
  const control = await controlOf(t, { addr: address, tls: undefined })
  const { message } = await control.send({ api: 'flush', nodeId: 0 }, BROKER) as { message: string }
  t.match(message, /^\\u202ex+$/)
  t.equal(message.length, 200)
})

t.test('a status that leaves open what happened is unknown; one that excludes it is a refusal', async t => {
  const answers = [
    new Status(grpc.status.FAILED_PRECONDITION, 'not now'),
    new Status(grpc.status.INTERNAL, 'half way'),
    new Status(grpc.status.UNAVAILABLE, 'stopping'),
  ]
  const TriggerFlush = () => Promise.reject(answers.shift())
  const { address, calls } = await startControl(t, { TriggerFlush }, undefined, EXEMPT)
  const control = await controlOf(t, { addr: address, tls: undefined })
  const flush = () => control.send({ api: 'flush', nodeId: 0 }, BROKER)
  t.strictSame(await flush(), { kind: 'refused', code: 9, name: 'FAILED_PRECONDITION', message: 'not now' })
  t.strictSame(await flush(), { kind: 'unknown', reason: 'INTERNAL: half way' })
  t.strictSame(await flush(), { kind: 'unknown', reason: 'UNAVAILABLE: stopping' })
  t.equal(calls.length, 3, 'nothing was repeated')
})

t.test('a broker that dies while it works leaves the effect unknown', async t => {
  const double = await startControl(t, {
    TriggerFlush: () => {
      double.close()
      return new Promise(() => {})
    },
  }, undefined, EXEMPT)
  const control = await controlOf(t, { addr: double.address, tls: undefined })
  const result = await control.send({ api: 'flush', nodeId: 0 }, BROKER)
  t.match(result, { kind: 'unknown', reason: /^(?:CANCELLED|UNAVAILABLE)/ })
  t.equal(double.calls.length, 1)
})

t.test('nothing is sent to a broker that cannot be reached', async t => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  const control = await controlOf(t, { addr: `{host}:${port}`, tls: undefined })
  await t.rejects(control.send({ api: 'flush', nodeId: 0 }, BROKER), { code: 'BROKER_UNREACHABLE' })
  await t.rejects(control.status(BROKER), { code: 'BROKER_UNREACHABLE' })
})

t.test('the snapshot cannot direct a call to a special address, unless the operator allows it', async t => {
  const { address, calls } = await startControl(t)
  const control = await controlOf(t, { addr: `{host}:${portOf(address)}`, tls: undefined }, [])
  for (const host of ['127.0.0.1', 'localhost', '169.254.169.254', '::1']) {
    await t.rejects(control.status({ nodeId: 0, host }), {
      code: 'BROKER_UNREACHABLE',
      message: /KAFSCALE_MCP_METRICS_ALLOWED_HOSTS/,
    }, host)
  }
  t.strictSame(calls, [])
})

t.test('with TLS, the broker and the service show each other their certificates', async t => {
  const dir = t.testdir({})
  const own = authority(dir, 'own')
  const broker = own.issue('/CN=broker', 'broker')
  const client = own.issue('/CN=kafscale-mcp', 'client')
  const { address } = await startControl(t, {}, { ca: own.ca, ...broker })
  const files = { caFile: own.ca, certFile: client.cert, keyFile: client.key }
  const control = await controlOf(t, { addr: `{host}:${portOf(address)}`, tls: files })
  t.match(await control.status(BROKER), { nodeId: 0 })

  const withoutCertificate = await controlOf(t, {
    addr: `{host}:${portOf(address)}`,
    tls: { ...files, certFile: undefined, keyFile: undefined },
  })
  await t.rejects(withoutCertificate.status(BROKER), { code: 'BROKER_UNREACHABLE' })
})
