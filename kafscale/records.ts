import protobuf from 'protobufjs/minimal.js'
import { type Int64, int64, parseInt64 } from './int64.ts'

/** A broker as the snapshot lists it; whether it lives is not in etcd. */
export interface Broker { nodeId: number, host: string, port: number }

/** A partition as the snapshot lists it. `leaderId` is static: the writer is whoever holds the partition's lease. */
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

/** `/kafscale/metadata/snapshot`: brokers, topics and partitions; partitions sorted by number. */
export interface Snapshot {
  clusterName: string | null
  clusterId: string | null
  /** This and the names are `null` when they can't be decoded; the names also when there is none. */
  controllerId: number | null
  brokers: Broker[]
  topics: SnapshotTopic[]
}

/** `/kafscale/topics/{t}/config`; present only after somebody altered the topic's config. */
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
  /** Partitions by topic, each list sorted and without duplicates. */
  assignments: Map<string, number[]>
  subscriptions: string[]
  sessionTimeoutMs: number
}

/** `/kafscale/consumers/{g}/metadata`; `state` in KafScale's own words (`stable`, `preparing_rebalance`, …). */
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

/** `/kafscale/topics/{t}/partitions/{p}`: written once with the partition, never updated. */
export interface PartitionState { topic: string, partition: number, leaderBroker: string }

/** What a value is that can't be decoded. The message says what is wrong, never what the value holds. */
export class UndecodableError extends Error {
  override name = 'UndecodableError'
}

/**
 * Collects what had to be left out of a value whose rest could be decoded: one sentence for each part, for the log.
 */
export type Defects = string[]

// --- Decimal text

/** Reads the text of a `next_offset`. @throws {UndecodableError} for anything but `-?[0-9]+` within int64. */
export function decodeNextOffset (value: Buffer): Int64 {
  return parseInt64(value.toString('latin1')) ?? undecodable('it is not decimal text within int64')
}

/** Reads a lease: the node id of the broker that owns the partition or coordinates the group. @throws {UndecodableError} */
export function decodeLease (value: Buffer): number {
  const nodeId = parseInt64(value.toString('latin1'))
  return isInt32(nodeId) ? nodeId : undecodable('it is not a broker id')
}

// --- JSON

// The form that brokers write; read without a JSON parser, since nine of ten events are offset commits.
const committedOffset =
  /^\{"offset":(-?(?:0|[1-9][0-9]*)),"metadata":"([^"\\\p{Cc}]*)","committed_at":"([^"\\\p{Cc}]*)"\}$/u

/** Reads a committed offset. A `committed_at` that is no RFC 3339 time is `null`. @throws {UndecodableError} */
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
  // The source of a number is what was stored; its parsed value may have been rounded.
  const sources = parseJson(
    json,
    (_, value, context) => typeof value === 'number' ? context?.source : value
  ) as JsonObject
  if (typeof field(record, 'offset') !== 'number') undecodable('its offset is no number')
  return [json, String(field(sources, 'offset')), text(record, 'metadata') ?? '', String(field(record, 'committed_at'))]
}

/**
 * Reads the snapshot in either spelling: KafScale v1.6, or v1.5.0 and before (`Name`, `PartitionIndex`, `LeaderID`, …).
 * A missing or null field is its zero value. A topic, partition or broker that can't be decoded is left out and named in
 * `defects`. @throws {UndecodableError} when the value is no JSON object, or its lists are no lists.
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

/** Decodes the objects of a list, leaving out those that can't be. */
function each<T> (
  parent: JsonObject,
  name: string,
  what: string,
  decode: (item: JsonObject) => T,
  defects: Defects
): T[] {
  const items = field(parent, name)
  if (items === undefined) return []
  if (!Array.isArray(items)) return undecodable(`${name} is no list`)
  return items.flatMap((item, index) => part(() => decode(asObject(item)), defects, `${what} ${index}: `) ?? [])
}

/** Decodes a part that costs only itself: `undefined`, and a defect, when it can't be. */
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

/** A field under its name or, as Go reads JSON, under that name in any case; `undefined` when missing or null. */
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
  return value === undefined || typeof value === 'string' ? value : undecodable(`${names[0]} is no text`)
}

function int32 (object: JsonObject, ...names: string[]): number {
  const value = field(object, ...names) ?? 0
  return isInt32(value) ? value : undecodable(`${names[0]} is no int32`)
}

function int32s (object: JsonObject, ...names: string[]): number[] {
  const value = field(object, ...names) ?? []
  return Array.isArray(value) && value.every(isInt32) ? value : undecodable(`${names[0]} is no list of int32`)
}

function isInt32 (value: unknown): value is number {
  return Number.isInteger(value) && value === (Number(value) | 0)
}

function asObject (value: unknown): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? value as JsonObject
    : undecodable('it is no JSON object')
}

function parseJson (
  json: string,
  reviver?: (key: string, value: unknown, context?: { source: string }) => unknown
): unknown {
  try {
    return JSON.parse(json, reviver)
  } catch {
    return undecodable('it is broken JSON')
  }
}

// --- Protobuf, package kafscale.metadata

/** Reads a topic's stored config. @throws {UndecodableError} */
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
      case 0x0a: string(reader); break // the topic's name, which the key says
      case 0x10: record.partitions = reader.int32(); break
      case 0x18: record.replicationFactor = reader.int32(); break
      case 0x20: record.retentionMs = varint64(reader); break
      case 0x28: record.retentionBytes = varint64(reader); break
      case 0x30: record.segmentBytes = varint64(reader); break
      case 0x3a: record.createdAtMs = parseTime(string(reader)); break
      case 0x42: decodeMapEntry(reader, string, '', record.config); break
      default: skip(reader, tag)
    }
  })
  return record
}

/**
 * Reads a group's metadata. An assigned partition with a negative number is left out and named in `defects`.
 * @throws {UndecodableError}
 */
export function decodeConsumerGroup (value: Buffer, defects: Defects): ConsumerGroup {
  const record: ConsumerGroup = {
    state: '', protocolType: '', protocol: '', leader: '', generationId: 0, rebalanceTimeoutMs: 0, members: new Map()
  }
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case 0x0a: string(reader); break // the group's id, which the key says
      case 0x12: record.state = string(reader); break
      case 0x1a: record.protocolType = string(reader); break
      case 0x22: record.protocol = string(reader); break
      case 0x2a: record.leader = string(reader); break
      case 0x30: record.generationId = reader.int32(); break
      case 0x3a: decodeMapEntry(reader, bytes => decodeMember(bytes.bytes(), defects), NO_MEMBER, record.members); break
      case 0x40: record.rebalanceTimeoutMs = reader.int32(); break
      default: skip(reader, tag)
    }
  })
  return record
}

/** Reads the state that is written with a new partition. @throws {UndecodableError} */
export function decodePartitionState (value: Buffer): PartitionState {
  const record: PartitionState = { topic: '', partition: 0, leaderBroker: '' }
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case 0x0a: record.topic = string(reader); break
      case 0x10: record.partition = reader.int32(); break
      case 0x1a: record.leaderBroker = string(reader); break
      default: skip(reader, tag)
    }
  })
  return record
}

/** What a map entry without a value stands for. */
const NO_MEMBER: GroupMember = {
  clientId: '', clientHost: '', heartbeatAtMs: null, assignments: new Map(), subscriptions: [], sessionTimeoutMs: 0
}

function decodeMember (value: Uint8Array, defects: Defects): GroupMember {
  const member: GroupMember = {
    clientId: '', clientHost: '', heartbeatAtMs: null, assignments: new Map(), subscriptions: [], sessionTimeoutMs: 0
  }
  decodeFields(value, (tag, reader) => {
    switch (tag) {
      case 0x0a: member.clientId = string(reader); break
      case 0x12: member.clientHost = string(reader); break
      case 0x1a: member.heartbeatAtMs = parseTime(string(reader)); break
      case 0x22: decodeAssignment(reader.bytes(), member.assignments, defects); break
      case 0x2a: member.subscriptions.push(string(reader)); break
      case 0x30: member.sessionTimeoutMs = reader.int32(); break
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
      case 0x0a: topic = string(reader); break
      case 0x10: partitions.push(reader.int32()); break
      case 0x12: {
        const packed = protobuf.Reader.create(reader.bytes())
        while (packed.pos < packed.len) partitions.push(packed.int32())
        break
      }
      default: skip(reader, tag)
    }
  })
  const assigned = partitions.filter(partition => partition >= 0)
  if (assigned.length < partitions.length) defects.push('an assigned partition is negative')
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
      case 0x0a: key = string(entry); break
      case 0x12: value = decodeValue(entry); break
      default: skip(entry, tag)
    }
  })
  map.set(key, value)
}

/**
 * Calls `decodeField` with the tag of every field: number and wire type in one, so that a known field of another wire
 * type is skipped like an unknown one, as Go does.
 */
function decodeFields (value: Uint8Array, decodeField: (tag: number, reader: protobuf.Reader) => void): void {
  const reader = protobuf.Reader.create(value)
  try {
    while (reader.pos < reader.len) decodeField(reader.uint32(), reader)
  } catch (error) {
    if (error instanceof UndecodableError) throw error
    undecodable('it is a truncated or broken protobuf')
  }
}

const START_GROUP = 3
const END_GROUP = 4

/** Skips a field that is not known; the reader's own skipping takes any number, and any end of a group. */
function skip (reader: protobuf.Reader, tag: number): void {
  const number = tag >>> 3
  if (number === 0) undecodable('it has a field without a number')
  if ((tag & 7) !== START_GROUP) {
    reader.skipType(tag & 7)
    return
  }
  for (let inner = reader.uint32(); inner !== (number << 3 | END_GROUP) >>> 0; inner = reader.uint32()) {
    skip(reader, inner)
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function string (reader: protobuf.Reader): string {
  return utf8.decode(reader.bytes())
}

// Read here, since the reader makes a number of a varint that is cut off within its first bytes.
function varint64 (reader: protobuf.Reader): Int64 {
  let value = 0n
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = reader.buf[reader.pos++] ?? undecodable('it is a truncated or broken protobuf')
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return int64(BigInt.asIntN(64, value))
  }
  return undecodable('it has a varint of more than 64 bits')
}

// --- Times

const rfc3339 = /^(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/
const MIN_TIME_MS = Date.parse('0000-01-01T00:00:00Z')
const MAX_TIME_MS = Date.parse('9999-12-31T23:59:59.999Z')

/** Reads an RFC 3339 time that lies, in UTC, within the years 0 to 9999; `null` for any other text. */
function parseTime (time: string): number | null {
  const [, year, month, day] = rfc3339.exec(time) ?? []
  const ms = year === undefined ? NaN : Date.parse(time)
  // Date.parse takes the 30th of February for the 2nd of March.
  return ms >= MIN_TIME_MS && ms <= MAX_TIME_MS &&
      Number(day) <= new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate()
    ? ms
    : null
}

function undecodable (why: string): never {
  throw new UndecodableError(why)
}
