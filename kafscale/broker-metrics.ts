import parsePrometheusText from 'parse-prometheus-text-format'

/** The health of S3 as a broker, or the cluster as a whole, sees it. */
export type S3State = 'healthy' | 'degraded' | 'unavailable'
/** From best to worst. */
const S3_STATES: readonly S3State[] = ['healthy', 'degraded', 'unavailable']

/** Cumulative counts by upper bound, in ascending order. The last bound is `Infinity`. */
export type Histogram = readonly { le: number, count: number }[]

/** Requests to one admin API since the broker started. Brokers count no CreateTopics and no DeleteTopics. */
export interface AdminApi { api: string, requests: number, errors: number, latencyMs: number | null }

/** Requests that were denied since the broker started. */
export interface Denials { action: string, resource: string, requests: number }

/** Figures that exist for one broker and for the cluster. Rates are records per second over a 60 s window. */
export interface Figures {
  s3State: S3State
  /** `null`, like the error rate, without S3 calls in the broker's window: then a page has 0 for both. */
  s3LatencyMs: number | null
  s3ErrorRate: number | null
  produceRps: number
  fetchRps: number
  produceLatencyMs: Histogram
  /** The largest lag of any committed offset in the cluster. Every broker reports it. */
  consumerLagMax: number
  adminRequests: number
  adminRequestErrors: number
  /** Weighted by the number of requests; `null` when there were none. */
  adminRequestLatencyMs: number | null
  /** Sorted by name. */
  adminApis: readonly AdminApi[]
  authzDenied: number
  /** What makes up `authzDenied`, sorted by action and resource. */
  denials: readonly Denials[]
}

/** One broker's page: its {@link Figures} and the resources its process uses. */
export interface BrokerPage extends Figures {
  /** `null` if the broker has not determined the state yet. */
  s3StateDurationSeconds: number | null
  /** 100 is one core. Measured since the last scrape by anyone. */
  cpuPercent: number
  heapInuseBytes: number
  memAllocBytes: number
  memSysBytes: number
  goroutines: number
  uptimeSeconds: number
}

/** The page is not one that a KafScale broker serves. The message says why. */
export class InvalidPageError extends Error {
  override name = 'InvalidPageError'
}

// A broker's page has about 100 lines of 100 characters. The parser is slow on much larger input.
const MAX_LINES = 20_000
const MAX_LINE_LENGTH = 4_000
/** Brokers have seven admin APIs, and fewer than a hundred pairs of an action and a resource. */
const MAX_LABELS = 200
const MAX_LABEL_LENGTH = 100
/** APIs that brokers name by their key in the Kafka protocol. */
const API_NAMES: Readonly<Record<string, string>> = { api_37: 'CreatePartitions', api_42: 'DeleteGroups' }

interface Sample { value?: string, labels?: Record<string, string>, buckets?: Record<string, string>, count?: string }

/**
 * Parses a broker's `/metrics` page.
 * @throws {InvalidPageError} when a family is missing, as in a truncated page, or a value is not a number
 */
export function parseBrokerPage (text: string): BrokerPage {
  if (!text.endsWith('\n')) throw new InvalidPageError('it is truncated or not a metrics page')
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
    new Map(bounded(name, samples(name)).map(({ labels, value }) => [labels?.api ?? '', number(name, value)]))

  const requests = byApi('kafscale_admin_requests_total')
  const errors = byApi('kafscale_admin_request_errors_total')
  const latencies = byApi('kafscale_admin_request_latency_ms_avg')
  const adminApis = mergeApis([...requests].map(([api, count]) => ({
    api: API_NAMES[api] ?? api,
    requests: count,
    errors: errors.get(api) ?? 0,
    latencyMs: count > 0 ? latencies.get(api) ?? null : null,
  })))
  const s3LatencyMs = unlabelled('kafscale_s3_latency_ms_avg')
  const s3ErrorRate = unlabelled('kafscale_s3_error_rate')
  const usesS3 = s3LatencyMs > 0 || s3ErrorRate > 0
  const denied = 'kafscale_authz_denied_total'
  return {
    s3State: s3State(samples('kafscale_s3_health_state')),
    s3LatencyMs: usesS3 ? s3LatencyMs : null,
    s3ErrorRate: usesS3 ? s3ErrorRate : null,
    s3StateDurationSeconds: families.has('kafscale_s3_state_duration_seconds')
      ? unlabelled('kafscale_s3_state_duration_seconds')
      : null,
    produceRps: unlabelled('kafscale_produce_rps'),
    fetchRps: unlabelled('kafscale_fetch_rps'),
    produceLatencyMs: histogram('kafscale_produce_latency_ms', samples('kafscale_produce_latency_ms')),
    consumerLagMax: unlabelled('kafscale_consumer_lag_max'),
    adminRequests: sum([...requests.values()]),
    adminRequestErrors: sum([...errors.values()]),
    adminRequestLatencyMs: weightedMean(
      [...latencies].map(([api, value]) => ({ value, weight: requests.get(api) ?? 0 }))
    ),
    adminApis,
    authzDenied: unlabelled(denied), // the total: the labelled lines break it down
    denials: mergeDenials(bounded(denied, samples(denied)).flatMap(({ labels, value }) =>
      labels ? { action: labels.action ?? '', resource: labels.resource ?? '', requests: number(denied, value) } : []
    )),
    cpuPercent: unlabelled('kafscale_broker_cpu_percent'),
    heapInuseBytes: unlabelled('kafscale_broker_heap_inuse_bytes'),
    memAllocBytes: unlabelled('kafscale_broker_mem_alloc_bytes'),
    memSysBytes: unlabelled('kafscale_broker_mem_sys_bytes'),
    goroutines: unlabelled('kafscale_broker_goroutines'),
    uptimeSeconds: unlabelled('kafscale_broker_uptime_seconds'),
  }
}

/**
 * The figures of the cluster, from those of its brokers. The S3 means are weighted by each broker's load (records
 * produced and fetched per second), and unweighted when there is no load. They leave out brokers without S3 calls in
 * their window, and are `null` if no broker has any.
 * @param pages at least one
 */
export function aggregate (pages: readonly BrokerPage[]): Figures {
  const total = (figure: (page: BrokerPage) => number) => sum(pages.map(figure))
  const meanByLoad = (figure: (page: BrokerPage) => number | null) =>
    weightedMean(pages.flatMap(page => {
      const value = figure(page)
      return value === null ? [] : [{ value, weight: page.produceRps + page.fetchRps }]
    }))
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
    adminApis: mergeApis(pages.flatMap(page => page.adminApis)),
    authzDenied: total(page => page.authzDenied),
    denials: mergeDenials(pages.flatMap(page => page.denials)),
  }
}

/**
 * Orders brokers by how they see S3, best first: by state, then error rate, then latency. A broker whose S3 is down
 * serves little, so a mean that is weighted by load hides it.
 */
export function compareS3 (a: BrokerPage, b: BrokerPage): number {
  return S3_STATES.indexOf(a.s3State) - S3_STATES.indexOf(b.s3State) ||
    (a.s3ErrorRate ?? 0) - (b.s3ErrorRate ?? 0) || (a.s3LatencyMs ?? 0) - (b.s3LatencyMs ?? 0)
}

/** A quantile, or the last finite bound if the quantile lies beyond it. */
export type Quantile = { value: number } | { over: number }

/**
 * The `q` quantile, interpolated linearly within its bucket; `null` when there are no samples.
 * @param q from 0 to 1
 */
export function quantile (histogram: Histogram, q: number): Quantile | null {
  const rank = q * (histogram.at(-1)?.count ?? 0)
  const index = histogram.findIndex(({ count }) => count >= rank && count > 0)
  const bucket = histogram[index]
  if (!bucket) return null
  const below = histogram[index - 1] ?? { le: 0, count: 0 }
  if (bucket.le === Infinity) return { over: below.le }
  return { value: below.le + (bucket.le - below.le) * (rank - below.count) / (bucket.count - below.count) }
}

/** The produce requests of a period that ends with the scrape. */
export interface ProduceWindow { seconds: number, latencyMs: Histogram }

/** What is kept of a page to tell what happened since. */
export type ProduceCount = Pick<BrokerPage, 'uptimeSeconds' | 'produceLatencyMs'>

/** The produce requests between two pages of one broker. After a restart, those since the restart. */
export function produceWindow (before: ProduceCount, now: ProduceCount, elapsedSeconds: number): ProduceWindow {
  const latencyMs = now.produceLatencyMs.map(({ le, count }, index) => {
    const earlier = before.produceLatencyMs[index]
    return { le, count: earlier?.le === le ? count - earlier.count : NaN }
  })
  const counts = latencyMs.map(({ count }, index) => count - (latencyMs[index - 1]?.count ?? 0))
  const restarted = now.uptimeSeconds < Math.max(elapsedSeconds, before.uptimeSeconds) ||
    !counts.every(count => count >= 0)
  return restarted
    ? { seconds: Math.min(now.uptimeSeconds, elapsedSeconds), latencyMs: now.produceLatencyMs }
    : { seconds: elapsedSeconds, latencyMs }
}

/** The windows of several brokers as one, as long as the longest; `null` if there are none. */
export function mergeWindows (windows: readonly ProduceWindow[]): ProduceWindow | null {
  if (windows.length === 0) return null
  return {
    seconds: Math.max(...windows.map(({ seconds }) => seconds)),
    latencyMs: merge(windows.map(({ latencyMs }) => latencyMs)),
  }
}

function mergeApis (apis: AdminApi[]): AdminApi[] {
  const groups = Map.groupBy(apis, ({ api }) => api)
  return [...groups].sort(([a], [b]) => a < b ? -1 : 1).map(([api, parts]) => ({
    api,
    requests: sum(parts.map(({ requests }) => requests)),
    errors: sum(parts.map(({ errors }) => errors)),
    latencyMs: weightedMean(
      parts.flatMap(({ latencyMs: value, requests: weight }) => value === null ? [] : { value, weight })
    ),
  }))
}

function mergeDenials (denials: Denials[]): Denials[] {
  const groups = Map.groupBy(denials, ({ action, resource }) => JSON.stringify([action, resource]))
  return [...groups].sort(([a], [b]) => a < b ? -1 : 1)
    .map(([, parts]) => ({ ...parts[0] as Denials, requests: sum(parts.map(({ requests }) => requests)) }))
}

function merge (histograms: readonly Histogram[]): Histogram {
  const bounds = new Set(histograms.flatMap(histogram => histogram.map(({ le }) => le)))
  return [...bounds].sort((a, b) => a - b).map(le => ({
    le,
    count: sum(histograms.map(histogram => histogram.findLast(bucket => bucket.le <= le)?.count ?? 0)),
  }))
}

/** Merges families that the parser returns in parts: brokers interleave the samples of the admin families. */
function samplesByFamily (text: string): Map<string, Sample[]> {
  const families = new Map<string, Sample[]>()
  let parsed
  try {
    parsed = parsePrometheusText(text)
  } catch {
    return invalid('it is not a metrics page')
  }
  for (const { name, metrics } of parsed) {
    const samples = families.get(name) ?? []
    for (const sample of metrics) samples.push(sample)
    families.set(name, samples)
  }
  return families
}

/** Texts of a page reach callers, so there are not more or longer ones than a broker has. */
function bounded (name: string, samples: Sample[]): Sample[] {
  const long = samples.some(({ labels }) => Object.values(labels ?? {}).some(text => text.length > MAX_LABEL_LENGTH))
  return long || samples.length > MAX_LABELS ? invalid(`${name} has labels that no broker has`) : samples
}

function s3State (samples: Sample[]): S3State {
  const current = samples.filter(sample => number('kafscale_s3_health_state', sample.value) === 1)
  const state = S3_STATES.find(state => state === current[0]?.labels?.state)
  return current.length === 1 && state ? state : invalid('kafscale_s3_health_state does not name exactly one state')
}

function histogram (name: string, [sample]: Sample[]): Histogram {
  const buckets = Object.entries(sample?.buckets ?? {})
    .map(([le, count]) => ({ le: le === '+Inf' ? Infinity : number(name, le), count: number(name, count) }))
    .sort((a, b) => a.le - b.le)
  const cumulative = buckets.every(({ count }, index) => count >= (buckets[index - 1]?.count ?? 0))
  const last = buckets.at(-1)
  if (last?.le !== Infinity || !cumulative || last.count !== number(name, sample?.count)) {
    invalid(`${name} is not a complete histogram`)
  }
  return buckets
}

function number (name: string, text: string | undefined): number {
  const value = text === undefined || text === '' ? NaN : Number(text)
  return Number.isFinite(value) ? value : invalid(`${name} has a value that is not a number`)
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
