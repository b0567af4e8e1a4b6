import { escapeUnprintable } from '../../lib/printable.ts'

/** What a check found. A warning is about something that works but is probably not intended. */
export interface Finding {
  level: 'ok' | 'warning' | 'failed' | 'skipped'
  /** What was checked. */
  item: string
  /** What is the case; of a failure, also what to do. Contains no secrets. */
  detail: string
}

const LONGEST = 'warning'.length

/** A finding as one line. */
export function lineOf ({ level, item, detail }: Finding): string {
  return escapeUnprintable(`${level.padEnd(LONGEST)}  ${item}: ${detail.replace(/\s+/g, ' ').trim()}`) + '\n'
}

/** Finds that an item is as it should be unless `check` throws. `check` resolves to the detail. */
export async function attempt (item: string, check: () => Promise<string>): Promise<Finding> {
  try {
    return { level: 'ok', item, detail: await check() }
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    return { level: 'failed', item, detail: message || code || String(error) }
  }
}
