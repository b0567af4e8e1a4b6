import type { KeyValue } from '../plugins/etcd/messages.ts'

/** How many writes a range at an old revision, or a watch, can go back. Older ones are compacted. */
const HISTORY_WRITES = 5_000

export const ZERO = Buffer.of(0)

/** A key with what transactions compare. A lease of 0 means none. */
export interface Stored extends KeyValue { createRevision: number, version: number, lease: number }

export interface StoreEvent { type: 'PUT' | 'DELETE', kv: Stored }

type Listener = (events: readonly StoreEvent[]) => void

/** The keys of the embedded etcd, with the history of the last writes. */
export class EtcdStore {
  revision = 1
  /** The oldest revision that can still be read. */
  compactRevision = 1
  readonly #current = new Map<string, Stored>()
  /** The state at the oldest revision, and every write since. */
  readonly #compacted = new Map<string, Stored>()
  readonly #history: StoreEvent[] = []
  readonly #listeners = new Set<Listener>()
  #open: StoreEvent[] | undefined

  /** Writes a key. */
  put (key: Buffer, value: Buffer, lease = 0): void {
    const { createRevision, version = 0 } = this.#current.get(String(key)) ?? {}
    this.transact(() => {
      const revision = this.revision + 1
      const kv = {
        key, value, lease, modRevision: revision, createRevision: createRevision ?? revision, version: version + 1,
      }
      this.#current.set(String(key), kv)
      this.#open?.push({ type: 'PUT', kv })
    })
  }

  /** Deletes the keys in a range, and returns how many there were. */
  delete (key: Buffer, rangeEnd: Buffer): number {
    return this.transact(() => {
      const found = this.range(key, rangeEnd)
      for (const { key } of found) {
        this.#current.delete(String(key))
        const kv = {
          key, value: Buffer.alloc(0), lease: 0, modRevision: this.revision + 1, createRevision: 0, version: 0,
        }
        this.#open?.push({ type: 'DELETE', kv })
      }
      return found.length
    })
  }

  /** Runs what writes: all of it gets one revision, unless it writes nothing. */
  transact<T> (write: () => T): T {
    if (this.#open) return write()
    const events: StoreEvent[] = this.#open = []
    try {
      return write()
    } finally {
      this.#open = undefined
      if (events.length > 0) this.#commit(events)
    }
  }

  /** The keys in a range at a revision that can be read, in their order. */
  range (key: Buffer, rangeEnd: Buffer, revision = this.revision): Stored[] {
    const state = revision === this.revision ? this.#current : this.#stateAt(revision)
    return [...state.values()].filter(within(key, rangeEnd)).sort((a, b) => a.key.compare(b.key))
  }

  /** The writes that are not compacted, oldest first. */
  get history (): readonly StoreEvent[] {
    return this.#history
  }

  /** Calls `listener` with the events of each revision. Returns a function that ends this. */
  listen (listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #commit (events: readonly StoreEvent[]): void {
    this.revision++
    this.#history.push(...events)
    while (this.#history.length > HISTORY_WRITES) this.#compact(this.#history.shift() as StoreEvent)
    for (const notify of this.#listeners) notify(events)
  }

  #stateAt (revision: number): Map<string, Stored> {
    const state = new Map(this.#compacted)
    for (const event of this.#history) if (event.kv.modRevision <= revision) advance(state, event)
    return state
  }

  #compact (event: StoreEvent): void {
    advance(this.#compacted, event)
    this.compactRevision = event.kv.modRevision
  }
}

function advance (state: Map<string, Stored>, { type, kv }: StoreEvent): void {
  if (type === 'PUT') state.set(String(kv.key), kv)
  else state.delete(String(kv.key))
}

/**
 * Matches keys from `key` up to, but not including, `rangeEnd`: only `key` itself when `rangeEnd` is empty, all keys
 * from `key` on when it is a zero byte.
 */
export function within (key: Buffer, rangeEnd: Buffer): (kv: KeyValue) => boolean {
  if (rangeEnd.length === 0) return kv => kv.key.equals(key)
  const isOpen = rangeEnd.equals(ZERO)
  return kv => kv.key.compare(key) >= 0 && (isOpen || kv.key.compare(rangeEnd) < 0)
}
