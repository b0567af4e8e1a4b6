/**
 * The messages of etcd's API that this service uses: Authenticate, Range and Watch; and for `kafscale-mcp check`
 * UserGet and RoleGet. Why not the `etcd3` package?
 *
 * - Read-only by construction: no message that writes exists here, so no code path can send one.
 * - Behavior under faults: `etcd3`'s watcher dies after a compaction, and its reconnects hide behind a circuit breaker
 *   for seconds. Here a failed call is reported at once, and the caller decides what to do next.
 * - Speed: a load decodes tens of thousands of keys before the service can answer. Messages are decoded by hand, and
 *   fields that nobody reads are skipped.
 *
 * Field numbers are those of etcd's `rpc.proto` and `kv.proto`.
 */
import protobuf from 'protobufjs/minimal.js'
import { LENGTH_DELIMITED, tagOf, VARINT, wireTypeOf } from '../../kafscale/protobuf.ts'

export interface ResponseHeader { revision: number }
export interface KeyValue { key: Buffer, value: Buffer, modRevision: number }
export interface RangeRequest {
  key: Buffer
  rangeEnd?: Buffer
  limit?: number
  revision?: number
  keysOnly?: boolean
  minModRevision?: number
}
export interface RangeResponse {
  header: ResponseHeader
  kvs: KeyValue[]
  more: boolean
  count: number
}
/** What a role allows on a key, or on the keys from `key` up to `rangeEnd`. */
export interface Permission { reads: boolean, writes: boolean, key: Buffer, rangeEnd: Buffer }
export interface WatchRequest {
  createRequest: { key: Buffer, rangeEnd: Buffer, startRevision: number, fragment: boolean }
}
export interface WatchEvent {
  type: 'PUT' | 'DELETE'
  kv: KeyValue
}
export interface WatchResponse {
  created: boolean
  canceled: boolean
  compactRevision: number
  cancelReason: string
  /** Whether the next message continues this response with more events. */
  fragment: boolean
  events: WatchEvent[]
}

/** A remote procedure: its path, and how to encode its request and decode its response. */
export interface Rpc<Request, Response> {
  path: string
  serialize: (request: Request) => Buffer
  deserialize: (bytes: Buffer) => Response
}

const AUTHENTICATE_REQUEST = { name: tagOf(1, LENGTH_DELIMITED), password: tagOf(2, LENGTH_DELIMITED) } as const
const AUTHENTICATE_RESPONSE = { token: tagOf(2, LENGTH_DELIMITED) } as const

export const authenticate: Rpc<{ name: string, password: string }, { token: string }> = {
  path: '/etcdserverpb.Auth/Authenticate',
  serialize: ({ name, password }) => finish(
    new protobuf.Writer()
      .uint32(AUTHENTICATE_REQUEST.name).string(name)
      .uint32(AUTHENTICATE_REQUEST.password).string(password)
  ),
  deserialize (bytes) {
    const response = { token: '' }
    decodeFields(bytes, (tag, reader) => {
      if (tag === AUTHENTICATE_RESPONSE.token) response.token = reader.string()
      else skip(reader, tag)
    })
    return response
  },
}

const USER_GET_REQUEST = { name: tagOf(1, LENGTH_DELIMITED) } as const
const USER_GET_RESPONSE = { role: tagOf(2, LENGTH_DELIMITED) } as const

/** The roles of a user, which a user may ask for itself. */
export const userGet: Rpc<{ name: string }, { roles: string[] }> = {
  path: '/etcdserverpb.Auth/UserGet',
  serialize: ({ name }) => finish(new protobuf.Writer().uint32(USER_GET_REQUEST.name).string(name)),
  deserialize (bytes) {
    const response = { roles: [] as string[] }
    decodeFields(bytes, (tag, reader) => {
      if (tag === USER_GET_RESPONSE.role) response.roles.push(reader.string())
      else skip(reader, tag)
    })
    return response
  },
}

const ROLE_GET_REQUEST = { role: tagOf(1, LENGTH_DELIMITED) } as const
const ROLE_GET_RESPONSE = { permission: tagOf(2, LENGTH_DELIMITED) } as const
const PERMISSION = {
  type: tagOf(1, VARINT),
  key: tagOf(2, LENGTH_DELIMITED),
  rangeEnd: tagOf(3, LENGTH_DELIMITED),
} as const
const READ = 0
const WRITE = 1

/** The permissions of a role, which a user may ask for about its own roles. */
export const roleGet: Rpc<{ role: string }, { permissions: Permission[] }> = {
  path: '/etcdserverpb.Auth/RoleGet',
  serialize: ({ role }) => finish(new protobuf.Writer().uint32(ROLE_GET_REQUEST.role).string(role)),
  deserialize (bytes) {
    const response = { permissions: [] as Permission[] }
    decodeFields(bytes, (tag, reader) => {
      if (tag === ROLE_GET_RESPONSE.permission) response.permissions.push(decodePermission(reader.bytes()))
      else skip(reader, tag)
    })
    return response
  },
}

function decodePermission (bytes: Uint8Array): Permission {
  const permission: Permission = { reads: true, writes: false, key: Buffer.alloc(0), rangeEnd: Buffer.alloc(0) }
  decodeFields(bytes, (tag, reader) => {
    switch (tag) {
      case PERMISSION.type: {
        const type = varint(reader)
        permission.reads = type !== WRITE
        permission.writes = type !== READ
        break
      }
      case PERMISSION.key: permission.key = Buffer.from(reader.bytes()); break
      case PERMISSION.rangeEnd: permission.rangeEnd = Buffer.from(reader.bytes()); break
      default: skip(reader, tag)
    }
  })
  return permission
}

const RANGE_REQUEST = {
  key: tagOf(1, LENGTH_DELIMITED),
  rangeEnd: tagOf(2, LENGTH_DELIMITED),
  limit: tagOf(3, VARINT),
  revision: tagOf(4, VARINT),
  keysOnly: tagOf(8, VARINT),
  minModRevision: tagOf(10, VARINT),
} as const
const RANGE_RESPONSE = {
  header: tagOf(1, LENGTH_DELIMITED),
  kvs: tagOf(2, LENGTH_DELIMITED),
  more: tagOf(3, VARINT),
  count: tagOf(4, VARINT),
} as const

export const range: Rpc<RangeRequest, RangeResponse> = {
  path: '/etcdserverpb.KV/Range',
  serialize ({ key, rangeEnd, limit = 0, revision = 0, keysOnly = false, minModRevision = 0 }) {
    const writer = new protobuf.Writer().uint32(RANGE_REQUEST.key).bytes(key)
    if (rangeEnd) writer.uint32(RANGE_REQUEST.rangeEnd).bytes(rangeEnd)
    return finish(
      writer
        .uint32(RANGE_REQUEST.limit).int64(limit)
        .uint32(RANGE_REQUEST.revision).int64(revision)
        .uint32(RANGE_REQUEST.keysOnly).bool(keysOnly)
        .uint32(RANGE_REQUEST.minModRevision).int64(minModRevision)
    )
  },
  deserialize (bytes) {
    const response: RangeResponse = { header: { revision: 0 }, kvs: [], more: false, count: 0 }
    decodeFields(bytes, (tag, reader) => {
      switch (tag) {
        case RANGE_RESPONSE.header: response.header = decodeHeader(reader.bytes()); break
        case RANGE_RESPONSE.kvs: response.kvs.push(decodeKeyValue(reader)); break
        case RANGE_RESPONSE.more: response.more = reader.bool(); break
        case RANGE_RESPONSE.count: response.count = varint(reader); break
        default: skip(reader, tag)
      }
    })
    return response
  },
}

const WATCH_REQUEST = { createRequest: tagOf(1, LENGTH_DELIMITED) } as const
const WATCH_CREATE_REQUEST = {
  key: tagOf(1, LENGTH_DELIMITED),
  rangeEnd: tagOf(2, LENGTH_DELIMITED),
  startRevision: tagOf(3, VARINT),
  fragment: tagOf(8, VARINT),
} as const
const WATCH_RESPONSE = {
  created: tagOf(3, VARINT),
  canceled: tagOf(4, VARINT),
  compactRevision: tagOf(5, VARINT),
  cancelReason: tagOf(6, LENGTH_DELIMITED),
  fragment: tagOf(7, VARINT),
  events: tagOf(11, LENGTH_DELIMITED),
} as const

export const watch: Rpc<WatchRequest, WatchResponse> = {
  path: '/etcdserverpb.Watch/Watch',
  serialize: ({ createRequest: { key, rangeEnd, startRevision, fragment } }) => finish(
    new protobuf.Writer()
      .uint32(WATCH_REQUEST.createRequest).fork()
      .uint32(WATCH_CREATE_REQUEST.key).bytes(key)
      .uint32(WATCH_CREATE_REQUEST.rangeEnd).bytes(rangeEnd)
      .uint32(WATCH_CREATE_REQUEST.startRevision).int64(startRevision)
      .uint32(WATCH_CREATE_REQUEST.fragment).bool(fragment)
      .ldelim()
  ),
  deserialize (bytes) {
    const response: WatchResponse = {
      created: false, canceled: false, compactRevision: 0, cancelReason: '', fragment: false, events: []
    }
    decodeFields(bytes, (tag, reader) => {
      switch (tag) {
        case WATCH_RESPONSE.created: response.created = reader.bool(); break
        case WATCH_RESPONSE.canceled: response.canceled = reader.bool(); break
        case WATCH_RESPONSE.compactRevision: response.compactRevision = varint(reader); break
        case WATCH_RESPONSE.cancelReason: response.cancelReason = reader.string(); break
        case WATCH_RESPONSE.fragment: response.fragment = reader.bool(); break
        case WATCH_RESPONSE.events: response.events.push(decodeEvent(reader.bytes())); break
        default: skip(reader, tag)
      }
    })
    return response
  },
}

const RESPONSE_HEADER = { revision: tagOf(3, VARINT) } as const

function decodeHeader (bytes: Uint8Array): ResponseHeader {
  const header = { revision: 0 }
  decodeFields(bytes, (tag, reader) => {
    if (tag === RESPONSE_HEADER.revision) header.revision = varint(reader)
    else skip(reader, tag)
  })
  return header
}

const EVENT = { type: tagOf(1, VARINT), kv: tagOf(2, LENGTH_DELIMITED) } as const
const EVENT_TYPE_DELETE = 1

function decodeEvent (bytes: Uint8Array): WatchEvent {
  const event: WatchEvent = { type: 'PUT', kv: { key: EMPTY, value: EMPTY, modRevision: 0 } }
  decodeFields(bytes, (tag, reader) => {
    switch (tag) {
      case EVENT.type: event.type = reader.int32() === EVENT_TYPE_DELETE ? 'DELETE' : 'PUT'; break
      case EVENT.kv: event.kv = decodeKeyValue(reader); break
      default: skip(reader, tag)
    }
  })
  return event
}

const KEY_VALUE = {
  key: tagOf(1, LENGTH_DELIMITED),
  modRevision: tagOf(3, VARINT),
  value: tagOf(5, LENGTH_DELIMITED),
} as const
const EMPTY = Buffer.alloc(0)

/** Decodes a length-delimited key and value in place: a reader for each of them would cost more than the decoding. */
function decodeKeyValue (reader: protobuf.Reader): KeyValue {
  const kv: KeyValue = { key: EMPTY, value: EMPTY, modRevision: 0 }
  const end = reader.uint32() + reader.pos
  while (reader.pos < end) {
    const tag = reader.uint32()
    switch (tag) {
      case KEY_VALUE.key: kv.key = reader.bytes() as Buffer; break
      case KEY_VALUE.modRevision: kv.modRevision = varint(reader); break
      case KEY_VALUE.value: kv.value = reader.bytes() as Buffer; break
      default: skip(reader, tag)
    }
  }
  return kv
}

function decodeFields (bytes: Uint8Array, decodeField: (tag: number, reader: protobuf.Reader) => void): void {
  const reader = protobuf.Reader.create(bytes)
  while (reader.pos < reader.len) decodeField(reader.uint32(), reader)
}

function skip (reader: protobuf.Reader, tag: number): void {
  reader.skipType(wireTypeOf(tag))
}

/** Decodes a varint to a number: revisions and counts stay far below 2^53. */
function varint (reader: protobuf.Reader): number {
  let value = 0
  for (let factor = 1; ; factor *= 0x80) {
    const byte = reader.buf[reader.pos++] ?? 0
    value += (byte & 0x7f) * factor
    if (byte < 0x80) return value
  }
}

function finish (writer: protobuf.Writer): Buffer {
  return Buffer.from(writer.finish())
}
