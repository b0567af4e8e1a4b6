import fp from 'fastify-plugin'
import { MetadataUnavailable, MetricsNotConfigured } from '../errors.ts'
import {
  aggregate,
  type BrokerPage,
  type Figures,
  InvalidPageError,
  parseBrokerPage,
} from '../kafscale/broker-metrics.ts'
import type { Broker } from '../kafscale/records.ts'

declare module 'fastify' {
  interface FastifyInstance { brokerMetrics: BrokerMetrics }
}

const SCRAPE_TIMEOUT_MS = 3_000
const MAX_PAGE_BYTES = 8 * 1024 * 1024

/** The result for one broker. `nodeId` is `null` when the URL template does not name the broker. */
export type BrokerResult =
  | { nodeId: number | null, address: string, state: 'ok', page: BrokerPage }
  | { nodeId: number | null, address: string, state: 'unreachable' | 'invalid', error: string }

/** The results for all brokers, from one scrape. */
export interface MetricsSnapshot {
  scrapedAt: Date
  ageMs: number
  brokers: readonly BrokerResult[]
  /** The figures of the cluster; `undefined` when no broker returned a valid page. */
  whole: Figures | undefined
}

export interface BrokerMetrics {
  readonly configured: boolean
  /** The outcome of the last scrape. */
  readonly state: 'not_configured' | 'not_scraped' | 'ok' | 'partial' | 'unavailable'
  /**
   * The brokers' figures, at most `METRICS_MAX_AGE` old: callers within that time share one scrape. Takes at most 3 s.
   * A broker that does not answer does not affect the others.
   * @throws {MetricsNotConfigured}
   * @throws {MetadataUnavailable} when a URL has a placeholder and the brokers are not known
   */
  scrape: () => Promise<MetricsSnapshot>
}

export default fp(async function brokerMetrics (app) {
  const { brokerMetricsUrl: templates, metricsMaxAgeMs } = app.config
  const closing = new AbortController()
  let last: { atMs: number, snapshot: Promise<Omit<MetricsSnapshot, 'ageMs'>> } | undefined
  let running = false
  let state: BrokerMetrics['state'] = templates ? 'not_scraped' : 'not_configured'

  app.decorate<BrokerMetrics>('brokerMetrics', {
    configured: templates !== undefined,
    get state () { return state },
    async scrape () {
      if (!templates) throw new MetricsNotConfigured()
      if (!last || (!running && performance.now() - last.atMs >= metricsMaxAgeMs)) {
        const targets = templates.flatMap(template => expand(template, brokers))
        running = true
        last = {
          atMs: performance.now(),
          snapshot: scrapeAll(targets, target => app.telemetry.scrape(target, () => scrapeOne(target, closing.signal))),
        }
        void last.snapshot.then(({ brokers, whole }) => {
          running = false
          state = !whole ? 'unavailable' : brokers.every(broker => broker.state === 'ok') ? 'ok' : 'partial'
        })
      }
      const { atMs, snapshot } = last
      return { ...await snapshot, ageMs: Math.round(performance.now() - atMs) }
    }
  })
  app.addHook('onClose', async () => closing.abort())

  function brokers (): readonly Broker[] {
    const { mirror, reason = '' } = app.metadata
    if (!mirror) throw new MetadataUnavailable(reason)
    if (!mirror.snapshot) {
      throw new MetadataUnavailable("the stored snapshot can't be decoded, so the brokers are not known")
    }
    return mirror.snapshot.brokers
  }
}, { name: 'broker-metrics', dependencies: ['config', 'telemetry', 'metadata'] })

interface Target { nodeId: number | null, address: string, url: URL | undefined }

/** One target per broker if the template has a placeholder, otherwise a single target whose broker is unknown. */
function expand (template: string, brokers: () => readonly Broker[]): Target[] {
  if (!/\{host\}|\{node_id\}/.test(template)) {
    return [{ nodeId: null, address: new URL(template).host, url: new URL(template) }]
  }
  return brokers().map(({ nodeId, host }) => {
    // The host comes from the cluster: it must not inject a path, a port or credentials.
    const name = /^[\w.-]+$/.test(host) ? host : /^[0-9a-f:.]+$/i.test(host) ? `[${host}]` : ''
    const url = name === '' && template.includes('{host}')
      ? null
      : URL.parse(template.replaceAll('{host}', name).replaceAll('{node_id}', String(nodeId)))
    return { nodeId, address: url?.host ?? `broker ${nodeId}`, url: url ?? undefined }
  })
}

async function scrapeAll (
  targets: Target[],
  scrape: (target: Target) => Promise<BrokerResult>
): Promise<Omit<MetricsSnapshot, 'ageMs'>> {
  const scrapedAt = new Date()
  const brokers = await Promise.all(targets.map(scrape))
  const pages = brokers.flatMap(broker => broker.state === 'ok' ? [broker.page] : [])
  return { scrapedAt, brokers, whole: pages.length > 0 ? aggregate(pages) : undefined }
}

async function scrapeOne ({ nodeId, address, url }: Target, closing: AbortSignal): Promise<BrokerResult> {
  if (!url) return { nodeId, address, state: 'invalid', error: 'the host in the snapshot is not a host name' }
  const timeout = AbortSignal.timeout(SCRAPE_TIMEOUT_MS)
  try {
    const page = await download(url, AbortSignal.any([timeout, closing]))
    return { nodeId, address, state: 'ok', page: parseBrokerPage(page) }
  } catch (error) {
    if (error instanceof InvalidPageError) return { nodeId, address, state: 'invalid', error: error.message }
    const { cause, message } = error as Error & { cause?: { code?: string } }
    const why = timeout.aborted ? `no answer within ${SCRAPE_TIMEOUT_MS / 1000} s` : cause?.code ?? message
    return { nodeId, address, state: 'unreachable', error: why }
  }
}

async function download (url: URL, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, { signal, redirect: 'manual', headers: { accept: 'text/plain' } })
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new InvalidPageError(`it answered HTTP ${response.status}`)
  }
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > MAX_PAGE_BYTES) throw new InvalidPageError(`it is larger than ${MAX_PAGE_BYTES / 1024 / 1024} MB`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}
