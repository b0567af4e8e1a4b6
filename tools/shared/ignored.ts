import { Type } from '@sinclair/typebox'
import type { MirrorView } from '../../kafscale/mirror.ts'
import { integer, means } from './schema.ts'

/** In answers that would be different if the keys were understood. */
export const ignored = {
  ignored_keys: means(
    Type.Optional(integer),
    'Committed offsets that may belong here but are left out: names with `/offsets/` make their keys ambiguous, and ' +
      'the topics in the snapshot do not settle it; absent if there are none'
  ),
}

/** How many committed offsets may be those of a group, or on a topic, but cannot be attributed. */
export function ignoredKeys (
  mirror: MirrorView,
  filter: { group?: string | undefined, topic?: string | undefined } = {}
): number {
  return mirror.unattributed.filter(({ candidates }) => candidates.some(({ group, topic }) =>
    group === (filter.group ?? group) && topic === (filter.topic ?? topic))).length
}

/** The same as fields of an answer. */
export function ignoredJson (...of: Parameters<typeof ignoredKeys>): { ignored_keys?: number } {
  const count = ignoredKeys(...of)
  return count === 0 ? {} : { ignored_keys: count }
}
