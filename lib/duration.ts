const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
}
const DURATION = /^\+?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/
const PART = /(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g

/** Go's longest duration, 2^63 ns. A timer needs `longDelay` from `delay.ts` for much less. */
const MAX_HOURS = 2_562_047

/**
 * Parses a duration in Go's syntax (`10m`, `1h30m`, `500ms`, `0`), at most 292 years. Negative durations are refused.
 * @returns milliseconds, which may have a fraction
 * @throws an `Error` whose message says what was expected
 */
export function parseDuration (text: string): number {
  if (text === '0') return 0
  if (!DURATION.test(text)) throw new Error('a duration such as 10m, 1h30m or 500ms')
  let ms = 0
  for (const [, number, unit = ''] of text.matchAll(PART)) ms += Number(number) * (UNIT_MS[unit] ?? NaN)
  if (ms > MAX_HOURS * 3_600_000) throw new Error(`a duration of at most ${MAX_HOURS}h`)
  return ms
}
