/** The server side of etcd's API, as far as the service uses it: decodes requests and encodes responses. */
import type { MethodDefinition } from '@grpc/grpc-js'
import protobuf from 'protobufjs'
import type { RangeRequest, WatchRequest, WatchResponse } from '../plugins/etcd/messages.ts'
import type { Stored, StoreEvent } from './etcd-store.ts'

// The names, apart from the packages, and the numbers are those of etcd's `rpc.proto` and `kv.proto`.
const { root } = protobuf.parse(`
  syntax = "proto3";

  message ResponseHeader { int64 revision = 3; }
  message KeyValue {
    bytes key = 1; int64 create_revision = 2; int64 mod_revision = 3; int64 version = 4; bytes value = 5;
    int64 lease = 6;
  }

  message RangeRequest {
    bytes key = 1; bytes range_end = 2; int64 limit = 3; int64 revision = 4; bool keys_only = 8; bool count_only = 9;
    int64 min_mod_revision = 10;
  }
  message RangeResponse { ResponseHeader header = 1; repeated KeyValue kvs = 2; bool more = 3; int64 count = 4; }
  message PutRequest { bytes key = 1; bytes value = 2; int64 lease = 3; }
  message PutResponse { ResponseHeader header = 1; }
  message DeleteRangeRequest { bytes key = 1; bytes range_end = 2; }
  message DeleteRangeResponse { ResponseHeader header = 1; int64 deleted = 2; }

  message Compare {
    enum Result { EQUAL = 0; GREATER = 1; LESS = 2; NOT_EQUAL = 3; }
    enum Target { VERSION = 0; CREATE = 1; MOD = 2; VALUE = 3; LEASE = 4; }
    Result result = 1; Target target = 2; bytes key = 3;
    oneof target_union {
      int64 version = 4; int64 create_revision = 5; int64 mod_revision = 6; bytes value = 7; int64 lease = 8;
    }
    bytes range_end = 64;
  }
  message RequestOp {
    oneof request {
      RangeRequest request_range = 1; PutRequest request_put = 2; DeleteRangeRequest request_delete_range = 3;
    }
  }
  message ResponseOp {
    oneof response {
      RangeResponse response_range = 1; PutResponse response_put = 2; DeleteRangeResponse response_delete_range = 3;
    }
  }
  message TxnRequest { repeated Compare compare = 1; repeated RequestOp success = 2; repeated RequestOp failure = 3; }
  message TxnResponse { ResponseHeader header = 1; bool succeeded = 2; repeated ResponseOp responses = 3; }

  message LeaseGrantRequest { int64 TTL = 1; int64 ID = 2; }
  message LeaseGrantResponse { ResponseHeader header = 1; int64 ID = 2; int64 TTL = 3; }
  message LeaseRevokeRequest { int64 ID = 1; }
  message LeaseRevokeResponse { ResponseHeader header = 1; }

  message WatchCreateRequest { bytes key = 1; bytes range_end = 2; int64 start_revision = 3; bool fragment = 8; }
  message WatchRequest { WatchCreateRequest create_request = 1; }
  message Event { enum Type { PUT = 0; DELETE = 1; } Type type = 1; KeyValue kv = 2; }
  message WatchResponse {
    ResponseHeader header = 1; bool created = 3; bool canceled = 4; int64 compact_revision = 5;
    string cancel_reason = 6; bool fragment = 7; repeated Event events = 11;
  }
`)

// Requests have every member, apart from those of a `oneof`; of a response, a missing member is its zero value.

export type Range = Required<RangeRequest> & { countOnly: boolean }
interface Header { header: { revision: number } }
export interface Ranged extends Header { kvs: Stored[], more: boolean, count: number }
interface Put { key: Buffer, value: Buffer, lease: number }
interface Deletion { key: Buffer, rangeEnd: Buffer }
interface Deleted extends Header { deleted: number }

export interface Comparison {
  result: 'EQUAL' | 'GREATER' | 'LESS' | 'NOT_EQUAL'
  target: 'VERSION' | 'CREATE' | 'MOD' | 'VALUE' | 'LEASE'
  key: Buffer
  rangeEnd: Buffer
  version?: number
  createRevision?: number
  modRevision?: number
  value?: Buffer
  lease?: number
}
export interface Operation { requestRange?: Range, requestPut?: Put, requestDeleteRange?: Deletion }
export interface Done { responseRange?: Ranged, responsePut?: Header, responseDeleteRange?: Deleted }
export interface Transaction { compare: Comparison[], success: Operation[], failure: Operation[] }
export interface Transacted extends Header { succeeded: boolean, responses: Done[] }

export interface Granted extends Header { ID: number, TTL: number }

export type Watched = Partial<Omit<WatchResponse, 'events'> & { events: readonly StoreEvent[] }>

const KV = '/etcdserverpb.KV'
const LEASE = '/etcdserverpb.Lease'

export const API = {
  range: method<Range, Ranged>(`${KV}/Range`, 'Range'),
  put: method<Put, Header>(`${KV}/Put`, 'Put'),
  deleteRange: method<Deletion, Deleted>(`${KV}/DeleteRange`, 'DeleteRange'),
  txn: method<Transaction, Transacted>(`${KV}/Txn`, 'Txn'),
  leaseGrant: method<{ TTL: number, ID: number }, Granted>(`${LEASE}/LeaseGrant`, 'LeaseGrant'),
  leaseRevoke: method<{ ID: number }, Header>(`${LEASE}/LeaseRevoke`, 'LeaseRevoke'),
  watch: method<WatchRequest, Watched>('/etcdserverpb.Watch/Watch', 'Watch', true),
} as const

function method<Request, Response> (
  path: string,
  message: string,
  stream = false
): MethodDefinition<Request, Response> {
  const [request, response] = [root.lookupType(`${message}Request`), root.lookupType(`${message}Response`)]
  const decode = <T>(type: protobuf.Type, bytes: Buffer) =>
    type.toObject(type.decode(bytes), { longs: Number, enums: String, defaults: true }) as T
  const encode = (type: protobuf.Type, value: unknown) =>
    Buffer.from(type.encode(type.fromObject(value as object)).finish())
  return {
    path,
    requestStream: stream,
    responseStream: stream,
    requestSerialize: value => encode(request, value),
    requestDeserialize: bytes => decode(request, bytes),
    responseSerialize: value => encode(response, value),
    responseDeserialize: bytes => decode(response, bytes),
  }
}
