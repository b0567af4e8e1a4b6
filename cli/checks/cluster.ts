/** Whether the cluster can be read: etcd, the snapshot, and the brokers' metrics pages. */
import { setTimeout as delay } from 'node:timers/promises'
import { status } from '@grpc/grpc-js'
import type { FastifyInstance } from 'fastify'
import { PREFIX, SNAPSHOT } from '../../kafscale/keyspace.ts'
import { Mirror } from '../../kafscale/mirror.ts'
import { quote } from '../../lib/printable.ts'
import { type EtcdConnection, isWithinPrefix } from '../../plugins/etcd/connection.ts'
import { reasonOf, REASONS } from '../../plugins/metadata.ts'
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
      access ??= await checkAccess(connection)
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

function explain (error: Error & { code?: number, details?: string }): string {
  const details = error.details || error.message
  if (error.code === status.PERMISSION_DENIED) {
    return `the user may not read ${PREFIX} (${details}): grant it a role with read on that prefix`
  }
  return `${reasonOf(error)} (${details.replace(/\s*Resolution note:\s*$/, '')})`
}

/** Whether the user may read the prefix and nothing more. Asks etcd for the user's permissions: nothing is written. */
async function checkAccess (connection: EtcdConnection): Promise<Finding> {
  const item = 'etcd permissions'
  const warning = (detail: string): Finding => ({ level: 'warning', item, detail })
  const advice = `a user with read on ${PREFIX} is enough`
  try {
    const user = await connection.permissions()
    const everything = await connection.readsEverything()
    if (!user) {
      return everything
        ? warning(`whoever reaches etcd can read every key, and probably write: enable authentication; ${advice}`)
        : { level: 'ok', item, detail: 'the user can read the prefix and not every key; etcd does not tell more' }
    }
    if (user.roles.includes('root')) return warning(`the user has the role root: ${advice}`)
    const excessive = user.permissions.filter(permission => !isWithinPrefix(permission))
    if (excessive.length > 0) {
      const listed = excessive.map(({ writes, key, rangeEnd }) =>
        `${writes ? 'write' : 'read'} on ${quote(key.toString())}${rangeEnd.length > 0 ? ' and further keys' : ''}`
      )
      return warning(`the user has more than it needs, ${listed.slice(0, MAX_LISTED).join(', ')}: ${advice}`)
    }
    return { level: 'ok', item, detail: `the user can read ${PREFIX} and nothing else` }
  } catch (error) {
    return warning(`could not be found out: ${explain(error as Error)}`)
  }
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
  const deadlineMs = performance.now() + LOAD_MS
  while (!app.metadata.mirror && performance.now() < deadlineMs) await delay(20)
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
