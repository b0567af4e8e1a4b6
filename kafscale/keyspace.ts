/** KafScale stores everything under this prefix. One etcd holds one cluster. */
export const PREFIX = '/kafscale/'

/** What an etcd key stands for. */
export type Key =
  | { kind: 'snapshot' }
  | { kind: 'topic-config', topic: string }
  | { kind: 'partition-state', topic: string, partition: number }
  | { kind: 'next-offset', topic: string, partition: number }
  | { kind: 'group-metadata', group: string }
  | { kind: 'committed-offset', group: string, topic: string, partition: number }
  | { kind: 'partition-lease', topic: string, partition: number }
  | { kind: 'group-lease', group: string }

const SNAPSHOT = `${PREFIX}metadata/snapshot`
const TOPICS = `${PREFIX}topics/`
const CONSUMERS = `${PREFIX}consumers/`
const PARTITION_LEASES = `${PREFIX}partition-leases/`
const GROUP_LEASES = `${PREFIX}group-leases/`

const partitionNumber = /^(?:0|[1-9][0-9]{0,9})$/
const MAX_PARTITION = 2 ** 31 - 1

/**
 * Parses an etcd key; `undefined` when it matches no known pattern.
 *
 * Brokers validate neither topic names nor group ids, so a topic name may contain slashes: keys of topics are parsed
 * from the end. The key of a committed offset must have exactly four parts, as in KafScale's own parser.
 */
export function parseKey (key: string): Key | undefined {
  if (key.startsWith(CONSUMERS)) return parseConsumerKey(key.slice(CONSUMERS.length))
  if (key.startsWith(TOPICS)) return parseTopicKey(key.slice(TOPICS.length))
  if (key.startsWith(PARTITION_LEASES)) return topicPartition('partition-lease', key.slice(PARTITION_LEASES.length))
  if (key.startsWith(GROUP_LEASES)) {
    const group = key.slice(GROUP_LEASES.length)
    return group === '' ? undefined : { kind: 'group-lease', group }
  }
  return key === SNAPSHOT ? { kind: 'snapshot' } : undefined
}

function parseConsumerKey (rest: string): Key | undefined {
  const [group, kind, topic, text, ...more] = rest.split('/')
  if (!group) return undefined
  if (kind === 'metadata' && topic === undefined) return { kind: 'group-metadata', group }
  if (kind !== 'offsets' || !topic || text === undefined || more.length > 0) return undefined
  const partition = parsePartition(text)
  return partition === undefined ? undefined : { kind: 'committed-offset', group, topic, partition }
}

function parseTopicKey (rest: string): Key | undefined {
  if (rest.endsWith('/next_offset')) return partitionOf('next-offset', rest.slice(0, -'/next_offset'.length))
  if (rest.endsWith('/config')) {
    const topic = rest.slice(0, -'/config'.length)
    return topic === '' ? undefined : { kind: 'topic-config', topic }
  }
  return partitionOf('partition-state', rest)
}

function partitionOf (kind: 'next-offset' | 'partition-state', path: string): Key | undefined {
  const found = topicPartition(kind, path)
  if (!found?.topic.endsWith('/partitions')) return undefined
  const topic = found.topic.slice(0, -'/partitions'.length)
  return topic === '' ? undefined : { ...found, topic }
}

function topicPartition<Kind extends string> (kind: Kind, path: string) {
  const slash = path.lastIndexOf('/')
  const partition = parsePartition(path.slice(slash + 1))
  return slash < 1 || partition === undefined ? undefined : { kind, topic: path.slice(0, slash), partition }
}

function parsePartition (text: string): number | undefined {
  if (!partitionNumber.test(text)) return undefined
  const partition = Number(text)
  return partition > MAX_PARTITION ? undefined : partition
}
