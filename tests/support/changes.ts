/** Changes and ledgers for tests. */
import type { Change } from '../../plugins/changes/change.ts'
import { Ledger, type Lifetimes } from '../../plugins/changes/ledger/index.ts'
import type { Etcd, Teardown } from './etcd.ts'

export const ALICE = { subject: 'alice', issuer: 'https://id.example', client_id: 'agent' }

export const LIFETIMES: Lifetimes = {
  planned: 600_000,
  pending: 86_400_000,
  approved: 3_600_000,
  ended: 90 * 86_400_000,
  ambiguous: 900_000,
  applied: 60_000,
}

/** A plan to create the topic `orders`, with the changes of a test. */
export function change (id: string, more: Partial<Change> = {}): Change {
  return {
    version: 1,
    change_id: id,
    state: 'planned',
    tool: 'create_topic',
    arguments: { topic: 'orders', partitions: 3, replication_factor: 1 },
    preconditions: [{ fact: 'topic_exists', subject: 'orders', value: false }],
    diff: [{ field: 'topic', before: null, after: 'orders' }],
    effects: { partitions: 3 },
    warnings: [],
    undo: { tool: 'delete_topic', arguments: { topic: 'orders' } },
    undo_note: '',
    environment: 'dev',
    cluster_id: 'cluster-1',
    requested_by: ALICE,
    requested_at: '2026-07-28T12:00:00.000Z',
    expires_at: '2026-07-28T12:10:00.000Z',
    revision: 1,
    requires: { mode: 'direct', approvals_needed: 0 },
    approvals: [],
    rejection: null,
    break_glass: null,
    execution: null,
    outcome: null,
    digest: 'ab'.repeat(32),
    ...more,
  }
}

/** A ledger in a real etcd, with its own client, as a replica has one. */
export function openLedger (
  t: Teardown,
  { endpoints }: Pick<Etcd, 'endpoints'>,
  more: Partial<Lifetimes> = {}
): Ledger {
  const ledger = new Ledger({ endpoints }, { ...LIFETIMES, ...more })
  t.teardown(() => ledger.close())
  return ledger
}
