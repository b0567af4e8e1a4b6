import type { MethodDefinition } from '@grpc/grpc-js'
import protobuf from 'protobufjs'
import {
  range,
  type RangeRequest,
  type RangeResponse,
  type Rpc,
  watch,
  type WatchRequest,
  type WatchResponse,
} from '../plugins/etcd/messages.ts'

/** The server side of the messages in `plugins/etcd/messages.ts`: decodes requests and encodes responses. */
const { root } = protobuf.parse(`
  syntax = "proto3";

  message ResponseHeader { int64 revision = 3; }
  message KeyValue { bytes key = 1; int64 mod_revision = 3; bytes value = 5; }

  message RangeRequest {
    bytes key = 1; bytes range_end = 2; int64 limit = 3; int64 revision = 4; bool keys_only = 8;
    int64 min_mod_revision = 10;
  }
  message RangeResponse { ResponseHeader header = 1; repeated KeyValue kvs = 2; bool more = 3; int64 count = 4; }

  message WatchCreateRequest { bytes key = 1; bytes range_end = 2; int64 start_revision = 3; bool fragment = 8; }
  message WatchRequest { WatchCreateRequest create_request = 1; }
  message Event { enum Type { PUT = 0; DELETE = 1; } Type type = 1; KeyValue kv = 2; }
  message WatchResponse {
    ResponseHeader header = 1; bool created = 3; bool canceled = 4; int64 compact_revision = 5;
    string cancel_reason = 6; bool fragment = 7; repeated Event events = 11;
  }
`)

export const rangeMethod = method<RangeRequest, RangeResponse>(range, 'Range', false)
export const watchMethod = method<WatchRequest, WatchResponse>(watch, 'Watch', true)

function method<Request, Response> (
  rpc: Rpc<Request, Response>,
  message: string,
  stream: boolean
): MethodDefinition<Request, Response> {
  const request = root.lookupType(`${message}Request`)
  const response = root.lookupType(`${message}Response`)
  return {
    path: rpc.path,
    requestStream: stream,
    responseStream: stream,
    requestSerialize: rpc.serialize,
    requestDeserialize: bytes => request.toObject(request.decode(bytes), { longs: Number, defaults: true }) as Request,
    responseSerialize: value => Buffer.from(response.encode(response.fromObject(value as object)).finish()),
    responseDeserialize: rpc.deserialize,
  }
}
