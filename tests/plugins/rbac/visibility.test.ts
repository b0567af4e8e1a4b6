/**
 * A hidden topic or group does not exist for a caller: a restricted principal gets the same answers from a complete
 * etcd as an unrestricted principal gets from an etcd that lacks everything hidden.
 */
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { authority, type Client, clientOf } from '../../support/authorization.ts'
import { type Etcd, needsEtcd, startEtcd } from '../../support/etcd.ts'
import {
  type ConsumerGroupFields,
  encodeConsumerGroup,
  encodeTopicConfig,
  type Random,
  random,
} from '../../support/generate.ts'
import { ROOT } from '../../support/paths.ts'
import { buildSyncedApp, caughtUp, fill, tool } from '../../support/service.ts'
import { waitFor } from '../../support/wait-for.ts'

const RELOAD_BOUND_MS = 5_000

interface Rule {
  tools?: string[]
  topics?: string[]
  groups?: string[]
  brokers?: string[]
}
interface Role {
  allow: Rule[]
  deny: Rule[]
}

/** Everything that a cluster stores, by topic and group. */
interface Cluster {
  /** An undecodable value to store in place of the snapshot. */
  damage?: string
  topics: {
    name: string
    inSnapshot: boolean
    config?: Buffer
    partitions: { number: number, unlisted?: boolean, nextOffset?: string, owner?: string }[]
  }[]
  groups: {
    id: string
    metadata?: ConsumerGroupFields
    damage?: string
    coordinator?: string
    offsets: { topic: string, partition: number, value: string }[]
  }[]
}

/** Every string that can be reached through properties, getters, symbols, and entries of maps and sets. */
function reachable (roots: unknown[]): Set<string> {
  const texts = new Set<string>()
  const seen = new Set<unknown>()
  const waiting = [...roots]
  while (waiting.length > 0) {
    const value = waiting.pop()
    if (typeof value === 'string') texts.add(value)
    if (typeof value !== 'object' || value === null || seen.has(value)) continue
    seen.add(value)
    if (value instanceof Map) waiting.push(...value.keys(), ...value.values())
    if (value instanceof Set) waiting.push(...value)
    for (let owner = value; owner !== null && owner !== Object.prototype; owner = Object.getPrototypeOf(owner)) {
      for (const key of Reflect.ownKeys(owner)) {
        if (typeof key === 'string') texts.add(key)
        if (key !== '__proto__') waiting.push(Reflect.get(owner, key, value))
      }
    }
  }
  return texts
}

/** A second implementation of the policy, which shares no code with the service. */
function may (role: Role, tool: string, { topic, group }: { topic?: string, group?: string } = {}): boolean {
  const matches = (globs: string[], name: string) =>
    globs.some(glob =>
      new RegExp(`^${glob.replace(/[\\^$.+()[\]{}|]/g, '\\$&').replaceAll('*', '[^]*').replaceAll('?', '[^]')}$`, 'u')
        .test(name)
    )
  const denied = role.deny.some(({ tools, topics, groups, brokers }) =>
    (!tools || tools.includes(tool)) &&
    ((!topics && !groups && !brokers) || (topics && topic !== undefined && matches(topics, topic)) ||
      (groups && group !== undefined && matches(groups, group)))
  )
  return !denied && role.allow.some(({ tools, topics, groups, brokers }) =>
    (!tools || tools.includes(tool)) &&
    !(brokers && !topics && !groups && (topic !== undefined || group !== undefined)) &&
    (!topics || topic === undefined || matches(topics, topic)) &&
    (!groups || group === undefined || matches(groups, group))
  )
}

/** The keys of a cluster, without those of topics, groups, and topics of a group that a role may not see. */
function keysOf (
  { damage, topics, groups }: Cluster,
  role: Role,
  tool: string
): { key: string, value: string | Buffer }[] {
  const visible = topics.filter(({ name: topic }) => may(role, tool, { topic }))
  const snapshot = {
    Brokers: [{ NodeID: 0, Host: 'broker-0', Port: 9092 }, { NodeID: 1, Host: 'broker-1', Port: 9092 }],
    ControllerID: 0,
    Topics: visible.filter(({ inSnapshot }) => inSnapshot).map(({ name, partitions }) => ({
      Topic: name,
      ErrorCode: 0,
      Partitions: partitions.filter(({ unlisted }) => !unlisted).map(({ number }) =>
        ({ Partition: number, Leader: 0, Replicas: [0], ISR: [0] })),
    })),
    ClusterName: 'test',
  }
  return [
    { key: '/kafscale/metadata/snapshot', value: damage ?? JSON.stringify(snapshot) },
    ...visible.flatMap(({ name, config, partitions }) => [
      ...config ? [{ key: `/kafscale/topics/${name}/config`, value: config }] : [],
      ...partitions.flatMap(({ number, nextOffset, owner }) => [
        ...nextOffset === undefined
          ? []
          : [{ key: `/kafscale/topics/${name}/partitions/${number}/next_offset`, value: nextOffset }],
        ...owner === undefined ? [] : [{ key: `/kafscale/partition-leases/${name}/${number}`, value: owner }],
      ]),
    ]),
    ...groups.filter(({ id: group }) => may(role, tool, { group })).flatMap(
      ({ id: group, metadata, damage, coordinator, offsets }) => {
        const sees = (topic: string) => may(role, tool, { topic, group })
        const members = metadata?.members?.map(({ subscriptions = [], assignments = [], ...member }) => ({
          ...member,
          subscriptions: subscriptions.filter(sees),
          assignments: assignments.filter(({ topic }) => sees(topic)),
        }))
        return [
          ...metadata
            ? [{
                key: `/kafscale/consumers/${group}/metadata`,
                value: damage ?? encodeConsumerGroup({ ...metadata, members: members ?? [] }),
              }]
            : [],
          ...coordinator === undefined ? [] : [{ key: `/kafscale/group-leases/${group}`, value: coordinator }],
          ...offsets.filter(({ topic }) => sees(topic)).map(({ topic, partition, value }) => ({
            key: `/kafscale/consumers/${group}/offsets/${topic}/${partition}`,
            value,
          })),
        ]
      }
    ),
  ]
}

const EVERYTHING: Role = { allow: [{}], deny: [] }
const TOPICS = ['orders', 'orders-eu', 'orders-secret', 'payments', 'a', 'a*b', 'Ä', '😀', '__proto__', 'x/config']
const GROUPS = ['orders-1', 'orders-2', 'pay-1', 'billing', 'a', '😀', 'constructor']
const GLOBS = [
  '*',
  'orders*',
  'orders-*',
  '*-secret',
  'pay*',
  '?',
  '??',
  'a',
  'a*',
  '*a*',
  'Orders',
  '__proto__',
  '*/*',
]
const TOOLS = [
  'cluster_status',
  'list_topics',
  'describe_topics',
  'describe_configs',
  'list_groups',
  'describe_group',
  'fetch_offsets',
  'consumer_lag',
]
const HOUR_AGO = new Date(Date.now() - 3_600_000).toISOString()

function anyCluster (from: Random): Cluster {
  const partition = () => from.int(3)
  return {
    ...from.chance(0.1) && { damage: 'damaged' },
    topics: from.some(TOPICS, 9).map(name => ({
      name,
      inSnapshot: from.chance(0.8),
      ...from.chance(0.5) &&
        {
          config: from.chance(0.8)
            ? encodeTopicConfig({ name, retentionMs: BigInt(from.int(9)) })
            : Buffer.from('damaged'),
        },
      partitions: [0, 1, 2].slice(from.int(3)).map(number => ({
        number,
        ...from.chance(0.8) && { nextOffset: from.chance(0.9) ? String(from.int(500)) : 'damaged' },
        ...from.chance(0.6) && { owner: String(from.int(4)) },
        ...from.chance(0.2) && { unlisted: true },
      })),
    })),
    groups: from.some(GROUPS, 6).map(id => ({
      id,
      ...from.chance(0.6) && {
        metadata: {
          groupId: id,
          state: from.pick(['stable', 'preparing_rebalance']),
          protocolType: 'consumer',
          leader: 'm-0',
          members: Array.from({ length: from.int(4) }, (_, index) => ({
            memberId: `m-${index}`,
            heartbeatAt: HOUR_AGO,
            sessionTimeoutMs: from.pick([0, 86_400_000]),
            subscriptions: from.some(TOPICS, 3),
            assignments: from.some(TOPICS, 3).map(topic => ({
              topic,
              partitions: [...new Set([partition(), partition()])],
            })),
          })),
        },
        ...from.chance(0.1) && { damage: 'damaged' },
      },
      ...from.chance(0.5) && { coordinator: String(from.int(5)) },
      offsets: from.some(TOPICS.filter(topic => !topic.includes('/')), from.int(5)).map(topic => ({
        topic,
        partition: partition(),
        value: from.chance(0.9)
          ? JSON.stringify({ offset: from.int(500), metadata: '', committed_at: HOUR_AGO })
          : 'damaged',
      })),
    })),
  }
}

function anyRole (from: Random): Role {
  const globs = () => from.some(GLOBS, 1 + from.int(3))
  const rule = (): Rule => ({
    ...from.chance(0.15) && { tools: from.some(TOOLS, 5) },
    ...from.chance(0.7) && { topics: globs() },
    ...from.chance(0.7) && { groups: globs() },
    ...from.chance(0.2) && { brokers: ['*'] },
  })
  const rules = (count: number) => Array.from({ length: count }, rule).filter(rule => Object.keys(rule).length > 0)
  return { allow: rules(1 + from.int(4)), deny: from.chance(0.5) ? [] : rules(2) }
}

/** Inputs of a tool: without a filter, for each topic and group that may or may not exist, and with any page size. */
function questions (tool: string, from: Random): Record<string, unknown>[] {
  const limit = () => from.chance(0.5) ? {} : { limit: from.pick([1, 2, 3]) }
  const topics = [...TOPICS, 'nowhere']
  const named = () => from.some(topics, 1 + from.int(4))
  switch (tool) {
    case 'list_topics':
      return [{}, limit(), { pattern: from.pick(GLOBS), ...limit() }]
    case 'describe_topics':
      return [limit(), { names: topics, ...limit() }, { names: named(), ...limit() }]
    case 'describe_configs':
      return [limit(), { topics, ...limit() }, { topics: named(), ...limit() }]
    case 'list_groups':
      return [limit(), { state: 'empty', ...limit() }, { state: 'stable' }, { pattern: from.pick(GLOBS) }]
    case 'describe_group':
      return [...GROUPS, 'nobody'].map(group => ({ group_id: group, ...limit() }))
    case 'fetch_offsets':
      return [...GROUPS, 'nobody'].flatMap(
        group => [{ group_id: group, ...limit() }, { group_id: group, topics: named(), ...limit() }]
      )
    case 'consumer_lag':
      return [
        limit(),
        { min_lag: 50 },
        ...topics.map(topic => ({ topic, ...limit() })),
        ...[...GROUPS, 'nobody'].map(group => ({ group_id: group, ...limit() })),
      ]
    default:
      return [{}, limit()]
  }
}

/** All pages of an answer, with their cursors, but without revisions and times, which differ between services. */
async function answers (client: Client, tool: string, input: Record<string, unknown>): Promise<unknown[]> {
  const pages: unknown[] = []
  for (let cursor: unknown; ;) {
    const { isError, content, structuredContent } = await client.call(
      tool,
      cursor === undefined ? input : { ...input, cursor }
    )
    if (isError) return [...pages, content]
    const observedAtMs = Date.parse(String(structuredContent?.['observed_at']))
    pages.push(JSON.parse(JSON.stringify(structuredContent, (name, value) => {
      if (name === 'revision' || name === 'observed_at' || name === 'age_ms') return undefined
      return /_age_ms$/.test(name) && typeof value === 'number' ? observedAtMs - value : value
    })))
    cursor = structuredContent?.['next_cursor']
    if (cursor === undefined) return pages
  }
}

async function replace (etcd: Etcd, keys: { key: string, value: string | Buffer }[]): Promise<void> {
  await etcd.client.delete().all().prefix('/kafscale/').exec()
  await fill(etcd, keys)
}

t.test('no answer contains a hidden name', needsEtcd(), async t => {
  const from = random(7)
  const { env, token, policyFile } = await authority(t)
  const roles = new Map(Array.from({ length: 24 }, (_, index) => [`role-${index}`, anyRole(from)]))
  const policy = policyFile({
    roles: Object.fromEntries(roles),
    bindings: [...roles.keys()].map(role => ({ role, claim: 'sub', value: role })),
  })
  const [whole, rest] = await Promise.all([startEtcd(t), startEtcd(t)])
  const restricted = await buildSyncedApp(t, whole, { ...env, KAFSCALE_MCP_POLICY_FILE: policy })
  const open = await buildSyncedApp(t, rest)
  const anybody = clientOf(open)

  let cluster: Cluster = { topics: [], groups: [] }
  let hiding = 0
  let asked = 0
  for (const [index, [name, role]] of [...roles].entries()) {
    if (index % 2 === 0) {
      cluster = anyCluster(from)
      await replace(whole, keysOf(cluster, EVERYTHING, ''))
      await caughtUp(restricted, whole)
    }
    const all = keysOf(cluster, EVERYTHING, '')
    const client = clientOf(restricted, await token(name))
    let stored = ''
    for (const tool of TOOLS) {
      if (!may(role, tool)) {
        t.match(
          await client.call(tool, questions(tool, from)[0]),
          { content: [{ text: /^PERMISSION_DENIED: / }] },
          `${name} ${tool}`
        )
        continue
      }
      const keys = keysOf(cluster, role, tool)
      const digest = JSON.stringify(keys)
      if (digest !== stored) {
        await replace(rest, keys)
        await caughtUp(open, rest)
        stored = digest
      }
      if (digest !== JSON.stringify(all)) hiding++
      for (const input of questions(tool, from)) {
        asked++
        const [given, expected] = await Promise.all([answers(client, tool, input), answers(anybody, tool, input)])
        if (JSON.stringify(given) !== JSON.stringify(expected)) {
          t.strictSame(
            given,
            expected,
            `${tool} ${JSON.stringify(input)} for ${JSON.stringify(role)} in ${JSON.stringify(cluster)}`
          )
        }
      }
    }
  }
  t.ok(asked > 1_000, `${asked} calls were compared`)
  t.ok(hiding > 60, `in ${hiding} comparisons something was hidden`)
})

t.test('the example in the documentation', needsEtcd(), async t => {
  const { env, token, policyFile } = await authority(t)
  const etcd = await startEtcd(t)
  const offset = JSON.stringify({ offset: 10, metadata: '', committed_at: '2026-07-16T08:51:40Z' })
  const topics = ['orders', 'orders-secret', 'payments']
  await fill(
    etcd,
    keysOf(
      {
        topics: topics.map(name => ({
          name,
          inSnapshot: true,
          partitions: [{ number: 0, nextOffset: '30', owner: '0' }, { number: 1, nextOffset: '40', owner: '1' }],
        })),
        groups: [
          {
            id: 'orders-1',
            metadata: {
              groupId: 'orders-1',
              state: 'stable',
              members: [{
                memberId: 'm',
                subscriptions: topics,
                assignments: topics.map(topic => ({ topic, partitions: [0, 1] })),
              }],
            },
            offsets: [...topics.map(topic => ({ topic, partition: 0, value: offset })), {
              topic: 'orders-secret',
              partition: 1,
              value: offset.replace('16T', '17T'),
            }],
          },
          { id: 'orders-ghost', offsets: [{ topic: 'orders-secret', partition: 0, value: offset }] },
          { id: 'billing', offsets: [{ topic: 'orders', partition: 0, value: offset }] },
        ],
      },
      EVERYTHING,
      ''
    )
  )
  const policy = policyFile(`
roles:
  orders-reader:
    allow: [{ operations: [observe], topics: ["orders*"], groups: ["orders-*"] }]
    deny:  [{ topics: ["orders-secret"] }]
bindings:
  - { role: orders-reader, claim: groups, value: team-orders }
`)
  const app = await buildSyncedApp(t, etcd, { ...env, KAFSCALE_MCP_POLICY_FILE: policy })
  const { ask, call } = clientOf(app, await token('alice', { scope: 'kafscale:observe', groups: ['team-orders'] }))

  t.test('covers lists, counts and sums', async t => {
    t.match(await ask('cluster_status'), {
      topic_count: 1,
      partition_count: 2,
      group_count: 1,
      topics: [{ name: 'orders' }],
      total: 1,
      brokers: [{ partitions_owned: 1 }, { partitions_owned: 1 }],
    })
    t.match(await ask('list_topics'), { topics: [{ name: 'orders' }], total: 1 })
    t.match(await ask('describe_topics'), { topics: [{ name: 'orders' }], total: 2 })
    t.match(await ask('describe_configs'), { configs: [{ name: 'orders' }], total: 1 })
    t.match(await ask('list_groups'), {
      groups: [{
        group_id: 'orders-1',
        committed_partitions: 1,
        total_lag: 20,
        last_commit_at: '2026-07-16T08:51:40.000Z',
      }],
      total: 1,
    })
    t.match(await ask('describe_group', { group_id: 'orders-1' }), {
      total_lag: 20,
      members: [{ subscriptions: ['orders'], assignments: [{ topic: 'orders', lag: 20 }] }],
    })
    t.match(await ask('fetch_offsets', { group_id: 'orders-1' }), {
      offsets: [{ topic: 'orders', partition: 0 }, { topic: 'orders', partition: 1 }],
      total: 2,
    })
    t.match(await ask('consumer_lag', { limit: 1 }), {
      lag: [{ group_id: 'orders-1', topic: 'orders' }],
      groups: [{ total_lag: 20, partitions: 1 }],
      total: 1,
      next_cursor: undefined,
    })
    for (const tool of TOOLS) {
      const { content } = await call(
        tool,
        ['describe_group', 'fetch_offsets'].includes(tool) ? { group_id: 'orders-1' } : {}
      )
      t.notMatch(content[0]?.text, /secret|payments|billing|ghost/, tool)
    }
  })

  t.test('covers what the snapshot lacks', async t => {
    await fill(etcd, ['orders-lost', 'orders-secret', 'payments'].flatMap((name, index) => [
      { key: `/kafscale/topics/${name}/partitions/7/next_offset`, value: '30' },
      { key: `/kafscale/partition-leases/${name}/7`, value: `${5 + index}` },
      { key: `/kafscale/group-leases/${name}`, value: `${8 + index}` },
    ]))
    await caughtUp(app, etcd)
    t.match(await ask('cluster_status'), {
      topics_not_in_snapshot: 1,
      partitions_not_in_snapshot: 1,
      brokers_not_in_snapshot: [5, 8],
    })
    t.match(await ask('describe_topics'), { topics: [{ name: 'orders' }, { name: 'orders-lost' }], total: 3 })
    await etcd.client.delete().prefix('/kafscale/group-leases/')
    for (const kind of ['topics', 'partition-leases']) {
      await etcd.client.delete().prefix(`/kafscale/${kind}/orders-lost/`)
    }
    await caughtUp(app, etcd)
  })

  t.test('covers ambiguous keys, of which some reading is hidden', async t => {
    const key = (rest: string) => `/kafscale/consumers/orders-1/offsets/${rest}/0`
    const ambiguous = ['orders-x/offsets/hidden', 'hidden/offsets/orders-x', 'orders-x/offsets/orders-y'].map(key)
    await fill(etcd, ambiguous.map(key => ({ key, value: offset })))
    await caughtUp(app, etcd)
    t.equal(app.metadata.mirror?.unattributed.length, 3)
    for (const [tool, input] of [['list_groups', {}], ['describe_group', { group_id: 'orders-1' }]] as const) {
      t.match(await ask(tool, input), { ignored_keys: 1 }, tool)
    }
    for (const key of ambiguous) await etcd.client.delete().key(key)
    await caughtUp(app, etcd)
  })

  t.test('keeps hidden names out of everything that a tool can reach', async t => {
    const reached = Promise.withResolvers<Set<string>>()
    app.tools.declare(tool({
      name: 'look',
      answer: (host, _, context) => {
        reached.resolve(reachable([host, context, context.mirror(), ...context.mirror().unlisted]))
        return {}
      },
    }))
    await ask('look')
    const names = await reached.promise
    t.ok(names.has('orders') && names.has('orders-1'), 'visible names are found')
    t.strictSame([...names].filter(name => /secret|ghost|billing|payments/.test(name)), [])
  })

  t.test('answers a hidden name like an unknown one', async t => {
    const answer = async (tool: string, input: object, name: string) =>
      JSON.stringify(await call(tool, JSON.parse(JSON.stringify(input).replaceAll('NAME', name)))).replaceAll(
        name,
        'NAME'
      ).replace(/\\?"observed_at\\?":.*?,/g, '')
    for (
      const [tool, input] of [
        ['describe_topics', { names: ['NAME', 'orders'] }],
        ['describe_configs', { topics: ['NAME'] }],
        ['list_topics', { pattern: 'NAME' }],
        ['fetch_offsets', { group_id: 'orders-1', topics: ['NAME'] }],
        ['consumer_lag', { topic: 'NAME' }],
      ] as const
    ) {
      for (const name of ['orders-secret', 'payments']) {
        t.equal(await answer(tool, input, name), await answer(tool, input, 'orders-nowhere'), `${tool} ${name}`)
      }
    }
    for (const tool of ['describe_group', 'fetch_offsets', 'consumer_lag']) {
      for (const name of ['billing', 'orders-ghost']) {
        t.equal(
          await answer(tool, { group_id: 'NAME' }, name),
          await answer(tool, { group_id: 'NAME' }, 'nobody'),
          `${tool} ${name}`
        )
      }
    }
  })

  t.test('follows a new policy', async t => {
    writeFileSync(policy, readFileSync(policy, 'utf8').replace('"orders*"', '"*"').replace('"orders-secret"', 'orders'))
    const seen = async () =>
      (await ask('list_topics') as { topics: { name: string }[] }).topics.map(({ name }) => name).join()
    await waitFor(
      async () => {
        const names = await seen()
        return names === 'orders-secret,payments' || names
      },
      RELOAD_BOUND_MS,
      'the new policy'
    )
    t.match(await ask('list_groups'), {
      groups: [{ group_id: 'orders-1', committed_partitions: 3 }, { group_id: 'orders-ghost' }],
      total: 2,
    })
  })
})

t.test('only callers who see everything get the largest lag of all groups', needsEtcd(), async t => {
  const page = readFileSync(join(ROOT, 'bench/broker-page.txt'))
  const server = createServer((_, response) => response.end(page)).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const { env, token, policyFile } = await authority(t)
  const roles = {
    all: { allow: [{ operations: ['observe'] }] },
    stars: {
      allow: [{ topics: ['*'], groups: ['*'] }],
      deny: [{ operations: ['mutate'] }, { tools: ['list_topics'], topics: ['secret'] }],
    },
    some: { allow: [{ topics: ['orders*'] }] },
    few: { allow: [{ groups: ['orders*'] }] },
    less: { allow: [{ operations: ['observe'] }], deny: [{ topics: ['secret'] }] },
  }
  const app = await buildSyncedApp(t, await startEtcd(t), {
    ...env,
    KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`,
    KAFSCALE_MCP_METRICS_MAX_AGE: '1m',
    KAFSCALE_MCP_POLICY_FILE: policyFile({
      roles,
      bindings: Object.keys(roles).map(role => ({ role, claim: 'sub', value: role })),
    }),
  })
  const figures = async (role: string) => {
    const { observed_at: _, age_ms: __, ...figures } = await clientOf(app, await token(role)).ask('cluster_metrics')
    return figures as { consumer_lag_max: number | null, brokers: { consumer_lag_max: number | null }[] }
  }
  const everything = await figures('all')
  t.type(everything.consumer_lag_max, 'number')
  t.type(everything.brokers[0]?.consumer_lag_max, 'number')
  t.strictSame(await figures('stars'), everything)
  const without = {
    ...everything,
    consumer_lag_max: null,
    brokers: everything.brokers.map(broker => ({ ...broker, consumer_lag_max: null })),
  }
  for (const role of ['some', 'few', 'less']) t.strictSame(await figures(role), without, role)
})
