/**
 * The load generator: a process of its own, so that it shares no event loop with what it measures. It takes one job after
 * the other from its parent and ends with it.
 */
import { Agent, request } from 'node:http'
import autocannon from 'autocannon'

/** Calls at full speed, where each connection sends the next request when it has its answer; or so many a second. */
export interface Job {
  url: string
  headers: Record<string, string>
  /** The requests that make one call, sent one after the other. */
  bodies: readonly string[]
  connections: number
  /** How long, or how many calls on each connection. */
  extent: { seconds: number } | { calls: number } | { seconds: number, perSecond: number }
}

export interface LoadResult {
  /** How long each call took, from its first request to its last answer. */
  latenciesMs: Float64Array
  /** From the start to the last answer. */
  elapsedMs: number
  /** The smallest answer with its headers: one that is too small was an error. */
  minBytes: number
  /** Requests without an answer of status 2xx. */
  failures: number
}

const TIMEOUT_SECONDS = 60
const PACE_MS = 1

let lastId = 0

process.on('message', async (job: Job) => {
  process.send?.(await ('perSecond' in job.extent ? runOpen(job, job.extent) : run(job)))
})
process.on('disconnect', () => process.exit())

async function run ({ url, headers, bodies, connections, extent }: Job): Promise<LoadResult> {
  const latenciesMs: number[] = []
  const walks = new Map<object, { answers: number, ms: number }>()
  let minBytes = Infinity
  const startMs = performance.now()
  let lastMs = startMs
  const calls = autocannon({
    url,
    method: 'POST',
    headers,
    // An id of its own for each connection: what is under way in one session needs different ones.
    setupClient (client) {
      const id = ++lastId
      client.setRequests(
        bodies.map(body => ({ method: 'POST', headers, body: JSON.stringify({ ...JSON.parse(body), id }) }))
      )
    },
    connections,
    ...'calls' in extent ? { amount: extent.calls * bodies.length * connections } : { duration: extent.seconds },
    timeout: TIMEOUT_SECONDS,
    sampleInt: 100,
  })
  calls.on('response', (client, _, bytes, ms) => {
    minBytes = Math.min(minBytes, bytes)
    lastMs = performance.now()
    const walk = walks.get(client) ?? { answers: 0, ms: 0 }
    walks.set(client, walk)
    walk.ms += ms
    if (++walk.answers % bodies.length === 0) {
      latenciesMs.push(walk.ms)
      walk.ms = 0
    }
  })
  const { errors, non2xx } = await calls
  return {
    latenciesMs: Float64Array.from(latenciesMs),
    elapsedMs: lastMs - startMs,
    minBytes,
    failures: errors + non2xx,
  }
}

/**
 * Calls in an open loop: sent when they are due, whatever the answers take. (With a rate, each connection of autocannon
 * sends a second's requests at full speed and rests.) Latencies count from when a request was sent.
 */
async function runOpen (
  { url, headers, bodies: [body] }: Job,
  { seconds, perSecond }: { seconds: number, perSecond: number }
): Promise<LoadResult> {
  const agent = new Agent({ keepAlive: true })
  const latenciesMs: number[] = []
  let minBytes = Infinity
  let failures = 0
  const startMs = performance.now()
  let lastMs = startMs

  const send = () => new Promise<void>(resolve => {
    const sentMs = performance.now()
    const fail = () => {
      failures++
      resolve()
    }
    const sent = request(url, { method: 'POST', headers, agent, timeout: TIMEOUT_SECONDS * 1_000 }, response => {
      let bytes = 0
      response.on('data', (chunk: Buffer) => { bytes += chunk.length }).on('error', fail).on('end', () => {
        if (response.statusCode !== 200) return fail()
        lastMs = performance.now()
        latenciesMs.push(lastMs - sentMs)
        minBytes = Math.min(minBytes, bytes)
        resolve()
      })
    })
    sent.on('error', fail).on('timeout', () => sent.destroy(new Error('no answer'))).end(body)
  })

  const calls: Promise<void>[] = []
  await new Promise<void>(resolve => {
    const timer = setInterval(() => {
      const elapsedSeconds = Math.min(seconds, (performance.now() - startMs) / 1_000)
      while (calls.length < Math.floor(elapsedSeconds * perSecond)) calls.push(send())
      if (elapsedSeconds < seconds) return
      clearInterval(timer)
      resolve()
    }, PACE_MS)
  })
  await Promise.all(calls)
  agent.destroy()
  return { latenciesMs: Float64Array.from(latenciesMs), elapsedMs: lastMs - startMs, minBytes, failures }
}
