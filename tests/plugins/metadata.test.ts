import { execFileSync } from 'node:child_process'
import * as grpc from '@grpc/grpc-js'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import t, { type Test } from 'tap'
import { encodeConsumerGroup, formatKey } from '../../demo/encode.ts'
import { IGNORED, type Mirror } from '../../kafscale/mirror.ts'
import configPlugin from '../../plugins/config/index.ts'
import { readConfig } from '../../plugins/config/read.ts'
import { EtcdConnection, type WatchHandlers } from '../../plugins/etcd/connection.ts'
import metadata, { REASONS } from '../../plugins/metadata.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { heldBy } from '../support/faults.ts'
import { ask, buildSyncedApp, buildTestApp, callTool, caughtUp, fill } from '../support/service.ts'
import { waitFor } from '../support/wait-for.ts'

t.jobs = 4 // most of the time is waiting

/** Uses each connection in turn, and the last one from then on. A test can change their behavior. */
async function buildOver (t: Test, connections: (() => EtcdConnection)[], env: Record<string, string> = {}) {
  const app = Fastify()
  const config = readConfig({ KAFSCALE_MCP_ETCD_ENDPOINTS: 'unused', ...env })
  let next = 0
  await app.register(configPlugin, { config })
  await app.register(fp(async app => {
    app.decorate('etcd', { connect: () => (connections[next++] ?? connections.at(-1) as () => EtcdConnection)() })
  }, { name: 'etcd' }))
  await app.register(metadata)
  t.teardown(() => app.close())
  await app.ready()
  return app
}

const plain = grpc.credentials.createInsecure()

t.test('writes during the load are neither lost nor applied twice', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(
    etcd,
    Array.from({ length: 4000 }, (_, index) => ({ key: `/kafscale/group-leases/g${index}`, value: '1' }))
  )
  const writing = new AbortController()
  let writes = 0
  const writer = (async () => {
    while (!writing.signal.aborted) {
      await etcd.client.put(`/kafscale/group-leases/g${writes++ % 5000}`).value(String(writes))
    }
  })()
  const app = await buildSyncedApp(t, etcd)
  await waitFor(() => app.metadata.counters.events >= 50 || app.metadata.counters.events, 5_000, 'events')
  const loaded = app.metadata.mirror?.revision ?? 0
  const eventsBefore = app.metadata.counters.events
  writing.abort()
  await writer
  await caughtUp(app, etcd)
  const mirror = app.metadata.mirror as Mirror
  t.equal(app.metadata.counters.events - eventsBefore, mirror.revision - loaded, 'as many events as revisions')
  t.strictSame(mirror.differences(await heldBy(etcd)), [])
  t.equal(app.metadata.counters.loads, 1)
})

const MB = 1024 * 1024

t.test('large values and transactions, in an etcd with a raised limit', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { maxRequestBytes: 100 * MB })
  const large = (letter: string, size: number) => `{"ClusterName":"${letter.repeat(size)}"}`
  const snapshot = etcd.client.put('/kafscale/metadata/snapshot')
  await snapshot.value(large('a', 6 * MB))
  const app = await buildSyncedApp(t, etcd)
  const { counters } = app.metadata
  const clusterName = () => app.metadata.mirror?.snapshot?.clusterName ?? ''
  t.equal(clusterName().length, 6 * MB, 'a value of 6 MB is loaded')

  await etcd.client.put('/kafscale/metadata/snapshot').value(large('b', 7 * MB))
  await caughtUp(app, etcd)
  t.ok(clusterName().length === 7 * MB && clusterName().startsWith('b'), 'a value of 7 MB arrives by watch')

  const leases = Array.from({ length: 20 }, (_, index) => `/kafscale/group-leases/g${index}`)
  const padding = Buffer.alloc(MB, '0')
  await etcd.client.if('x', 'Version', '==', 0)
    .then(...leases.map(key => etcd.client.put(key).value(Buffer.concat([padding, Buffer.from('7')])))).commit()
  await caughtUp(app, etcd)
  t.strictSame(
    leases.map(key => app.metadata.mirror?.coordinatorId(key.split('/').at(-1) ?? '')),
    leases.map(() => 7),
    'a transaction of 20 MB'
  )
  t.equal(app.metadata.mirror?.modRevisions.size, 21)
  t.equal(counters.loads, 1, 'the connection has not failed')
})

t.test('a page that exceeds the message limit is requested again, smaller', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const value = Buffer.alloc(300_000, 1)
  for (let index = 0; index < 40; index++) await etcd.client.put(`/kafscale/unknown/${index}`).value(value)
  const app = await buildOver(t, [() => new EtcdConnection(etcd.endpoints[0] as string, plain, undefined, 4 * MB)])
  await waitFor(() => app.metadata.state === 'synced' || app.metadata.reason, 5_000, 'synced')
  t.equal(app.metadata.mirror?.modRevisions.size, 40)
})

t.test('a value that is too large is the reason, with its size', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const key = '/kafscale/metadata/snapshot'
  await etcd.client.put('/kafscale/group-leases/g').value('1')
  let loads = 0
  const connect = () => {
    const connection = new EtcdConnection(etcd.endpoints[0] as string, plain, undefined, MB)
    const load = connection.load.bind(connection)
    connection.load = onPage => {
      loads++
      return load(onPage)
    }
    return connection
  }
  const app = await buildOver(t, [connect])
  await waitFor(() => app.metadata.state === 'synced' || app.metadata.reason, 5_000, 'synced')
  const warnings = t.capture(app.log, 'warn')
  await etcd.client.put(key).value(Buffer.alloc(1.2 * MB, ' '))
  const reason = 'etcd holds a value that is too large: 1.2 MB, and at most 1 MB are loaded'
  await waitFor(() => app.metadata.reason === reason || app.metadata.reason, 5_000, 'the reason')
  t.equal(app.metadata.mirror?.coordinatorId('g'), 1, 'the last state remains')

  const late = await buildOver(t, [connect])
  await waitFor(() => late.metadata.reason === reason || late.metadata.reason, 5_000, 'the reason of a late start')
  await waitFor(() => loads >= 3, 5_000, 'another load after the watch has ended')
  const logged = () => JSON.stringify(warnings().map(({ args }) => args))
  await waitFor(() => logged().includes(`for the key \\"${key}\\", more than ${MB}`) || logged(), 5_000, 'the key')

  await etcd.client.put(key).value('{}')
  await waitFor(() => app.metadata.state === 'synced' && late.metadata.state === 'synced', 15_000, 'synced again')
})

t.test('an empty keyspace is a cluster without topics or groups', needsEtcd(), async t => {
  const app = await buildSyncedApp(t, await startEtcd(t))
  const { structuredContent: status } = await callTool(app, 'cluster_status')
  t.match(status, {
    topic_count: 0,
    group_count: 0,
    controller_id: 0,
    topics: [],
    brokers: [],
    etcd: { state: 'connected' },
  })
  for (const tool of ['list_topics', 'describe_topics', 'describe_configs', 'list_groups', 'consumer_lag']) {
    t.equal((await callTool(app, tool)).structuredContent?.total, 0, tool)
  }
})

t.test('writes under other prefixes move the revision without making the mirror stale', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await etcd.client.put('/kafscale/metadata/snapshot').value('{}')
  const app = await buildSyncedApp(t, etcd)
  const states = new Set<string>()
  for (let index = 0; index < 3; index++) {
    const { header } = await etcd.client.put('processors/offsets/t/0').value(String(index))
    await waitFor(() => {
      states.add(app.metadata.state)
      return app.metadata.mirror?.revision === Number(header.revision) || app.metadata.mirror?.revision
    }, 4_000, 'the revision of a write that the watch does not report')
  }
  t.strictSame([...states], ['synced'])
  t.equal(app.metadata.counters.loads, 1)
})

t.test('after an outage of etcd, groups are not stale because no heartbeat could be stored', needsEtcd(), async t => {
  const timeoutMs = 5_000
  const etcd = await startEtcd(t)
  const members = (heartbeatAtMs: number) => new Map([['m', {
    clientId: '',
    clientHost: '',
    heartbeatAtMs,
    assignments: new Map(),
    subscriptions: [],
    sessionTimeoutMs: timeoutMs,
  }]])
  const store = (id: string, heartbeatAtMs: number) => ({
    key: formatKey({ kind: 'group-metadata', group: id }),
    value: encodeConsumerGroup(id, {
      state: 'stable',
      protocolType: 'consumer',
      protocol: 'range',
      leader: 'm',
      generationId: 1,
      rebalanceTimeoutMs: 60_000,
      members: members(heartbeatAtMs),
    }),
  })
  const app = await buildSyncedApp(t, etcd)
  const heartbeatAtMs = Date.now()
  await fill(etcd, [store('dead', heartbeatAtMs - 60_000), store('live', heartbeatAtMs)])
  await caughtUp(app, etcd)
  const groups = async () => (await ask(app, 'list_groups') as { groups: { stale: boolean }[] }).groups
  const ageMs = async (group: string) => {
    const answer = await ask(app, 'describe_group', { group_id: group }) as { members: [{ heartbeat_age_ms: number }] }
    return answer.members[0].heartbeat_age_ms
  }
  t.match(await groups(), [{ group_id: 'dead', stale: true }, { group_id: 'live', stale: false }])

  await etcd.kill()
  await waitFor(() => app.metadata.state === 'stale', 10_000, 'stale')
  await waitFor(() => Date.now() - heartbeatAtMs > timeoutMs * 1.5, 20_000, 'the session timeout')
  t.match(await groups(), [{ stale: true }, { stale: false }], 'at the time that the answer shows')
  await etcd.restart()
  await waitFor(() => app.metadata.state === 'synced' || app.metadata.reason, 10_000, 'synced')
  t.match(await groups(), [{ stale: true }, { stale: false }], 'etcd is back')
  t.ok(await ageMs('live') <= timeoutMs, 'the age leaves out the outage')
  t.ok(await ageMs('dead') > 60_000, 'that of a member that had missed its session timeout before does not')

  await fill(etcd, [store('live', Date.now())])
  await caughtUp(app, etcd)
  t.ok(await ageMs('live') <= timeoutMs)
  await waitFor(async () => (await groups())[1]?.stale, 60_000, 'the session timeout after the outage')
  t.ok(await ageMs('live') > timeoutMs)
})

t.test('if etcd was away when the service started, that time counts too', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await etcd.kill()
  const app = await buildTestApp(t, etcd.env)
  const startedAtMs = Date.now()
  await app.ready()
  await waitFor(() => app.metadata.reason === REASONS.unreachable || app.metadata.reason, 10_000, 'a failure')
  await etcd.restart()
  await waitFor(() => app.metadata.state === 'synced' || app.metadata.reason, 10_000, 'synced')
  const awayMs = app.metadata.awayMs(startedAtMs, Date.now())
  t.ok(awayMs > 0)
  t.equal(app.metadata.awayMs(0, startedAtMs - 60_000), 0, 'nothing is known of the time before')
})

// One after the other, because both capture standard error.
t.test('what is logged', needsEtcd(), async t => {
  t.test('a value that can\'t be decoded is counted, and logged once with its key\'s name', async t => {
    const etcd = await startEtcd(t)
    const key = '/kafscale/group-leases/\u202egnp.exe'
    const written = t.capture(process.stderr, 'write', () => true)
    const app = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_LOG_LEVEL: 'warn' })
    for (const value of ['x', 'y', '1', 'z']) await etcd.client.put(key).value(value)
    await caughtUp(app, etcd)
    const logged = written().map(({ args }) => String(args[0])).filter(line => line.includes('could not be decoded'))
    written.restore()
    t.equal(logged.length, 1)
    t.match(logged[0], '"key":"\\"/kafscale/group-leases/\\\\u202egnp.exe\\""')
    t.equal((await app.inject('/healthz')).json().dependencies.etcd.undecodable, 1)
  })

  t.test('a key that stands for nothing is logged once, with the reason, also when a snapshot makes it so', async t => {
    const etcd = await startEtcd(t)
    const ambiguous = '/kafscale/consumers/a/offsets/b/offsets/c/0'
    const topic = (name: string) => JSON.stringify({ Topics: [{ Topic: name }] })
    await etcd.client.put('/kafscale/brokers/0').value('x')
    await etcd.client.put('/kafscale/metadata/snapshot').value(topic('c'))
    await etcd.client.put(ambiguous).value('{"offset":1}')
    const written = t.capture(process.stderr, 'write', () => true)
    const app = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_LOG_LEVEL: 'warn' })
    for (const name of ['other', 'c', 'other']) await etcd.client.put('/kafscale/metadata/snapshot').value(topic(name))
    await etcd.client.put('/kafscale/brokers/0').value('y')
    await caughtUp(app, etcd)
    const logged = written().map(({ args }) => JSON.parse(String(args[0])) as Record<'msg' | 'key' | 'reason', string>)
    written.restore()
    t.strictSame(
      logged.filter(({ msg }) => msg === 'a key is ignored').map(({ key, reason }) => [key, reason]),
      [['"/kafscale/brokers/0"', IGNORED.unknown], [`"${ambiguous}"`, IGNORED.ambiguous]]
    )
  })

  t.test('the mirror is periodically compared with a fresh load, and repaired', async t => {
    const etcd = await startEtcd(t)
    await etcd.client.put('/kafscale/group-leases/right').value('1')
    const written = t.capture(process.stderr, 'write', () => true)
    const app = await buildSyncedApp(t, etcd, {
      KAFSCALE_MCP_VERIFY_INTERVAL: '100ms',
      KAFSCALE_MCP_LOG_LEVEL: 'error',
    })
    const { counters } = app.metadata
    await waitFor(() => counters.verifications > 1, 5_000, 'comparisons')
    t.equal(counters.differences, 0)

    const { mirror } = app.metadata
    for (const [name, value] of [['right', '2'], ['invented', '1']]) {
      mirror?.apply({
        type: 'put',
        key: Buffer.from(`/kafscale/group-leases/${name}`),
        value: Buffer.from(String(value)),
        modRevision: mirror.revision,
      })
    }
    await waitFor(() => counters.differences > 0, 5_000, 'the differences to be found')
    t.equal(counters.differences, 2)
    t.strictSame(written().map(({ args }) => JSON.parse(String(args[0])).key).sort(), [
      '"/kafscale/group-leases/invented"',
      '"/kafscale/group-leases/right"',
    ])
    written.restore()
    t.equal(app.metadata.state, 'stale', 'until it is repaired')
    await waitFor(() => app.metadata.state === 'synced', 2_000, 'another load')
    t.strictSame(app.metadata.mirror?.differences(await heldBy(etcd)), [])

    const before = counters.verifications
    for (let writes = 0; counters.verifications < before + 3; writes++) {
      await etcd.client.put('/kafscale/group-leases/busy').value(String(writes))
    }
    t.equal(counters.differences, 2, 'writes during a comparison are not differences')
  })
})

t.test('a live probe beside a dead watch never reads as synced', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await etcd.client.put('/kafscale/group-leases/a').value('1')
  const [endpoint] = etcd.endpoints as [string]
  for (const [what, write] of Object.entries({
    'a put': () => etcd.client.put('/kafscale/group-leases/b').value('1'),
    'a delete, which leaves no key behind': () => etcd.client.delete().key('/kafscale/group-leases/b').exec(),
  })) {
    const deaf = new EtcdConnection(endpoint, plain, undefined)
    const watch = deaf.watch.bind(deaf)
    deaf.watch = (revision: number, handlers: WatchHandlers) => watch(revision, { ...handlers, onEvents: () => {} })
    const app = await buildOver(t, [() => deaf, () => new EtcdConnection(endpoint, plain, undefined)])
    await waitFor(() => app.metadata.state === 'synced', 2_000, 'synced')
    const before = app.metadata.mirror?.revision ?? 0
    await write()
    await waitFor(() => app.metadata.state === 'stale' || app.metadata.state, 6_000, `stale, after ${what}`)
    t.equal(app.metadata.mirror?.revision, before, what)
    await waitFor(
      () => app.metadata.state === 'synced' && (app.metadata.mirror?.revision ?? 0) > before,
      2000,
      'synced by another connection'
    )
    t.strictSame(app.metadata.mirror?.differences(await heldBy(etcd)), [])
    await app.close()
  }
})

t.test('an etcd whose revision went backwards, as after a restore, is loaded again', needsEtcd(), async t => {
  const [old, restored] = [await startEtcd(t), await startEtcd(t)]
  for (let index = 0; index < 20; index++) await old.client.put(`/kafscale/group-leases/old${index}`).value('1')
  await restored.client.put('/kafscale/group-leases/restored').value('1')
  let swapped = false
  const connect = () => new EtcdConnection((swapped ? restored : old).endpoints[0] as string, plain, undefined)
  const connection = connect()
  const back = connect()
  const app = await buildOver(t, [() => {
    const after = new EtcdConnection(restored.endpoints[0] as string, plain, undefined)
    connection.probe = () => swapped ? after.probe() : back.probe()
    t.teardown(() => after.close())
    return connection
  }, connect])
  await waitFor(() => app.metadata.state === 'synced', 2_000, 'synced')
  swapped = true
  await waitFor(() => app.metadata.mirror?.coordinatorId('restored') === 1, 5_000, 'the restored keyspace')
  t.equal(app.metadata.mirror?.coordinatorId('old0'), null)
  back.close()
})

t.test('a load whose revision is compacted meanwhile starts again', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(
    etcd,
    Array.from({ length: 2500 }, (_, index) => ({ key: `/kafscale/group-leases/g${index}`, value: '1' }))
  )
  const [endpoint] = etcd.endpoints as [string]
  const connection = new EtcdConnection(endpoint, plain, undefined)
  const load = connection.load.bind(connection)
  /** Calls etcd's JSON gateway, without returning to the event loop. */
  const post = (path: string, body: object): { header: { revision: string } } => {
    const args = ['--silent', '--fail', '--data', JSON.stringify(body), `${endpoint}/v3/kv/${path}`]
    return JSON.parse(execFileSync('curl', args, { encoding: 'utf8' }))
  }
  let pages = 0
  connection.load = onPage => load(kvs => {
    if (pages++ === 0) {
      const { header } = post('put', { key: btoa('/kafscale/group-leases/g0'), value: btoa('2') })
      post('put', { key: btoa('x') })
      post('compaction', { revision: Number(header.revision) + 1 })
    }
    onPage(kvs)
  })
  const app = await buildOver(t, [() => connection, () => new EtcdConnection(endpoint, plain, undefined)])
  await waitFor(() => app.metadata.state === 'synced', 5_000, 'synced')
  t.equal(pages, 1, 'the first load ended there')
  t.strictSame(app.metadata.mirror?.differences(await heldBy(etcd)), [])
})

t.test('a comparison that the watch has not caught up with is postponed', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await etcd.client.put('/kafscale/group-leases/a').value('1')
  const [endpoint] = etcd.endpoints as [string]
  const connection = new EtcdConnection(endpoint, plain, undefined)
  const load = connection.load.bind(connection)
  const watch = connection.watch.bind(connection)
  const late: (() => void)[] = []
  let loads = 0
  // The second load, a comparison, sees a key that is deleted before the watch has reported it.
  connection.watch = (revision, handlers) =>
    watch(revision, {
      ...handlers,
      onEvents: events => {
        late.push(() => handlers.onEvents(events))
      },
    })
  connection.load = async onPage => {
    if (++loads === 2) await etcd.client.put('/kafscale/group-leases/passing').value('2')
    const position = await load(onPage)
    if (loads === 2) await etcd.client.delete().key('/kafscale/group-leases/passing').exec()
    return position
  }
  const app = await buildOver(t, [() => connection], { KAFSCALE_MCP_VERIFY_INTERVAL: '100ms' })
  await waitFor(() => loads > 2, 6_000, 'the next comparison')
  for (const tell of late) tell()
  t.equal(app.metadata.counters.differences, 0)
  t.equal(app.metadata.mirror?.coordinatorId('passing'), null)
  t.strictSame(app.metadata.mirror?.differences(await heldBy(etcd)), [])
})

t.test('a watch that etcd never confirms is abandoned', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const [endpoint] = etcd.endpoints as [string]
  const unconfirmed = new EtcdConnection(endpoint, plain, undefined)
  unconfirmed.watch = () => {}
  const app = await buildOver(t, [() => unconfirmed, () => new EtcdConnection(endpoint, plain, undefined)])
  await waitFor(() => app.metadata.counters.loads === 1, 2_000, 'loaded')
  t.equal(app.metadata.state, 'stale')
  await waitFor(() => app.metadata.state === 'synced', 6_000, 'synced by another connection')
  t.equal(app.metadata.counters.loads, 2)
})

t.test('an error while events are applied ends the connection, not the service', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const [endpoint] = etcd.endpoints as [string]
  const connection = new EtcdConnection(endpoint, plain, undefined)
  const watch = connection.watch.bind(connection)
  connection.watch = (revision, handlers) =>
    watch(revision, {
      ...handlers,
      onEvents: () => {
        throw new Error('broken')
      },
    })
  const app = await buildOver(t, [() => connection, () => new EtcdConnection(endpoint, plain, undefined)])
  await waitFor(() => app.metadata.state === 'synced', 2_000, 'synced')
  await etcd.client.put('/kafscale/group-leases/a').value('1')
  await waitFor(
    () => app.metadata.mirror?.coordinatorId('a') === 1 && app.metadata.state === 'synced',
    2000,
    'synced by another connection'
  )
  t.equal(app.metadata.counters.loads, 2)
})
