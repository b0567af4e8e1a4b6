import type { AuditEntry } from './record.ts'

/** Failed sign-ins that get a record of their own within an interval. */
const RECORDED_ONE_BY_ONE = 20
const INTERVAL_MS = 10_000

/**
 * Records the first failures of an interval one by one. When the interval ends, it records those after them as one: the
 * last failure, with their `count`.
 */
export function countFailures (record: (entry: AuditEntry) => Promise<void>) {
  let timer: NodeJS.Timeout | undefined
  let seen = 0
  let last: AuditEntry | undefined

  async function endInterval (): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    const count = seen - RECORDED_ONE_BY_ONE
    seen = 0
    if (!last) return
    const entry = {
      ...last,
      count,
      warning: `${count} failures within ${INTERVAL_MS / 1_000} s, of which this is the last`,
    }
    last = undefined
    await record(entry)
  }

  return {
    async add (entry: AuditEntry): Promise<void> {
      timer ??= setTimeout(endInterval, INTERVAL_MS).unref()
      if (++seen > RECORDED_ONE_BY_ONE) last = entry
      else await record(entry)
    },
    close: endInterval,
  }
}
