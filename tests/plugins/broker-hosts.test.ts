import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { brokerHosts, isHost } from '../../plugins/broker-hosts.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { buildSyncedApp, fill } from '../support/service.ts'

/** Hosts that lead to this machine, to its network or to a metadata service. */
const SPECIAL = [
  '127.0.0.1', '127.9.9.9', '0.0.0.0', '0.1.2.3', '169.254.169.254', '224.0.0.1', '239.255.255.250',
  '255.255.255.255', '100.100.100.200', '168.63.129.16', '::', '::1', 'fe80::1', 'ff02::1', 'fd00:ec2::254',
  '::ffff:169.254.169.254', '::ffff:a9fe:a9fe', '0:0:0:0:0:FFFF:7F00:1', '::127.0.0.1', '64:ff9b::a9fe:a9fe',
  '64:ff9b:1::a9fe:a9fe', '::ffff:0:a9fe:a9fe', '2002:a9fe:a9fe::1', '2001:0:1::1',
]
const ORDINARY = ['10.0.0.1', '192.168.1.1', '100.64.0.1', '203.0.113.7', 'fd00::1', '2a00::1', '::ffff:10.0.0.1']

t.test('a host is a name, or an address in its usual spelling', async t => {
  const names = ['broker', 'broker-0.brokers.kafscale.svc', 'broker_1', 'a.example.', '3com.example', '0xa.example']
  for (const host of [...names, ...SPECIAL, ...ORDINARY]) t.ok(isHost(host), host)
  const spelled = ['2852039166', '0xA9FEA9FE', '0xa9.0xfe.43518', '169.254.43518', '0251.0376.0251.0376', '127.1', '0x']
  const malformed = [
    '', '.', '..', 'a..b', '-a', 'a-', 'a:1', 'a/x', 'a?x', 'a#x', 'user@a', 'a b', 'a\n', '[::1]', 'fe80::1%eth0', 'é',
    '127.0.0.1.', '2852039166.', 'a.1', '①②⑦.0.0.1', '１２７.0.0.1', '127。0。0。1', 'a%2e', `${'a'.repeat(64)}.b`,
    `${'a.'.repeat(127)}b`,
  ]
  for (const host of [...spelled, ...malformed]) t.notOk(isHost(host), JSON.stringify(host))
})

t.test('special addresses are refused unless a glob or a range names them', async t => {
  const allows = (host: string, ...allowed: string[]): boolean => {
    try {
      brokerHosts(allowed).check(host)
      return true
    } catch {
      return false
    }
  }
  for (const host of ORDINARY) t.ok(allows(host), host)
  for (const host of SPECIAL) {
    t.notOk(allows(host), host)
    t.ok(allows(host, '0.0.0.0/0', '::/0'), host)
  }
  t.ok(allows('127.0.0.1', '127.0.0.1'))
  t.ok(allows('127.0.0.1', '127.*'))
  t.ok(allows('::ffff:7f00:1', '127.0.0.0/8'))
  t.ok(allows('fe80::1', 'fe80::*'))
  t.notOk(allows('127.0.0.1', '169.254.0.0/16', '::/0', 'localhost'))
})

t.test('a name is resolved to addresses that are allowed', async t => {
  const resolve = (host: string, ...allowed: string[]) =>
    promisify(brokerHosts(allowed).lookup as (
      host: string,
      options: { all: boolean },
      done: (error: Error | null, found: unknown) => void
    ) => void)(host, { all: true })
  await t.rejects(resolve('localhost'), { name: 'HostRefusedError' })
  await t.rejects(resolve('localhost', '128.*', '10.0.0.0/8'), { name: 'HostRefusedError' })
  t.match(await resolve('localhost', 'local*'), [{ family: Number }])
  t.strictSame(await resolve('127.0.0.1', '127.0.0.0/8'), [{ address: '127.0.0.1', family: 4 }])
  await t.rejects(resolve('no-such-host.invalid'), { code: /^(?:ENOTFOUND|EAI_AGAIN)$/ })
})

/** A server that no caller should reach, and the number of connections to it. */
async function target (t: Test) {
  const server = createServer((_, response) => response.writeHead(404).end('not a broker'))
  const reached = { connections: 0 }
  server.on('connection', () => reached.connections++)
  server.listen(0, '::').on('error', () => server.listen(0, '0.0.0.0'))
  t.teardown(() => server.close())
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, reached }
}

t.test('the snapshot cannot make the service connect to this machine', needsEtcd(), async t => {
  const { port, reached } = await target(t)
  const etcd = await startEtcd(t)
  const hosts = [
    'localhost', 'LOCALHOST', '127.0.0.1', '127.1', '2130706433', '0x7f000001', '0', '::1', '::ffff:7f00:1',
  ]
  const Brokers = [...hosts.map((Host, NodeID) => ({ NodeID, Host })), { NodeID: 2130706433, Host: 'broker' }]
  await fill(etcd, [{ key: '/kafscale/metadata/snapshot', value: JSON.stringify({ Brokers }) }])
  const app = await buildSyncedApp(t, etcd, {
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://{host}:${port}/metrics, http://{node_id}:${port}/metrics`,
  })
  const { brokers } = await app.brokerMetrics.scrape()
  t.strictSame(brokers.slice(0, hosts.length).map(({ state }) => state), hosts.map(() => 'invalid'))
  t.match(brokers.at(-1), { nodeId: 2130706433, address: `127.0.0.1:${port}`, state: 'invalid' })
  t.equal(reached.connections, 0)

  const allowing = await buildSyncedApp(t, etcd, {
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://{host}:${port}/metrics`,
    KAFSCALE_MCP_METRICS_ALLOWED_HOSTS: 'local*',
  })
  const allowed = await allowing.brokerMetrics.scrape()
  t.match(allowed.brokers[0], { state: 'invalid', error: 'it did not answer with a metrics page' })
  t.match(allowed.brokers[2], { state: 'invalid', error: /KAFSCALE_MCP_METRICS_ALLOWED_HOSTS/ })
  t.equal(reached.connections, 2, 'localhost in either spelling')
})
