import type { Broker } from '../../../kafscale/records.ts'
import type { Fact } from '../change.ts'

/** Calls go to the host that the snapshot names. */
export function brokerFact ({ nodeId, host, port }: Broker): Fact {
  return { fact: 'broker_address', subject: String(nodeId), value: `${host}:${port}` }
}

export const UNIMPLEMENTED =
  'The brokers of KafScale up to v1.6 answer UNIMPLEMENTED: the change then fails, and the broker does nothing.'
