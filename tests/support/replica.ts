/** A replica of the change path in the test's process, with a real ledger, mirror and audit log. */
import { join } from 'node:path'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import { EVERYTHING } from '../../kafscale/visible-mirror.ts'
import audit from '../../plugins/audit/index.ts'
import type { LogRecord } from '../../plugins/audit/record.ts'
import type { Principal } from '../../plugins/auth/principal.ts'
import type { Change, ChangeView } from '../../plugins/changes/change.ts'
import { type Changes, changesOf } from '../../plugins/changes/index.ts'
import { KINDS } from '../../plugins/changes/kinds/index.ts'
import { Ledger, type Lifetimes } from '../../plugins/changes/ledger/index.ts'
import type { ChangePolicy, Parts, Step, Telling } from '../../plugins/changes/parts.ts'
import { Settler } from '../../plugins/changes/settle.ts'
import { readConfig } from '../../plugins/config/read.ts'
import etcdPlugin from '../../plugins/etcd/index.ts'
import type { KafkaAdmin } from '../../plugins/kafka-admin/index.ts'
import metadata from '../../plugins/metadata.ts'
import type { Caller } from '../../tools/tool.ts'
import { recordsOf } from './audit.ts'
import { ChangeBroker, CLUSTER_ID } from './change-broker.ts'
import { LIFETIMES } from './changes.ts'
import { type Etcd, startEtcd } from './etcd.ts'
import { type Teardown, temporaryFolder } from './run.ts'
import { CALLER } from './service.ts'
import { waitFor } from './wait-for.ts'

export const NO_PROGRESS = (): void => {}

/** Somebody who is signed in. */
export function caller (subject: string, more: Partial<Principal> = {}): Caller {
  const principal = { ...CALLER.principal, subject, issuer: 'https://id.example', method: 'oidc' as const, ...more }
  return { ...CALLER, principal, receivedAt: new Date() }
}

/** A policy that allows everything, with the exceptions of a test. */
export class TestPolicy implements ChangePolicy {
  changesClosed = false
  mode: 'direct' | 'approval' | 'closed' = 'direct'
  approvals = 1
  /** Who is denied what, such as `bob apply`. */
  readonly denied = new Set<string>()
  /** Who may not see any topic. */
  readonly blind = new Set<string>()
  roles = () => ['operator']
  boundClaims = ({ claims }: Principal) => claims
  decide = () => ({ kind: 'allowed', rule: 'operator.allow[0]' }) as const
  visibility = ({ subject }: Principal) =>
    this.blind.has(subject) ? { ...EVERYTHING, everything: false, topic: () => false } : EVERYTHING

  decideOn = ({ subject }: Principal, step: Step) =>
    this.denied.has(`${subject} ${step}`)
      ? { kind: 'denied', rule: 'no-rule', needs: `a role that allows ${step}` } as const
      : { kind: 'allowed', rule: 'operator.allow[0]' } as const

  requirement = () => ({ mode: this.mode, approvals: this.approvals, rule: 'changes[0]' })
}

export interface Replica {
  changes: Changes
  parts: Parts
  settler: Settler
  /** What others were told. */
  told: { what: Telling, view: ChangeView }[]
  /** The audit records of a change, or of all. */
  records: (id?: string) => LogRecord[]
  close: () => Promise<void>
}

export interface ReplicaOptions {
  endpoints: readonly string[]
  /** Of the ledger, by default the same. */
  ledgerEndpoints?: readonly string[]
  admin: KafkaAdmin
  policy?: ChangePolicy
  lifetimes?: Partial<Lifetimes>
  auditFile?: string
  /** After which time the settler asks brokers about ambiguous changes. */
  requestEndsMs?: number
  more?: Partial<Parts>
}

let count = 0

/** Builds a replica and waits until it is synced. It settles changes once `settler.start()` is called. */
export async function buildReplica (t: Teardown, options: ReplicaOptions): Promise<Replica> {
  const { endpoints, ledgerEndpoints = endpoints, admin, policy = new TestPolicy(), more = {} } = options
  const auditFile = options.auditFile ?? join(temporaryFolder(t), 'audit.jsonl')
  const lifetimes = { ...LIFETIMES, ...options.lifetimes }
  const config = {
    ...readConfig({ KAFSCALE_MCP_ETCD_ENDPOINTS: endpoints.join(',') }),
    auditSinks: [{ kind: 'file' as const, path: auditFile }],
  }
  const app = Fastify()
  app.register(fp(async app => { app.decorate('config', config) }, { name: 'config' }))
  app.register(etcdPlugin)
  app.register(metadata)
  app.register(audit)
  await app.ready()
  await waitFor(() => app.metadata.state === 'synced' || app.metadata.reason, 4_000, 'synced')
  const told: Replica['told'] = []
  const ledger = new Ledger({ endpoints: ledgerEndpoints }, lifetimes)
  const parts: Parts = {
    settings: {
      expectedClusterId: CLUSTER_ID,
      environment: 'dev',
      maxPartitions: 128,
      publicUrl: 'https://mcp.example',
      plannedLifetimeMs: lifetimes.planned,
      pendingLifetimeMs: lifetimes.pending,
      approvedLifetimeMs: lifetimes.approved,
    },
    ledger,
    metadata: app.metadata,
    authorize: policy,
    audit: app.audit,
    kafkaAdmin: admin,
    brokerControl: {
      configured: true,
      status: async ({ nodeId }) => ({ nodeId, version: 'dev', ready: true, s3: null }),
      send: async () => ({ kind: 'unsupported' }),
    },
    kinds: KINDS,
    writeRate: () => null,
    tell: async (what, view) => {
      told.push({ what, view })
      return true
    },
    onState: () => {},
    log: app.log,
    replica: `replica-${count++}-${process.pid}`,
    unsaved: new Map(),
    ...more,
  }
  const settler = new Settler(parts, { everyMs: 50, requestEndsMs: options.requestEndsMs ?? 60_000 })
  const close = async () => {
    await settler.stop()
    ledger.close()
    await app.close()
  }
  t.teardown(close)
  return {
    changes: changesOf(parts),
    parts,
    settler,
    told,
    records: id => recordsOf(auditFile).filter(record => id === undefined
      ? record.change_id !== undefined
      : record.change_id === id),
    close,
  }
}

export interface Setup { etcd: Etcd, broker: ChangeBroker, policy: TestPolicy, replica: Replica }

/** A cluster without topics, and a replica. */
export async function setUp (t: Teardown, options: Partial<ReplicaOptions> = {}): Promise<Setup> {
  const etcd = await startEtcd(t)
  const broker = new ChangeBroker(etcd)
  await broker.store(await broker.snapshot())
  const policy = new TestPolicy()
  const replica = await buildReplica(t, { endpoints: etcd.endpoints, admin: broker.admin(), policy, ...options })
  return { etcd, broker, policy, replica }
}

/** Proposes to create a topic. */
export async function proposeTopic ({ changes }: Replica, by: Caller, topic = 'orders'): Promise<Change> {
  const { signal } = new AbortController()
  return (await changes.propose(by, 'create_topic', { topic, partitions: 3 }, signal)).change
}
