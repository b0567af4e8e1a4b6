/** The brokers' admin API over TCP, which changes the simulated cluster. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { parseInt64 } from '../kafscale/int64.ts'
import type { TopicConfig } from '../kafscale/records.ts'
import { Refusal, type SimulatedCluster } from './cluster.ts'
import {
  ADVERTISED,
  apiVersions,
  type Body,
  emptySuccess,
  type Entry,
  frames,
  type Item,
  itemized,
  metadata,
  readRequest,
  type Request,
  type Response,
  writeFrame,
} from './kafka-protocol.ts'

const CODES = { exists: 36, unknown: 3 } as const
const [INVALID_TOPIC, INVALID_PARTITIONS, INVALID_CONFIG, INVALID_REQUEST, NO_GROUP] = [17, 37, 40, 42, 69]
/** A resource of AlterConfigs. */
const TOPIC = 2

const SETTINGS: Readonly<Record<string, keyof TopicConfig>> = {
  'retention.ms': 'retentionMs',
  'retention.bytes': 'retentionBytes',
  'segment.bytes': 'segmentBytes',
}

/**
 * Serves every broker on a free loopback port until the process ends.
 * @returns the addresses, as host:port
 */
export async function serveBrokers (cluster: SimulatedCluster): Promise<string[]> {
  return await Promise.all(cluster.brokers.map(async () => {
    const server = createServer(socket => { void serve(cluster, socket) }).listen(0, '127.0.0.1').unref()
    await once(server, 'listening')
    return `127.0.0.1:${(server.address() as AddressInfo).port}`
  }))
}

async function serve (cluster: SimulatedCluster, socket: Socket): Promise<void> {
  try {
    for await (const frame of frames(socket)) {
      const request = readRequest(frame)
      const response = answer(cluster, request)
      if (!response) break
      socket.write(writeFrame(request, response))
    }
  } catch {
    // The client closed the connection, or the request cannot be read.
  } finally {
    socket.destroy()
  }
}

/** @returns `undefined` to close the connection */
function answer (cluster: SimulatedCluster, request: Request): Response | undefined {
  const { api, body } = request
  if (api === undefined || body === null) return emptySuccess(request)
  switch (body.api) {
    case 'ApiVersions': return apiVersions(request, ADVERTISED)
    case 'Metadata': return metadata(request, metadataOf(cluster, body.topics?.flatMap(({ name }) => name ?? [])))
    case 'CreateTopics':
    case 'DeleteTopics':
    case 'CreatePartitions':
    case 'AlterConfigs':
    case 'DeleteGroups':
      return itemized({ ...request, api }, act(cluster, body))
    default: return undefined
  }
}

/** @param named all topics, unless some are named. Unlike KafScale's, these brokers do not create them. */
function metadataOf ({ snapshot }: SimulatedCluster, named: readonly string[] = []) {
  const { brokers, clusterId, topics } = snapshot
  const id = '00000000-0000-0000-0000-000000000000'
  const known = topics.map(({ name, partitions }) => ({
    code: 0,
    name,
    id,
    internal: false,
    partitions: partitions.map(({ partition, leaderId, leaderEpoch, replicaNodes, isrNodes, offlineReplicas }) => ({
      code: 0,
      partition,
      leader: leaderId,
      leaderEpoch,
      replicas: replicaNodes,
      isr: isrNodes,
      offline: offlineReplicas,
    })),
  }))
  return {
    brokers: brokers.map(broker => ({ ...broker, rack: null })),
    clusterId,
    controllerId: 0,
    topics: named.length === 0
      ? known
      : named.map(name => known.find(topic => topic.name === name) ??
          { code: CODES.unknown, name, id, internal: false, partitions: [] }),
  }
}

function act (cluster: SimulatedCluster, body: Body): Item[] {
  switch (body.api) {
    case 'CreateTopics':
      return body.topics.map(({ name, partitions, replicationFactor }) => item(name, INVALID_TOPIC, () => {
        cluster.createTopic(name, partitions, replicationFactor, body.validateOnly)
      }))
    case 'DeleteTopics':
      return body.topics.map(name => item(name, INVALID_TOPIC, () => cluster.deleteTopic(name)))
    case 'CreatePartitions':
      return body.topics.map(({ name, count }) => item(name, INVALID_PARTITIONS, () => {
        cluster.createPartitions(name, count, body.validateOnly)
      }))
    case 'AlterConfigs':
      return body.resources.map(({ type, name, configs }) => {
        if (type !== TOPIC) return { name, type, code: INVALID_REQUEST }
        const changes = configOf(configs)
        if (!changes) return { name, type, code: INVALID_CONFIG }
        return { ...item(name, INVALID_CONFIG, () => cluster.alterConfig(name, changes, body.validateOnly)), type }
      })
    case 'DeleteGroups':
      return body.groups.map(name => ({ name, code: cluster.deleteGroup(name) ? 0 : NO_GROUP }))
    default: return []
  }
}

function item (name: string, invalid: number, change: () => void): Item {
  try {
    change()
    return { name, code: 0 }
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    return { name, code: error.kind === 'invalid' ? invalid : CODES[error.kind], message: error.message }
  }
}

/** @returns `undefined` if brokers refuse one of the entries */
function configOf (entries: readonly Entry[]): Partial<TopicConfig> | undefined {
  const changes: Record<string, TopicConfig[keyof TopicConfig]> = {}
  for (const { name, value } of entries) {
    const key = SETTINGS[name]
    const number = parseInt64(value ?? '')
    if (key === undefined || number === undefined || number < (key === 'segmentBytes' ? 1 : -1)) return undefined
    changes[key] = number
  }
  return changes
}
