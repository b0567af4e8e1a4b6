import { quoteUnlessPlain } from '../../lib/printable.ts'
import { canonical } from './chain.ts'
import type { LogRecord } from './record.ts'

/** Selects the records for which every given condition holds. A list holds if one of its values does. */
export interface RecordFilter {
  /** Subject, client id or token id, in full. */
  who?: Values
  method?: Values
  tool?: Values
  /** A topic that the call names. A list of names that was too large to record may contain any. */
  topic?: Values
  group?: Values
  event?: Values
  outcome?: Values
  rule?: Values
  /** The id of a change: its steps, and the calls that name it. */
  change?: Values
  /** Inclusive. */
  since?: Date | undefined
  /** Exclusive. */
  until?: Date | undefined
}

type Values = string | readonly string[] | undefined

/** Whether a filter selects a record. Records of the chain itself have only `event` and `time`. */
export function recordMatches (record: LogRecord, filter: RecordFilter): boolean {
  const { who, event, outcome, rule } = record
  return holds(filter.who, [who?.subject, who?.client_id, who?.token_id]) &&
    holds(filter.method, [who?.method]) &&
    holds(filter.tool, [record.what?.tool]) &&
    holds(filter.topic, namesIn(record, 'topics')) &&
    holds(filter.group, namesIn(record, 'groups')) &&
    holds(filter.event, [event]) &&
    holds(filter.outcome, [outcome]) &&
    holds(filter.rule, [rule]) &&
    holds(filter.change, [record.change_id, namedChange(record)]) &&
    isWithin(record, filter)
}

/** Whether a record is of the time that a filter selects. */
export function isWithin ({ time }: LogRecord, { since, until }: RecordFilter): boolean {
  return (since === undefined || new Date(time) >= since) && (until === undefined || new Date(time) < until)
}

/** @param values `undefined` if they are not known */
function holds (wanted: Values, values: readonly unknown[] | undefined): boolean {
  if (wanted === undefined || values === undefined) return true
  return typeof wanted === 'string' ? values.includes(wanted) : wanted.some(value => values.includes(value))
}

/** The change that the arguments of a call name. */
function namedChange ({ what }: LogRecord): unknown {
  const args = what?.arguments
  return typeof args === 'object' && args !== null && 'change_id' in args ? args.change_id : undefined
}

/** The topics or groups that a record names; `undefined` if it has only the digest of a list. */
function namesIn (record: LogRecord, kind: 'topics' | 'groups'): readonly unknown[] | undefined {
  const resources: unknown = record.what?.resources
  if (typeof resources !== 'object' || resources === null) return []
  if ('sha256' in resources) return undefined
  const names = (resources as Record<string, unknown>)[kind] ?? []
  return Array.isArray(names) ? names : undefined
}

const COLUMNS = ['TIME', 'SEQUENCE', 'EVENT', 'WHO', 'TOOL', 'OUTCOME', 'CODE', 'MS', 'RULE', 'ON']
/** The widths of the columns are those of as many rows. After that, a wider cell widens its column. */
const ROWS_AT_ONCE = 200

/** Records as a table for a terminal. Nothing in a record can pass for a line of its own or control the terminal. */
export class Table {
  readonly #timeOf: (time: string) => string
  #widths = COLUMNS.map(() => 0)
  #rows = [COLUMNS]

  /** @param timeOf how to print a time */
  constructor (timeOf: (time: string) => string) {
    this.#timeOf = timeOf
  }

  /** Adds a record. Returns the rows that can be printed now, if any. */
  add (record: LogRecord): string {
    this.#rows.push(cells(record, this.#timeOf))
    return this.#rows.length > ROWS_AT_ONCE ? this.rest() : ''
  }

  /** Returns the rows that have not been returned yet. */
  rest (): string {
    this.#widths = this.#widths.map((width, column) =>
      Math.max(width, ...this.#rows.map(row => row[column]?.length ?? 0)))
    const lines = this.#rows.map(row =>
      `${row.map((cell, column) => cell.padEnd(this.#widths[column] ?? 0)).join('  ').trimEnd()}\n`)
    this.#rows = []
    return lines.join('')
  }
}

/** A time in the zone of the machine, with its offset from UTC. Anything else is returned as it is. */
export function localTime (time: string): string {
  const date = new Date(time)
  if (Number.isNaN(date.getTime())) return time
  const minutes = -date.getTimezoneOffset()
  const offset = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60].map(part => `${part}`.padStart(2, '0'))
  const shifted = new Date(date.getTime() + minutes * 60_000).toISOString().slice(0, -1)
  return `${shifted}${minutes < 0 ? '-' : '+'}${offset.join(':')}`
}

function cells (record: LogRecord, timeOf: (time: string) => string): string[] {
  const { time, sequence, who, what, outcome, error_code: code, rule, when } = record
  return [
    cellOf(timeOf(time)),
    cellOf(sequence),
    eventOf(record),
    cellOf(who?.subject),
    cellOf(what?.tool),
    cellOf(outcome),
    cellOf(code),
    cellOf(when?.duration_ms),
    cellOf(rule),
    resources(what?.resources),
  ]
}

/** The event, and what the record says about it that changes what it means. */
function eventOf (record: LogRecord): string {
  const event = cellOf(record.event)
  if (record.count !== undefined) return `${event} ×${cellOf(record.count)}`
  return record['found'] === true ? `${event} (found)` : event
}

/** What a call names; digests of lists that were too large to record are shown as they are. */
function resources (recorded: unknown): string {
  const { topics, groups, brokers } = (recorded ?? {}) as Record<string, unknown>
  return [topics ?? [], groups ?? [], brokers ?? []].flat().map(cellOf).join(' ') || '-'
}

/** A value as a cell shows it: texts as `quoteUnlessPlain` does, and `-` if there is none. */
function cellOf (value: unknown): string {
  if (typeof value === 'string') return quoteUnlessPlain(value)
  return typeof value === 'object' && value !== null ? canonical(value) : String(value ?? '-')
}
