/**
 * The load generator: a process of its own, so that it shares no event loop with what it measures. It takes one job after
 * the other from its parent and ends with it.
 */
import autocannon from 'autocannon'

/** Calls at full speed: each connection sends the next request when it has its answer. */
export interface Job {
  url: string
  headers: Record<string, string>
  /** The requests that make one call, sent one after the other. */
  bodies: readonly string[]
  connections: number
  /** How long, or how many calls on each connection. */
  extent: { seconds: number } | { calls: number }
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

let lastId = 0

process.on('message', async (job: Job) => { process.send?.(await run(job)) })
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
      client.setRequests(bodies.map(body => ({ method: 'POST', headers, body: JSON.stringify({ ...JSON.parse(body), id }) })))
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
  return { latenciesMs: Float64Array.from(latenciesMs), elapsedMs: lastMs - startMs, minBytes, failures: errors + non2xx }
}
