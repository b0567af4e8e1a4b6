/** Names with slashes, which brokers accept. The key of a committed offset then has more than six parts. */
import t from 'tap'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { ask, buildSyncedApp, callTool } from '../support/service.ts'
import { commit, end, group, groupLease, member, replace, snapshot } from '../support/stored.ts'

t.test('topics and groups with slashes', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const app = await buildSyncedApp(t, etcd)

  t.test('are found like others', async t => {
    await replace(app, etcd, [
      snapshot({ 'a/b': [0] }),
      end('a/b', 0, 100),
      group('dc-1/pending', member('m', { 'a/b': [0] })),
      groupLease('dc-1/pending', 2),
      commit('dc-1/pending', 'a/b', 0, 40),
      commit('plain', 'a/b', 0, 70),
    ])
    t.match(await ask(app, 'fetch_offsets', { group_id: 'dc-1/pending', topics: ['a/b'] }), {
      offsets: [{ topic: 'a/b', partition: 0, offset: 40, log_end_offset: 100, lag: 60 }],
      unknown_topics: [],
      ignored_keys: undefined,
    })
    t.match(await ask(app, 'describe_group', { group_id: 'dc-1/pending' }), {
      state: 'stable',
      coordinator_id: 2,
      total_lag: 60,
      members: [{ assignments: [{ topic: 'a/b', lag: 60 }] }],
      ignored_keys: undefined,
    })
    t.match(await ask(app, 'list_groups', { pattern: 'dc-*' }), { groups: [{ group_id: 'dc-1/pending' }] })
    t.match(await ask(app, 'consumer_lag', { topic: 'a/b' }), {
      lag: [{ group_id: 'dc-1/pending', member_id: 'm', lag: 60 }, { group_id: 'plain', lag: 30 }],
      ignored_keys: undefined,
    })
    t.match((await app.inject('/healthz')).json(), { dependencies: { etcd: { ignored_keys: 0 } } })
  })

  t.test('are settled by the topics in the snapshot where a key is ambiguous', async t => {
    await replace(app, etcd, [snapshot({ c: [0] }), end('c', 0, 9), commit('a/offsets/b', 'c', 0, 4)])
    t.match(await ask(app, 'consumer_lag'), { lag: [{ group_id: 'a/offsets/b', topic: 'c', lag: 5 }] })
  })

  t.test('are counted and mentioned where nothing settles a key', async t => {
    const { content: before } = await callTool(app, 'describe_group', { group_id: 'a' })
    t.match(before[0]?.text, 'it has no members and no committed offsets. Call list_groups')
    await replace(app, etcd, [
      snapshot({ other: [0] }),
      end('other', 0, 9),
      commit('a', 'other', 0, 4),
      commit('elsewhere', 'other', 0, 4),
      commit('a', 'b/offsets/c', 0, 4),
      commit('a', 'b/offsets/c', 1, 4),
      { key: '/kafscale/brokers/0', value: 'x' },
    ])
    t.match(await ask(app, 'fetch_offsets', { group_id: 'a' }), { offsets: [{ topic: 'other' }], ignored_keys: 2 })
    t.match(await ask(app, 'describe_group', { group_id: 'a' }), { ignored_keys: 2 })
    t.match(await ask(app, 'describe_group', { group_id: 'elsewhere' }), { ignored_keys: undefined })
    for (const tool of ['cluster_status', 'list_groups', 'consumer_lag']) {
      t.match(await ask(app, tool), { ignored_keys: 2 }, tool)
    }
    for (const [input, ignored] of [
      [{ group_id: 'a' }, 2],
      [{ group_id: 'elsewhere' }, undefined],
      [{ topic: 'c' }, 2],
      [{ topic: 'other' }, undefined],
    ] as const) t.match(await ask(app, 'consumer_lag', input), { ignored_keys: ignored }, JSON.stringify(input))

    for (const tool of ['describe_group', 'fetch_offsets', 'consumer_lag']) {
      const { content } = await callTool(app, tool, { group_id: 'a/offsets/b' })
      t.match(
        content[0]?.text,
        "it has no members and no committed offsets, apart from 2 keys that may be its own or another group's. Call",
        tool
      )
    }
    t.match((await app.inject('/healthz')).json(), { dependencies: { etcd: { ignored_keys: 3, undecodable: 0 } } })
    t.match((await app.telemetry.page()).text, /^kafscale_mcp_mirror_ignored_keys 3$/m)
  })
})
