/**
 * What etcd has and the snapshot lacks. A broker that could not read etcd when it started overwrites the snapshot with
 * its own, almost empty one; the keys of the other topics stay.
 */
import t from 'tap'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { ask, buildSyncedApp } from '../support/service.ts'
import { commit, end, group, groupLease, lease, member, replace, snapshot } from '../support/stored.ts'

const LOST = {
  error_code: 3,
  error: /^missing from the snapshot, .* overwritten the snapshot$/,
  in_snapshot: false,
}

t.test('with an overwritten snapshot', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const app = await buildSyncedApp(t, etcd)
  const others = Array.from({ length: 100 }, (_, index) => `topic-${index}`)
  const stored = [
    end('orders', 0, 10),
    ...others.map(topic => end(topic, 0, 100)),
    end('payments', 0, 50),
    end('payments', 1, 'many'),
    { key: '/kafscale/topics/payments/partitions/2', value: '' },
    { key: '/kafscale/topics/altered/config', value: '' },
    lease('orders', 0, 5),
    lease('payments', 0, 0),
    lease('payments', 2, 12),
    groupLease('billing', 1),
    group('billing', member('m', { payments: [0, 1], orders: [0] })),
    commit('billing', 'payments', 0, 20),
    commit('billing', 'orders', 0, 10),
  ]
  await replace(app, etcd, [snapshot({ orders: [0], demo: [0] }, [5]), ...stored])

  t.test('cluster_status says what is missing', async t => {
    t.match(await ask(app, 'cluster_status'), {
      topic_count: 2,
      partition_count: 2,
      topics_not_in_snapshot: 102,
      partitions_not_in_snapshot: 103,
      brokers: [{ node_id: 5, partitions_owned: 1 }],
      brokers_not_in_snapshot: [0, 1, 12],
    })
    t.match(await ask(app, 'list_topics'), { topics: [{ name: 'demo' }, { name: 'orders' }], total: 2 })
  })

  t.test('describe_topics shows the topics with what is known of them', async t => {
    const unlisted = { in_snapshot: false, error_code: 3, leader_id: null, leader_epoch: null, replica_nodes: [] }
    const payments = {
      name: 'payments',
      ...LOST,
      partition_count: 3,
      partitions: [
        { partition: 0, ...unlisted, owner_id: 0, log_end_offset: 50 },
        { partition: 1, ...unlisted, owner_id: null, log_end_offset: null },
        { partition: 2, ...unlisted, owner_id: 12, log_end_offset: null },
      ],
    }
    t.match(await ask(app, 'describe_topics', { names: ['payments', 'altered', 'orders', 'nowhere'] }), {
      topics: [
        { name: 'altered', ...LOST, partition_count: 0, partitions: [] },
        { name: 'nowhere', error_code: 3, error: 'unknown topic', in_snapshot: undefined, partitions: [] },
        {
          name: 'orders',
          error_code: 0,
          error: undefined,
          in_snapshot: undefined,
          partitions: [{ in_snapshot: undefined, log_end_offset: 10 }],
        },
        payments,
      ],
      total: 6,
    })
    const all = await ask(app, 'describe_topics')
    t.equal(all['total'], 1 + 1 + 1 + 3 + 100)
    t.match((all['topics'] as { name: string }[])[0], { name: 'altered' }, 'all topics, sorted by name')
    const page = await ask(app, 'describe_topics', { names: ['payments'], limit: 2 })
    t.match(page, { topics: [{ partition_count: 3, partitions: [{ partition: 0 }, { partition: 1 }] }] })
    t.match(await ask(app, 'describe_topics', { names: ['payments'], limit: 2, cursor: page['next_cursor'] }), {
      topics: [{ ...LOST, partitions: [{ partition: 2 }] }],
    })
  })

  t.test('describe_configs does not take the topics for unknown', async t => {
    const { configs } = await ask(app, 'describe_configs', { topics: ['payments', 'altered', 'orders', 'nowhere'] })
    t.match(configs, [
      { name: 'altered', exists: true, in_snapshot: false, partitions: 0, replication_factor: null },
      { name: 'nowhere', exists: false, in_snapshot: undefined, partitions: 0, replication_factor: 0 },
      { name: 'orders', exists: true, in_snapshot: undefined, partitions: 1 },
      { name: 'payments', exists: true, in_snapshot: false, partitions: 3, replication_factor: null },
    ])
    t.match(await ask(app, 'describe_configs'), { total: 1 + 1 + 1 + 1 + 100 }, 'all topics, as in describe_topics')
  })

  t.test('the log ends count for lag, and rows say that the snapshot lacks their partition', async t => {
    t.match(await ask(app, 'consumer_lag'), {
      lag: [
        { topic: 'payments', partition: 0, log_end_offset: 50, lag: 30, in_snapshot: false },
        { topic: 'orders', partition: 0, lag: 0, in_snapshot: undefined },
      ],
      groups: [{ total_lag: 30, partitions: 2, partitions_unknown: 1 }],
    })
    t.match(await ask(app, 'list_groups'), { groups: [{ total_lag: 30, partitions_unknown: 1 }] })
    t.match(await ask(app, 'describe_group', { group_id: 'billing' }), {
      members: [{ assignments: [{ topic: 'orders', lag: 0 }, { topic: 'payments', lag: 30, partitions_unknown: 1 }] }],
    })
    t.match(await ask(app, 'fetch_offsets', { group_id: 'billing', topics: ['payments', 'orders', 'nowhere'] }), {
      offsets: [
        { topic: 'orders', partition: 0, in_snapshot: undefined },
        { topic: 'payments', partition: 0, offset: 20, log_end_offset: 50, lag: 30, in_snapshot: false },
        { topic: 'payments', partition: 1, offset: null, in_snapshot: false },
        { topic: 'payments', partition: 2, offset: null, in_snapshot: false },
      ],
      unknown_topics: ['nowhere'],
    })
    t.match(
      await ask(app, 'fetch_offsets', { group_id: 'billing', topics: ['altered'] }),
      { offsets: [], unknown_topics: [] },
      'a topic that only has a config is not unknown'
    )
  })

  t.test('a partition alone can be missing', async t => {
    await replace(app, etcd, [
      snapshot({ orders: [0] }, [5]),
      end('orders', 0, 10),
      end('orders', 1, 70),
      lease('orders', 1, 5),
      commit('g', 'orders', 1, 60),
    ])
    t.match(await ask(app, 'cluster_status'), {
      topic_count: 1,
      partition_count: 1,
      topics_not_in_snapshot: 0,
      partitions_not_in_snapshot: 1,
      brokers: [{ partitions_owned: 1 }],
      brokers_not_in_snapshot: [],
    })
    t.match(await ask(app, 'describe_topics'), {
      topics: [{
        error_code: 0,
        error: undefined,
        in_snapshot: undefined,
        partition_count: 2,
        partitions: [
          { partition: 0, in_snapshot: undefined, leader_id: 0 },
          { partition: 1, in_snapshot: false, leader_id: null, owner_id: 5, log_end_offset: 70 },
        ],
      }],
    })
    t.match(await ask(app, 'consumer_lag'), { lag: [{ partition: 1, lag: 10, in_snapshot: false }] })
  })

  t.test('leases and committed offsets alone are what is left of a deleted topic', async t => {
    await replace(app, etcd, [snapshot({}, [5]), lease('deleted', 0, 5), commit('g', 'deleted', 0, 1)])
    t.match(await ask(app, 'cluster_status'), { topics_not_in_snapshot: 0, partitions_not_in_snapshot: 0 })
    t.match(await ask(app, 'describe_topics', { names: ['deleted'] }), { topics: [{ error: 'unknown topic' }] })
    t.match(await ask(app, 'list_groups'), { groups: [{ total_lag: null, partitions_unknown: 1 }] })
    t.match(await ask(app, 'fetch_offsets', { group_id: 'g' }), { offsets: [{ lag: null, in_snapshot: false }] })
  })

  t.test('while the snapshot cannot be decoded, nobody knows what it lacks', async t => {
    await replace(app, etcd, [{ key: '/kafscale/metadata/snapshot', value: '{' }, ...stored])
    t.match(await ask(app, 'cluster_status'), {
      topics_not_in_snapshot: null,
      partitions_not_in_snapshot: null,
      brokers: [],
      brokers_not_in_snapshot: [0, 1, 5, 12],
    })
    t.match(await ask(app, 'consumer_lag'), {
      lag: [
        { topic: 'payments', lag: 30, in_snapshot: undefined },
        { topic: 'orders', lag: 0, in_snapshot: undefined },
      ],
    })
  })

  t.test('without a snapshot, it lacks everything', async t => {
    await replace(app, etcd, stored)
    t.match(await ask(app, 'cluster_status'), {
      topic_count: 0,
      topics_not_in_snapshot: 103,
      partitions_not_in_snapshot: 104,
      brokers_not_in_snapshot: [0, 1, 5, 12],
    })
  })
})
