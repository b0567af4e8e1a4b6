/** The calls of the control plane, typed. `broker-control.proto` defines them. */
import { fileURLToPath } from 'node:url'
import * as grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

export interface PartitionRef { topic: string, partition: number }

interface PartitionStatus extends PartitionRef {
  leader: boolean
  state: string
  /** int64 as decimal text, as in every field here. */
  log_start_offset: string
  log_end_offset: string
  high_watermark: string
}

interface Methods {
  GetStatus: {
    request: Record<string, never>
    response: { broker_id: string, version: string, ready: boolean, partitions: PartitionStatus[] }
  }
  DrainPartitions: {
    request: { partitions: readonly PartitionRef[], reason: string, deadline_seconds: number }
    response: { drained: PartitionRef[], pending: PartitionRef[] }
  }
  TriggerFlush: {
    request: { partitions: readonly PartitionRef[], all_assigned: boolean }
    response: { flushed: PartitionRef[] }
  }
}

/** What a call resolves to: it does not reject. */
export type Reply<T> = { ok: true, value: T } | { ok: false, error: grpc.ServiceError }

export type StatusResponse = Methods['GetStatus']['response']

export interface ControlClient {
  /** @throws {Error} if the broker does not accept the connection in time */
  connect: (timeoutMs: number) => Promise<void>
  /** Calls a method once. */
  call: <M extends keyof Methods>(
    method: M,
    request: Methods[M]['request'],
    timeoutMs: number,
    signal?: AbortSignal
  ) => Promise<Reply<Methods[M]['response']>>
  close: () => void
}

const definition = loadSync(
  fileURLToPath(new URL('broker-control.proto', import.meta.url)),
  { keepCase: true, longs: String, defaults: true }
)
/** The service, for servers in tests too. */
export const service = definition['kafscale.control.BrokerControl'] as grpc.ServiceDefinition

/**
 * Creates a client that does not connect before it is used.
 * @param name of the host, which a certificate must contain
 */
export function rpcClient (target: string, credentials: grpc.ChannelCredentials, name: string): ControlClient {
  const client = new grpc.Client(target, credentials, {
    'grpc.enable_retries': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.ssl_target_name_override': name,
    'grpc.default_authority': name,
  })
  return {
    async connect (timeoutMs) {
      const channel = client.getChannel()
      const deadline = Date.now() + timeoutMs
      for (;;) {
        const state = channel.getConnectivityState(true)
        if (state === grpc.connectivityState.READY) return
        if (state === grpc.connectivityState.TRANSIENT_FAILURE) throw new Error('it refuses the connection')
        await new Promise<void>((resolve, reject) => {
          channel.watchConnectivityState(state, deadline, error => {
            if (error) reject(new Error(`it does not accept the connection within ${timeoutMs / 1_000} s`))
            else resolve()
          })
        })
      }
    },
    async call (method, request, timeoutMs, signal) {
      type Response = Methods[typeof method]['response']
      const { path, requestSerialize, responseDeserialize } =
        service[method] as grpc.MethodDefinition<object, Response>
      return await new Promise<Reply<Response>>(resolve => {
        const deadline = Date.now() + timeoutMs
        const call = client.makeUnaryRequest(
          path, requestSerialize, responseDeserialize, request, { deadline },
          (error, value) => resolve(error ? { ok: false, error } : { ok: true, value: value as Response })
        )
        signal?.addEventListener('abort', () => call.cancel(), { once: true })
      })
    },
    close: () => client.close(),
  }
}
