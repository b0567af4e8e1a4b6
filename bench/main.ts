/**
 * `npm run bench`: how fast the service answers over a large keyspace in a real etcd, and at what cost. README.md
 * describes the options.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type Call, callsOf, CONNECTIONS, ownCalls } from './calls.ts'
import { type Cluster, startCluster, startWriting } from './cluster.ts'
import { everythingOn, NOTHING_ON, UNBOUNDED, type Variant, verifyRestricted } from './everything-on.ts'
import { call, connect, type McpServer } from './mcp-client.ts'
import { figures, idle, LoadGenerator, measure, type Sample, sum, type Target, verify } from './measure.ts'
import { LAUNCHER, memoryMb, type Running, startNode, V8_OPTIONS } from './processes.ts'
import { type SelfTime, topFunctions } from './profile.ts'
import {
  type Condition,
  type EverythingOn,
  everythingOnMarkdown,
  markdown,
  type Pair,
  type Report,
  type Row,
} from './report.ts'

const { values: options, positionals: tools } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: 'string', multiple: true, default: [] },
    compare: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    everything: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
  },
})
const seconds = positive('seconds')
const rounds = positive('rounds')

const OWN = 'kafscale-mcp'
const STARTS = 3
const WRITES_PER_SECOND = 2_000
/**
 * The tool for the comparisons (with and without writes, with nothing and everything enabled), and profiled by default.
 */
const SMALL_TOOL = 'describe_group'
/** A shorter window has too few calls of a single caller for a p99. */
const MIN_WRITES_SECONDS = 5
/** The rate at which the cost of the audit log is measured. */
const AUDITED_PER_SECOND = 1_000
const PROFILE_FUNCTIONS = 10
const SYNC_BOUND_MS = 30_000
const POLL_MS = 10
const OTHER_SERVER_BOUND_MS = 120_000
const WHOLE_BOUND_MS = 20 * 60_000
const REPORT = join(import.meta.dirname, 'report.md')

const teardowns: (() => unknown)[] = []
const t = { teardown: (handler: () => unknown) => teardowns.push(handler) }

async function end (): Promise<void> {
  for (const teardown of teardowns.splice(0).reverse()) await teardown()
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    void end().finally(() => process.exit(1))
  })
}
setTimeout(() => {
  say('The benchmark takes too long and was stopped.')
  void end().finally(() => process.exit(1))
}, WHOLE_BOUND_MS).unref()

try {
  for (const tool of tools) {
    if (!ownCalls().some(call => call.tool === tool)) throw new Error(`there is no tool ${tool} to measure`)
  }
  await (options.profile || options.everything ? part(tools[0] ?? SMALL_TOOL) : benchmark())
} catch (error) {
  const { message, cause } = error as Error
  say(`The benchmark failed: ${message}${cause instanceof Error ? `: ${cause.message}` : ''}`)
  process.exitCode = 1
} finally {
  await end()
}

async function benchmark (): Promise<void> {
  const load = new LoadGenerator()
  t.teardown(() => load.close())
  const cluster = options.url.length === 0 || options.compare ? await startOwnCluster() : undefined
  const service = cluster && await startService(cluster)
  const floor = cluster && await startFloor()
  const synced = service && memoryMb(service.pid)

  const servers: Server[] = service ? [{ name: OWN, pid: service.pid, mcp: await connect(service.listening.url) }] : []
  for (const url of options.url) servers.push({ name: new URL(url).host, mcp: await otherServer(url, cluster) })
  const missing: string[] = []
  const targets = [...floor ? await floorTargets(floor) : []]
  for (const server of servers) {
    targets.push(...await callTargets(server, cluster ? ownCalls() : await callsOf(server.mcp), missing))
  }

  const { samples, idle } = await sampleAll(load, targets, cluster)
  const rows = targets.map((target, index) => row(target, samples[index] ?? [], idle))
  const report: Report = {
    ...cluster && { etcdVersion: cluster.etcdVersion },
    ...floor && { bare: rows.shift() as Row, floor: rows.shift() as Row },
    rows,
    missing,
  }
  if (cluster && service && synced) {
    const afterCalls = memoryMb(service.pid)
    const conditions = await withWrites(load, cluster, service, targets[1] as Target)
    report.own = {
      startToSyncedMs: service.startToSyncedMs,
      residentMb: { synced: synced.resident, afterCalls: afterCalls.resident, peak: memoryMb(service.pid).peak },
      conditions,
      everythingOn: await withEverythingOn(load, cluster),
    }
    if (rows.some(({ server, etcdRequestsPerCall }) => server === OWN && etcdRequestsPerCall !== 0)) {
      process.exitCode = 1
    }
  }
  const text = markdown(report)
  writeFileSync(REPORT, text)
  say(`\n${text}`)
}

/** The part selected by the options `profile` and `everything`. */
async function part (tool: string): Promise<void> {
  const load = new LoadGenerator()
  t.teardown(() => load.close())
  const cluster = await startOwnCluster()
  if (!options.profile) return say(`\n${everythingOnMarkdown(await withEverythingOn(load, cluster))}`)
  const { label, perSecond, functions } = await profile(
    load,
    cluster,
    tool,
    options.everything ? everythingOn(t).everything : {}
  )
  say(`\n${label}: ${Math.round(perSecond)} calls/s under the profiler. Non-idle time by self time:\n`)
  for (const { place, ms, fraction } of functions) {
    say(`${(100 * fraction).toFixed(1).padStart(5)} % ${ms.toFixed(0).padStart(6)} ms  ${place}`)
  }
}

/** Runs one call of the service under a CPU profiler. */
async function profile (
  load: LoadGenerator,
  cluster: Cluster,
  tool: string,
  variant: Variant
): Promise<{ label: string, perSecond: number, functions: SelfTime[] }> {
  const dir = mkdtempSync(join(tmpdir(), 'kafscale-mcp-profile-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const service = await startOnce(cluster, variant, ['--cpu-prof', `--cpu-prof-dir=${dir}`])
  const target = await ownTarget(service, tool, variant)

  await measure(load, target, seconds, async () => 0) // warms up
  const fromNs = process.hrtime.bigint()
  const sample = await measure(load, target, seconds, async () => 0)
  const toNs = process.hrtime.bigint()
  await service.stop()
  const [file] = readdirSync(dir)
  if (file === undefined) throw new Error('the service did not write a profile')
  return {
    label: target.label,
    perSecond: figures([sample]).perSecond,
    functions: topFunctions(join(dir, file), fromNs, toNs, PROFILE_FUNCTIONS),
  }
}

/**
 * The cost of authentication, filtering and audit. Compares a small call of a service without them to one with all of
 * them at full speed, and to one with audit only at a fixed rate. The windows of a pair alternate.
 */
async function withEverythingOn (load: LoadGenerator, cluster: Cluster): Promise<EverythingOn> {
  const { audited, everything } = everythingOn(t)
  const start = async (label: string, variant: Variant): Promise<Target> => ({
    ...await ownTarget(await startOnce(cluster, { env: { ...variant.env, ...UNBOUNDED } }), SMALL_TOOL, variant),
    label,
  })
  const nothing = await start('nothing enabled', {})
  const compare = async (...pair: [Target, Target]): Promise<Pair> => {
    for (const target of pair) await measure(load, target, seconds, async () => 0) // warms up
    const { samples } = await sampleAll(load, pair, undefined)
    return pair.map((target, index) => row(target, samples[index] ?? [], [])) as Pair
  }
  return {
    atFullSpeed: await compare(nothing, await start('everything enabled', everything)),
    atRate: await compare({ ...nothing, perSecond: AUDITED_PER_SECOND }, {
      ...await start('audit to a file', audited),
      perSecond: AUDITED_PER_SECOND,
    }),
    profile: (await profile(load, cluster, SMALL_TOOL, everything)).functions,
  }
}

/** A verified call of the service. */
async function ownTarget (
  { pid, listening: { url } }: Running,
  tool: string,
  { headers }: Variant = {}
): Promise<Target> {
  const mcp = await connect(url, headers)
  if (headers) await verifyRestricted(mcp)
  const [target] = await callTargets({ name: OWN, pid, mcp }, ownCalls().filter(call => call.tool === tool), [])
  if (!target) throw new Error(`the service has no tool ${tool}`)
  return target
}

interface Server { name: string, mcp: McpServer, pid?: number }

async function startOwnCluster (): Promise<Cluster> {
  const startMs = performance.now()
  const cluster = await startCluster(t)
  say(`etcd ${cluster.etcdVersion} filled with ${cluster.keys} keys in ${Math.round(performance.now() - startMs)} ms`)
  return cluster
}

/** Starts the service several times, and keeps the last one running. */
async function startService (cluster: Cluster): Promise<Running & { startToSyncedMs: number[] }> {
  const startToSyncedMs: number[] = []
  for (;;) {
    const startMs = performance.now()
    const service = await startOnce(cluster)
    startToSyncedMs.push(performance.now() - startMs)
    if (startToSyncedMs.length === STARTS) {
      say(`${OWN} synced after ${startToSyncedMs.map(Math.round).join(', ')} ms`)
      return { ...service, startToSyncedMs }
    }
    await service.stop()
  }
}

/** Starts the service like `npm start`, and waits until it is synced. */
async function startOnce (cluster: Cluster, { env }: Variant = {}, nodeOptions: string[] = []): Promise<Running> {
  const service = await startNode([...nodeOptions, LAUNCHER], {
    ...cluster.env,
    ...NOTHING_ON,
    KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
    ...env,
  })
  t.teardown(() => service.stop())
  await until(
    async () => (await fetch(new URL('/readyz', service.listening.url))).ok,
    SYNC_BOUND_MS,
    'the service is not synced'
  )
  return service
}

async function startFloor (): Promise<Running> {
  const floor = await startNode([...V8_OPTIONS, 'bench/floor.ts'])
  t.teardown(() => floor.stop())
  return floor
}

/** A server started by the user, over our etcd if there is one. */
async function otherServer (url: string, cluster: Cluster | undefined): Promise<McpServer> {
  if (!cluster) return await connect(url)
  const settings = Object.entries(cluster.env).map(([name, value]) => `  ${name}=${value}\n`).join('')
  say(`Waiting two minutes for a server at ${url}. Start it with:\n${settings}`)
  return await until(() => connect(url), OTHER_SERVER_BOUND_MS, `no MCP server answers at ${url}`)
}

async function floorTargets ({ pid, listening: { url, bareUrl } }: Running): Promise<Target[]> {
  const server = await connect(url)
  const nothing: Call = {
    label: 'floor: a tool that does nothing',
    tool: 'nothing',
    input: {},
    connections: CONNECTIONS,
    rows: () => [],
    expectedRows: 0,
  }
  const verified = await verify(server, nothing)
  const target = { server: OWN, connections: CONNECTIONS, pid }
  return [
    {
      ...target,
      label: 'bare Fastify route, same bytes',
      verified: { ...verified, requests: verified.requests.map(request => ({ ...request, url: bareUrl as string })) },
    },
    { ...target, label: nothing.label, verified },
  ]
}

async function callTargets ({ name, mcp, pid }: Server, calls: readonly Call[], missing: string[]): Promise<Target[]> {
  const targets: Target[] = []
  for (const call of calls) {
    if (tools.length > 0 && !tools.includes(call.tool)) continue
    if (!mcp.has(call.tool)) missing.push(`${name} has no \`${call.tool}\`.`)
    else {
      targets.push({
        server: name,
        label: call.label,
        connections: call.connections,
        ...pid !== undefined && { pid },
        call,
        verified: await verify(mcp, call),
      })
    }
  }
  return targets
}

/** Measures every target once per round, so that disturbances affect all alike, and as long without calls. */
async function sampleAll (
  load: LoadGenerator,
  targets: readonly Target[],
  cluster: Cluster | undefined
): Promise<{ samples: Sample[][], idle: Sample[] }> {
  const samples: Sample[][] = targets.map(() => [])
  const idleSamples: Sample[] = []
  const count = async () => await cluster?.etcd.metric('grpc_server_started_total') ?? 0
  for (let round = 1; round <= rounds; round++) {
    if (cluster) idleSamples.push(await idle(seconds, undefined, count))
    for (const [index, target] of targets.entries()) {
      const sample = await measure(load, target, seconds, count)
      samples[index]?.push(sample)
      say(`round ${round}: ${target.server}, ${target.label}: ${figures([sample]).perSecond.toFixed(1)} calls/s`)
    }
  }
  return { samples, idle: idleSamples }
}

/** @param idle the same number of windows without calls; empty if etcd is not ours */
function row (
  { server, label, verified, call, pid }: Target,
  samples: readonly Sample[],
  idle: readonly Sample[]
): Row {
  const calls = sum(samples.map(({ latenciesMs }) => latenciesMs.length))
  return {
    server,
    label,
    ...figures(samples),
    bytes: sum(verified.pageBytes),
    ...call &&
      {
        rows: verified.rows,
        ...idle.length > 0 && { etcdRequestsPerCall: causedEtcdRequests(samples, idle) / calls },
        ...call.go && { go: call.go },
      },
    ...pid !== undefined && { cpuMicrosPerCall: sum(samples.map(({ cpuMs }) => cpuMs)) * 1_000 / calls },
  }
}

/** Allows each window one regular request, such as a probe, more than the average for its length. */
function causedEtcdRequests (samples: readonly Sample[], idle: readonly Sample[]): number {
  const perMs = sum(idle.map(({ etcdRequests }) => etcdRequests)) / sum(idle.map(({ elapsedMs }) => elapsedMs))
  const regular = perMs * sum(samples.map(({ elapsedMs }) => elapsedMs)) + samples.length + idle.length
  const requests = sum(samples.map(({ etcdRequests }) => etcdRequests))
  return requests <= regular ? 0 : requests - regular
}

/**
 * Measures no calls, a small call, and the floor, which has no mirror, each without and with writes to etcd. The floor
 * separates what the writer and etcd cost every process on the machine from what the mirror costs.
 */
async function withWrites (
  load: LoadGenerator,
  { etcd }: Cluster,
  { pid, listening: { url } }: Running,
  floor: Target
): Promise<Condition[]> {
  const mcp = await connect(url)
  const call = ownCalls().find(({ tool }) => tool === SMALL_TOOL) as Call
  const small: Target = { server: OWN, pid, label: call.label, connections: 1, verified: await verify(mcp, call) }
  const windowSeconds = Math.max(seconds, MIN_WRITES_SECONDS)
  const conditions: Condition[] = []
  for (
    const target of [
      undefined,
      ...[1, CONNECTIONS].flatMap(connections => [small, floor].map(target => ({ ...target, connections }))),
    ]
  ) {
    for (const writing of [false, true]) {
      const stop = writing ? startWriting(etcd, WRITES_PER_SECOND) : async () => 0
      const sample = await (target
        ? measure(load, target, windowSeconds, async () => 0)
        : idle(windowSeconds, pid, async () => 0))
      const writesPerSecond = await stop()
      if (writing) await caughtUp(mcp, etcd)
      conditions.push({
        label: target
          ? `${target.label}, ${target.connections === 1 ? 'one connection' : `${target.connections} connections`}`
          : 'no calls',
        writesPerSecond,
        ...target && figures([sample]),
        cpuPercent: 100 * sample.cpuMs / sample.elapsedMs,
      })
      say(`measured: ${conditions.at(-1)?.label}, ${Math.round(writesPerSecond)} writes/s`)
    }
  }
  return conditions
}

/**
 * Waits for an answer of the newest revision, so that a mirror that lost its watch is not taken for an efficient one.
 */
async function caughtUp (mcp: McpServer, { client }: Cluster['etcd']): Promise<void> {
  const { header } = await client.kv.range({ key: Buffer.from('/kafscale/'), count_only: true })
  await until(
    async () =>
      Number((await call(mcp.request('list_topics', { limit: 1 }))).content.revision) >= Number(header.revision),
    2_000,
    'the mirror has not caught up'
  )
}

/**
 * Repeats an attempt until it resolves with a result.
 * @throws with the last failure as its cause, after the bound
 */
async function until<T> (attempt: () => Promise<T | false>, boundMs: number, otherwise: string): Promise<T> {
  const deadlineMs = performance.now() + boundMs
  for (;;) {
    const [result, cause] = await attempt().then(
      result => [result, undefined] as const,
      (error: unknown) => [false, error] as const
    )
    if (result !== false) return result
    if (performance.now() > deadlineMs) throw new Error(`${otherwise} after ${boundMs} ms`, { cause })
    await delay(POLL_MS)
  }
}

function positive (name: 'seconds' | 'rounds'): number {
  const number = Number(options[name])
  if (!(number > 0)) throw new Error(`--${name} is ${options[name]}: expected a number greater than 0`)
  return number
}

function say (text: string): void {
  process.stdout.write(`${text}\n`)
}
