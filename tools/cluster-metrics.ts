import { Type } from '@sinclair/typebox'
import { InvalidArgument, MetricsUnavailable } from '../errors.ts'
import type { BrokerPage } from '../kafscale/broker-metrics.ts'
import { realTime } from '../kafscale/times.ts'
import type { MetricsSnapshot } from '../plugins/broker-metrics/index.ts'
import { figures, figuresSchema, runtime, runtimeSchema, worstS3 } from './shared/metrics-figures.ts'
import {
  flag, input, integer, integerOrNull, list, means, number, numberOrNull, object, text, textOrNull, time, words
} from './shared/schema.ts'
import { defineTool } from './tool.ts'

/** The brokers that an error names. */
const MAX_NAMED = 20
const BROKER = 'Node id or address; all brokers if absent'

export default defineTool({
  name: 'cluster_metrics',
  title: 'Broker metrics',
  description:
    'Metrics of the cluster and of each broker: S3 latency and errors (mean and worst broker), records per second, ' +
    'produce latency since broker start and since the previous scrape, largest lag, admin requests, denials, process ' +
    'resources. partial: a broker is missing. For states only, use cluster_status.',
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
    s3_worst_broker: means(
      object({
        node_id: integerOrNull,
        address: text,
        s3_state: words('healthy', 'degraded', 'unavailable'),
        s3_state_since: textOrNull,
        s3_latency_ms: numberOrNull,
        s3_error_rate: numberOrNull,
      }),
      'The broker for which S3 works worst, by state, then error rate, then latency'
    ),
    admin_requests: means(
      list(object({
        api: means(text, 'Brokers do not count CreateTopics and DeleteTopics'),
        requests: number,
        errors: means(number, 'Requests that failed as a whole; error codes in an answer do not count'),
        latency_ms: means(numberOrNull, 'Mean since the broker started'),
      })),
      'Admin requests of all brokers by API'
    ),
    authz_denials: means(
      list(object({
        action: text,
        resource: means(text, 'The kind of resource, as the broker reports it'),
        requests: number,
      })),
      'Denied requests of all brokers by action and resource'
    ),
    partial: means(flag, 'Whether a broker is missing from the figures of the cluster'),
    brokers_omitted: means(integer, 'Brokers after the first 1,000, which are not scraped'),
    age_ms: means(integer, 'Time since the scrape; calls within `KAFSCALE_MCP_METRICS_MAX_AGE` share one'),
    brokers: list(object({
      node_id: means(integerOrNull, '`null` if the configured URL has no placeholder, and not the host of one broker'),
      address: means(text, 'Host and port of the metrics page'),
      state: means(words('ok', 'unreachable', 'invalid'), '`invalid` if the page is not that of a KafScale broker'),
      error: means(Type.Optional(Type.String()), 'Why this broker has no figures'),
      ...figuresSchema,
      s3_state_since: means(textOrNull, 'Since when the broker has reported this S3 state'),
      ...runtimeSchema,
    })),
  }),
  errors: ['METADATA_UNAVAILABLE', 'METRICS_NOT_CONFIGURED', 'METRICS_UNAVAILABLE'],
  async answer (host, query, { seesEverything }) {
    const { scrapedAt, ageMs, brokers, omitted, whole, window } = await host.brokerMetrics.scrape()
    const worst = worstS3(brokers)
    if (!whole || !worst) {
      const reason = listOf(brokers.map(broker =>
        `${broker.address} ${broker.state}${broker.state === 'ok' ? '' : ` (${broker.error})`}`
      ))
      throw new MetricsUnavailable(reason || 'the snapshot lists no broker')
    }
    return {
      observed_at: scrapedAt.toISOString(),
      ...figures(whole, window, seesEverything),
      s3_worst_broker: {
        node_id: worst.nodeId,
        address: worst.address,
        s3_state: worst.page.s3State,
        s3_state_since: since(worst.page, scrapedAt),
        s3_latency_ms: worst.page.s3LatencyMs,
        s3_error_rate: worst.page.s3ErrorRate,
      },
      admin_requests: whole.adminApis.map(({ latencyMs, ...counts }) => ({ ...counts, latency_ms: latencyMs })),
      authz_denials: [...whole.denials],
      partial: omitted > 0 || brokers.some(({ state }) => state !== 'ok'),
      brokers_omitted: omitted,
      age_ms: ageMs,
      brokers: selected(brokers, query.broker).map(broker => {
        const { page, window } = broker.state === 'ok' ? broker : { page: undefined, window: null }
        return {
          node_id: broker.nodeId,
          address: broker.address,
          state: broker.state,
          ...(broker.state !== 'ok' && { error: broker.error }),
          ...figures(page, window, seesEverything),
          s3_state_since: since(page, scrapedAt),
          ...runtime(page),
        }
      }),
    }
  },
})

/** Since when a broker has reported its S3 state. */
function since (page: BrokerPage | undefined, scrapedAt: Date): string | null {
  return time(realTime(scrapedAt.getTime() - (page?.s3StateDurationSeconds ?? NaN) * 1000))
}

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
