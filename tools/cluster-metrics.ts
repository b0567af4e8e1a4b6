import { Type } from '@sinclair/typebox'
import { MetricsUnavailable } from '../errors.ts'
import { figures, figuresSchema, runtime, runtimeSchema } from './shared/metrics-figures.ts'
import { flag, input, integer, integerOrNull, list, object, text, words } from './shared/schema.ts'
import { defineTool } from './tool.ts'

export default defineTool({
  name: 'cluster_metrics',
  title: 'Broker metrics',
  description:
    'Figures scraped from the brokers, for the cluster and for each: S3 state, latency and error rate (0 to 1), records/s produced and fetched, produce latency quantiles (ms), largest lag, admin requests, process use. partial: a broker gave none. States alone: cluster_status.',
  operation: 'observe',
  input: input({}),
  output: object({
    observed_at: text,
    ...figuresSchema,
    partial: flag,
    age_ms: integer,
    brokers: list(object({
      node_id: integerOrNull,
      address: text,
      state: words('ok', 'unreachable', 'invalid'),
      error: Type.Optional(Type.String()),
      ...figuresSchema,
      ...runtimeSchema,
    })),
  }),
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
