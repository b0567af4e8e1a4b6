import { hash } from 'node:crypto'
import { ChangeImpossible } from '../../../errors.ts'
import { compare, type GroupView, type MirrorView } from '../../../kafscale/mirror.ts'
import type { ConsumerGroup } from '../../../kafscale/records.ts'
import { quote } from '../../../lib/printable.ts'
import type { FactValue } from '../change.ts'
import { clusterFact, isSameCluster, observedDiff, snapshotOf, when } from './cluster.ts'
import { groupEffects } from './effects.ts'
import { defineKind } from './kind.ts'

interface Arguments { group_id: string }

/** Longer lists of members are compared by their digest. */
const MAX_MEMBERS_LENGTH = 4_096

export default defineKind<Arguments>({
  tool: 'delete_group',
  resource: ({ group_id: id }) => ({ kind: 'group', name: id }),

  plan ({ group_id: id }, context) {
    const { cluster } = context
    snapshotOf(cluster)
    const { state, members } = metadataOf(id, cluster.group(id))
    return {
      arguments: { group_id: id },
      preconditions: [
        clusterFact(cluster),
        { fact: 'group_state', subject: id, value: state },
        { fact: 'group_member_count', subject: id, value: members.size },
        { fact: 'group_members', subject: id, value: membersFact([...members.keys()].sort(compare)) },
      ],
      diff: [
        { field: 'state', before: state, after: null },
        ...members.size === 0 ? [] : [{ field: 'members', before: members.size, after: 0 }],
      ],
      effects: groupEffects(id, context),
      warnings: [
        'The committed offsets of the group stay in etcd: only deleting their topics removes them.',
        ...when(
          members.size > 0,
          'A live group comes back within seconds: its members join again, with the old offsets. Stop them first.'
        ),
      ],
      undo: null,
      undo_note: 'A group exists again once a member joins it, with its committed offsets.',
    }
  },

  call: ({ group_id: groupId }) => ({ api: 'delete_group', groupId }),

  observe (change, cluster) {
    const { group_id: id } = change.arguments as unknown as Arguments
    return {
      visible: isSameCluster(change, cluster) && cluster.group(id)?.metadata === undefined ? 'yes' : 'no',
      diff: observedDiff(change, fieldsNow(cluster, id)),
    }
  },
})

/** What brokers delete of a group. @throws {ChangeImpossible} if it has nothing that they could delete */
function metadataOf (id: string, group: GroupView | undefined): ConsumerGroup {
  if (!group) {
    throw new ChangeImpossible(`the group ${quote(id)} does not exist: call list_groups for those that do`)
  }
  if (group.metadata === undefined) {
    throw new ChangeImpossible(
      `the group ${quote(id)} has only committed offsets, and KafScale cannot delete these: brokers answer that the ` +
      'group does not exist. Only deleting the topics removes them'
    )
  }
  if (group.metadata === null) {
    throw new ChangeImpossible(
      `the stored metadata of the group ${quote(id)} cannot be decoded, so nobody knows whether it has members`
    )
  }
  return group.metadata
}

function membersFact (ids: readonly string[]): FactValue {
  const json = JSON.stringify(ids)
  return json.length <= MAX_MEMBERS_LENGTH ? ids : `sha256:${hash('sha256', json)}`
}

function fieldsNow (cluster: MirrorView, id: string): Record<string, unknown> {
  const metadata = cluster.group(id)?.metadata
  return { state: metadata?.state ?? null, members: metadata?.members.size ?? 0 }
}
