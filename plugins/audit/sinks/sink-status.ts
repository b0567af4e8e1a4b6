import type { FastifyBaseLogger } from 'fastify'
import type { Gap } from '../chain.ts'
import type { Medium, Opened } from './medium.ts'

/** How a sink is doing. A reason contains no path and no address. */
export interface SinkState {
  kind: Medium['kind']
  state: 'ok' | 'failed'
  reason?: string
  /** Records that this sink has accepted, and those that it has not, since the start. */
  written: number
  missed: number
  /** Gaps recorded in its chain since the start. */
  gaps: number
}

/** Records that a sink has missed, as its chain records them. */
export type MissedRecords = Gap & { records: number }

/** Counts what a sink has accepted and missed, and logs when it fails and when it recovers. */
export class SinkStatus {
  readonly #kind: Medium['kind']
  readonly #log: FastifyBaseLogger
  #failure: { reason: string, stalled: boolean } | undefined
  #written = 0
  #missed = 0
  #gaps = 0
  /** Those of the missed records that the chain has no gap for yet. */
  #unrecorded: { records: number, since: string } | undefined

  constructor (kind: Medium['kind'], log: FastifyBaseLogger) {
    this.#kind = kind
    this.#log = log
  }

  get state (): SinkState {
    const kind = this.#kind
    const counts = { written: this.#written, missed: this.#missed, gaps: this.#gaps }
    return this.#failure
      ? { kind, state: 'failed', reason: this.#failure.reason, ...counts }
      : { kind, state: 'ok', ...counts }
  }

  /** Why the medium hangs, if it does. */
  get stallReason (): string | undefined {
    return this.#failure?.stalled ? this.#failure.reason : undefined
  }

  /** The gap that the chain has yet to record. */
  get unrecordedGap (): MissedRecords | undefined {
    return this.#unrecorded && { ...this.#unrecorded, reason: this.#failure?.reason ?? 'the queue was full' }
  }

  accepted (records: number): void {
    this.#written += records
    if (this.#failure) {
      this.#log.warn({ sink: this.#kind, missed: this.#missed }, 'an audit sink is accepting records again')
    }
    this.#failure = undefined
  }

  missed (records: number): void {
    if (records === 0) return
    this.#missed += records
    this.#unrecorded = {
      since: this.#unrecorded?.since ?? new Date().toISOString(),
      records: (this.#unrecorded?.records ?? 0) + records,
    }
  }

  /** @param stalled the medium has not refused: it does not answer */
  failed (error: NodeJS.ErrnoException, stalled = false): void {
    if (!this.#failure) this.#log.error({ err: error, sink: this.#kind }, 'an audit sink is not accepting records')
    this.#failure = {
      reason: error.syscall ? `${error.syscall}: ${error.code}` : error.message,
      stalled: stalled || this.#failure?.stalled === true,
    }
  }

  /** The chain now records a gap that was unrecorded. More records may have been missed in the meantime. */
  gapRecorded ({ records }: MissedRecords): void {
    this.#gaps++
    if (!this.#unrecorded) return
    const left = this.#unrecorded.records - records
    this.#unrecorded = left > 0 ? { ...this.#unrecorded, records: left } : undefined
  }

  /** The chain now records the damage that the medium was opened with. */
  damageRecorded ({ torn, gap }: Opened): void {
    if (gap) this.#gaps++
    this.#log[gap ? 'error' : 'warn']({ sink: this.#kind, torn, gap }, 'an audit log is not as the service left it')
  }

  rotationFailed (err: Error): void {
    this.#log.error({ err }, 'an audit file could not be rotated')
  }

  /** @param unwritten records that the medium has not accepted by now */
  closed (unwritten: number): void {
    const records = unwritten + (this.#unrecorded?.records ?? 0)
    if (records > 0) this.#log.error({ sink: this.#kind, records }, 'an audit sink was closed without these records')
  }
}
