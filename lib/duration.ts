const UNIT_MS: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
}
const duration = /^\+?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/
const part = /(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g

// The longest that a timer of Node.js can wait.
const MAX_MS = 2 ** 31 - 1

/**
 * Reads a duration as Go writes it (`10m`, `1h30m`, `500ms`, `0`), in milliseconds, at most 596h.
 * Negative ones have no meaning here. Throws an `Error` that says what was expected.
 */
export function parseDuration (text: string): number {
  if (text === '0') return 0
  if (!duration.test(text)) throw new Error('a duration such as 10m, 1h30m or 500ms')
  let ms = 0
  for (const [, number, unit] of text.matchAll(part)) ms += Number(number) * (UNIT_MS[unit as string] as number)
  if (ms > MAX_MS) throw new Error('a duration of at most 596h')
  return ms
}
