const rfc3339 = /^(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/

// Outside are the placeholders: Go's zero time, the Unix epoch and what a clock that was never set shows after it, the
// year 9999, and the largest times that 64-bit counters can hold.
const EARLIEST_MS = Date.parse('1971-01-01T00:00:00Z')
const LATEST_MS = Date.parse('2099-12-31T23:59:59.999Z')

/** Unix milliseconds of an RFC 3339 time; `null` for any other text, and for a placeholder. */
export function parseTime (time: string): number | null {
  const [, year, month, day] = rfc3339.exec(time) ?? []
  const ms = year === undefined ? NaN : Date.parse(time)
  // Date.parse reads February 30 as March 2, so the day is checked against the length of the month.
  return Number(day) <= new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate() ? realTime(ms) : null
}

/** The time itself, or `null` if nothing in a cluster can have happened then: it stands for an unknown time. */
export function realTime (ms: number): number | null {
  return ms >= EARLIEST_MS && ms <= LATEST_MS ? ms : null
}
