import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { SimulatedBroker, SimulatedCluster } from './cluster.ts'

const LAG_BOUNDS = [1, 10, 100, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, Infinity]

/**
 * Serves every broker's metrics page on a free loopback port until the process ends.
 * @returns the URL template of the pages
 */
export async function serveBrokerPages (cluster: SimulatedCluster): Promise<string> {
  const server = createServer(({ url }, response) => {
    const broker = cluster.brokers.find(({ nodeId }) => url === `/${nodeId}/metrics`)
    if (broker) response.setHeader('content-type', 'text/plain; version=0.0.4').end(brokerPage(broker, cluster.lags))
    else response.writeHead(404).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/{node_id}/metrics`
}

/** A page like those of KafScale's brokers: the same families, in the same order and number formats. */
function brokerPage (broker: SimulatedBroker, lags: number[]): string {
  const { nodeId, uptimeSeconds, s3State, produceRps, fetchRps } = broker
  const load = produceRps + fetchRps
  const allocated = Math.round(40e6 + uptimeSeconds % 30 * 4e5 + load * 2e4)
  const listings = Math.floor(uptimeSeconds / 20)
  const denials = nodeId === 1 ? Math.floor(uptimeSeconds / 200) : 0
  return [
    ...family('kafscale_s3_health_state', 'gauge', 'Current broker view of S3 health.'),
    ...['healthy', 'degraded', 'unavailable'].map(state =>
      `kafscale_s3_health_state{state="${state}"} ${state === s3State ? 1 : 0}`
    ),
    ...gauge('kafscale_s3_latency_ms_avg', 'Average S3 latency in the sliding window.', broker.s3LatencyMs.toFixed(6)),
    ...gauge(
      'kafscale_s3_error_rate',
      'Fraction of S3 operations that failed in the sliding window.',
      broker.s3ErrorRate.toFixed(6)
    ),
    ...gauge(
      'kafscale_s3_state_duration_seconds',
      'Seconds spent in the current S3 state.',
      broker.s3StateSeconds.toFixed(6)
    ),
    ...gauge(
      'kafscale_produce_rps',
      'Broker ingest throughput measured over the sliding window.',
      produceRps.toFixed(6)
    ),
    ...gauge('kafscale_fetch_rps', 'Broker fetch throughput measured over the sliding window.', fetchRps.toFixed(6)),
    ...histogram(
      'kafscale_produce_latency_ms',
      'Produce request latency in milliseconds.',
      broker.produceLatencyMs,
      broker.produceLatencySumMs
    ),
    ...histogram(
      'kafscale_consumer_lag',
      'Consumer lag in records.',
      LAG_BOUNDS.map(le => ({ le, count: lags.filter(lag => lag <= le).length })),
      lags.reduce((sum, lag) => sum + lag, 0)
    ),
    ...gauge('kafscale_consumer_lag_max', 'Maximum consumer lag in records.', Math.max(...lags).toFixed(6)),
    ...gauge('kafscale_broker_uptime_seconds', 'Seconds since broker start.', uptimeSeconds.toFixed(6)),
    ...gauge('kafscale_broker_mem_alloc_bytes', 'Bytes of allocated heap objects.', allocated),
    ...gauge('kafscale_broker_mem_sys_bytes', 'Bytes of memory obtained from the OS.', 96_470_280),
    ...gauge('kafscale_broker_heap_inuse_bytes', 'Bytes in in-use spans.', allocated + 3_200_000),
    ...gauge(
      'kafscale_broker_cpu_percent',
      'Approximate CPU usage percent since last scrape.',
      (2 + load / 40).toFixed(6)
    ),
    ...gauge('kafscale_broker_goroutines', 'Number of goroutines.', 140 + nodeId),
    ...family('kafscale_admin_requests_total', 'counter', 'Total admin API requests.'),
    ...family('kafscale_admin_request_errors_total', 'counter', 'Total admin API requests that returned an error.'),
    ...family('kafscale_admin_request_latency_ms_avg', 'gauge', 'Average admin API request latency in milliseconds.'),
    `kafscale_admin_requests_total{api="ListGroups"} ${listings}`,
    'kafscale_admin_request_errors_total{api="ListGroups"} 0',
    `kafscale_admin_request_latency_ms_avg{api="ListGroups"} ${(3 + nodeId).toFixed(3)}`,
    ...family('kafscale_authz_denied_total', 'counter', 'Authorization denials across broker APIs.'),
    `kafscale_authz_denied_total ${denials}`,
    ...denials > 0 ? [`kafscale_authz_denied_total{action="fetch",resource="topic"} ${denials}`] : [],
    '',
  ].join('\n')
}

function family (name: string, type: string, help: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
}

function gauge (name: string, help: string, value: number | string): string[] {
  return [...family(name, 'gauge', help), `${name} ${value}`]
}

function histogram (name: string, help: string, buckets: { le: number, count: number }[], sum: number): string[] {
  return [
    ...family(name, 'histogram', help),
    ...buckets.map(({ le, count }) => `${name}_bucket{le="${bound(le)}"} ${count}`),
    `${name}_sum ${sum.toFixed(6)}`,
    `${name}_count ${buckets.at(-1)?.count}`,
  ]
}

/** Formats a bucket's upper bound like Go's `%g`. */
function bound (le: number): string {
  return le === Infinity ? '+Inf' : le === 1e6 ? '1e+06' : String(le)
}
