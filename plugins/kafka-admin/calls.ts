/** The requests that change the cluster, and what a broker's answer to one means. */
import {
  alterConfigsV1,
  ConfigResourceTypes,
  type Connection,
  createPartitionsV3,
  createTopicsV2,
  deleteGroupsV2,
  deleteTopicsV2,
  protocolErrorsCodesById,
  ResponseError,
} from '@platformatic/kafka'
import { escapeUnprintable } from '../../lib/printable.ts'

/** A request to a broker that changes the cluster. */
export type AdminCall =
  | { api: 'create_topic', topic: string, partitions: number, replicationFactor: number }
  | { api: 'delete_topic', topic: string }
  | { api: 'create_partitions', topic: string, partitions: number }
  | { api: 'alter_configs', topic: string, config: Readonly<Record<string, string>> }
  | { api: 'delete_group', groupId: string }

/** What a broker answered. */
export type AdminResult =
  /** The named item is in the response, with code 0. */
  | { kind: 'ok' }
  /** The named item has a code other than 0 and −1, or the broker lacks the version of the API. Nothing was changed. */
  | { kind: 'refused', code: number, name: string, message: string | null }
  /** The response does not contain the named item, which KafScale sends for what it did not do. */
  | { kind: 'missing' }
  /** A timeout, a lost connection or code −1 after the request was sent: it may take effect, even much later. */
  | { kind: 'unknown', reason: string }

/** An item of a response. */
interface Item { name: string, code: number, message: string | null }

const UNKNOWN_SERVER_ERROR = -1
const UNSUPPORTED_VERSION = 35
const MAX_MESSAGE_LENGTH = 200

/** Brokers ignore it: they answer when they are done. */
const BROKER_TIMEOUT_MS = 15_000

/** The API that carries out a call, in the newest version that KafScale carries out. */
export function apiOf (call: AdminCall): { key: number, version: number } {
  return APIS[call.api]
}

const APIS = {
  create_topic: createTopicsV2.api,
  delete_topic: deleteTopicsV2.api,
  create_partitions: createPartitionsV3.api,
  alter_configs: alterConfigsV1.api,
  delete_group: deleteGroupsV2.api,
} as const

/** Whether a broker can check a call without doing it. */
export function canValidate ({ api }: AdminCall): boolean {
  return api !== 'delete_topic' && api !== 'delete_group'
}

/**
 * Sends a call once.
 * @throws {Error} without a readable answer
 */
export async function ask (connection: Connection, call: AdminCall, validateOnly: boolean): Promise<AdminResult> {
  const name = call.api === 'delete_group' ? call.groupId : call.topic
  const items = await itemsOf(connection, call, validateOnly)
  const [item, ...others] = items.filter(item => item.name === name)
  if (!item) return { kind: 'missing' }
  if (others.some(({ code }) => code !== item.code)) {
    return { kind: 'unknown', reason: 'the broker answered twice for the same item, with different codes' }
  }
  const { code } = item
  if (code === 0) return { kind: 'ok' }
  const message = item.message === null ? null : escapeUnprintable(item.message).slice(0, MAX_MESSAGE_LENGTH)
  return code === UNKNOWN_SERVER_ERROR
    ? { kind: 'unknown', reason: `the broker answered UNKNOWN_SERVER_ERROR${message ? `: ${message}` : ''}` }
    : { kind: 'refused', code, name: nameOf(code), message }
}

/** What a call comes to if the broker does not offer the version of its API: nothing is sent. */
export function unsupported (call: AdminCall): AdminResult {
  const { version } = apiOf(call)
  return {
    kind: 'refused',
    code: UNSUPPORTED_VERSION,
    name: nameOf(UNSUPPORTED_VERSION),
    message: `the broker does not offer version ${version} of the API, so nothing was sent`,
  }
}

function nameOf (code: number): string {
  return (protocolErrorsCodesById as Readonly<Record<number, string>>)[code] ?? `error ${code}`
}

async function itemsOf (connection: Connection, call: AdminCall, validateOnly: boolean): Promise<Item[]> {
  switch (call.api) {
    case 'create_topic': {
      const { topic: name, partitions: numPartitions, replicationFactor } = call
      const topic = { name, numPartitions, replicationFactor, assignments: [], configs: [] }
      const { topics } = await answer(APIS.create_topic.async(connection, [topic], BROKER_TIMEOUT_MS, validateOnly))
      return topics.map(({ name, errorCode: code, errorMessage }) => ({ name, code, message: errorMessage ?? null }))
    }
    case 'delete_topic': {
      const { responses } =
        await answer(APIS.delete_topic.async(connection, [{ name: call.topic }], BROKER_TIMEOUT_MS))
      return responses.map(({ name, errorCode: code }) => ({ name: name ?? '', code, message: null }))
    }
    case 'create_partitions': {
      const topic = { name: call.topic, count: call.partitions, assignments: [] }
      const { results } =
        await answer(APIS.create_partitions.async(connection, [topic], BROKER_TIMEOUT_MS, validateOnly))
      return results.map(({ name, errorCode: code, errorMessage }) => ({ name, code, message: errorMessage ?? null }))
    }
    case 'alter_configs': {
      const resource = {
        resourceType: ConfigResourceTypes.TOPIC,
        resourceName: call.topic,
        configs: Object.entries(call.config).map(([name, value]) => ({ name, value })),
      }
      const { responses } = await answer(APIS.alter_configs.async(connection, [resource], validateOnly))
      return responses
        .filter(({ resourceType }) => resourceType === ConfigResourceTypes.TOPIC)
        .map(({ resourceName: name, errorCode: code, errorMessage }) => ({ name, code, message: errorMessage ?? null }))
    }
    case 'delete_group': {
      const { results } = await answer(APIS.delete_group.async(connection, [call.groupId]))
      return results.map(({ groupId: name, errorCode: code }) => ({ name, code, message: null }))
    }
  }
}

/** A response, also one with error codes, for which the client rejects. */
export async function answer<T> (response: Promise<T>): Promise<T> {
  return await response.catch((error: unknown) => {
    if (error instanceof ResponseError) return error['response'] as T
    throw error
  })
}
