import t from 'tap'
import {
  aggregate,
  type BrokerPage,
  compareS3,
  mergeWindows,
  parseBrokerPage,
  produceWindow,
  quantile,
} from '../../kafscale/broker-metrics.ts'
import { recording } from '../support/paths.ts'

const pages = recording<{ body?: string }>('metrics.jsonl.gz').flatMap(({ body }) => body ?? [])
const page = pages[9] as string
const invalid = { name: 'InvalidPageError' }

t.test('parses the page of a real broker', async t => {
  const read = parseBrokerPage(page)
  t.match(read, {
    s3State: 'healthy',
    s3LatencyMs: 18.746163,
    s3ErrorRate: 0,
    produceRps: 28.116667,
    fetchRps: 63.916667,
    consumerLagMax: 1873,
    adminRequests: 1,
    adminRequestErrors: 0,
    adminRequestLatencyMs: 0,
    adminApis: [{ api: 'ListGroups', requests: 1, errors: 0, latencyMs: 0 }],
    authzDenied: 0,
    denials: [],
    s3StateDurationSeconds: Number,
    cpuPercent: 12.310031,
    heapInuseBytes: 7479296,
    memAllocBytes: 5149312,
    memSysBytes: 22718744,
    goroutines: 39,
    uptimeSeconds: 194.087408,
  })
  t.strictSame(read.produceLatencyMs.at(-1), { le: Infinity, count: 1138 })
})

t.test('parses every page of the recording', async t => {
  t.equal(pages.length, 55)
  t.strictSame(new Set(pages.map(text => parseBrokerPage(text).s3State)), new Set(['healthy', 'unavailable']))
})

t.test('merges the samples of the admin families, interleaved and in any order', async t => {
  const [before] = page.split('kafscale_admin_requests_total{')
  const [, after] = page.split(/(?=# HELP kafscale_authz)/)
  const read = parseBrokerPage(`${before}kafscale_admin_requests_total{api="api_37"} 2
kafscale_admin_request_errors_total{api="api_37"} 1
kafscale_admin_request_latency_ms_avg{api="api_37"} 14.500
kafscale_admin_requests_total{api="ListGroups"} 6
kafscale_admin_request_errors_total{api="ListGroups"} 0
kafscale_admin_request_latency_ms_avg{api="ListGroups"} 2.500
${after}`)
  t.match(read, { adminRequests: 8, adminRequestErrors: 1, adminRequestLatencyMs: (14.5 * 2 + 2.5 * 6) / 8 })
  t.strictSame(read.adminApis, [
    { api: 'CreatePartitions', requests: 2, errors: 1, latencyMs: 14.5 },
    { api: 'ListGroups', requests: 6, errors: 0, latencyMs: 2.5 },
  ], 'by API, sorted, with the names of the APIs that brokers name by their key')
  t.strictSame(aggregate([read, read]).adminApis, [
    { api: 'CreatePartitions', requests: 4, errors: 2, latencyMs: 14.5 },
    { api: 'ListGroups', requests: 12, errors: 0, latencyMs: 2.5 },
  ])
})

t.test('does not know since when S3 is in its state if the broker does not say so', async t => {
  const silent = page.split('\n').filter(line => !line.includes('kafscale_s3_state_duration_seconds')).join('\n')
  t.equal(parseBrokerPage(silent).s3StateDurationSeconds, null)
})

t.test('takes the unlabelled line as the number of denials, which the labelled lines break down', async t => {
  const denied = page.replace(
    'kafscale_authz_denied_total 0\n',
    'kafscale_authz_denied_total 3\n' +
    'kafscale_authz_denied_total{action="admin",resource="cluster"} 1\n' +
    'kafscale_authz_denied_total{action="fetch",resource="topic"} 2\n'
  )
  const read = parseBrokerPage(denied)
  t.equal(read.authzDenied, 3)
  t.strictSame(read.denials, [
    { action: 'admin', resource: 'cluster', requests: 1 },
    { action: 'fetch', resource: 'topic', requests: 2 },
  ])
  t.strictSame(aggregate([read, parseBrokerPage(page), read]).denials, [
    { action: 'admin', resource: 'cluster', requests: 2 },
    { action: 'fetch', resource: 'topic', requests: 4 },
  ])
})

t.test('has no latency of admin requests when there were none', async t => {
  const none = page.split('\n').filter(line => !line.startsWith('kafscale_admin_')).join('\n')
  t.match(parseBrokerPage(none), { adminRequests: 0, adminRequestLatencyMs: null })
})

t.test('rejects a page that a broker would not serve', async t => {
  for (
    const [what, text] of Object.entries({
      empty: '',
      HTML: '<!doctype html><html><body>502</body></html>\n',
      JSON: '{"status":"ok"}\n',
      NaN: page.replace('kafscale_produce_rps 28.116667', 'kafscale_produce_rps NaN'),
      'a value that is not a number': page.replace('kafscale_broker_goroutines 39', 'kafscale_broker_goroutines many'),
      'an infinite value': page.replace('kafscale_s3_error_rate 0.000000', 'kafscale_s3_error_rate +Inf'),
      'two S3 states': page.replace('{state="degraded"} 0', '{state="degraded"} 1'),
      'no S3 state': page.replace('{state="healthy"} 1', '{state="healthy"} 0'),
      'an unknown S3 state': page.replace('{state="healthy"} 1', '{state="fine"} 1'),
      'a histogram without its last bucket': page.replace(/kafscale_produce_latency_ms_bucket\{le="\+Inf"\} \d+\n/, ''),
      'a histogram that decreases': page.replace(/(kafscale_produce_latency_ms_bucket\{le="100"\}) \d+/, '$1 1'),
      'a broken label': page.replace('{state="healthy"} 1', '{state"healthy"} 1'),
      'only a labelled value': page.replace(
        'kafscale_authz_denied_total 0',
        'kafscale_authz_denied_total{action="x"} 0'
      ),
      'a label longer than any of a broker': page.replace(/(?<=api=")\w+/, 'x'.repeat(101)),
      'more APIs than a broker has': page + Array.from({ length: 201 }, (_, key) =>
        `kafscale_admin_requests_total{api="api_${key}"} 1\n`).join(''),
      'too many lines': page + '\n'.repeat(20_000),
    })
  ) t.throws(() => parseBrokerPage(text), invalid, what)
})

t.test('rejects a page that is truncated anywhere before its last required sample', async t => {
  const needed = page.indexOf('kafscale_authz_denied_total 0\n') + 'kafscale_authz_denied_total 0\n'.length
  let accepted = 0
  for (let length = 0; length < needed; length++) {
    try {
      parseBrokerPage(page.slice(0, length))
      accepted++
    } catch {}
  }
  t.equal(accepted, 0)
})

t.test('a broker without S3 calls has no latency and no error rate, rather than the best ones', async t => {
  const figure = (name: string, value: string) => (text: string) =>
    text.replace(new RegExp(`^kafscale_s3_${name} .*$`, 'm'), `kafscale_s3_${name} ${value}`)
  const idle = figure('latency_ms_avg', '0')(figure('error_rate', '0')(page))
  t.match(parseBrokerPage(idle), { s3LatencyMs: null, s3ErrorRate: null })
  t.match(parseBrokerPage(figure('error_rate', '1')(idle)), { s3LatencyMs: 0, s3ErrorRate: 1 }, 'every call failed')
  t.match(parseBrokerPage(figure('latency_ms_avg', '7')(idle)), { s3LatencyMs: 7, s3ErrorRate: 0 })
})

t.test('aggregates the figures of brokers', async t => {
  const part = (figures: Partial<BrokerPage>): BrokerPage => ({ ...parseBrokerPage(page), ...figures })
  const whole = aggregate([
    part({
      s3State: 'healthy',
      s3LatencyMs: 10,
      s3ErrorRate: 0,
      produceRps: 90,
      fetchRps: 210,
      consumerLagMax: 7,
      adminRequests: 1,
      adminRequestLatencyMs: 30,
      authzDenied: 1,
    }),
    part({
      s3State: 'degraded',
      s3LatencyMs: 50,
      s3ErrorRate: 0.4,
      produceRps: 60,
      fetchRps: 40,
      consumerLagMax: 9,
      adminRequests: 3,
      adminRequestLatencyMs: 10,
      authzDenied: 2,
    }),
    part({
      s3State: 'healthy',
      s3LatencyMs: null,
      s3ErrorRate: null,
      produceRps: 0,
      fetchRps: 600,
      consumerLagMax: 9,
      adminRequests: 0,
      adminRequestLatencyMs: null,
      authzDenied: 0,
    }),
  ])
  t.match(whole, {
    s3State: 'degraded',
    s3LatencyMs: (10 * 300 + 50 * 100) / 400,
    s3ErrorRate: 0.1,
    produceRps: 150,
    fetchRps: 850,
    consumerLagMax: 9,
    adminRequests: 4,
    adminRequestLatencyMs: 15,
    authzDenied: 3,
  })
  t.strictSame(whole.produceLatencyMs.at(-1), { le: Infinity, count: 3 * 1138 })

  t.equal(aggregate([part({ s3State: 'unavailable' }), part({ s3State: 'degraded' })]).s3State, 'unavailable')
  t.match(
    aggregate([
      part({ s3LatencyMs: 10, produceRps: 0, fetchRps: 0 }),
      part({ s3LatencyMs: 20, produceRps: 0, fetchRps: 0 }),
    ]),
    { s3LatencyMs: 15 },
    'unweighted without load'
  )
  const unused = { s3LatencyMs: null, s3ErrorRate: null }
  t.match(aggregate([part(unused)]), unused, 'no broker uses S3')
})

t.test('interpolates a quantile within its bucket', async t => {
  const histogram = [{ le: 10, count: 10 }, { le: 20, count: 90 }, { le: 50, count: 90 }, { le: Infinity, count: 100 }]
  t.strictSame(quantile(histogram, 0.05), { value: 5 })
  t.strictSame(quantile(histogram, 0.5), { value: 15 })
  t.strictSame(quantile(histogram, 0.9), { value: 20 })
  t.strictSame(quantile(histogram, 0.99), { over: 50 }, 'beyond the last finite bound')
  t.equal(quantile([{ le: 1, count: 0 }, { le: Infinity, count: 0 }], 0.5), null, 'no samples')
  t.equal(quantile([], 0.5), null)
})

t.test('orders brokers by S3: state, then error rate, then latency', async t => {
  const part = (s3State: BrokerPage['s3State'], s3ErrorRate: number | null, s3LatencyMs: number | null): BrokerPage =>
    ({ ...parseBrokerPage(page), s3State, s3ErrorRate, s3LatencyMs })
  const ordered = [
    part('healthy', null, null),
    part('healthy', 0, 10),
    part('healthy', 0, 20),
    part('healthy', 0.1, 5),
    part('degraded', 0, 900),
    part('unavailable', 0.9, 0),
    part('unavailable', 1, 0),
  ]
  t.strictSame(ordered.toReversed().sort(compareS3), ordered)
})

t.test('the produce requests between two pages of a broker', async t => {
  const seen = (uptimeSeconds: number, ...counts: number[]) =>
    ({ uptimeSeconds, produceLatencyMs: [5, 50, Infinity].map((le, index) => ({ le, count: counts[index] ?? 0 })) })
  const counts = ({ latencyMs }: { latencyMs: BrokerPage['produceLatencyMs'] }) => latencyMs.map(({ count }) => count)
  const before = seen(1_000, 100, 190, 200)

  const usual = produceWindow(before, seen(1_010, 101, 200, 215), 10)
  t.equal(usual.seconds, 10)
  t.strictSame(counts(usual), [1, 10, 15])

  t.strictSame(counts(produceWindow(before, seen(1_010, 100, 190, 200), 10)), [0, 0, 0], 'without requests')

  const restarted = [
    ['fewer requests', seen(1_010, 3, 4, 4), 10, 10],
    ['fewer in one bucket', seen(1_010, 300, 300, 400), 10, 10],
    ['an uptime that fell', seen(4, 300, 400, 500), 10, 4],
    ['an uptime shorter than the window', seen(1_500, 300, 400, 500), 2_000, 1_500],
    ['other buckets', { ...before, produceLatencyMs: [{ le: 9, count: 300 }, { le: Infinity, count: 300 }] }, 10, 10],
  ] as const
  for (const [what, now, elapsed, seconds] of restarted) {
    t.strictSame(produceWindow(before, now, elapsed), { seconds, latencyMs: now.produceLatencyMs }, what)
  }

  t.equal(mergeWindows([]), null)
  const merged = mergeWindows([usual, { ...usual, seconds: 20 }])
  t.equal(merged?.seconds, 20)
  t.strictSame(merged && counts(merged), [2, 20, 30])
})

t.test('merges histograms with different bounds at all of the bounds', async t => {
  const one = parseBrokerPage(page)
  const whole = aggregate([
    { ...one, produceLatencyMs: [{ le: 10, count: 4 }, { le: Infinity, count: 5 }] },
    { ...one, produceLatencyMs: [{ le: 5, count: 1 }, { le: 20, count: 3 }, { le: Infinity, count: 3 }] },
  ])
  t.strictSame(whole.produceLatencyMs, [{ le: 5, count: 1 }, { le: 10, count: 5 }, { le: 20, count: 7 }, {
    le: Infinity,
    count: 8,
  }])
})
