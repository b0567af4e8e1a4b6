import { escapeUnprintable, quoteUnlessPlain } from '../../lib/printable.ts'
import { canonical } from './chain.ts'
import type { LogRecord } from './record.ts'

/** The records of a change as its story: what happened when, by whom, and to what. Takes the place of a table. */
export class Story {
  readonly #timeOf: (time: string) => string

  /** @param timeOf how to print a time */
  constructor (timeOf: (time: string) => string) {
    this.#timeOf = timeOf
  }

  /** Returns the paragraph of a record. */
  add (record: LogRecord): string {
    return paragraph(record, this.#timeOf)
  }

  rest (): string {
    return ''
  }
}

function paragraph (record: LogRecord, timeOf: (time: string) => string): string {
  const { time, event, who, what, outcome, error_code: code, warning, diff } = record
  const isCall = event === 'tool_call'
  const head = [
    shown(timeOf(time)),
    isCall ? `call of ${shown(what?.tool)}` : shown(event),
    `by ${who ? shown(who.subject) : 'the service'}`,
    outcome === 'ok' ? 'ok' : `${shown(outcome)}${code ? ` ${shown(code)}` : ''}`,
  ]
  const details = [
    ...event === 'plan' ? [`${shown(what?.tool)} ${canonical(what?.arguments)}`] : [],
    ...warning ? [escapeUnprintable(String(warning))] : [],
    ...isCall ? [] : differences(diff),
  ]
  return `${head.join('  ')}\n${details.map(line => `    ${line}\n`).join('')}`
}

/** One line for each field of a difference; a digest of a large one as it is. */
function differences (diff: unknown): string[] {
  if (!Array.isArray(diff)) return diff === null || diff === undefined ? [] : [canonical(diff)]
  return diff.map((each: unknown) => {
    const { field, before, after } = (each ?? {}) as Record<string, unknown>
    return `${shown(field)}: ${shown(before ?? null)} → ${shown(after ?? null)}`
  })
}

function shown (value: unknown): string {
  return typeof value === 'string' ? quoteUnlessPlain(value) : canonical(value ?? null)
}
