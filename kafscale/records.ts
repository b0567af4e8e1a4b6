import protobuf from 'protobufjs/minimal.js'
import { type Int64, int64, parseInt64 } from './int64.ts'
import {
  ASSIGNMENT,
  CONSUMER_GROUP,
  END_GROUP,
  fieldOf,
  GROUP_MEMBER,
  MAP_ENTRY,
  PARTITION_STATE,
  START_GROUP,
  tagOf,
  TOPIC_CONFIG,
  wireTypeOf,
} from './protobuf.ts'
import { parseTime } from './times.ts'

/** A broker as the snapshot lists it. etcd doesn't say whether it is up. */
export interface Broker { nodeId: number, host: string, port: number }

/** A partition as the snapshot lists it. `leaderId` is static: the broker that holds the partition's lease writes. */
export interface SnapshotPartition {
  partition: number
  leaderId: number
  leaderEpoch: number
  replicaNodes: number[]
  isrNodes: number[]
  offlineReplicas: number[]
  errorCode: number
}

export interface SnapshotTopic { name: string, errorCode: number, partitions: SnapshotPartition[] }

/** `/kafscale/metadata/snapshot`: brokers, topics and partitions. Partitions are sorted by number. */
export interface Snapshot {
  /** `null` when not set or undecodable. */
  clusterName: string | null
  /** `null` when not set or undecodable. */
  clusterId: string | null
  /** `null` when undecodable. */
  controllerId: number | null
  brokers: Broker[]
  topics: SnapshotTopic[]
}

/** `/kafscale/topics/{t}/config`. Present only once the topic's config has been altered. */
export interface TopicConfig {
  partitions: number
  replicationFactor: number
  retentionMs: Int64
  retentionBytes: Int64
  segmentBytes: Int64
  createdAtMs: number | null
  config: Map<string, string>
}

export interface GroupMember {
  clientId: string
  clientHost: string
  heartbeatAtMs: number | null
  /** Partitions by topic. Each list is sorted and has no duplicates. */
  assignments: Map<string, number[]>
  subscriptions: string[]
  sessionTimeoutMs: number
}

/** `/kafscale/consumers/{g}/metadata`. `state` is KafScale's own name (`stable`, `preparing_rebalance`, …). */
export interface ConsumerGroup {
  state: string
  protocolType: string
  protocol: string
  leader: string
  generationId: number
  rebalanceTimeoutMs: number
  members: Map<string, GroupMember>
}

/** `/kafscale/consumers/{g}/offsets/{t}/{p}`. */
export interface CommittedOffset { offset: Int64, metadata: string, committedAtMs: number | null }

/** `/kafscale/topics/{t}/partitions/{p}`. Written when the partition is created, never updated. */
export interface PartitionState { topic: string, partition: number, leaderBroker: string }

/** A value can't be decoded. The message says why, and never quotes the value. */
export class UndecodableError extends Error {
  override name = 'UndecodableError'
}

/** The parts of a value that had to be left out, while the rest could be decoded: one reason per part, for the log. */
export type Defects = string[]

// --- Decimal text

/**
 * Decodes a `next_offset`.
 * @throws {UndecodableError} for anything but `-?[0-9]+` within int64
 */
export function decodeNextOffset (value: Buffer): Int64 {
  return parseInt64(value.toString('latin1')) ?? undecodable('it is not decimal text within int64')
}

/**
 * Decodes a lease: the node id of the broker that owns the partition or coordinates the group.
 * @throws {UndecodableError}
 */
export function decodeLease (value: Buffer): number {
  const nodeId = parseInt64(value.toString('latin1'))
  return isInt32(nodeId) ? nodeId : undecodable('it is not a broker id')
}

// --- JSON

// The exact form that brokers write. Nine of ten events are offset commits, so they skip the JSON parser.
const committedOffset =
  /^\{"offset":(-?(?:0|[1-9][0-9]*)),"metadata":"([^"\\\p{Cc}]*)","committed_at":"([^"\\\p{Cc}]*)"\}$/u

/**
 * Decodes a committed offset. `committedAtMs` is `null` unless `committed_at` is the RFC 3339 time of an event.
 * @throws {UndecodableError}
 */
export function decodeCommittedOffset (value: Buffer): CommittedOffset {
  const text = value.toString()
  const [, offset, metadata, committedAt] = committedOffset.exec(text) ?? committedOffsetFromJson(text)
  return {
    offset: parseInt64(offset ?? '') ?? undecodable('its offset is not an int64'),
    metadata: metadata ?? '',
    committedAtMs: parseTime(committedAt ?? ''),
  }
}

function committedOffsetFromJson (json: string): string[] {
  const record = asObject(parseJson(json))
  // Parsing may round a number, so the offset is taken from its source text.
  const sources = parseJson(
    json,
    (_, value, context) => typeof value === 'number' ? context?.source : value
  ) as JsonObject
  if (typeof field(record, 'offset') !== 'number') undecodable('its offset is not a number')
  return [json, String(field(sources, 'offset')), text(record, 'metadata') ?? '', String(field(record, 'committed_at'))]
}

/**
 * Decodes the snapshot, with the field names of KafScale v1.6 or those of v1.5.0 and earlier (`Name`,
 * `PartitionIndex`, `LeaderID`, …). A field that is missing or null has its zero value. A topic, partition or broker
 * that can't be decoded is left out and named in `defects`.
 * @throws {UndecodableError} when the value is not a JSON object or one of its lists is not a list
 */
export function decodeSnapshot (value: Buffer, defects: Defects): Snapshot {
  const document = asObject(parseJson(value.toString()))
  return {
    clusterName: part(() => text(document, 'ClusterName'), defects) ?? null,
    clusterId: part(() => text(document, 'ClusterID'), defects) ?? null,
    controllerId: part(() => int32(document, 'ControllerID'), defects) ?? null,
    brokers: unique(each(document, 'Brokers', 'broker', decodeBroker, defects), broker => broker.nodeId),
    topics: unique(
      each(document, 'Topics', 'topic', topic => decodeTopic(topic, defects), defects),
      topic => topic.name
    ),
  }
}

type JsonObject = Record<string, unknown>

function decodeBroker (broker: JsonObject): Broker {
  return { nodeId: int32(broker, 'NodeID'), host: text(broker, 'Host') ?? '', port: int32(broker, 'Port') }
}

function decodeTopic (topic: JsonObject, defects: Defects): SnapshotTopic {
  const name = text(topic, 'Topic', 'Name')
  if (!name) undecodable('it has no name')
  const partitions = each(topic, 'Partitions', `topic ${JSON.stringify(name)}: partition`, decodePartition, defects)
  return {
    name,
    errorCode: int32(topic, 'ErrorCode'),
    partitions: unique(partitions, partition => partition.partition).sort((a, b) => a.partition - b.partition),
  }
}

function decodePartition (partition: JsonObject): SnapshotPartition {
  const number = int32(partition, 'Partition', 'PartitionIndex')
  if (number < 0) undecodable('its number is negative')
  return {
    partition: number,
    leaderId: int32(partition, 'Leader', 'LeaderID'),
    leaderEpoch: int32(partition, 'LeaderEpoch'),
    replicaNodes: int32s(partition, 'Replicas', 'ReplicaNodes'),
    isrNodes: int32s(partition, 'ISR', 'ISRNodes'),
    offlineReplicas: int32s(partition, 'OfflineReplicas'),
    errorCode: int32(partition, 'ErrorCode'),
  }
}

/** Decodes the objects of a list. Those that can't be decoded are left out. */
function each<T> (
  parent: JsonObject,
  name: string,
  what: string,
  decode: (item: JsonObject) => T,
  defects: Defects
): T[] {
  const items = field(parent, name)
  if (items === undefined) return []
  if (!Array.isArray(items)) return undecodable(`${name} is not a list`)
  return items.flatMap((item, index) => part(() => decode(asObject(item)), defects, `${what} ${index}: `) ?? [])
}

/** Decodes one part of a value. When that fails, only this part is lost: it becomes `undefined` and adds a defect. */
function part<T> (decode: () => T, defects: Defects, prefix = ''): T | undefined {
  try {
    return decode()
  } catch (error) {
    if (!(error instanceof UndecodableError)) throw error
    defects.push(prefix + error.message)
    return undefined
  }
}

function unique<T> (items: T[], identity: (item: T) => unknown): T[] {
  const seen = new Set()
  return items.filter(item => {
    const id = identity(item)
    return seen.size !== seen.add(id).size
  })
}

/** The field with one of the names, in any case as in Go's JSON decoder; `undefined` when missing or null. */
function field (object: JsonObject, ...names: string[]): unknown {
  for (const name of names) {
    if (Object.hasOwn(object, name)) return object[name] ?? undefined
  }
  for (const name of names) {
    for (const key in object) {
      if (key.toLowerCase() === name.toLowerCase()) return object[key] ?? undefined
    }
  }
  return undefined
}

function text (object: JsonObject, ...names: string[]): string | undefined {
  const value = field(object, ...names)
  return value === undefined || typeof value === 'string' ? value : undecodable(`${names[0]} is not a string`)
}

function int32 (object: JsonObject, ...names: string[]): number {
  const value = field(object, ...names) ?? 0
  return isInt32(value) ? value : undecodable(`${names[0]} is not an int32`)
}

function int32s (object: JsonObject, ...names: string[]): number[] {
  const value = field(object, ...names) ?? []
  return Array.isArray(value) && value.every(isInt32) ? value : undecodable(`${names[0]} is not a list of int32`)
}

function isInt32 (value: unknown): value is number {
  return Number.isInteger(value) && value === (Number(value) | 0)
}

function asObject (value: unknown): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? value as JsonObject
    : undecodable('it is not a JSON object')
}

function parseJson (
  json: string,
  reviver?: (key: string, value: unknown, context?: { source: string }) => unknown
): unknown {
  try {
    return JSON.parse(json, reviver)
  } catch {
    return undecodable('it is not valid JSON')
  }
}

// --- Protobuf, package kafscale.metadata

/**
 * Decodes a topic's stored config.
 * @throws {UndecodableError}
 */
export function decodeTopicConfig (value: Buffer): TopicConfig {
  const record: TopicConfig = {
    partitions: 0,
    replicationFactor: 0,
    retentionMs: 0,
    retentionBytes: 0,
    segmentBytes: 0,
    createdAtMs: null,
    config: new Map(),
  }
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case TOPIC_CONFIG.name: string(reader); break // only checked: the key has the name
      case TOPIC_CONFIG.partitions: record.partitions = reader.int32(); break
      case TOPIC_CONFIG.replicationFactor: record.replicationFactor = reader.int32(); break
      case TOPIC_CONFIG.retentionMs: record.retentionMs = varint64(reader); break
      case TOPIC_CONFIG.retentionBytes: record.retentionBytes = varint64(reader); break
      case TOPIC_CONFIG.segmentBytes: record.segmentBytes = varint64(reader); break
      case TOPIC_CONFIG.createdAt: record.createdAtMs = parseTime(string(reader)); break
      case TOPIC_CONFIG.config: decodeMapEntry(reader, string, '', record.config); break
      default: skip(reader, tag)
    }
  })
  return record
}

/**
 * Decodes a group's metadata. An assigned partition with a negative number is left out and reported in `defects`.
 * @throws {UndecodableError}
 */
export function decodeConsumerGroup (value: Buffer, defects: Defects): ConsumerGroup {
  const record: ConsumerGroup = {
    state: '', protocolType: '', protocol: '', leader: '', generationId: 0, rebalanceTimeoutMs: 0, members: new Map()
  }
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case CONSUMER_GROUP.groupId: string(reader); break // only checked: the key has the id
      case CONSUMER_GROUP.state: record.state = string(reader); break
      case CONSUMER_GROUP.protocolType: record.protocolType = string(reader); break
      case CONSUMER_GROUP.protocol: record.protocol = string(reader); break
      case CONSUMER_GROUP.leader: record.leader = string(reader); break
      case CONSUMER_GROUP.generationId: record.generationId = reader.int32(); break
      case CONSUMER_GROUP.members:
        decodeMapEntry(reader, value => decodeMember(value.bytes(), defects), NO_MEMBER, record.members)
        break
      case CONSUMER_GROUP.rebalanceTimeoutMs: record.rebalanceTimeoutMs = reader.int32(); break
      default: skip(reader, tag)
    }
  })
  return record
}

/**
 * Decodes the state that is written when a partition is created.
 * @throws {UndecodableError}
 */
export function decodePartitionState (value: Buffer): PartitionState {
  const record: PartitionState = { topic: '', partition: 0, leaderBroker: '' }
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case PARTITION_STATE.topic: record.topic = string(reader); break
      case PARTITION_STATE.partition: record.partition = reader.int32(); break
      case PARTITION_STATE.leaderBroker: record.leaderBroker = string(reader); break
      default: skip(reader, tag)
    }
  })
  return record
}

/** The member of a map entry that has no value. */
const NO_MEMBER: GroupMember = {
  clientId: '', clientHost: '', heartbeatAtMs: null, assignments: new Map(), subscriptions: [], sessionTimeoutMs: 0
}

function decodeMember (value: Uint8Array, defects: Defects): GroupMember {
  const member: GroupMember = {
    clientId: '', clientHost: '', heartbeatAtMs: null, assignments: new Map(), subscriptions: [], sessionTimeoutMs: 0
  }
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case GROUP_MEMBER.clientId: member.clientId = string(reader); break
      case GROUP_MEMBER.clientHost: member.clientHost = string(reader); break
      case GROUP_MEMBER.heartbeatAt: member.heartbeatAtMs = parseTime(string(reader)); break
      case GROUP_MEMBER.assignments: decodeAssignment(reader.bytes(), member.assignments, defects); break
      case GROUP_MEMBER.subscriptions: member.subscriptions.push(string(reader)); break
      case GROUP_MEMBER.sessionTimeoutMs: member.sessionTimeoutMs = reader.int32(); break
      default: skip(reader, tag)
    }
  })
  for (const [topic, partitions] of member.assignments) {
    member.assignments.set(topic, [...new Set(partitions)].sort((a, b) => a - b))
  }
  return member
}

function decodeAssignment (value: Uint8Array, assignments: Map<string, number[]>, defects: Defects): void {
  let topic = ''
  const partitions: number[] = []
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case ASSIGNMENT.topic: topic = string(reader); break
      case ASSIGNMENT.partition: partitions.push(reader.int32()); break
      case ASSIGNMENT.packedPartitions: {
        const packed = protobuf.Reader.create(reader.bytes())
        while (packed.pos < packed.len) partitions.push(packed.int32())
        break
      }
      default: skip(reader, tag)
    }
  })
  const assigned = partitions.filter(partition => partition >= 0)
  if (assigned.length < partitions.length) defects.push('an assigned partition number is negative')
  assignments.set(topic, [...assignments.get(topic) ?? [], ...assigned])
}

function decodeMapEntry<V> (
  reader: protobuf.Reader,
  decodeValue: (reader: protobuf.Reader) => V,
  zero: V,
  map: Map<string, V>
): void {
  let key = ''
  let value = zero
  decodeFields(reader.bytes(), (tag, entry) => {
    switch (tag) {
      case MAP_ENTRY.key: key = string(entry); break
      case MAP_ENTRY.value: value = decodeValue(entry); break
      default: skip(entry, tag)
    }
  })
  map.set(key, value)
}

/**
 * Calls `decodeField` with the tag of every field. A known field with an unexpected wire type has a different tag, so
 * it is skipped like an unknown field, as in Go.
 */
function decodeFields (value: Uint8Array, decodeField: (tag: number, reader: protobuf.Reader) => void): void {
  const reader = protobuf.Reader.create(value)
  try {
    while (reader.pos < reader.len) decodeField(reader.uint32(), reader)
  } catch (error) {
    if (error instanceof UndecodableError) throw error
    undecodable('it is a truncated or invalid protobuf message')
  }
}

/** Skips an unknown field. protobufjs alone would accept field number 0 and the end of a different group. */
function skip (reader: protobuf.Reader, tag: number): void {
  const field = fieldOf(tag)
  if (field === 0) undecodable('it has a field with number 0')
  if (wireTypeOf(tag) !== START_GROUP) {
    reader.skipType(wireTypeOf(tag))
    return
  }
  const end = tagOf(field, END_GROUP)
  for (let inner = reader.uint32(); inner !== end; inner = reader.uint32()) skip(reader, inner)
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function string (reader: protobuf.Reader): string {
  return utf8.decode(reader.bytes())
}

// protobufjs returns a number for a varint that is truncated within its first bytes, so this decoder has its own.
function varint64 (reader: protobuf.Reader): Int64 {
  let value = 0n
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = reader.buf[reader.pos++] ?? undecodable('it is a truncated or invalid protobuf message')
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return int64(BigInt.asIntN(64, value))
  }
  return undecodable('it has a varint longer than 64 bits')
}

function undecodable (why: string): never {
  throw new UndecodableError(why)
}
