import type { KeyObject } from 'node:crypto'
import { dirname, resolve } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import { type AuditEntry, ownEntry } from '../record.ts'
import { type Acknowledgement, digestOf, readAcknowledgement, removeAcknowledgement } from './acknowledgement.ts'
import { compare, statesHeadFile } from './compare.ts'
import { HeadFile } from './head-file.ts'

/** How often it looks for an acknowledgement, or for a head file that can be read. */
const POLL_INTERVAL_MS = 1_000
const RETRY_MS = 5_000

/** How the head file is doing. A reason contains no path. */
export interface HeadState {
  /** `contradiction`: the log is not the one that the head file vouches for, or they could not be compared. */
  state: 'ok' | 'failed' | 'contradiction'
  reason?: string
}

interface GuardOptions {
  path: string
  /** The log that the heads are of. */
  log: string
  key: KeyObject | undefined
  logger: FastifyBaseLogger
  /** Resolves once the record is durable. */
  record: (entry: AuditEntry) => Promise<void>
  /** Adds a checkpoint to the log soon. */
  seal: () => void
}

/**
 * Keeps the newest head of the log in a file outside it, and compares the two at start. After a contradiction, the head
 * file stays as it is until an operator has acknowledged that.
 */
export class HeadGuard {
  readonly #options: GuardOptions
  readonly #file: HeadFile
  /** Why the log and the head file contradict each other. Without `head`, they could not be compared yet. */
  #contradiction: { reason: string, head?: string | null } | undefined
  #failure: string | undefined
  /** There is a head file, or was one before this run: its absence means something. */
  #exists = false
  /** The newest head that is not in the file yet. */
  #pending: string | undefined
  #writing: Promise<void> | undefined
  #acknowledged = false
  /** Why an acknowledgement could not be accepted, so that it is logged once. */
  #warnedOf: string | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor (options: GuardOptions) {
    this.#options = options
    this.#file = new HeadFile(options.path)
  }

  get state (): HeadState {
    if (this.#contradiction) return { state: 'contradiction', reason: this.#contradiction.reason }
    return this.#failure === undefined ? { state: 'ok' } : { state: 'failed', reason: this.#failure }
  }

  /** Whether checkpoints may state that there is a head file, so that its absence is a contradiction from then on. */
  get exists (): boolean {
    return this.#exists
  }

  /** Compares the log with the head file, before the run writes to the log. Resolves to the record of that. */
  async start (): Promise<AuditEntry> {
    this.#exists = await statesHeadFile(this.#options.log).catch(() => false)
    if (dirname(resolve(this.#options.path)) === dirname(resolve(this.#options.log))) {
      this.#options.logger.warn('the head file is in the folder of the audit file: keep it on another volume')
    }
    const note = await this.#compare()
    const reason = this.#contradiction?.reason
    if (reason !== undefined) this.#options.logger.error({ reason }, 'the audit log contradicts its head file')
    return { ...ownEntry('head_check', reason ?? note), outcome: reason === undefined ? 'ok' : 'error' }
  }

  /** Accepts an acknowledgement that is there already, and waits for one otherwise. */
  async settle (): Promise<void> {
    if (this.#contradiction) {
      await this.#poll()
    } else {
      const left = await readAcknowledgement(this.#options.path).catch(() => undefined)
      if (left) await removeAcknowledgement(this.#options.path).catch(() => {})
    }
  }

  /** Keeps a head, the newest so far. */
  keep (head: string): void {
    this.#pending = head
    void this.#flush()
  }

  /** Resolves when the newest head is kept, or cannot be. */
  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#flush()
  }

  async #compare (): Promise<string | null> {
    const { path, log, key } = this.#options
    try {
      const head = await this.#file.read()
      const { contradiction, note } = await compare(log, head, this.#exists, key)
      this.#contradiction = contradiction === undefined
        ? undefined
        : { reason: contradiction, head: digestOf(head) }
      this.#exists ||= head !== undefined
      return note ?? null
    } catch (error) {
      this.#contradiction = { reason: `the log cannot be compared with its head file: ${reasonOf(error, path)}` }
      return null
    }
  }

  async #poll (): Promise<void> {
    clearTimeout(this.#timer)
    const { logger, record } = this.#options
    try {
      if (this.#contradiction?.head === undefined) {
        const before = this.#contradiction?.reason
        const entry = await this.#again(before)
        if (entry) await record(entry)
      }
      const acknowledgement = await readAcknowledgement(this.#options.path)
      if (acknowledgement && this.#contradiction) await this.#acknowledge(acknowledgement, this.#contradiction)
    } catch (error) {
      const reason = reasonOf(error, this.#options.path)
      if (reason !== this.#warnedOf) logger.warn({ err: error }, 'an acknowledgement could not be read or recorded')
      this.#warnedOf = reason
    }
    if (this.#contradiction && !this.#closed) {
      this.#timer = setTimeout(() => this.#poll(), POLL_INTERVAL_MS).unref()
    }
  }

  /** Compares again what could not be compared. Resolves to a record if that has changed anything. */
  async #again (before: string | undefined): Promise<AuditEntry | undefined> {
    const note = await this.#compare()
    const reason = this.#contradiction?.reason
    if (reason === before) return
    if (reason === undefined) void this.#flush()
    this.#options.logger.warn({ reason }, 'the audit log was compared with its head file again')
    return { ...ownEntry('head_check', reason ?? note), outcome: reason === undefined ? 'ok' : 'error' }
  }

  async #acknowledge (
    { by, reason, time, head }: Acknowledgement,
    contradiction: { reason: string, head?: string | null }
  ): Promise<void> {
    if (contradiction.head === undefined || head !== contradiction.head) {
      this.#options.logger.warn({ by }, 'an acknowledgement is about another head file, and was removed')
      await removeAcknowledgement(this.#options.path)
      return
    }
    const entry = ownEntry('head_acknowledgement', `${reason} (acknowledged: ${contradiction.reason})`)
    await this.#options.record({
      ...entry,
      who: {
        subject: by,
        issuer: null,
        client_id: null,
        roles: [],
        method: 'command',
        token_id: null,
        client_certificate: null,
      },
      when: { ...entry.when, received: time },
    })
    this.#options.logger.warn({ by, reason }, 'an operator acknowledged that the audit log contradicts its head file')
    this.#contradiction = undefined
    this.#acknowledged = true
    // The acknowledgement stays until the file has a head that fits, so that a crash does not require another one.
    this.#options.seal()
  }

  /** One write is under way at a time; it takes the newest head. */
  async #flush (): Promise<void> {
    if (this.#contradiction) return
    this.#writing ??= this.#write().finally(() => { this.#writing = undefined })
    await this.#writing
  }

  async #write (): Promise<void> {
    for (let head = this.#pending; head !== undefined; head = this.#pending) {
      this.#pending = undefined
      try {
        await this.#file.write(head)
        this.#exists = true
        if (this.#failure !== undefined) this.#options.logger.warn('the head of the audit log is kept again')
        this.#failure = undefined
        if (this.#acknowledged) await removeAcknowledgement(this.#options.path)
        this.#acknowledged = false
      } catch (error) {
        this.#pending ??= head
        if (this.#failure === undefined) {
          this.#options.logger.error({ err: error }, 'the head of the audit log cannot be kept')
        }
        this.#failure = reasonOf(error, this.#options.path)
        clearTimeout(this.#timer)
        if (!this.#closed) this.#timer = setTimeout(() => this.#flush(), RETRY_MS).unref()
        return
      }
    }
  }
}

/** Why a file could not be read or written, without its path. */
function reasonOf (error: unknown, path: string): string {
  const { syscall, code, message } = error as NodeJS.ErrnoException
  return syscall ? `${syscall}: ${code}` : message.replaceAll(path, 'the file')
}
