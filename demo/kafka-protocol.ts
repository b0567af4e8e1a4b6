/**
 * The Kafka wire protocol as a KafScale broker speaks it: the requests that admin clients send, in the versions that a
 * broker carries out, and the empty success that it answers to every other version.
 */
import { Reader, Writer } from '@platformatic/kafka'

/** API keys by name. A broker knows more of them; these are the ones that the double reads. */
export const APIS = {
  Metadata: 3,
  FindCoordinator: 10,
  SaslHandshake: 17,
  ApiVersions: 18,
  CreateTopics: 19,
  DeleteTopics: 20,
  DescribeConfigs: 32,
  AlterConfigs: 33,
  SaslAuthenticate: 36,
  CreatePartitions: 37,
  DeleteGroups: 42,
  IncrementalAlterConfigs: 44,
} as const

export type ApiName = keyof typeof APIS

const NAMES = new Map<number, ApiName>(Object.entries(APIS).map(([name, key]) => [key, name as ApiName]))

/** What a broker advertises, in its order: key, lowest and highest version. */
export const ADVERTISED: readonly (readonly [key: number, min: number, max: number])[] = [
  [18, 0, 4], [3, 0, 12], [0, 0, 9], [1, 11, 13], [10, 3, 3], [2, 0, 4], [11, 4, 4], [14, 4, 4], [12, 4, 4],
  [13, 4, 4], [8, 3, 3], [9, 5, 5], [15, 5, 5], [16, 0, 5], [23, 3, 3], [32, 4, 4], [33, 1, 1], [37, 0, 3],
  [19, 0, 2], [20, 0, 2], [42, 0, 2], [4, -1, -1], [5, -1, -1], [6, -1, -1], [7, -1, -1], [21, -1, -1],
  [22, -1, -1], [24, -1, -1], [25, -1, -1], [26, -1, -1],
]

/** From which version on an API has compact strings and tagged fields. */
const FLEXIBLE_FROM: Readonly<Record<ApiName, number>> = {
  Metadata: 9,
  FindCoordinator: 3,
  SaslHandshake: 99,
  ApiVersions: 3,
  CreateTopics: 5,
  DeleteTopics: 4,
  DescribeConfigs: 4,
  AlterConfigs: 2,
  SaslAuthenticate: 2,
  CreatePartitions: 2,
  DeleteGroups: 2,
  IncrementalAlterConfigs: 1,
}

/** The versions whose body the double reads. A broker answers any other one with an empty success. */
const CARRIED_OUT: Readonly<Record<ApiName, readonly [min: number, max: number]>> = {
  Metadata: [9, 12],
  FindCoordinator: [3, 3],
  SaslHandshake: [0, 1],
  ApiVersions: [0, 99],
  CreateTopics: [0, 2],
  DeleteTopics: [0, 2],
  DescribeConfigs: [4, 4],
  AlterConfigs: [0, 2],
  SaslAuthenticate: [0, 2],
  CreatePartitions: [0, 3],
  DeleteGroups: [0, 2],
  IncrementalAlterConfigs: [99, 99],
}

export interface Entry { name: string, value: string | null }

/** A request's body. `null` for a version that a broker does not carry out. */
export type Body =
  | { api: 'ApiVersions' | 'FindCoordinator' }
  | { api: 'Metadata', topics: { id: string, name: string | null }[] | null }
  | {
    api: 'CreateTopics'
    topics: { name: string, partitions: number, replicationFactor: number, assignments: number, configs: Entry[] }[]
    validateOnly: boolean
  }
  | { api: 'DeleteTopics', topics: string[] }
  | { api: 'CreatePartitions', topics: { name: string, count: number, assignments: number }[], validateOnly: boolean }
  | { api: 'AlterConfigs', resources: { type: number, name: string, configs: Entry[] }[], validateOnly: boolean }
  | { api: 'DescribeConfigs', resources: { type: number, name: string, keys: string[] | null }[] }
  | { api: 'DeleteGroups', groups: string[] }
  | { api: 'SaslHandshake', mechanism: string }
  | { api: 'SaslAuthenticate', bytes: Buffer }

export interface Request {
  key: number
  version: number
  correlationId: number
  clientId: string | null
  /** `undefined` for an API that the double does not read. */
  api: ApiName | undefined
  body: Body | null
}

/** An item of a response: what it is about and its code; a message and the type of resource where the API has them. */
export interface Item { name: string, code: number, message?: string | null, type?: number }

const NO_ID = '00000000-0000-0000-0000-000000000000'

/** Splits what arrives on a socket into frames. */
export async function * frames (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let pending = Buffer.alloc(0)
  for await (const chunk of chunks) {
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= 4 && pending.length >= 4 + pending.readInt32BE()) {
      const end = 4 + pending.readInt32BE()
      yield pending.subarray(4, end)
      pending = pending.subarray(end)
    }
  }
}

/** @throws {Error} for a body that is too short, upon which a broker closes the connection */
export function readRequest (frame: Buffer): Request {
  const reader = Reader.from(frame)
  const key = reader.readInt16()
  const version = reader.readInt16()
  const correlationId = reader.readInt32()
  const clientId = reader.readNullableString(false)
  const api = NAMES.get(key)
  if (api !== undefined && version >= FLEXIBLE_FROM[api]) reader.readTaggedFields()
  const [min, max] = api === undefined ? [1, 0] : CARRIED_OUT[api]
  const body = api === undefined || version < min || version > max ? null : readBody(api, version, reader)
  return { key, version, correlationId, clientId, api, body }
}

function readBody (api: ApiName, version: number, reader: Reader): Body {
  const flexible = version >= FLEXIBLE_FROM[api]
  const text = (): string => reader.readString(flexible)
  const list = <T>(read: () => T, tagged = flexible): T[] => reader.readArray(read, flexible, tagged)
  const entries = () => list((): Entry => ({ name: text(), value: reader.readNullableString(flexible) }))
  switch (api) {
    case 'ApiVersions':
    case 'FindCoordinator':
      return { api }
    case 'Metadata':
      return {
        api,
        topics: reader.readNullableArray(
          () => ({ id: version >= 10 ? reader.readUUID() : NO_ID, name: reader.readNullableString(flexible) }),
          flexible
        ),
      }
    case 'CreateTopics': {
      const topics = list(() => ({
        name: text(),
        partitions: reader.readInt32(),
        replicationFactor: reader.readInt16(),
        assignments: list(() => [reader.readInt32(), list(() => reader.readInt32())]).length,
        configs: entries(),
      }))
      reader.readInt32()
      return { api, topics, validateOnly: version >= 1 && reader.readBoolean() }
    }
    case 'DeleteTopics':
      return { api, topics: list(text) }
    case 'CreatePartitions': {
      const topics = list(() => ({
        name: text(),
        count: reader.readInt32(),
        assignments: list(() => list(() => reader.readInt32(), false)).length,
      }))
      reader.readInt32()
      return { api, topics, validateOnly: reader.readBoolean() }
    }
    case 'AlterConfigs':
      return {
        api,
        resources: list(() => ({ type: reader.readInt8(), name: text(), configs: entries() })),
        validateOnly: reader.readBoolean(),
      }
    case 'DescribeConfigs':
      return {
        api,
        resources: list(() => ({
          type: reader.readInt8(),
          name: text(),
          keys: reader.readNullableArray(text, flexible, false),
        })),
      }
    case 'DeleteGroups':
      return { api, groups: list(text, false) }
    case 'SaslHandshake':
      return { api, mechanism: text() }
    case 'SaslAuthenticate':
      return { api, bytes: reader.readBytes(flexible) }
    case 'IncrementalAlterConfigs':
      throw new Error('a broker does not carry it out')
  }
}

/** A response's body, to be framed with {@link writeFrame}. */
export type Response = (writer: Writer) => Writer

export function writeFrame ({ api, version, correlationId }: Request, response: Response): Buffer {
  const writer = Writer.create().appendInt32(correlationId)
  // The header of an ApiVersions response never has tagged fields, so that every client can read it.
  if (api !== undefined && api !== 'ApiVersions' && version >= FLEXIBLE_FROM[api]) writer.appendTaggedFields()
  return response(writer).prependLength().buffer
}

export function apiVersions ({ version }: Request, advertised: typeof ADVERTISED): Response {
  const known = version <= 4
  const flexible = known && version >= 3
  return writer => {
    writer.appendInt16(known ? 0 : 35).appendArray(
      [...advertised],
      (w, [key, min, max]) => w.appendInt16(key).appendInt16(min).appendInt16(max),
      flexible,
      flexible
    )
    if (known && version >= 1) writer.appendInt32(0)
    return flexible ? writer.appendTaggedFields() : writer
  }
}

export interface MetadataTopic {
  code: number
  name: string | null
  id: string
  internal: boolean
  partitions: {
    code: number,
    partition: number,
    leader: number,
    leaderEpoch: number,
    replicas: number[],
    isr: number[]
    offline: number[]
  }[]
}

export interface MetadataAnswer {
  brokers: { nodeId: number, host: string, port: number, rack: string | null }[]
  clusterId: string | null
  controllerId: number
  topics: MetadataTopic[]
}

export function metadata ({ version }: Request, answer: MetadataAnswer): Response {
  const ids = (w: Writer, numbers: number[]) => w.appendArray(numbers, (w, id) => w.appendInt32(id), true, false)
  return writer => {
    writer
      .appendInt32(0)
      .appendArray(answer.brokers, (w, { nodeId, host, port, rack }) =>
        w.appendInt32(nodeId).appendString(host).appendInt32(port).appendString(rack))
      .appendString(answer.clusterId)
      .appendInt32(answer.controllerId)
      .appendArray(answer.topics, (w, topic) => {
        w.appendInt16(topic.code).appendString(version >= 12 ? topic.name : topic.name ?? '')
        if (version >= 10) w.appendUUID(topic.id)
        w.appendBoolean(topic.internal)
        w.appendArray(topic.partitions, (w, partition) => {
          w.appendInt16(partition.code).appendInt32(partition.partition).appendInt32(partition.leader)
          w.appendInt32(partition.leaderEpoch)
          ids(ids(ids(w, partition.replicas), partition.isr), partition.offline)
        })
        w.appendInt32(0)
      })
    if (version <= 10) writer.appendInt32(-2_147_483_648)
    return writer.appendTaggedFields()
  }
}

/** A response that lists an item for each one that was asked for. */
export function itemized (request: Request & { api: ApiName }, items: Item[]): Response {
  const { api, version } = request
  const flexible = version >= FLEXIBLE_FROM[api]
  const hasMessage = api === 'CreatePartitions' || (api === 'CreateTopics' && version >= 1)
  const hasThrottle = api === 'CreateTopics' ? version >= 2 : api === 'DeleteTopics' ? version >= 1 : true
  return writer => {
    if (hasThrottle) writer.appendInt32(0)
    writer.appendArray(items, (w, { name, code, message = null, type = 2 }) => {
      if (api === 'AlterConfigs') {
        w.appendInt16(code).appendString(message, flexible).appendInt8(type).appendString(name, flexible)
        return
      }
      w.appendString(name, flexible).appendInt16(code)
      if (hasMessage) w.appendString(message, flexible)
    }, flexible, flexible)
    return flexible ? writer.appendTaggedFields() : writer
  }
}

export interface DescribedResource {
  code: number
  type: number
  name: string
  configs: { name: string, value: string, isDefault: boolean, type: number }[]
}

export function describeConfigs (resources: DescribedResource[]): Response {
  return writer => writer
    .appendInt32(0)
    .appendArray(resources, (w, { code, type, name, configs }) =>
      w.appendInt16(code).appendString(null).appendInt8(type).appendString(name).appendArray(configs, (w, config) =>
        w.appendString(config.name).appendString(config.value).appendBoolean(false).appendInt8(config.isDefault ? 5 : 1)
          .appendBoolean(false).appendArray([], () => {}).appendInt8(config.type).appendString(null)))
    .appendTaggedFields()
}

export function findCoordinator ({ nodeId, host, port }: { nodeId: number, host: string, port: number }): Response {
  return writer => writer.appendInt32(0).appendInt16(0).appendString(null).appendInt32(nodeId).appendString(host)
    .appendInt32(port).appendTaggedFields()
}

export function saslHandshake (code: number, mechanisms: string[]): Response {
  return writer =>
    writer.appendInt16(code).appendArray(mechanisms, (w, name) => w.appendString(name, false), false, false)
}

export function saslAuthenticate ({ version }: Request, code: number, message: string | null, bytes: Buffer): Response {
  const flexible = version >= 2
  return writer => {
    writer.appendInt16(code).appendString(message, flexible).appendBytes(bytes, flexible)
    if (version >= 1) writer.appendInt64(0n)
    return flexible ? writer.appendTaggedFields() : writer
  }
}

/** What a broker answers when it does not carry out a version or an API: success, and an empty list. */
export function emptySuccess (request: Request): Response | undefined {
  const { api, version } = request
  switch (api) {
    case 'CreateTopics':
    case 'DeleteTopics':
    case 'AlterConfigs':
    case 'CreatePartitions':
    case 'DeleteGroups':
    case 'IncrementalAlterConfigs':
      return itemized({ ...request, api }, [])
    case 'SaslHandshake':
      return saslHandshake(0, [])
    case 'SaslAuthenticate':
      return saslAuthenticate({ ...request, version }, 0, null, Buffer.alloc(0))
    default:
      return undefined
  }
}
