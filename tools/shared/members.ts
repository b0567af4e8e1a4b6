import { InvalidArgument } from '../../errors.ts'
import type { GroupView } from '../../kafscale/mirror.ts'
import type { GroupMember } from '../../kafscale/records.ts'
import type { Host } from '../tool.ts'
import { cut } from './schema.ts'

/** For members whose stored session timeout is 0. */
const DEFAULT_SESSION_TIMEOUT_MS = 30_000

/** How far the clock of a broker may be ahead. */
const MAX_AHEAD_MS = 24 * 60 * 60 * 1000

/**
 * Milliseconds from an instant to the time at which the answer was observed, at least 0; `null` if the instant is
 * unknown or lies so far ahead that no age can be told.
 */
export function ageMs (instantMs: number | null, observedAtMs: number): number | null {
  return instantMs === null || instantMs > observedAtMs + MAX_AHEAD_MS ? null : Math.max(0, observedAtMs - instantMs)
}

/** The age of a member's last heartbeat, and whether it missed its session timeout. */
export interface Heartbeat { ageMs: number | null, stale: boolean }

/**
 * Judges heartbeats at the time at which the answer was observed. Nobody could store one while etcd was away, so for as
 * long as that may be the only reason why a member missed its session timeout, its age leaves this time out.
 */
export function heartbeatsAt ({ metadata }: Host): (member: GroupMember) => Heartbeat {
  const observedAtMs = metadata.observedAt.getTime()
  return ({ heartbeatAtMs, sessionTimeoutMs }) => {
    const age = ageMs(heartbeatAtMs, observedAtMs)
    if (age === null || heartbeatAtMs === null) return { ageMs: null, stale: true }
    const timeoutMs = sessionTimeoutMs || DEFAULT_SESSION_TIMEOUT_MS
    const storableMs = age - metadata.awayMs(heartbeatAtMs, observedAtMs)
    if (storableMs > timeoutMs) return { ageMs: age, stale: true }
    return { ageMs: Math.max(0, storableMs), stale: false } // outages overlap if the clock was set back
  }
}

/** The stored state; `empty` for a group with only committed offsets, `null` when the metadata can't be decoded. */
function stateOf ({ metadata }: GroupView): string | null {
  return metadata === null ? null : metadata?.state ?? 'empty'
}

/** The states that KafScale knows. */
export const STATES = ['stable', 'preparing_rebalance', 'completing_rebalance', 'empty', 'dead']

/** A state without what its spellings differ in: `PreparingRebalance` in Kafka is `preparing_rebalance` in KafScale. */
const spelledAlike = (state: string) => state.toLowerCase().replace(/[_\-\s]/g, '')

/**
 * Selects the groups in a state, in any spelling.
 * @param groups in whose states it may be, besides those that are known
 * @throws {InvalidArgument} for a state that is neither known nor that of a group
 */
export function inState (state: string, groups: readonly GroupView[]): (group: GroupView) => boolean {
  const wanted = spelledAlike(state)
  const matches = (group: GroupView) => {
    const stored = stateOf(group)
    return stored !== null && spelledAlike(stored) === wanted
  }
  if (!STATES.some(known => spelledAlike(known) === wanted) && !groups.some(matches)) {
    throw new InvalidArgument(`"state" must be one of ${STATES.join(', ')}`)
  }
  return matches
}

/** The state of a group as fields of an answer; all `null` when its metadata can't be decoded. */
export function groupState (
  group: GroupView,
  heartbeatOf: (member: GroupMember) => Heartbeat
): { state: string | null, stale: boolean | null, protocol_type: string | null } {
  const { metadata } = group
  if (metadata === null) return { state: null, stale: null, protocol_type: null }
  if (metadata === undefined) return { state: 'empty', stale: false, protocol_type: '' }
  const members = [...metadata.members.values()]
  return {
    state: cut(metadata.state),
    stale: members.length > 0 && members.every(member => heartbeatOf(member).stale),
    protocol_type: cut(metadata.protocolType),
  }
}
