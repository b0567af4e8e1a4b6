/** Whether the cluster can be read: etcd, the snapshot, and the brokers' metrics pages. */
import { setTimeout as delay } from 'node:timers/promises'
import { status } from '@grpc/grpc-js'
import type { FastifyInstance } from 'fastify'
import { PREFIX, SNAPSHOT } from '../../kafscale/keyspace.ts'
import { Mirror } from '../../kafscale/mirror.ts'
import { quote } from '../../lib/printable.ts'
import type { EtcdConnection } from '../../plugins/etcd/connection.ts'
import { reasonOf, REASONS } from '../../plugins/metadata.ts'
import { checkAccess } from './etcd-access.ts'
import type { Finding } from './finding.ts'

/** A member that has just started, or a busy network, may not answer the first call in time. */
const ATTEMPTS = 3
const RETRY_MS = 500
/** How long the mirror may take to load, which has already been loaded once. */
const LOAD_MS = 10_000
/** How many brokers that do not answer are listed. */
const MAX_LISTED = 10

export async function * checkCluster (app: FastifyInstance): AsyncGenerator<Finding> {
  let mirror: Mirror | undefined
  let access: Finding | undefined
  for (const endpoint of app.config.etcdEndpoints) {
    const connection = app.etcd.connect(endpoint)
    try {
      mirror = await load(connection)
      const keys = `${mirror.modRevisions.size} keys under ${PREFIX} at revision ${mirror.revision}`
      yield { level: 'ok', item: `etcd ${endpoint}`, detail: `answers, with ${keys}` }
      access ??= await checkAccess('etcd permissions', connection, { prefix: PREFIX, writes: false }, explain)
    } catch (error) {
      yield { level: 'failed', item: `etcd ${endpoint}`, detail: explain(error as Error) }
    } finally {
      connection.close()
    }
  }
  if (!mirror) {
    for (const item of ['etcd permissions', 'snapshot', 'broker pages']) {
      yield { level: 'skipped', item, detail: 'no etcd endpoint can be read' }
    }
    return
  }
  if (access) yield access
  yield * checkValues(mirror)
  yield * checkBrokers(app)
}

async function load (connection: EtcdConnection): Promise<Mirror> {
  for (let attempt = 1; ; attempt++) {
    try {
      await connection.probe()
      const mirror = new Mirror()
      const { revision } = await connection.load(kvs => { for (const kv of kvs) mirror.apply({ type: 'put', ...kv }) })
      mirror.revision = revision
      return mirror
    } catch (error) {
      if (attempt === ATTEMPTS || reasonOf(error as Error) === REASONS.refused) throw error
      await delay(RETRY_MS)
    }
  }
}

/** Why a call to etcd failed. */
export function explain (error: Error & { code?: number, details?: string }): string {
  const details = error.details || error.message
  if (error.code === status.PERMISSION_DENIED) {
    return `the user may not read ${PREFIX} (${details}): grant it a role with read on that prefix`
  }
  return `${reasonOf(error)} (${details.replace(/\s*Resolution note:\s*$/, '')})`
}

/** The mirror once it is loaded; undefined if that takes too long. */
export async function loadedMirror (app: FastifyInstance): Promise<Mirror | undefined> {
  const deadlineMs = performance.now() + LOAD_MS
  while (!app.metadata.mirror && performance.now() < deadlineMs) await delay(20)
  return app.metadata.mirror
}

function * checkValues (mirror: Mirror): Generator<Finding> {
  const { snapshot } = mirror
  if (!mirror.modRevisions.has(SNAPSHOT)) {
    const detail = `there is none at ${SNAPSHOT}: the brokers store it with the first topic; ` +
      'if there are topics, they use another etcd'
    yield { level: 'warning', item: 'snapshot', detail }
  } else if (snapshot) {
    const { brokers } = snapshot
    const detail = `decodes, with ${mirror.topics.length} topics and ${brokers.length} brokers`
    yield { level: 'ok', item: 'snapshot', detail }
  } else {
    const [defect = ''] = mirror.undecodable.get(SNAPSHOT) ?? []
    yield { level: 'failed', item: 'snapshot', detail: `cannot be decoded: ${defect}` }
  }
  const others = [...mirror.undecodable.keys()].filter(key => key !== SNAPSHOT)
  if (others.length === 0) return
  const listed = others.slice(0, MAX_LISTED).map(quote).join(', ')
  yield { level: 'warning', item: 'other values', detail: `${others.length} cannot be decoded, such as ${listed}` }
}

async function * checkBrokers (app: FastifyInstance): AsyncGenerator<Finding> {
  const item = 'broker pages'
  if (!app.brokerMetrics.configured) {
    const detail = 'KAFSCALE_MCP_BROKER_METRICS_URL is not set, so cluster_metrics has no figures'
    yield { level: 'skipped', item, detail }
    return
  }
  await loadedMirror(app)
  try {
    const { brokers, omitted } = await app.brokerMetrics.scrape()
    const failed = brokers.flatMap(broker => broker.state === 'ok' ? [] : broker)
    for (const { address, error } of failed.slice(0, MAX_LISTED)) {
      yield { level: 'failed', item: `broker page ${address}`, detail: error }
    }
    const answers = brokers.length - failed.length
    const level = answers === 0 ? 'failed' : failed.length > 0 || omitted > 0 ? 'warning' : 'ok'
    const left = omitted > 0 ? `; ${omitted} more are never asked` : ''
    yield { level, item, detail: `${answers} of ${brokers.length} answer and can be read${left}` }
  } catch (error) {
    yield { level: 'failed', item, detail: (error as Error).message }
  }
}
