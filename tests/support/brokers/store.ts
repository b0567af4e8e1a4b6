/**
 * What a KafScale broker keeps in memory, and what it writes into etcd: the whole snapshot at each change of a topic,
 * from its own copy and without comparing, so that the last writer wins.
 */
import { createHash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { decodeTopicConfig } from '../../../kafscale/records.ts'
import type { Etcd } from '../etcd.ts'
import { encodePartitionState, encodeTopicConfig } from '../generate.ts'

export const SNAPSHOT_KEY = '/kafscale/metadata/snapshot'

/** The snapshot, with the names and the order of its JSON. */
export interface Snapshot {
  Brokers: SnapshotBroker[] | null
  ControllerID: number
  Topics: SnapshotTopic[] | null
  ClusterName: string | null
  ClusterID: string | null
}

interface SnapshotBroker { NodeID: number, Host: string, Port: number, Rack: string | null, UnknownTags: object }

interface SnapshotTopic {
  ErrorCode: number
  Topic: string
  TopicID: number[]
  IsInternal: boolean
  Partitions: SnapshotPartition[] | null
  AuthorizedOperations: number
  UnknownTags: object
}

interface SnapshotPartition {
  ErrorCode: number
  Partition: number
  Leader: number
  LeaderEpoch: number
  Replicas: number[] | null
  ISR: number[] | null
  OfflineReplicas: number[] | null
  UnknownTags: object
}

/** A change that the store refuses, or etcd did not take. */
export class StoreError extends Error {
  readonly kind: 'exists' | 'invalid' | 'unknown' | 'etcd'

  constructor (kind: StoreError['kind'], message: string) {
    super(message)
    this.kind = kind
  }
}

const exists = () => new StoreError('exists', 'topic already exists')
const invalid = () => new StoreError('invalid', 'invalid topic configuration')
const unknown = () => new StoreError('unknown', 'unknown topic')

/** How often a broker asks etcd again once it did not answer. */
const PROBE_MS = 500

export class BrokerStore {
  /** The broker's own copy. */
  state: Snapshot
  /** Whether the last operation of etcd succeeded: if not, the broker refuses changes without trying. */
  available = true
  /** Whether the copy follows etcd. */
  following = true
  /** How many of the next writes of the snapshot fail, although the change stays in memory. */
  failingWrites = 0
  /** Called when the copy was replaced by etcd's. */
  onRefresh = (): void => {}

  readonly #client: Etcd['once']
  readonly #ended = new AbortController()
  #stopWatching = async (): Promise<void> => {}
  #lock: Promise<unknown> = Promise.resolve()

  constructor (etcd: Etcd, state: Snapshot) {
    this.#client = etcd.once
    this.state = state
  }

  /** Follows etcd from now on. `before` delays each refresh, as a stopped process does. */
  async start (read: boolean, before: () => Promise<void>): Promise<void> {
    const watcher = await this.#client.watch().prefix(SNAPSHOT_KEY).create()
    watcher.on('put', () => {
      void before().then(async () => {
        if (this.following && !this.#ended.signal.aborted) await this.refresh()
      }).catch(() => {})
    })
    this.#stopWatching = async () => { await watcher.cancel() }
    if (read) await this.refresh()
  }

  async close (): Promise<void> {
    this.#ended.abort()
    await this.#stopWatching()
  }

  /** Replaces the copy by etcd's. Without a snapshot in etcd, the copy stays. */
  async refresh (): Promise<void> {
    await this.#exclusively(async () => {
      const stored = await this.#etcd(async () => await this.#client.get(SNAPSHOT_KEY).string())
      if (stored !== null) this.state = normalize(JSON.parse(stored))
    })
    this.onRefresh()
  }

  topic (name: string): SnapshotTopic | undefined {
    return this.state.Topics?.find(({ Topic }) => Topic === name)
  }

  /** What a creation with `validate_only` checks. @throws {StoreError} */
  checkTopic (name: string, partitions: number, replicationFactor: number): void {
    if (name === '' || partitions <= 0) throw invalid()
    if (this.topic(name)) throw exists()
    if (Math.max(replicationFactor, 1) > (this.state.Brokers?.length ?? 0)) throw invalid()
  }

  async createTopic (name: string, partitions: number, replicationFactor: number): Promise<void> {
    await this.#exclusively(async () => {
      this.checkTopic(name, partitions, replicationFactor)
      this.state.Topics = [...this.state.Topics ?? [], {
        ErrorCode: 0,
        Topic: name,
        TopicID: topicId(name),
        IsInternal: false,
        Partitions: Array.from({ length: partitions }, (_, number) => this.#partition(number)),
        AuthorizedOperations: 0,
        UnknownTags: {},
      }]
      await this.#persist()
    })
  }

  async deleteTopic (name: string): Promise<void> {
    await this.#exclusively(async () => {
      if (!this.topic(name)) throw unknown()
      this.state.Topics = this.state.Topics?.filter(({ Topic }) => Topic !== name) ?? null
      await this.#etcd(async () => await this.#client.delete().prefix(`/kafscale/topics/${name}/`).exec())
      const keys = await this.#etcd(async () => await this.#client.getAll().prefix('/kafscale/consumers/').keys())
      for (const key of keys.filter(key => key.includes(`/offsets/${name}/`))) {
        await this.#etcd(async () => await this.#client.delete().key(key).exec())
      }
      await this.#persist()
    })
  }

  /** What more partitions with `validate_only` check. @throws {StoreError} */
  checkPartitions (name: string, count: number): void {
    const topic = this.topic(name)
    if (!topic) throw unknown()
    if (count <= (topic.Partitions?.length ?? 0)) throw invalid()
  }

  async createPartitions (name: string, count: number): Promise<void> {
    this.checkPartitions(name, count)
    const topic = this.topic(name)!
    const current = topic.Partitions?.length ?? 0
    const added = Array.from({ length: count - current }, (_, index) => this.#partition(current + index))
    topic.Partitions = [...topic.Partitions ?? [], ...added]
    // In between, a refresh from etcd can take the new partitions away again: the broker reports success even so.
    await this.#exclusively(async () => await this.#persist())
    for (const { Partition, Leader } of added) {
      const value = encodePartitionState(name, Partition, `${Leader}`)
      await this.#put(`/kafscale/topics/${name}/partitions/${Partition}`, value)
    }
  }

  /** The stored config, or what a broker makes up for a topic that has none. @throws {StoreError} */
  async topicConfig (name: string): Promise<StoredConfig> {
    const stored = await this.#etcd(async () => await this.#client.get(`/kafscale/topics/${name}/config`).buffer())
    if (stored !== null) {
      const { partitions, replicationFactor, createdAtMs, ...config } = decodeTopicConfig(stored)
      return {
        name,
        partitions,
        replicationFactor,
        retentionMs: BigInt(config.retentionMs),
        retentionBytes: BigInt(config.retentionBytes),
        segmentBytes: BigInt(config.segmentBytes),
        createdAt: seconds(createdAtMs === null ? new Date() : new Date(createdAtMs)),
      }
    }
    const topic = this.topic(name)
    if (!topic) throw unknown()
    const partitions = topic.Partitions?.length ?? 0
    return {
      name,
      partitions,
      replicationFactor: partitions,
      retentionMs: -1n,
      retentionBytes: -1n,
      segmentBytes: 0n,
      createdAt: seconds(new Date()),
    }
  }

  async putTopicConfig (config: StoredConfig): Promise<void> {
    if (!this.topic(config.name)) throw unknown()
    await this.#put(`/kafscale/topics/${config.name}/config`, encodeTopicConfig(config))
  }

  /** @returns whether there was one */
  async deleteGroup (groupId: string): Promise<boolean> {
    const key = `/kafscale/consumers/${groupId}/metadata`
    if (await this.#etcd(async () => await this.#client.get(key).buffer()) === null) return false
    await this.#etcd(async () => await this.#client.delete().key(key).exec())
    return true
  }

  #partition (number: number): SnapshotPartition {
    const leader = this.state.Brokers?.[0]?.NodeID ?? this.state.ControllerID
    return {
      ErrorCode: 0,
      Partition: number,
      Leader: leader,
      LeaderEpoch: 0,
      Replicas: [leader],
      ISR: [leader],
      OfflineReplicas: null,
      UnknownTags: {},
    }
  }

  async #persist (): Promise<void> {
    if (this.failingWrites > 0) {
      this.failingWrites--
      throw new StoreError('etcd', 'context deadline exceeded')
    }
    await this.#put(SNAPSHOT_KEY, Buffer.from(goJson(normalize(this.state))))
  }

  async #put (key: string, value: Buffer): Promise<void> {
    await this.#etcd(async () => await this.#client.put(key).value(value).exec())
  }

  async #etcd<T> (operation: () => Promise<T>): Promise<T> {
    try {
      const result = await operation()
      this.available = true
      return result
    } catch {
      if (this.available) void this.#probe()
      this.available = false
      throw new StoreError('etcd', 'context deadline exceeded')
    }
  }

  /** A broker notices that etcd is back with what it samples from time to time. It does not refresh its copy. */
  async #probe (): Promise<void> {
    do {
      await setTimeout(PROBE_MS, undefined, { ref: false })
      await this.#etcd(async () => await this.#client.get(SNAPSHOT_KEY).exec()).catch(() => {})
    } while (!this.available && !this.#ended.signal.aborted)
  }

  async #exclusively<T> (work: () => Promise<T>): Promise<T> {
    const before = this.#lock
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#lock = promise
    await before
    try {
      return await work()
    } finally {
      resolve()
    }
  }
}

export interface StoredConfig {
  name: string
  partitions: number
  replicationFactor: number
  retentionMs: bigint
  retentionBytes: bigint
  segmentBytes: bigint
  createdAt: string
}

/** What a broker holds that could not read etcd at its start: itself and one topic. */
export function initialSnapshot (nodeId: number, host: string, port: number): Snapshot {
  return normalize({
    Brokers: [{ NodeID: nodeId, Host: host, Port: port }],
    ControllerID: nodeId,
    Topics: [{
      Topic: 'orders',
      Partitions: [{ Leader: nodeId, Replicas: [nodeId], ISR: [nodeId] }],
    }],
    ClusterID: 'kafscale-cluster',
  })
}

type Loose<T> = T extends (infer Item)[] ? Loose<Item>[] : T extends object ? { [Key in keyof T]?: Loose<T[Key]> } : T

/** Every member that a broker knows, in its order, and no other; empty lists are `null`. */
export function normalize (loose: Loose<Snapshot>): Snapshot {
  const list = <T, U>(items: T[] | null | undefined, each: (item: T) => U): U[] | null =>
    items && items.length > 0 ? items.map(each) : null
  const numbers = (items: number[] | null | undefined) => list(items, number => number)
  return {
    Brokers: list(loose.Brokers, broker => ({
      NodeID: broker.NodeID ?? 0,
      Host: broker.Host ?? '',
      Port: broker.Port ?? 0,
      Rack: broker.Rack ?? null,
      UnknownTags: {},
    })),
    ControllerID: loose.ControllerID ?? 0,
    Topics: list(loose.Topics, topic => {
      if (topic.Topic === undefined) throw new Error('a topic without a name ends a broker')
      return {
        ErrorCode: topic.ErrorCode ?? 0,
        Topic: topic.Topic,
        TopicID: topic.TopicID?.some(byte => byte !== 0) ? [...topic.TopicID] : topicId(topic.Topic),
        IsInternal: topic.IsInternal ?? false,
        Partitions: list(topic.Partitions, partition => ({
          ErrorCode: partition.ErrorCode ?? 0,
          Partition: partition.Partition ?? 0,
          Leader: partition.Leader ?? 0,
          LeaderEpoch: partition.LeaderEpoch ?? 0,
          Replicas: numbers(partition.Replicas),
          ISR: numbers(partition.ISR),
          OfflineReplicas: numbers(partition.OfflineReplicas),
          UnknownTags: {},
        })),
        AuthorizedOperations: topic.AuthorizedOperations ?? 0,
        UnknownTags: {},
      }
    }),
    ClusterName: loose.ClusterName ?? null,
    ClusterID: loose.ClusterID ?? null,
  }
}

function topicId (name: string): number[] {
  return [...createHash('sha1').update(name).digest().subarray(0, 16)]
}

/** Go's encoder escapes what is special in HTML. */
function goJson (value: unknown): string {
  return JSON.stringify(value)
    .replace(/[<>&\u2028\u2029]/g, unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

const seconds = (time: Date): string => time.toISOString().replace(/\.\d+/, '')
