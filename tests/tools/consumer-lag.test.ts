/** The tools that report the lag of groups: what they know, what they do not know, and what their sums leave out. */
import t from 'tap'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { ask, buildSyncedApp, callTool, caughtUp } from '../support/service.ts'
import { commit, end, group, member, replace, snapshot } from '../support/stored.ts'

t.test('the lag of groups', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const app = await buildSyncedApp(t, etcd)
  const three = [snapshot({ t: [0, 1, 2] }), end('t', 0, 1000), end('t', 1, 1000), end('t', 2, 1000)]
  const assigned = group('g', member('m', { t: [0, 1, 2] }, ['t']))

  t.test('is unknown for partitions that are assigned without a committed offset', async t => {
    await replace(app, etcd, [...three, assigned])
    const unknown = { group_id: 'g', total_lag: null, partitions_unknown: 3 }
    for (const input of [{}, { group_id: 'g' }, { topic: 't' }, { min_lag: 0 }, { min_lag: 5000 }]) {
      t.match(await ask(app, 'consumer_lag', input), {
        lag: [],
        groups: [{ ...unknown, partitions: 0 }],
        total: 0,
        next_cursor: undefined,
      }, JSON.stringify(input))
    }
    t.match(await ask(app, 'list_groups'), { groups: [{ ...unknown, committed_partitions: 0 }] })
    t.match(await ask(app, 'describe_group', { group_id: 'g' }), {
      ...unknown,
      members: [{ assignments: [{ topic: 't', partitions: [0, 1, 2], lag: null, partitions_unknown: 3 }] }],
    })
  })

  t.test('is unknown for the others when one partition is committed', async t => {
    await replace(app, etcd, [...three, assigned, commit('g', 't', 0, 1000)])
    const known = { total_lag: 0, partitions_unknown: 2 }
    t.match(await ask(app, 'consumer_lag'), { lag: [{ partition: 0, lag: 0 }], groups: [{ ...known, partitions: 1 }] })
    t.match(await ask(app, 'consumer_lag', { min_lag: 1 }), { lag: [], groups: [known], total: 0 }, 'with min_lag')
    t.match(await ask(app, 'list_groups'), { groups: [known] })
    t.match(await ask(app, 'describe_group', { group_id: 'g' }), {
      ...known,
      members: [{ assignments: [{ lag: 0, partitions_unknown: 2 }] }],
    })
  })

  for (const [what, stored] of Object.entries({
    'the commit cannot be decoded': [...three, commit('g', 't', 0, '"1000"')],
    'the log end offset is missing': [...three.filter(({ key }) => !key.includes('/0/')), commit('g', 't', 0, 1000)],
    'the log end offset cannot be decoded': [three[0]!, end('t', 0, 'many'), commit('g', 't', 0, 1000)],
    'the topic is gone': [...three, commit('g', 'gone', 0, 1000)],
    'two members have the partition': [...three, group('g', member('a', { t: [0] }), member('b', { t: [0] }))],
    'nothing but the assignment mentions the topic': [...three, group('g', member('a', { nowhere: [7] }))],
  })) {
    t.test(`is unknown when ${what}`, async t => {
      await replace(app, etcd, stored)
      const unknown = { group_id: 'g', total_lag: null, partitions_unknown: 1 }
      t.match(await ask(app, 'consumer_lag'), { lag: [], groups: [{ ...unknown, partitions: 0 }] })
      t.match(await ask(app, 'list_groups'), { groups: [unknown] })
      t.match(await ask(app, 'describe_group', { group_id: 'g' }), unknown)
    })
  }

  t.test('fetch_offsets tells a commit that cannot be decoded from none', async t => {
    await replace(app, etcd, [...three, assigned, commit('g', 't', 0, '"1000"'), commit('g', 't', 1, 5)])
    t.match(await ask(app, 'fetch_offsets', { group_id: 'g' }), {
      offsets: [
        { partition: 0, offset: null, error: 'the stored commit cannot be decoded' },
        { partition: 1, offset: 5, error: undefined },
        { partition: 2, offset: null, error: undefined },
      ],
    })
  })

  t.test('is unknown by an unknown number of partitions when the metadata cannot be decoded', async t => {
    const damaged = { key: '/kafscale/consumers/g/metadata', value: 'damaged' }
    await replace(app, etcd, [...three, damaged, commit('g', 't', 0, 900), commit('g', 't', 1, '"x"')])
    const known = { total_lag: 100, partitions_unknown: null }
    t.match(await ask(app, 'consumer_lag'), { groups: [{ ...known, partitions: 1 }] })
    t.match(await ask(app, 'consumer_lag', { min_lag: 500 }), { groups: [known] })
    t.match(await ask(app, 'list_groups'), { groups: [known] })
    t.match(await ask(app, 'describe_group', { group_id: 'g' }), known)
  })

  t.test('a group with members but without commits and assignments is listed', async t => {
    await replace(app, etcd, [...three, group('g', member('m', {}, ['t']))])
    const nothing = { group_id: 'g', total_lag: null, partitions: 0, partitions_unknown: 0 }
    t.match(await ask(app, 'consumer_lag'), { lag: [], groups: [nothing] })
    t.match(await ask(app, 'consumer_lag', { topic: 't' }), { lag: [], groups: [nothing] }, 'for its subscription')
    t.strictSame((await ask(app, 'consumer_lag', { topic: 'other' }))['groups'], [])
  })

  t.test('a group is not listed when all its lags are known and below min_lag', async t => {
    await replace(app, etcd, [...three, group('g', member('m', { t: [0] })), commit('g', 't', 0, 990)])
    t.match(await ask(app, 'consumer_lag', { min_lag: 10 }), { lag: [{ lag: 10 }], groups: [{ total_lag: 10 }] })
    t.strictSame((await ask(app, 'consumer_lag', { min_lag: 11 }))['groups'], [])
    t.match(await ask(app, 'consumer_lag', { min_lag: 11, group_id: 'g' }), { lag: [], groups: [{ total_lag: 10 }] })
  })

  t.test('is 0, not negative, where a commit is past the log end offset', async t => {
    const both = [snapshot({ t: [0, 1] }), end('t', 0, 5000), end('t', 1, 10)]
    await replace(app, etcd, [
      ...both,
      group('g', member('m', { t: [0, 1] })),
      commit('g', 't', 0, 0),
      commit('g', 't', 1, 5010),
    ])
    const totals = { total_lag: 5000, partitions_unknown: 0, partitions_past_end: 1 }
    t.match(await ask(app, 'consumer_lag'), { groups: [{ ...totals, partitions: 2 }] })
    t.match(await ask(app, 'list_groups'), { groups: [totals] })
    t.match(await ask(app, 'describe_group', { group_id: 'g' }), {
      ...totals,
      members: [{ assignments: [{ lag: 5000, partitions_unknown: 0, partitions_past_end: 1 }] }],
    })

    await replace(app, etcd, [...both, commit('g', 't', 1, 5010)])
    t.match(await ask(app, 'list_groups'), { groups: [{ total_lag: 0, partitions_past_end: 1 }] })
  })

  t.test('is sorted and filtered by the distance where a commit is past the log end offset', async t => {
    await replace(app, etcd, [
      snapshot({ t: [0, 1, 2, 3] }),
      ...[0, 1, 2, 3].map(partition => end('t', partition, 100)),
      commit('behind', 't', 0, 90),
      commit('behind', 't', 1, 0),
      commit('current', 't', 2, 100),
      commit('past', 't', 2, 110),
      commit('past', 't', 3, 150),
    ])
    const rows = async (input: object = {}) =>
      ((await ask(app, 'consumer_lag', { ...input }))['lag'] as { group_id: string, lag: number }[])
        .map(row => `${row.group_id} ${row.lag}`)
    const all = ['behind 100', 'past -50', 'past -10', 'behind 10', 'current 0']
    t.strictSame(await rows(), all)
    for (const lag of [-20, 0]) t.strictSame(await rows({ min_lag: lag }), all, 'min_lag hides none of them')
    t.strictSame(await rows({ min_lag: 50 }), all.slice(0, 2))
    const paged: string[] = []
    let cursor: unknown
    do {
      const page = await ask(app, 'consumer_lag', { limit: 1, ...cursor !== undefined && { cursor } })
      paged.push(...(page['lag'] as { group_id: string, lag: number }[]).map(row => `${row.group_id} ${row.lag}`))
      cursor = page['next_cursor']
    } while (cursor !== undefined)
    t.strictSame(paged, all, 'page by page')
    t.match(await ask(app, 'consumer_lag', { min_lag: 51 }), {
      lag: [{ group_id: 'behind' }],
      groups: [{ group_id: 'behind' }, { group_id: 'past', total_lag: 0, partitions_past_end: 2 }],
      total: 1,
    }, 'a group past the end is listed, whatever min_lag is')
  })

  t.test('names a topic that does not exist', async t => {
    await replace(app, etcd, [
      snapshot({ t: [0], idle: [0] }),
      end('t', 0, 10),
      end('lost', 0, 10),
      commit('g', 't', 0, 4),
      commit('g', 'gone', 0, 4),
      group('h', member('m', { assigned: [0], nothing: [] }, ['subscribed'])),
      commit('h', 't', 0, 4),
    ])
    const unknown = async (input: object) => (await ask(app, 'consumer_lag', { ...input }))['unknown_topics']
    for (const topic of ['nope', 'subscribed', 'nothing']) {
      t.strictSame(await unknown({ topic }), [topic])
      t.strictSame(await unknown({ topic, min_lag: 5 }), [topic])
    }
    for (const topic of ['t', 'idle', 'lost', 'gone', 'assigned']) t.strictSame(await unknown({ topic }), [], topic)
    t.strictSame(await unknown({}), [])
    t.strictSame(await unknown({ topic: 'gone', group_id: 'h' }), ['gone'], 'the group does not consume it')
    t.strictSame(await unknown({ topic: 'idle', group_id: 'h' }), [], 'the topic exists')
    await etcd.client.put('/kafscale/metadata/snapshot').value('{')
    await caughtUp(app, etcd)
    t.strictSame(await unknown({ topic: 'nope' }), [], 'nobody knows which topics exist')
  })

  t.test('a group without members has no generation', async t => {
    const none = { generation_id: null, rebalance_timeout_ms: null, members: [] }
    await replace(app, etcd, [
      ...three,
      commit('offsets-only', 't', 0, 4),
      group('memberless'),
      group('running', member('m', {})),
    ])
    for (const id of ['offsets-only', 'memberless']) {
      t.match(await ask(app, 'describe_group', { group_id: id }), none, id)
    }
    t.match(
      await ask(app, 'describe_group', { group_id: 'running' }),
      { generation_id: 3, rebalance_timeout_ms: 60_000 }
    )
  })

  t.test('groups without rows follow the last row, page by page', async t => {
    const ids = ['a', 'b', 'c', 'd', 'e']
    await replace(app, etcd, [
      ...three,
      ...ids.map(id => group(id, member('m', { t: [0, 1] }))),
      commit('b', 't', 0, 0),
      commit('d', 't', 0, 0),
      commit('d', 't', 1, 1),
    ])
    for (const limit of [1, 2, 3, 4, 6, 100]) {
      const seen: string[] = []
      let cursor: unknown
      do {
        const page = await ask(app, 'consumer_lag', { limit, ...cursor !== undefined && { cursor } })
        const lag = page['lag'] as { group_id: string, partition: number }[]
        const listed = (page['groups'] as { group_id: string }[]).map(group => group.group_id)
        const others = listed.filter(id => !lag.some(row => row.group_id === id))
        t.ok(lag.length + others.length <= limit)
        t.equal(page['total'], 3, 'the total counts partitions')
        t.strictSame(listed, listed.toSorted())
        seen.push(...lag.map(row => `${row.group_id}/${row.partition}`), ...others)
        cursor = page['next_cursor']
      } while (cursor !== undefined)
      t.strictSame(seen, ['b/0', 'd/0', 'd/1', 'a', 'c', 'e'], `limit ${limit}`)
    }
  })

  t.test('an answer that is too large because of groups without rows names a limit that fits', async t => {
    const ids = Array.from({ length: 600 }, (_, index) => `${index}-${'x'.repeat(2_000)}`)
    await replace(app, etcd, [...three, ...ids.map(id => group(id, member('m', { t: [0] })))])
    const { content } = await callTool(app, 'consumer_lag', { limit: 1_000 })
    const [, fits] = /^RESULT_TOO_LARGE: .* Call again with limit (\d+), which fits\.$/.exec(content[0]!.text) ?? []
    const limit = Number(fits)
    t.ok(limit > 100)
    t.match(await ask(app, 'consumer_lag', { limit }), { lag: [], next_cursor: String })
  })
})
