import type { Socket } from 'node:net'
import * as grpc from '@grpc/grpc-js'
import { CompactedError, MessageTooLargeError } from '../../errors.ts'
import { PREFIX } from '../../kafscale/keyspace.ts'
import { quote } from '../../lib/printable.ts'
import {
  authenticate,
  type KeyValue,
  type Permission,
  range,
  type RangeRequest,
  type RangeResponse,
  type ResponseHeader,
  roleGet,
  type Rpc,
  userGet,
  watch,
  type WatchResponse,
} from './messages.ts'

/**
 * Deadlines per kind of call, which also detect half-open connections. The first calls on a connection have the short
 * ones: if they time out, another attempt still fits into the 2 s in which the service recovers once etcd answers
 * again.
 */
const PROBE_TIMEOUT_MS = 1_000
const AUTHENTICATE_TIMEOUT_MS = 1_000
const RANGE_TIMEOUT_MS = 10_000

/**
 * The largest message accepted by default. etcd limits a value to 1.5 MB unless `--max-request-bytes` is raised. A page
 * of the load that exceeds it is requested again with fewer keys.
 */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024
const TARGET_PAGE_BYTES = 1024 * 1024
const FIRST_PAGE_KEYS = 1_000

const prefix = Buffer.from(PREFIX)
const prefixEnd = Buffer.from(PREFIX.replace(/\/$/, '0')) // '0' follows '/'
const snapshotKey = Buffer.from(`${PREFIX}metadata/snapshot`)

export interface Credentials { username: string, password: string }

export interface WatchHandlers {
  /** The events of one or more complete revisions, in order. */
  onEvents: (events: WatchResponse['events']) => void
  /** Called once, when etcd has confirmed the watch. */
  onOpen: () => void
  /** Called once, when the watch ends for any reason but `close`. It is not restarted. */
  onEnd: (error: Error) => void
}

/**
 * A connection to one etcd endpoint: all calls go to the same member. It reads keys under `/kafscale/` and can do
 * nothing else. It does not retry: after an error, close it and open another.
 */
export class EtcdConnection {
  readonly endpoint: string
  readonly #client: grpc.Client
  readonly #sockets: TrackedSockets
  readonly #credentials: Credentials | undefined
  #token: Promise<string | undefined> | undefined
  readonly #calls = new Set<{ cancel: () => void }>()
  #closed = false

  /** @param endpoint scheme, host and port, such as `http://etcd:2379` */
  constructor (
    endpoint: string,
    channel: grpc.ChannelCredentials,
    credentials: Credentials | undefined,
    maxMessageBytes = MAX_MESSAGE_BYTES
  ) {
    this.endpoint = endpoint
    this.#sockets = new TrackedSockets(channel)
    this.#credentials = credentials
    this.#client = new grpc.Client(`dns:${endpoint.replace(/^https?:\/\//, '')}`, this.#sockets, {
      'grpc.max_receive_message_length': maxMessageBytes,
      'grpc.keepalive_time_ms': 6_000, // etcd rejects pings less than 5 s apart
      'grpc.keepalive_timeout_ms': 3_000,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.enable_http_proxy': 0,
      'grpc.use_local_subchannel_pool': 1, // a new connection must not inherit the backoff of an old one
    })
  }

  /** The current revision, by a linearizable read. */
  async probe (): Promise<ResponseHeader> {
    return (await this.#range({ key: snapshotKey, keysOnly: true, limit: 1 }, PROBE_TIMEOUT_MS)).header
  }

  /**
   * Whether a key under the prefix was written after `revision`, the number of keys, and the current revision, by a
   * linearizable read. Nothing has changed if no key was written and the number is the same: a delete only shows in the
   * number.
   */
  async changesSince (revision: number): Promise<ResponseHeader & { written: boolean, keys: number }> {
    const { header, kvs, count } = await this.#range(
      { key: prefix, rangeEnd: prefixEnd, keysOnly: true, limit: 1, minModRevision: revision + 1 }, PROBE_TIMEOUT_MS)
    return { ...header, written: kvs.length > 0, keys: count }
  }

  /**
   * Reads every key under the prefix at one revision, page by page.
   * @throws {CompactedError} when that revision is compacted during the load
   * @throws {MessageTooLargeError} for a value that is larger than a message may be
   */
  async load (onPage: (kvs: KeyValue[]) => void): Promise<ResponseHeader> {
    let at: ResponseHeader | undefined
    let key = prefix
    let limit = FIRST_PAGE_KEYS
    for (;;) {
      let page: RangeResponse
      try {
        page = await this.#range({ key, rangeEnd: prefixEnd, limit, revision: at?.revision ?? 0 }, RANGE_TIMEOUT_MS)
      } catch (error) {
        if (!(error instanceof MessageTooLargeError)) throw error
        if (limit === 1) {
          const { kvs: [kv] } = await this.#range(
            { key, rangeEnd: prefixEnd, limit, revision: at?.revision ?? 0, keysOnly: true }, RANGE_TIMEOUT_MS)
          throw new MessageTooLargeError(error.bytes, error.maxBytes, kv && quote(kv.key.toString()))
        }
        limit = Math.ceil(limit / 8)
        continue
      }
      at ??= page.header
      onPage(page.kvs)
      const last = page.kvs.at(-1)
      if (!page.more || !last) return at
      key = Buffer.concat([last.key, Buffer.of(0)])
      const bytes = page.kvs.reduce((sum, kv) => sum + kv.key.length + kv.value.length, 0)
      limit = Math.max(1, Math.floor(limit * Math.min(8, TARGET_PAGE_BYTES / bytes)))
    }
  }

  /** Watches the prefix from a revision on. The events of a revision are never split. */
  watch (startRevision: number, { onEvents, onOpen, onEnd }: WatchHandlers): void {
    this.#metadata().then(metadata => {
      if (this.#closed) return
      const stream = this.#client.makeBidiStreamRequest(watch.path, watch.serialize, watch.deserialize, metadata)
      this.#calls.add(stream)
      let events: WatchResponse['events'] = []
      let ended = false
      const end = (error: Error) => {
        if (ended || this.#closed) return
        ended = true
        stream.cancel()
        onEnd(error)
      }
      stream.on('error', (error: grpc.ServiceError) => end(explain(error)))
      stream.on('end', () => end(new Error('etcd ended the watch')))
      stream.on('data', (response: WatchResponse) => {
        if (ended || this.#closed) return
        if (response.canceled) {
          end(response.compactRevision > 0
            ? new CompactedError(`revision ${startRevision} is compacted, the oldest is ${response.compactRevision}`)
            : new Error(`etcd cancelled the watch: ${response.cancelReason}`))
          return
        }
        if (response.created) onOpen()
        for (const event of response.events) events.push(event)
        if (response.fragment || events.length === 0) return
        const complete = events
        events = []
        try {
          onEvents(complete)
        } catch (error) {
          end(error as Error)
        }
      })
      stream.write({ createRequest: { key: prefix, rangeEnd: prefixEnd, startRevision, fragment: true } })
    }).catch((error: Error) => { if (!this.#closed) onEnd(error) })
  }

  /**
   * What the user of the credentials may do: the names of its roles, and their permissions. `undefined` if etcd does
   * not require a user, or if there are no credentials.
   */
  async permissions (): Promise<{ roles: string[], permissions: Permission[] } | undefined> {
    const metadata = await this.#metadata()
    if (!this.#credentials || metadata.get('token').length === 0) return undefined
    const { roles } = await this.#call(userGet, { name: this.#credentials.username }, metadata, PROBE_TIMEOUT_MS)
    const ofRoles = await Promise.all(
      roles.map(async role => await this.#call(roleGet, { role }, metadata, PROBE_TIMEOUT_MS))
    )
    return { roles, permissions: ofRoles.flatMap(({ permissions }) => permissions) }
  }

  /** Whether it may read every key of etcd. Reads one, without its value. */
  async readsEverything (): Promise<boolean> {
    try {
      await this.#range({ key: Buffer.of(0), rangeEnd: Buffer.of(0), keysOnly: true, limit: 1 }, PROBE_TIMEOUT_MS)
      return true
    } catch (error) {
      if ((error as grpc.ServiceError).code === grpc.status.PERMISSION_DENIED) return false
      throw error
    }
  }

  /** Ends all calls in flight, including the watch, and closes the socket. */
  close (): void {
    this.#closed = true
    for (const call of this.#calls) call.cancel()
    this.#client.close()
    this.#sockets.destroy()
  }

  async #range (request: RangeRequest, timeoutMs: number): Promise<RangeResponse> {
    try {
      return await this.#call(range, request, await this.#metadata(), timeoutMs)
    } catch (error) {
      if (/required revision has been compacted/.test((error as grpc.ServiceError).details)) {
        throw new CompactedError(`revision ${request.revision} was compacted during the load`)
      }
      if (!this.#credentials || !isTokenError(error as grpc.ServiceError)) throw error
      this.#token = undefined
      return await this.#call(range, request, await this.#metadata(), timeoutMs)
    }
  }

  /** The metadata of a call. It has a token, obtained for the credentials, if there are any and etcd requires them. */
  async #metadata (): Promise<grpc.Metadata> {
    const metadata = new grpc.Metadata()
    if (this.#credentials) {
      const { username: name, password } = this.#credentials
      this.#token ??= this.#call(authenticate, { name, password }, metadata, AUTHENTICATE_TIMEOUT_MS).then(
        ({ token }) => token,
        unlessNotEnabled
      )
      const token = await this.#token
      if (token !== undefined) metadata.set('token', token)
    }
    return metadata
  }

  #call<Request extends object, Response> (
    rpc: Rpc<Request, Response>, request: Request, metadata: grpc.Metadata, timeoutMs: number
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + timeoutMs }
      const call = this.#client.makeUnaryRequest(
        rpc.path,
        rpc.serialize,
        rpc.deserialize,
        request,
        metadata,
        options,
        (error, response) => {
          this.#calls.delete(call)
          if (error) reject(explain(error))
          else resolve(response as Response)
        }
      )
      this.#calls.add(call)
    })
  }
}

/**
 * Channel credentials that keep track of the channel's sockets, so that closing the channel closes them. grpc-js leaves
 * a socket open if the channel is closed before the HTTP/2 handshake has completed. `tests/internals.test.ts` pins the
 * methods of grpc-js that are overridden here.
 */
class TrackedSockets extends grpc.ChannelCredentials {
  readonly #channel: grpc.ChannelCredentials
  readonly #sockets = new Set<Socket>()
  #destroyed = false

  constructor (channel: grpc.ChannelCredentials) {
    super()
    this.#channel = channel
  }

  destroy (): void {
    this.#destroyed = true
    for (const socket of this.#sockets) socket.destroy()
  }

  override _isSecure (): boolean {
    return this.#channel._isSecure()
  }

  override _equals (other: grpc.ChannelCredentials): boolean {
    return other === this
  }

  override _createSecureConnector (...args: Parameters<grpc.ChannelCredentials['_createSecureConnector']>) {
    const connector = this.#channel._createSecureConnector(...args)
    const connect = connector.connect.bind(connector)
    connector.connect = async socket => {
      if (this.#destroyed) {
        socket.destroy()
        throw new Error('the connection is closed')
      }
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
      return await connect(socket)
    }
    return connector
  }
}

/** Tells a message that is too large, which only the text of grpc-js does, from other exhausted resources. */
function explain (error: grpc.ServiceError): Error {
  const [, bytes, maxBytes] = /^Received message larger than max \((\d+) vs (\d+)\)$/.exec(error.details) ?? []
  return bytes === undefined ? error : new MessageTooLargeError(Number(bytes), Number(maxBytes))
}

/** Like etcd's own client, accepts credentials even if etcd does not use them yet. */
function unlessNotEnabled (error: grpc.ServiceError): undefined {
  if (!/authentication is not enabled/.test(error.details)) throw error
}

/** The token has expired, was issued before etcd restarted, or predates a change of users or roles. */
function isTokenError ({ code, details }: grpc.ServiceError): boolean {
  return code === grpc.status.UNAUTHENTICATED || /revision of auth store is old/.test(details)
}
