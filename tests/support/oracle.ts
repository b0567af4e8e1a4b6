/**
 * Computes the expected answer of every read tool except `cluster_metrics` from one range read of `/kafscale/`.
 *
 * To be an independent reference, it imports nothing from the service, keeps no state between calls, and prefers simple
 * code to fast code.
 */

/** One key of a range read. `modRevision` is decimal text. */
export interface KeyValue { key: Buffer, value: Buffer, modRevision: string }

/** Every key under `/kafscale/` at one etcd revision, which is decimal text. */
export interface RangeRead { revision: string, kvs: KeyValue[] }

/** The arguments of all tools. */
export interface Arguments {
  limit?: number
  pattern?: string
  state?: string
  names?: string[]
  topics?: string[]
  group_id?: string
  topic?: string
  min_lag?: number | string
}

/**
 * `content` is the `structuredContent` of one page. It lacks `next_cursor`, which is present exactly when there is
 * `more`, and whatever does not come from stored values: `brokers_reachable`, `s3`, `etcd`, and the brokers' `metrics`
 * and `s3_state` of `cluster_status`. An `error` is `anyText`.
 */
export type Expected =
  | { kind: 'answer', content: Record<string, unknown>, more: boolean }
  | { kind: 'failure', code: 'METADATA_UNAVAILABLE' | 'GROUP_NOT_FOUND' | 'INVALID_ARGUMENT' }

/** Stands for a text whose wording is not specified. */
export const anyText = '<any text>'

class Undecodable extends Error {}

const byCodeUnit = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0
const byNumber = (a: bigint, b: bigint): number => a < b ? -1 : a > b ? 1 : 0
const bySize = (a: number, b: number): number => a - b
const sum = (values: bigint[]): bigint => values.reduce((total, value) => total + value, 0n)

/** The decoded value, or null when it is undecodable. */
function orNull<T> (decode: () => T): T | null {
  try {
    return decode()
  } catch (error) {
    if (error instanceof Undecodable) return null
    throw error
  }
}

/** A JSON number if that is exact, otherwise decimal text. */
function int64 (value: bigint): number | string {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value.toString()
}

const magnitude = (value: bigint): bigint => value < 0n ? -value : value
const int64OrNull = (value: bigint | null): number | string | null => value === null ? null : int64(value)
const totalOrNull = (values: bigint[]): number | string | null => values.length === 0 ? null : int64(sum(values))

function within (value: bigint, bits: number): bigint {
  if (BigInt.asIntN(bits, value) !== value) throw new Undecodable('out of range')
  return value
}

function utf8 (bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new Undecodable('not UTF-8')
  }
}

function decimal (bytes: Uint8Array, bits: number): bigint {
  const text = utf8(bytes)
  if (!/^-?[0-9]+$/.test(text)) throw new Undecodable('not decimal text')
  return within(BigInt(text), bits)
}

/**
 * Unix milliseconds of an RFC 3339 time, truncated to the millisecond; null unless it is valid and its UTC year is 1971
 * to 2099. Other years are placeholders.
 */
function instant (text: string): number | null {
  const match = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))$/.exec(text)
  if (match === null) return null
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number
  ]
  const [, , , , , , , fraction = '', sign = '+', offsetHour = '0', offsetMinute = '0'] = match
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  const days = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
  if (days === undefined || day < 1 || day > days) return null
  if (hour > 23 || minute > 59 || second > 59 || Number(offsetHour) > 23 || Number(offsetMinute) > 59) return null
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  date.setUTCHours(hour, minute, second, Number(fraction.padEnd(3, '0').slice(0, 3)))
  const offset = (Number(offsetHour) * 60 + Number(offsetMinute)) * 60_000
  const ms = sign === '+' ? date.getTime() - offset : date.getTime() + offset
  const utcYear = new Date(ms).getUTCFullYear()
  return utcYear < 1971 || utcYear > 2099 ? null : ms
}

const timeOrNull = (ms: number | null): string | null => ms === null ? null : new Date(ms).toISOString()
/** Null for a time more than a day ahead, and 0 for one that is less ahead. */
const age = (observedAt: Date, ms: number | null): number | null =>
  ms === null || ms - observedAt.getTime() > 86_400_000 ? null : Math.max(0, observedAt.getTime() - ms)

/** Whether two words are the same but for case and what separates their parts. */
function sameWord (one: string, other: string): boolean {
  const [a, b] = [one, other].map(word => word.toLowerCase().split(/[-_\s]+/).join(''))
  return a === b
}

/** Truncates a stored text to 4 KB, between two characters and including a note of its original length. */
function cut (text: string): string {
  const bytes = Buffer.byteLength(text)
  if (bytes <= 4096) return text
  const ending = `… [cut, ${bytes} bytes]`
  let kept = ''
  let size = Buffer.byteLength(ending)
  for (const character of text) {
    size += Buffer.byteLength(character)
    if (size > 4096) break
    kept += character
  }
  return kept + ending
}

/** Whether a glob (`*`: any text, `?`: one character) matches the whole name. */
function globMatches (glob: string[], name: string[]): boolean {
  const [first, ...rest] = glob
  if (first === undefined) return name.length === 0
  if (first === '*') return globMatches(rest, name) || (name.length > 0 && globMatches(glob, name.slice(1)))
  return name.length > 0 && (first === '?' || first === name[0]) && globMatches(rest, name.slice(1))
}

// JSON

/** The source text of a JSON number, since `JSON.parse` rounds. */
class JsonNumber {
  readonly text: string
  constructor (text: string) {
    this.text = text
  }
}

type JsonObject = Record<string, unknown>

function jsonObject (value: unknown): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof JsonNumber) {
    throw new Undecodable('not an object')
  }
  return value as JsonObject
}

function parseJson (bytes: Uint8Array): JsonObject {
  const text = utf8(bytes)
  let value: unknown
  try {
    value = JSON.parse(text, (_key: string, value: unknown, context?: { source?: string }) =>
      typeof value === 'number' ? new JsonNumber(context?.source ?? '') : value)
  } catch {
    throw new Undecodable('not JSON')
  }
  return jsonObject(value)
}

/** The member with the first name that exists, exactly or else in a different case; undefined when none does. */
function member (object: JsonObject, ...names: string[]): unknown {
  for (const name of names) {
    if (Object.hasOwn(object, name)) return object[name]
    const inexact = Object.keys(object).filter(key => key.toLowerCase() === name.toLowerCase()).at(-1)
    if (inexact !== undefined) return object[inexact]
  }
  return undefined
}

function jsonInteger (value: unknown, bits: number): bigint {
  if (!(value instanceof JsonNumber) || !/^-?[0-9]+$/.test(value.text)) throw new Undecodable('not an integer')
  return within(BigInt(value.text), bits)
}

const integerOrZero = (value: unknown, bits: number): number =>
  value === undefined || value === null ? 0 : Number(jsonInteger(value, bits))

function textOrEmpty (value: unknown): string {
  if (value === undefined || value === null) return ''
  if (typeof value !== 'string') throw new Undecodable('not a text')
  return value
}

function arrayOrEmpty (value: unknown): unknown[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw new Undecodable('not an array')
  return value
}

/** The items of a list that can be decoded. */
const decodable = <T>(values: unknown[], decode: (value: unknown) => T): T[] =>
  values.map(value => orNull(() => decode(value))).filter(value => value !== null)

// The snapshot

interface Broker { nodeId: number, host: string, port: number }

interface Partition {
  partition: number
  leaderId: number
  leaderEpoch: number
  replicas: number[]
  isr: number[]
  offline: number[]
  errorCode: number
}

interface Topic { name: string, errorCode: number, partitions: Partition[] }

interface Snapshot {
  controllerId: number | null
  clusterName: string | null
  clusterId: string | null
  brokers: Broker[]
  topics: Topic[]
}

function firstOfEach<T, K> (values: T[], key: (value: T) => K): T[] {
  return values.filter((value, index) => values.findIndex(other => key(other) === key(value)) === index)
}

function broker (value: unknown): Broker {
  const object = jsonObject(value)
  return {
    nodeId: integerOrZero(member(object, 'NodeID'), 32),
    host: textOrEmpty(member(object, 'Host')),
    port: integerOrZero(member(object, 'Port'), 32)
  }
}

function partition (value: unknown): Partition {
  const object = jsonObject(value)
  const nodes = (...names: string[]): number[] =>
    arrayOrEmpty(member(object, ...names)).map(node => Number(jsonInteger(node, 32)))
  const partition = integerOrZero(member(object, 'Partition', 'PartitionIndex'), 32)
  if (partition < 0) throw new Undecodable('negative partition')
  return {
    partition,
    leaderId: integerOrZero(member(object, 'Leader', 'LeaderID'), 32),
    leaderEpoch: integerOrZero(member(object, 'LeaderEpoch'), 32),
    replicas: nodes('Replicas', 'ReplicaNodes'),
    isr: nodes('ISR', 'ISRNodes'),
    offline: nodes('OfflineReplicas'),
    errorCode: integerOrZero(member(object, 'ErrorCode'), 16)
  }
}

function topic (value: unknown): Topic {
  const object = jsonObject(value)
  const name = textOrEmpty(member(object, 'Topic', 'Name'))
  if (name === '') throw new Undecodable('no name')
  const partitions = firstOfEach(decodable(arrayOrEmpty(member(object, 'Partitions')), partition), it => it.partition)
  return {
    name,
    errorCode: integerOrZero(member(object, 'ErrorCode'), 16),
    partitions: partitions.sort((a, b) => bySize(a.partition, b.partition))
  }
}

function snapshot (bytes: Uint8Array): Snapshot {
  const object = parseJson(bytes)
  return {
    controllerId: orNull(() => integerOrZero(member(object, 'ControllerID'), 32)),
    clusterName: orNull(() => textOrEmpty(member(object, 'ClusterName'))) || null,
    clusterId: orNull(() => textOrEmpty(member(object, 'ClusterID'))) || null,
    brokers: firstOfEach(decodable(arrayOrEmpty(member(object, 'Brokers')), broker), it => it.nodeId)
      .sort((a, b) => bySize(a.nodeId, b.nodeId)),
    topics: firstOfEach(decodable(arrayOrEmpty(member(object, 'Topics')), topic), it => it.name)
      .sort((a, b) => byCodeUnit(a.name, b.name))
  }
}

const zeroSnapshot: Snapshot = { controllerId: 0, clusterName: null, clusterId: null, brokers: [], topics: [] }

// Protobuf

/** A field on the wire: a varint, or the bytes of a length-delimited field. Fixed-width fields have neither. */
interface Field { number: bigint, varint?: bigint, bytes?: Uint8Array }

function varintAt (bytes: Uint8Array, start: number): { value: bigint, end: number } {
  let value = 0n
  for (let count = 0; count < 10; count++) {
    const byte = bytes[start + count]
    if (byte === undefined) throw new Undecodable('truncated varint')
    value |= BigInt(byte & 0x7f) << BigInt(7 * count)
    if (byte < 0x80 && value < 1n << 64n) return { value, end: start + count + 1 }
    if (byte < 0x80) break
  }
  throw new Undecodable('varint over 64 bits')
}

/** The fields of a message in wire order, without the contents of groups. */
function protobuf (bytes: Uint8Array): Field[] {
  const fields: Field[] = []
  const openGroups: bigint[] = []
  let position = 0

  function varint (): bigint {
    const { value, end } = varintAt(bytes, position)
    position = end
    return value
  }

  function take (length: bigint): Uint8Array {
    if (length > BigInt(bytes.length - position)) throw new Undecodable('truncated field')
    const taken = bytes.subarray(position, position + Number(length))
    position += Number(length)
    return taken
  }

  while (position < bytes.length) {
    const tag = varint()
    const number = tag >> 3n
    if (number < 1n || number >= 1n << 29n) throw new Undecodable('invalid field number')
    const field: Field = { number }
    switch (tag & 7n) {
      case 0n: field.varint = varint(); break
      case 1n: take(8n); break
      case 2n: field.bytes = take(varint()); break
      case 3n: openGroups.push(number); continue
      case 4n:
        if (openGroups.pop() !== number) throw new Undecodable('unexpected end of a group')
        continue
      case 5n: take(4n); break
      default: throw new Undecodable('invalid wire type')
    }
    if (openGroups.length === 0) fields.push(field)
  }
  if (openGroups.length > 0) throw new Undecodable('truncated group')
  return fields
}

const varints = (fields: Field[], number: bigint): bigint[] =>
  fields.filter(field => field.number === number).map(field => field.varint).filter(value => value !== undefined)

const lengthDelimited = (fields: Field[], number: bigint): Uint8Array[] =>
  fields.filter(field => field.number === number).map(field => field.bytes).filter(value => value !== undefined)

const protoInt = (fields: Field[], number: bigint, bits: number): bigint =>
  BigInt.asIntN(bits, varints(fields, number).at(-1) ?? 0n)

const protoInt32 = (fields: Field[], number: bigint): number => Number(protoInt(fields, number, 32))

const protoTexts = (fields: Field[], number: bigint): string[] => lengthDelimited(fields, number).map(utf8)

const protoText = (fields: Field[], number: bigint): string => protoTexts(fields, number).at(-1) ?? ''

/** The packed and unpacked values of a repeated int32. */
function protoInt32s (fields: Field[], number: bigint): number[] {
  return fields.filter(field => field.number === number).flatMap(({ varint, bytes = new Uint8Array() }) => {
    const values = varint === undefined ? [] : [varint]
    for (let position = 0; position < bytes.length;) {
      const { value, end } = varintAt(bytes, position)
      values.push(value)
      position = end
    }
    return values
  }).map(value => Number(BigInt.asIntN(32, value)))
}

function protoMap<T> (fields: Field[], number: bigint, decode: (entry: Field[]) => T): Map<string, T> {
  return new Map(lengthDelimited(fields, number).map(bytes => {
    const entry = protobuf(bytes)
    return [protoText(entry, 1n), decode(entry)]
  }))
}

/** A stored `TopicConfig`. `createdAt` is in Unix milliseconds. */
export interface TopicConfig {
  retentionMs: bigint
  retentionBytes: bigint
  segmentBytes: bigint
  createdAt: number | null
  config: Map<string, string>
}

/**
 * Decodes the protobuf message `kafscale.metadata.TopicConfig`.
 * @throws when it is undecodable
 */
export function topicConfig (bytes: Uint8Array): TopicConfig {
  const fields = protobuf(bytes)
  protoText(fields, 1n)
  return {
    retentionMs: protoInt(fields, 4n, 64),
    retentionBytes: protoInt(fields, 5n, 64),
    segmentBytes: protoInt(fields, 6n, 64),
    createdAt: instant(protoText(fields, 7n)),
    config: protoMap(fields, 8n, entry => protoText(entry, 2n))
  }
}

interface Assignment { topic: string, partitions: number[] }

interface Member {
  memberId: string
  clientId: string
  clientHost: string
  heartbeatAt: number | null
  assignments: Assignment[]
  subscriptions: string[]
  sessionTimeoutMs: number
}

/** A stored `ConsumerGroup`. `members` is sorted by member id, `heartbeatAt` is in Unix milliseconds. */
export interface ConsumerGroup {
  state: string
  protocolType: string
  protocol: string
  leader: string
  generationId: number
  members: Member[]
  rebalanceTimeoutMs: number
}

/**
 * Decodes the protobuf message `kafscale.metadata.ConsumerGroup`.
 * @throws when it is undecodable
 */
export function consumerGroup (bytes: Uint8Array): ConsumerGroup {
  const fields = protobuf(bytes)
  protoText(fields, 1n)
  const members = protoMap(fields, 7n, entry => {
    const member = lengthDelimited(entry, 2n).flatMap(protobuf)
    return {
      clientId: protoText(member, 1n),
      clientHost: protoText(member, 2n),
      heartbeatAt: instant(protoText(member, 3n)),
      assignments: lengthDelimited(member, 4n).map(bytes => {
        const assignment = protobuf(bytes)
        const partitions = protoInt32s(assignment, 2n).filter(partition => partition >= 0)
        return { topic: protoText(assignment, 1n), partitions: [...new Set(partitions)].sort(bySize) }
      }).sort((a, b) => byCodeUnit(a.topic, b.topic)),
      subscriptions: protoTexts(member, 5n).sort(byCodeUnit),
      sessionTimeoutMs: protoInt32(member, 6n)
    }
  })
  return {
    state: protoText(fields, 2n),
    protocolType: protoText(fields, 3n),
    protocol: protoText(fields, 4n),
    leader: protoText(fields, 5n),
    generationId: protoInt32(fields, 6n),
    members: [...members].map(([memberId, member]) => ({ memberId, ...member }))
      .sort((a, b) => byCodeUnit(a.memberId, b.memberId)),
    rebalanceTimeoutMs: protoInt32(fields, 8n)
  }
}

// The keyspace

interface Commit { offset: bigint, metadata: string, committedAt: number | null }

/** A committed-offset key of a group. `commit` is null when its value is undecodable. */
interface CommittedOffset { topic: string, partition: number, commit: Commit | null }

/** `metadata` is undefined when the group has none, null when it is undecodable. */
interface Group { metadata: ConsumerGroup | null | undefined, offsets: CommittedOffset[] }

/** Every value of a range read, decoded. */
export interface Keyspace {
  revision: bigint
  /** null when the stored one is undecodable. */
  snapshot: Snapshot | null
  configs: Map<string, TopicConfig | null>
  /** The partitions with a stored state, by topic. */
  states: Array<{ topic: string, partition: number }>
  /** By `key(topic, partition)`, like the partition leases. */
  nextOffsets: Map<string, bigint | null>
  partitionLeases: Map<string, bigint | null>
  groupLeases: Map<string, bigint | null>
  groups: Map<string, Group>
  /** The readings of each committed offset whose key the topics in the snapshot do not settle. */
  unattributed: Reading[][]
  /** How many keys stand for nothing known. */
  ignored: number
}

interface Reading { group: string, topic: string }

/** Every group and topic that the part of a key between `/kafscale/consumers/` and the last slash can mean. */
function readings (path: string): Reading[] {
  const parts = path.split('/')
  return parts.flatMap((part, at) => {
    const group = parts.slice(0, at).join('/')
    const topic = parts.slice(at + 1).join('/')
    return part === 'offsets' && group !== '' && topic !== '' ? [{ group, topic }] : []
  })
}

const key = (topic: string, partition: number): string => `${partition}/${topic}`

function committedOffset (bytes: Uint8Array): Commit {
  const object = parseJson(bytes)
  const committedAt = member(object, 'committed_at')
  return {
    offset: jsonInteger(member(object, 'offset'), 64),
    metadata: textOrEmpty(member(object, 'metadata')),
    committedAt: typeof committedAt === 'string' ? instant(committedAt) : null
  }
}

function partitionNumber (text: string): number | null {
  return /^(0|[1-9][0-9]*)$/.test(text) && BigInt(text) <= 2147483647n ? Number(text) : null
}

/** Decodes every key of a known pattern. Other keys are counted. */
export function keyspace ({ revision, kvs }: RangeRead): Keyspace {
  const space: Keyspace = {
    revision: BigInt(revision),
    snapshot: zeroSnapshot,
    configs: new Map(),
    states: [],
    nextOffsets: new Map(),
    partitionLeases: new Map(),
    groupLeases: new Map(),
    groups: new Map(),
    unattributed: [],
    ignored: 0
  }
  const group = (groupId: string): Group => {
    const known = space.groups.get(groupId) ?? { metadata: undefined, offsets: [] }
    space.groups.set(groupId, known)
    return known
  }

  const commits: Array<{ path: string, partition: number, value: Buffer }> = []
  for (const { key: name, value } of kvs) {
    space.ignored++
    const text = orNull(() => utf8(name))
    if (text === null) continue
    const known = (): void => { space.ignored-- }
    const after = (prefix: string): string | null => text.startsWith(prefix) ? text.slice(prefix.length) : null

    if (text === '/kafscale/metadata/snapshot') {
      known()
      space.snapshot = orNull(() => snapshot(value))
    }

    const ofTopic = after('/kafscale/topics/')?.split('/')
    if (ofTopic !== undefined && ofTopic.at(-1) === 'config') {
      const topic = ofTopic.slice(0, -1).join('/')
      if (topic !== '') {
        known()
        space.configs.set(topic, orNull(() => topicConfig(value)))
      }
    }
    if (ofTopic !== undefined && ofTopic.at(-2) === 'partitions' && ofTopic.slice(0, -2).join('/') !== '') {
      const partition = partitionNumber(ofTopic.at(-1) ?? '')
      if (partition !== null) {
        known()
        space.states.push({ topic: ofTopic.slice(0, -2).join('/'), partition })
      }
    }
    if (ofTopic !== undefined && ofTopic.at(-1) === 'next_offset' && ofTopic.at(-3) === 'partitions') {
      const topic = ofTopic.slice(0, -3).join('/')
      const partition = partitionNumber(ofTopic.at(-2) ?? '')
      if (partition !== null && topic !== '') {
        known()
        space.nextOffsets.set(key(topic, partition), orNull(() => decimal(value, 64)))
      }
    }

    const ofGroup = after('/kafscale/consumers/')?.split('/')
    if (ofGroup !== undefined && ofGroup.at(-1) === 'metadata') {
      const groupId = ofGroup.slice(0, -1).join('/')
      if (groupId !== '') {
        known()
        group(groupId).metadata = orNull(() => consumerGroup(value))
      }
    }
    const committedPartition = partitionNumber(ofGroup?.at(-1) ?? '')
    if (ofGroup !== undefined && committedPartition !== null) {
      commits.push({ path: ofGroup.slice(0, -1).join('/'), partition: committedPartition, value })
    }

    const partitionLease = after('/kafscale/partition-leases/')?.split('/')
    if (partitionLease !== undefined) {
      const topic = partitionLease.slice(0, -1).join('/')
      const partition = partitionNumber(partitionLease.at(-1) ?? '')
      if (partition !== null && topic !== '') {
        known()
        space.partitionLeases.set(key(topic, partition), orNull(() => decimal(value, 32)))
      }
    }

    const groupLease = after('/kafscale/group-leases/')
    if (groupLease !== null && groupLease !== '') {
      known()
      space.groupLeases.set(groupLease, orNull(() => decimal(value, 32)))
    }
  }

  for (const { path, partition, value } of commits) {
    const all = readings(path)
    const listed = all.filter(({ topic }) => space.snapshot?.topics.some(({ name }) => name === topic))
    const [reading] = all.length === 1 ? all : all.length <= 16 && listed.length === 1 ? listed : []
    if (reading !== undefined) {
      space.ignored--
      const commit = orNull(() => committedOffset(value))
      group(reading.group).offsets.push({ topic: reading.topic, partition, commit })
    } else if (all.length > 0) space.unattributed.push(all.length <= 16 ? all : [])
  }
  return space
}

/** The number of unattributed offsets that may be those of a group, or on a topic; absent when there are none. */
function ignoredKeys (space: Keyspace, groupId?: string, topicName?: string): { ignored_keys?: number } {
  const count = space.unattributed.filter(readings =>
    readings.some(({ group, topic }) =>
      (groupId === undefined || group === groupId) && (topicName === undefined || topic === topicName))).length
  return count === 0 ? {} : { ignored_keys: count }
}

const nodeOrNull = (lease: bigint | null | undefined): number | null =>
  lease === null || lease === undefined ? null : Number(lease)

const logEndOffset = (space: Keyspace, topic: string, partition: number): bigint | null =>
  space.nextOffsets.get(key(topic, partition)) ?? null

const inSnapshot = (space: Keyspace, topic: string, partition?: number): boolean =>
  (space.snapshot?.topics ?? []).some(it =>
    it.name === topic && (partition === undefined || it.partitions.some(it => it.partition === partition)))

/** Marks a row whose partition is missing from a snapshot that can be decoded. */
const flagOf = (space: Keyspace, topic: string, partition: number): Record<string, unknown> =>
  space.snapshot === null || inSnapshot(space, topic, partition) ? {} : { in_snapshot: false }

/** The partitions that have a `next_offset` or a state, sorted by number. `partition` is the number. */
function storedPartitions (space: Keyspace): Array<{ topic: string, partition: number }> {
  const withOffset = [...space.nextOffsets.keys()].map(text => {
    const slash = text.indexOf('/')
    return { topic: text.slice(slash + 1), partition: Number(text.slice(0, slash)) }
  })
  return firstOfEach([...withOffset, ...space.states], it => key(it.topic, it.partition))
    .sort((a, b) => bySize(a.partition, b.partition))
}

/** What is stored under `/kafscale/topics/` but missing from the snapshot. */
function missing (space: Keyspace): { topics: string[], partitions: Array<{ topic: string, partition: number }> } {
  const partitions = storedPartitions(space).filter(it => !inSnapshot(space, it.topic, it.partition))
  const topics = [...partitions.map(({ topic }) => topic), ...space.configs.keys()]
  return { topics: [...new Set(topics)].filter(topic => !inSnapshot(space, topic)), partitions }
}

function lagOf (space: Keyspace, { topic, partition, commit }: CommittedOffset): bigint | null {
  const end = logEndOffset(space, topic, partition)
  return end === null || commit === null ? null : end - commit.offset
}

/** Each partition that a group has committed or is assigned, with its lag: null when that is unknown. */
function lags (space: Keyspace, group: Group): Array<{ topic: string, partition: number, lag: bigint | null }> {
  return firstOfEach([...group.offsets, ...assigned(group)], it => key(it.topic, it.partition))
    .map(({ topic, partition }) => {
      const offset = group.offsets.find(it => it.topic === topic && it.partition === partition)
      return { topic, partition, lag: offset === undefined ? null : lagOf(space, offset) }
    })
}

/** `total_lag` and what it leaves out, over some partitions of a group. */
function totals (group: Group, of: Array<{ lag: bigint | null }>): Record<string, unknown> {
  const known = of.map(({ lag }) => lag).filter(lag => lag !== null)
  return {
    total_lag: totalOrNull(known.map(lag => lag < 0n ? 0n : lag)),
    partitions_unknown: group.metadata === null ? null : of.length - known.length,
    partitions_past_end: known.filter(lag => lag < 0n).length
  }
}

const stale = (member: Member, observedAt: Date): boolean =>
  (age(observedAt, member.heartbeatAt) ?? Infinity) > (member.sessionTimeoutMs || 30_000)

/** The properties of a group that `list_groups` and `describe_group` share. */
function groupHead (
  group: Group,
  observedAt: Date
): { state: string | null, stale: boolean | null, protocol_type: string | null } {
  if (group.metadata === null) return { state: null, stale: null, protocol_type: null }
  if (group.metadata === undefined) return { state: 'empty', stale: false, protocol_type: '' }
  const { state, members, protocolType } = group.metadata
  return {
    state,
    stale: members.length > 0 && members.every(member => stale(member, observedAt)),
    protocol_type: cut(protocolType)
  }
}

const assigned = (group: Group): Array<{ memberId: string, topic: string, partition: number }> =>
  (group.metadata?.members ?? []).flatMap(({ memberId, assignments }) =>
    assignments.flatMap(({ topic, partitions }) => partitions.map(partition => ({ memberId, topic, partition }))))

// The tools

/** `content` turns the rows of a page into its content. */
interface Answer<Row> { rows: Row[], content: (rows: Row[]) => Record<string, unknown> }

type Tool = (
  space: Keyspace,
  args: Arguments,
  observedAt: Date,
) => Expected | { page: (from: number, limit: number) => Expected }

function paged<Row> ({ rows, content }: Answer<Row>): { page: (from: number, limit: number) => Expected } {
  return {
    page: (from, limit) => ({
      kind: 'answer',
      content: { ...content(rows.slice(from, from + limit)), total: rows.length },
      more: from + limit < rows.length
    })
  }
}

const metadataUnavailable: Expected = { kind: 'failure', code: 'METADATA_UNAVAILABLE' }
const groupNotFound: Expected = { kind: 'failure', code: 'GROUP_NOT_FOUND' }
const invalidArgument: Expected = { kind: 'failure', code: 'INVALID_ARGUMENT' }
const knownStates = ['stable', 'preparing_rebalance', 'completing_rebalance', 'empty', 'dead']

const topicRow = ({ name, partitions, errorCode }: Topic): Record<string, unknown> =>
  ({ name, partition_count: partitions.length, error_code: errorCode })

const named = (names: string[] | undefined, all: string[]): string[] =>
  [...new Set(names === undefined || names.length === 0 ? all : names)].sort(byCodeUnit)

const tools: Record<string, Tool> = {
  cluster_status (space) {
    const { snapshot } = space
    const { topics: missingTopics, partitions: missingPartitions } = missing(space)
    const ofSnapshot = (snapshot?.topics ?? []).flatMap(({ name, partitions }) =>
      partitions.map(({ partition }) => ({ topic: name, partition })))
    const owned = (nodeId: number): number =>
      [...ofSnapshot, ...missingPartitions].filter(({ topic, partition }) =>
        nodeOrNull(space.partitionLeases.get(key(topic, partition))) === nodeId).length
    const leases = [...space.partitionLeases.values(), ...space.groupLeases.values()].filter(node => node !== null)
    return paged({
      rows: snapshot?.topics ?? [],
      content: topics => ({
        ...(snapshot?.clusterName == null ? {} : { cluster_name: snapshot.clusterName }),
        ...(snapshot?.clusterId == null ? {} : { cluster_id: snapshot.clusterId }),
        controller_id: snapshot?.controllerId ?? null,
        brokers: (snapshot?.brokers ?? []).map(({ nodeId, host, port }) =>
          ({ node_id: nodeId, host, port, partitions_owned: owned(nodeId) })),
        topic_count: snapshot?.topics.length ?? null,
        partition_count: snapshot?.topics.flatMap(topic => topic.partitions).length ?? null,
        topics_not_in_snapshot: snapshot === null ? null : missingTopics.length,
        partitions_not_in_snapshot: snapshot === null ? null : missingPartitions.length,
        brokers_not_in_snapshot: [...new Set(leases.map(Number))].sort(bySize)
          .filter(node => !(snapshot?.brokers ?? []).some(({ nodeId }) => nodeId === node)),
        group_count: space.groups.size,
        topics: topics.map(topicRow),
        ...ignoredKeys(space)
      })
    })
  },

  list_topics ({ snapshot }, { pattern = '*' }) {
    if (snapshot === null) return metadataUnavailable
    return paged({
      rows: snapshot.topics.filter(({ name }) => globMatches([...pattern], [...name])),
      content: topics => ({ topics: topics.map(topicRow) })
    })
  },

  describe_topics (space, { names }) {
    const { snapshot } = space
    if (snapshot === null) return metadataUnavailable
    const lost = missing(space)
    const rows = named(names, [
      ...snapshot.topics.map(({ name }) => name),
      ...lost.topics,
      ...lost.partitions.map(({ topic }) => topic)
    ]).flatMap(name => {
      const topic = snapshot.topics.find(topic => topic.name === name)
      const owner = (partition: number): number | null => nodeOrNull(space.partitionLeases.get(key(name, partition)))
      const listed = (topic?.partitions ?? []).map(it => ({
        partition: it.partition,
        leader_id: it.leaderId,
        owner_id: owner(it.partition),
        leader_epoch: it.leaderEpoch,
        replica_nodes: it.replicas,
        isr_nodes: it.isr,
        offline_replicas: it.offline,
        error_code: it.errorCode,
        log_end_offset: int64OrNull(logEndOffset(space, name, it.partition))
      }))
      const unlisted = lost.partitions.filter(it => it.topic === name).map(({ partition }) => ({
        partition,
        in_snapshot: false,
        leader_id: null,
        owner_id: owner(partition),
        leader_epoch: null,
        replica_nodes: [],
        isr_nodes: [],
        offline_replicas: [],
        error_code: 3,
        log_end_offset: int64OrNull(logEndOffset(space, name, partition))
      }))
      const partitions = [...listed, ...unlisted].sort((a, b) => bySize(a.partition, b.partition))
      const head = {
        name,
        ...(topic === undefined ? { error_code: 3, error: anyText } : { error_code: topic.errorCode }),
        ...(lost.topics.includes(name) ? { in_snapshot: false } : {}),
        partition_count: partitions.length
      }
      return partitions.length === 0
        ? [{ head, partitions }]
        : partitions.map(partition => ({ head, partitions: [partition] }))
    })
    return paged({
      rows,
      content: rows => ({
        topics: firstOfEach(rows, row => row.head.name).map(({ head }) => ({
          ...head,
          partitions: rows.filter(row => row.head.name === head.name).flatMap(row => row.partitions)
        }))
      })
    })
  },

  list_groups (space, { state, pattern = '*' }, observedAt) {
    const groups = [...space.groups].sort(([a], [b]) => byCodeUnit(a, b)).map(([groupId, group]) => {
      const committed = group.offsets.map(({ commit }) => commit?.committedAt ?? null).filter(ms => ms !== null)
      return {
        group_id: groupId,
        ...groupHead(group, observedAt),
        member_count: group.metadata === null ? null : group.metadata?.members.length ?? 0,
        coordinator_id: nodeOrNull(space.groupLeases.get(groupId)),
        committed_partitions: group.offsets.length,
        ...totals(group, lags(space, group)),
        last_commit_at: timeOrNull(committed.sort(bySize).at(-1) ?? null)
      }
    })
    const states = [...knownStates, ...groups.map(group => group.state).filter(word => word !== null)]
    if (state !== undefined && !states.some(word => sameWord(word, state))) return invalidArgument
    return paged({
      rows: groups.filter(group => globMatches([...pattern], [...group.group_id]) &&
        (state === undefined || (group.state !== null && sameWord(group.state, state)))),
      content: groups => ({ groups, ...ignoredKeys(space) })
    })
  },

  describe_group (space, { group_id: groupId = '' }, observedAt) {
    const group = space.groups.get(groupId)
    if (group === undefined) return groupNotFound
    const { metadata } = group
    const head = metadata === null
      ? { protocol: null, leader: null, generation_id: null, rebalance_timeout_ms: null }
      : {
          protocol: cut(metadata?.protocol ?? ''),
          leader: metadata?.leader ?? '',
          generation_id: metadata === undefined || metadata.members.length === 0 ? null : metadata.generationId,
          rebalance_timeout_ms: metadata === undefined || metadata.members.length === 0
            ? null
            : metadata.rebalanceTimeoutMs
        }
    return paged({
      rows: metadata?.members ?? [],
      content: members => ({
        group_id: groupId,
        ...groupHead(group, observedAt),
        ...head,
        coordinator_id: nodeOrNull(space.groupLeases.get(groupId)),
        ...totals(group, lags(space, group)),
        ...ignoredKeys(space, groupId),
        members: members.map(member => ({
          member_id: member.memberId,
          client_id: cut(member.clientId),
          client_host: cut(member.clientHost),
          heartbeat_at: timeOrNull(member.heartbeatAt),
          heartbeat_age_ms: age(observedAt, member.heartbeatAt),
          stale: stale(member, observedAt),
          session_timeout_ms: member.sessionTimeoutMs,
          subscriptions: member.subscriptions,
          assignments: member.assignments.map(({ topic, partitions }) => {
            const { total_lag: lag, ...rest } = totals(group, lags(space, group).filter(it =>
              it.topic === topic && partitions.includes(it.partition)))
            return { topic, partitions, lag, ...rest }
          })
        }))
      })
    })
  },

  fetch_offsets (space, { group_id: groupId = '', topics = [] }) {
    const group = space.groups.get(groupId)
    if (group === undefined) return groupNotFound
    const ofGroup = [...group.offsets, ...assigned(group)]
    const ofSnapshot = (space.snapshot?.topics ?? []).flatMap(({ name, partitions }) =>
      partitions.map(({ partition }) => ({ topic: name, partition })))
    const lost = missing(space)
    const wanted = topics.length === 0
      ? ofGroup
      : [...ofGroup, ...ofSnapshot, ...lost.partitions].filter(({ topic }) => topics.includes(topic))
    const rows = firstOfEach(wanted, ({ topic, partition }) => key(topic, partition))
      .sort((a, b) => byCodeUnit(a.topic, b.topic) || bySize(a.partition, b.partition))
    // With an undecodable snapshot, it is not known which topics exist.
    const unknown = space.snapshot === null
      ? []
      : topics.filter(name =>
        !inSnapshot(space, name) && !lost.topics.includes(name) &&
        !ofGroup.some(({ topic }) => topic === name)
      )
    return paged({
      rows,
      content: rows => ({
        group_id: groupId,
        offsets: rows.map(({ topic, partition }) => {
          const offset = group.offsets.find(offset => offset.topic === topic && offset.partition === partition)
          return {
            topic,
            partition,
            offset: int64OrNull(offset?.commit?.offset ?? null),
            metadata: offset?.commit == null ? null : cut(offset.commit.metadata),
            committed_at: timeOrNull(offset?.commit?.committedAt ?? null),
            log_end_offset: int64OrNull(logEndOffset(space, topic, partition)),
            lag: int64OrNull(offset === undefined ? null : lagOf(space, offset)),
            ...(offset?.commit === null ? { error: anyText } : {}),
            ...flagOf(space, topic, partition)
          }
        }),
        unknown_topics: named(unknown, []),
        ...ignoredKeys(space, groupId)
      })
    })
  },

  describe_configs (space, { topics: names }) {
    const { snapshot } = space
    if (snapshot === null) return metadataUnavailable
    const lost = missing(space)
    return paged({
      rows: named(names, [...snapshot.topics.map(({ name }) => name), ...lost.topics]),
      content: names => ({
        configs: names.map(name => {
          const topic = snapshot.topics.find(topic => topic.name === name)
          const stored = space.configs.get(name)
          // A retention of 0 or −1, and a segment size of 0 or less, count as not set.
          const setting = (value: bigint | undefined, isSet: boolean, fallback: bigint) => ({
            value: stored === null ? null : int64(value !== undefined && isSet ? value : fallback),
            source: stored === null ? null : value !== undefined && isSet ? 'stored' : 'default'
          })
          const limit = (value: bigint | undefined) => setting(value, value !== 0n && value !== -1n, -1n)
          const retentionMs = limit(stored?.retentionMs)
          const retentionBytes = limit(stored?.retentionBytes)
          const segmentBytes = setting(stored?.segmentBytes, (stored?.segmentBytes ?? 0n) > 0n, 4_194_304n)
          return {
            name,
            exists: topic !== undefined || lost.topics.includes(name),
            ...(lost.topics.includes(name) ? { in_snapshot: false } : {}),
            partitions: (topic?.partitions.length ?? 0) + lost.partitions.filter(it => it.topic === name).length,
            replication_factor: lost.topics.includes(name) ? null : topic?.partitions[0]?.replicas.length ?? 0,
            retention_ms: retentionMs.value,
            retention_bytes: retentionBytes.value,
            segment_bytes: segmentBytes.value,
            config_created_at: timeOrNull(stored?.createdAt ?? null),
            config: stored === null
              ? null
              : Object.fromEntries([...stored?.config ?? []].map(([name, value]) => [name, cut(value)])),
            sources: {
              retention_ms: retentionMs.source,
              retention_bytes: retentionBytes.source,
              segment_bytes: segmentBytes.source
            }
          }
        })
      })
    })
  },

  consumer_lag (space, { group_id: onlyGroup, topic: onlyTopic, min_lag: minLag }, observedAt) {
    const groups = [...space.groups].filter(([groupId]) => onlyGroup === undefined || groupId === onlyGroup)
      .sort(([a], [b]) => byCodeUnit(a, b))
      .map(([groupId, group]) => ({
        groupId,
        group,
        lags: lags(space, group).filter(({ topic }) => onlyTopic === undefined || topic === onlyTopic)
      }))
    const rows = groups.flatMap(({ groupId, group, lags }) =>
      lags.flatMap(({ topic, partition, lag }) => {
        const commit = group.offsets.find(it => it.topic === topic && it.partition === partition)?.commit
        if (lag === null || commit == null || (minLag !== undefined && magnitude(lag) < BigInt(minLag))) return []
        const members = assigned(group).filter(it => it.topic === topic && it.partition === partition).map((
          { memberId }
        ) => memberId)
        return [{ groupId, topic, partition, commit, lag, memberId: members.sort(byCodeUnit)[0] ?? null }]
      })
    ).sort((a, b) =>
      byNumber(magnitude(b.lag), magnitude(a.lag)) || byNumber(a.lag, b.lag) || byCodeUnit(a.groupId, b.groupId) ||
      byCodeUnit(a.topic, b.topic) || bySize(a.partition, b.partition)
    )
    const withoutRows = groups.filter(({ groupId, group, lags }) => {
      if (rows.some(row => row.groupId === groupId)) return false
      if (onlyGroup !== undefined || group.metadata === null) return true
      if (lags.some(({ lag }) => lag === null || lag < 0n)) return true
      const subscribed = (group.metadata?.members ?? []).flatMap(({ subscriptions }) => subscriptions)
      return lags.length === 0 && (onlyTopic === undefined || subscribed.includes(onlyTopic))
    })
    const unknownTopics = onlyTopic === undefined || space.snapshot === null || inSnapshot(space, onlyTopic) ||
      missing(space).topics.includes(onlyTopic) || groups.some(({ lags }) => lags.length > 0)
      ? []
      : [onlyTopic]
    // After the rows, a page has groups without any.
    type Item = { row: typeof rows[number] } | { without: string }
    const items: Item[] = [
      ...rows.map(row => ({ row })),
      ...withoutRows.map(({ groupId }) => ({ without: groupId }))
    ]
    return {
      page: (from, limit) => {
        const page = items.slice(from, from + limit)
        const shown = new Set(page.map(item => 'row' in item ? item.row.groupId : item.without))
        return {
          kind: 'answer',
          content: {
            lag: page.flatMap(item => 'row' in item ? [item.row] : []).map((
              { groupId, topic, partition, commit, lag, memberId }
            ) => ({
              group_id: groupId,
              topic,
              partition,
              committed_offset: int64(commit.offset),
              log_end_offset: int64OrNull(logEndOffset(space, topic, partition)),
              lag: int64(lag),
              committed_at: timeOrNull(commit.committedAt),
              commit_age_ms: age(observedAt, commit.committedAt),
              member_id: memberId,
              ...flagOf(space, topic, partition)
            })),
            groups: groups.filter(({ groupId }) => shown.has(groupId)).map(({ groupId, group, lags }) => ({
              group_id: groupId,
              ...totals(group, lags),
              partitions: lags.filter(({ lag }) => lag !== null).length
            })),
            unknown_topics: unknownTopics,
            total: rows.length,
            ...ignoredKeys(space, onlyGroup, onlyTopic)
          },
          more: from + limit < items.length
        }
      }
    }
  }
}

/** The tools that the oracle covers. */
export const answerable = Object.keys(tools)

/** The ids of the groups that exist. */
export const groupIds = (space: Keyspace): string[] => [...space.groups.keys()].sort(byCodeUnit)

/** The names of the topics in the snapshot; empty when it is undecodable. */
export const topicNames = (space: Keyspace): string[] => (space.snapshot?.topics ?? []).map(({ name }) => name)

/**
 * The expected answer of a tool: `limit` rows (100 when absent) from row number `from` on.
 * @param observedAt the answer's own `observed_at`, from which ages are computed
 */
export function expected (space: Keyspace, tool: string, args: Arguments, observedAt: Date, from = 0): Expected {
  const ask = tools[tool]
  if (ask === undefined) throw new Error(`no such tool: ${tool}`)
  const answer = ask(space, args, observedAt)
  if ('kind' in answer) return answer
  const page = answer.page(from, args.limit ?? 100)
  if (page.kind === 'failure') return page
  return {
    ...page,
    content: { observed_at: observedAt.toISOString(), revision: int64(space.revision), ...page.content },
  }
}
