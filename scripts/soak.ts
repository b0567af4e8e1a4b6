/**
 * `npm run soak [-- MINUTES]` (5 by default): kills, pauses, cuts off and compacts a real etcd over and over, for a
 * minute at first, while one client writes to it and another calls tools. Prints a summary, and exits with 1 when an
 * answer was wrong or a promised bound was exceeded.
 */
import { setTimeout } from 'node:timers/promises'
import { startEtcd } from '../tests/support/etcd.ts'
import {
  ages,
  becomes,
  buildAskedApp,
  CLOSED_BOUND_MS,
  fillCluster,
  inSync,
  SILENCE_BOUND_MS,
  SYNC_BOUND_MS,
  writeGeneration,
} from '../tests/support/faults.ts'
import { random } from '../tests/support/generate.ts'
import { startProxy } from '../tests/support/proxy.ts'

const minutes = Number(process.argv[2] ?? 5)
if (!(minutes > 0)) throw new Error(`${process.argv[2]}: expected a number of minutes`)
const seed = Date.now() % 1_000_000
const { int, pick } = random(seed)
const FIRST_CUT_MS = 60_000
const CUTS_MS = [0, 500, 1_500, 3_000, 6_000, 12_000]
const WRITE_INTERVAL_MS = 50

interface Fault {
  name: string
  /** The service notices it within this time. */
  boundMs: number
  begin: () => unknown
  end: () => unknown
  /** Only the network fails, so etcd can be written to and compacted meanwhile. */
  network: boolean
}

const teardowns: (() => unknown)[] = []
const t = { teardown: (handler: () => unknown) => teardowns.unshift(handler) }

const etcd = await startEtcd(t)
await fillCluster(etcd)
const proxy = await startProxy(t, etcd.endpoints[0] as string)
const { app, caller } = await buildAskedApp(t, etcd, { KAFSCALE_MCP_ETCD_ENDPOINTS: proxy.endpoint })
const faults: Fault[] = [
  { name: 'the network refuses', boundMs: CLOSED_BOUND_MS, begin: proxy.cut, end: proxy.heal, network: true },
  { name: 'the network is silent', boundMs: SILENCE_BOUND_MS, begin: proxy.halfOpen, end: proxy.heal, network: true },
  { name: 'etcd is killed', boundMs: CLOSED_BOUND_MS, begin: etcd.kill, end: etcd.restart, network: false },
  { name: 'etcd is paused', boundMs: SILENCE_BOUND_MS, begin: etcd.pause, end: etcd.resume, network: false },
]

let generation = 0
/** Writes continuously. Returns a function that stops it, after which etcd's content does not change. */
function startWriter (): () => Promise<void> {
  const stop = new AbortController()
  const writing = (async () => {
    while (!stop.signal.aborted) {
      await writeGeneration(etcd, ++generation).catch(() => {})
      await setTimeout(WRITE_INTERVAL_MS)
    }
  })()
  return async () => {
    stop.abort()
    await writing
  }
}

const wrong: string[] = []
const summary = new Map<string, { times: number, slowestSyncMs: number }>()
const endsAtMs = performance.now() + minutes * 60_000
console.log(`soak: ${minutes} minutes, seed ${seed}`)
try {
  for (let round = 0; performance.now() < endsAtMs && caller.wrong.length === 0; round++) {
    const fault = faults[round] ?? pick(faults)
    const cutMs = Math.min(
      round < 2 ? FIRST_CUT_MS : pick(CUTS_MS) + int(500),
      Math.max(0, endsAtMs - performance.now())
    )
    const stopWriting = startWriter()

    await fault.begin()
    caller.away(fault.boundMs)
    await becomes(app, 'stale', fault.boundMs)
    await ages(app, cutMs)
    const compacts = fault.network && round % 3 < 2
    if (compacts) await etcd.compact()

    caller.back()
    await fault.end()
    const healedAtMs = performance.now()
    await becomes(app, 'synced', SYNC_BOUND_MS)
    const syncMs = Math.round(performance.now() - healedAtMs)
    await stopWriting()
    await inSync(app, etcd)

    const what = fault.name + (compacts ? ', and etcd is compacted' : '')
    const { times = 0, slowestSyncMs = 0 } = summary.get(what) ?? {}
    summary.set(what, { times: times + 1, slowestSyncMs: Math.max(slowestSyncMs, syncMs) })
    console.log(`${what} for ${(cutMs / 1_000).toFixed(1)} s: synced ${syncMs} ms after`)
  }
} catch (error) {
  wrong.push(String(error))
}
wrong.push(...await caller.stop())
const { loads, events, differences } = app.metadata.counters
const sockets = process.getActiveResourcesInfo().filter(resource => resource === 'TCPSocketWrap').length
for (const teardown of teardowns) await teardown()

console.table(Object.fromEntries(summary))
console.log(
  `${caller.answers} answers, ${generation} writes of many keys, ${events} events, ${loads} loads, ` +
    `${differences} differences, ${sockets} sockets at the end, ${Math.round(process.memoryUsage.rss() / 2 ** 20)} MB`
)
for (const line of wrong) console.log(`WRONG: ${line}`)
process.exit(wrong.length === 0 ? 0 : 1) // a writer may still be running
