import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { REPLICA } from '../replica.ts'
import { Beacon, isLit, reach } from './beacon.ts'
import { identity, openOwn, statOf } from './own-file.ts'

const RENEW_INTERVAL_MS = 1_000
/** A holder that runs renews its lock within this time, on any clock. */
const RENEWED_WITHIN_MS = 3_000
/** How long a lock of another host must not have been renewed. */
const OTHER_HOST_MS = 30_000
const POLL_INTERVAL_MS = 250
/** Far more than a lock takes. */
const MAX_BYTES = 4_096

/** The process that holds a lock, as the lock file states. */
export interface Holder {
  host: string
  pid: number
  since: string
  /** Tells it from other processes of the same host. */
  instance: string
  /** Where its beacon can be seen; `null` when it has none. */
  reach: string | null
}

/** Why a lock is not ours. A holder that is known to be running will not give it up. */
export interface Held { holder: Holder | undefined, running: boolean }

interface Found { holder: Holder | undefined, identity: string, renewedMs: number }

/**
 * The lock of an audit file, in a file next to it: at most one process writes to the log. Its holder renews the time of
 * the lock file. A lock that is not renewed can be taken over: by a process of the same host as soon as its holder is
 * known to be gone, by others after 30 s. The holder is the process whose own file is at the path, so a process that
 * was suspended and wakes up sees that it has lost the lock before it writes.
 */
export class FileLock {
  readonly #path: string
  readonly #host: string
  readonly #instance = randomBytes(8).toString('hex')
  readonly #beacon = new Beacon()
  /** Our lock file, as long as we hold the lock. */
  #own: { handle: FileHandle, identity: string } | undefined
  #timer: NodeJS.Timeout | undefined
  /** Somebody else's lock, as we saw it last, and since when it has been like that. */
  #seen: Found & { sinceMs: number } | undefined
  #lost: Held | undefined

  /** @param path of the lock file */
  constructor (path: string, host = REPLICA) {
    this.#path = path
    this.#host = host
  }

  /**
   * Takes the lock, or checks that it is still ours. Resolves to who has it otherwise. A lock that was lost is not
   * taken back: the log has been continued by somebody else.
   */
  async hold (): Promise<Held | undefined> {
    if (this.#lost) return this.#lost
    if (!this.#own) return await this.#take()
    if (await this.#isOurs()) return
    // Somebody deleted the lock file: whoever creates it next has the lock.
    this.#drop()
    if (await this.#create(this.#path)) return
    const found = await this.#read()
    this.#lost = { holder: found?.holder, running: true }
    return this.#lost
  }

  /**
   * As `hold`, but waits until a holder that does not seem to be running can be replaced.
   * @param onWait is called once, before it waits
   */
  async acquire (onWait: (held: Held) => void): Promise<Held | undefined> {
    let held = await this.hold()
    if (held && !held.running) onWait(held)
    while (held && !held.running) {
      await delay(POLL_INTERVAL_MS)
      held = await this.hold()
    }
    return held
  }

  async release (): Promise<void> {
    if (await this.#isOurs().catch(() => false)) await rm(this.#path, { force: true })
    this.#drop()
    this.#beacon.extinguish()
  }

  async #take (): Promise<Held | undefined> {
    if (await this.#create(this.#path)) return
    const found = await this.#read()
    if (!found) return { holder: undefined, running: false }
    const { holder } = found
    const sameHost = holder?.host === this.#host
    const nowMs = performance.now()
    const renewed = this.#seen?.identity === found.identity && this.#seen.renewedMs !== found.renewedMs
    if (this.#seen?.identity !== found.identity || renewed) this.#seen = { ...found, sinceMs: nowMs }
    const lit = holder?.reach != null && holder.reach === reach() ? await isLit(holder.instance) : undefined
    if (renewed || lit === true) return { holder, running: true }
    // Clocks of two hosts may differ, so the time in the file is believed only after a while without renewal.
    const seenMs = nowMs - this.#seen.sinceMs
    const silentMs = Math.max(seenMs, Date.now() - found.renewedMs)
    const isGone = (sameHost && lit === false) ||
      (seenMs >= RENEWED_WITHIN_MS && silentMs >= (sameHost ? RENEWED_WITHIN_MS : OTHER_HOST_MS))
    return isGone && await this.#takeOver(found) ? undefined : { holder, running: false }
  }

  /** Of several processes that find the same lock abandoned, only the one that can create its successor goes on. */
  async #takeOver (found: Found): Promise<boolean> {
    const successor = `${this.#path}.${found.holder?.instance ?? 'unknown'}`
    if (!await this.#create(successor)) {
      const other = await statOf(successor)
      // It crashed in the middle of the next lines.
      if (other && Date.now() - other.mtimeMs >= OTHER_HOST_MS) await rm(successor, { force: true })
      return false
    }
    const now = await this.#read()
    if (now?.identity === found.identity && now.renewedMs === found.renewedMs) {
      await rename(successor, this.#path)
      if (await this.#isOurs()) return true
    } else {
      await rm(successor, { force: true })
    }
    this.#drop()
    return false
  }

  /** Creates a lock file of ours; `false` when a file is there. */
  async #create (path: string): Promise<boolean> {
    const lit = await this.#beacon.light(this.#instance)
    let handle: FileHandle
    try {
      handle = await open(path, 'wx', 0o600)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
      throw error
    }
    try {
      const holder: Holder = {
        host: this.#host,
        pid: process.pid,
        since: new Date().toISOString(),
        instance: this.#instance,
        reach: lit ? reach() : null,
      }
      await handle.writeFile(`${JSON.stringify(holder)}\n`)
      this.#own = { handle, identity: identity(await handle.stat()) }
    } catch (error) {
      await handle.close()
      await rm(path, { force: true })
      throw error
    }
    this.#timer ??= setInterval(() => this.#renew(), RENEW_INTERVAL_MS).unref()
    return true
  }

  /** Touches our own file, even after another one has taken its place. The next write reports an error. */
  #renew (): void {
    const now = new Date()
    this.#own?.handle.utimes(now, now).catch(() => {})
  }

  async #isOurs (): Promise<boolean> {
    const stats = this.#own && await statOf(this.#path)
    return stats !== undefined && identity(stats) === this.#own?.identity
  }

  #drop (): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#own?.handle.close().catch(() => {})
    this.#own = undefined
  }

  /**
   * The lock at the path; `undefined` when it has just been removed. A crash can leave an empty one.
   * @throws when something else is there
   */
  async #read (): Promise<Found | undefined> {
    let handle: FileHandle
    try {
      handle = await openOwn(this.#path, constants.O_RDONLY, 'KAFSCALE_MCP_AUDIT_SINKS')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw error
    }
    try {
      const stats = await handle.stat()
      if (!stats.isFile() || stats.size > MAX_BYTES) throw new Error(NOT_A_LOCK)
      const text = await handle.readFile('utf8')
      return { holder: parse(text), identity: identity(stats), renewedMs: stats.mtimeMs }
    } finally {
      await handle.close()
    }
  }
}

const NOT_A_LOCK = 'the file with the extension .lock next to it is not a lock of the service: move it away'

function parse (text: string): Holder | undefined {
  if (text === '') return
  try {
    const { host, pid, since, instance, reach } = JSON.parse(text) as Partial<Holder>
    if (
      typeof host === 'string' && typeof pid === 'number' && typeof since === 'string' &&
      typeof instance === 'string' && /^[0-9a-f]{16}$/.test(instance) && (reach === null || typeof reach === 'string')
    ) return { host, pid, since, instance, reach }
  } catch {
    // Not JSON.
  }
  throw new Error(NOT_A_LOCK)
}
