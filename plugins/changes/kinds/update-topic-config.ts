import { ChangeImpossible } from '../../../errors.ts'
import { parseInt64, toJson } from '../../../kafscale/int64.ts'
import { quote } from '../../../lib/printable.ts'
import type { Undo } from '../change.ts'
import {
  clusterFact, configFacts, isSameCluster, listedTopic, observedDiff, type Setting, SETTINGS, settingsOf, topicFacts,
  visibilityWarnings, when
} from './cluster.ts'
import { topicEffects } from './effects.ts'
import { defineKind } from './kind.ts'
import { topicFieldsNow } from './partitions.ts'

type Value = number | string
type Values = Partial<Record<Setting, Value>>
interface Arguments { topic: string, config: Values }

export default defineKind<Arguments>({
  tool: 'update_topic_config',
  resource: ({ topic }) => ({ kind: 'topic', name: topic }),

  plan ({ topic: name, config: asked }, context) {
    const { cluster } = context
    const topic = listedTopic(cluster, name)
    const config = checkedConfig(asked)
    if (topic.config === null) {
      throw new ChangeImpossible(
        `the stored settings of the topic ${quote(name)} cannot be decoded, so nobody knows what would change`
      )
    }
    const settings = SETTINGS.filter(setting => config[setting] !== undefined)
    const stored = settingsOf(topic)
    const diff = settings.map(setting => ({ field: setting, before: stored[setting], after: config[setting] }))
      .filter(({ before, after }) => before !== after)
    if (diff.length === 0) {
      throw new ChangeImpossible(`the topic ${quote(name)} has these settings already`)
    }
    return {
      arguments: { topic: name, config },
      preconditions: [clusterFact(cluster), ...topicFacts(cluster, name), ...configFacts(topic, settings)],
      diff,
      effects: topicEffects(name, context),
      warnings: [
        'KafScale stores and reports these settings, but does not enforce them: no broker deletes records or sizes ' +
          'segments by them.',
        ...settings.filter(setting => setting !== 'segment.bytes' && config[setting] === 0).map(setting =>
          `${setting} 0 is stored, but brokers report it as -1, which means no limit.`),
        ...when(
          topic.config === undefined,
          'The topic has no stored settings yet: the broker stores the others too, retention as -1 and segment.bytes ' +
            'as 0, and reports them as its defaults.'
        ),
        'A broker writes all settings of the topic at once: another change of them at the same time may be lost, or ' +
          'overwrite this one, although both report success.',
        ...visibilityWarnings(context),
      ],
      ...undoOf(name, config, stored),
    }
  },

  call: ({ topic, config }) => ({
    api: 'alter_configs',
    topic,
    config: Object.fromEntries(Object.entries(config).map(([setting, value]) => [setting, String(value)])),
  }),

  observe (change, cluster) {
    const { topic, config } = change.arguments as unknown as Arguments
    const stored = settingsOf(cluster.topic(topic))
    const isVisible = isSameCluster(change, cluster) && cluster.topic(topic)?.info !== undefined &&
      SETTINGS.every(setting => config[setting] === undefined || config[setting] === stored[setting])
    return { visible: isVisible ? 'yes' : 'no', diff: observedDiff(change, topicFieldsNow(cluster, topic)) }
  },
})

/** Lowest values. `segment.bytes` has none that means the default. */
const LOWEST: Record<Setting, number> = { 'retention.ms': -1, 'retention.bytes': -1, 'segment.bytes': 1 }

/** The settings with their exact values. @throws {ChangeImpossible} for what KafScale does not have or accept */
function checkedConfig (asked: Readonly<Record<string, unknown>>): Values {
  const given = Object.entries(asked)
  if (given.length === 0) throw new ChangeImpossible(`"config" is empty: name one of ${SETTINGS.join(', ')}`)
  return Object.fromEntries(given.map(([setting, value]) => {
    if (!isSetting(setting)) {
      throw new ChangeImpossible(`KafScale has no setting ${quote(setting)}: it has ${SETTINGS.join(', ')}`)
    }
    return [setting, exactValue(setting, value)]
  }))
}

function exactValue (setting: Setting, value: unknown): Value {
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new ChangeImpossible(`${setting} has too many digits for a JSON number: send it as a string of digits`)
  }
  const exact = Number.isSafeInteger(value) || typeof value === 'string' ? parseInt64(String(value)) : undefined
  if (exact !== undefined && exact >= LOWEST[setting]) return toJson(exact)
  const lowest = setting === 'segment.bytes' ? 'above 0' : 'of -1 (no limit) or more'
  throw new ChangeImpossible(`${setting} must be an integer ${lowest} within 64 bits, not ${quote(String(value))}`)
}

function isSetting (name: string): name is Setting {
  return (SETTINGS as readonly string[]).includes(name)
}

/**
 * Sets back what was stored. Without stored settings, brokers report a retention of −1, which can be stored, and for
 * `segment.bytes` a default that cannot.
 */
function undoOf (topic: string, config: Values, stored: Record<Setting, Value | null>) {
  const settings = SETTINGS.filter(setting => config[setting] !== undefined)
  const before = new Map(settings.flatMap(setting => {
    const value = stored[setting] ?? (setting === 'segment.bytes' ? 0 : -1)
    return BigInt(value) < LOWEST[setting] ? [] : [[setting, value] as const]
  }))
  const lost = settings.filter(setting => !before.has(setting))
  const back = Object.fromEntries([...before].filter(([setting, value]) => value !== config[setting]))
  const undo: Undo | null = Object.keys(back).length === 0
    ? null
    : { tool: 'update_topic_config', arguments: { topic, config: back } }
  const note = undo ? '' : 'Brokers report the same settings as before.'
  return {
    undo,
    undo_note: lost.length === 0
      ? note
      : `${lost.join(' and ')} cannot be set back, because brokers accept no value that stands for what is stored now.`,
  }
}
