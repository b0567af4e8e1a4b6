import type { GroupView } from '../../kafscale/mirror.ts'
import type { GroupMember } from '../../kafscale/records.ts'

/** What a session timeout of 0 stands for. */
const DEFAULT_SESSION_TIMEOUT_MS = 30_000

/** Milliseconds since an instant, at the moment that the answer shows; 0 for one that lies after it. */
export function ageMs (instantMs: number | null, observedAtMs: number): number | null {
  return instantMs === null ? null : Math.max(0, observedAtMs - instantMs)
}

/** Whether a member's last heartbeat is older than its session timeout, or there is none. */
export function isStale ({ heartbeatAtMs, sessionTimeoutMs }: GroupMember, observedAtMs: number): boolean {
  const age = ageMs(heartbeatAtMs, observedAtMs)
  return age === null || age > (sessionTimeoutMs || DEFAULT_SESSION_TIMEOUT_MS)
}

/** The stored word; `empty` for a group of committed offsets alone, `null` when its metadata can't be decoded. */
export function stateOf ({ metadata }: GroupView): string | null {
  return metadata === null ? null : metadata?.state ?? 'empty'
}

/** What is known of a group whether it has members, only committed offsets (`empty`), or undecodable metadata (`null`). */
export function groupState (
  group: GroupView,
  observedAtMs: number
): { state: string | null, stale: boolean | null, protocol_type: string | null } {
  const { metadata } = group
  if (metadata === null) return { state: null, stale: null, protocol_type: null }
  if (metadata === undefined) return { state: stateOf(group), stale: false, protocol_type: '' }
  const members = [...metadata.members.values()]
  return {
    state: stateOf(group),
    stale: members.length > 0 && members.every(member => isStale(member, observedAtMs)),
    protocol_type: metadata.protocolType,
  }
}
