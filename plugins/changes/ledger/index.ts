import { randomUUID } from 'node:crypto'
import type { IRangeResponse, IRequestOp, ITxnResponse } from 'etcd3'
import { LedgerUnavailable } from '../../../errors.ts'
import type { Change } from '../change.ts'
import { type ChangeState, isOpen, isTransition } from '../states.ts'
import { LedgerClient, type LedgerSettings } from './client.ts'
import { Hold } from './hold.ts'
import * as keys from './keys.ts'
import { decodeChange, json } from './stored.ts'

/** A change as it was read, with the revision that a next version replaces. */
export interface Stored { change: Change, modRevision: string, createRevision: string }

/** A stored change of a version that this release does not know; of version 0 if no release has stored it. */
export interface Unknown { change_id: string, version: number }

/** How long changes stay in a state, in milliseconds. Leases measure it. */
export interface Lifetimes {
  planned: number
  pending: number
  approved: number
  /** How long a change is kept after it ended. */
  ended: number
  /** How long the mirror is watched for the effect of an ambiguous change. */
  ambiguous: number
  /** How long the mirror is watched for the end of an effect. */
  applied: number
}

/** What else a step requires or stores, in the same transaction. */
export interface StepOptions {
  /** The step requires that this lock is still held. */
  lock?: Lock
  /** The step requires that nobody holds the lock. */
  unlocked?: boolean
  breakGlass?: 'mark' | 'unmark'
  /** The broker that the change is sent to. */
  broker?: string
}

/** What the settler looks at, all at one revision. */
export interface Overview {
  /** `attempted`: an attempt to apply it has begun, and nothing has been sent. */
  active: { id: string, state: ChangeState, attempted: boolean }[]
  alive: ReadonlySet<string>
  watched: ReadonlySet<string>
  /** The change that is being applied, if any. */
  locked: string | undefined
}

/** The cluster-wide lock of one attempt to apply a change. */
export class Lock {
  readonly #hold: Hold
  /** The value of the lock's key. */
  readonly value: string

  constructor (hold: Hold, value: string) {
    this.#hold = hold
    this.value = value
  }

  get held (): boolean { return this.#hold.held }
  async release (): Promise<void> { await this.#hold.release() }
}

/** The lease of the lock. */
const LOCK_TTL_MS = 20_000
/** Longer than an attempt takes, even a drain: whoever hangs longer loses the lock. */
const LOCK_MAX_MS = 15 * 60_000
const SETTLER_TTL_MS = 10_000
/** A plan that nobody has asked to apply is kept no longer than this after its end. */
const UNUSED_PLAN_KEPT_MS = 60 * 60_000
/** How long it is remembered that something was used. */
const USED_KEPT_MS = 2 * 60 * 60_000
/** So many of them are kept for one principal, so that nobody fills an etcd that brokers depend on. */
const MAX_UNUSED_PLANS = 1_000
/** etcd takes at most 128 operations in one transaction. */
const BATCH = 100

/**
 * The changes, in etcd. Every step is one transaction that compares what it replaces. Leases decide what has expired,
 * so no clock does. Any replica can take any step.
 * @throws {LedgerUnavailable} from every method. The step may have been stored all the same.
 */
export class Ledger {
  readonly #client: LedgerClient
  readonly #lifetimes: Lifetimes
  /** The changes as they were listed last, by key. */
  readonly #known = new Map<string, KeyValue>()

  constructor (settings: LedgerSettings, lifetimes: Lifetimes, onFailure: (error: Error) => void = () => {}) {
    this.#client = new LedgerClient(settings, onFailure)
    this.#lifetimes = lifetimes
  }

  /** Rejects if the ledger cannot be read or written. Writes nothing. */
  async probe (): Promise<void> {
    // etcd checks the permissions of every operation, also of those whose condition never holds.
    await this.#client.transact([keys.never(keys.LOCK)], [keys.put(keys.LOCK, '')], [keys.get(keys.LOCK)])
  }

  /** Stores a new plan. Resolves to `undefined` if its requester has `most` open changes already. */
  async create (change: Change, most: number): Promise<Stored | undefined> {
    const id = change.change_id
    const own = keys.aliveOf(change.requested_by)
    const lease = await this.#client.grant(this.#lifetimes.planned)
    const value = JSON.stringify(change)
    for (;;) {
      const { count, header } = await this.#client.range({ ...keys.withPrefix(own), count_only: true })
      if (Number(count) >= most) {
        void this.#client.revoke(lease)
        return
      }
      const stored = written(change, value, await this.#client.transact(
        [keys.isAbsent(keys.byId(id)), keys.noneSince(own, header.revision)],
        [
          keys.put(keys.byId(id), value),
          keys.put(keys.active(id), summaryOf(change)),
          keys.put(keys.alive(change.requested_by, id), '', lease),
        ],
        [keys.get(keys.byId(id))]
      ))
      if (stored) return stored
    }
  }

  async read (id: string): Promise<Stored | Unknown | undefined> {
    return (await this.#range({ key: Buffer.from(keys.byId(id)) })).map(parse)[0]
  }

  /** All changes, newest first. Reads the values only of those that have changed since the last time. */
  async all (): Promise<(Stored | Unknown)[]> {
    const listed = await this.#range({ ...keys.withPrefix(keys.ALL), keys_only: true })
    const current = new Map(listed.map(({ key, mod_revision: revision }) => [key.toString(), revision]))
    for (const [key, { mod_revision: revision }] of this.#known) {
      if (current.get(key) !== revision) this.#known.delete(key)
    }
    const unknown = [...current.keys()].filter(key => !this.#known.has(key))
    for (let index = 0; index < unknown.length; index += BATCH) {
      const { responses } = await this.#client.transact([], unknown.slice(index, index + BATCH).map(keys.get))
      const found = responses.flatMap(({ response_range: range }) => range.kvs)
      for (const kv of found) this.#known.set(kv.key.toString(), kv)
    }
    return [...this.#known.values()]
      .sort((a, b) => Number(BigInt(b.create_revision) - BigInt(a.create_revision))).map(parse)
  }

  /** The ids of the open changes that have not expired. */
  async alive (): Promise<ReadonlySet<string>> {
    return idsOf(await this.#client.range({ ...keys.withPrefix(keys.ALIVE), keys_only: true }))
  }

  /** Whether an open change has not expired. */
  async isAlive ({ requested_by: requester, change_id: id }: Change): Promise<boolean> {
    return (await this.#range({ key: Buffer.from(keys.alive(requester, id)) })).length > 0
  }

  /**
   * Replaces a change by its next version. Resolves to `undefined` if that is not possible any more, because somebody
   * else was first, the change has expired (or not, for a step to `expired`), or the lock is lost.
   */
  async replace (stored: Stored, next: Change, options: StepOptions = {}): Promise<Stored | undefined> {
    const { change: before, modRevision } = stored
    const { change_id: id, requested_by: requester, state } = next
    if (before.state !== state && !isTransition(before.state, state)) {
      throw new Error(`a change does not go from ${before.state} to ${state}`)
    }
    const { lock, unlocked, breakGlass, broker } = options
    const alive = keys.alive(requester, id)
    const compare = [keys.hasRevision(keys.byId(id), modRevision)]
    if (isOpen(before.state)) compare.push(state === 'expired' ? keys.isAbsent(alive) : keys.exists(alive))
    if (lock) compare.push(keys.hasValue(keys.LOCK, lock.value))
    if (unlocked) compare.push(keys.isAbsent(keys.LOCK))
    const leases: string[] = []
    const lease = async (ms: number): Promise<string> => {
      const granted = await this.#client.grant(ms)
      leases.push(granted)
      return granted
    }
    const value = JSON.stringify(next)
    const keptMs = await this.#keptMs(before, next)
    const kept = keptMs === undefined ? undefined : await lease(keptMs)
    const steps: IRequestOp[] = [
      keys.put(keys.byId(id), value, kept),
      ...isUnused(before, next) ? [keys.put(keys.unused(requester, id), '', kept)] : [],
      isActive(next) ? keys.put(keys.active(id), summaryOf(next)) : keys.remove(keys.active(id)),
    ]
    if (before.state !== state) {
      if (isOpen(state)) steps.push(keys.put(alive, '', await lease(this.#lifetimes[state])))
      else if (isOpen(before.state)) steps.push(keys.remove(alive))
      if (state === 'ambiguous' || state === 'applied') {
        steps.push(keys.put(keys.watch(id), '', await lease(this.#lifetimes[state])))
      }
    }
    if (breakGlass === 'mark') steps.push(keys.put(keys.BREAK_GLASS, id))
    if (breakGlass === 'unmark') steps.push(keys.remove(keys.BREAK_GLASS))
    if (broker !== undefined) steps.push(keys.put(keys.LAST_BROKER, broker))
    const unchanged = value === JSON.stringify(before)
    const replaced = written(next, unchanged ? undefined : value, await this.#client.transact(
      breakGlass === 'mark' ? [...compare, await this.#mayBreakGlass(id)] : compare,
      steps,
      [keys.get(keys.byId(id))]
    ), stored.createRevision)
    if (!replaced) for (const granted of leases) void this.#client.revoke(granted)
    return replaced
  }

  /** Ends the watch over an applied change. */
  async unwatch ({ change: { change_id: id }, modRevision }: Stored): Promise<void> {
    await this.#client.transact([keys.hasRevision(keys.byId(id), modRevision)], [keys.remove(keys.active(id))])
  }

  /** Removes what is left of an active change that is not stored any more. */
  async forget (id: string): Promise<void> {
    await this.#client.transact([keys.isAbsent(keys.byId(id))], [keys.remove(keys.active(id))])
  }

  /** Whether this is the first use of something that is good once, and for an hour. */
  async once (nonce: string): Promise<boolean> {
    const key = keys.used(nonce)
    const lease = await this.#client.grant(USED_KEPT_MS)
    const { succeeded } = await this.#client.transact([keys.isAbsent(key)], [keys.put(key, '', lease)])
    if (!succeeded) void this.#client.revoke(lease)
    return succeeded
  }

  /** The id of the break-glass change that nobody has reviewed. */
  async unreviewed (): Promise<string | undefined> {
    return await this.#text(keys.BREAK_GLASS)
  }

  /** host:port of the broker that was used last. */
  async lastBroker (): Promise<string | undefined> {
    return await this.#text(keys.LAST_BROKER)
  }

  async overview (): Promise<Overview> {
    const { responses } = await this.#client.transact([], [
      { request_range: keys.withPrefix(keys.ACTIVE) },
      { request_range: { ...keys.withPrefix(keys.ALIVE), keys_only: true } },
      { request_range: { ...keys.withPrefix(keys.WATCH), keys_only: true } },
      keys.get(keys.LOCK),
    ])
    const [active, alive, watched, lock] = responses.map(({ response_range: range }) => range)
    if (!active || !alive || !watched || !lock) throw new LedgerUnavailable('its etcd left out a part of the answer')
    return {
      active: active.kvs.map(({ key, value }) => {
        const [state, attempted] = value.toString().split(' ')
        return { id: idOf(key), state: state as ChangeState, attempted: attempted !== undefined }
      }),
      alive: idsOf(alive),
      watched: idsOf(watched),
      locked: lock.kvs[0] && holderOf(lock.kvs[0].value.toString()),
    }
  }

  /** Takes the cluster-wide lock. Resolves to the id of the change that has it otherwise. */
  async lock (changeId: string, replica: string): Promise<Lock | string> {
    const value = JSON.stringify({ change_id: changeId, replica, nonce: randomUUID() })
    const taken = await Hold.take(this.#client, keys.LOCK, value, { ttlMs: LOCK_TTL_MS, maxMs: LOCK_MAX_MS })
    return taken instanceof Hold ? new Lock(taken, value) : holderOf(taken)
  }

  /** Makes this replica the one that settles changes, unless another one is. */
  async becomeSettler (replica: string): Promise<Hold | undefined> {
    if (await this.#text(keys.SETTLER) !== undefined) return undefined
    const value = JSON.stringify({ replica, nonce: randomUUID() })
    const taken = await Hold.take(this.#client, keys.SETTLER, value, { ttlMs: SETTLER_TTL_MS })
    return taken instanceof Hold ? taken : undefined
  }

  /** Why the last call failed, as callers see it; `undefined` if it did not. */
  get failure (): string | undefined {
    return this.#client.failure
  }

  close (): void {
    this.#client.close()
  }

  /** How long the value of a change is kept; `undefined` for as long as somebody may have to do something about it. */
  async #keptMs (before: Change, next: Change): Promise<number | undefined> {
    // What nobody has reviewed must not vanish: it keeps others from breaking the glass.
    if ((isActive(next) && next.state !== 'applied') || next.break_glass?.review === null) return undefined
    const { ended } = this.#lifetimes
    if (!isUnused(before, next)) return ended
    const unused = keys.withPrefix(keys.unusedOf(next.requested_by))
    const { count } = await this.#client.range({ ...unused, count_only: true })
    return Number(count) < MAX_UNUSED_PLANS ? Math.min(UNUSED_PLAN_KEPT_MS, ended) : 0
  }

  /** The condition for breaking the glass: nobody else has, or an approver has reviewed it. */
  async #mayBreakGlass (id: string) {
    return await this.unreviewed() === id ? keys.hasValue(keys.BREAK_GLASS, id) : keys.isAbsent(keys.BREAK_GLASS)
  }

  async #text (key: string): Promise<string | undefined> {
    return (await this.#range({ key: Buffer.from(key) }))[0]?.value.toString()
  }

  async #range (request: Parameters<LedgerClient['range']>[0]): Promise<KeyValue[]> {
    return (await this.#client.range(request)).kvs
  }
}

type KeyValue = IRangeResponse['kvs'][number]

/** Whether somebody may still have to do something about a change. */
function isActive ({ state, outcome }: Change): boolean {
  return isOpen(state) || state === 'applying' || state === 'applied' || (state === 'ambiguous' && !outcome?.abandoned)
}

/** Whether a plan has ended that nobody has asked to apply. */
function isUnused ({ state }: Change, next: Change): boolean {
  return state === 'planned' && !isActive(next) && next.execution === null && next.break_glass === null
}

/** What the settler needs to know of a change that it looks at every second. */
function summaryOf ({ state, execution }: Change): string {
  return isOpen(state) && execution ? `${state} attempted` : state
}

/**
 * What a transaction has stored; `undefined` if it stored nothing.
 * @param value by which it is recognized; `undefined` if it was there before
 */
function written (
  change: Change,
  value: string | undefined,
  { succeeded, header, responses }: ITxnResponse,
  created?: string
): Stored | undefined {
  if (succeeded) return { change, modRevision: header.revision, createRevision: created ?? header.revision }
  // An earlier attempt may have been carried out although its answer was lost.
  const found = responses[0]?.response_range?.kvs[0]
  if (!found || found.value.toString() !== value) return undefined
  return { change, modRevision: found.mod_revision, createRevision: found.create_revision }
}

function parse ({ key, value, mod_revision: modRevision, create_revision: createRevision }: KeyValue) {
  const id = idOf(key)
  const change = decodeChange(id, value.toString())
  return typeof change === 'number' ? { change_id: id, version: change } : { change, modRevision, createRevision }
}

function idsOf ({ kvs }: IRangeResponse): ReadonlySet<string> {
  return new Set(kvs.map(({ key }) => idOf(key)))
}

function idOf (key: Buffer): string {
  const text = key.toString()
  return text.slice(text.lastIndexOf('/') + 1)
}

function holderOf (lock: string): string {
  return (json(lock) as { change_id?: string } | null)?.change_id ?? ''
}
