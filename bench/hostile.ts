/**
 * `npm run bench:hostile [-- --seconds N] [-- --seed N]`: searches for requests that block the service's event loop for
 * long, over the keyspace of the benchmark and over one with hostile names. README.md describes it.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { random } from '../tests/support/generate.ts'
import { type Call, ownCalls } from './calls.ts'
import { startCluster } from './cluster.ts'
import { NOTHING_ON, UNBOUNDED } from './everything-on.ts'
import { describe, hostileKeyspace, randomRecipe, type Recipe, requestOf, type Tool, vary } from './hostile-inputs.ts'
import { type Entry, keyspace } from './keyspace.ts'
import { connect, legacyRequest, modernRequest } from './mcp-client.ts'
import { figures, LoadGenerator, measure, verify } from './measure.ts'
import { startNode, V8_OPTIONS } from './processes.ts'

/** What no request may exceed, on a machine where a bare Fastify route answers so many requests per second. */
const BOUND_MS = 50
const BARE_PER_SECOND = 26_000
/** The most promising recipes, of which the search tries variations. */
const POPULATION = 24
/** A long block must show this often: a busy machine delays anything once. */
const REPEATS = 4
const NEW_FRACTION = 0.25
const SHOWN = 10
const SYNC_BOUND_MS = 30_000

/** How many calls one caller makes at once, and how long those of others may take meanwhile. */
const GREEDY_CONNECTIONS = 64
const OTHERS_BOUND_MS = 1_000
const GREEDY_SECONDS = 10

interface Found { recipe: Recipe, blockedMs: number, status: number }

const { values: options } = parseArgs({
  options: { seconds: { type: 'string', default: '120' }, seed: { type: 'string', default: `${Date.now() % 1e9}` } },
})
const choose = random(Number(options.seed))
const teardowns: (() => unknown)[] = []
const t = { teardown: (handler: () => unknown) => teardowns.push(handler) }

try {
  const perSecond = await measureBare()
  const boundMs = BOUND_MS * BARE_PER_SECOND / perSecond
  console.log(
    `seed ${options.seed}; a bare Fastify route answers ${Math.round(perSecond)} requests/s here: ` +
      `the bound is ${boundMs.toFixed(0)} ms`
  )
  for (const [name, entries] of Object.entries({ benchmark: keyspace(), hostile: hostileKeyspace() })) {
    const { found, tried } = await search(entries, Number(options.seconds) / 2 * 1_000)
    console.log(`\n${name} keyspace: ${tried} requests; the longest blocks:`)
    for (const { blockedMs, status, what } of found) {
      console.log(`${blockedMs.toFixed(1).padStart(8)} ms  ${status}  ${what}`)
    }
    if (found.some(({ blockedMs }) => blockedMs > boundMs)) process.exitCode = 1
  }
  for (const { label, p99Ms } of await measureOthers()) {
    console.log(`p99 of others during ${GREEDY_CONNECTIONS} concurrent calls of ${label}: ${p99Ms.toFixed(0)} ms`)
    if (p99Ms > OTHERS_BOUND_MS * BARE_PER_SECOND / perSecond) process.exitCode = 1
  }
} finally {
  for (const teardown of teardowns.reverse()) await teardown()
}

async function measureBare (): Promise<number> {
  const load = new LoadGenerator()
  const floor = await startNode([...V8_OPTIONS, 'bench/floor.ts'])
  try {
    const url = floor.listening.bareUrl as string
    const request = modernRequest(url)('tools/call', { name: 'nothing', arguments: {} })
    const server = { url, has: () => true, request: () => request }
    const call = { label: 'bare', tool: 'nothing', input: {}, connections: 16, rows: () => [], expectedRows: 0 }
    const target = { server: 'bare', label: 'bare', connections: 16, verified: await verify(server, call) }
    return figures([await measure(load, target, 3, async () => 0)]).perSecond
  } finally {
    load.close()
    await floor.stop()
  }
}

/** The p99 of a small call on one connection, while another caller keeps expensive calls in progress. */
async function measureOthers (): Promise<{ label: string, p99Ms: number }[]> {
  const [greedy, others] = [new LoadGenerator(), new LoadGenerator()]
  t.teardown(() => [greedy, others].forEach(load => load.close()))
  const { env } = await startCluster(t)
  const service = await startNode([...V8_OPTIONS, 'bench/hostile-service.ts'], { ...env, ...NOTHING_ON, ...UNBOUNDED })
  t.teardown(() => service.stop())
  const { url } = service.listening
  await synced(url)
  const server = await connect(url)
  const target = async (call: Call, connections: number) =>
    ({ server: url, label: call.label, connections, verified: await verify(server, call) })
  const small = await target({ ...call('list_topics'), input: { limit: 10 }, expectedRows: 10 }, 1)
  const results = []
  for (const tool of ['list_groups', 'consumer_lag', 'describe_configs']) {
    const expensive = await target(call(tool), GREEDY_CONNECTIONS)
    const busy = measure(greedy, expensive, GREEDY_SECONDS + 1, async () => 0)
    const sample = await measure(others, small, GREEDY_SECONDS, async () => 0)
    await busy
    results.push({ label: expensive.label, p99Ms: figures([sample]).p99Ms })
  }
  return results
}

function call (tool: string): Call {
  return ownCalls().find(call => call.tool === tool) as Call
}

/** Starts the service over a keyspace, and tries recipes on it for a time. */
async function search (entries: Iterable<Entry>, ms: number) {
  const { env } = await startCluster(t, entries)
  const child = fork(join(import.meta.dirname, 'hostile-service.ts'), {
    execArgv: [...V8_OPTIONS],
    env: { PATH: process.env.PATH, ...env, ...NOTHING_ON },
    stdio: ['ignore', 'inherit', 'ignore', 'ipc'],
  })
  t.teardown(() => child.disconnect())
  const [url] = await once(child, 'message') as [string]
  await synced(url)
  const tools = await toolsOf(url)

  const blockedMs = async (question: 'reset' | 'read') => {
    child.send(question)
    const [ms] = await once(child, 'message') as [number]
    return ms
  }
  const attempt = async (recipe: Recipe): Promise<Found> => {
    const { headers, body } = requestOf(url, recipe, tools)
    await blockedMs('reset')
    const status = await fetch(url, { method: 'POST', headers, body }).then(async response => {
      await response.arrayBuffer()
      return response.status
    }).catch(() => 0) // the service has closed the connection
    return { recipe, blockedMs: await blockedMs('read'), status }
  }

  let best: Found[] = []
  let tried = 0
  for (const endMs = performance.now() + ms; performance.now() < endMs; tried++) {
    const parent = best.length > 0 && !choose.chance(NEW_FRACTION) ? choose.pick(best).recipe : undefined
    const recipe = parent ? vary(parent, choose) : randomRecipe(choose)
    let found = await attempt(recipe)
    const least = best.length < POPULATION ? 0 : best.at(-1)?.blockedMs ?? 0
    for (let repeat = 1; repeat < REPEATS && found.blockedMs > least; repeat++) {
      const again = await attempt(recipe)
      if (again.blockedMs < found.blockedMs) found = again
    }
    const what = describe(recipe, tools)
    if (found.blockedMs <= least || best.some(({ recipe }) => describe(recipe, tools) === what)) continue
    best = [...best, found].sort((a, b) => b.blockedMs - a.blockedMs).slice(0, POPULATION)
  }
  return { tried, found: best.slice(0, SHOWN).map(found => ({ ...found, what: describe(found.recipe, tools) })) }
}

async function synced (url: string): Promise<void> {
  for (const endMs = performance.now() + SYNC_BOUND_MS; !(await fetch(new URL('/readyz', url))).ok;) {
    if (performance.now() > endMs) throw new Error('the service is not synced in time')
  }
}

async function toolsOf (url: string): Promise<Tool[]> {
  const { headers, body } = legacyRequest(url)('tools/list', {})
  const response = await fetch(url, { method: 'POST', headers, body })
  const { result } = await response.json() as { result: { tools: Tool[] } }
  return result.tools
}
