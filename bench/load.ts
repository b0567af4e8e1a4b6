/**
 * The load generator: a separate process, so that it does not share an event loop with what it measures. It runs jobs
 * from its parent one after the other, and exits with it.
 */
import { Agent, request } from 'node:http'
import autocannon from 'autocannon'

/** Calls in a closed loop, where each connection sends a request after the previous answer, or at a rate. */
export interface Job {
  url: string
  headers: Record<string, string>
  /** The requests that make one call, sent one after the other. */
  bodies: readonly string[]
  connections: number
  /** For how long, how many calls per connection, or for how long at what rate. */
  extent: { seconds: number } | { calls: number } | { seconds: number, perSecond: number }
}

export interface LoadResult {
  /** The duration of each call, from its first request to its last answer. */
  latenciesMs: Float64Array
  /** From the start to the last answer. */
  elapsedMs: number
  /** The size of the smallest answer, with headers: one that is too small is an error. */
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
    // Each connection has its own request id, since concurrent requests of a session need different ones.
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
 * Calls in an open loop: each is sent when it is due, regardless of pending answers. (autocannon does not do that:
 * given a rate, each connection sends the requests of a second at full speed, then pauses.) Latencies count from when a
 * request was sent.
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
