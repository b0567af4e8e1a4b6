import type { KeyObject } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { Body } from '../chain.ts'
import { ChainWriter } from './chain-writer.ts'
import { Checkpoints } from './checkpoints.ts'
import type { Medium } from './medium.ts'
import { type PendingRecord, RecordQueue } from './record-queue.ts'
import { LATE, reasonOf, type SinkState, SinkStatus } from './sink-status.ts'
import { Syncer } from './syncer.ts'

/** A record that is not written within this time is refused. */
const WRITE_BOUND_MS = 5_000
const SWEEP_INTERVAL_MS = 250
/** How long a close waits for records that are not written yet. */
const CLOSE_BOUND_MS = 5_000

export interface SinkOptions {
  /** Signs checkpoints. */
  key?: KeyObject | undefined
  log: FastifyBaseLogger
  /** Called with each checkpoint of a log in files, once it is durable. */
  onHead?: (head: string) => void
  /** Whether the newest head is kept in a file. */
  hasHeadFile?: (() => boolean) | undefined
}

/**
 * One chain of records on one medium. Records that arrive while others are being written form the next batch. A medium
 * that fails refuses its batch; once it works again, the chain records how many records it is missing, so that it can
 * be verified without any other sink.
 */
export class Sink {
  readonly #medium: Medium
  readonly #log: FastifyBaseLogger
  readonly #status: SinkStatus
  readonly #queue = new RecordQueue()
  readonly #checkpoints: Checkpoints
  readonly #syncer: Syncer
  readonly #writer: ChainWriter
  #running: Promise<void> | undefined
  #sweepTimer: NodeJS.Timeout | undefined
  #closing = false

  constructor (medium: Medium, { key, log, onHead, hasHeadFile }: SinkOptions) {
    this.#medium = medium
    this.#log = log
    this.#status = new SinkStatus(medium.kind, log)
    this.#checkpoints = new Checkpoints(key, () => this.#wake(), hasHeadFile)
    this.#syncer = new Syncer(medium, error => this.#status.failed(error))
    const publish = (head: string) => {
      log.info({ head }, 'the audit log was sealed')
      onHead?.(head)
    }
    this.#writer = new ChainWriter(medium, this.#checkpoints, this.#syncer, this.#status, publish)
  }

  get kind (): Medium['kind'] {
    return this.#medium.kind
  }

  get state (): SinkState {
    return this.#status.state
  }

  /** Whether a record is durable only some time after it was written. */
  get syncs (): boolean {
    return this.#syncer.isNeeded
  }

  /** Takes what only one process may have. @throws {ConfigError} when a running one has it */
  async prepare (): Promise<void> {
    await this.#medium.prepare?.(this.#log)
  }

  /**
   * Resolves with the record's line once the medium has it; with `durable`, once it also survives a crash. Rejects when
   * the medium fails, or has not answered in time: the record may still be written then.
   */
  write (body: Body, durable: boolean): Promise<string> {
    if (this.#closing) return Promise.reject(new Error('the sink is closed'))
    if (this.#queue.isFull) {
      this.#status.missed(1)
      return Promise.reject(new Error('the queue is full'))
    }
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    this.#queue.add({ body, durable, sinceMs: performance.now(), line: '', resolve, reject })
    // The record stays queued until the medium answers again, but its caller need not wait for that.
    const { stallReason } = this.#status
    if (stallReason !== undefined) reject(new Error(stallReason))
    this.#wake()
    return promise
  }

  /** Adds a checkpoint after the records so far, unless they have one. */
  seal (): void {
    this.#checkpoints.demand()
  }

  /** Writes the records that are left and a closing checkpoint, then closes the medium. */
  async close (): Promise<void> {
    this.#closing = true
    this.#checkpoints.stop()
    const finish = async () => {
      await this.#running
      await this.#writer.writeBatch(this.#queue, { closing: true })
      await this.#syncer.flush()
    }
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(() => {
      this.#status.stalled()
      late.resolve()
    }, CLOSE_BOUND_MS)
    await Promise.race([finish(), late.promise]).catch((error: Error) => this.#status.failed(error))
    clearTimeout(timer)
    this.#syncer.stop()
    clearInterval(this.#sweepTimer)
    this.#status.closed(this.#queue.pending.length)
    await this.#medium.close()
  }

  #wake (): void {
    // The checkpoint timer can be set again while the last records are written.
    if (this.#closing) return
    this.#sweepTimer ??= setInterval(() => this.#sweep(), SWEEP_INTERVAL_MS).unref()
    // Records of one turn of the event loop form one batch.
    this.#running ??= new Promise<void>(resolve => { setImmediate(resolve) }).then(() => this.#run())
  }

  async #run (): Promise<void> {
    while (!this.#queue.isEmpty || this.#checkpoints.due) {
      try {
        await this.#writer.writeBatch(this.#queue)
      } catch (error) {
        this.#refuse(error as Error)
      }
    }
    this.#running = undefined
  }

  #refuse (error: Error): void {
    const refused = this.#queue.takeRefused()
    this.#checkpoints.postpone()
    this.#status.missed(refused.length, reasonOf(error))
    this.#status.failed(error)
    for (const { reject } of refused) reject(error)
  }

  /** Rejects records that have waited too long. They stay on their way: the medium may still accept them. */
  #sweep (): void {
    const oldestMs = performance.now() - WRITE_BOUND_MS
    const isLate = ({ sinceMs }: PendingRecord) => sinceMs < oldestMs
    const unsynced = this.#syncer.pending.filter(isLate)
    const unwritten = this.#queue.pending.filter(isLate)
    if (unsynced.length > 0 || unwritten.length > 0) {
      // A backlog that the medium is working off is no new failure.
      if (unsynced.length > 0 || this.#status.acceptedAtMs < oldestMs) this.#status.stalled()
      const error = new Error(this.#status.stallReason ?? LATE)
      for (const { reject } of [...unsynced, ...unwritten]) reject(error)
    } else if (!this.#running && this.#syncer.isIdle) {
      clearInterval(this.#sweepTimer)
      this.#sweepTimer = undefined
    }
  }
}
