/**
 * The recording of a real cluster, written into a real etcd as it was written then, with every tool asked along the
 * way.
 */
import { setTimeout } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { type Etcd, needsEtcd, startEtcd } from '../../support/etcd.ts'
import { inSync } from '../../support/faults.ts'
import { answerable, type Arguments, expected, type Keyspace, keyspace } from '../../support/oracle.ts'
import { recording } from '../../support/paths.ts'
import { buildSyncedApp, CALLER, callTool, fill, recordedKeyspace } from '../../support/service.ts'

/** The events of one revision. */
interface WatchResponse { revision: string, events: { type: 'put' | 'delete', key: string, value: string }[] }
interface StoredKey { key: string, value: string, mod_revision: string }

const COMPARE_EVERY = 1_000
const ASK_INTERVAL_MS = 20
/** Groups of the recording; not all of them exist all the time. */
const GROUPS = ['analytics', 'billing', 'nightly', 'stuck']
const MAY_FAIL: Record<string, string> = {
  cluster_metrics: 'METRICS_NOT_CONFIGURED',
  describe_group: 'GROUP_NOT_FOUND',
  fetch_offsets: 'GROUP_NOT_FOUND',
}

const [{ revision: recordedStart }] = recording<{ revision: string }>('keyspace.jsonl') as [{ revision: string }]
const responses = recording<WatchResponse>('watch.jsonl.gz')
const [, ...keyspaceEnd] = recording<StoredKey>('keyspace-end.jsonl')

/** Writes one revision of the recording as one revision. */
async function write ({ client }: Etcd, { events }: WatchResponse): Promise<string> {
  const { header } = await client.kv.txn({
    compare: [],
    success: events.map(({ type, key, value }) => type === 'put'
      ? { request_put: { key: Buffer.from(key), value: Buffer.from(value, 'base64') } }
      : { request_delete_range: { key: Buffer.from(key) } }),
    failure: [],
  })
  return header.revision
}

async function rangeRead ({ client }: Etcd, revision: string): Promise<Keyspace> {
  const { kvs } = await client.getAll().prefix('/kafscale/').revision(revision).exec()
  return keyspace({
    revision,
    kvs: kvs.map(({ key, value, mod_revision: modRevision }) => ({ key, value, modRevision })),
  })
}

/**
 * Asks every tool, and lists the answers that aren't what the oracle computes from a range read at the answer's
 * revision.
 */
async function compare (app: FastifyInstance, etcd: Etcd): Promise<string[]> {
  const questions = answerable.flatMap((tool): [string, Arguments][] =>
    tool === 'describe_group' || tool === 'fetch_offsets'
      ? GROUPS.map(group => [tool, { group_id: group, limit: 1_000 }])
      : [[tool, { limit: 1_000 }]]
  )
  const spaces = new Map<string, Keyspace>()
  const wrong: string[] = []
  for (const [tool, args] of questions) {
    const { revision, code, answer } = await askAt(app, tool, args)
    if (!spaces.has(revision)) spaces.set(revision, await rangeRead(etcd, revision))
    const wanted = expected(
      spaces.get(revision) as Keyspace,
      tool,
      args,
      new Date(String(answer?.['observed_at'] ?? 0))
    )
    const actual = stable(answer ? fromEtcd(answer) : code)
    const right = stable(wanted.kind === 'failure' ? wanted.code : wanted.content)
    if (actual !== right) wrong.push(`${tool} ${JSON.stringify(args)} at ${revision}: ${actual}, expected ${right}`)
  }
  return wrong
}

/**
 * An answer and its revision. A failure doesn't tell its own, so it is asked for until there was only one that it can
 * be.
 */
async function askAt (
  app: FastifyInstance,
  tool: string,
  args: Arguments
): Promise<{ revision: string, code: string | undefined, answer: Record<string, unknown> | undefined }> {
  for (;;) {
    const before = app.metadata.mirror?.revision
    const { content: [text], structuredContent: answer } = await callTool(app, tool, { ...args })
    if (answer || app.metadata.mirror?.revision === before) {
      return { revision: String(answer?.['revision'] ?? before), code: text?.text.split(':')[0], answer }
    }
  }
}

/** The answer without what does not come from etcd. */
function fromEtcd (
  { etcd: _, s3: __, brokers_reachable: ___, ...answer }: Record<string, unknown>
): Record<string, unknown> {
  if (!('controller_id' in answer)) return answer
  const brokers = answer['brokers'] as Record<string, unknown>[]
  return { ...answer, brokers: brokers.map(({ metrics: _, s3_state: __, ...broker }) => broker) }
}

/** JSON with sorted properties. */
function stable (value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => typeof part === 'object' && part !== null && !Array.isArray(part)
    ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => a < b ? -1 : 1))
    : part)
}

/**
 * Asks every tool in turn until it is stopped; resolves to how often each was asked, and the failures that no tool's
 * contract allows.
 */
async function askUntil (
  app: FastifyInstance,
  stop: AbortSignal
): Promise<{ asked: Record<string, number>, failures: string[] }> {
  const asked: Record<string, number> = {}
  const failures: string[] = []
  let revision = 0
  for (let round = 0; !stop.aborted; round++) {
    for (const { name, inputSchema } of app.tools.list(CALLER.principal)) {
      const input = 'required' in inputSchema ? { group_id: GROUPS[round % GROUPS.length] } : {}
      const { isError, content, structuredContent } = await callTool(app, name, input)
      asked[name] = (asked[name] ?? 0) + 1
      const text = content[0]?.text ?? ''
      if (isError && !text.startsWith(`${MAY_FAIL[name]}:`)) failures.push(text)
      const now = Number(structuredContent?.['revision'] ?? revision)
      if (now < revision) failures.push(`${name} went back from revision ${revision} to ${now}`)
      revision = now
    }
    await setTimeout(ASK_INTERVAL_MS)
  }
  return { asked, failures }
}

t.test('the recording, one write at a time', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const app = await buildSyncedApp(t, etcd)
  const loaded = app.metadata.mirror?.revision as number
  const shifted = (revision: string) => Number(revision) - Number(recordedStart) + loaded

  const stop = new AbortController()
  t.teardown(() => stop.abort())
  const asking = askUntil(app, stop.signal)
  let comparing = compare(app, etcd)
  let comparisons = 1
  let written = 0
  for (const response of responses) {
    const revision = await write(etcd, response)
    if (Number(revision) !== shifted(response.revision)) {
      throw new Error(`revision ${response.revision} was written as ${revision}`)
    }
    written += response.events.length
    if (Number(response.revision) % COMPARE_EVERY > 0) continue
    comparing = comparing.then(async wrong => [...wrong, ...await compare(app, etcd)]) // while writes go on
    comparisons++
  }
  t.strictSame(await comparing, [], 'answers are what the oracle says')
  t.equal(comparisons, 12)
  stop.abort()
  const { asked, failures } = await asking
  t.strictSame(failures, [])
  t.equal(Object.values(asked).filter(times => times > 20).length, 10, 'every tool was asked along the way')

  const { kvs } = await etcd.client.getAll().prefix('/kafscale/').exec()
  const unwritten = (revision: string) => Number(revision) <= Number(recordedStart)
  t.strictSame(
    kvs.map(({ key, value, mod_revision: revision }) => ({
      key: key.toString(),
      value: value.toString('base64'),
      revision: Math.max(Number(revision), loaded),
    })),
    keyspaceEnd.map(({ key, value, mod_revision: revision }) => ({
      key,
      value,
      revision: unwritten(revision) ? loaded : shifted(revision),
    })),
    'etcd holds exactly what the recorded one held at the end'
  )
  await inSync(app, etcd)
  t.match(app.metadata.counters, { events: written, loads: 1 }, 'the mirror came to hold the same by every event, once')
  t.strictSame(await compare(app, etcd), [])
})
