import type { KeyObject } from 'node:crypto'
import { hostname } from 'node:os'
import type { FastifyBaseLogger } from 'fastify'
import { type Body, chain, checkpoint, type End, header } from '../chain.ts'

/** A record is taken within so long, or refused. */
const TAKE_BOUND_MS = 5_000
const SWEEP_INTERVAL_MS = 250
/** Ends well before the 100 ms within which a record is promised to be durable. */
const SYNC_DELAY_MS = 50
/** What waits for a sink that is slow. More is refused and counted. */
const MAX_QUEUED = 5_000
const MAX_BATCH_RECORDS = 500
const MAX_BATCH_BYTES = 1024 * 1024
const CHECKPOINT_RECORDS = 1_000
const CHECKPOINT_INTERVAL_MS = 60_000
/** How long a close waits for what a sink has not taken yet. */
const CLOSE_BOUND_MS = 5_000

/** Which instance of the service writes. */
export const REPLICA = hostname()

/** A file of a chain (or the one stream of a process), and the end of the chain in it. */
export interface Position { file: number, end: End }

/** What a medium holds when it is opened. */
export interface Opened {
  /** Where the chain goes on. */
  position: Position
  /** A header comes first, for nothing is there yet. */
  begins: boolean
  /** An earlier run has left records behind its last checkpoint. */
  unsealed?: boolean
  /** The file is large or old enough to be closed and set beside. */
  due?: boolean
  /** What a crash has left of a last line, and where it is kept. */
  torn?: { bytes: number, sha256: string, set_aside: string } | undefined
  /** What had been taken and is not there any more; how many records, where that is known. */
  gap?: { records: number | null, reason: string } | undefined
}

/** Where lines go: what differs from one kind of sink to the next. */
export interface Medium {
  readonly kind: 'stdout' | 'file' | 'http'
  /** Makes sure that lines can be appended, behind `position` if this process has written any. */
  open: (position: Position | undefined) => Promise<Opened>
  /** Resolves once all lines are handed over; when it rejects, none is. */
  append: (lines: string) => Promise<void>
  /** Makes all that was appended durable. Absent where handing over is all there is. */
  sync?: () => Promise<void>
  /** Sets the file aside, which ends with a closing checkpoint. */
  rotate?: (file: number) => Promise<void>
  close: () => Promise<void>
}

interface Waiting {
  body: Body
  durable: boolean
  sinceMs: number
  resolve: (line: string) => void
  reject: (error: Error) => void
}

/** How a sink is doing. A reason names no path and no address. */
export interface SinkState {
  kind: Medium['kind']
  state: 'ok' | 'failed'
  reason?: string
  /** Records that this sink has taken, and those that it did not take, since the start. */
  written: number
  missed: number
  /** How often its chain tells of records that it is without. */
  gaps: number
}

/** What a checkpoint says that seals records of an earlier run: whoever signs it has not seen them written. */
const FOUND = { found: true }

/** Lines that come behind the end of a chain; nothing is settled until they are appended. */
class Draft {
  readonly #key: KeyObject | undefined
  end: End
  unsealed: number
  text = ''

  constructor (end: End, unsealed: number, key: KeyObject | undefined) {
    this.end = end
    this.unsealed = unsealed
    this.#key = key
  }

  add (body: Body): string {
    const { line, end } = chain(this.end, body)
    this.end = end
    this.text += `${line}\n`
    this.unsealed++
    return line
  }

  /** A record of the chain itself. */
  note (body: Body): void {
    this.add({ ...body, ...stamp() })
  }

  seal (closing: boolean, more: Partial<Body> = {}): void {
    this.add(checkpoint(this.end, { ...stamp(), ...more }, closing, this.#key))
    this.unsealed = 0
  }
}

function stamp (): { time: string, where: { replica: string } } {
  return { time: new Date().toISOString(), where: { replica: REPLICA } }
}

/**
 * One chain of records onto one medium. Records that come while others are being written are written together. A medium
 * that fails refuses its batch, and when it works again the chain says how many records it is without: a sink's chain is
 * whole by itself.
 */
export class Sink {
  readonly #medium: Medium
  readonly #key: KeyObject | undefined
  readonly #log: FastifyBaseLogger
  #position: Position | undefined
  /** Records behind the last checkpoint. */
  #unsealed = 0
  #sealTimer: NodeJS.Timeout | undefined
  #sealDue = false

  readonly #queue: Waiting[] = []
  #inFlight: Waiting[] = []
  #running: Promise<void> | undefined
  #sweepTimer: NodeJS.Timeout | undefined
  #closing = false

  #unsynced = false
  /** Appended, and to be durable: behind the next sync, and behind the one under way. */
  #toSync: Waiting[] = []
  #inSync: Waiting[] = []
  #syncTimer: NodeJS.Timeout | undefined
  #syncing: Promise<void> | undefined

  #failure: { reason: string, stalled: boolean } | undefined
  #written = 0
  #gaps = 0
  #missed = 0
  /** Those of them that the chain doesn't tell of yet. */
  #untold: { records: number, since: string } | undefined

  constructor (medium: Medium, { key, log }: { key?: KeyObject | undefined, log: FastifyBaseLogger }) {
    this.#medium = medium
    this.#key = key
    this.#log = log
  }

  get state (): SinkState {
    const { kind } = this.#medium
    const counted = { written: this.#written, missed: this.#missed, gaps: this.#gaps }
    return this.#failure
      ? { kind, state: 'failed', reason: this.#failure.reason, ...counted }
      : { kind, state: 'ok', ...counted }
  }

  /** Whether there is more to be had than handing a record over. */
  get syncs (): boolean {
    return this.#medium.sync !== undefined
  }

  /** Resolves with the record's line once the medium has it: with `durable`, once it also survives a crash. */
  write (body: Body, durable: boolean): Promise<string> {
    if (this.#closing) return Promise.reject(new Error('the sink is closed'))
    if (this.#queue.length >= MAX_QUEUED) {
      this.#miss(1)
      return Promise.reject(new Error('the queue is full'))
    }
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    this.#queue.push({ body, durable, sinceMs: performance.now(), resolve, reject })
    // It stays in the queue and is written when the medium answers again, but nobody is kept waiting for that.
    if (this.#failure?.stalled) reject(new Error(this.#failure.reason))
    this.#wake()
    return promise
  }

  /** Writes what is left, and a closing checkpoint. */
  async close (): Promise<void> {
    this.#closing = true
    clearTimeout(this.#sealTimer)
    const finish = async () => {
      await this.#running
      await this.#append(true)
      await this.#sync()
    }
    const bound = Promise.withResolvers<never>()
    const timer = setTimeout(() => bound.reject(new Error('it did not take the rest in time')), CLOSE_BOUND_MS)
    await Promise.race([finish(), bound.promise]).catch((error: Error) => this.#fail(error, false))
    clearTimeout(timer)
    clearTimeout(this.#syncTimer)
    clearInterval(this.#sweepTimer)
    const lost = this.#queue.length + this.#inFlight.length + (this.#untold?.records ?? 0)
    if (lost > 0) {
      this.#log.error({ sink: this.#medium.kind, records: lost }, 'an audit sink is closed without these records')
    }
    await this.#medium.close()
  }

  #wake (): void {
    if (this.#closing) return
    this.#sweepTimer ??= setInterval(() => this.#sweep(), SWEEP_INTERVAL_MS).unref()
    // The records of one turn of the event loop are one batch.
    this.#running ??= new Promise<void>(resolve => { setImmediate(resolve) }).then(() => this.#run())
  }

  async #run (): Promise<void> {
    while (this.#queue.length > 0 || this.#sealDue) {
      try {
        await this.#append(false)
      } catch (error) {
        const refused = this.#inFlight.length > 0 ? this.#inFlight : this.#queue.splice(0)
        this.#inFlight = []
        this.#sealDue = false
        this.#sealLater()
        this.#miss(refused.length)
        this.#fail(error as Error, false)
        for (const { reject } of refused) reject(error as Error)
      }
    }
    this.#running = undefined
  }

  async #append (closing: boolean): Promise<void> {
    const medium = this.#medium
    let opened = await medium.open(this.#position)
    this.#position = opened.position
    if (opened.due && medium.rotate) opened = await this.#rotate(opened)
    const { position: { file, end }, begins, unsealed, torn, gap } = opened

    const draft = new Draft(end, this.#unsealed, this.#key)
    // However often it crashes, there are never more records without a checkpoint than one run may leave.
    if (unsealed && !begins) draft.seal(false, FOUND)
    if (begins) draft.note(header(file + 1, end))
    if (torn) draft.note({ event: 'torn_line', torn })
    if (gap) draft.note({ event: 'gap', gap: { since: null, ...gap } })
    const untold = this.#untold
    if (untold) draft.note({ event: 'gap', gap: { ...untold, reason: this.#failure?.reason ?? 'the queue was full' } })

    const lines: string[] = []
    while (this.#queue.length > 0 && lines.length < MAX_BATCH_RECORDS && draft.text.length < MAX_BATCH_BYTES) {
      const waiting = this.#queue.shift() as Waiting
      this.#inFlight.push(waiting)
      lines.push(draft.add(waiting.body))
      if (draft.unsealed >= CHECKPOINT_RECORDS) draft.seal(false)
    }
    if (closing || (this.#sealDue && draft.unsealed > 0)) draft.seal(closing)
    this.#sealDue = false
    if (draft.text === '') return

    await medium.append(draft.text)
    this.#position = { file: begins ? file + 1 : file, end: draft.end }
    this.#unsealed = draft.unsealed
    this.#written += lines.length
    this.#gaps += Number(gap !== undefined) + Number(untold !== undefined)
    if (untold && this.#untold) {
      this.#untold = this.#untold.records > untold.records
        ? { ...this.#untold, records: this.#untold.records - untold.records }
        : undefined
    }
    if (torn ?? gap) {
      this.#log[gap ? 'error' : 'warn']({ sink: medium.kind, torn, gap }, 'an audit log is not as it was left')
    }
    this.#succeed()
    this.#take(lines)
  }

  /** Closes the file with a checkpoint. When it can't be set aside, the chain goes on in it. */
  async #rotate (opened: Opened): Promise<Opened> {
    const { file, end } = opened.position
    const draft = new Draft(end, this.#unsealed, this.#key)
    draft.seal(true, opened.unsealed ? FOUND : {})
    await this.#medium.append(draft.text)
    this.#position = { file, end: draft.end }
    this.#unsealed = 0
    this.#unsynced = true
    await this.#sync()
    await this.#medium.rotate?.(file).catch((err: Error) =>
      this.#log.error({ err }, 'an audit file could not be rotated')
    )
    return { ...opened, unsealed: false, ...await this.#medium.open(this.#position) }
  }

  /** Tells those who wait for the batch under way that it is taken. */
  #take (lines: string[]): void {
    const taken = this.#inFlight
    this.#inFlight = []
    this.#sealLater()
    const syncs = this.#medium.sync !== undefined
    for (const [index, waiting] of taken.entries()) {
      const line = lines[index] as string
      if (waiting.durable && syncs) this.#toSync.push({ ...waiting, resolve: () => waiting.resolve(line) })
      else waiting.resolve(line)
    }
    if (!syncs) return
    this.#unsynced = true
    if (this.#toSync.length > 0) void this.#sync()
    else this.#syncTimer ??= setTimeout(() => this.#sync(), SYNC_DELAY_MS)
  }

  #sealLater (): void {
    if (this.#unsealed === 0) return
    this.#sealTimer ??= setTimeout(() => {
      this.#sealTimer = undefined
      this.#sealDue = true
      this.#wake()
    }, CHECKPOINT_INTERVAL_MS).unref()
  }

  /** Makes what is appended durable; one sync is under way at a time, and serves all that came before it. */
  async #sync (): Promise<void> {
    clearTimeout(this.#syncTimer)
    this.#syncTimer = undefined
    if (this.#unsynced) this.#syncing ??= this.#syncAll()
    await this.#syncing
  }

  async #syncAll (): Promise<void> {
    while (this.#unsynced) {
      this.#inSync = this.#toSync
      this.#toSync = []
      this.#unsynced = false
      try {
        await this.#medium.sync?.()
        for (const { resolve } of this.#inSync) resolve('')
      } catch (error) {
        this.#fail(error as Error, false)
        for (const { reject } of this.#inSync) reject(error as Error)
      }
      this.#inSync = []
    }
    this.#syncing = undefined
  }

  /** Refuses what has waited too long. It may still be written: the medium has not said no. */
  #sweep (): void {
    const oldestMs = performance.now() - TAKE_BOUND_MS
    const late = [...this.#inSync, ...this.#toSync, ...this.#inFlight, ...this.#queue].filter(({ sinceMs }) =>
      sinceMs < oldestMs
    )
    if (late.length > 0) {
      const error = new Error('it takes no record in time')
      this.#fail(error, true)
      for (const { reject } of late) reject(error)
    } else if (!this.#running && !this.#syncing) {
      clearInterval(this.#sweepTimer)
      this.#sweepTimer = undefined
    }
  }

  #miss (records: number): void {
    if (records === 0) return
    this.#missed += records
    this.#untold = {
      since: this.#untold?.since ?? new Date().toISOString(),
      records: (this.#untold?.records ?? 0) + records,
    }
  }

  #fail (error: NodeJS.ErrnoException, stalled: boolean): void {
    if (!this.#failure) this.#log.error({ err: error, sink: this.#medium.kind }, 'an audit sink takes no records')
    this.#failure = {
      reason: error.syscall ? `${error.syscall}: ${error.code}` : error.message,
      stalled: stalled || this.#failure?.stalled === true,
    }
  }

  #succeed (): void {
    if (this.#failure) {
      this.#log.warn({ sink: this.#medium.kind, missed: this.#missed }, 'an audit sink takes records again')
    }
    this.#failure = undefined
  }
}
