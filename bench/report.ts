import { cpus, release } from 'node:os'
import { type Figures, GO_MACHINE_BARE_PER_SECOND } from './calls.ts'
import type { SelfTime } from './profile.ts'

/** One call of one server, as measured. */
export interface Row extends Required<Figures> {
  server: string
  label: string
  rows?: number
  bytes: number
  /** CPU time of the server's process. */
  cpuMicrosPerCall?: number
  /** Beyond what the server asks of etcd without calls. */
  etcdRequestsPerCall?: number
  go?: Figures
}

/** The service with and without writes to etcd. */
export interface Condition extends Partial<Figures> { label: string, writesPerSecond: number, cpuPercent: number }

/** Without and with. */
export type Pair = [without: Row, withIt: Row]

/** A small call with nothing and everything on at full speed, and without and with audit at a rate. */
export interface EverythingOn {
  atFullSpeed: Pair
  atRate: Pair
  /** Of the call with everything on. */
  profile: SelfTime[]
}

export interface Report {
  etcdVersion?: string
  /** The bare Fastify route and the tool that does nothing, then the calls. */
  bare?: Row
  floor?: Row
  rows: Row[]
  /** Calls that a server has no tool for. */
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
  const lines = [
    '# Benchmark',
    '',
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores of ${
      cpus()[0]?.model.trim()
    }, shared with the load generator and etcd; Linux ${release()}, Node.js ${process.versions.node}${
      etcdVersion === undefined ? '' : `, etcd ${etcdVersion}`
    }.`,
    '',
    '## Calls',
    '',
    'Closed loop, 16 connections where nothing else is said. Rates are of the median window, latencies of all windows. Bytes are those of the HTTP body. CPU is the server\'s own. "× floor" is that time, where the tool that does nothing takes 1.',
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
    ...rows.some(({ go }) => go) ? ['', '## Beside the Go service\'s figures', '', ...beside(rows, bare)] : [],
  ]
  if (own) {
    const { startToSyncedMs, residentMb, conditions, everythingOn } = own
    lines.push(
      '',
      '## The service',
      '',
      `- Start to synced: ${
        startToSyncedMs.map(ms => `${Math.round(ms)} ms`).join(', ')
      } (from spawning what \`npm start\` runs until \`/readyz\` is 200).`,
      `- Resident memory: ${number(residentMb.synced)} MB when synced, ${
        number(residentMb.afterCalls)
      } MB after the calls, ${number(residentMb.peak)} MB at its peak (Go: 328 MB).`,
      '',
      '## While etcd is written to',
      '',
      "The floor has no mirror: what writes do to it is the machine's doing, on which writer, etcd, load generator and service share the cores.",
      '',
      ...table(
        ['calls', 'writes/s', 'calls/s', 'p50 ms', 'p99 ms', 'CPU of what answers, % of one core'],
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
      '## Aims',
      '',
      ...aims(report).map(bullet)
    )
  }
  return `${lines.join('\n')}\n`
}

/** That part of the report alone. */
export function everythingOnMarkdown (measured: EverythingOn): string {
  return [...everythingOnSection(measured), '', ...everythingOnAims(measured).map(bullet), ''].join('\n')
}

function everythingOnSection ({ atFullSpeed, atRate, profile }: EverythingOn): string[] {
  const rows = (pair: Pair, loop: string) => pair.map(({ label, perSecond, p50Ms, p99Ms, cpuMicrosPerCall }) =>
    [label, loop, number(perSecond), number(p50Ms), number(p99Ms), number(cpuMicrosPerCall)])
  const [without, withIt] = atFullSpeed
  const differences = [
    'the difference',
    '%',
    ...(['perSecond', 'p50Ms', 'p99Ms', 'cpuMicrosPerCall'] as const).map(figure =>
      number(percentMore(without[figure], withIt[figure]))
    ),
  ]
  return [
    '## With everything on',
    '',
    '`describe_group` of a service in the mode `none` without audit; of one that knows its caller by a JWT, has a policy of 50 rules that hides some of the cluster, and writes a signed audit log to a file; and, at a rate, of one that only writes that log.',
    '',
    ...table(['service', 'loop', 'calls/s', 'p50 ms', 'p99 ms', 'CPU µs/call'], [
      ...rows(atFullSpeed, 'closed, 16 connections'), differences, ...rows(atRate, 'open'),
    ]),
    '',
    'Where the CPU time of the call with everything on goes, by self time:',
    '',
    ...table(
      ['% of what is not idle', 'function'],
      profile.map(({ fraction, place }) => [number(100 * fraction), `\`${place}\``])
    ),
  ]
}

function everythingOnAims ({ atFullSpeed: [nothing, everything], atRate: [silent, audited] }: EverythingOn): Aim[] {
  const percent = percentMore(nothing.cpuMicrosPerCall, everything.cpuMicrosPerCall)
  const addedMs = audited.p50Ms - silent.p50Ms
  return [
    ['everything on takes less than 25 % more CPU time', percent < 25, `${number(percent)} %`],
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

function beside (rows: readonly Row[], bare: Row | undefined): string[] {
  const faster = bare && bare.perSecond / GO_MACHINE_BARE_PER_SECOND
  return [
    faster === undefined
      ? 'Measured on another machine.'
      : `Measured on another machine, where a bare Fastify route gave ${
        number(GO_MACHINE_BARE_PER_SECOND)
      } requests/s: here it gives ${number(bare?.perSecond)}, ${
        faster.toFixed(2)
      } times as many. The scaled ratio is divided by that.`,
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

type Aim = [aim: string, met: boolean, seen: string]

function aims ({ rows, floor, bare, own }: Report): Aim[] {
  if (!own || !floor || !bare) return []
  const ours = rows.filter(({ server }) => server === floor.server)
  const scale = bare.perSecond / GO_MACHINE_BARE_PER_SECOND
  const ratios: Aim[] = ours.flatMap(({ label, go, perSecond }) => {
    if (!go) return []
    const factor = go.perSecond < 600 ? 3 : 1
    const ratio = perSecond / go.perSecond / scale
    return [[`${label}: at least ${factor} × Go's calls/s`, ratio >= factor, `${number(ratio)} ×, scaled`]]
  })
  const small: Aim[] = ours.filter(({ bytes }) => bytes < SMALL_ANSWER_BYTES).map(row => {
    const cost = overFloor(row, floor) ?? NaN
    return [`${row.label}, under 10 KB: less than 1.2 × the floor`, cost < 1.2, `${number(cost)} ×`]
  })
  const writes: Aim[] = own.conditions.flatMap((condition, index) => {
    const without = own.conditions[index - 1]
    if (!condition.p99Ms || !condition.writesPerSecond || !without?.p99Ms || condition.label.startsWith(floor.label)) {
      return []
    }
    return [[
      `p99 not doubled by writes, ${condition.label}`,
      condition.p99Ms < 2 * without.p99Ms,
      `${number(without.p99Ms)} → ${number(condition.p99Ms)} ms`,
    ]]
  })
  const slowest = Math.max(...own.startToSyncedMs)
  return [
    ...ratios,
    ...small,
    [
      'no etcd request caused by a call',
      ours.every(row => row.etcdRequestsPerCall === 0),
      ours.map(row => number(row.etcdRequestsPerCall)).join(', '),
    ],
    ['synced in less than 1.5 s', slowest < 1_500, `${Math.round(slowest)} ms`],
    ['less than 250 MB resident', own.residentMb.peak < 250, `${number(own.residentMb.peak)} MB at its peak`],
    ...writes,
    ...everythingOnAims(own.everythingOn),
  ]
}

function bullet ([aim, met, seen]: Aim): string {
  return `- ${met ? 'met' : '**missed**'}: ${aim} (${seen})`
}

type Cell = string | number | undefined

function table (head: readonly string[], rows: readonly Cell[][]): string[] {
  const line = (cells: readonly Cell[]) => `| ${cells.map(cell => cell ?? '–').join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}

/** Three digits that count. */
function number (value: number | undefined): string | undefined {
  if (value === undefined || Number.isNaN(value)) return undefined
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1)))
  return value.toLocaleString('en', { maximumFractionDigits: digits })
}
