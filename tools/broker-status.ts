import { Type } from '@sinclair/typebox'
import { InvalidArgument } from '../errors.ts'
import type { Broker } from '../kafscale/records.ts'
import { brokersOf, observedAt } from './shared/observed.ts'
import {
  flag, flagOrNull, input, integer, list, means, numberOrNull, object, observed, text, textOrNull
} from './shared/schema.ts'
import { defineTool, type Host } from './tool.ts'

/** Brokers that are asked in one call: all at once, so that it takes as long as one of them. */
const MAX_BROKERS = 32

export default defineTool({
  name: 'broker_status',
  title: 'Ask brokers for their status',
  description:
    'What brokers say about themselves over gRPC: version, whether they are ready, and how they see S3 (state, mean ' +
    `latency in ms, error rate from 0 to 1). Without node_id, asks the first ${MAX_BROKERS} brokers. ` +
    'For throughput use cluster_metrics.',
  operation: 'observe',
  input: input({ node_id: Type.Optional(Type.Integer({ description: 'Only this broker' })) }),
  listed: { node_id: Type.Integer({ description: 'Only this broker' }) },
  output: object({
    ...observed,
    brokers: list(object({
      node_id: integer,
      host: text,
      reachable: means(flag, 'Whether its control plane answered'),
      answered_as: means(Type.Optional(integer), 'The node id that the broker gives itself, if it is another one'),
      version: textOrNull,
      ready: means(flagOrNull, 'Whether the broker sees S3 as healthy'),
      s3_state: textOrNull,
      s3_latency_ms: means(numberOrNull, 'Mean latency of S3 requests'),
      s3_error_rate: means(numberOrNull, 'Fraction of S3 requests that failed, from 0 to 1'),
      error: means(Type.Optional(text), 'Why it did not answer'),
    })),
    brokers_omitted: means(Type.Optional(integer), 'Brokers that were not asked, because there are too many'),
  }),
  errors: ['METADATA_UNAVAILABLE'],
  async answer (host, { node_id: nodeId }, context) {
    const mirror = context.mirror()
    const brokers = brokersOf(mirror)
    const chosen = nodeId === undefined ? brokers : brokers.filter(broker => broker.nodeId === nodeId)
    if (nodeId !== undefined && chosen.length === 0) {
      throw new InvalidArgument(`"node_id" must be one of ${brokers.map(({ nodeId }) => nodeId).join(', ')}`)
    }
    const omitted = chosen.length - MAX_BROKERS
    return {
      ...observedAt(host, mirror),
      brokers: await Promise.all(chosen.slice(0, MAX_BROKERS).map(broker => ask(host, broker, context.signal))),
      ...omitted > 0 && { brokers_omitted: omitted },
    }
  },
})

async function ask ({ brokerControl }: Host, broker: Broker, signal: AbortSignal) {
  const { nodeId, host } = broker
  const row = { node_id: nodeId, host }
  try {
    const { nodeId: own, version, ready, s3 } = await brokerControl.status(broker, signal)
    return {
      ...row,
      reachable: true,
      ...own !== nodeId && { answered_as: own },
      version,
      ready,
      s3_state: s3?.state ?? null,
      s3_latency_ms: s3?.latencyMs ?? null,
      s3_error_rate: s3?.errorRate ?? null,
    }
  } catch (error) {
    return {
      ...row,
      reachable: false,
      version: null,
      ready: null,
      s3_state: null,
      s3_latency_ms: null,
      s3_error_rate: null,
      error: (error as Error).message,
    }
  }
}
