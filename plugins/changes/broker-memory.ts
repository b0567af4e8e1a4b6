import type { Change } from './change.ts'
import type { Parts } from './parts.ts'
import { differencesBetween } from './target.ts'

const TIMEOUT_MS = 5_000

/** The changes of what a broker keeps in memory and writes as a whole: a failed write is repeated with the next one. */
const KEPT_IN_MEMORY: ReadonlySet<string> = new Set(['create_topic', 'delete_topic', 'create_partitions'])

/**
 * Whether the broker that a change was sent to knows nothing of it. Then it cannot take effect any more, provided that
 * the request has had time to end. `false` if that is not known.
 */
export async function hasForgotten (parts: Parts, change: Change): Promise<boolean> {
  const { mirror, state } = parts.metadata
  const address = change.execution?.broker
  if (!address || !KEPT_IN_MEMORY.has(change.tool) || !mirror || state !== 'synced') return false
  const limit = AbortSignal.timeout(TIMEOUT_MS)
  try {
    const session = await parts.kafkaAdmin.connect(limit, address)
    try {
      if (session.address !== address) return false
      const view = await session.view(limit)
      return view.clusterId === change.cluster_id && differencesBetween(view, mirror).length === 0
    } finally {
      await session.close().catch(() => {})
    }
  } catch {
    return false // it does not answer, so it may have the request yet
  }
}
