import type { Socket } from 'node:net'
import * as grpc from '@grpc/grpc-js'
import { PREFIX } from '../../kafscale/keyspace.ts'
import {
  authenticate,
  type KeyValue,
  range,
  type RangeRequest,
  type RangeResponse,
  type Rpc,
  watch,
  type WatchResponse,
} from './messages.ts'

/**
 * How long each kind of call may take; a half-open connection shows as a call that takes longer. A connection begins with
 * the short ones: when they have to be given up, there is time for another within the 2 s from when etcd answers again.
 */
const PROBE_TIMEOUT_MS = 1_000
const AUTHENTICATE_TIMEOUT_MS = 1_000
const RANGE_TIMEOUT_MS = 10_000

/** No message is larger; a page of the load that would be is asked for again, smaller. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024
const TARGET_PAGE_BYTES = 1024 * 1024
const FIRST_PAGE_KEYS = 1_000

const prefix = Buffer.from(PREFIX)
const prefixEnd = Buffer.from(PREFIX.replace(/\/$/, '0')) // '0' follows '/'
const snapshotKey = Buffer.from(`${PREFIX}metadata/snapshot`)

/** The revision asked for is compacted away: what is known must be loaded anew. */
export class CompactedError extends Error {
  override name = 'CompactedError'
}

export interface Credentials { username: string, password: string }

/** The revision that the cluster is at. */
export interface Position { revision: number }

export interface WatchHandlers {
  /** All events of one or more whole revisions, in order. */
  onEvents: (events: WatchResponse['events']) => void
  /** Called once when etcd has confirmed the watch. */
  onOpen: () => void
  /** Called once, when the stream is over, unless `close` ended it. The watch never comes back by itself. */
  onEnd: (error: Error) => void
}

/**
 * A connection to one etcd endpoint, on which all calls go to the same member. It only reads: `/kafscale/` and nothing
 * else. It does not retry: whoever uses it closes it and opens another.
 */
export class EtcdConnection {
  readonly endpoint: string
  readonly #client: grpc.Client
  readonly #sockets: HeldSockets
  readonly #credentials: Credentials | undefined
  #token: Promise<string | undefined> | undefined
  readonly #calls = new Set<{ cancel: () => void }>()
  #closed = false

  /** @param endpoint scheme, host and port, such as `http://etcd:2379` */
  constructor (endpoint: string, channel: grpc.ChannelCredentials, credentials: Credentials | undefined) {
    this.endpoint = endpoint
    this.#sockets = new HeldSockets(channel)
    this.#credentials = credentials
    this.#client = new grpc.Client(`dns:${endpoint.replace(/^https?:\/\//, '')}`, this.#sockets, {
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.keepalive_time_ms': 6_000, // etcd refuses pings that come more often than every 5 s
      'grpc.keepalive_timeout_ms': 3_000,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.enable_http_proxy': 0,
      'grpc.use_local_subchannel_pool': 1, // a new connection must not wait for the back-off of an old one
    })
  }

  /** A linearizable read: where the cluster is now. */
  async probe (): Promise<Position> {
    return (await this.#range({ key: snapshotKey, keysOnly: true, limit: 1 }, PROBE_TIMEOUT_MS)).header
  }

  /**
   * A linearizable read: whether a key under the prefix was written after `revision`, how many keys there are, and where
   * the cluster is. No newer key and the same count mean that nothing changed: a delete shows in the count alone.
   */
  async changesSince (revision: number): Promise<Position & { written: boolean, keys: number }> {
    const { header, kvs, count } = await this.#range(
      { key: prefix, rangeEnd: prefixEnd, keysOnly: true, limit: 1, minModRevision: revision + 1 }, PROBE_TIMEOUT_MS)
    return { ...header, written: kvs.length > 0, keys: count }
  }

  /**
   * Reads every key under the prefix at one revision, page by page.
   * @throws {CompactedError} when that revision is compacted while the load goes on.
   */
  async load (onPage: (kvs: KeyValue[]) => void): Promise<Position> {
    let at: Position | undefined
    let key = prefix
    let limit = FIRST_PAGE_KEYS
    for (;;) {
      let page: RangeResponse
      try {
        page = await this.#range({ key, rangeEnd: prefixEnd, limit, revision: at?.revision ?? 0 }, RANGE_TIMEOUT_MS)
      } catch (error) {
        if ((error as grpc.ServiceError).code !== grpc.status.RESOURCE_EXHAUSTED || limit === 1) throw error
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

  /** Watches the prefix from a revision on. Events come whole: never half a revision. */
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
      stream.on('error', end)
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
        const whole = events
        events = []
        try {
          onEvents(whole)
        } catch (error) {
          end(error as Error)
        }
      })
      stream.write({ createRequest: { key: prefix, rangeEnd: prefixEnd, startRevision, fragment: true } })
    }).catch((error: Error) => { if (!this.#closed) onEnd(error) })
  }

  /** Ends every call in flight, the watch too, and frees the socket. */
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

  /** The metadata that a call needs: with the token that the credentials are exchanged for, where there are any and etcd asks for them. */
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
          if (error) reject(error)
          else resolve(response as Response)
        }
      )
      this.#calls.add(call)
    })
  }
}

/**
 * The channel's credentials, with hold of its sockets: grpc-js itself leaves the one of a channel that is closed before
 * etcd has answered the HTTP/2 handshake open for as long as etcd does.
 */
class HeldSockets extends grpc.ChannelCredentials {
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
        throw new Error('closed')
      }
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
      return await connect(socket)
    }
    return connector
  }
}

/** Credentials may be there before etcd asks for them, as for its own client. */
function unlessNotEnabled (error: grpc.ServiceError): undefined {
  if (!/authentication is not enabled/.test(error.details)) throw error
}

/** The token has expired, is of an etcd that restarted, or was given before users or roles changed. */
function isTokenError ({ code, details }: grpc.ServiceError): boolean {
  return code === grpc.status.UNAUTHENTICATED || /revision of auth store is old/.test(details)
}
