import { setTimeout as delay } from 'node:timers/promises'
import * as grpc from '@grpc/grpc-js'
import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import { MessageTooLargeError } from '../errors.ts'
import { SNAPSHOT } from '../kafscale/keyspace.ts'
import { type KeyEvent, keyName, Mirror } from '../kafscale/mirror.ts'
import { Outages } from '../kafscale/outages.ts'
import { longDelay } from '../lib/delay.ts'
import { escapeUnprintable, quote } from '../lib/printable.ts'
import type { EtcdConnection } from './etcd/connection.ts'
import type { EtcdReader } from './etcd/index.ts'

declare module 'fastify' {
  interface FastifyInstance { metadata: Metadata }
}

const RETRY_INTERVAL_MS = 250
/** Each attempt makes etcd read a value that is too large. */
const TOO_LARGE_RETRY_INTERVAL_MS = 5_000
const PROBE_INTERVAL_MS = 2_000
/** A probe counts as fresh until the next one would have had time to fail. */
const PROBE_FRESH_MS = 4_000
/** How long a probe waits for the watch to catch up before it asks etcd whether there is anything to catch up on. */
const CATCH_UP_MS = 200
/** How long the watch may lag behind a probe before it counts as dead. */
const MAX_BEHIND_MS = 2_000
/** The keys remembered as logged for an undecodable value. When there are more, all are forgotten. */
const MAX_REPORTED_KEYS = 10_000

/** How many ignored keys are logged. The others are only counted, because clients choose the names in keys. */
const MAX_LOGGED_IGNORED_KEYS = 1_000

/** Why the mirror is not synced, as shown to callers. Addresses and details are only logged. */
export const REASONS = {
  notAnswered: 'etcd has not answered yet',
  unreachable: "etcd can't be reached",
  timedOut: 'etcd does not answer in time',
  refused: 'etcd refuses the credentials',
  /** Followed by the sizes. */
  tooLarge: 'etcd holds a value that is too large',
  failed: 'the connection to etcd failed',
} as const

/** Counters since the start. */
export interface MetadataCounters {
  events: number
  /** Loads of the whole keyspace, without those made for a comparison. */
  loads: number
  /** Comparisons with a fresh load. */
  verifications: number
  /** Keys in which a comparison found a difference. Each is a defect. */
  differences: number
}

/** The mirror of the `/kafscale/` keyspace, and its age. */
export interface Metadata {
  /** `undefined` until the first load is complete. From then on always complete, at one revision. */
  readonly mirror: Mirror | undefined
  /**
   * `synced` requires a fresh probe and an open watch that has caught up with it; `unavailable` before the first load.
   */
  readonly state: 'synced' | 'stale' | 'unavailable'
  /** When the mirror was last known to be current: a probe confirmed it, or an event arrived. */
  readonly observedAt: Date
  /** Milliseconds since then. */
  readonly ageMs: number
  /** For how much of a period brokers could not store heartbeats, because etcd was away, in milliseconds. */
  awayMs: (fromMs: number, toMs: number) => number
  /** Why the state is not `synced`. Contains nothing secret. */
  readonly reason: string | undefined
  readonly counters: Readonly<MetadataCounters>
}

export default fp(async function metadata (app) {
  const synchronizer = new Synchronizer(app.etcd, app.log, app.config.verifyIntervalMs)
  app.decorate<Metadata>('metadata', synchronizer)
  app.addHook('onReady', async () => synchronizer.start())
  app.addHook('onClose', () => synchronizer.stop())
}, { name: 'metadata', dependencies: ['config', 'etcd'] })

/**
 * Keeps a mirror current. Every failure is handled in the same way: close the connection, open one to the next
 * endpoint, load a new mirror while the old one still answers, swap them. So a restart, a compaction, a restored backup
 * and a network failure need no code of their own.
 */
class Synchronizer implements Metadata {
  mirror: Mirror | undefined
  readonly counters: MetadataCounters = { events: 0, loads: 0, verifications: 0, differences: 0 }

  readonly #etcd: EtcdReader
  readonly #log: FastifyBaseLogger
  readonly #verifyIntervalMs: number
  readonly #stop = new AbortController()
  #running: Promise<void> | undefined

  #failure: string = REASONS.notAnswered
  /** The failure of each endpoint since the last load, so that an outage is logged once, not at every attempt. */
  readonly #failures = new Map<string, string>()
  #watchOpen = false
  /** The newest revision seen by a probe. An older event does not prove that the mirror is current. */
  #probedRevision = 0
  /** When the last probe that found the mirror current was sent, on the monotonic clock. */
  #confirmedAtMs = -Infinity
  /** When the mirror was last known to be current, on the monotonic clock and as a date. */
  #currentAtMs = -Infinity
  #currentAt = new Date(0)
  readonly #startedAt = new Date()
  readonly #outages = new Outages()
  /** The events that arrive during the load for a comparison. */
  #recorded: KeyEvent[] | undefined
  readonly #reportedKeys = new Set<string>()
  readonly #loggedIgnoredKeys = new Set<string>()

  constructor (etcd: EtcdReader, log: FastifyBaseLogger, verifyIntervalMs: number) {
    this.#etcd = etcd
    this.#log = log
    this.#verifyIntervalMs = verifyIntervalMs
  }

  get state (): Metadata['state'] {
    if (!this.mirror) return 'unavailable'
    return this.#watchOpen && performance.now() - this.#confirmedAtMs < PROBE_FRESH_MS ? 'synced' : 'stale'
  }

  get ageMs (): number {
    return Math.round(performance.now() - this.#currentAtMs)
  }

  get observedAt (): Date {
    return this.#currentAt
  }

  awayMs (fromMs: number, toMs: number): number {
    return this.#outages.within(fromMs, toMs)
  }

  get reason (): string | undefined {
    return this.state === 'synced' ? undefined : this.#failure
  }

  start (): void {
    this.#running = this.#run()
  }

  async stop (): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run (): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const connection = this.#etcd.connect()
      let retryMs = RETRY_INTERVAL_MS
      const leaving = new AbortController()
      try {
        await this.#follow(connection, AbortSignal.any([leaving.signal, this.#stop.signal]))
      } catch (error) {
        this.#lost(connection.endpoint, error as Error)
        if (error instanceof MessageTooLargeError && !this.#watchOpen) retryMs = TOO_LARGE_RETRY_INTERVAL_MS
      }
      this.#watchOpen = false
      this.#recorded = undefined
      leaving.abort()
      connection.close()
      await delay(retryMs, undefined, { signal: this.#stop.signal }).catch(() => {})
    }
  }

  /** Loads a mirror and keeps it current until something fails or the signal aborts. Always rejects. */
  async #follow (connection: EtcdConnection, signal: AbortSignal): Promise<never> {
    const ended = Promise.withResolvers<never>()
    signal.addEventListener('abort', () => ended.reject(signal.reason))
    return await Promise.race([ended.promise, this.#synchronize(connection, signal, ended.reject)])
  }

  async #synchronize (connection: EtcdConnection, signal: AbortSignal, onEnd: (error: Error) => void): Promise<never> {
    await connection.probe() // a load may take long, but an etcd that doesn't answer must be noticed soon
    const sentAtMs = performance.now()
    const mirror = await this.#load(connection)
    signal.throwIfAborted()
    if (this.#failures.size > 0) {
      this.#outages.add((this.mirror ? this.#currentAt : this.#startedAt).getTime(), Date.now())
    }
    this.mirror = mirror
    this.counters.loads++
    this.#failures.clear()
    this.#report(mirror.undecodable.keys())
    this.#logIgnored(mirror.ignored.keys())
    this.#probedRevision = mirror.revision
    this.#confirm(sentAtMs)
    this.#log.info(
      { endpoint: connection.endpoint, revision: mirror.revision, keys: mirror.modRevisions.size },
      'etcd loaded'
    )
    connection.watch(mirror.revision + 1, {
      onOpen: () => {
        this.#watchOpen = true
      },
      onEvents: events =>
        this.#apply(events.map(({ type, kv }) => ({ ...kv, type: type === 'PUT' ? 'put' : 'delete' }))),
      onEnd,
    })
    return await Promise.race([this.#probe(connection, signal), this.#verify(connection, signal)])
  }

  async #load (connection: EtcdConnection): Promise<Mirror> {
    const mirror = new Mirror()
    const { revision } = await connection.load(kvs => {
      for (const kv of kvs) mirror.apply({ type: 'put', ...kv })
    })
    mirror.revision = revision
    return mirror
  }

  #apply (events: KeyEvent[]): void {
    const mirror = this.mirror as Mirror
    // `#catchUp` may have advanced the revision past events that arrive late.
    const unseen = events.filter(event => event.modRevision > mirror.revision)
    for (const event of unseen) mirror.apply(event)
    mirror.revision = unseen.at(-1)?.modRevision ?? mirror.revision
    this.counters.events += unseen.length
    for (const event of unseen) this.#recorded?.push(event)
    if (mirror.undecodable.size > 0) this.#report(unseen.map(event => keyName(event.key)))
    if (mirror.ignored.size > 0) {
      const keys = unseen.map(event => keyName(event.key))
      // A new snapshot decides on ambiguous keys that were stored before.
      this.#logIgnored(keys.includes(SNAPSHOT) ? mirror.ignored.keys() : keys)
    }
    if (mirror.revision >= this.#probedRevision && this.state === 'synced') this.#current(performance.now())
  }

  async #probe (connection: EtcdConnection, signal: AbortSignal): Promise<never> {
    const openBeforeMs = performance.now() + MAX_BEHIND_MS
    for (;;) {
      const sentAtMs = performance.now()
      if (!this.#watchOpen && sentAtMs > openBeforeMs) throw new Error('etcd does not confirm the watch')
      const known = this.#revision
      const { revision } = await connection.probe()
      if (revision < known) throw new Error(`etcd went back from revision ${known} to ${revision}`)
      this.#probedRevision = revision
      await this.#catchUp(connection, signal, revision, sentAtMs + MAX_BEHIND_MS)
      this.#confirm(sentAtMs)
      await delay(Math.max(0, sentAtMs + PROBE_INTERVAL_MS - performance.now()), undefined, { signal })
    }
  }

  /** Resolves when the mirror is at `revision` or newer; rejects when it is not by the deadline. */
  async #catchUp (
    connection: EtcdConnection,
    signal: AbortSignal,
    revision: number,
    deadlineMs: number
  ): Promise<void> {
    while (!await this.#reaches(revision, signal)) {
      // Writes outside the prefix advance etcd's revision too, but the watch does not report them.
      const known = this.#revision
      const changes = await connection.changesSince(known)
      const mirror = this.mirror as Mirror
      if (mirror.revision !== known) continue
      if (!changes.written && changes.keys === mirror.modRevisions.size) {
        mirror.revision = changes.revision
        this.#recorded = undefined
      } else if (performance.now() > deadlineMs) {
        throw new Error(`the watch is behind: it is at revision ${known}, etcd at ${changes.revision}`)
      }
    }
  }

  async #reaches (revision: number, signal: AbortSignal): Promise<boolean> {
    const deadlineMs = performance.now() + CATCH_UP_MS
    while (this.#revision < revision) {
      if (performance.now() > deadlineMs) return false
      await delay(10, undefined, { signal })
    }
    return true
  }

  /** Compares the mirror with a fresh load at every interval. Rejects when they differ. */
  async #verify (connection: EtcdConnection, signal: AbortSignal): Promise<never> {
    if (this.#verifyIntervalMs === 0) return await new Promise(() => {})
    for (;;) {
      await longDelay(this.#verifyIntervalMs, signal)
      const recorded: KeyEvent[] = []
      this.#recorded = recorded
      const fresh = await this.#load(connection)
      while (!await this.#reaches(fresh.revision, signal));
      if (this.#recorded !== recorded) continue // `#catchUp` advanced the revision: recorded events may be missing
      this.#recorded = undefined
      for (const event of recorded) if (event.modRevision > fresh.revision) fresh.apply(event)
      const differences = fresh.differences(this.mirror as Mirror)
      this.counters.verifications++
      this.counters.differences += differences.length
      for (const key of differences) {
        this.#log.error({ key: quote(key), revision: fresh.revision }, 'the mirror differs from etcd')
      }
      if (differences.length > 0) throw new Error('the mirror differs from etcd, so it is loaded again')
    }
  }

  get #revision (): number {
    return this.mirror?.revision ?? 0
  }

  #confirm (sentAtMs: number): void {
    this.#confirmedAtMs = sentAtMs
    this.#current(sentAtMs)
  }

  #current (atMs: number): void {
    if (atMs <= this.#currentAtMs) return
    this.#currentAtMs = atMs
    this.#currentAt = new Date(Date.now() - (performance.now() - atMs))
  }

  #report (keys: Iterable<string>): void {
    for (const key of keys) {
      const defects = this.mirror?.undecodable.get(key)
      if (!defects || this.#reportedKeys.has(key)) continue
      if (this.#reportedKeys.size === MAX_REPORTED_KEYS) this.#reportedKeys.clear()
      this.#reportedKeys.add(key)
      this.#log.warn(
        { key: quote(key), defects: defects.slice(0, 5).map(escapeUnprintable), count: defects.length },
        'a stored value could not be decoded'
      )
    }
  }

  #logIgnored (keys: Iterable<string>): void {
    const logged = this.#loggedIgnoredKeys
    for (const key of keys) {
      if (logged.size === MAX_LOGGED_IGNORED_KEYS) return
      const reason = this.mirror?.ignored.get(key)
      if (!reason || logged.has(key)) continue
      logged.add(key)
      const last = logged.size === MAX_LOGGED_IGNORED_KEYS && { further: 'counted in /healthz, but no longer logged' }
      this.#log.warn({ key: quote(key), reason, ...last }, 'a key is ignored')
    }
  }

  #lost (endpoint: string, error: Partial<grpc.ServiceError> & Error): void {
    if (this.#stop.signal.aborted) return
    this.#failure = reasonOf(error)
    // The load knows the key, unlike the watch before it.
    const known = error instanceof MessageTooLargeError ? error.message : this.#failure
    if (this.#failures.get(endpoint) !== known) {
      this.#log.warn({ endpoint, reason: error.details ?? error.message }, 'etcd lost')
    }
    this.#failures.set(endpoint, known)
  }
}

/** Why etcd does not answer, as shown to callers. */
export function reasonOf (error: Partial<grpc.ServiceError> & Error): string {
  if (error instanceof MessageTooLargeError) {
    const [size, most] = [error.bytes, error.maxBytes].map(bytes => Number((bytes / 1024 / 1024).toFixed(1)))
    return `${REASONS.tooLarge}: ${size} MB, and at most ${most} MB are loaded`
  }
  const { code, details = '' } = error
  // grpc-js reports an expired deadline; so does etcd, which gets the deadline with the request and may be first.
  if (/deadline exceeded/i.test(details)) return REASONS.timedOut
  switch (code) {
    case grpc.status.UNAUTHENTICATED:
    case grpc.status.PERMISSION_DENIED:
    case grpc.status.INVALID_ARGUMENT:
      return REASONS.refused
    case grpc.status.UNAVAILABLE:
    case grpc.status.CANCELLED:
      return REASONS.unreachable
    default:
      return REASONS.failed
  }
}
