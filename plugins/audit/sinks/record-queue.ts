import type { Body } from '../chain.ts'
import type { Draft } from './draft.ts'

/** Records that may wait for a slow sink. */
const MAX_QUEUED = 5_000
const MAX_BATCH_RECORDS = 500
const MAX_BATCH_BYTES = 1024 * 1024

/** A record that somebody waits for. */
export interface PendingRecord {
  readonly body: Body
  /** It has to survive a crash before it counts as written. */
  readonly durable: boolean
  /** On the clock of `performance.now()`. */
  readonly sinceMs: number
  /** The record in the chain, once it is drafted. */
  line: string
  readonly resolve: (line: string) => void
  readonly reject: (error: Error) => void
}

/** Records on their way to a medium, in order: those that wait, and the one batch that is being appended. */
export class RecordQueue {
  readonly #waiting: PendingRecord[] = []
  #inFlight: PendingRecord[] = []

  get isEmpty (): boolean {
    return this.#waiting.length === 0
  }

  get isFull (): boolean {
    return this.#waiting.length >= MAX_QUEUED
  }

  /** Everything that is not settled yet, the oldest first. */
  get pending (): PendingRecord[] {
    return [...this.#inFlight, ...this.#waiting]
  }

  add (record: PendingRecord): void {
    this.#waiting.push(record)
  }

  /** Moves one batch of records into a draft, and so into flight. */
  fill (draft: Draft): void {
    while (this.#waiting.length > 0 && this.#inFlight.length < MAX_BATCH_RECORDS && draft.bytes < MAX_BATCH_BYTES) {
      const record = this.#waiting.shift() as PendingRecord
      this.#inFlight.push(record)
      record.line = draft.add(record.body)
    }
  }

  /** Hands over records in flight that were appended: the first ones, all by default. */
  takeAppended (count = this.#inFlight.length): PendingRecord[] {
    return this.#inFlight.splice(0, count)
  }

  /** Makes records in flight wait again, before all others. */
  putBack (): void {
    this.#waiting.unshift(...this.takeAppended())
  }

  /** Hands over the batch in flight, which could not be appended; without one, everything that waits. */
  takeRefused (): PendingRecord[] {
    return this.#inFlight.length > 0 ? this.takeAppended() : this.#waiting.splice(0)
  }
}
