import { cpus, release } from 'node:os'
import { type Figures, GO_MACHINE_BARE_PER_SECOND } from './calls.ts'
import type { SelfTime } from './profile.ts'

/** The measurements of one call to one server. */
export interface Row extends Required<Figures> {
  server: string
  label: string
  rows?: number
  bytes: number
  /** The CPU time of the server's process. */
  cpuMicrosPerCall?: number
  /** Beyond the requests that the server sends without calls. */
  etcdRequestsPerCall?: number
  go?: Figures
}

/** The service under one combination of calls and writes to etcd. */
export interface Condition extends Partial<Figures> { label: string, writesPerSecond: number, cpuPercent: number }

/** Measurements without and with a feature. */
export type Pair = [before: Row, after: Row]

/** A small call without and with everything enabled at full speed, and without and with audit at a fixed rate. */
export interface EverythingOn {
  atFullSpeed: Pair
  atRate: Pair
  /** Of the call with everything enabled. */
  profile: SelfTime[]
}

export interface Report {
  etcdVersion?: string
  /** The bare Fastify route. */
  bare?: Row
  /** The tool that does nothing. */
  floor?: Row
  rows: Row[]
  /** One line for each tool that a server does not have. */
  missing: string[]
  own?: {
    startToSyncedMs: number[]
    residentMb: { synced: number, afterCalls: number, peak: number }
    conditions: Condition[]
    everythingOn: EverythingOn
  }
}

const SMALL_ANSWER_BYTES = 10_000

export function markdown (report: Report): string {
  const { etcdVersion, bare, floor, rows, missing, own } = report
  const versions = [`Linux ${release()}`, `Node.js ${process.versions.node}`]
  if (etcdVersion !== undefined) versions.push(`etcd ${etcdVersion}`)
  const lines = [
    '# Benchmark',
    '',
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores of ${cpus()[0]?.model.trim()}, ` +
    `shared with the load generator and etcd; ${versions.join(', ')}.`,
    '',
    '## Calls',
    '',
    'A closed loop with 16 connections, unless stated otherwise. Rates are those of the median window, latencies ' +
    'those over all windows. Bytes are those of the HTTP body. CPU is that of the server process; "× floor" is its ' +
    'CPU time relative to a tool that does nothing.',
    '',
    ...table(
      [
        'call',
        'server',
        'rows',
        'bytes',
        'calls/s',
        'p50 ms',
        'p99 ms',
        'CPU µs/call',
        '× floor',
        'etcd requests/call',
      ],
      [bare, floor, ...rows].filter(row => row !== undefined).map(row => [
        row.label,
        row.server,
        row.rows,
        number(row.bytes),
        number(row.perSecond),
        number(row.p50Ms),
        number(row.p99Ms),
        number(row.cpuMicrosPerCall),
        number(overFloor(row, floor)),
        number(row.etcdRequestsPerCall),
      ])
    ),
    ...missing.map(text => `\n${text}`),
    ...rows.some(({ go }) => go) ? ['', '## Compared with the Go service', '', ...comparedWithGo(rows, bare)] : [],
  ]
  if (own) {
    const { startToSyncedMs, residentMb, conditions, everythingOn } = own
    lines.push(
      '',
      '## The service',
      '',
      `- From start to synced: ${startToSyncedMs.map(ms => `${Math.round(ms)} ms`).join(', ')} (from spawning the ` +
      'command of `npm start` until `/readyz` returns 200).',
      `- Resident memory: ${number(residentMb.synced)} MB when synced, ${number(residentMb.afterCalls)} MB after the ` +
      `calls, ${number(residentMb.peak)} MB at the peak (Go: 328 MB).`,
      '',
      '## Under writes to etcd',
      '',
      'The floor has no mirror: writes only slow it down because the writer, etcd, the load generator and the ' +
      'service share the cores.',
      '',
      ...table(
        ['calls', 'writes/s', 'calls/s', 'p50 ms', 'p99 ms', 'CPU of the server, % of one core'],
        conditions.map(condition => [
          condition.label,
          Math.round(condition.writesPerSecond),
          number(condition.perSecond),
          number(condition.p50Ms),
          number(condition.p99Ms),
          number(condition.cpuPercent),
        ])
      ),
      '',
      ...everythingOnSection(everythingOn),
      '',
      '## Goals',
      '',
      ...goals(report).map(bullet)
    )
  }
  return `${lines.join('\n')}\n`
}

/** Only that part of the report. */
export function everythingOnMarkdown (measured: EverythingOn): string {
  return [...everythingOnSection(measured), '', ...everythingOnGoals(measured).map(bullet), ''].join('\n')
}

function everythingOnSection ({ atFullSpeed, atRate, profile }: EverythingOn): string[] {
  const rows = (pair: Pair, loop: string) => pair.map(({ label, perSecond, p50Ms, p99Ms, cpuMicrosPerCall }) =>
    [label, loop, number(perSecond), number(p50Ms), number(p99Ms), number(cpuMicrosPerCall)])
  const [before, after] = atFullSpeed
  const differences = [
    'difference',
    '%',
    ...(['perSecond', 'p50Ms', 'p99Ms', 'cpuMicrosPerCall'] as const).map(figure =>
      number(percentMore(before[figure], after[figure]))
    ),
  ]
  return [
    '## With everything enabled',
    '',
    '`describe_group` on three services: one in mode `none` without audit; one that authenticates its caller by JWT, ' +
    'has a policy of 50 rules that hides part of the cluster, and writes a signed audit log to a file; and, at a ' +
    'fixed rate, one that only writes that log.',
    '',
    ...table(['service', 'loop', 'calls/s', 'p50 ms', 'p99 ms', 'CPU µs/call'], [
      ...rows(atFullSpeed, 'closed, 16 connections'), differences, ...rows(atRate, 'open'),
    ]),
    '',
    'CPU time of the call with everything enabled, by self time:',
    '',
    ...table(
      ['% of non-idle time', 'function'],
      profile.map(({ fraction, place }) => [number(100 * fraction), `\`${place}\``])
    ),
  ]
}

function everythingOnGoals ({ atFullSpeed: [nothing, everything], atRate: [silent, audited] }: EverythingOn): Goal[] {
  const percent = percentMore(nothing.cpuMicrosPerCall, everything.cpuMicrosPerCall)
  const addedMs = audited.p50Ms - silent.p50Ms
  return [
    ['everything enabled takes less than 25 % more CPU time', percent < 25, `${number(percent)} %`],
    [
      `audit to a file adds less than 1 ms to the p50 at ${number(audited.perSecond)} calls/s`,
      addedMs < 1,
      `${number(addedMs)} ms`,
    ],
  ]
}

function percentMore (from = NaN, to = NaN): number {
  return 100 * (to / from - 1)
}

function overFloor ({ cpuMicrosPerCall }: Row, floor: Row | undefined): number | undefined {
  return cpuMicrosPerCall && floor?.cpuMicrosPerCall && cpuMicrosPerCall / floor.cpuMicrosPerCall
}

function comparedWithGo (rows: readonly Row[], bare: Row | undefined): string[] {
  const faster = bare && bare.perSecond / GO_MACHINE_BARE_PER_SECOND
  return [
    faster === undefined
      ? 'The Go figures were measured on another machine.'
      : 'The Go figures were measured on another machine, where a bare Fastify route reached ' +
        `${number(GO_MACHINE_BARE_PER_SECOND)} requests/s. Here it reaches ${number(bare?.perSecond)} requests/s, ` +
        `${faster.toFixed(2)} times as many. The scaled ratio is divided by this factor.`,
    '',
    ...table(
      ['call', 'server', 'Go calls/s', 'calls/s', 'ratio', 'scaled', 'Go p50 ms', 'p50 ms', 'Go p99 ms', 'p99 ms'],
      rows.filter(({ go }) => go).map(row => {
        const { perSecond = NaN, p50Ms, p99Ms } = row.go ?? {}
        const ratio = row.perSecond / perSecond
        return [
          row.label,
          row.server,
          number(perSecond),
          number(row.perSecond),
          number(ratio),
          number(faster && ratio / faster),
          number(p50Ms),
          number(row.p50Ms),
          number(p99Ms),
          number(row.p99Ms),
        ]
      })
    ),
  ]
}

type Goal = [goal: string, met: boolean, measured: string]

function goals ({ rows, floor, bare, own }: Report): Goal[] {
  if (!own || !floor || !bare) return []
  const ours = rows.filter(({ server }) => server === floor.server)
  const scale = bare.perSecond / GO_MACHINE_BARE_PER_SECOND
  const ratios: Goal[] = ours.flatMap(({ label, go, perSecond }) => {
    if (!go) return []
    const factor = go.perSecond < 600 ? 3 : 1
    const ratio = perSecond / go.perSecond / scale
    return [[`${label}: at least ${factor} × Go's calls/s`, ratio >= factor, `${number(ratio)} ×, scaled`]]
  })
  const small: Goal[] = ours.filter(({ bytes }) => bytes < SMALL_ANSWER_BYTES).map(row => {
    const cost = overFloor(row, floor) ?? NaN
    return [`${row.label}, under 10 KB: less than 1.2 × the floor`, cost < 1.2, `${number(cost)} ×`]
  })
  const writes: Goal[] = own.conditions.flatMap((condition, index) => {
    const without = own.conditions[index - 1]
    if (!condition.p99Ms || !condition.writesPerSecond || !without?.p99Ms || condition.label.startsWith(floor.label)) {
      return []
    }
    return [[
      `writes do not double the p99, ${condition.label}`,
      condition.p99Ms < 2 * without.p99Ms,
      `${number(without.p99Ms)} → ${number(condition.p99Ms)} ms`,
    ]]
  })
  const slowest = Math.max(...own.startToSyncedMs)
  return [
    ...ratios,
    ...small,
    [
      'calls cause no etcd requests',
      ours.every(row => row.etcdRequestsPerCall === 0),
      ours.map(row => number(row.etcdRequestsPerCall)).join(', '),
    ],
    ['synced in less than 1.5 s', slowest < 1_500, `${Math.round(slowest)} ms`],
    ['less than 250 MB resident', own.residentMb.peak < 250, `${number(own.residentMb.peak)} MB at the peak`],
    ...writes,
    ...everythingOnGoals(own.everythingOn),
  ]
}

function bullet ([goal, met, measured]: Goal): string {
  return `- ${met ? 'met' : '**missed**'}: ${goal} (${measured})`
}

type Cell = string | number | undefined

function table (head: readonly string[], rows: readonly Cell[][]): string[] {
  const line = (cells: readonly Cell[]) => `| ${cells.map(cell => cell ?? '–').join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}

/** Formats to three significant digits. */
function number (value: number | undefined): string | undefined {
  if (value === undefined || Number.isNaN(value)) return undefined
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1)))
  return value.toLocaleString('en', { maximumFractionDigits: digits })
}
