import { escapeUnprintable } from '../../lib/printable.ts'
import { canonical } from './chain.ts'
import type { LogRecord } from './record.ts'

/** Selects the records for which every given condition holds. */
export interface RecordFilter {
  /** Subject, client id or token id, in full. */
  who?: string | undefined
  tool?: string | undefined
  event?: string | undefined
  outcome?: string | undefined
  /** Inclusive. */
  since?: Date | undefined
  /** Exclusive. */
  until?: Date | undefined
}

/** Whether a filter selects a record. Records of the chain itself have no `who`, `tool` and `outcome`. */
export function recordMatches (
  record: LogRecord,
  { who, tool, event, outcome, since, until }: RecordFilter
): boolean {
  const { subject, client_id: clientId, token_id: tokenId } = record.who ?? {}
  return (who === undefined || [subject, clientId, tokenId].includes(who)) &&
    (tool === undefined || record.what?.tool === tool) &&
    (event === undefined || record.event === event) &&
    (outcome === undefined || record.outcome === outcome) &&
    (since === undefined || new Date(record.time) >= since) &&
    (until === undefined || new Date(record.time) < until)
}

const COLUMNS = ['TIME', 'SEQUENCE', 'EVENT', 'WHO', 'TOOL', 'OUTCOME', 'CODE', 'MS', 'RULE', 'ON']

/** Records as a table for a terminal. Nothing in a record can pass for a line of its own or control the terminal. */
export function table (records: readonly LogRecord[]): string {
  const rows = [COLUMNS, ...records.map(cells)]
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0)))
  const lines = rows.map(row => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ').trimEnd())
  return lines.map(line => `${line}\n`).join('')
}

function cells (record: LogRecord): string[] {
  const { time, sequence, event, who, what, outcome, error_code: code, rule, when, count } = record
  return [
    time,
    sequence,
    count === undefined ? event : `${event} ×${count}`,
    who?.subject,
    what?.tool,
    outcome,
    code,
    when?.duration_ms,
    rule,
    resources(what?.resources),
  ].map(cell => escapeUnprintable(textOf(cell)) || '-')
}

/** The topics and groups of a call by name; digests of lists that were too large to record are shown as they are. */
function resources (recorded: unknown): string {
  const { topics = [], groups = [] } = (recorded ?? {}) as { topics?: unknown, groups?: unknown }
  return [topics, groups].flat().map(textOf).join(' ')
}

function textOf (value: unknown): string {
  return typeof value === 'object' && value !== null ? canonical(value) : String(value ?? '-')
}
