import { execFile, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { promisify } from 'node:util'
import * as grpc from '@grpc/grpc-js'
import t from 'tap'
import { SimulatedCluster } from '../demo/cluster.ts'
import { EmbeddedEtcd } from '../demo/embedded-etcd.ts'
import { CompactedError } from '../errors.ts'
import { sumLag } from '../kafscale/lag.ts'
import { Mirror } from '../kafscale/mirror.ts'
import { EtcdConnection } from '../plugins/etcd/connection.ts'
import type { KeyValue } from '../plugins/etcd/messages.ts'
import { startDemo } from './support/demo.ts'
import { PATH, run, start as startCommand } from './support/packaging.ts'
import { ROOT } from './support/paths.ts'
import { waitFor } from './support/wait-for.ts'

const EXIT_BOUND_MS = 6_000
const GROUP_TOOLS = ['describe_group', 'fetch_offsets']

t.test('the demo answers every tool from a cluster that changes, and Ctrl-C stops it', async t => {
  const demo = await startDemo(t, { KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0' })
  t.not(demo.port, 8090, 'KAFSCALE_MCP_HTTP_ADDR decides where it listens')

  t.test('the curl line works as it is printed', async t => {
    const { stdout } = await promisify(execFile)('sh', ['-c', demo.lineWith('curl ')])
    const { result: { isError, structuredContent: status } } = JSON.parse(stdout)
    t.notOk(isError)
    t.equal(status.etcd.state, 'connected')
    t.equal(status.brokers_reachable, 3)
    t.same(status.brokers.map((broker: { metrics: string }) => broker.metrics), ['ok', 'ok', 'ok'])
    t.equal(status.topic_count, 12)
    t.equal(status.s3.state, 'healthy')
  })

  t.test('the audit commands work as they are printed, and show the call that the demo made', async t => {
    const audit = async (command: string) =>
      await run('sh', ['-c', demo.lineWith(`npx kafscale-mcp audit ${command}`)], { cwd: ROOT })
    t.match(await audit('verify'), /^intact: records 1 to \d+$/m)
    t.match(await audit('show'), /tool_call +anonymous +cluster_status +ok/)
    const { status } = spawnSync('git', ['check-ignore', '--quiet', '.demo/audit.jsonl'], { cwd: ROOT })
    t.not(status, 1, 'git ignores the file')
  })

  t.test('a second demo leaves the audit file of the first alone', async t => {
    const second = await startDemo(t, { KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0' })
    t.match(second.lineWith('npx kafscale-mcp audit verify'), /\.demo\/audit-\d+\.jsonl$/)
    t.match(await second.ask('cluster_status'), { brokers_reachable: 3 })
    t.match(await demo.ask('cluster_status'), { brokers_reachable: 3 })
    t.equal(await second.interrupt(), 0)
  })

  t.test('the client configurations are JSON and name the endpoint', async t => {
    const [direct, remote] = demo.output.match(/^\{$.*?^\}$/gms)!.map(json => JSON.parse(json).mcpServers.kafscale)
    t.same(direct, { type: 'http', url: demo.url })
    t.same(remote, { command: 'npx', args: ['-y', 'mcp-remote', demo.url] })
    t.equal(demo.lineWith('claude '), `claude mcp add --transport http kafscale ${demo.url}`)
  })

  t.test('every tool answers', async t => {
    const { tools } = await demo.request('tools/list') as { tools: { name: string }[] }
    t.ok(tools.length >= 9)
    for (const { name } of tools) {
      const answer = await demo.request('tools/call', {
        name,
        arguments: GROUP_TOOLS.includes(name) ? { group_id: 'order-processing' } : {},
      })
      t.notOk(answer.isError, name)
    }
  })

  t.test('the cluster shows every kind of state', async t => {
    const { groups } = await demo.ask('list_groups') as {
      groups: { group_id: string, state: string, stale: boolean, member_count: number, total_lag: number }[]
    }
    const group = (id: string) => groups.find(({ group_id: groupId }) => groupId === id)
    t.match(group('nightly-report'), { state: 'empty', stale: false, member_count: 0 }, 'an idle group')
    t.match(group('legacy-billing'), { state: 'stable', stale: true }, 'a stale group')
    t.match(group('order-processing'), { state: 'stable', stale: false, member_count: 3 })
    t.ok(group('clickstream-analytics')!.total_lag > 1_000, 'a group that is behind')

    const { configs } = await demo.ask('describe_configs', { topics: ['audit-log'] }) as {
      configs: { retention_ms: string }[]
    }
    t.equal(configs[0]!.retention_ms, '9223372036854775807')

    const metrics = await demo.ask('cluster_metrics')
    t.equal(metrics.partial, false)
    t.ok(metrics.produce_rps as number > 100)
    t.ok(metrics.fetch_rps as number > 100)
    t.match(metrics.produce_latency_ms, { p50: Number, p99: Number })
  })

  t.test('lag changes', async t => {
    const lag = async () => JSON.stringify((await demo.ask('consumer_lag', { group_id: 'sensor-rollup' })).groups)
    const before = await lag()
    await t.resolves(waitFor(async () => await lag() !== before, 5_000, 'another lag'))
  })

  t.test('Ctrl-C stops it, also when npm forwards the signal once more', async t => {
    t.equal(await demo.interrupt(2), 0)
    t.equal(demo.errors(), '', 'no warnings or errors')
  })
})

t.test('the demo listens on 8090 or else on another port, and never connects to a real cluster', async t => {
  const other = createServer().listen(8090, '127.0.0.1')
  t.teardown(() => other.close())
  const isOurs = await once(other, 'listening').then(() => true, () => false)
  const demo = await startDemo(t, {
    KAFSCALE_MCP_HTTP_ADDR: '',
    KAFSCALE_MCP_ETCD_ENDPOINTS: 'https://192.0.2.1:2379',
    KAFSCALE_MCP_ETCD_USERNAME: 'somebody', // without a password, which would stop the start
    KAFSCALE_MCP_BROKER_METRICS_URL: 'auto',
    KAFSCALE_MCP_LOG_LEVEL: 'error',
  })
  t.not(demo.port, 8090, 'another port')
  t.match(await demo.ask('cluster_status'), {
    cluster_name: 'demo',
    brokers_reachable: 3,
    etcd: { state: 'connected' },
  })
  t.equal(await demo.interrupt(), 0)
  t.equal(demo.errors(), '')

  other.close()
  const next = await startDemo(t, {})
  t.equal(next.port === 8090, isOurs, '8090, unless another process uses it')
  t.equal(await next.interrupt(), 0)
})

t.test('the demo ends with the npm that started it', async t => {
  const demo = await startCommand(t, 'npm', ['run', 'demo'], {
    cwd: ROOT,
    env: { PATH, HOME: t.testdir(), KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0', KAFSCALE_MCP_LOG_LEVEL: 'info' },
  })
  demo.process.kill('SIGKILL')
  await waitFor(async () => await demo.exit !== undefined, EXIT_BOUND_MS, 'the end of the demo')
  t.match(demo.output.stderr, '"msg":"shutting down"')
})

t.test('the seed determines what happens in the simulated cluster', async t => {
  const life = liveTenMinutes(1)
  t.strictSame([...life.states].sort(), ['completing_rebalance', 'preparing_rebalance', 'stable'], 'it rebalances')
  t.strictSame([...life.s3].sort(), ['degraded', 'healthy'], 'S3 degrades now and then')
  t.ok(life.peaks >= 3, 'a group falls behind and catches up, again and again')
  t.equal(life.undecodable, 0)
  t.ok(life.writes / 600 > 10 && life.writes / 600 < 100, 'some tens of writes per second')

  t.equal(liveTenMinutes(1).digest, life.digest, 'the same seed, the same events')
  t.not(liveTenMinutes(2).digest, life.digest, 'another seed, other events')
})

t.test('the embedded etcd behaves as etcd', async t => {
  const etcd = new EmbeddedEtcd()
  for (let i = 0; i < 2_500; i++) etcd.put(`/kafscale/key-${i}`, Buffer.from('old'))
  etcd.put('/elsewhere', Buffer.from('old'))
  const connection = new EtcdConnection(await etcd.listen(), grpc.credentials.createInsecure(), undefined)
  t.teardown(() => {
    connection.close()
    etcd.close()
  })

  t.test('a load in pages reads one revision, even while keys are written', async t => {
    const loaded: KeyValue[] = []
    let pages = 0
    const { revision } = await connection.load(kvs => {
      loaded.push(...kvs)
      pages++
      for (let i = 0; i < 2_500; i += 100) etcd.put(`/kafscale/key-${i}`, Buffer.from('new'))
      etcd.put(`/kafscale/key-during-${pages}`, Buffer.from('new'))
    })
    t.ok(pages > 1, 'pages')
    t.equal(revision, 2_502)
    t.equal(loaded.length, 2_500)
    t.ok(loaded.every(({ value, modRevision }) => String(value) === 'old' && modRevision <= revision))
    t.strictSame(loaded.map(({ key }) => String(key)), loaded.map(({ key }) => String(key)).sort(), 'in order of keys')

    t.match(await connection.changesSince(revision), { written: true, keys: 2_500 + pages })
    const { revision: now } = await connection.probe()
    t.match(await connection.changesSince(now), { written: false, keys: 2_500 + pages })
  })

  t.test('a watch delivers every write and deletion from its revision on, once and in order', async t => {
    const { revision } = await connection.probe()
    etcd.put('/kafscale/before', Buffer.from('1'))
    etcd.put('/elsewhere', Buffer.from('1'))
    const seen: string[] = []
    connection.watch(revision + 1, {
      onOpen: () => seen.push('open'),
      onEvents: events => seen.push(...events.map(({ type, kv }) => `${type} ${kv.key} ${kv.modRevision - revision}`)),
      onEnd: error => seen.push(error.message),
    })
    await waitFor(() => seen.length === 2 || seen, 2_000, 'the first event')
    etcd.put('/kafscale/after', Buffer.from('1'))
    await waitFor(() => seen.length === 3 || seen, 2_000, 'the second event')
    etcd.deletePrefix('/kafscale/b')
    await waitFor(() => seen.length === 4 || seen, 2_000, 'the third event')
    t.same(seen, ['open', 'PUT /kafscale/before 1', 'PUT /kafscale/after 3', 'DELETE /kafscale/before 4'])
  })

  t.test('old revisions are compacted away, for loads and for watches', async t => {
    const { revision } = await connection.probe()
    const compacts = () => { for (let i = 0; i < 6_000; i++) etcd.put('/kafscale/busy', Buffer.from(String(i))) }
    await t.rejects(connection.load(compacts), CompactedError)
    let end: Error | undefined
    connection.watch(revision, { onOpen () {}, onEvents () {}, onEnd (error) { end = error } })
    await waitFor(() => end !== undefined, 2_000, 'the end of the watch')
    t.type(end, CompactedError)
  })
})

function liveTenMinutes (seed: number) {
  const bornAtMs = Date.UTC(2026, 0, 1)
  const mirror = new Mirror()
  const digest = createHash('sha256')
  let writes = 0
  const cluster = new SimulatedCluster({
    put (key, value) {
      digest.update(key).update(value)
      mirror.apply({ type: 'put', key: Buffer.from(key), value, modRevision: ++writes })
    },
    deletePrefix () {},
  }, seed, bornAtMs)

  const states = new Set<string>()
  const s3 = new Set<string>()
  let peaks = 0
  let behind = false
  for (let seconds = 0.5; seconds <= 600; seconds += 0.5) {
    cluster.tick(bornAtMs + seconds * 1_000)
    for (const { s3State } of cluster.brokers) s3.add(s3State)
    states.add(mirror.group('clickstream-analytics')!.metadata!.state)
    const lag = Number(sumLag(mirror.group('sensor-rollup')!.commits).total)
    if (lag > 5_000 && !behind) peaks++
    if (lag > 5_000) behind = true
    if (lag < 1_000) behind = false
  }
  return { writes, digest: digest.digest('hex'), states, s3, peaks, undecodable: mirror.undecodable.size }
}
