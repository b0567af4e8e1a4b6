import type { Mirror } from '../../kafscale/mirror.ts'
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
  // Behind any other address, such as that of a Service, another broker may answer now.
  if (!mirror.snapshot?.brokers.some(({ host, port }) => `${host}:${port}` === address)) return false
  const limit = AbortSignal.timeout(TIMEOUT_MS)
  try {
    const session = await parts.kafkaAdmin.connect(limit, address)
    try {
      if (session.address !== address) return false
      const view = await session.view(limit)
      return view.clusterId === change.cluster_id && differencesBetween(view, mirror).length === 0 &&
        isUntouched(change, mirror)
    } finally {
      await session.close().catch(() => {})
    }
  } catch {
    return false // it does not answer, so it may have the request yet
  }
}

/**
 * Whether nothing can have happened to a topic that was to be deleted. Clients create a deleted topic again within
 * milliseconds, and it looks as before: only its stored settings do not come back.
 */
function isUntouched ({ tool, preconditions }: Change, mirror: Mirror): boolean {
  if (tool !== 'delete_topic') return true
  const { subject, value = null } = preconditions.find(({ fact }) => fact === 'config_mod_revision') ?? { subject: '' }
  return value !== null && mirror.topic(subject)?.configModRevision === value
}
