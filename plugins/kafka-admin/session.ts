/** One connection to one broker. */
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { apiVersionsV3, Connection, metadataV12, TimeoutError } from '@platformatic/kafka'
import { BrokerUnreachable } from '../../errors.ts'
import type { ClientTlsFiles, KafkaConfig } from '../config/changes.ts'
import { reveal } from '../config/secret.ts'
import { type AdminCall, type AdminResult, answer, apiOf, ask, canValidate, unsupported } from './calls.ts'

/** A broker's view of the cluster, from its Metadata response. */
export interface BrokerView {
  clusterId: string | null
  brokers: readonly { nodeId: number, host: string, port: number }[]
  /** Topics with the number of their partitions. */
  topics: ReadonlyMap<string, number>
}

/** A connection to one broker. Requests are sent one after the other, and none is ever repeated. */
export interface BrokerSession {
  /** host:port. */
  readonly address: string
  /**
   * Asks for all topics by naming none: a broker creates a topic that is named.
   * @throws {BrokerUnreachable}
   */
  view: (signal: AbortSignal) => Promise<BrokerView>
  /**
   * Asks the broker to check a call without doing it. `undefined` for an API without `validate_only`.
   * @throws {BrokerUnreachable}
   */
  validate: (call: AdminCall, signal: AbortSignal) => Promise<AdminResult | undefined>
  /**
   * Sends a call once, and waits at most 15 s for the answer. Never rejects once anything was sent.
   * @throws {BrokerUnreachable} if the connection was lost before
   */
  send: (call: AdminCall) => Promise<AdminResult>
  close: () => Promise<void>
}

export interface Timeouts { connectMs: number, answerMs: number }

/** Which versions of which API a broker offers. */
type Offered = ReadonlyMap<number, { minVersion: number, maxVersion: number }>

/**
 * Connects to a broker, and asks which APIs it offers.
 * @throws {Error} whose message says why that fails
 */
export async function openSession (
  address: string,
  kafka: KafkaConfig,
  timeouts: Timeouts,
  signal: AbortSignal
): Promise<BrokerSession> {
  const { hostname, port } = new URL(`kafka://${address}`)
  const host = hostname.replace(/^\[|\]$/g, '')
  const connection = new Connection(kafka.clientId, {
    connectTimeout: timeouts.connectMs,
    requestTimeout: timeouts.answerMs,
    maxInflights: 1,
    ...kafka.tls && { tls: readTls(kafka.tls), ...isIP(host) === 0 && { tlsServerName: host } },
    ...kafka.sasl && {
      sasl: {
        mechanism: kafka.sasl.mechanism,
        username: kafka.sasl.username,
        password: reveal(kafka.sasl.password),
      },
    },
  })
  connection.on('error', () => {}) // whoever waits for the connection or an answer receives it
  let refusal: Error | undefined
  connection.on('sasl:handshake', mechanisms => {
    // A broker without SASL answers success without a mechanism. It must not receive the password.
    if (!kafka.sasl || mechanisms.includes(kafka.sasl.mechanism)) return
    refusal = new Error(`it does not offer SASL ${kafka.sasl.mechanism}: unset KAFSCALE_MCP_KAFKA_SASL_MECHANISM`)
    connection.socket.destroy()
  })
  try {
    await unlessAborted(connection, signal, async () => { await connection.connect(host, Number(port)) })
    const { apiKeys } = await unlessAborted(connection, signal, async () =>
      await apiVersionsV3.api.async(connection, 'kafscale-mcp', '1'))
    const offered: Offered = new Map(apiKeys.map(({ apiKey, ...versions }) => [apiKey, versions]))
    if (!offers(offered, metadataV12.api)) throw new Error('it does not offer version 12 of Metadata')
    return sessionOf(address, connection, offered, timeouts)
  } catch (error) {
    connection.socket?.destroy()
    signal.throwIfAborted()
    throw refusal ?? new Error(reasonOf(error))
  }
}

function sessionOf (address: string, connection: Connection, offered: Offered, { answerMs }: Timeouts): BrokerSession {
  let last: Promise<unknown> = Promise.resolve()

  /** Runs requests one after the other. */
  async function inTurn<T> (request: () => Promise<T>): Promise<T> {
    const turn = last.then(request)
    last = turn.catch(() => {})
    return await turn
  }

  /** Sends what changes nothing. @throws {BrokerUnreachable} */
  async function read<T> (signal: AbortSignal, request: () => Promise<T>): Promise<T> {
    return await inTurn(async () => {
      try {
        return await unlessAborted(connection, signal, request)
      } catch (error) {
        connection.socket.destroy()
        signal.throwIfAborted()
        throw new BrokerUnreachable(`${address} (${reasonOf(error)})`)
      }
    })
  }

  return {
    address,
    async view (signal) {
      const { clusterId, brokers, topics } =
        await read(signal, async () => await answer(metadataV12.api.async(connection, null, false)))
      return {
        clusterId: clusterId ?? null,
        brokers: brokers.map(({ nodeId, host, port }) => ({ nodeId, host, port })),
        topics: new Map(
          topics.flatMap(({ name, partitions }) => name == null ? [] : [[name, partitions.length] as const])
        ),
      }
    },
    async validate (call, signal) {
      if (!canValidate(call)) return undefined
      if (!offers(offered, apiOf(call))) return unsupported(call)
      return await read(signal, async () => await ask(connection, call, true))
    },
    async send (call) {
      if (!offers(offered, apiOf(call))) return unsupported(call)
      return await inTurn(async () => {
        if (!connection.isConnected()) throw new BrokerUnreachable(`${address} (it has closed the connection)`)
        try {
          return await ask(connection, call, false)
        } catch (error) {
          connection.socket.destroy()
          const isLate = error instanceof TimeoutError
          return { kind: 'unknown', reason: isLate ? `no answer within ${answerMs / 1_000} s` : reasonOf(error) }
        }
      })
    },
    async close () { connection.socket.destroy() },
  }
}

function offers (offered: Offered, { key, version }: { key: number, version: number }): boolean {
  const { minVersion, maxVersion } = offered.get(key) ?? { minVersion: 0, maxVersion: -1 }
  return version >= minVersion && version <= maxVersion
}

async function unlessAborted<T> (
  connection: Connection,
  signal: AbortSignal,
  work: () => Promise<T>
): Promise<T> {
  signal.throwIfAborted()
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = () => {
    reject(signal.reason)
    connection.socket?.destroy()
    connection.emit('error', new Error('aborted')) // ends the wait for the connection
  }
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([work(), promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

function readTls ({ caFile, certFile, keyFile }: ClientTlsFiles): { ca?: Buffer, cert?: Buffer, key?: Buffer } {
  return {
    ...caFile !== undefined && { ca: readFileSync(caFile) },
    ...certFile !== undefined && { cert: readFileSync(certFile) },
    ...keyFile !== undefined && { key: readFileSync(keyFile) },
  }
}

/** The innermost cause, which says more than those around it. */
function reasonOf (error: unknown): string {
  const { cause, message, code } = error as Error & { code?: string }
  if (cause !== undefined) return reasonOf(cause)
  const [first] = error instanceof AggregateError ? error.errors : []
  return first === undefined ? message || (code ?? 'unknown') : reasonOf(first)
}
