import { readFileSync } from 'node:fs'

/** A CPU profile as written by V8. Times are microseconds on the monotonic clock. */
interface CpuProfile {
  nodes: { id: number, callFrame: { functionName: string, url: string, lineNumber: number } }[]
  startTime: number
  samples: number[]
  timeDeltas: number[]
}

/** A function and the time spent in it, not in its callees. */
export interface SelfTime {
  place: string
  ms: number
  /** The share of all time that was not idle. */
  fraction: number
}

/** The functions with the most self time between two moments of `process.hrtime`. */
export function topFunctions (file: string, fromNs: bigint, toNs: bigint, count: number): SelfTime[] {
  const { nodes, startTime, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8')) as CpuProfile
  const places = new Map(nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => {
    const file = url.replace(/^.*\/node_modules\//, '').replace(/^file:.*?\/(?=[^/]+\/[^/]+$)/, '')
    return [id, `${functionName || '(anonymous)'}${file && ` ${file}:${lineNumber + 1}`}`]
  }))
  const selfMs = new Map<string, number>()
  let atMicros = startTime
  for (const [index, id] of samples.entries()) {
    atMicros += timeDeltas[index] ?? 0
    const place = places.get(id) ?? ''
    if (place === '(idle)' || atMicros < Number(fromNs / 1_000n) || atMicros > Number(toNs / 1_000n)) continue
    selfMs.set(place, (selfMs.get(place) ?? 0) + (timeDeltas[index + 1] ?? 0) / 1_000)
  }
  const busyMs = [...selfMs.values()].reduce((total, ms) => total + ms, 0)
  return [...selfMs]
    .map(([place, ms]) => ({ place, ms, fraction: ms / busyMs }))
    .sort((a, b) => b.ms - a.ms)
    .slice(0, count)
}
