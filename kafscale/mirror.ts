import { isUtf8 } from 'node:buffer'
import { isDeepStrictEqual } from 'node:util'
import { type Int64, subtract } from './int64.ts'
import { type AmbiguousOffset, type Candidate, type Key, parseKey } from './keyspace.ts'
import {
  type ConsumerGroup,
  decodeCommittedOffset,
  decodeConsumerGroup,
  decodeLease,
  decodeNextOffset,
  decodePartitionState,
  decodeSnapshot,
  decodeTopicConfig,
  type Defects,
  type Snapshot,
  type SnapshotPartition,
  type SnapshotTopic,
  type TopicConfig,
  UndecodableError,
} from './records.ts'

/** One change of the keyspace, as reported by etcd. `value` is empty for a delete. */
export interface KeyEvent { type: 'put' | 'delete', key: Buffer, value: Buffer, modRevision: number }

/** Counts a committed offset on a partition; shared with {@link Group} alone. */
let countCommittedOffset: (partition: Partition, change: 1 | -1) => void

/**
 * A partition, with what every kind of key says about it. A field is `null` when its value is missing or undecodable.
 */
export class Partition {
  readonly topic: Topic
  readonly number: number
  /** The entry in the snapshot; `undefined` when there is none. */
  info: SnapshotPartition | undefined
  /** The last flushed offset + 1. */
  logEndOffset: Int64 | null = null
  /** Whether a `next_offset` is stored, even if it can't be decoded. */
  hasNextOffset = false
  /** Whether the state that a broker writes for an added partition is stored. */
  hasState = false
  /** Node id of the broker that holds the partition's lease. */
  ownerId: number | null = null
  /**
   * How many groups have a committed offset here. While any has, the partition stays in the mirror. Private, because it
   * counts groups that a caller may not see.
   */
  #committedOffsets = 0

  static {
    countCommittedOffset = (partition, change) => { partition.#committedOffsets += change }
  }

  constructor (topic: Topic, number: number) {
    this.topic = topic
    this.number = number
  }

  /**
   * Whether the snapshot lacks the partition although etcd has keys that KafScale deletes with the topic. Leases and
   * committed offsets prove nothing: a deleted topic can leave them behind.
   */
  get isUnlisted (): boolean {
    return this.info === undefined && (this.hasNextOffset || this.hasState)
  }

  get isUnused (): boolean {
    return this.info === undefined && !this.isUnlisted && this.ownerId === null && this.#committedOffsets === 0
  }
}

/** A topic of the snapshot, or one that only other keys mention: then `info` is `undefined`. */
export class Topic {
  readonly name: string
  info: SnapshotTopic | undefined
  /** The stored config: `undefined` when there is none, `null` when it is undecodable. */
  config: TopicConfig | null | undefined
  /** The mod revision of the stored config; `null` when there is none. */
  configModRevision: number | null = null
  readonly partitions = new Map<number, Partition>()
  /** How many of its partitions are unlisted. */
  unlistedPartitions = 0

  constructor (name: string) {
    this.name = name
  }

  /** Whether the snapshot lacks the topic although etcd has keys that KafScale deletes with it. */
  get isUnlisted (): boolean {
    return this.info === undefined && (this.config !== undefined || this.unlistedPartitions > 0)
  }

  get isUnused (): boolean {
    return this.info === undefined && this.config === undefined && this.partitions.size === 0
  }
}

/** A group's committed offset on one partition. `offset` is `null` when the stored value is undecodable. */
export class Commit {
  readonly partition: Partition
  offset: Int64 | null = null
  metadata: string | null = null
  committedAtMs: number | null = null

  constructor (partition: Partition) {
    this.partition = partition
  }

  /** Log end offset − committed offset, which may be negative; `null` when either side is unknown. */
  get lag (): Int64 | null {
    const end = this.partition.logEndOffset
    return end === null || this.offset === null ? null : subtract(end, this.offset)
  }
}

/** A consumer group as its readers see it, in full or filtered for one caller. */
export interface GroupView {
  readonly id: string
  /** `undefined` when the group has no metadata (so no members), `null` when it is undecodable. */
  readonly metadata: ConsumerGroup | null | undefined
  /** Sorted by topic, then partition. */
  readonly commits: readonly Commit[]
  commitOn: (partition: Partition | undefined) => Commit | undefined
}

/** The cluster as its readers see it, in full or filtered for one caller. Lists are sorted by name. */
export interface MirrorView {
  readonly revision: number
  /** The zero value when there is no snapshot, `null` when it is undecodable. */
  readonly snapshot: Readonly<Omit<Snapshot, 'topics'>> | null
  /** The topics of the snapshot. */
  readonly topics: readonly Topic[]
  /** The topics that are unlisted or have partitions that are: etcd has them, but the snapshot lacks them. */
  readonly unlisted: readonly Topic[]
  /** Node ids of the brokers that hold leases but are not in the snapshot, in ascending order. */
  readonly unlistedBrokers: readonly number[]
  /** The topic with a name, whether in the snapshot or not. */
  topic: (name: string) => Topic | undefined
  readonly groups: readonly GroupView[]
  group: (id: string) => GroupView | undefined
  /** Node id of the broker that holds the group's lease; `null` when there is none. */
  coordinatorId: (group: string) => number | null
  /** The committed offsets that are ignored because nobody knows which group and topic their key means. */
  readonly unattributed: readonly AmbiguousOffset[]
}

/** A consumer group. It exists as long as it has metadata or a committed offset. */
export class Group implements GroupView {
  readonly id: string
  metadata: ConsumerGroup | null | undefined
  readonly #commits = new Map<Partition, Commit>()
  #sorted: Commit[] | undefined

  constructor (id: string) {
    this.id = id
  }

  get exists (): boolean {
    return this.metadata !== undefined || this.#commits.size > 0
  }

  get commits (): readonly Commit[] {
    this.#sorted ??= [...this.#commits.values()].sort((a, b) =>
      compare(a.partition.topic.name, b.partition.topic.name) || a.partition.number - b.partition.number)
    return this.#sorted
  }

  commitOn (partition: Partition | undefined): Commit | undefined {
    return partition && this.#commits.get(partition)
  }

  /** The committed offset on a partition. Creates one when there is none. */
  ensureCommit (partition: Partition): Commit {
    let commit = this.#commits.get(partition)
    if (!commit) {
      commit = new Commit(partition)
      this.#commits.set(partition, commit)
      this.#sorted = undefined
      countCommittedOffset(partition, 1)
    }
    return commit
  }

  deleteCommit (partition: Partition): void {
    if (!this.#commits.delete(partition)) return
    this.#sorted = undefined
    countCommittedOffset(partition, -1)
  }
}

/** Compares by UTF-16 code unit, independent of locale. */
export function compare (a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

const EMPTY_SNAPSHOT: Snapshot = { clusterName: null, clusterId: null, controllerId: 0, brokers: [], topics: [] }

/** Why a key is ignored. */
export const IGNORED = {
  unknown: 'it matches no known pattern',
  ambiguous: 'it can be read as several groups and topics, of which the snapshot has none or more than one',
} as const
type IgnoredReason = typeof IGNORED[keyof typeof IGNORED]

/** A committed offset whose key is ambiguous. `as` is how the topics in the snapshot settle it, if they do. */
interface AmbiguousEntry { key: AmbiguousOffset, value: Buffer, as: Candidate | undefined }

/** What one broker holds leases of. */
export interface Leases { readonly partitions: Set<Partition>, readonly groups: Set<string> }

/**
 * The `/kafscale/` keyspace at one revision, decoded and joined: queries follow references. It does not depend on etcd:
 * its owner applies one event per key or change. An undecodable value affects only itself: what it stands for becomes
 * unknown, and {@link undecodable} lists its key.
 */
export class Mirror implements MirrorView {
  /** The revision that the mirror represents. Set by its owner after applying events. */
  revision = 0
  /** The keys whose value can't be decoded, in whole or in part, with the reasons. */
  readonly undecodable = new Map<string, readonly string[]>()
  /** The keys that stand for nothing, with the reason. */
  readonly ignored = new Map<string, IgnoredReason>()
  /** The mod revision of every key, including keys of unknown patterns. Comparisons with etcd use it. */
  readonly modRevisions = new Map<string, number>()

  #snapshot: Omit<Snapshot, 'topics'> | null = withoutTopics(EMPTY_SNAPSHOT)
  readonly #topics = new Map<string, Topic>()
  readonly #groups = new Map<string, Group>()
  readonly #coordinators = new Map<string, number>()
  /** The leases of each broker that holds any, by node id. */
  readonly #leases = new Map<number, Leases>()
  readonly #unlisted = new Set<Topic>()
  readonly #ambiguous = new Map<string, AmbiguousEntry>()
  #sortedTopics: Topic[] | undefined
  #sortedUnlisted: Topic[] | undefined
  #sortedGroups: Group[] | undefined

  /** Applies one event. All events of a revision must be applied before the mirror is read again. */
  apply (event: KeyEvent): void {
    const name = keyName(event.key)
    if (event.type === 'put') this.modRevisions.set(name, event.modRevision)
    else this.modRevisions.delete(name)
    const value = event.type === 'put' ? event.value : undefined
    const key = parseKey(name)
    if (key?.kind === 'ambiguous-offset') {
      this.#settle(name, key, value && Buffer.from(value)) // a copy, because the original is part of a whole message
    } else if (key) {
      this.#decode(name, key, value)
      if (key.kind === 'snapshot') for (const [name, { key, value }] of this.#ambiguous) this.#settle(name, key, value)
    } else {
      this.#ignore(name, value && IGNORED.unknown)
    }
  }

  #decode (name: string, key: Key, value: Buffer | undefined): void {
    const defects: Defects = []
    this.#store(key, value, this.modRevisions.get(name) ?? null, defects)
    if (defects.length > 0) this.undecodable.set(name, defects)
    else this.undecodable.delete(name)
  }

  #ignore (name: string, reason: IgnoredReason | undefined): void {
    if (reason) this.ignored.set(name, reason)
    else this.ignored.delete(name)
  }

  /** Stores a committed offset as the one candidate whose topic is in the snapshot, or ignores its key. */
  #settle (name: string, key: AmbiguousOffset, value: Buffer | undefined): void {
    const before = this.#ambiguous.get(name)?.as
    const listed = key.candidates.filter(({ topic }) => this.#topics.get(topic)?.info)
    const as = value && listed.length === 1 ? listed[0] : undefined
    if (before && before.topic !== as?.topic) this.#decode(name, offsetKey(before, key), undefined)
    if (as) this.#decode(name, offsetKey(as, key), value)
    if (value) this.#ambiguous.set(name, { key, value, as })
    else this.#ambiguous.delete(name)
    this.#ignore(name, value && !as ? IGNORED.ambiguous : undefined)
  }

  get snapshot (): MirrorView['snapshot'] {
    return this.#snapshot
  }

  get topics (): readonly Topic[] {
    this.#sortedTopics ??= [...this.#topics.values()].filter(topic => topic.info !== undefined).sort((a, b) =>
      compare(a.name, b.name)
    )
    return this.#sortedTopics
  }

  get unlisted (): readonly Topic[] {
    this.#sortedUnlisted ??= [...this.#unlisted].sort((a, b) => compare(a.name, b.name))
    return this.#sortedUnlisted
  }

  get unlistedBrokers (): readonly number[] {
    const listed = new Set(this.#snapshot?.brokers.map(({ nodeId }) => nodeId))
    return [...this.#leases.keys()].filter(nodeId => !listed.has(nodeId)).sort((a, b) => a - b)
  }

  leasesOf (nodeId: number): Leases | undefined {
    return this.#leases.get(nodeId)
  }

  topic (name: string): Topic | undefined {
    return this.#topics.get(name)
  }

  get groups (): readonly Group[] {
    this.#sortedGroups ??= [...this.#groups.values()].sort((a, b) => compare(a.id, b.id))
    return this.#sortedGroups
  }

  group (id: string): Group | undefined {
    return this.#groups.get(id)
  }

  coordinatorId (group: string): number | null {
    return this.#coordinators.get(group) ?? null
  }

  get unattributed (): readonly AmbiguousOffset[] {
    return this.#ambiguous.values().filter(({ as }) => !as).map(({ key }) => key).toArray()
  }

  /** The names of the keys in which two mirrors of the same revision differ, by mod revision or by what they stored. */
  differences (other: Mirror): string[] {
    const names = new Set([...this.modRevisions.keys(), ...other.modRevisions.keys()])
    return [...names].filter(name =>
      this.modRevisions.get(name) !== other.modRevisions.get(name) ||
      !isDeepStrictEqual(this.#stored(name), other.#stored(name))
    )
  }

  #stored (name: string): unknown {
    const parsed = parseKey(name)
    const as = this.#ambiguous.get(name)?.as
    const key = parsed?.kind !== 'ambiguous-offset' ? parsed : as && offsetKey(as, parsed)
    switch (key?.kind) {
      case undefined: return undefined
      case 'snapshot': return [this.#snapshot, this.topics.map(topic => topic.info)]
      case 'topic-config': return this.#topics.get(key.topic)?.config
      case 'partition-state': return this.#topics.get(key.topic)?.partitions.get(key.partition)?.hasState
      case 'next-offset': return this.#topics.get(key.topic)?.partitions.get(key.partition)?.logEndOffset
      case 'partition-lease': return this.#topics.get(key.topic)?.partitions.get(key.partition)?.ownerId
      case 'group-lease': return this.#coordinators.get(key.group)
      case 'group-metadata': return this.#groups.get(key.group)?.metadata
      case 'committed-offset': {
        const commit = this.#groups.get(key.group)?.commitOn(this.#topics.get(key.topic)?.partitions.get(key.partition))
        return commit && [commit.offset, commit.metadata, commit.committedAtMs]
      }
    }
  }

  #store (key: Key, value: Buffer | undefined, modRevision: number | null, defects: Defects): void {
    switch (key.kind) {
      case 'snapshot':
        this.#storeSnapshot(value ? decode(value, decodeSnapshot, defects) : EMPTY_SNAPSHOT)
        break
      case 'topic-config': {
        const topic = this.#ensureTopic(key.topic)
        topic.config = value && decode(value, decodeTopicConfig, defects)
        topic.configModRevision = modRevision
        this.#noteUnlisted(topic)
        this.#dropUnused(topic)
        break
      }
      case 'partition-state':
        if (value) decode(value, decodePartitionState, defects) // nothing uses the value, but a broken one is reported
        this.#change(this.#ensurePartition(key.topic, key.partition), { hasState: value !== undefined })
        break
      case 'next-offset':
        this.#change(this.#ensurePartition(key.topic, key.partition), {
          logEndOffset: value ? decode(value, decodeNextOffset, defects) : null,
          hasNextOffset: value !== undefined,
        })
        break
      case 'partition-lease': {
        const partition = this.#ensurePartition(key.topic, key.partition)
        this.#forgetLease(partition.ownerId, ({ partitions }) => partitions.delete(partition))
        partition.ownerId = value ? decode(value, decodeLease, defects) : null
        if (partition.ownerId !== null) this.#leasesOf(partition.ownerId).partitions.add(partition)
        this.#dropUnusedPartition(partition)
        break
      }
      case 'group-lease': {
        const nodeId = value ? decode(value, decodeLease, defects) : null
        this.#forgetLease(this.coordinatorId(key.group), ({ groups }) => groups.delete(key.group))
        if (nodeId === null) {
          this.#coordinators.delete(key.group)
        } else {
          this.#coordinators.set(key.group, nodeId)
          this.#leasesOf(nodeId).groups.add(key.group)
        }
        break
      }
      case 'group-metadata': {
        const group = this.#ensureGroup(key.group)
        group.metadata = value && decode(value, decodeConsumerGroup, defects)
        this.#dropGoneGroup(group)
        break
      }
      case 'committed-offset': {
        const group = this.#ensureGroup(key.group)
        const partition = this.#ensurePartition(key.topic, key.partition)
        if (value) {
          const record = decode(value, decodeCommittedOffset, defects)
          Object.assign(group.ensureCommit(partition), record ?? { offset: null, metadata: null, committedAtMs: null })
        } else {
          group.deleteCommit(partition)
        }
        this.#dropUnusedPartition(partition)
        this.#dropGoneGroup(group)
        break
      }
    }
  }

  #storeSnapshot (snapshot: Snapshot | null): void {
    const before = this.topics
    this.#snapshot = snapshot && withoutTopics(snapshot)
    this.#sortedTopics = undefined
    for (const topic of before) {
      topic.info = undefined
      for (const partition of topic.partitions.values()) partition.info = undefined
    }
    for (const info of snapshot?.topics ?? []) {
      this.#ensureTopic(info.name).info = info
      for (const partition of info.partitions) this.#ensurePartition(info.name, partition.partition).info = partition
    }
    for (const topic of before) {
      for (const partition of topic.partitions.values()) this.#dropUnusedPartition(partition)
      this.#dropUnused(topic)
    }
    for (const topic of new Set([...before, ...this.topics])) {
      topic.unlistedPartitions = topic.partitions.values().filter(({ isUnlisted }) => isUnlisted).toArray().length
      this.#noteUnlisted(topic)
    }
  }

  /** Changes what keys other than the snapshot and leases say about a partition. */
  #change (
    partition: Partition,
    changes: Partial<Pick<Partition, 'logEndOffset' | 'hasNextOffset' | 'hasState'>>
  ): void {
    const before = Number(partition.isUnlisted)
    Object.assign(partition, changes)
    partition.topic.unlistedPartitions += Number(partition.isUnlisted) - before
    this.#noteUnlisted(partition.topic)
    this.#dropUnusedPartition(partition)
  }

  #noteUnlisted (topic: Topic): void {
    const unlisted = topic.isUnlisted || topic.unlistedPartitions > 0
    if (unlisted === this.#unlisted.has(topic)) return
    if (unlisted) this.#unlisted.add(topic)
    else this.#unlisted.delete(topic)
    this.#sortedUnlisted = undefined
  }

  #leasesOf (nodeId: number): Leases {
    return getOrInsert(this.#leases, nodeId, () => ({ partitions: new Set(), groups: new Set() }))
  }

  #forgetLease (nodeId: number | null, forget: (leases: Leases) => void): void {
    const leases = nodeId === null ? undefined : this.#leases.get(nodeId)
    if (nodeId === null || !leases) return
    forget(leases)
    if (leases.partitions.size === 0 && leases.groups.size === 0) this.#leases.delete(nodeId)
  }

  #ensureTopic (name: string): Topic {
    return getOrInsert(this.#topics, name, () => new Topic(name))
  }

  #ensurePartition (topicName: string, number: number): Partition {
    const topic = this.#ensureTopic(topicName)
    return getOrInsert(topic.partitions, number, () => new Partition(topic, number))
  }

  #ensureGroup (id: string): Group {
    return getOrInsert(this.#groups, id, () => {
      this.#sortedGroups = undefined
      return new Group(id)
    })
  }

  #dropUnusedPartition (partition: Partition): void {
    if (!partition.isUnused) return
    partition.topic.partitions.delete(partition.number)
    this.#dropUnused(partition.topic)
  }

  #dropUnused (topic: Topic): void {
    if (topic.isUnused) this.#topics.delete(topic.name)
  }

  #dropGoneGroup (group: Group): void {
    if (group.exists) return
    this.#groups.delete(group.id)
    this.#sortedGroups = undefined
  }
}

function offsetKey (as: Candidate, { partition }: AmbiguousOffset): Key {
  return { kind: 'committed-offset', ...as, partition }
}

/** A snapshot without its topics. These are reached through a view of the mirror, which knows who may see them. */
function withoutTopics ({ topics: _, ...cluster }: Snapshot): Omit<Snapshot, 'topics'> {
  return cluster
}

/** A key as text. A key that is not UTF-8 gets a unique name that matches no known pattern. */
export function keyName (key: Buffer): string {
  return isUtf8(key) ? key.toString() : `\0${key.toString('latin1')}`
}

function decode<T> (value: Buffer, decoder: (value: Buffer, defects: Defects) => T, defects: Defects): T | null {
  try {
    return decoder(value, defects)
  } catch (error) {
    if (!(error instanceof UndecodableError)) throw error
    defects.push(error.message)
    return null
  }
}

function getOrInsert<K, V> (map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}
