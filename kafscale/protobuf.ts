/** Field tags of the protobuf encoding, and those of KafScale's records (package `kafscale.metadata`). */

export const VARINT = 0
export const LENGTH_DELIMITED = 2
export const START_GROUP = 3
export const END_GROUP = 4

/** What precedes a field's value on the wire: the field's number and its wire type in one integer. */
export function tagOf (field: number, wireType: number): number {
  return (field << 3 | wireType) >>> 0
}

export function fieldOf (tag: number): number {
  return tag >>> 3
}

export function wireTypeOf (tag: number): number {
  return tag & 7
}

export const TOPIC_CONFIG = {
  name: tagOf(1, LENGTH_DELIMITED),
  partitions: tagOf(2, VARINT),
  replicationFactor: tagOf(3, VARINT),
  retentionMs: tagOf(4, VARINT),
  retentionBytes: tagOf(5, VARINT),
  segmentBytes: tagOf(6, VARINT),
  createdAt: tagOf(7, LENGTH_DELIMITED),
  config: tagOf(8, LENGTH_DELIMITED),
} as const

export const CONSUMER_GROUP = {
  groupId: tagOf(1, LENGTH_DELIMITED),
  state: tagOf(2, LENGTH_DELIMITED),
  protocolType: tagOf(3, LENGTH_DELIMITED),
  protocol: tagOf(4, LENGTH_DELIMITED),
  leader: tagOf(5, LENGTH_DELIMITED),
  generationId: tagOf(6, VARINT),
  members: tagOf(7, LENGTH_DELIMITED),
  rebalanceTimeoutMs: tagOf(8, VARINT),
} as const

export const GROUP_MEMBER = {
  clientId: tagOf(1, LENGTH_DELIMITED),
  clientHost: tagOf(2, LENGTH_DELIMITED),
  heartbeatAt: tagOf(3, LENGTH_DELIMITED),
  assignments: tagOf(4, LENGTH_DELIMITED),
  subscriptions: tagOf(5, LENGTH_DELIMITED),
  sessionTimeoutMs: tagOf(6, VARINT),
} as const

export const ASSIGNMENT = {
  topic: tagOf(1, LENGTH_DELIMITED),
  /** Brokers pack the partitions; a reader must also accept them one by one. */
  packedPartitions: tagOf(2, LENGTH_DELIMITED),
  partition: tagOf(2, VARINT),
} as const

export const PARTITION_STATE = {
  topic: tagOf(1, LENGTH_DELIMITED),
  partition: tagOf(2, VARINT),
  leaderBroker: tagOf(3, LENGTH_DELIMITED),
} as const

/** An entry of a map field, in any message. */
export const MAP_ENTRY = { key: tagOf(1, LENGTH_DELIMITED), value: tagOf(2, LENGTH_DELIMITED) } as const
