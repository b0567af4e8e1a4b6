import { escapeUnprintable } from '../../lib/printable.ts'
import { canonical, type ChainRecord } from './chain.ts'
import type { AuditEntry } from './record.ts'

/** Which records are wanted: those for which everything that is given holds. */
export interface Filter {
  /** Subject, client id or token id, in full. */
  who?: string | undefined
  tool?: string | undefined
  event?: string | undefined
  outcome?: string | undefined
  /** Not before, and before. */
  since?: Date | undefined
  until?: Date | undefined
}

/** Whether a filter lets a record through. Records of the chain itself are of nobody and no tool. */
export function matches (
  record: Partial<AuditEntry> & { time?: string },
  { who, tool, event, outcome, since, until }: Filter
): boolean {
  const { subject, client_id: clientId, token_id: tokenId } = record.who ?? {}
  return (who === undefined || [subject, clientId, tokenId].includes(who)) &&
    (tool === undefined || record.what?.tool === tool) &&
    (event === undefined || record.event === event) &&
    (outcome === undefined || record.outcome === outcome) &&
    (since === undefined || new Date(record.time ?? 0) >= since) &&
    (until === undefined || new Date(record.time ?? 0) < until)
}

const COLUMNS = ['TIME', 'SEQUENCE', 'EVENT', 'WHO', 'TOOL', 'OUTCOME', 'CODE', 'MS', 'RULE', 'ON']

/** Records as a table to be read on a terminal: nothing in them can be taken for another line or a control of it. */
export function table (records: readonly ChainRecord[]): string {
  const rows = [COLUMNS, ...records.map(cells)]
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0)))
  return rows.map(row => `${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ').trimEnd()}\n`).join(
    ''
  )
}

function cells (record: ChainRecord): string[] {
  const { time, sequence, event, who, what, outcome, error_code: code, rule, when, count } = record as
    & ChainRecord
    & Partial<AuditEntry>
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
  ]
    .map(cell => escapeUnprintable(textOf(cell)) || '-')
}

/** The topics and groups of a call by name; digests of lists that were too large to record are shown as they are. */
function resources (recorded: unknown): string {
  const { topics = [], groups = [] } = (recorded ?? {}) as { topics?: unknown, groups?: unknown }
  return [topics, groups].flat().map(textOf).join(' ')
}

function textOf (value: unknown): string {
  return typeof value === 'object' && value !== null ? canonical(value) : String(value ?? '-')
}
