import protobuf from 'protobufjs/minimal.js'

/**
 * What this service speaks of etcd's API: authenticate, range, watch. The messages that write are not here, so no code
 * path can send one. Field numbers are those of etcd's `rpc.proto` and `kv.proto`; fields that nobody reads are skipped.
 * Written by hand, since a load decodes tens of thousands of keys while nothing can be answered.
 */

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
  /** More events of the same response follow in the next message. */
  fragment: boolean
  events: WatchEvent[]
}

/** One rpc: its path, and how its messages become bytes and back. */
export interface Rpc<Request, Response> {
  path: string
  serialize: (request: Request) => Buffer
  deserialize: (bytes: Buffer) => Response
}

export const authenticate: Rpc<{ name: string, password: string }, { token: string }> = {
  path: '/etcdserverpb.Auth/Authenticate',
  serialize: ({ name, password }) =>
    finish(new protobuf.Writer().uint32(0x0a).string(name).uint32(0x12).string(password)),
  deserialize (bytes) {
    const response = { token: '' }
    decodeFields(bytes, (tag, reader) => {
      if (tag === 0x12) response.token = reader.string()
      else reader.skipType(tag & 7)
    })
    return response
  },
}

export const range: Rpc<RangeRequest, RangeResponse> = {
  path: '/etcdserverpb.KV/Range',
  serialize ({ key, rangeEnd, limit = 0, revision = 0, keysOnly = false, minModRevision = 0 }) {
    const writer = new protobuf.Writer().uint32(0x0a).bytes(key)
    if (rangeEnd) writer.uint32(0x12).bytes(rangeEnd)
    return finish(
      writer.uint32(0x18).int64(limit).uint32(0x20).int64(revision).uint32(0x40).bool(keysOnly).uint32(0x50).int64(
        minModRevision
      )
    )
  },
  deserialize (bytes) {
    const response: RangeResponse = { header: { revision: 0 }, kvs: [], more: false, count: 0 }
    decodeFields(bytes, (tag, reader) => {
      switch (tag) {
        case 0x0a: response.header = decodeHeader(reader.bytes()); break
        case 0x12: response.kvs.push(decodeKeyValue(reader)); break
        case 0x18: response.more = reader.bool(); break
        case 0x20: response.count = varint(reader); break
        default: reader.skipType(tag & 7)
      }
    })
    return response
  },
}

export const watch: Rpc<WatchRequest, WatchResponse> = {
  path: '/etcdserverpb.Watch/Watch',
  serialize: ({ createRequest: { key, rangeEnd, startRevision, fragment } }) =>
    finish(
      new protobuf.Writer().uint32(0x0a).fork()
        .uint32(0x0a).bytes(key).uint32(0x12).bytes(rangeEnd).uint32(0x18).int64(startRevision).uint32(0x40).bool(
          fragment
        ).ldelim()
    ),
  deserialize (bytes) {
    const response: WatchResponse = {
      created: false, canceled: false, compactRevision: 0, cancelReason: '', fragment: false, events: []
    }
    decodeFields(bytes, (tag, reader) => {
      switch (tag) {
        case 0x18: response.created = reader.bool(); break
        case 0x20: response.canceled = reader.bool(); break
        case 0x28: response.compactRevision = varint(reader); break
        case 0x32: response.cancelReason = reader.string(); break
        case 0x38: response.fragment = reader.bool(); break
        case 0x5a: response.events.push(decodeEvent(reader.bytes())); break
        default: reader.skipType(tag & 7)
      }
    })
    return response
  },
}

function decodeHeader (bytes: Uint8Array): ResponseHeader {
  const header = { revision: 0 }
  decodeFields(bytes, (tag, reader) => {
    if (tag === 0x18) header.revision = varint(reader)
    else reader.skipType(tag & 7)
  })
  return header
}

function decodeEvent (bytes: Uint8Array): WatchEvent {
  const event: WatchEvent = { type: 'PUT', kv: { key: EMPTY, value: EMPTY, modRevision: 0 } }
  decodeFields(bytes, (tag, reader) => {
    switch (tag) {
      case 0x08: event.type = reader.int32() === 1 ? 'DELETE' : 'PUT'; break
      case 0x12: event.kv = decodeKeyValue(reader); break
      default: reader.skipType(tag & 7)
    }
  })
  return event
}

const EMPTY = Buffer.alloc(0)

/** Reads a length-delimited key and value in place: there are too many of them for a reader each. */
function decodeKeyValue (reader: protobuf.Reader): KeyValue {
  const kv: KeyValue = { key: EMPTY, value: EMPTY, modRevision: 0 }
  const end = reader.uint32() + reader.pos
  while (reader.pos < end) {
    const tag = reader.uint32()
    switch (tag) {
      case 0x0a: kv.key = reader.bytes() as Buffer; break
      case 0x18: kv.modRevision = varint(reader); break
      case 0x2a: kv.value = reader.bytes() as Buffer; break
      default: reader.skipType(tag & 7)
    }
  }
  return kv
}

function decodeFields (bytes: Uint8Array, decodeField: (tag: number, reader: protobuf.Reader) => void): void {
  const reader = protobuf.Reader.create(bytes)
  while (reader.pos < reader.len) decodeField(reader.uint32(), reader)
}

/** A varint as a number: revisions and counts stay far below 2^53. */
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
