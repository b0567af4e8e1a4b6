import { ChangeImpossible } from '../../../errors.ts'
import type { MirrorView } from '../../../kafscale/mirror.ts'
import { quote } from '../../../lib/printable.ts'
import {
  clusterFact, CONCURRENT_CHANGES, configFacts, isSameCluster, type ListedTopic, listedTopic, observedDiff,
  OPERATOR_RESTORES, SETTINGS, settingsOf, topicFacts, visibilityWarnings
} from './cluster.ts'
import { topicEffects } from './effects.ts'
import { defineKind, type PlanContext } from './kind.ts'
import { collision, isTopicName } from './names.ts'
import { topicFieldsNow } from './partitions.ts'

interface Arguments { topic: string }

export default defineKind<Arguments>({
  tool: 'delete_topic',
  resource: ({ topic }) => ({ kind: 'topic', name: topic }),

  plan ({ topic: name }, context) {
    const { cluster } = context
    const topic = listedTopic(cluster, name)
    checkInside(cluster, name)
    const partitions = topic.info.partitions.length
    const settings = settingsOf(topic)
    return {
      arguments: { topic: name },
      preconditions: [
        clusterFact(cluster),
        ...topicFacts(cluster, name),
        { fact: 'partitions', subject: name, value: partitions },
        ...configFacts(topic, SETTINGS),
      ],
      diff: [
        { field: 'exists', before: true, after: false },
        { field: 'partitions', before: partitions, after: 0 },
        ...SETTINGS.filter(setting => settings[setting] !== null)
          .map(setting => ({ field: setting, before: settings[setting], after: null })),
      ],
      effects: topicEffects(name, context),
      warnings: [
        'The records stay in S3, and come back when a topic of this name is created again.',
        'The committed offsets of all groups on the topic are deleted.',
        'Producers with an open log keep writing and recreate next_offset. Unless KAFSCALE_AUTO_CREATE_TOPICS is ' +
          'false, any client that asks for the topic creates it again: stop its clients first.',
        OPERATOR_RESTORES,
        CONCURRENT_CHANGES,
        ...visibilityWarnings(context),
      ],
      ...undoOf(topic, context),
    }
  },

  call: ({ topic }) => ({ api: 'delete_topic', topic }),

  observe (change, cluster) {
    const { topic } = change.arguments as unknown as Arguments
    const isVisible = isSameCluster(change, cluster) && !cluster.topic(topic)?.info
    return { visible: isVisible ? 'yes' : 'no', diff: observedDiff(change, topicFieldsNow(cluster, topic)) }
  },
})

/** @throws {ChangeImpossible} if brokers would delete keys of other topics: they delete all keys below the name */
function checkInside ({ topics }: MirrorView, name: string): void {
  const inside = topics.filter(topic => topic.name.startsWith(`${name}/`)).length
  if (inside === 0) return
  throw new ChangeImpossible(
    `brokers would also delete the stored settings, the log end offsets and the commits of ${inside} other ` +
    `${inside === 1 ? 'topic' : 'topics'}, with a name that begins with ${quote(`${name}/`)}: delete these first`
  )
}

/** The topic can be created again, unless it breaks the rules for new topics. */
function undoOf ({ name, config, info }: ListedTopic, { cluster, maxPartitions }: PlanContext) {
  const { length: partitions } = info.partitions
  const isCreatable = isTopicName(name) && collision(name, cluster) === undefined && partitions >= 1 &&
    partitions <= maxPartitions && (cluster.snapshot?.brokers.length ?? 0) > 0
  if (!isCreatable) {
    return { undo: null, undo_note: 'create_topic would not accept a topic with this name and number of partitions.' }
  }
  const lost = config === undefined ? 'its committed offsets' : 'its committed offsets and its stored settings'
  return {
    undo: { tool: 'create_topic' as const, arguments: { topic: name, partitions } },
    undo_note: `It brings back the records in S3, but not ${lost}.`,
  }
}
