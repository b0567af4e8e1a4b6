import { Type } from '@sinclair/typebox'
import { type BrokerPage, type Figures, quantile } from '../../kafscale/broker-metrics.ts'
import { integerOrNull, means, numberOrNull, object } from './schema.ts'

/**
 * Figures as fields of an answer; all `null` for a broker without a metrics page.
 * @param everything whether the caller may see every group, and so the largest lag of all
 */
export function figures (of: Figures | undefined, everything: boolean) {
  return {
    s3_state: of?.s3State ?? null,
    s3_latency_ms: of?.s3LatencyMs ?? null,
    s3_error_rate: of?.s3ErrorRate ?? null,
    produce_rps: of?.produceRps ?? null,
    fetch_rps: of?.fetchRps ?? null,
    produce_latency_ms: of ? quantiles(of) : null,
    consumer_lag_max: (everything ? of?.consumerLagMax : null) ?? null,
    admin_requests_total: of?.adminRequests ?? null,
    admin_request_errors_total: of?.adminRequestErrors ?? null,
    admin_error_rate: of && of.adminRequests > 0 ? of.adminRequestErrors / of.adminRequests : null,
    admin_request_latency_ms: of?.adminRequestLatencyMs ?? null,
    authz_denied_total: of?.authzDenied ?? null,
  }
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

function quantiles (
  { produceLatencyMs }: Figures
): { p50: number | null, p95: number | null, p99: number | null } | null {
  if ((produceLatencyMs.at(-1)?.count ?? 0) === 0) return null
  return {
    p50: quantile(produceLatencyMs, 0.5),
    p95: quantile(produceLatencyMs, 0.95),
    p99: quantile(produceLatencyMs, 0.99),
  }
}

const s3State = Type.Unsafe<ReturnType<typeof figures>['s3_state']>({
  type: ['string', 'null'],
  enum: ['healthy', 'degraded', 'unavailable', null],
})
const latency = Type.Unsafe<ReturnType<typeof figures>['produce_latency_ms']>({
  ...object({ p50: numberOrNull, p95: numberOrNull, p99: numberOrNull }), type: ['object', 'null']
})

export const figuresSchema = {
  s3_state: means(s3State, 'For the cluster, the worst state that any broker reports'),
  s3_latency_ms: means(
    numberOrNull,
    'Mean latency of S3 calls in the broker\'s sliding window; for the cluster, weighted by load'
  ),
  s3_error_rate: means(numberOrNull, 'Share of failed S3 calls in the same window, 0 to 1'),
  produce_rps: means(numberOrNull, 'Records produced per second, over the last 60 s'),
  fetch_rps: means(numberOrNull, 'Records fetched per second, over the last 60 s'),
  produce_latency_ms: means(
    latency,
    'Quantiles since the broker started; `null` without requests, or for a quantile beyond the last bucket'
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
