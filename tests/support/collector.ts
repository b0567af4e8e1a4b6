/** A minimal collector of traces, for OTLP over HTTP. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import protobuf from 'protobufjs'
import type { Teardown } from './etcd.ts'

// Numbers and types as in opentelemetry-proto 1.x; only the fields that tests use.
const { root } = protobuf.parse(`
  syntax = "proto3";
  message Request { repeated ResourceSpans resource_spans = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
  message Resource { repeated KeyValue attributes = 1; }
  message ScopeSpans { repeated Span spans = 2; }
  message Span {
    bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; bytes parent_span_id = 4;
    string name = 5; int32 kind = 6; fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8;
    repeated KeyValue attributes = 9; repeated Link links = 13; Status status = 15;
  }
  message Link { bytes trace_id = 1; bytes span_id = 2; }
  message Status { string message = 2; int32 code = 3; }
  message KeyValue { string key = 1; AnyValue value = 2; }
  message AnyValue {
    oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3; double double_value = 4; }
  }
`)
const Request = root.lookupType('Request')
const KINDS = ['unspecified', 'internal', 'server', 'client']

type Attributes = Record<string, unknown>

export interface CollectedSpan {
  name: string
  kind: string
  traceId: string
  spanId: string
  parentSpanId: string
  traceState: string
  durationMs: number
  attributes: Attributes
  links: { traceId: string, spanId: string }[]
  failed: boolean
  resource: Attributes
}

/** Listens on a free loopback port. `url` is a value for `OTEL_EXPORTER_OTLP_ENDPOINT`. */
export async function startCollector (
  t: Teardown
): Promise<{ url: string, spans: CollectedSpan[], bodies: Buffer[], authorization: () => string | undefined }> {
  const spans: CollectedSpan[] = []
  const bodies: Buffer[] = []
  let authorization: string | undefined
  const server = createServer(async (request, response) => {
    const body = await buffer(request)
    if (request.url !== '/v1/traces' || request.headers['content-type'] !== 'application/x-protobuf') {
      return response.writeHead(400).end()
    }
    authorization = request.headers.authorization
    bodies.push(body)
    spans.push(...decode(body))
    response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    bodies,
    authorization: () => authorization,
  }
}

interface Message { [field: string]: unknown }

function decode (body: Buffer): CollectedSpan[] {
  const message = Request.toObject(Request.decode(body), {
    longs: String,
    bytes: String,
    arrays: true,
    defaults: true,
  }) as Message
  return list(message['resourceSpans']).flatMap(({ resource, scopeSpans }) =>
    list(scopeSpans).flatMap(({ spans }) =>
      list(spans).map(span => spanOf(span, attributes((resource as Message)['attributes'])))
    )
  )
}

function spanOf (span: Message, resource: Attributes): CollectedSpan {
  return {
    name: String(span['name']),
    kind: KINDS[Number(span['kind'])] ?? '',
    ...ids(span),
    parentSpanId: hex(span['parentSpanId']),
    traceState: String(span['traceState']),
    durationMs: Number(BigInt(String(span['endTimeUnixNano'])) - BigInt(String(span['startTimeUnixNano']))) / 1e6,
    attributes: attributes(span['attributes']),
    links: list(span['links']).map(ids),
    failed: (span['status'] as Message | null)?.['code'] === 2,
    resource,
  }
}

function ids ({ traceId, spanId }: Message): { traceId: string, spanId: string } {
  return { traceId: hex(traceId), spanId: hex(spanId) }
}

function hex (bytes: unknown): string {
  return Buffer.from(String(bytes), 'base64').toString('hex')
}

function list (field: unknown): Message[] {
  return field as Message[]
}

function attributes (field: unknown): Attributes {
  return Object.fromEntries(list(field).map(({ key, value }) => {
    const { stringValue, boolValue, intValue, doubleValue } = value as Message
    return [key, stringValue ?? boolValue ?? (intValue === undefined ? doubleValue : Number(intValue))]
  }))
}
