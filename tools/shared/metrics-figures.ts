import { Type } from '@sinclair/typebox'
import {
  type BrokerPage,
  compareS3,
  type Figures,
  type Histogram,
  type ProduceWindow,
  quantile,
} from '../../kafscale/broker-metrics.ts'
import type { BrokerResult } from '../../plugins/broker-metrics/index.ts'
import { integer, integerOrNull, means, numberOrNull, object } from './schema.ts'

/**
 * Figures as fields of an answer; all `null` for a broker without a metrics page.
 * @param everything whether the caller may see every group, and so the largest lag of all
 */
export function figures (of: Figures | undefined, window: ProduceWindow | null, everything: boolean) {
  return {
    s3_state: of?.s3State ?? null,
    s3_latency_ms: of?.s3LatencyMs ?? null,
    s3_error_rate: of?.s3ErrorRate ?? null,
    produce_rps: of?.produceRps ?? null,
    fetch_rps: of?.fetchRps ?? null,
    produce_latency_ms: of && requestsIn(of.produceLatencyMs) > 0 ? quantiles(of.produceLatencyMs) : null,
    produce_latency_window_ms: window && {
      ...quantiles(window.latencyMs),
      requests: requestsIn(window.latencyMs),
      window_seconds: Math.round(window.seconds * 1000) / 1000,
    },
    consumer_lag_max: (everything ? of?.consumerLagMax : null) ?? null,
    admin_requests_total: of?.adminRequests ?? null,
    admin_request_errors_total: of?.adminRequestErrors ?? null,
    admin_error_rate: of && of.adminRequests > 0 ? of.adminRequestErrors / of.adminRequests : null,
    admin_request_latency_ms: of?.adminRequestLatencyMs ?? null,
    authz_denied_total: of?.authzDenied ?? null,
  }
}

/** The broker for which S3 works worst; `undefined` if none answered. */
export function worstS3 (brokers: readonly BrokerResult[]) {
  const answered = brokers.filter(broker => broker.state === 'ok')
  return answered.toSorted((a, b) => compareS3(b.page, a.page))[0]
}

/** What the process of a broker uses, as fields of an answer. */
export function runtime (of: BrokerPage | undefined) {
  return {
    cpu_percent: of?.cpuPercent ?? null,
    heap_inuse_bytes: of?.heapInuseBytes ?? null,
    mem_alloc_bytes: of?.memAllocBytes ?? null,
    mem_sys_bytes: of?.memSysBytes ?? null,
    goroutines: of?.goroutines ?? null,
    uptime_seconds: of?.uptimeSeconds ?? null,
  }
}

function requestsIn (histogram: Histogram): number {
  return histogram.at(-1)?.count ?? 0
}

function quantiles (histogram: Histogram) {
  const figure = (q: number) => {
    const found = quantile(histogram, q)
    return found && ('over' in found ? `over ${found.over} ms` : found.value)
  }
  return { p50: figure(0.5), p95: figure(0.95), p99: figure(0.99) }
}

const s3State = Type.Unsafe<ReturnType<typeof figures>['s3_state']>({
  type: ['string', 'null'],
  enum: ['healthy', 'degraded', 'unavailable', null],
})
const latencyOrNull = Type.Unsafe<number | string | null>({ type: ['number', 'string', 'null'] })
const latencies = { p50: latencyOrNull, p95: latencyOrNull, p99: latencyOrNull }
const latency = Type.Unsafe<ReturnType<typeof figures>['produce_latency_ms']>({
  ...object(latencies), type: ['object', 'null']
})
const latencyWindow = Type.Unsafe<ReturnType<typeof figures>['produce_latency_window_ms']>({
  ...object({
    ...latencies,
    requests: means(integer, 'Produce requests in the window; without any, the quantiles are `null`'),
    window_seconds: means(Type.Number(), 'Length of the window'),
  }),
  type: ['object', 'null'],
})

export const figuresSchema = {
  s3_state: means(s3State, 'For the cluster, the worst state that any broker reports'),
  s3_latency_ms: means(
    numberOrNull,
    'Mean latency of S3 calls in the broker\'s sliding window of 60 s; for the cluster, weighted by load, so that a ' +
    'broker whose S3 is down hardly counts: see `s3_worst_broker`; `null` without S3 calls'
  ),
  s3_error_rate: means(numberOrNull, 'Share of failed S3 calls in the same window, 0 to 1; `null` without S3 calls'),
  produce_rps: means(numberOrNull, 'Records produced per second, over the last 60 s'),
  fetch_rps: means(numberOrNull, 'Records fetched per second, over the last 60 s'),
  produce_latency_ms: means(
    latency,
    'Quantiles of all produce requests since the broker started; `over 5000 ms` (text) for a quantile beyond the ' +
    'last bucket; `null` without requests'
  ),
  produce_latency_window_ms: means(
    latencyWindow,
    'The same for the time since the scrape before, or since the broker restarted; `null` if there was no scrape before'
  ),
  consumer_lag_max: means(
    numberOrNull,
    'Largest lag of all groups, in records; `null` unless the caller may see all groups and topics'
  ),
  admin_requests_total: means(numberOrNull, 'Admin requests since the broker started'),
  admin_request_errors_total: means(numberOrNull, 'Failed admin requests since the broker started'),
  admin_error_rate: means(numberOrNull, 'Share of failed admin requests, 0 to 1; `null` without requests'),
  admin_request_latency_ms: means(numberOrNull, 'Mean latency of admin requests; `null` without requests'),
  authz_denied_total: means(numberOrNull, 'Requests denied since the broker started'),
}

export const runtimeSchema = {
  cpu_percent: means(numberOrNull, 'CPU use since the last scrape by any client; 100 is one core'),
  heap_inuse_bytes: numberOrNull,
  mem_alloc_bytes: numberOrNull,
  mem_sys_bytes: numberOrNull,
  goroutines: integerOrNull,
  uptime_seconds: numberOrNull,
}
