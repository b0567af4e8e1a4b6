import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Call, Figures } from './calls.ts'
import type { Job, LoadResult } from './load.ts'
import { call as callOnce, type HttpRequest, type McpServer } from './mcp-client.ts'
import { cpuMs } from './processes.ts'

const WARM_UP_SECONDS = 1
/** If a window is too short for this number of calls, each connection makes exactly this number instead. */
const CALLS_AT_LEAST = 2

/** A call whose answer was checked before it is measured. */
export interface Verified {
  requests: readonly HttpRequest[]
  rows: number
  /** The size of each page's HTTP body. */
  pageBytes: readonly number[]
  elapsedMs: number
}

/** What is measured: one call to one server. */
export interface Target {
  server: string
  label: string
  verified: Verified
  connections: number
  /** The rate of an open loop. Absent: a closed loop at full speed. */
  perSecond?: number
  /** The server's process, if it is ours. */
  pid?: number
  call?: Call
}

/** The measurements of one window, with or without calls. */
export interface Sample {
  latenciesMs: Float64Array
  elapsedMs: number
  cpuMs: number
  etcdRequests: number
}

export class LoadGenerator {
  readonly #child = fork(join(import.meta.dirname, 'load.ts'), { serialization: 'advanced' })
    .on('exit', code => { if (code !== 0) throw new Error('the load generator has exited') })

  async run (job: Job): Promise<LoadResult> {
    this.#child.send(job)
    const [result] = await once(this.#child, 'message')
    return result
  }

  close (): void {
    this.#child.disconnect()
  }
}

/**
 * Makes a call once, with all its pages.
 * @throws when it fails or has an unexpected number of rows
 */
export async function verify (server: McpServer, call: Call): Promise<Verified> {
  const startMs = performance.now()
  const requests: HttpRequest[] = []
  const pageBytes: number[] = []
  let rows = 0
  let cursor: unknown
  do {
    const request = server.request(call.tool, { ...call.input, ...cursor !== undefined && { cursor } })
    const { content, bytes } = await callOnce(request)
    requests.push(request)
    pageBytes.push(bytes)
    rows += call.rows(content as Record<string, unknown[] | undefined>).length
    cursor = call.allPages && content.next_cursor
  } while (cursor)
  if (call.expectedRows === undefined ? rows === 0 : rows !== call.expectedRows) {
    throw new Error(`${server.url}: ${call.label} has ${rows} rows instead of ${call.expectedRows ?? 'some'}`)
  }
  return { requests, rows, pageBytes, elapsedMs: performance.now() - startMs }
}

/**
 * Calls a target at full speed, or at its rate.
 * @throws when a request fails, or an answer is much smaller than the verified one
 */
export async function measure (
  load: LoadGenerator,
  target: Target,
  seconds: number,
  countEtcdRequests: () => Promise<number>
): Promise<Sample> {
  const { verified: { requests, pageBytes, elapsedMs }, connections, label, perSecond } = target
  const [{ url, headers }] = requests as [HttpRequest]
  const slow = elapsedMs * CALLS_AT_LEAST > seconds * 1_000
  const extent = (seconds: number) => ({ seconds, ...perSecond !== undefined && { perSecond } })
  const job: Job = {
    url,
    headers,
    bodies: requests.map(({ body }) => body),
    connections,
    extent: slow ? { calls: CALLS_AT_LEAST } : extent(seconds),
  }
  if (!slow) await load.run({ ...job, extent: extent(WARM_UP_SECONDS) })
  const { value, ...sample } = await observe(() => load.run(job), target.pid, countEtcdRequests)
  const { latenciesMs, elapsedMs: loadMs, failures, minBytes } = value
  if (failures > 0 || latenciesMs.length === 0) {
    throw new Error(`${url}: ${failures} requests of ${label} failed, ${latenciesMs.length} calls succeeded`)
  }
  if (minBytes < 0.9 * Math.min(...pageBytes)) {
    throw new Error(`${url}: an answer of ${label} had ${minBytes} bytes instead of ${Math.min(...pageBytes)}`)
  }
  return { ...sample, latenciesMs, elapsedMs: loadMs }
}

/** Measures a server and etcd in a window without calls. */
export async function idle (
  seconds: number,
  pid: number | undefined,
  countEtcdRequests: () => Promise<number>
): Promise<Sample> {
  const { value: _, ...sample } = await observe(() => delay(seconds * 1_000), pid, countEtcdRequests)
  return { ...sample, latenciesMs: new Float64Array() }
}

async function observe<T> (run: () => Promise<T>, pid: number | undefined, countEtcdRequests: () => Promise<number>) {
  const usedMs = () => pid === undefined ? 0 : cpuMs(pid)
  const startMs = performance.now()
  const before = { etcdRequests: await countEtcdRequests(), cpuMs: usedMs() }
  const value = await run()
  const after = { cpuMs: usedMs(), etcdRequests: await countEtcdRequests() }
  return {
    value,
    elapsedMs: performance.now() - startMs,
    cpuMs: after.cpuMs - before.cpuMs,
    etcdRequests: after.etcdRequests - before.etcdRequests,
  }
}

/** The rate of the median window, and the latencies over all windows. */
export function figures (samples: readonly Sample[]): Required<Figures> {
  const rates = samples.map(({ latenciesMs, elapsedMs }) => latenciesMs.length / elapsedMs * 1_000)
  const latencies = Float64Array.from(samples.flatMap(({ latenciesMs }) => [...latenciesMs])).sort()
  return {
    perSecond: percentile(rates.sort((a, b) => a - b), 0.5),
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
  }
}

/** The percentile of ascending values, by nearest rank. */
function percentile (sorted: ArrayLike<number>, fraction: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * fraction) - 1)] ?? NaN
}

export function sum (values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
