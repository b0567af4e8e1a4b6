import * as grpc from '@grpc/grpc-js'
import type { KeyValue, RangeRequest, RangeResponse, WatchRequest, WatchResponse } from '../plugins/etcd/messages.ts'
import { rangeMethod, watchMethod } from './etcd-api.ts'

/** How many writes a range at an old revision, or a watch, can go back. Older ones are compacted. */
const HISTORY_WRITES = 5_000
const COMPACTED = 'etcdserver: mvcc: required revision has been compacted'
const FUTURE = 'etcdserver: mvcc: required revision is a future revision'

type WatchStream = grpc.ServerDuplexStream<WatchRequest, Partial<WatchResponse>>

/** An in-process etcd with the methods that `plugins/etcd` uses: KV.Range and Watch.Watch, without authentication. */
export class EmbeddedEtcd {
  #revision = 1
  /** The state at the oldest revision that can still be read, and every write since. */
  #compactRevision = 1
  readonly #compacted = new Map<string, KeyValue>()
  readonly #writes: KeyValue[] = []
  readonly #watchers = new Set<(written: KeyValue[]) => void>()
  readonly #server = new grpc.Server()

  /** Writes a key at a new revision. */
  put (key: string, value: Buffer): void {
    const written = { key: Buffer.from(key), value, modRevision: ++this.#revision }
    this.#writes.push(written)
    if (this.#writes.length > HISTORY_WRITES) this.#compact(this.#writes.shift() as KeyValue)
    for (const notify of this.#watchers) notify([written])
  }

  /**
   * Serves the API on a free loopback port.
   * @returns the endpoint
   */
  async listen (): Promise<string> {
    this.#server.addService({ range: rangeMethod, watch: watchMethod }, {
      range: ({ request }: { request: Required<RangeRequest> }, callback: grpc.sendUnaryData<RangeResponse>) =>
        this.#range(request, callback),
      watch: (stream: WatchStream) => stream.once('data', (request: WatchRequest) => this.#watch(request, stream)),
    })
    const port = await new Promise((resolve, reject) => {
      this.#server.bindAsync(
        '127.0.0.1:0',
        grpc.ServerCredentials.createInsecure(),
        (error, port) => error ? reject(error) : resolve(port)
      )
    })
    return `http://127.0.0.1:${port}`
  }

  /** Ends all calls, including watches, and frees the port. */
  close (): void {
    this.#server.forceShutdown()
  }

  get #header () {
    return { revision: this.#revision }
  }

  #compact (written: KeyValue): void {
    this.#compacted.set(String(written.key), written)
    this.#compactRevision = written.modRevision
  }

  #range (
    { key, rangeEnd, limit, revision, keysOnly, minModRevision }: Required<RangeRequest>,
    callback: grpc.sendUnaryData<RangeResponse>
  ): void {
    const at = revision || this.#revision
    if (at < this.#compactRevision || at > this.#revision) {
      callback({ code: grpc.status.OUT_OF_RANGE, details: at > this.#revision ? FUTURE : COMPACTED })
      return
    }
    const state = new Map(this.#compacted)
    for (const written of this.#writes) if (written.modRevision <= at) state.set(String(written.key), written)

    const inRange = within(key, rangeEnd)
    const found = [...state.values()].filter(inRange)
    const matching = found.filter(({ modRevision }) => modRevision >= minModRevision).sort((a, b) =>
      a.key.compare(b.key)
    )
    const page = matching.slice(0, limit || Infinity)
    callback(null, {
      header: this.#header,
      kvs: keysOnly ? page.map(kv => ({ ...kv, value: Buffer.alloc(0) })) : page,
      more: page.length < matching.length,
      count: found.length, // like etcd, regardless of limit and minModRevision
    })
  }

  #watch ({ createRequest: { key, rangeEnd, startRevision } }: WatchRequest, stream: WatchStream): void {
    stream.write({ created: true })
    if (startRevision <= this.#compactRevision) {
      stream.write({ canceled: true, compactRevision: this.#compactRevision, cancelReason: COMPACTED })
      return
    }
    const inRange = within(key, rangeEnd)
    const notify = (written: KeyValue[]) => {
      const events = written.filter(kv => kv.modRevision >= startRevision && inRange(kv)).map(kv => ({
        type: 'PUT' as const,
        kv,
      }))
      if (events.length > 0) stream.write({ events })
    }
    notify(this.#writes)
    this.#watchers.add(notify)
    stream.once('cancelled', () => this.#watchers.delete(notify))
  }
}

/** Matches keys from `key` up to, but not including, `rangeEnd`; only `key` itself when `rangeEnd` is empty. */
function within (key: Buffer, rangeEnd: Buffer): (kv: KeyValue) => boolean {
  return rangeEnd.length === 0
    ? kv => kv.key.equals(key)
    : kv => kv.key.compare(key) >= 0 && kv.key.compare(rangeEnd) < 0
}
