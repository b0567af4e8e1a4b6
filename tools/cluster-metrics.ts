import { Type } from '@sinclair/typebox'
import { MetricsUnavailable } from '../errors.ts'
import { figures, figuresSchema, runtime, runtimeSchema } from './shared/metrics-figures.ts'
import { flag, input, integer, integerOrNull, list, means, object, text, words } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'cluster_metrics',
  title: 'Broker metrics',
  description:
    'Figures from the metrics pages of the brokers, for the cluster and each broker: S3 state, latency and error ' +
    'rate (0 to 1), records/s produced and fetched, produce latency (ms), largest lag, admin requests, process use. ' +
    'partial: a broker is missing. For states only use cluster_status.',
  operation: 'observe',
  input: input({}),
  output: object({
    observed_at: means(text, 'When the pages were scraped'),
    ...figuresSchema,
    partial: means(flag, 'At least one broker is missing from the figures of the cluster'),
    age_ms: means(integer, 'Time since the scrape; callers within `KAFSCALE_MCP_METRICS_MAX_AGE` share one'),
    brokers: list(object({
      node_id: means(integerOrNull, '`null` when the URL of the page does not tell whose page it is'),
      address: means(text, 'Host and port of the page'),
      state: means(words('ok', 'unreachable', 'invalid'), '`invalid` when it is not the page of a KafScale broker'),
      error: means(Type.Optional(Type.String()), 'Why there are no figures of this broker'),
      ...figuresSchema,
      ...runtimeSchema,
    })),
  }),
  errors: ['METADATA_UNAVAILABLE', 'METRICS_NOT_CONFIGURED', 'METRICS_UNAVAILABLE'],
  async answer (host, _, { seesEverything }) {
    const { scrapedAt, ageMs, brokers, whole } = await host.brokerMetrics.scrape()
    if (!whole) {
      const each = brokers.map(broker =>
        `${broker.address} ${broker.state}${broker.state === 'ok' ? '' : ` (${broker.error})`}`
      )
      throw new MetricsUnavailable(each.join(', ') || 'the snapshot lists no broker')
    }
    return {
      observed_at: scrapedAt.toISOString(),
      ...figures(whole, seesEverything),
      partial: brokers.some(({ state }) => state !== 'ok'),
      age_ms: ageMs,
      brokers: brokers.map(broker => {
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
