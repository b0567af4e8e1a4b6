import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type Etcd, startEtcd, type Teardown } from '../tests/support/etcd.ts'
import { type Entry, keyspace, progress } from './keyspace.ts'

/** etcd's default limits, with some room for the keys. */
const MAX_TXN_OPS = 128
const MAX_TXN_BYTES = 1_000_000
/** Brokers renew their leases of 10 s. These outlive the benchmark, so they need no renewal. */
const LEASE_TTL_SECONDS = 3_600
const PACE_MS = 10
const MAX_IN_FLIGHT = 500

/** A real etcd with the keyspace, and a broker's metrics page. */
export interface Cluster {
  etcd: Etcd
  etcdVersion: string
  /** The settings that point a service at both. */
  env: Record<string, string>
  keys: number
}

export async function startCluster (t: Teardown, contents: Iterable<Entry> = keyspace()): Promise<Cluster> {
  const etcd = await startEtcd(t)
  const { version } = await etcd.client.maintenance.status()
  const keys = await fill(etcd, [...contents])
  return {
    etcd,
    etcdVersion: version,
    env: { ...etcd.env, KAFSCALE_MCP_BROKER_METRICS_URL: await serveBrokerPage(t) },
    keys,
  }
}

async function fill ({ client }: Etcd, entries: readonly Entry[]): Promise<number> {
  const leases = new Map<string, string>()
  for (const session of new Set(entries.map(entry => entry.session))) {
    if (session !== undefined) leases.set(session, (await client.leaseClient.leaseGrant({ TTL: LEASE_TTL_SECONDS })).ID)
  }
  for (let from = 0, to = 0; from < entries.length; from = to) {
    let bytes = 0
    do bytes += entries[to++]?.value.length ?? 0
    while (to < entries.length && to - from < MAX_TXN_OPS && bytes + (entries[to]?.value.length ?? 0) <= MAX_TXN_BYTES)
    const success = entries.slice(from, to).map(({ key, value, session = '' }) =>
      ({ request_put: { key: Buffer.from(key), value, lease: leases.get(session) ?? '0' } }))
    await client.kv.txn({ compare: [], success, failure: [] })
  }
  return entries.length
}

async function serveBrokerPage (t: Teardown): Promise<string> {
  const page = readFileSync(join(import.meta.dirname, 'broker-page.txt'))
  const server = createServer((_, response) =>
    response.setHeader('content-type', 'text/plain; version=0.0.4').end(page)
  )
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`
}

/**
 * Writes to etcd at a steady rate, one key at a time like brokers.
 * @returns a function that stops the writing, waits for pending writes and resolves with the rate reached, in writes/s
 */
export function startWriting ({ client }: Etcd, perSecond: number): () => Promise<number> {
  const entries = progress()
  const startMs = performance.now()
  const pending = new Set<Promise<void>>()
  let written = 0
  const timer = setInterval(() => {
    for (
      let due = (performance.now() - startMs) / 1_000 * perSecond - written;
      due >= 1 && pending.size < MAX_IN_FLIGHT;
      due--
    ) {
      const { key, value } = entries.next().value as Entry
      const put = client.kv.put({ key: Buffer.from(key), value }).then(() => { pending.delete(put) })
      pending.add(put)
      written++
    }
  }, PACE_MS)
  return async () => {
    clearInterval(timer)
    await Promise.all(pending)
    return written / (performance.now() - startMs) * 1_000
  }
}
