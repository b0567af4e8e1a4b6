import type { FastifyBaseLogger } from 'fastify'
import type { Gap } from '../chain.ts'
import type { Attempt, Medium, Opened } from './medium.ts'

/** Why a record is refused if nothing else is known. */
export const LATE = 'records were not accepted in time'

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
  /** What a collector has answered since the start: how often, by HTTP status. `none`: no answer. */
  answers?: Record<string, number>
}

/** Records that a sink has missed, as its chain records them. */
export type MissedRecords = Gap & { records: number }

/** Counts what a sink has accepted and missed, and logs when it fails and when it recovers. */
export class SinkStatus {
  readonly #kind: Medium['kind']
  readonly #log: FastifyBaseLogger
  #failure: { reason: string, stalled: boolean, refused: boolean } | undefined
  /** Why the latest attempt has failed. */
  #trouble: string | undefined
  #written = 0
  #missed = 0
  #gaps = 0
  #acceptedAtMs = -Infinity
  readonly #answers: Record<string, number> = {}
  /** Those of the missed records that the chain has no gap for yet, by reason. */
  readonly #unrecorded = new Map<string, { records: number, since: string }>()

  constructor (kind: Medium['kind'], log: FastifyBaseLogger) {
    this.#kind = kind
    this.#log = log
  }

  get state (): SinkState {
    const counts = {
      written: this.#written,
      missed: this.#missed,
      gaps: this.#gaps,
      ...this.#kind === 'http' && { answers: { ...this.#answers } },
    }
    const kind = this.#kind
    return this.#failure
      ? { kind, state: 'failed', reason: this.#failure.reason, ...counts }
      : { kind, state: 'ok', ...counts }
  }

  /** Why the medium hangs, if it does. */
  get stallReason (): string | undefined {
    return this.#failure?.stalled ? this.#failure.reason : undefined
  }

  /** When the medium last took lines, on the clock of `performance.now()`. */
  get acceptedAtMs (): number {
    return this.#acceptedAtMs
  }

  /** The gaps that the chain has yet to record. */
  get unrecordedGaps (): MissedRecords[] {
    return [...this.#unrecorded].map(([reason, missed]) => ({ ...missed, reason }))
  }

  /** A single failure may be a restart: a second one in a row counts. */
  attempted ({ status, failure }: Attempt): void {
    this.#answers[status] = (this.#answers[status] ?? 0) + 1
    if (failure !== undefined && this.#trouble !== undefined) this.failed(new Error(failure))
    this.#trouble = failure
  }

  /** The medium has taken lines, of which so many are records. */
  accepted (records: number): void {
    this.#written += records
    this.#acceptedAtMs = performance.now()
    // After a refused record, only another record proves that records are accepted.
    if (this.#failure?.refused && records === 0) return
    if (this.#failure) {
      this.#log.warn({ sink: this.#kind, missed: this.#missed }, 'an audit sink is accepting records again')
    }
    this.#failure = undefined
  }

  /** The medium will never take a record. */
  refused (reason: string): void {
    this.missed(1, reason)
    this.failed(new Error(reason))
    if (this.#failure) this.#failure.refused = true
  }

  missed (records: number, reason = this.#failure?.reason ?? 'the queue was full'): void {
    if (records === 0) return
    this.#missed += records
    const { records: before = 0, since = new Date().toISOString() } = this.#unrecorded.get(reason) ?? {}
    this.#unrecorded.set(reason, { records: before + records, since })
  }

  /** The medium has not answered for too long. */
  stalled (): void {
    this.failed(new Error(this.#trouble ?? LATE))
    if (this.#failure) this.#failure.stalled = true
  }

  failed (error: NodeJS.ErrnoException): void {
    const reason = reasonOf(error)
    // Logged once per reason, not once per record or attempt.
    if (this.#failure?.reason !== reason) {
      this.#log.error({ err: error, sink: this.#kind }, 'an audit sink is not accepting records')
    }
    this.#failure = { stalled: false, refused: false, ...this.#failure, reason }
  }

  /** The chain now records a gap that was unrecorded. More records may have been missed in the meantime. */
  gapRecorded ({ records, reason }: MissedRecords): void {
    this.#gaps++
    const missed = this.#unrecorded.get(reason)
    if (!missed) return
    const left = missed.records - records
    if (left > 0) this.#unrecorded.set(reason, { ...missed, records: left })
    else this.#unrecorded.delete(reason)
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
    const records = unwritten + this.unrecordedGaps.reduce((sum, { records }) => sum + records, 0)
    if (records > 0) this.#log.error({ sink: this.#kind, records }, 'an audit sink was closed without these records')
  }
}

/** Why a medium has failed, without a path or an address. */
export function reasonOf (error: NodeJS.ErrnoException): string {
  return error.syscall ? `${error.syscall}: ${error.code}` : error.message
}
