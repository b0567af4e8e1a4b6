import { Type } from '@sinclair/typebox'
import { InvalidArgument, MetricsUnavailable } from '../errors.ts'
import type { MetricsSnapshot } from '../plugins/broker-metrics/index.ts'
import { figures, figuresSchema, runtime, runtimeSchema } from './shared/metrics-figures.ts'
import { flag, input, integer, integerOrNull, list, means, object, text, words } from './shared/schema.ts'
import { defineTool } from './tool.ts'

/** The brokers that an error names. */
const MAX_NAMED = 20
const BROKER = 'Node id or address; all brokers if absent'

export default defineTool({
  name: 'cluster_metrics',
  title: 'Broker metrics',
  description:
    'Metrics of the cluster and of each broker: S3 state, latency (ms) and error rate (0 to 1), records produced and ' +
    'fetched per second, produce latency (ms), largest lag, admin requests, process resources. partial: a broker is ' +
    'missing. For states only, use cluster_status.',
  operation: 'observe',
  input: input({
    broker: Type.Optional(Type.Unsafe<string | number>({
      type: ['string', 'integer'],
      maxLength: 1024,
      description: BROKER,
    })),
  }),
  listed: { broker: Type.String({ maxLength: 1024, description: BROKER }) },
  output: object({
    observed_at: means(text, 'When the metrics pages of the brokers were scraped'),
    ...figuresSchema,
    partial: means(flag, 'Whether a broker is missing from the figures of the cluster'),
    brokers_omitted: means(integer, 'Brokers after the first 1,000, which are not scraped'),
    age_ms: means(integer, 'Time since the scrape; calls within `KAFSCALE_MCP_METRICS_MAX_AGE` share one'),
    brokers: list(object({
      node_id: means(integerOrNull, '`null` if the configured URL has no placeholder that identifies the broker'),
      address: means(text, 'Host and port of the metrics page'),
      state: means(words('ok', 'unreachable', 'invalid'), '`invalid` if the page is not that of a KafScale broker'),
      error: means(Type.Optional(Type.String()), 'Why this broker has no figures'),
      ...figuresSchema,
      ...runtimeSchema,
    })),
  }),
  errors: ['METADATA_UNAVAILABLE', 'METRICS_NOT_CONFIGURED', 'METRICS_UNAVAILABLE'],
  async answer (host, query, { seesEverything }) {
    const { scrapedAt, ageMs, brokers, omitted, whole } = await host.brokerMetrics.scrape()
    if (!whole) {
      const reason = listOf(brokers.map(broker =>
        `${broker.address} ${broker.state}${broker.state === 'ok' ? '' : ` (${broker.error})`}`
      ))
      throw new MetricsUnavailable(reason || 'the snapshot lists no broker')
    }
    return {
      observed_at: scrapedAt.toISOString(),
      ...figures(whole, seesEverything),
      partial: omitted > 0 || brokers.some(({ state }) => state !== 'ok'),
      brokers_omitted: omitted,
      age_ms: ageMs,
      brokers: selected(brokers, query.broker).map(broker => {
        const page = broker.state === 'ok' ? broker.page : undefined
        return {
          node_id: broker.nodeId,
          address: broker.address,
          state: broker.state,
          ...(broker.state !== 'ok' && { error: broker.error }),
          ...figures(page, seesEverything),
          ...runtime(page),
        }
      }),
    }
  },
})

/** @throws {InvalidArgument} if there is no such broker */
function selected (brokers: MetricsSnapshot['brokers'], asked: string | number | undefined) {
  if (asked === undefined) return brokers
  const found = brokers.filter(({ nodeId, address }) => address === asked || `${nodeId ?? ''}` === `${asked}`)
  if (found.length === 0) {
    throw new InvalidArgument(
      `"broker" must be one of ${listOf(brokers.map(({ nodeId, address }) => String(nodeId ?? address)))}`
    )
  }
  return found
}

function listOf (brokers: string[]): string {
  const more = brokers.length - MAX_NAMED
  return [...brokers.slice(0, MAX_NAMED), ...more > 0 ? [`and ${more} more`] : []].join(', ')
}
