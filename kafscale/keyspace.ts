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

/**
 * A committed offset whose key can be read as several groups and topics, because names may contain slashes. Without
 * candidates, it can be read in too many ways.
 */
export interface AmbiguousOffset { kind: 'ambiguous-offset', candidates: readonly Candidate[], partition: number }
export interface Candidate { group: string, topic: string }

export const SNAPSHOT = `${PREFIX}metadata/snapshot`
const TOPICS = `${PREFIX}topics/`
const CONSUMERS = `${PREFIX}consumers/`
const PARTITION_LEASES = `${PREFIX}partition-leases/`
const GROUP_LEASES = `${PREFIX}group-leases/`

const partitionNumber = /^(?:0|[1-9][0-9]{0,9})$/
const MAX_PARTITION = 2 ** 31 - 1

/**
 * Parses an etcd key; `undefined` when it matches no known pattern.
 *
 * Brokers validate neither topic names nor group ids, so both may contain slashes. Keys are parsed from both ends. Only
 * that of a committed offset can be ambiguous, if `/offsets/` occurs in it more than once.
 */
export function parseKey (key: string): Key | AmbiguousOffset | undefined {
  if (key.startsWith(CONSUMERS)) return parseConsumerKey(key.slice(CONSUMERS.length))
  if (key.startsWith(TOPICS)) return parseTopicKey(key.slice(TOPICS.length))
  if (key.startsWith(PARTITION_LEASES)) return topicPartition('partition-lease', key.slice(PARTITION_LEASES.length))
  if (key.startsWith(GROUP_LEASES)) {
    const group = key.slice(GROUP_LEASES.length)
    return group === '' ? undefined : { kind: 'group-lease', group }
  }
  return key === SNAPSHOT ? { kind: 'snapshot' } : undefined
}

const METADATA = '/metadata'
const OFFSETS = '/offsets/'
/** More readings of one key are not considered, because the work would grow with the square of its length. */
const MAX_CANDIDATES = 16

function parseConsumerKey (rest: string): Key | AmbiguousOffset | undefined {
  if (rest.endsWith(METADATA)) {
    const group = rest.slice(0, -METADATA.length)
    return group === '' ? undefined : { kind: 'group-metadata', group }
  }
  const slash = rest.lastIndexOf('/')
  const partition = parsePartition(rest.slice(slash + 1))
  if (slash < 1 || partition === undefined) return undefined
  const [candidate, ...others] = candidatesOf(rest.slice(0, slash))
  if (!candidate) return undefined
  if (others.length === 0) return { kind: 'committed-offset', ...candidate, partition }
  const candidates = others.length < MAX_CANDIDATES ? [candidate, ...others] : []
  return { kind: 'ambiguous-offset', candidates, partition }
}

/** Every way to read `{group}/offsets/{topic}`, but at most one more than are considered. */
function candidatesOf (path: string): Candidate[] {
  const found: Candidate[] = []
  let at = 0
  while ((at = path.indexOf(OFFSETS, at + 1)) !== -1 && found.length <= MAX_CANDIDATES) {
    const topic = path.slice(at + OFFSETS.length)
    if (topic !== '') found.push({ group: path.slice(0, at), topic })
  }
  return found
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
