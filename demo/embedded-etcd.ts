import * as grpc from '@grpc/grpc-js'
import type { WatchRequest } from '../plugins/etcd/messages.ts'
import {
  API,
  type Comparison,
  type Done,
  type Operation,
  type Range,
  type Ranged,
  type Transacted,
  type Transaction,
  type Watched,
} from './etcd-api.ts'
import { EtcdStore, type Stored, type StoreEvent, within, ZERO } from './etcd-store.ts'

const COMPACTED = 'etcdserver: mvcc: required revision has been compacted'
const FUTURE = 'etcdserver: mvcc: required revision is a future revision'
const NO_LEASE = 'etcdserver: requested lease not found'

const EXPIRY_INTERVAL_MS = 500
const NO_KEY: Stored = {
  key: Buffer.alloc(0), value: Buffer.alloc(0), createRevision: 0, modRevision: 0, version: 0, lease: 0,
}

type WatchStream = grpc.ServerDuplexStream<WatchRequest, Watched>

/**
 * An in-process etcd with what the service uses of it, without authentication: for `plugins/etcd`, ranges and watches;
 * for the ledger of changes, transactions and leases.
 */
export class EmbeddedEtcd {
  readonly #store = new EtcdStore()
  /** When the leases expire, by their ids. */
  readonly #leases = new Map<number, number>()
  readonly #server = new grpc.Server()
  #lastLease = 0
  #expiry: NodeJS.Timeout | undefined

  /** Writes a key at a new revision. */
  put (key: string, value: Buffer): void {
    this.#store.put(Buffer.from(key), value)
  }

  /** Deletes the keys with a prefix. */
  deletePrefix (prefix: string): void {
    const end = Buffer.from(prefix)
    end[end.length - 1]! += 1
    this.#store.delete(Buffer.from(prefix), end)
  }

  /**
   * Serves the API on a free loopback port.
   * @returns the endpoint
   */
  async listen (): Promise<string> {
    this.#server.addService(API, {
      range: this.#unary((request: Range) => this.#range(request)),
      put: this.#unary((request: NonNullable<Operation['requestPut']>) =>
        this.#run({ requestPut: request }).responsePut),
      deleteRange: this.#unary((request: NonNullable<Operation['requestDeleteRange']>) =>
        this.#run({ requestDeleteRange: request }).responseDeleteRange),
      txn: this.#unary((request: Transaction) => this.#transact(request)),
      leaseGrant: this.#unary(({ TTL, ID }: { TTL: number, ID: number }) => {
        const id = ID || ++this.#lastLease
        this.#leases.set(id, performance.now() + TTL * 1_000)
        return { header: this.#header, ID: id, TTL }
      }),
      leaseRevoke: this.#unary(({ ID }: { ID: number }) => {
        if (!this.#leases.has(ID)) throw new RpcError(grpc.status.NOT_FOUND, NO_LEASE)
        this.#endLease(ID)
        return { header: this.#header }
      }),
      watch: (stream: WatchStream) => stream.once('data', (request: WatchRequest) => this.#watch(request, stream)),
    })
    const port = await new Promise((resolve, reject) => {
      this.#server.bindAsync(
        '127.0.0.1:0',
        grpc.ServerCredentials.createInsecure(),
        (error, port) => error ? reject(error) : resolve(port)
      )
    })
    this.#expiry = setInterval(() => {
      for (const [id, endMs] of this.#leases) if (endMs <= performance.now()) this.#endLease(id)
    }, EXPIRY_INTERVAL_MS).unref()
    return `http://127.0.0.1:${port}`
  }

  /** Ends all calls, including watches, and frees the port. */
  close (): void {
    clearInterval(this.#expiry)
    this.#server.forceShutdown()
  }

  get #header () {
    return { revision: this.#store.revision }
  }

  #unary<Request, Response> (handle: (request: Request) => Response) {
    return ({ request }: { request: Request }, callback: grpc.sendUnaryData<Response>): void => {
      try {
        callback(null, handle(request))
      } catch (error) {
        callback(error instanceof RpcError ? error : { code: grpc.status.INTERNAL, details: String(error) })
      }
    }
  }

  #endLease (id: number): void {
    this.#leases.delete(id)
    this.#store.transact(() => {
      for (const { key, lease } of this.#store.range(ZERO, ZERO)) {
        if (lease === id) this.#store.delete(key, Buffer.alloc(0))
      }
    })
  }

  #range ({ key, rangeEnd, limit, revision, keysOnly, countOnly, minModRevision }: Range): Ranged {
    const at = revision || this.#store.revision
    if (at > this.#store.revision) throw new RpcError(grpc.status.OUT_OF_RANGE, FUTURE)
    if (at < this.#store.compactRevision) throw new RpcError(grpc.status.OUT_OF_RANGE, COMPACTED)
    const found = this.#store.range(key, rangeEnd, at)
    const matching = found.filter(({ modRevision }) => modRevision >= minModRevision)
    const page = countOnly ? [] : matching.slice(0, limit || Infinity)
    return {
      header: this.#header,
      kvs: keysOnly ? page.map(kv => ({ ...kv, value: Buffer.alloc(0) })) : page,
      more: !countOnly && page.length < matching.length,
      count: found.length, // like etcd, regardless of limit and minModRevision
    }
  }

  #transact ({ compare, success, failure }: Transaction): Transacted {
    const succeeded = compare.every(comparison => this.#holds(comparison))
    const operations = succeeded ? success : failure
    // Nothing of a transaction is carried out if a lease is gone.
    for (const { requestPut } of operations) if (requestPut) this.#requireLease(requestPut.lease)
    const responses = this.#store.transact(() => operations.map(operation => this.#run(operation)))
    return { header: this.#header, succeeded, responses }
  }

  #run ({ requestRange, requestPut, requestDeleteRange }: Operation): Done {
    if (requestRange) return { responseRange: this.#range(requestRange) }
    if (requestPut) {
      const { key, value, lease } = requestPut
      this.#requireLease(lease)
      this.#store.put(key, value, lease)
      return { responsePut: { header: this.#header } }
    }
    if (!requestDeleteRange) throw new RpcError(grpc.status.UNIMPLEMENTED, 'no nested transactions')
    const deleted = this.#store.delete(requestDeleteRange.key, requestDeleteRange.rangeEnd)
    return { responseDeleteRange: { header: this.#header, deleted } }
  }

  #requireLease (id: number): void {
    if (id !== 0 && !this.#leases.has(id)) throw new RpcError(grpc.status.NOT_FOUND, NO_LEASE)
  }

  /** Whether a comparison holds for every key in its range. Without any key, numbers are 0, and no value is equal. */
  #holds (comparison: Comparison): boolean {
    const { key, rangeEnd, result, target } = comparison
    const found = this.#store.range(key, rangeEnd)
    if (found.length === 0 && target === 'VALUE') return false
    return (found.length > 0 ? found : [NO_KEY]).every(kv => {
      const order = orderOf(kv, comparison)
      return { EQUAL: order === 0, NOT_EQUAL: order !== 0, GREATER: order > 0, LESS: order < 0 }[result]
    })
  }

  #watch ({ createRequest: { key, rangeEnd, startRevision } }: WatchRequest, stream: WatchStream): void {
    const { compactRevision } = this.#store
    stream.write({ created: true })
    if (startRevision <= compactRevision) {
      stream.write({ canceled: true, compactRevision, cancelReason: COMPACTED })
      return
    }
    const inRange = within(key, rangeEnd)
    const notify = (written: readonly StoreEvent[]) => {
      const events = written.filter(({ kv }) => kv.modRevision >= startRevision && inRange(kv))
      if (events.length > 0) stream.write({ events })
    }
    notify(this.#store.history)
    stream.once('cancelled', this.#store.listen(notify))
  }
}

/** How a call fails. */
class RpcError extends Error implements Partial<grpc.StatusObject> {
  readonly code: grpc.status
  readonly details: string

  constructor (code: grpc.status, details: string) {
    super(details)
    this.code = code
    this.details = details
  }
}

/** How what is stored compares to what a comparison names: below 0 if it is less. */
function orderOf (kv: Stored, { target, value, version, createRevision, modRevision, lease }: Comparison): number {
  switch (target) {
    case 'VALUE': return kv.value.compare(value ?? Buffer.alloc(0))
    case 'VERSION': return kv.version - (version ?? 0)
    case 'CREATE': return kv.createRevision - (createRevision ?? 0)
    case 'MOD': return kv.modRevision - (modRevision ?? 0)
    case 'LEASE': return kv.lease - (lease ?? 0)
  }
}
