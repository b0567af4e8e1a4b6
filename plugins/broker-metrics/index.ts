import { get, type IncomingMessage, type RequestOptions } from 'node:http'
import { get as getTls } from 'node:https'
import { isIPv6, type LookupFunction } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import { HostRefusedError, MetadataUnavailable, MetricsNotConfigured } from '../../errors.ts'
import {
  aggregate,
  type BrokerPage,
  type Figures,
  InvalidPageError,
  mergeWindows,
  parseBrokerPage,
  type ProduceWindow,
} from '../../kafscale/broker-metrics.ts'
import type { Broker } from '../../kafscale/records.ts'
import { type BrokerHosts, brokerHosts, isHost } from '../broker-hosts.ts'
import { Windows } from './windows.ts'

declare module 'fastify' {
  interface FastifyInstance { brokerMetrics: BrokerMetrics }
}

const SCRAPE_TIMEOUT_MS = 3_000
/** Scrapes at once. */
const MAX_SCRAPES = 32
/** The brokers after these are left out. The description of `brokers_omitted` repeats this number. */
const MAX_BROKERS = 1_000
/** No scrape starts later than this after the first, so that all of them end within 10 s. */
const LATEST_START_MS = 7_000
const MAX_PAGE_BYTES = 8 * 1024 * 1024

/** The result for one broker. `nodeId` is `null` when the URL template does not name the broker. */
export type BrokerResult =
  | {
    nodeId: number | null
    address: string
    state: 'ok'
    page: BrokerPage
    /** Since the scrape before; `null` if there was none. */
    window: ProduceWindow | null
  }
  | { nodeId: number | null, address: string, state: 'unreachable' | 'invalid', error: string }

/** The results for all brokers, from one scrape. */
export interface MetricsSnapshot {
  scrapedAt: Date
  ageMs: number
  brokers: readonly BrokerResult[]
  /** Brokers that were not scraped, because there are too many. */
  omitted: number
  /** The figures of the cluster; `undefined` when no broker returned a valid page. */
  whole: Figures | undefined
  window: ProduceWindow | null
}

export interface BrokerMetrics {
  readonly configured: boolean
  /** The outcome of the last scrape. */
  readonly state: 'not_configured' | 'not_scraped' | 'ok' | 'partial' | 'unavailable'
  /**
   * The brokers' figures, at most `METRICS_MAX_AGE` old: callers within that time share one scrape. Takes at most 3 s
   * for 32 brokers, and at most 10 s for any number.
   * A broker that does not answer does not affect the others.
   * @throws {MetricsNotConfigured}
   * @throws {MetadataUnavailable} when a URL has a placeholder and the brokers are not known
   */
  scrape: () => Promise<MetricsSnapshot>
}

export default fp(async function brokerMetrics (app) {
  const { brokerMetricsUrl: templates, metricsMaxAgeMs, metricsAllowedHosts } = app.config
  const hosts = brokerHosts(metricsAllowedHosts)
  const closing = new AbortController()
  const windows = new Windows()
  let last: { atMs: number, snapshot: Promise<Omit<MetricsSnapshot, 'ageMs'>> } | undefined
  let running = false
  let warned = false
  let state: BrokerMetrics['state'] = templates ? 'not_scraped' : 'not_configured'

  app.decorate<BrokerMetrics>('brokerMetrics', {
    configured: templates !== undefined,
    get state () { return state },
    async scrape () {
      if (!templates) throw new MetricsNotConfigured()
      if (!last || (!running && performance.now() - last.atMs >= metricsMaxAgeMs)) {
        const targets = templates.flatMap(template => expand(template, brokers, known(), hosts))
        running = true
        last = {
          atMs: performance.now(),
          snapshot: scrapeAll(
            targets,
            target => app.telemetry.scrape(target, () => scrapeOne(target, windows, closing.signal, app.log))
          ),
        }
        void last.snapshot.then(({ brokers, omitted, whole }) => {
          running = false
          windows.keep(targets.map(({ url }) => String(url)))
          const complete = omitted === 0 && brokers.every(broker => broker.state === 'ok')
          state = !whole ? 'unavailable' : complete ? 'ok' : 'partial'
          if (omitted > 0 && !warned) {
            warned = true
            app.log.warn({ scraped: brokers.length, omitted }, 'too many brokers: some are not scraped')
          }
        })
      }
      const { atMs, snapshot } = last
      return { ...await snapshot, ageMs: Math.round(performance.now() - atMs) }
    }
  })
  app.addHook('onClose', async () => closing.abort())

  function known (): readonly Broker[] {
    return app.metadata.mirror?.snapshot?.brokers ?? []
  }

  function brokers (): readonly Broker[] {
    const { mirror, reason = '' } = app.metadata
    if (!mirror) throw new MetadataUnavailable(reason)
    if (!mirror.snapshot) {
      throw new MetadataUnavailable("the stored snapshot can't be decoded, so the brokers are not known")
    }
    return mirror.snapshot.brokers
  }
}, { name: 'broker-metrics', dependencies: ['config', 'telemetry', 'metadata'] })

interface Target {
  nodeId: number | null
  address: string
  /** What to scrape, or why there is nothing to scrape. */
  url: URL | string
  /** For a host from the snapshot: resolves its name. A host that the operator wrote is used as it is. */
  lookup?: LookupFunction
}

/**
 * One target per broker if the template has a placeholder, otherwise a single target. Its broker is known if the URL
 * has the host of exactly one.
 */
function expand (
  template: string,
  brokers: () => readonly Broker[],
  known: readonly Broker[],
  hosts: BrokerHosts
): Target[] {
  if (!/\{host\}|\{node_id\}/.test(template)) {
    const url = new URL(template)
    const name = url.hostname.replace(/^\[|\]$/g, '')
    const [broker, another] = known.filter(({ host }) => host.toLowerCase() === name)
    return [{ nodeId: broker && !another ? broker.nodeId : null, address: url.host, url }]
  }
  const isHostOfBroker = /^\w+:\/\/[^/?#:]*\{/.test(template)
  return brokers().map(({ nodeId, host }): Target => {
    const url = urlOf(template, nodeId, host)
    if (!url) return { nodeId, address: `broker ${nodeId}`, url: 'the host in the snapshot is not a host name' }
    try {
      if (template.includes('{host}')) hosts.check(host)
      // A URL also takes other spellings for an address, and `{node_id}` can be one.
      if (isHostOfBroker) hosts.check(url.hostname.replace(/^\[|\]$/g, ''))
    } catch (error) {
      return { nodeId, address: url.host, url: (error as Error).message }
    }
    return { nodeId, address: url.host, url, ...isHostOfBroker && { lookup: hosts.lookup } }
  })
}

/** The host comes from the cluster: it must not inject a path, a port or credentials. */
function urlOf (template: string, nodeId: number, host: string): URL | null {
  if (template.includes('{host}') && !isHost(host)) return null
  const name = isIPv6(host) ? `[${host}]` : host
  return URL.parse(template.replaceAll('{host}', name).replaceAll('{node_id}', String(nodeId)))
}

/** Scrapes the targets in their order, so many at once that the service keeps answering. */
async function scrapeAll (
  targets: Target[],
  scrape: (target: Target) => Promise<BrokerResult>
): Promise<Omit<MetricsSnapshot, 'ageMs'>> {
  const scrapedAt = new Date()
  const latestMs = performance.now() + LATEST_START_MS
  const brokers: BrokerResult[] = []
  const scraped = targets.slice(0, MAX_BROKERS)
  const waiting = scraped.entries()
  // All workers take from the same iterator.
  const work = async () => {
    for (const [index, target] of waiting) {
      brokers[index] = performance.now() < latestMs ? await scrape(target) : notScraped(target)
    }
  }
  await Promise.all(Array.from({ length: MAX_SCRAPES }, work))
  const answered = brokers.filter(broker => broker.state === 'ok')
  return {
    scrapedAt,
    brokers,
    omitted: targets.length - scraped.length,
    whole: answered.length > 0 ? aggregate(answered.map(({ page }) => page)) : undefined,
    window: mergeWindows(answered.flatMap(({ window }) => window ?? [])),
  }
}

function notScraped ({ nodeId, address }: Target): BrokerResult {
  return { nodeId, address, state: 'unreachable', error: 'not scraped: other brokers took too long to answer' }
}

async function scrapeOne (
  { nodeId, address, url, lookup }: Target,
  windows: Windows,
  closing: AbortSignal,
  log: FastifyBaseLogger
): Promise<BrokerResult> {
  if (typeof url === 'string') return { nodeId, address, state: 'invalid', error: url }
  const timeout = AbortSignal.timeout(SCRAPE_TIMEOUT_MS)
  try {
    const text = await download(url, { signal: AbortSignal.any([timeout, closing]), ...lookup && { lookup } }, log)
    const page = parseBrokerPage(text)
    return { nodeId, address, state: 'ok', page, window: windows.until(page, url.href, nodeId !== null) }
  } catch (error) {
    if (error instanceof InvalidPageError || error instanceof HostRefusedError) {
      return { nodeId, address, state: 'invalid', error: error.message }
    }
    const { code, message } = error as NodeJS.ErrnoException
    const why = timeout.aborted ? `no answer within ${SCRAPE_TIMEOUT_MS / 1000} s` : code ?? message
    return { nodeId, address, state: 'unreachable', error: why }
  }
}

/** Each page has a connection of its own: one that is reused could lead to an address that `lookup` did not return. */
async function download (url: URL, options: RequestOptions, log: FastifyBaseLogger): Promise<string> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = url.protocol === 'https:' ? getTls : get
    request(url, { ...options, agent: false, headers: { accept: 'text/plain' } }, resolve).on('error', reject)
  })
  try {
    // Callers must not learn what a host that is not a broker answers.
    if (response.statusCode !== 200) {
      log.debug({ address: url.host, statusCode: response.statusCode }, 'not a metrics page')
      throw new InvalidPageError('it did not answer with a metrics page')
    }
    const chunks: Uint8Array[] = []
    let bytes = 0
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      bytes += chunk.length
      if (bytes > MAX_PAGE_BYTES) throw new InvalidPageError(`it is larger than ${MAX_PAGE_BYTES / 1024 / 1024} MB`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks).toString()
  } finally {
    response.destroy()
  }
}
