import protobuf from 'protobufjs'

/**
 * What this service speaks of etcd's API: authenticate, range, watch. The messages that write are not here, so no code
 * path can send one. Field numbers are those of etcd's `rpc.proto` and `kv.proto`; fields that nobody reads are left out.
 */
export const { root } = protobuf.parse(`
  syntax = "proto3";

  message ResponseHeader { uint64 cluster_id = 1; int64 revision = 3; }
  message KeyValue { bytes key = 1; int64 mod_revision = 3; bytes value = 5; }

  message AuthenticateRequest { string name = 1; string password = 2; }
  message AuthenticateResponse { string token = 2; }

  message RangeRequest {
    bytes key = 1; bytes range_end = 2; int64 limit = 3; int64 revision = 4; bool keys_only = 8; int64 min_mod_revision = 10;
  }
  message RangeResponse { ResponseHeader header = 1; repeated KeyValue kvs = 2; bool more = 3; int64 count = 4; }

  message WatchCreateRequest { bytes key = 1; bytes range_end = 2; int64 start_revision = 3; bool fragment = 8; }
  message WatchRequest { WatchCreateRequest create_request = 1; }
  message Event { enum Type { PUT = 0; DELETE = 1; } Type type = 1; KeyValue kv = 2; }
  message WatchResponse {
    ResponseHeader header = 1; bool created = 3; bool canceled = 4; int64 compact_revision = 5; string cancel_reason = 6;
    bool fragment = 7; repeated Event events = 11;
  }
`, { keepCase: false })

export interface ResponseHeader { clusterId: number, revision: number }
export interface KeyValue { key: Buffer, value: Buffer, modRevision: number }
export interface RangeRequest {
  key: Buffer
  rangeEnd?: Buffer
  limit?: number
  revision?: number
  keysOnly?: boolean
  minModRevision?: number
}
export interface RangeResponse { header: ResponseHeader, kvs: KeyValue[], more: boolean, count: number }
export interface WatchResponse {
  header: ResponseHeader
  created: boolean
  canceled: boolean
  compactRevision: number
  cancelReason: string
  /** More events of the same response follow in the next message. */
  fragment: boolean
  events: { type: 'PUT' | 'DELETE', kv: KeyValue }[]
}

/** One rpc: its path, and how its messages become bytes and back. */
export interface Rpc<Request extends object, Response> {
  path: string
  serialize: (request: Request) => Buffer
  deserialize: (bytes: Buffer) => Response
}

export const authenticate = rpc<{ name: string, password: string }, { token: string }>('Auth/Authenticate', 'Authenticate')
export const range = rpc<RangeRequest, RangeResponse>('KV/Range', 'Range')
export const watch = rpc<{ createRequest: { key: Buffer, rangeEnd: Buffer, startRevision: number, fragment: boolean } }, WatchResponse>('Watch/Watch', 'Watch')

function rpc<Request extends object, Response> (method: string, message: string): Rpc<Request, Response> {
  const request = root.lookupType(`${message}Request`)
  const response = root.lookupType(`${message}Response`)
  return {
    path: `/etcdserverpb.${method}`,
    serialize: value => Buffer.from(request.encode(request.fromObject(value)).finish()),
    deserialize: bytes => response.toObject(response.decode(bytes), {
      // Revisions stay far below 2^53; a cluster's id does not, and is only compared.
      longs: Number, enums: String, defaults: true, arrays: true,
    }) as Response,
  }
}
