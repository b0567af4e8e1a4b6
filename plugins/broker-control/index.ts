import { isIPv6 } from 'node:net'
import * as grpc from '@grpc/grpc-js'
import fp from 'fastify-plugin'
import { BrokerUnreachable } from '../../errors.ts'
import { channelCredentials } from '../../lib/grpc-channel.ts'
import { escapeUnprintable, quote } from '../../lib/printable.ts'
import { type BrokerHosts, brokerHosts } from '../broker-hosts.ts'
import { type ControlClient, type PartitionRef, type Reply, rpcClient, type StatusResponse } from './rpc.ts'

declare module 'fastify' {
  interface FastifyInstance { brokerControl: BrokerControl }
}

/** How long a broker has to connect, and then to answer. A drain has its own deadline on top. */
const TIMEOUT_MS = 5_000
/** KafScale reports the state of S3 as that of a partition of this topic. */
const S3_HEALTH = '__s3_health'
const MAX_MESSAGE_LENGTH = 200

/** A request to a broker's control plane that changes what it does. */
export type ControlCall =
  | { api: 'drain', nodeId: number, partitions: readonly PartitionRef[], deadlineSeconds: number | null }
  | { api: 'flush', nodeId: number }

export type ControlResult =
  /** How many partitions, by what happened to them. */
  | { kind: 'ok', figures: Readonly<Record<string, number>> }
  /** The response names none of the partitions that the call names. */
  | { kind: 'missing' }
  /** The broker does not implement it (`UNIMPLEMENTED`), so it did nothing. */
  | { kind: 'unsupported' }
  /** The broker refused the call. */
  | { kind: 'refused', code: number, name: string, message: string }
  /** The call was sent and nobody knows what it does: no answer in time, a lost connection, a failure half way. */
  | { kind: 'unknown', reason: string }

/** What `GetStatus` says. */
export interface BrokerStatus {
  nodeId: number
  version: string
  ready: boolean
  /** Where the broker sees S3: its state, mean latency in milliseconds and fraction of failed requests. */
  s3: { state: string, latencyMs: number, errorRate: number } | null
}

/** A broker that the snapshot lists. */
export interface ControlTarget { nodeId: number, host: string }

/** The brokers' gRPC control plane. Exists only if `KAFSCALE_MCP_CHANGES` is `enabled`. */
export interface BrokerControl {
  /** Whether `KAFSCALE_MCP_BROKER_CONTROL_ADDR` is set. */
  readonly configured: boolean
  /** @throws {BrokerUnreachable} */
  status: (broker: ControlTarget, signal?: AbortSignal) => Promise<BrokerStatus>
  /**
   * Sends a call once. Never rejects once it was sent.
   * @throws {BrokerUnreachable}
   */
  send: (call: ControlCall, broker: ControlTarget) => Promise<ControlResult>
}

export default fp(async function brokerControl (app) {
  const { changes, metricsAllowedHosts } = app.config
  const control = changes?.control
  const hosts = brokerHosts(metricsAllowedHosts)
  const open = new Set<ControlClient>()

  /** Runs `use` on a connection of its own to one broker. */
  async function on<T> (broker: ControlTarget, use: (client: ControlClient) => Promise<T>): Promise<T> {
    if (!control) throw new BrokerUnreachable('KAFSCALE_MCP_BROKER_CONTROL_ADDR is not set')
    const { target, name } = await resolve(control.addr, broker, hosts).catch((error: unknown) => {
      throw unreachable(broker, error)
    })
    const client = rpcClient(target, channelCredentials(control.tls), name)
    open.add(client)
    try {
      await client.connect(TIMEOUT_MS).catch((error: unknown) => { throw unreachable(broker, error) })
      return await use(client)
    } finally {
      open.delete(client)
      client.close()
    }
  }

  app.decorate<BrokerControl>('brokerControl', {
    configured: control !== undefined,
    async status (broker, signal) {
      return await on(broker, async client => {
        const reply = await client.call('GetStatus', {}, TIMEOUT_MS, signal)
        if (!reply.ok) throw unreachable(broker, reply.error)
        return statusOf(reply.value)
      })
    },
    async send (call, broker) {
      return await on(broker, async client => call.api === 'drain'
        ? resultOf(
          await client.call('DrainPartitions', {
            partitions: call.partitions,
            reason: 'requested through kafscale-mcp',
            deadline_seconds: call.deadlineSeconds ?? 0,
          }, TIMEOUT_MS + (call.deadlineSeconds ?? 0) * 1_000),
          ({ drained, pending }) => drainResult(call.partitions, drained, pending)
        )
        : resultOf(
          await client.call('TriggerFlush', { partitions: [], all_assigned: true }, TIMEOUT_MS),
          ({ flushed }) => ({ kind: 'ok', figures: { flushed_partitions: flushed.length } })
        ))
    },
  })
  app.addHook('onClose', async () => { for (const client of open) client.close() })
}, { name: 'broker-control', dependencies: ['config'] })

/** Statuses with which a broker refuses a call before it does anything. */
const REFUSALS: ReadonlySet<grpc.status> = new Set([
  grpc.status.INVALID_ARGUMENT, grpc.status.NOT_FOUND, grpc.status.ALREADY_EXISTS, grpc.status.PERMISSION_DENIED,
  grpc.status.FAILED_PRECONDITION, grpc.status.OUT_OF_RANGE, grpc.status.UNAUTHENTICATED,
])

function resultOf<T> (reply: Reply<T>, understand: (value: T) => ControlResult): ControlResult {
  if (reply.ok) return understand(reply.value)
  const { code, details } = reply.error
  if (code === grpc.status.UNIMPLEMENTED) return { kind: 'unsupported' }
  const name = grpc.status[code]
  const message = escapeUnprintable(details).slice(0, MAX_MESSAGE_LENGTH)
  return REFUSALS.has(code)
    ? { kind: 'refused', code, name, message }
    : { kind: 'unknown', reason: `${name}: ${message}` }
}

/** A drain is done if all the partitions that it names are drained. The others may follow. */
function drainResult (
  named: readonly PartitionRef[],
  drained: readonly PartitionRef[],
  pending: readonly PartitionRef[]
): ControlResult {
  const names = ({ topic, partition }: PartitionRef) => JSON.stringify([topic, partition])
  const done = new Set(drained.map(names))
  const left = named.filter(each => !done.has(names(each))).length
  if (left === 0 && pending.length === 0) return { kind: 'ok', figures: { drained_partitions: done.size } }
  if (done.size + pending.length === 0) return { kind: 'missing' }
  return { kind: 'unknown', reason: `the broker has drained ${named.length - left} of ${named.length} partitions` }
}

function statusOf ({ broker_id: id, version, ready, partitions }: StatusResponse): BrokerStatus {
  const s3 = partitions.find(({ topic }) => topic === S3_HEALTH)
  return {
    nodeId: Number(id),
    version,
    ready,
    // The fields of a partition carry other figures here.
    s3: s3
      ? { state: s3.state, latencyMs: Number(s3.log_end_offset), errorRate: Number(s3.high_watermark) / 1_000 }
      : null,
  }
}

function unreachable ({ nodeId }: ControlTarget, error: unknown): Error {
  const { message, details = message } = error as Error & { details?: string }
  return new BrokerUnreachable(`the control plane of broker ${nodeId} does not answer (${quote(details)})`)
}

/** The address of a broker. A name is resolved here, so that what is connected to is what was checked. */
async function resolve (
  template: string,
  { nodeId, host }: ControlTarget,
  hosts: BrokerHosts
): Promise<{ target: string, name: string }> {
  const address = template
    .replaceAll('{host}', isIPv6(host) ? `[${host}]` : host)
    .replaceAll('{node_id}', String(nodeId))
  const { hostname, port } = new URL(`grpc://${address}`)
  const name = hostname.replace(/^\[|\]$/g, '')
  // The operator chose an address without a placeholder; the snapshot chose the others.
  if (address === template) return { target: `dns:${address}`, name }
  hosts.check(name)
  const ip = await new Promise<string>((resolve, reject) => {
    hosts.lookup(name, {}, (error, found) => { if (error) reject(error); else resolve(String(found)) })
  })
  return { target: isIPv6(ip) ? `ipv6:[${ip}]:${port}` : `ipv4:${ip}:${port}`, name }
}
