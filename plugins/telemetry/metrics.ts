import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { FastifyInstance } from 'fastify'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import packageJson from '../../package.json' with { type: 'json' }
import { AUTHENTICATION_FAILURES, type AuthenticationFailure } from './authentication-failure.ts'

const OUTCOMES = ['ok', 'error', 'denied'] as const
export type Outcome = typeof OUTCOMES[number]

/** In seconds. Most tools answer within a millisecond; a scrape of brokers takes up to 3 s, and a record up to 5 s. */
const DURATION_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const MAX_RULES = 200
const MAX_BROKERS = 1_000
const MAX_LABEL_LENGTH = 128
const EVENT_LOOP_RESOLUTION_MS = 20

type Sample = readonly [value: number, labels?: Record<string, string>]

/**
 * The service's own metrics, in a registry of its own. What plugins count anyhow is read when the page is asked for; only
 * what nobody else keeps is counted here. Every label has few values: no principal, no topic, no name that a caller invents.
 */
export class Metrics {
  readonly registry = new Registry()
  inFlight = 0

  readonly #calls = this.#counter('tool_calls_total', 'Tool calls by outcome.', ['tool', 'outcome'])
  readonly #errors = this.#counter('tool_errors_total', 'Tool calls that failed or were denied, by error code.', [
    'tool',
    'code',
  ])

  readonly #duration = new Histogram({
    name: 'kafscale_mcp_tool_call_duration_seconds',
    help: 'Time from the call of a tool to its result, its audit record included.',
    labelNames: ['tool'],
    buckets: DURATION_BUCKETS,
    registers: [this.registry],
  })

  readonly #denials = this.#counter('denied_calls_total', 'Calls that the policy denied, by the rule that decided.', [
    'rule',
  ])

  readonly #authenticationFailures = this.#counter(
    'authentication_failures_total',
    'Requests whose sender could not be authenticated.',
    ['reason']
  )

  readonly #responses = this.#counter('http_responses_total', 'HTTP responses by route and status.', [
    'route',
    'status',
  ])

  readonly #scrapes = this.#counter('broker_scrapes_total', "Scrapes of a broker's metrics page by result.", [
    'broker',
    'result',
  ])

  readonly #rule = bounded(MAX_RULES)
  readonly #broker = bounded(MAX_BROKERS)

  constructor (app: FastifyInstance) {
    this.#read(
      Gauge,
      'build_info',
      'Always 1; what is running.',
      ['version', 'node_version'],
      () => [[1, { version: packageJson.version, node_version: process.version }]]
    )
    this.#read(Gauge, 'tool_calls_in_flight', 'Tool calls that have begun and not ended.', [], () => [[this.inFlight]])
    this.#readMirror(app)
    this.#readAudit(app)
    // So that the first of each is seen as an increase.
    for (const reason of AUTHENTICATION_FAILURES) this.#authenticationFailures.inc({ reason }, 0)
    app.addHook('onReady', async () => {
      for (const tool of app.tools.known.filter(name => app.tools.operation(name) !== undefined)) {
        for (const outcome of OUTCOMES) this.#calls.inc({ tool, outcome }, 0)
        this.#duration.zero({ tool })
      }
    })
    if (app.config.telemetryAddr) this.#readEventLoop(app)
  }

  call (tool: string, outcome: Outcome, durationMs: number): void {
    this.#calls.inc({ tool, outcome })
    this.#duration.observe({ tool }, durationMs / 1_000)
  }

  /** A call that was turned away before it began. */
  callRefused (tool: string, outcome: Outcome): void {
    this.#calls.inc({ tool, outcome })
  }

  error (tool: string, code: string): void {
    this.#errors.inc({ tool, code })
  }

  denial (rule: string): void {
    this.#denials.inc({ rule: this.#rule(rule) })
  }

  authenticationFailure (reason: AuthenticationFailure): void {
    this.#authenticationFailures.inc({ reason })
  }

  response (route: string, status: number): void {
    this.#responses.inc({ route, status: String(status) })
  }

  scrape (broker: string, result: 'ok' | 'unreachable' | 'invalid'): void {
    this.#scrapes.inc({ broker: this.#broker(broker), result })
  }

  #readMirror (app: FastifyInstance): void {
    const ofMirror = (name: string, help: string, value: () => number | undefined) =>
      this.#read(Gauge, `mirror_${name}`, help, [], () => {
        const now = app.metadata.mirror && value()
        return now === undefined ? [] : [[now]]
      })
    const counted = (name: string, help: string, count: () => number) =>
      this.#read(Counter, `mirror_${name}_total`, help, [], () => [[count()]])

    this.#read(Gauge, 'mirror_state', '1 for the state that the mirror is in.', ['state'], () =>
      ['synced', 'stale', 'unavailable'].map(state => [app.metadata.state === state ? 1 : 0, { state }]))
    ofMirror('revision', 'etcd revision that the mirror shows.', () => app.metadata.mirror?.revision)
    ofMirror('age_seconds', 'Time since the mirror was last known to be current.', () => app.metadata.ageMs / 1_000)
    ofMirror('keys', 'Keys that the mirror holds.', () => app.metadata.mirror?.modRevisions.size)
    ofMirror('undecodable_values', 'Keys whose value can not be decoded.', () => app.metadata.mirror?.undecodable.size)
    counted('events', 'Changes that the watch brought.', () => app.metadata.counters.events)
    counted(
      'resyncs',
      'Loads of the whole keyspace after the first one.',
      () => Math.max(0, app.metadata.counters.loads - 1)
    )
    counted('verifications', 'Comparisons of the mirror with a fresh load.', () => app.metadata.counters.verifications)
    counted('differences', 'Keys on which a comparison found a difference.', () => app.metadata.counters.differences)
  }

  #readAudit (app: FastifyInstance): void {
    /** Sinks of one kind are told apart by number: their paths and addresses are nobody's business here. */
    const sinks = () =>
      app.audit.state.sinks.map((sink, index, all) => {
        const before = all.slice(0, index).filter(({ kind }) => kind === sink.kind).length
        return { ...sink, name: before === 0 ? sink.kind : `${sink.kind}-${before + 1}` }
      })
    this.#read(
      Gauge,
      'audit_sink_up',
      '1 while a sink takes audit records.',
      ['sink'],
      () => sinks().map(({ name, state }) => [state === 'ok' ? 1 : 0, { sink: name }])
    )
    this.#read(
      Counter,
      'audit_records_total',
      'Audit records that a sink has written, or has missed.',
      ['sink', 'state'],
      () =>
        sinks().flatMap((
          { name: sink, written, missed }
        ): Sample[] => [[written, { sink, state: 'written' }], [missed, { sink, state: 'missed' }]])
    )
    this.#read(
      Counter,
      'audit_gaps_total',
      "Gaps that a sink's chain tells of.",
      ['sink'],
      () => sinks().map(({ name, gaps }) => [gaps, { sink: name }])
    )
    this.#read(
      Counter,
      'audit_records_lost_total',
      'Audit records that no sink took.',
      [],
      () => [[app.audit.state.lost]]
    )
  }

  #readEventLoop (app: FastifyInstance): void {
    const delay = monitorEventLoopDelay({ resolution: EVENT_LOOP_RESOLUTION_MS })
    app.addHook('onReady', async () => { delay.enable() })
    app.addHook('onClose', async () => { delay.disable() })
    const seconds = (ns: number) => Math.max(0, ns / 1e9 - EVENT_LOOP_RESOLUTION_MS / 1e3)
    this.#read(
      Gauge,
      'event_loop_delay_seconds',
      'How late the event loop was since the last scrape.',
      ['statistic'],
      () => {
        if (delay.count === 0) return []
        const samples: Sample[] = [[seconds(delay.mean), { statistic: 'mean' }], [seconds(delay.percentile(99)), {
          statistic: 'p99',
        }], [seconds(delay.max), { statistic: 'max' }]]
        delay.reset()
        return samples
      }
    )
  }

  #counter<L extends string> (name: string, help: string, labelNames: L[]): Counter<L> {
    return new Counter({ name: `kafscale_mcp_${name}`, help, labelNames, registers: [this.registry] })
  }

  #read (
    Kind: typeof Counter | typeof Gauge,
    name: string,
    help: string,
    labelNames: string[],
    samples: () => Iterable<Sample>
  ): void {
    this.registry.registerMetric(
      new Kind({
        name: `kafscale_mcp_${name}`,
        help,
        labelNames,
        registers: [],
        collect () {
          this.reset()
          if (labelNames.length === 0) this.remove({})
          for (const [value, labels = {}] of samples()) this.inc(labels, value)
        },
      })
    )
  }
}

/** Lets so many different values be labels; all that come later are `other`. */
function bounded (max: number): (value: string) => string {
  const known = new Set<string>()
  return value => {
    const label = value.slice(0, MAX_LABEL_LENGTH)
    if (known.has(label)) return label
    if (known.size >= max) return 'other'
    known.add(label)
    return label
  }
}
