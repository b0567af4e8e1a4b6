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

/** What one page said. `nodeId` is `null` where the URL does not tell whose page it is. */
export type BrokerResult =
  | { nodeId: number | null, address: string, state: 'ok', page: BrokerPage }
  | { nodeId: number | null, address: string, state: 'unreachable' | 'invalid', error: string }

/** What all brokers said at about the same moment. */
export interface MetricsSnapshot {
  scrapedAt: Date
  ageMs: number
  brokers: readonly BrokerResult[]
  /** `undefined` when no broker answered with a page. */
  whole: Figures | undefined
}

export interface BrokerMetrics {
  readonly configured: boolean
  /** What the last scrape found. */
  readonly state: 'not_configured' | 'not_scraped' | 'ok' | 'partial' | 'unavailable'
  /**
   * The brokers' figures, not older than `METRICS_MAX_AGE`: callers within that time share one scrape. A broker that
   * does not answer costs only itself, and 3 s at most.
   * @throws {MetricsNotConfigured}, or {MetadataUnavailable} when the URLs hold a placeholder and no snapshot is known
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

/** One target for each broker where the template has a placeholder, else one whose broker is not known. */
function expand (template: string, brokers: () => readonly Broker[]): Target[] {
  if (!/\{host\}|\{node_id\}/.test(template)) {
    return [{ nodeId: null, address: new URL(template).host, url: new URL(template) }]
  }
  return brokers().map(({ nodeId, host }) => {
    // A host name comes from the cluster: it must not become a path, a port or credentials.
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
  if (!url) return { nodeId, address, state: 'invalid', error: 'the snapshot\'s host is no host name' }
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
