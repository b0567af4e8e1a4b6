import type { S3State } from '../kafscale/broker-metrics.ts'
import { type Key, PREFIX } from '../kafscale/keyspace.ts'
import type { Broker, GroupMember, Snapshot, TopicConfig } from '../kafscale/records.ts'
import { encodeCommittedOffset, encodeConsumerGroup, encodeSnapshot, encodeTopicConfig, formatKey } from './encode.ts'

const TICK_MS = 500
const TICK_SECONDS = TICK_MS / 1_000
/** Each partition is flushed, each offset committed and each heartbeat sent once per this number of ticks, in turn. */
const TURNS = 6
/** How long the cluster has already been running when the demo starts. */
const PAST_MS = 10 * 60_000
/** How long ago the idle group last ran. */
const NIGHT_MS = 7 * 3_600_000

const MAX_INT64 = 2n ** 63n - 1n
const DAY_MS = 86_400_000
/** The window over which a broker's rates are measured. */
const RATE_WINDOW_SECONDS = 60
const LATENCY_BOUNDS_MS = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_000, 5_000, Infinity]

export const CLUSTER_ID = '0d5b0f2e-6f3b-4a5c-9f43-1f1c1f7f3c11'
const BROKERS: Broker[] = [0, 1, 2].map(nodeId => (
  { nodeId, host: `demo-broker-${nodeId}.demo-broker-headless.kafscale.svc.cluster.local`, port: 9092 }))

/** `recordsPerSecond` is over all partitions. */
const TOPICS = [
  { name: 'audit-log', partitions: 1, recordsPerSecond: 2 },
  { name: 'clickstream', partitions: 8, recordsPerSecond: 200 },
  { name: 'dead-letters', partitions: 1, recordsPerSecond: 0 },
  { name: 'inventory', partitions: 3, recordsPerSecond: 30 },
  { name: 'invoices', partitions: 2, recordsPerSecond: 1 },
  { name: 'notifications', partitions: 2, recordsPerSecond: 15 },
  { name: 'orders', partitions: 6, recordsPerSecond: 40 },
  { name: 'page-views', partitions: 6, recordsPerSecond: 150 },
  { name: 'payments', partitions: 4, recordsPerSecond: 25 },
  { name: 'sensor-readings', partitions: 8, recordsPerSecond: 300 },
  { name: 'shipments', partitions: 3, recordsPerSecond: 12 },
  { name: 'user-events', partitions: 4, recordsPerSecond: 90 },
]

const CONFIGS: Record<string, Pick<TopicConfig, 'retentionMs' | 'retentionBytes'>> = {
  'audit-log': { retentionMs: MAX_INT64, retentionBytes: -1 },
  clickstream: { retentionMs: DAY_MS, retentionBytes: 50 * 1024 ** 3 },
  payments: { retentionMs: 90 * DAY_MS, retentionBytes: -1 },
}

interface GroupPlan {
  id: string
  topics: string[]
  members: number
  /** How fast it consumes after a number of seconds, as a multiple of the rate of production. */
  speed: (seconds: number) => number
  /** The interval at which a member is replaced. */
  rebalanceEverySeconds?: number
}

const keepsUp = () => 3
const fallsBehind = (slowSeconds: number, everySeconds: number) => (seconds: number) =>
  seconds % everySeconds < slowSeconds ? 0.4 : 2

const GROUPS: GroupPlan[] = [
  {
    id: 'clickstream-analytics',
    topics: ['clickstream', 'page-views'],
    members: 4,
    speed: fallsBehind(90, 180),
    rebalanceEverySeconds: 45,
  },
  { id: 'fraud-detection', topics: ['orders', 'payments'], members: 2, speed: fallsBehind(200, 400) },
  { id: 'notification-sender', topics: ['notifications'], members: 1, speed: keepsUp },
  { id: 'order-processing', topics: ['orders'], members: 3, speed: keepsUp },
  { id: 'payment-settlement', topics: ['payments'], members: 2, speed: keepsUp },
  {
    id: 'recommendations',
    topics: ['page-views', 'user-events'],
    members: 3,
    speed: keepsUp,
    rebalanceEverySeconds: 110,
  },
  { id: 'search-indexer', topics: ['inventory'], members: 2, speed: fallsBehind(60, 120) },
  { id: 'sensor-rollup', topics: ['sensor-readings'], members: 3, speed: fallsBehind(45, 90) },
  { id: 'shipping', topics: ['orders', 'shipments'], members: 2, speed: keepsUp },
]
/** Its members and their coordinator stopped when the cluster started. Their metadata remains. */
const STALE_GROUP: GroupPlan = { id: 'legacy-billing', topics: ['payments'], members: 2, speed: () => 0 }
/** Has committed offsets only. */
const IDLE_GROUP = { id: 'nightly-report', topics: ['audit-log', 'invoices'] }

const SESSION_TIMEOUT_MS = 10_000
const PREPARING_SECONDS = 3
const COMPLETING_SECONDS = 1

/** Where the cluster writes. */
export interface Store {
  put (key: string, value: Buffer): void
  deletePrefix (prefix: string): void
}

/** A change that brokers refuse. */
export class Refusal extends Error {
  readonly kind: 'exists' | 'invalid' | 'unknown'

  constructor (kind: Refusal['kind'], message: string) {
    super(message)
    this.kind = kind
  }
}

interface Partition {
  topic: string
  number: number
  recordsPerSecond: number
  leaderId: number
  replicaNodes: number[]
  owner: SimulatedBroker
  /** Fractional: only whole records are flushed. */
  end: number
  nextOffset: number
}

interface Commit { partition: Partition, consumed: number, offset: number }

interface Group {
  plan: GroupPlan
  state: 'stable' | 'preparing_rebalance' | 'completing_rebalance'
  generationId: number
  members: Map<string, GroupMember>
  commits: Commit[]
}

/** A broker's state, as shown on its metrics page. */
export interface SimulatedBroker {
  nodeId: number
  uptimeSeconds: number
  s3State: S3State
  s3StateSeconds: number
  s3LatencyMs: number
  s3ErrorRate: number
  produceRps: number
  fetchRps: number
  /** Cumulative, as in `BrokerPage`. */
  produceLatencyMs: { le: number, count: number }[]
  produceLatencySumMs: number
}

/**
 * A KafScale cluster simulated in this process. It writes to etcd what brokers and the operator would. The same seed
 * gives the same history; the time of day only affects timestamps.
 */
export class SimulatedCluster {
  readonly brokers: readonly SimulatedBroker[]
  readonly #store: Store
  readonly #random: () => number
  #partitions: Partition[]
  readonly #configs = new Map<string, TopicConfig>()
  readonly #groups: Group[]
  /** Whose metadata is stored. */
  readonly #described = new Set<string>()
  /** The offsets of groups without live members. */
  #abandoned: Commit[]
  #nowMs: number
  #ticks = 0

  /**
   * Writes the initial state.
   * @param startMs Unix milliseconds
   */
  constructor (store: Store, seed: number, startMs: number) {
    this.#store = store
    this.#random = mulberry32(seed)
    this.#nowMs = startMs
    this.brokers = BROKERS.map(({ nodeId }) => newBroker(nodeId))
    this.#partitions = TOPICS.flatMap(topic => this.#startTopic(topic))
    this.#writeSnapshot()
    this.#groups = GROUPS.map(plan => this.#startGroup(plan))
    for (const { id } of [...GROUPS, IDLE_GROUP]) {
      const { nodeId } = this.#anyBroker()
      this.#write({ kind: 'group-lease', group: id }, String(nodeId))
    }
    this.#abandoned = [...this.#startGroup(STALE_GROUP).commits, ...this.#commitLastNight()]
  }

  /** The lag of every committed offset of the cluster, in records. */
  get lags (): number[] {
    return [...this.#groups.flatMap(({ commits }) => commits), ...this.#abandoned].map(({ partition, offset }) =>
      partition.nextOffset - offset
    )
  }

  /** The cluster as every broker sees it. */
  get snapshot (): Snapshot {
    const names = new Set(this.#partitions.map(({ topic }) => topic))
    return {
      clusterName: 'demo',
      clusterId: CLUSTER_ID,
      controllerId: 0,
      brokers: BROKERS,
      topics: Array.from(names, name => ({
        name,
        errorCode: 0,
        partitions: this.#partitionsOf([name]).map(({ number, leaderId, replicaNodes }) => ({
          partition: number,
          leaderId,
          leaderEpoch: 0,
          replicaNodes,
          isrNodes: replicaNodes,
          offlineReplicas: [],
          errorCode: 0,
        })),
      })),
    }
  }

  /**
   * Simulates half a second.
   * @param nowMs its end, in Unix milliseconds
   */
  tick (nowMs: number): void {
    this.#nowMs = nowMs
    this.#ticks++
    for (const broker of this.brokers) this.#runBroker(broker)
    for (const [index, partition] of this.#partitions.entries()) this.#produce(partition, this.#isTurnOf(index))
    for (const group of this.#groups) this.#runGroup(group)
  }

  // --- What the brokers' admin API does. With `validateOnly`, it only throws what it would throw.

  /** @throws {Refusal} */
  createTopic (name: string, partitions: number, replicationFactor: number, validateOnly: boolean): void {
    if (this.#partitionsOf([name]).length > 0) throw new Refusal('exists', 'topic already exists')
    if (name === '' || partitions <= 0 || replicationFactor > BROKERS.length) {
      throw new Refusal('invalid', 'invalid topic configuration')
    }
    if (validateOnly) return
    this.#addPartitions(name, 0, partitions, 0)
    this.#writeSnapshot()
  }

  /** Its producers and consumers give up. @throws {Refusal} */
  deleteTopic (name: string): void {
    this.#requireTopic(name)
    const isOther = ({ partition }: Commit) => partition.topic !== name
    for (const group of this.#groups) group.commits = group.commits.filter(isOther)
    this.#abandoned = this.#abandoned.filter(isOther)
    this.#partitions = this.#partitions.filter(({ topic }) => topic !== name)
    this.#configs.delete(name)
    this.#store.deletePrefix(`${PREFIX}topics/${name}/`)
    for (const { id } of [...GROUPS, STALE_GROUP, IDLE_GROUP]) {
      this.#store.deletePrefix(`${PREFIX}consumers/${id}/offsets/${name}/`)
    }
    this.#writeSnapshot()
  }

  /** Producers use the new partitions, and consumers read them from their start. @throws {Refusal} */
  createPartitions (name: string, count: number, validateOnly: boolean): void {
    const existing = this.#requireTopic(name)
    if (count <= existing.length) throw new Refusal('invalid', 'invalid topic configuration')
    if (validateOnly) return
    const recordsPerSecond = existing.reduce((sum, partition) => sum + partition.recordsPerSecond, 0) / count
    for (const partition of existing) partition.recordsPerSecond = recordsPerSecond
    const added = this.#addPartitions(name, existing.length, count, recordsPerSecond)
    for (const group of this.#groups.filter(({ plan }) => plan.topics.includes(name))) {
      group.commits.push(...added.map(partition => ({ partition, consumed: 0, offset: 0 })))
      if (group.state !== 'stable') continue // the partitions are assigned in a moment
      for (const member of group.members.values()) member.assignments = new Map()
      this.#assign(group)
      this.#writeGroup(group)
    }
    this.#writeSnapshot()
  }

  /** @throws {Refusal} */
  alterConfig (name: string, changes: Partial<TopicConfig>, validateOnly: boolean): void {
    const { length: partitions } = this.#requireTopic(name)
    if (validateOnly) return
    this.#writeConfig(name, {
      partitions,
      replicationFactor: partitions, // as brokers write it
      retentionMs: -1,
      retentionBytes: -1,
      segmentBytes: 0,
      createdAtMs: this.#nowMs,
      config: new Map(),
      ...this.#configs.get(name),
      ...changes,
    })
  }

  /** Live members join again with their next heartbeat. @returns whether there was one */
  deleteGroup (id: string): boolean {
    if (!this.#described.delete(id)) return false
    this.#store.deletePrefix(formatKey({ kind: 'group-metadata', group: id }))
    return true
  }

  #requireTopic (name: string): Partition[] {
    const partitions = this.#partitionsOf([name])
    if (partitions.length === 0) throw new Refusal('unknown', 'unknown topic')
    return partitions
  }

  /** Brokers place all new partitions on the first one. */
  #addPartitions (topic: string, from: number, to: number, recordsPerSecond: number): Partition[] {
    const owner = this.brokers[0] as SimulatedBroker
    const { nodeId } = owner
    const added = Array.from({ length: to - from }, (_, index) => ({
      topic,
      number: from + index,
      recordsPerSecond,
      leaderId: nodeId,
      replicaNodes: [nodeId],
      owner,
      end: 0,
      nextOffset: 0,
    }))
    const last = this.#partitions.findLastIndex(partition => partition.topic === topic)
    this.#partitions.splice(last < 0 ? this.#partitions.length : last + 1, 0, ...added)
    return added
  }

  get #seconds (): number {
    return this.#ticks * TICK_SECONDS
  }

  #isTurnOf (index: number): boolean {
    return (this.#ticks + index) % TURNS === 0
  }

  #anyBroker (): SimulatedBroker {
    return this.brokers[Math.floor(this.#random() * this.brokers.length)] as SimulatedBroker
  }

  // --- Brokers and topics

  #startTopic ({ name, partitions, recordsPerSecond }: typeof TOPICS[number]): Partition[] {
    const config = CONFIGS[name]
    if (config) {
      this.#writeConfig(name, {
        partitions,
        replicationFactor: BROKERS.length,
        ...config,
        segmentBytes: 0,
        createdAtMs: this.#nowMs,
        config: new Map(),
      })
    }
    return Array.from({ length: partitions }, (_, number) => {
      const end = recordsPerSecond === 0 ? 0 : Math.floor(1e6 * (1 + this.#random()))
      const partition = {
        topic: name,
        number,
        recordsPerSecond: recordsPerSecond / partitions,
        leaderId: number % BROKERS.length,
        replicaNodes: BROKERS.map(({ nodeId }) => nodeId),
        owner: this.#anyBroker(),
        end,
        nextOffset: end,
      }
      if (recordsPerSecond > 0) {
        this.#write({ kind: 'next-offset', topic: name, partition: number }, String(end))
        this.#write({ kind: 'partition-lease', topic: name, partition: number }, String(partition.owner.nodeId))
      }
      return partition
    })
  }

  #writeSnapshot (): void {
    this.#write({ kind: 'snapshot' }, encodeSnapshot(this.snapshot))
  }

  #writeConfig (topic: string, config: TopicConfig): void {
    this.#configs.set(topic, config)
    this.#write({ kind: 'topic-config', topic }, encodeTopicConfig(topic, config))
  }

  /** S3 is slow for 30 s of every 2 minutes. One broker does not use it then, so it stays healthy. */
  #runBroker (broker: SimulatedBroker): void {
    const slow = this.#seconds % 120 >= 60 && this.#seconds % 120 < 90 && broker.nodeId !== 2
    broker.s3LatencyMs += ((slow ? 900 : 25) * (0.8 + 0.4 * this.#random()) - broker.s3LatencyMs) * 0.1
    broker.s3ErrorRate += ((slow ? 0.12 : 0) * this.#random() - broker.s3ErrorRate) * 0.1
    const state = s3State(broker.s3LatencyMs, broker.s3ErrorRate)
    broker.s3StateSeconds = state === broker.s3State ? broker.s3StateSeconds + TICK_SECONDS : 0
    broker.s3State = state
    broker.uptimeSeconds += TICK_SECONDS
    broker.produceRps *= 1 - TICK_SECONDS / RATE_WINDOW_SECONDS
    broker.fetchRps *= 1 - TICK_SECONDS / RATE_WINDOW_SECONDS
  }

  #produce (partition: Partition, flush: boolean): void {
    const { topic, number, recordsPerSecond, owner } = partition
    const records = recordsPerSecond * TICK_SECONDS * 2 * this.#random()
    partition.end += records
    owner.produceRps += records / RATE_WINDOW_SECONDS
    if (!flush || Math.floor(partition.end) === partition.nextOffset) return
    partition.nextOffset = Math.floor(partition.end)
    this.#write({ kind: 'next-offset', topic, partition: number }, String(partition.nextOffset))
    const latencyMs = Math.round(4 + owner.s3LatencyMs * (0.5 + this.#random()))
    owner.produceLatencySumMs += latencyMs
    for (const bucket of owner.produceLatencyMs) if (latencyMs <= bucket.le) bucket.count++
  }

  // --- Groups

  #startGroup (plan: GroupPlan): Group {
    const commits = this.#partitionsOf(plan.topics).map(partition => ({
      partition,
      consumed: partition.nextOffset,
      offset: partition.nextOffset,
    }))
    for (const commit of commits) this.#writeCommit(plan.id, commit)
    const group: Group = { plan, state: 'stable', generationId: 1, members: new Map(), commits }
    for (let i = 0; i < plan.members; i++) this.#join(group)
    this.#assign(group)
    this.#writeGroup(group)
    return group
  }

  #commitLastNight (): Commit[] {
    return this.#partitionsOf(IDLE_GROUP.topics).map(partition => {
      const offset = partition.nextOffset - Math.floor(partition.recordsPerSecond * NIGHT_MS / 1_000)
      const commit = { partition, consumed: offset, offset }
      this.#writeCommit(IDLE_GROUP.id, commit, this.#nowMs - NIGHT_MS)
      return commit
    })
  }

  #partitionsOf (topics: string[]): Partition[] {
    return this.#partitions.filter(({ topic }) => topics.includes(topic))
  }

  #runGroup (group: Group): void {
    this.#rebalance(group)
    if (group.state === 'stable') this.#consume(group)
    for (const [index, member] of [...group.members.values()].entries()) {
      if (!this.#isTurnOf(index)) continue
      member.heartbeatAtMs = this.#nowMs
      this.#writeGroup(group)
    }
  }

  #consume ({ plan, commits }: Group): void {
    for (const [index, commit] of commits.entries()) {
      const { partition } = commit
      const consumed = Math.min(
        partition.nextOffset,
        commit.consumed + plan.speed(this.#seconds) * partition.recordsPerSecond * TICK_SECONDS
      )
      partition.owner.fetchRps += (consumed - commit.consumed) / RATE_WINDOW_SECONDS
      commit.consumed = consumed
      if (!this.#isTurnOf(index) || Math.floor(consumed) === commit.offset) continue
      commit.offset = Math.floor(consumed)
      this.#writeCommit(plan.id, commit)
    }
  }

  /**
   * A rebalance revokes all assignments, replaces the oldest member, and assigns the partitions to the current members.
   */
  #rebalance (group: Group): void {
    const every = group.plan.rebalanceEverySeconds
    if (every === undefined) return
    const since = this.#seconds % every
    const state = since < PREPARING_SECONDS
      ? 'preparing_rebalance'
      : since < PREPARING_SECONDS + COMPLETING_SECONDS
        ? 'completing_rebalance'
        : 'stable'
    if (state === group.state) return
    group.state = state
    if (state === 'preparing_rebalance') {
      group.generationId++
      const [oldest = ''] = group.members.keys()
      group.members.delete(oldest)
      for (const member of group.members.values()) member.assignments = new Map()
    } else if (state === 'completing_rebalance') {
      this.#join(group)
    } else {
      this.#assign(group)
    }
    this.#writeGroup(group)
  }

  #join ({ plan, members }: Group): void {
    // Brokers do not know a client's id and host.
    members.set(`${plan.id}-${BigInt(Math.floor(this.#random() * 2 ** 63))}`, {
      clientId: '',
      clientHost: '',
      heartbeatAtMs: this.#nowMs,
      assignments: new Map(),
      subscriptions: plan.topics,
      sessionTimeoutMs: SESSION_TIMEOUT_MS,
    })
  }

  #assign ({ plan, members }: Group): void {
    const all = [...members.values()]
    for (const [index, { topic, number }] of this.#partitionsOf(plan.topics).entries()) {
      const { assignments } = all[index % all.length] as GroupMember
      assignments.set(topic, [...assignments.get(topic) ?? [], number])
    }
  }

  // --- Stored records

  #writeGroup ({ plan, state, generationId, members }: Group): void {
    const [leader = ''] = members.keys()
    this.#described.add(plan.id)
    this.#write(
      { kind: 'group-metadata', group: plan.id },
      encodeConsumerGroup(plan.id, {
        state,
        protocolType: 'consumer',
        protocol: 'RoundRobinAssigner',
        leader,
        generationId,
        rebalanceTimeoutMs: 60_000,
        members,
      })
    )
  }

  #writeCommit (group: string, { partition: { topic, number }, offset }: Commit, committedAtMs = this.#nowMs): void {
    this.#write(
      { kind: 'committed-offset', group, topic, partition: number },
      encodeCommittedOffset({ offset, metadata: '', committedAtMs })
    )
  }

  #write (key: Key, value: Buffer | string): void {
    this.#store.put(formatKey(key), Buffer.from(value))
  }
}

/** Starts a cluster with ten minutes of history. It runs in real time until the process ends. */
export function startCluster (store: Store, seed: number): SimulatedCluster {
  const nowMs = Date.now()
  const cluster = new SimulatedCluster(store, seed, nowMs - PAST_MS)
  for (let atMs = nowMs - PAST_MS; atMs < nowMs;) cluster.tick(atMs += TICK_MS)
  setInterval(() => cluster.tick(Date.now()), TICK_MS)
  return cluster
}

function newBroker (nodeId: number): SimulatedBroker {
  return {
    nodeId,
    uptimeSeconds: 0,
    s3State: 'healthy',
    s3StateSeconds: 0,
    s3LatencyMs: 25,
    s3ErrorRate: 0,
    produceRps: 0,
    fetchRps: 0,
    produceLatencyMs: LATENCY_BOUNDS_MS.map(le => ({ le, count: 0 })),
    produceLatencySumMs: 0,
  }
}

/** The thresholds of KafScale's brokers. */
function s3State (latencyMs: number, errorRate: number): S3State {
  if (latencyMs >= 3_000 || errorRate >= 0.6) return 'unavailable'
  return latencyMs >= 500 || errorRate >= 0.2 ? 'degraded' : 'healthy'
}

/** A generator of random numbers in [0, 1) that is determined by its seed. */
function mulberry32 (seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
