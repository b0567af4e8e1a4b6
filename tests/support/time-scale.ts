/** How much slower this machine is than a quiet one with two cores. */

export const MAX_SCALE = 10
/** Less than this is noise. */
const MIN_SCALE = 1.25
/** What {@link work} takes on the quiet machine. */
const QUIET_WORK_MS = 118
/** A bound of a second leaves a tenth of it for an event loop that turns late. */
const LATENESS_ALLOWED_MS = 100

/** The time scale for the mean time of {@link work} and the greatest lateness of a timer. 1 to {@link MAX_SCALE}. */
export function timeScale (workMs: number, lateMs: number): number {
  const scale = Math.max(workMs / QUIET_WORK_MS, 1 + lateMs / LATENESS_ALLOWED_MS)
  return scale < MIN_SCALE ? 1 : Math.min(MAX_SCALE, Math.ceil(scale * 2) / 2)
}

/** The mean time of some rounds of {@link work}, in milliseconds. */
export function measureWork (rounds = 8): number {
  work() // compiles it
  const startMs = performance.now()
  for (let round = 0; round < rounds; round++) work()
  return (performance.now() - startMs) / rounds
}

/** Computes and uses memory, as the tests and the service do. */
function work (): number {
  const memory = new Map<number, number>()
  let x = 0x12345678
  for (let index = 0; index < 3_000_000; index++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    memory.set(x & 0xffff, index)
  }
  return memory.size
}
