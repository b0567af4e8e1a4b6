import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { FastifyInstance } from 'fastify'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import packageJson from '../../package.json' with { type: 'json' }
import type { ChangesState } from '../changes/figures.ts'
import { AUTHENTICATION_FAILURES, type AuthenticationFailure } from './authentication-failure.ts'

const OUTCOMES = ['ok', 'error', 'denied'] as const
export type Outcome = typeof OUTCOMES[number]

/** In seconds. Most tools take less than a millisecond, a broker scrape up to 3 s, and an audit record up to 5 s. */
const DURATION_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const MAX_RULES = 200
const MAX_BROKERS = 1_000
const MAX_LABEL_LENGTH = 128
const EVENT_LOOP_RESOLUTION_MS = 20

type Sample = readonly [value: number, labels?: Record<string, string>]

/**
 * The service's metrics, in a separate registry. Values that plugins keep anyway are read when the page is rendered;
 * only the others are counted here. Label values are bounded: no principal, no topic, no name that a caller can choose.
 */
export class Metrics {
  readonly registry = new Registry()
  inFlight = 0

  readonly #calls = this.#counter('tool_calls_total', 'Tool calls by outcome.', ['tool', 'outcome'])
  readonly #errors = this.#counter('tool_errors_total', 'Failed and denied tool calls by error code.', [
    'tool',
    'code',
  ])

  readonly #duration = new Histogram({
    name: 'kafscale_mcp_tool_call_duration_seconds',
    help: 'Time from the call of a tool to its result, including the audit record.',
    labelNames: ['tool'],
    buckets: DURATION_BUCKETS,
    registers: [this.registry],
  })

  readonly #denials = this.#counter('denied_calls_total', 'Denied calls by the deciding rule of the policy.', [
    'rule',
  ])

  readonly #authenticationFailures = this.#counter(
    'authentication_failures_total',
    'Failed authentications by reason.',
    ['reason']
  )

  readonly #responses = this.#counter('http_responses_total', 'HTTP responses by route and status.', [
    'route',
    'status',
  ])

  readonly #scrapes = this.#counter('broker_scrapes_total', 'Scrapes of broker metrics by broker and result.', [
    'broker',
    'result',
  ])

  readonly #rule = bounded(MAX_RULES)
  readonly #broker = bounded(MAX_BROKERS)

  constructor (app: FastifyInstance) {
    this.#read(
      Gauge,
      'build_info',
      'Version of the service and of Node.js; always 1.',
      ['version', 'node_version'],
      () => [[1, { version: packageJson.version, node_version: process.version }]]
    )
    this.#read(Gauge, 'tool_calls_in_flight', 'Tool calls that are running.', [], () => [[this.inFlight]])
    this.#readMirror(app)
    this.#readAudit(app)
    this.#readConnections(app)
    if (app.config.changes) this.#readChanges(app)
    // Initialized to 0, so that the first event of each kind is an increase.
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

  /** A call that was refused before it started, and so has no duration. */
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

    this.#read(Gauge, 'mirror_state', '1 for the current state of the mirror.', ['state'], () =>
      ['synced', 'stale', 'unavailable'].map(state => [app.metadata.state === state ? 1 : 0, { state }]))
    ofMirror('revision', 'etcd revision of the mirror.', () => app.metadata.mirror?.revision)
    ofMirror('age_seconds', 'Time since the mirror was last known to be current.', () => app.metadata.ageMs / 1_000)
    ofMirror('keys', 'Keys in the mirror.', () => app.metadata.mirror?.modRevisions.size)
    ofMirror('undecodable_values', 'Keys whose value cannot be decoded.', () => app.metadata.mirror?.undecodable.size)
    ofMirror('ignored_keys', 'Keys that stand for nothing known.', () => app.metadata.mirror?.ignored.size)
    counted('events', 'Changes received from the watch.', () => app.metadata.counters.events)
    counted(
      'resyncs',
      'Full reloads after the initial load.',
      () => Math.max(0, app.metadata.counters.loads - 1)
    )
    counted('verifications', 'Comparisons of the mirror with a full reload.', () => app.metadata.counters.verifications)
    counted('differences', 'Keys that differed in a comparison.', () => app.metadata.counters.differences)
  }

  #readAudit (app: FastifyInstance): void {
    /** Several sinks of one kind are numbered: the page must not expose their paths or URLs. */
    const sinks = () =>
      app.audit.state.sinks.map((sink, index, all) => {
        const before = all.slice(0, index).filter(({ kind }) => kind === sink.kind).length
        return { ...sink, name: before === 0 ? sink.kind : `${sink.kind}-${before + 1}` }
      })
    this.#read(
      Gauge,
      'audit_sink_up',
      '1 while the sink accepts audit records.',
      ['sink'],
      () => sinks().map(({ name, state }) => [state === 'ok' ? 1 : 0, { sink: name }])
    )
    this.#read(
      Counter,
      'audit_records_total',
      'Audit records that the sink has written or missed.',
      ['sink', 'state'],
      () =>
        sinks().flatMap((
          { name: sink, written, missed }
        ): Sample[] => [[written, { sink, state: 'written' }], [missed, { sink, state: 'missed' }]])
    )
    this.#read(
      Counter,
      'audit_gaps_total',
      "Gaps recorded in the sink's chain.",
      ['sink'],
      () => sinks().map(({ name, gaps }) => [gaps, { sink: name }])
    )
    this.#read(
      Counter,
      'audit_collector_answers_total',
      'Answers of an audit collector to batches by HTTP status; none: no answer.',
      ['sink', 'status'],
      () =>
        sinks().flatMap(({ name: sink, answers = {} }) =>
          Object.entries(answers).map(([status, count]): Sample => [count, { sink, status }])
        )
    )
    this.#read(
      Counter,
      'audit_records_lost_total',
      'Audit records that no sink accepted.',
      [],
      () => [[app.audit.state.lost]]
    )
    this.#read(
      Gauge,
      'audit_head_file',
      '1 for the current state of the file with the newest head of the audit log; all 0 without one.',
      ['state'],
      () =>
        ['ok', 'failed', 'contradiction'].map(state => [app.audit.state.head_file?.state === state ? 1 : 0, { state }])
    )
  }

  #readConnections (app: FastifyInstance): void {
    this.#read(Gauge, 'connections', 'Open connections of clients.', [], () => [[app.limits.connections.open]])
    this.#read(
      Counter,
      'connections_closed_total',
      'Connections that the service has closed for a limit, by reason.',
      ['reason'],
      () => Object.entries(app.limits.connections.closed).map(([reason, count]) => [count, { reason }])
    )
  }

  #readChanges (app: FastifyInstance): void {
    const ofLedger = (name: string, help: string, value: (state: ChangesState) => number | boolean) =>
      this.#read(Gauge, name, help, [], () => [[Number(value(app.changes.state))]])

    this.#read(
      Counter,
      'changes_total',
      'Changes that have reached a state, by the tool that proposed them.',
      ['tool', 'state'],
      () => app.changes.counters.reached.map(({ tool, state, count }) => [count, { tool, state }])
    )
    this.#read(Counter, 'break_glass_total', 'Uses of break-glass.', [], () => [[app.changes.counters.breakGlass]])
    this.#read(
      Counter,
      'webhook_messages_total',
      'Messages of the webhook by whether they were delivered.',
      ['result'],
      () => Object.entries(app.changes.counters.told).map(([result, count]) => [count, { result }])
    )
    ofLedger('ledger_up', '1 while the ledger of changes answers.', ({ state }) => state === 'ok')
    ofLedger('changes_pending', 'Changes that wait for an approval.', ({ pending }) => pending)
    ofLedger(
      'changes_oldest_pending_seconds',
      'Time since the oldest change that waits for an approval was proposed; 0 without one.',
      state => state.oldest_pending_seconds ?? 0
    )
    ofLedger('changes_ambiguous', 'Changes whose effect is not known.', ({ ambiguous }) => ambiguous)
    ofLedger('change_lock_held', '1 while a change is being applied, by any replica.', ({ locked }) => locked)
    ofLedger(
      'break_glass_unreviewed',
      '1 while a use of break-glass waits for its review.',
      state => state.break_glass_unreviewed
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
      'Event loop delay since the last scrape.',
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

/** Limits a label to `max` different values. Later ones become `other`. */
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
