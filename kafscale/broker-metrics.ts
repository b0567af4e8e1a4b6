import parsePrometheusText from 'parse-prometheus-text-format'

/** What a broker (or the whole cluster) thinks of S3; the order is from best to worst. */
export type S3State = 'healthy' | 'degraded' | 'unavailable'
const S3_STATES: readonly S3State[] = ['healthy', 'degraded', 'unavailable']

/** Cumulative counts by upper bound, ascending; the last bound is `Infinity`. */
export type Histogram = readonly { le: number, count: number }[]

/** Figures that exist for one broker and for the whole. Rates are records per second over a window of 60 s. */
export interface Figures {
  s3State: S3State
  s3LatencyMs: number
  s3ErrorRate: number
  produceRps: number
  fetchRps: number
  produceLatencyMs: Histogram
  /** Of all committed offsets of the cluster, whichever broker says it. */
  consumerLagMax: number
  adminRequests: number
  adminRequestErrors: number
  /** Weighted by requests; `null` without any. */
  adminRequestLatencyMs: number | null
  authzDenied: number
}

/** One broker's page: {@link Figures} and what its process uses. */
export interface BrokerPage extends Figures {
  /** 100 is one core, since the last scrape by anyone. */
  cpuPercent: number
  heapInuseBytes: number
  memAllocBytes: number
  memSysBytes: number
  goroutines: number
  uptimeSeconds: number
}

/** The page is not what a KafScale broker serves; the message says in what. */
export class InvalidPageError extends Error {
  override name = 'InvalidPageError'
}

// A broker's page has about a hundred lines of a hundred characters; the parser is slow on what is far from that.
const MAX_LINES = 20_000
const MAX_LINE_LENGTH = 4_000

interface Sample { value?: string, labels?: Record<string, string>, buckets?: Record<string, string>, count?: string }

/**
 * Reads a broker's `/metrics` page.
 * @throws {InvalidPageError} when a family is missing, as in a truncated page, or has no number where one belongs.
 */
export function parseBrokerPage (text: string): BrokerPage {
  if (!text.endsWith('\n')) throw new InvalidPageError('it is truncated or no metrics page')
  const lines = text.split('\n')
  if (lines.length > MAX_LINES || lines.some(line => line.length > MAX_LINE_LENGTH)) {
    throw new InvalidPageError("it is too long to be a broker's page")
  }
  const families = samplesByFamily(text)

  const samples = (name: string): Sample[] => families.get(name) ?? invalid(`${name} is missing`)
  const unlabelled = (name: string): number => {
    const sample = samples(name).find(({ labels }) => labels === undefined) ?? invalid(`${name} has no value`)
    return number(name, sample.value)
  }
  const byApi = (name: string): Map<string, number> =>
    new Map(samples(name).map(({ labels, value }) => [labels?.api ?? '', number(name, value)]))

  const requests = byApi('kafscale_admin_requests_total')
  const latencies = byApi('kafscale_admin_request_latency_ms_avg')
  return {
    s3State: s3State(samples('kafscale_s3_health_state')),
    s3LatencyMs: unlabelled('kafscale_s3_latency_ms_avg'),
    s3ErrorRate: unlabelled('kafscale_s3_error_rate'),
    produceRps: unlabelled('kafscale_produce_rps'),
    fetchRps: unlabelled('kafscale_fetch_rps'),
    produceLatencyMs: histogram('kafscale_produce_latency_ms', samples('kafscale_produce_latency_ms')),
    consumerLagMax: unlabelled('kafscale_consumer_lag_max'),
    adminRequests: sum([...requests.values()]),
    adminRequestErrors: sum([...byApi('kafscale_admin_request_errors_total').values()]),
    adminRequestLatencyMs: weightedMean(
      [...latencies].map(([api, value]) => ({ value, weight: requests.get(api) ?? 0 }))
    ),
    authzDenied: unlabelled('kafscale_authz_denied_total'), // the labelled lines are parts of it
    cpuPercent: unlabelled('kafscale_broker_cpu_percent'),
    heapInuseBytes: unlabelled('kafscale_broker_heap_inuse_bytes'),
    memAllocBytes: unlabelled('kafscale_broker_mem_alloc_bytes'),
    memSysBytes: unlabelled('kafscale_broker_mem_sys_bytes'),
    goroutines: unlabelled('kafscale_broker_goroutines'),
    uptimeSeconds: unlabelled('kafscale_broker_uptime_seconds'),
  }
}

/**
 * The whole from its parts. Means are weighted by the broker's load (records produced and fetched per second), plain when
 * nobody has any; a broker without S3 calls in its window has no S3 figures and counts in no mean of them.
 * @param pages at least one
 */
export function aggregate (pages: readonly BrokerPage[]): Figures {
  const total = (figure: (page: BrokerPage) => number) => sum(pages.map(figure))
  const usingS3 = pages.filter(page => page.s3LatencyMs > 0 || page.s3ErrorRate > 0)
  const meanByLoad = (figure: (page: BrokerPage) => number) =>
    weightedMean(usingS3.map(page => ({ value: figure(page), weight: page.produceRps + page.fetchRps }))) ?? 0
  return {
    s3State: S3_STATES[Math.max(...pages.map(page => S3_STATES.indexOf(page.s3State)))] as S3State,
    s3LatencyMs: meanByLoad(page => page.s3LatencyMs),
    s3ErrorRate: meanByLoad(page => page.s3ErrorRate),
    produceRps: total(page => page.produceRps),
    fetchRps: total(page => page.fetchRps),
    produceLatencyMs: merge(pages.map(page => page.produceLatencyMs)),
    consumerLagMax: Math.max(...pages.map(page => page.consumerLagMax)),
    adminRequests: total(page => page.adminRequests),
    adminRequestErrors: total(page => page.adminRequestErrors),
    adminRequestLatencyMs: weightedMean(pages.flatMap(({ adminRequestLatencyMs: value, adminRequests: weight }) =>
      value === null ? [] : [{ value, weight }])),
    authzDenied: total(page => page.authzDenied),
  }
}

/**
 * The value below which a share `q` of the samples lies, interpolated within its bucket; `null` without samples or when
 * it lies beyond the last finite bound.
 */
export function quantile (histogram: Histogram, q: number): number | null {
  const rank = q * (histogram.at(-1)?.count ?? 0)
  const index = histogram.findIndex(({ count }) => count >= rank && count > 0)
  const bucket = histogram[index]
  if (!bucket || bucket.le === Infinity) return null
  const below = histogram[index - 1] ?? { le: 0, count: 0 }
  return below.le + (bucket.le - below.le) * (rank - below.count) / (bucket.count - below.count)
}

function merge (histograms: readonly Histogram[]): Histogram {
  const bounds = new Set(histograms.flatMap(histogram => histogram.map(({ le }) => le)))
  return [...bounds].sort((a, b) => a - b).map(le => ({
    le,
    count: sum(histograms.map(histogram => histogram.findLast(bucket => bucket.le <= le)?.count ?? 0)),
  }))
}

/** The parser gives a family again each time that its samples go on, as those of the admin families do. */
function samplesByFamily (text: string): Map<string, Sample[]> {
  const families = new Map<string, Sample[]>()
  let parsed
  try {
    parsed = parsePrometheusText(text)
  } catch {
    return invalid('it is no metrics page')
  }
  for (const { name, metrics } of parsed) {
    const samples = families.get(name) ?? []
    for (const sample of metrics) samples.push(sample)
    families.set(name, samples)
  }
  return families
}

function s3State (samples: Sample[]): S3State {
  const current = samples.filter(sample => number('kafscale_s3_health_state', sample.value) === 1)
  const state = S3_STATES.find(state => state === current[0]?.labels?.state)
  return current.length === 1 && state ? state : invalid('kafscale_s3_health_state does not say one state')
}

function histogram (name: string, [sample]: Sample[]): Histogram {
  const buckets = Object.entries(sample?.buckets ?? {})
    .map(([le, count]) => ({ le: le === '+Inf' ? Infinity : number(name, le), count: number(name, count) }))
    .sort((a, b) => a.le - b.le)
  const cumulative = buckets.every(({ count }, index) => count >= (buckets[index - 1]?.count ?? 0))
  const last = buckets.at(-1)
  if (last?.le !== Infinity || !cumulative || last.count !== number(name, sample?.count)) {
    invalid(`${name} is not a whole histogram`)
  }
  return buckets
}

function number (name: string, text: string | undefined): number {
  const value = text === undefined || text === '' ? NaN : Number(text)
  return Number.isFinite(value) ? value : invalid(`${name} has no number where one belongs`)
}

function weightedMean (values: { value: number, weight: number }[]): number | null {
  if (values.length === 0) return null
  const weights = sum(values.map(({ weight }) => weight))
  return weights > 0
    ? sum(values.map(({ value, weight }) => value * weight)) / weights
    : sum(values.map(({ value }) => value)) / values.length
}

function sum (values: number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function invalid (why: string): never {
  throw new InvalidPageError(why)
}
