import { Type } from '@sinclair/typebox'
import { type BrokerPage, type Figures, quantile } from '../../kafscale/broker-metrics.ts'
import { integerOrNull, numberOrNull, object } from './schema.ts'

/**
 * Figures as answers carry them; of a broker that gave none they are all `null`. The largest lag is of all groups, so it is
 * for those who see them all.
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

/** What one broker's process uses. */
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
  enum: ['healthy', 'degraded', 'unavailable', null],
})
const latency = Type.Unsafe<ReturnType<typeof figures>['produce_latency_ms']>({
  ...object({ p50: numberOrNull, p95: numberOrNull, p99: numberOrNull }), type: ['object', 'null']
})

export const figuresSchema = {
  s3_state: s3State,
  s3_latency_ms: numberOrNull,
  s3_error_rate: numberOrNull,
  produce_rps: numberOrNull,
  fetch_rps: numberOrNull,
  produce_latency_ms: latency,
  consumer_lag_max: numberOrNull,
  admin_requests_total: numberOrNull,
  admin_request_errors_total: numberOrNull,
  admin_error_rate: numberOrNull,
  admin_request_latency_ms: numberOrNull,
  authz_denied_total: numberOrNull,
}

export const runtimeSchema = {
  cpu_percent: numberOrNull,
  heap_inuse_bytes: numberOrNull,
  mem_alloc_bytes: numberOrNull,
  mem_sys_bytes: numberOrNull,
  goroutines: integerOrNull,
  uptime_seconds: numberOrNull,
}
