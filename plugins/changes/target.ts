/** The broker that a change is sent to, and the fence around it. */
import { BrokerStale, BrokerUnreachable, ClusterMismatch } from '../../errors.ts'
import type { Mirror } from '../../kafscale/mirror.ts'
import { quote } from '../../lib/printable.ts'
import type { ControlCall, ControlResult, ControlTarget } from '../broker-control/index.ts'
import type { AdminResult, BrokerSession, BrokerView } from '../kafka-admin/index.ts'
import type { Change } from './change.ts'
import type { Parts } from './parts.ts'
import { kindOf } from './people.ts'
import { currentMirror } from './plan.ts'
import { isAdminCall } from './propose.ts'

const CONNECT_TIMEOUT_MS = 10_000
/** How many differences a message names. */
const MAX_NAMED = 3

export interface Target {
  /** host:port. */
  address: string
  /** Compares the broker's view with etcd's. @throws {ClusterMismatch, BrokerStale, BrokerUnreachable} */
  fence: () => Promise<void>
  /** Sends the change once. */
  send: () => Promise<AdminResult | ControlResult>
  close: () => Promise<void>
}

/**
 * Connects to the broker for a change: always the same one while it answers, since each writes its own view of the
 * cluster.
 * @throws {BrokerUnreachable} if none answers
 */
export async function openTarget (parts: Parts, change: Change): Promise<Target> {
  const call = kindOf(parts, change).call(change.arguments, currentMirror(parts))
  const session = await parts.kafkaAdmin.connect(
    AbortSignal.timeout(CONNECT_TIMEOUT_MS),
    await parts.ledger.lastBroker()
  )
  return {
    address: session.address,
    async fence () {
      await fence(parts, session)
      if (!isAdminCall(call)) await fenceControl(parts, call)
    },
    send: async () => isAdminCall(call)
      ? await session.send(call)
      : await parts.brokerControl.send(call, brokerOf(currentMirror(parts), call)),
    // What became of the change is known by now, whether the connection ends well or not.
    close: async () => { await session.close().catch(() => {}) },
  }
}

async function fence (parts: Parts, session: BrokerSession): Promise<void> {
  const view = await session.view(AbortSignal.timeout(CONNECT_TIMEOUT_MS))
  const { expectedClusterId: expected } = parts.settings
  if (view.clusterId !== expected) {
    const shown = view.clusterId === null ? 'no cluster id' : `the cluster id ${quote(view.clusterId)}`
    throw new ClusterMismatch(`the broker ${session.address} has ${shown}, and ${quote(expected)} is expected`)
  }
  const differences = differencesBetween(view, currentMirror(parts))
  if (differences.length === 0) return
  const rest = differences.length - MAX_NAMED
  const named = [...differences.slice(0, MAX_NAMED), ...rest > 0 ? [`${rest} more differences`] : []]
  throw new BrokerStale(session.address, named.join('; '))
}

/** @throws {BrokerUnreachable} unless the control plane is that of the broker which the change names */
async function fenceControl (parts: Parts, call: ControlCall): Promise<void> {
  const { nodeId } = await parts.brokerControl.status(brokerOf(currentMirror(parts), call))
  if (nodeId === call.nodeId) return
  throw new BrokerUnreachable(
    `the control plane of broker ${call.nodeId} says that it is broker ${nodeId}. In ` +
    'KAFSCALE_MCP_BROKER_CONTROL_ADDR, {host} or {node_id} must name the broker'
  )
}

/** What a broker sees differently from etcd's snapshot. */
export function differencesBetween (view: BrokerView, mirror: Mirror): string[] {
  const listed = new Map(mirror.topics.map(({ name, info }) => [name, info?.partitions.length ?? 0]))
  const brokers = (mirror.snapshot?.brokers ?? []).map(({ nodeId, host, port }) => `${nodeId} at ${host}:${port}`)
  const seen = view.brokers.map(({ nodeId, host, port }) => `${nodeId} at ${host}:${port}`)
  return [
    ...brokers.filter(broker => !seen.includes(broker)).map(broker => `it lacks the broker ${broker}`),
    ...seen.filter(broker => !brokers.includes(broker)).map(broker => `only it has the broker ${broker}`),
    ...[...listed].filter(([name]) => !view.topics.has(name)).map(([name]) => `it lacks the topic ${quote(name)}`),
    ...[...view.topics].flatMap(([name, partitions]) => {
      const stored = listed.get(name)
      if (stored === undefined) return [`only it has the topic ${quote(name)}`]
      return stored === partitions
        ? []
        : [`the topic ${quote(name)} has ${partitions} partitions there and ${stored} in etcd`]
    }),
  ]
}

/** @throws {BrokerUnreachable} if the snapshot lacks the broker */
function brokerOf ({ snapshot }: Mirror, { nodeId }: ControlCall): ControlTarget {
  const broker = snapshot?.brokers.find(broker => broker.nodeId === nodeId)
  if (!broker) throw new BrokerUnreachable(`the snapshot lists no broker ${nodeId}`)
  return broker
}
