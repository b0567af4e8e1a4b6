/**
 * For the fault tests and the soak: a keyspace that reveals incomplete answers, and a caller that never stops asking.
 */
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { encodeCommittedOffset, encodeSnapshot, formatKey } from '../../demo/encode.ts'
import { Mirror } from '../../kafscale/mirror.ts'
import type { Etcd, Teardown } from './etcd.ts'
import { scaled } from './run.ts'
import { buildSyncedApp, CALLER, callTool, fill } from './service.ts'
import { waitFor } from './wait-for.ts'

/** The service is synced this soon after etcd answers again. */
export const SYNC_BOUND_MS = 2_000
/** A connection that has gone silent is noticed within this time. */
export const SILENCE_BOUND_MS = 10_000
/** A closed connection is noticed within this time. */
export const CLOSED_BOUND_MS = 1_000

const PARTITIONS = 30
const TOPICS = ['even', ...Array.from({ length: 9 }, (_, index) => `topic-${index}`)]
/** Their offsets make a load span several pages. */
const IDLE_GROUPS = Array.from({ length: 50 }, (_, index) => `idle-${index}`)
const COUNTS = {
  topic_count: TOPICS.length,
  partition_count: TOPICS.length * PARTITIONS,
  group_count: IDLE_GROUPS.length + 1,
}
const ASK_INTERVAL_MS = 15
/** A connected mirror is no older: it is probed every 2 s, and a probe may take a while. */
const CONNECTED_AGE_MS = 5_000

const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition)
const commit = (group: string, topic: string, partition: number, offset: number) => ({
  key: formatKey({ kind: 'committed-offset', group, topic, partition }),
  value: encodeCommittedOffset({ offset, metadata: '', committedAtMs: 0 }),
})

/** Fills etcd with the cluster that {@link startCaller} expects, at generation 0. */
export async function fillCluster (etcd: Etcd): Promise<void> {
  const topics = TOPICS.map(name => ({
    name,
    errorCode: 0,
    partitions: partitions.map(partition => ({
      partition,
      leaderId: 0,
      leaderEpoch: 0,
      replicaNodes: [0],
      isrNodes: [0],
      offlineReplicas: [],
      errorCode: 0,
    })),
  }))
  await fill(etcd, [
    {
      key: formatKey({ kind: 'snapshot' }),
      value: encodeSnapshot({ clusterName: null, clusterId: null, controllerId: 0, brokers: [], topics }),
    },
    ...IDLE_GROUPS.flatMap(group => partitions.map(partition => commit(group, 'topic-0', partition, 0))),
  ])
  await writeGeneration(etcd, 0)
}

/**
 * Sets every log end offset and every committed offset of the topic `even` to `generation`, in one transaction, so that
 * they are all the same at every revision.
 */
export async function writeGeneration (etcd: Etcd, generation: number): Promise<void> {
  await fill(etcd, partitions.flatMap(partition => [
    commit('even', 'even', partition, generation),
    { key: formatKey({ kind: 'next-offset', topic: 'even', partition }), value: String(generation) },
  ]))
}

/** The current content of etcd, read by its own client. */
export async function heldBy ({ client }: Etcd): Promise<Mirror> {
  const { header, kvs } = await client.getAll().prefix('/kafscale/').exec()
  const mirror = new Mirror()
  for (const { key, value, mod_revision: modRevision } of kvs) {
    mirror.apply({ type: 'put', key, value, modRevision: Number(modRevision) })
  }
  mirror.revision = Number(header.revision)
  return mirror
}

/** Waits for a state of the mirror. */
export async function becomes (app: FastifyInstance, state: 'synced' | 'stale', boundMs: number): Promise<void> {
  await waitFor(() => app.metadata.state === state || `${app.metadata.state}: ${app.metadata.reason}`, boundMs, state)
}

/** Waits until the mirror is at least this old. */
export async function ages (app: FastifyInstance, ms: number): Promise<void> {
  await waitFor(() => app.metadata.ageMs >= ms || app.metadata.ageMs, ms + 1_000, `${ms} ms old`)
}

/** Waits until the mirror is synced and equals etcd's content. For use while nothing is written. */
export async function inSync (app: FastifyInstance, etcd: Etcd, boundMs = SYNC_BOUND_MS): Promise<void> {
  await becomes(app, 'synced', boundMs)
  const held = await heldBy(etcd)
  await waitFor(
    () => (app.metadata.mirror?.revision ?? 0) >= held.revision || app.metadata.mirror?.revision,
    boundMs,
    'caught up'
  )
  const differing = app.metadata.mirror?.differences(held)
  if (differing?.length !== 0) {
    throw new Error(`the mirror differs from etcd on ${differing?.length} keys, such as ${differing?.[0]}`)
  }
}

/** Builds the app over a filled cluster, waits until it is synced, and starts a caller. */
export async function buildAskedApp (
  t: Teardown,
  etcd: Etcd,
  env: Record<string, string> = {}
): Promise<{ app: FastifyInstance, caller: Caller }> {
  const app = await buildSyncedApp(t, etcd, env)
  return { app, caller: startCaller(t, app) }
}

/** Calls tools continuously, as an agent does, and collects what is wrong with the answers. */
export interface Caller {
  /**
   * etcd is unreachable from now on: after `withinMs`, an answer that says `connected` or that contains anything new is
   * wrong.
   */
  away: (withinMs: number) => void
  /** etcd may be reachable again. */
  back: () => void
  readonly answers: number
  /** The mistakes so far, each kind once. */
  readonly wrong: readonly string[]
  /** Stops calling, and returns {@link wrong}. */
  stop: () => Promise<readonly string[]>
}

/** Starts a caller on a service that is synced with the cluster of {@link fillCluster}. */
export function startCaller (t: Teardown, app: FastifyInstance): Caller {
  const wrong = new Map<string, string>()
  let answers = 0
  const stopping = new AbortController()
  let awayFromMs = Infinity
  /** The first answer since etcd is unreachable. */
  let lastKnown: { observedAt: unknown, revision: number, ageMs: number } | undefined
  let revision = 0
  let generation = 0

  const check = (right: boolean, kind: string, seen: unknown) => {
    if (!right && !wrong.has(kind)) wrong.set(kind, `${kind}: ${JSON.stringify(seen)}`.slice(0, 300))
  }
  /**
   * Calls a tool and checks what is true of every answer. `away` is whether etcd was known to be unreachable both
   * before and after the call.
   */
  const call = async (tool: string, input: Record<string, unknown> = {}) => {
    const wasAwayFromMs = awayFromMs
    const askedAtMs = performance.now()
    const { isError, content, structuredContent } = await callTool(app, tool, input)
    answers++
    if (isError || !structuredContent) {
      check(false, `${tool} failed`, content[0]?.text)
      return undefined
    }
    const answer = structuredContent as Record<string, unknown> & { revision: number, observed_at: string }
    check(answer.revision >= revision, 'the revision went backwards', [revision, answer.revision])
    revision = answer.revision
    return { answer, away: askedAtMs > wasAwayFromMs && awayFromMs === wasAwayFromMs }
  }

  const askStatus = async () => {
    const status = await call('cluster_status', { limit: 1_000 })
    if (!status) return
    const { answer, away } = status
    const { etcd, topics, observed_at: observedAt, ...counts } = answer as typeof answer & {
      etcd: { state: string, age_ms: number }
      topics: unknown[]
    }
    for (const [name, count] of Object.entries(COUNTS)) {
      check(counts[name] === count, `${name} is incomplete`, counts[name])
    }
    check(topics.length === TOPICS.length, 'topics are incomplete', topics.length)
    check(etcd.state !== 'connected' || etcd.age_ms < scaled(CONNECTED_AGE_MS), 'connected but old', etcd)
    if (!away) {
      lastKnown = undefined
      return
    }
    check(etcd.state === 'stale', 'connected while etcd is away', etcd)
    check(etcd.age_ms >= (lastKnown?.ageMs ?? 0), 'age_ms fell while etcd is away', [lastKnown?.ageMs, etcd.age_ms])
    check(lastKnown === undefined || (lastKnown.observedAt === observedAt && lastKnown.revision === answer.revision),
      'an answer changed while etcd is away', [lastKnown, answer])
    lastKnown = { observedAt, revision: answer.revision, ageMs: etcd.age_ms }
  }
  const askLag = async () => {
    const { lag } = ((await call('consumer_lag', { group_id: 'even' }))?.answer ?? {}) as {
      lag?: { lag: number, committed_offset: number }[]
    }
    if (!lag) return
    check(lag.length === PARTITIONS, 'consumer_lag is incomplete', lag.length)
    check(lag.every(row => row.lag === 0), 'lag of mixed revisions', lag)
    const offsets = new Set(lag.map(row => row.committed_offset))
    const [offset = 0] = offsets
    check(offsets.size === 1, 'committed offsets of mixed revisions', [...offsets])
    check(offset >= generation, 'a committed offset went backwards', [generation, offset])
    generation = offset
  }
  const askOffsets = async () => {
    const { offsets } = ((await call('fetch_offsets', { group_id: 'even' }))?.answer ?? {}) as {
      offsets?: { lag: number }[]
    }
    check(
      offsets === undefined || (offsets.length === PARTITIONS && offsets.every(row => row.lag === 0)),
      'fetch_offsets is incomplete',
      offsets
    )
  }
  const askTotals = async () => {
    for (
      const [tool, total] of Object.entries({
        list_groups: COUNTS.group_count,
        list_topics: COUNTS.topic_count,
        describe_topics: COUNTS.partition_count,
      })
    ) {
      const answer = (await call(tool, { limit: 1 }))?.answer
      check(answer === undefined || answer['total'] === total, `${tool} is incomplete`, answer)
    }
  }
  const asking = (async () => {
    for (let round = 0; !stopping.signal.aborted; round++) {
      await askStatus()
      await [askLag, askOffsets, askTotals][round % 3]?.()
      await setTimeout(ASK_INTERVAL_MS)
    }
  })().catch((error: unknown) => check(false, 'asking failed', String(error)))
  const stop = async () => {
    stopping.abort()
    await asking
    check(answers > 0, 'nothing was asked', answers)
    return [...wrong.values()]
  }
  t.teardown(stop)

  return {
    away: withinMs => { awayFromMs = performance.now() + scaled(withinMs) },
    back: () => { awayFromMs = Infinity },
    get answers () { return answers },
    get wrong () { return [...wrong.values()] },
    stop,
  }
}

/** The answer of every tool by name, without the age of the metadata. */
export async function askEveryTool (app: FastifyInstance): Promise<Record<string, unknown>> {
  const answers: Record<string, unknown> = {}
  for (const { name, inputSchema } of app.tools.list(CALLER.principal)) {
    const input = 'required' in inputSchema ? { group_id: 'even' } : {}
    const { content: [text], structuredContent } = await callTool(app, name, input)
    const { etcd: _, ...answer } = structuredContent ?? {}
    answers[name] = structuredContent ? answer : text?.text
  }
  return answers
}
