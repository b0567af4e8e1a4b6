/** Without `KAFSCALE_MCP_CHANGES=enabled`, nothing of changes exists, whatever else is set. */
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { TOOLS_OF_CHANGES } from '../plugins/changes/change.ts'
import { authority } from './support/authorization.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { fill, modern, recordedKeyspace, startService } from './support/service.ts'
import { waitFor } from './support/wait-for.ts'

const SYNC_BOUND_MS = 10_000
const HOOK = join(import.meta.dirname, 'support/record-process.ts')

/** A policy under which the caller may do everything that can be done with changes. */
const POLICY = {
  roles: {
    operator: {
      allow: [{ operations: ['observe', 'propose', 'apply', 'approve', 'break-glass'] }],
      deny: [{ tools: ['drain_broker'] }]
    }
  },
  bindings: [{ role: 'operator', claim: 'sub', value: 'alice' }],
  changes: [{ environments: ['staging'], mode: 'direct' }],
  protected: { topics: ['__*'] },
}

/** A listener that counts connections. */
async function decoy (t: Test): Promise<{ port: number, connections: number }> {
  const found = { port: 0, connections: 0 }
  const server = createServer(socket => {
    found.connections++
    socket.destroy()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  found.port = (server.address() as AddressInfo).port
  return found
}

/** The remote ports of the TCP connections that a process has right now, and the ports that it listens on. */
function sockets (pid: number): { remote: number[], listening: number[] } {
  const [ESTABLISHED, LISTEN] = ['01', '0A']
  const own = new Set(readdirSync(`/proc/${pid}/fd`).map(fd => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      return ''
    }
  }))
  const rows = ['tcp', 'tcp6'].flatMap(name =>
    readFileSync(`/proc/${pid}/net/${name}`, 'utf8').trim().split('\n').slice(1).map(line => line.trim().split(/\s+/))
  ).filter(columns => own.has(`socket:[${columns[9]}]`))
  const port = (address = '') => parseInt(address.split(':')[1] ?? '', 16)
  const listening = rows.filter(columns => columns[3] === LISTEN).map(columns => port(columns[1]))
  const remote = rows.filter(columns => columns[3] === ESTABLISHED && !listening.includes(port(columns[1])))
  return { remote: remote.map(columns => port(columns[2])), listening }
}

t.test('off means off', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const { dir, env, policyFile, token } = await authority(t)
  const connections = join(dir, 'connections')
  const modules = join(dir, 'modules')
  writeFileSync(connections, '')
  const [broker, control, ledger, webhook] = [await decoy(t), await decoy(t), await decoy(t), await decoy(t)]
  const metrics = createHttpServer((_, response) => response.end('# nothing\n')).listen(0, '127.0.0.1')
  await once(metrics, 'listening')
  t.teardown(() => metrics.close())
  const metricsPort = (metrics.address() as AddressInfo).port
  const etcdPort = Number(new URL(etcd.endpoints[0] as string).port)
  const puts = () => etcd.metric('etcd_debugging_mvcc_put_total')
  const leases = () => etcd.metric('etcd_debugging_lease_granted_total')
  const before = [await puts(), await leases()]

  const service = startService(t, {
    ...etcd.env,
    ...env,
    NODE_OPTIONS: `--import ${HOOK}`,
    RECORDED_CONNECTIONS: connections,
    RECORDED_MODULES: modules,
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:${metricsPort}/metrics`,
    KAFSCALE_MCP_METRICS_MAX_AGE: '0',
    KAFSCALE_MCP_POLICY_FILE: policyFile(POLICY),
    KAFSCALE_MCP_ENVIRONMENT: 'staging',
    KAFSCALE_MCP_DISABLED_TOOLS: 'delete_topic',
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: 'kafscale-cluster',
    KAFSCALE_MCP_KAFKA_BROKERS: `127.0.0.1:${broker.port}`,
    KAFSCALE_MCP_BROKER_CONTROL_ADDR: `127.0.0.1:${control.port}`,
    KAFSCALE_MCP_CHANGES_ETCD_ENDPOINTS: `http://127.0.0.1:${ledger.port}`,
    KAFSCALE_MCP_WEBHOOK_URL: `http://127.0.0.1:${webhook.port}/hook`,
    KAFSCALE_MCP_WEBHOOK_SECRET: 'x',
  })
  const url = await service.url
  const origin = new URL(url).origin
  const readiness = async () => (await fetch(`${origin}/readyz`)).status === 200
  await waitFor(readiness, SYNC_BOUND_MS, 'ready')
  const authorization = `Bearer ${await token('alice', { scope: 'kafscale:observe kafscale:mutate' })}`
  const call = async (method: string, params: Record<string, unknown>) => {
    const { headers, payload } = modern(method, params)
    const response = await fetch(url, {
      method: 'POST', headers: { ...headers, authorization }, body: JSON.stringify(payload),
    })
    return await response.json() as { result?: Record<string, unknown>, error?: { code: number, message: string } }
  }

  await t.test('a warning names the settings that have no effect', async t => {
    t.match(
      service.output.stderr,
      'KAFSCALE_MCP_EXPECTED_CLUSTER_ID, KAFSCALE_MCP_KAFKA_BROKERS, KAFSCALE_MCP_BROKER_CONTROL_ADDR, ' +
        'KAFSCALE_MCP_CHANGES_ETCD_ENDPOINTS, KAFSCALE_MCP_WEBHOOK_URL, KAFSCALE_MCP_WEBHOOK_SECRET have no effect: ' +
        'KAFSCALE_MCP_CHANGES is not enabled'
    )
  })

  await t.test('no tool of changes is listed or can be called', async t => {
    const { result } = await call('tools/list', {})
    const names = (result?.['tools'] as { name: string }[]).map(({ name }) => name)
    t.equal(names.length, 10)
    t.strictSame(names.filter(name => TOOLS_OF_CHANGES.includes(name)), [])
    for (const name of TOOLS_OF_CHANGES) {
      const { error } = await call('tools/call', { name, arguments: {} })
      t.match(error, { code: -32602, message: `"${name}" does not exist` }, name)
    }
  })

  await t.test('what could change the cluster is not even loaded', async t => {
    const loaded = readFileSync(modules, 'utf8').trim().split('\n')
    t.ok(loaded.some(url => url.endsWith('/plugins/metadata.ts')), 'modules are seen')
    const own = loaded.filter(url => !url.includes('/node_modules/'))
    // What the policy and the registry know of changes: the names of tools.
    const names = /\/plugins\/changes\/change\.ts$/
    const parts = /kafka-admin|broker-control|\/changes\/|routes\/pages\/|\/sign-in\.ts|webhook/
    t.strictSame(own.filter(url => parts.test(url) && !names.test(url)), [])
    const libraries = /node_modules\/(etcd3|@platformatic\/|@grpc\/proto-loader|@fastify\/secure-session|ghtml)/
    t.strictSame(loaded.filter(url => libraries.test(url)), [])
  })

  await t.test('no route of changes answers', async t => {
    const paths = [
      '/changes', '/changes/', '/changes/x', '/changes/style.css', '/audit', '/audit/live', '/approvals', '/sign-in',
      '/sign-in/callback', '/sign-out', '/login', '/callback',
    ]
    for (const path of paths) {
      for (const method of ['GET', 'POST']) {
        t.equal((await fetch(origin + path, { method, redirect: 'manual' })).status, 404, `${method} ${path}`)
      }
    }
    t.notMatch(await (await fetch(`${origin}/healthz`)).text(), /changes|ledger|kafka|webhook/i)
  })

  await t.test('connections go to etcd and the metrics pages only, and nothing is written', async t => {
    for (const name of ['cluster_status', 'cluster_metrics', 'list_topics', 'explain_access']) {
      t.ok((await call('tools/call', { name, arguments: {} })).result, name)
    }
    const { pid } = JSON.parse(service.output.stderr.trim().split('\n').at(-1) as string) as { pid: number }
    const { remote, listening } = sockets(pid)
    t.strictSame(listening, [Number(new URL(url).port)])
    t.strictSame(remote.filter(port => port !== etcdPort && port !== metricsPort), [])
    t.ok(remote.includes(etcdPort), 'the sockets of the service are seen')

    const recorded = [...new Set(readFileSync(connections, 'utf8').trim().split('\n'))]
    t.strictSame(recorded.sort(), [`127.0.0.1:${etcdPort}`, `127.0.0.1:${metricsPort}`].sort())
    t.strictSame([broker, control, ledger, webhook].map(({ connections }) => connections), [0, 0, 0, 0])
    t.strictSame([await puts(), await leases()], before)
  })
})
