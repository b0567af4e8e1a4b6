import type { Medium } from './medium.ts'
import type { PendingRecord } from './record-queue.ts'

/** Leaves time for the sync itself within the 100 ms after which a record is promised to be durable. */
const DELAY_MS = 50

/** Makes appended records durable. One sync is under way at a time, and serves everything appended before it began. */
export class Syncer {
  readonly #medium: Pick<Medium, 'sync'>
  readonly #onFailure: (error: Error) => void
  #unsynced = false
  /** Records waiting for the next sync, and for the one under way. */
  #waiting: PendingRecord[] = []
  #inSync: PendingRecord[] = []
  #timer: NodeJS.Timeout | undefined
  #syncing: Promise<void> | undefined

  constructor (medium: Pick<Medium, 'sync'>, onFailure: (error: Error) => void) {
    this.#medium = medium
    this.#onFailure = onFailure
  }

  /** Whether the medium can do more than hand a record over. */
  get isNeeded (): boolean {
    return this.#medium.sync !== undefined
  }

  get isIdle (): boolean {
    return this.#syncing === undefined
  }

  /** Records that are not settled yet, the oldest first. */
  get pending (): PendingRecord[] {
    return [...this.#inSync, ...this.#waiting]
  }

  /** Resolves appended records: at once, or after the next sync if they must be durable. */
  settle (appended: readonly PendingRecord[]): void {
    for (const record of appended) {
      if (record.durable && this.isNeeded) this.#waiting.push(record)
      else record.resolve(record.line)
    }
    this.schedule()
  }

  /** Something was appended: it is synced at once if a record waits for it, and soon otherwise. */
  schedule (): void {
    if (!this.isNeeded) return
    this.#unsynced = true
    if (this.#waiting.length > 0) void this.flush()
    else this.#timer ??= setTimeout(() => this.flush(), DELAY_MS)
  }

  /** Resolves when everything that was appended is durable, or a sync has failed. */
  async flush (): Promise<void> {
    this.stop()
    if (this.#unsynced) this.#syncing ??= this.#sync()
    await this.#syncing
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  async #sync (): Promise<void> {
    while (this.#unsynced) {
      this.#inSync = this.#waiting
      this.#waiting = []
      this.#unsynced = false
      try {
        await this.#medium.sync?.()
        for (const { resolve, line } of this.#inSync) resolve(line)
      } catch (error) {
        this.#onFailure(error as Error)
        for (const { reject } of this.#inSync) reject(error as Error)
      }
      this.#inSync = []
    }
    this.#syncing = undefined
  }
}
