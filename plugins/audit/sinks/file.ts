import { constants, type Stats } from 'node:fs'
import { access, type FileHandle, mkdir, readdir, rename, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import { ConfigError } from '../../../errors.ts'
import { quote } from '../../../lib/printable.ts'
import {
  BEGINNING,
  type ChainRecord,
  type Continuation,
  endsRun,
  headerOf,
  logOf,
  newLog,
  parseRecord,
  sha256,
} from '../chain.ts'
import { rotatedFiles } from '../log-files.ts'
import { FileLock, type Held } from './lock.ts'
import type { ChainPosition, Medium, Opened } from './medium.ts'
import { identity, openOwn, statOf, syncFolder } from './own-file.ts'

/** Far more than a record takes, which is at most 16 KB. */
const TAIL_BYTES = 1024 * 1024
const DEFAULT_MAX_BYTES = 100 * 1024 * 1024
const ROTATION_RETRY_MS = 60_000
const SETTING = 'KAFSCALE_MCP_AUDIT_SINKS'

export interface FileOptions {
  /** A file is rotated once it has this many bytes, and when the day (UTC) is over. */
  maxBytes?: number
  now?: () => Date
  /** Names the host in the lock. */
  host?: string | undefined
}

interface LastLine { record: ChainRecord, position: ChainPosition }

/** The end of a file that an earlier run left. */
interface Tail {
  /** The last valid line; absent when even the first line of the file is torn. */
  last?: LastLine
  /** The size of the file up to the end of that line. */
  goodBytes: number
  /** Everything after it. */
  rest: Buffer
}

/** The first bytes of every file, in canonical JSON. */
const FIRST_BYTES = Buffer.from('{"event":"header","file":{"number":')

/**
 * Appends lines to the file at PATH, and continues the chain of an earlier run in it. A file that is full, or from
 * another day, is renamed to `PATH.<day>.<number>`. Before each batch, the file is checked: it must still be the one at
 * PATH, and nobody else may have written to it. One that does not end with this process's own last line is renamed to
 * `PATH.altered-<time>`.
 */
export class FileMedium implements Medium {
  readonly kind = 'file'
  readonly #path: string
  readonly #maxBytes: number
  readonly #now: () => Date
  readonly #lock: FileLock
  #handle: FileHandle | undefined
  #identity = ''
  #bytes = 0
  #day = ''
  #rotateAfterMs = 0
  /** This process has set aside the previous file itself. */
  #rotated = false
  /** The file system that the folder was on at first: the log must not go to the mount point of a missing volume. */
  #device: number | undefined
  /** What opening the file revealed, until the chain records it. */
  #found: Pick<Opened, 'torn' | 'gap' | 'unsealed' | 'continues'> = {}
  /** A failed batch that may have left bytes in the file. */
  #failedBatch: Buffer | undefined

  constructor (path: string, { maxBytes = DEFAULT_MAX_BYTES, now = () => new Date(), host }: FileOptions = {}) {
    this.#path = path
    this.#lock = new FileLock(`${path}.lock`, host)
    this.#maxBytes = maxBytes
    this.#now = now
  }

  /**
   * Takes the lock of the file, if need be after waiting until the lock of a process that is gone has expired. Anything
   * else that prevents writing shows with the first record.
   * @throws {ConfigError} when another running process has the lock
   */
  async prepare (log: FastifyBaseLogger): Promise<void> {
    const held = await this.#prepareFolder()
      .then(() => this.#mayLock())
      .then(may => may ? this.#lock.acquire(({ holder }) => log.warn({ holder }, WAITING)) : undefined)
      .catch(() => undefined)
    if (!held) return
    throw new ConfigError(
      `${SETTING} names ${quote(this.#path)}, to which another process of the service ${described(held)} writes: ` +
        'stop that process, or give each process a file of its own'
    )
  }

  async open (position: ChainPosition | undefined): Promise<Opened> {
    const isIntact = this.#handle !== undefined && position !== undefined && await this.#isIntact()
    if (isIntact) await this.#holdLock()
    const at = isIntact ? position : await this.#reopen(position)
    const begins = this.#bytes === 0
    const due = !begins && (this.#bytes >= this.#maxBytes || this.#day !== this.#today()) &&
      performance.now() >= this.#rotateAfterMs
    return { position: at, begins, due, ...this.#found }
  }

  async append (lines: string): Promise<void> {
    const handle = this.#opened()
    const bytes = Buffer.from(lines)
    try {
      for (let offset = 0; offset < bytes.length;) offset += (await handle.write(bytes, offset)).bytesWritten
    } catch (error) {
      // All of the batch or nothing: the part that fits on a full disk must not end up in front of the next line.
      await handle.truncate(this.#bytes).catch(() => {
        this.#failedBatch = bytes
        return this.#abandon()
      })
      throw error
    }
    if (this.#bytes === 0) this.#day = this.#today()
    this.#rotated = false
    this.#bytes += bytes.length
    this.#failedBatch = undefined
    this.#found = {}
  }

  async sync (): Promise<void> {
    try {
      await this.#opened().datasync()
    } catch (error) {
      await this.#abandon()
      throw error
    }
  }

  async rotate (file: number): Promise<void> {
    const aside = `${this.#path}.${this.#day}.${String(file).padStart(6, '0')}`
    this.#rotateAfterMs = performance.now() + ROTATION_RETRY_MS
    if (await statOf(aside)) throw new Error(`${aside} exists already`)
    await rename(this.#path, aside)
    this.#rotateAfterMs = 0
    this.#rotated = true
    await this.#abandon()
    await syncFolder(this.#path)
  }

  async close (): Promise<void> {
    await this.#abandon()
    await this.#lock.release()
  }

  /** @throws when another process has the lock, or has taken it over */
  async #holdLock (): Promise<void> {
    const held = await this.#lock.hold()
    if (!held) return
    await this.#abandon()
    throw new Error(`another process of the service ${described(held)} has the lock of the file`)
  }

  /** Nothing is created next to a file that cannot be a log. */
  async #mayLock (): Promise<boolean> {
    const stats = await statOf(this.#path)
    if (!stats) return true
    if (!stats.isFile()) return false
    const handle = await openOwn(this.#path, constants.O_RDONLY, SETTING)
    try {
      return beginsLog(await read(handle, 0, FIRST_BYTES.length))
    } finally {
      await handle.close()
    }
  }

  async #prepareFolder (): Promise<void> {
    if (this.#device === undefined) await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 })
  }

  #opened (): FileHandle {
    if (!this.#handle) throw new Error('the file is not open')
    return this.#handle
  }

  #today (): string {
    return this.#now().toISOString().slice(0, 10)
  }

  async #abandon (): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    await handle?.close().catch(() => {})
  }

  async #isIntact (): Promise<boolean> {
    const stats = await statOf(this.#path)
    return stats !== undefined && identity(stats) === this.#identity && stats.size === this.#bytes
  }

  async #reopen (position: ChainPosition | undefined): Promise<ChainPosition> {
    await this.#abandon()
    await this.#prepareFolder()
    const { dev } = await stat(dirname(this.#path))
    if (this.#device !== undefined && dev !== this.#device && !await statOf(this.#path)) {
      throw new Error('the volume is gone')
    }

    if (await this.#mayLock()) await this.#holdLock()
    const handle = await openOwn(this.#path, constants.O_RDWR | constants.O_APPEND | constants.O_CREAT, SETTING)
    try {
      const stats = await handle.stat()
      if (!stats.isFile()) throw new Error('not a regular file')
      const size = await this.#removeFailedBatch(handle, stats)
      const known = position && position.end.sequence > 0 ? position : undefined
      const orAltered = (error: NodeJS.ErrnoException): Tail => {
        // An unreadable file is not an altered one, and a file this process has never written to is not its log.
        if (error.code !== undefined || !known) throw error
        return { goodBytes: 0, rest: Buffer.alloc(0) }
      }
      const tail = size > 0 ? await readTail(handle, size).catch(orAltered) : undefined
      if (tail && known && !endsAt(tail, known)) {
        await this.#setAsideAltered(tail, known)
        await handle.close()
        return await this.#reopen(position)
      }
      // Only now is the file known to be a log of the service: nothing about another one may change.
      await handle.chmod(0o600)
      if (tail && tail.rest.length > 0) await this.#setAsideTorn(handle, tail)
      if (!tail) await syncFolder(this.#path)
      this.#device = dev
      this.#handle = handle
      this.#identity = identity(stats)
      this.#bytes = tail?.goodBytes ?? 0
      const { last } = tail ?? {}
      if (!last) {
        if (known && !this.#rotated) {
          this.#found.gap ??= {
            records: null,
            reason: 'the previous file was moved or removed while the service was writing to it',
            file: known.file,
          }
        }
        if (position) return position
        const rotated = await this.#lastRotated()
        this.#found.continues = continuation(rotated)
        return rotated?.position ?? { file: 0, end: BEGINNING, log: newLog(resolve(this.#path)) }
      }
      if (!position) this.#found.continues = continuation(last)
      this.#day = last.record.time.slice(0, 10)
      if (!known && last.record.event !== 'checkpoint') this.#found.unsealed = true
      return last.position
    } catch (error) {
      this.#handle = undefined
      await handle.close()
      throw error
    }
  }

  /** Removes what a failed batch of this process left, and nothing else. Resolves to the size of the file. */
  async #removeFailedBatch (handle: FileHandle, stats: Stats): Promise<number> {
    const length = stats.size - this.#bytes
    if (!this.#failedBatch || identity(stats) !== this.#identity || length <= 0 || length > this.#failedBatch.length) {
      return stats.size
    }
    if (!this.#failedBatch.subarray(0, length).equals(await read(handle, this.#bytes, length))) return stats.size
    await handle.truncate(this.#bytes)
    return this.#bytes
  }

  /** Sets aside a file that somebody else has changed; the chain continues after `known` in a new one. */
  async #setAsideAltered ({ last }: Tail, known: ChainPosition): Promise<void> {
    const aside = `${this.#path}.altered-${this.#now().toISOString().replaceAll(':', '')}`
    if (await statOf(aside)) throw new Error('the file was altered and cannot be set aside: the name is taken')
    await rename(this.#path, aside)
    const missing = last ? known.end.sequence - last.position.end.sequence : 0
    this.#found.gap = {
      records: missing > 0 ? missing : null,
      reason: `the file was altered while the service was writing to it, and was set aside${
        missing > 0 ? ': records written earlier are missing from it' : ''
      }`,
      file: known.file,
      set_aside: basename(aside),
    }
    await syncFolder(this.#path)
  }

  /** Moves the torn line that a crash left out of the chain, into a file of its own. */
  async #setAsideTorn (handle: FileHandle, { goodBytes, rest }: Tail): Promise<void> {
    const path = `${this.#path}.torn-${this.#now().toISOString().replaceAll(':', '')}`
    await writeFile(path, rest, { flag: 'wx', mode: 0o600, flush: true })
    await handle.truncate(goodBytes)
    await handle.datasync()
    this.#found.torn = { bytes: rest.length, sha256: sha256(rest), set_aside: basename(path) }
  }

  /** Where the newest rotated file ends: a crash may have come before its successor was created. */
  async #lastRotated (): Promise<LastLine | undefined> {
    const [newest] = rotatedFiles(basename(this.#path), await readdir(dirname(this.#path)))
    if (newest === undefined) return
    const handle = await openOwn(join(dirname(this.#path), newest), constants.O_RDONLY, SETTING)
    try {
      return (await readTail(handle, (await handle.stat()).size)).last
    } finally {
      await handle.close()
    }
  }
}

const WAITING = 'another process holds the lock of an audit file, and does not seem to run: ' +
  'the service takes the lock over when it has not been renewed for 30 s'

/** The process that has a lock, for a message. */
function described ({ holder }: Held): string {
  if (!holder) return '(unknown)'
  return `(host ${quote(holder.host)}, process ${holder.pid}, since ${quote(holder.since)})`
}

/** What a run continues from when it finds this line at the end of the chain. */
function continuation (last: LastLine | undefined): Continuation {
  if (!last) return { file: 0, ...BEGINNING, closed: null }
  const { record, position: { file, end } } = last
  return { file, ...end, closed: endsRun(record) }
}

/** Whether the last line is the one at this position, with nothing after it. */
function endsAt ({ last, rest }: Tail, { file, end }: ChainPosition): boolean {
  return last?.position.file === file && last.position.end.sequence === end.sequence &&
    last.position.end.hash === end.hash && rest.length === 0
}

/**
 * Why the service could not write to an audit file, without touching anything: neither the file nor its lock. Resolves
 * to whether the file exists.
 * @throws what prevents writing
 */
export async function checkFile (path: string): Promise<{ exists: boolean, isLocked: boolean }> {
  const stats = await statOf(path)
  if (stats?.isDirectory()) {
    const file = join(path, 'audit.jsonl')
    throw new Error(`it is a folder: set ${SETTING} to a file in it, such as file:${file}`)
  }
  if (stats) {
    const handle = await openOwn(path, constants.O_RDWR, SETTING)
    try {
      if (!(await handle.stat()).isFile()) throw new Error('it is not a regular file')
      if (!beginsLog(await read(handle, 0, FIRST_BYTES.length))) {
        throw new Error('the file is not an audit log: move it away')
      }
    } finally {
      await handle.close()
    }
  }
  await checkFolder(dirname(resolve(path)))
  return { exists: stats !== undefined, isLocked: await statOf(`${path}.lock`) !== undefined }
}

/** @throws if files cannot be created in a folder, or the folder in the nearest one that exists */
export async function checkFolder (path: string): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  if (!found) return await checkFolder(dirname(path))
  if (!found.isDirectory()) throw new Error(`${quote(path)} is not a folder`)
  await access(path, constants.W_OK | constants.X_OK)
}

/** Whether a log can begin with these bytes, all of which a crash may not have written. */
function beginsLog (bytes: Buffer): boolean {
  return bytes.subarray(0, FIRST_BYTES.length).equals(FIRST_BYTES.subarray(0, bytes.length))
}

async function readTail (handle: FileHandle, size: number): Promise<Tail> {
  const head = await read(handle, 0, Math.min(size, TAIL_BYTES))
  const firstEnd = head.indexOf('\n')
  if (firstEnd < 0 && beginsLog(head)) return { goodBytes: 0, rest: head }
  const first = firstEnd < 0 ? undefined : parseRecord(head.subarray(0, firstEnd))
  const number = headerOf(first)?.number
  const log = first && logOf(first)
  if (number === undefined || log === undefined) throw new Error('the file is not an audit log: move it away')
  const start = Math.max(0, size - TAIL_BYTES)
  const tail = await read(handle, start, size - start)
  for (let end = tail.lastIndexOf('\n'); end >= 0;) {
    const before = end === 0 ? -1 : tail.lastIndexOf('\n', end - 1)
    const line = tail.subarray(before + 1, end)
    const record = before >= 0 || start === 0 ? parseRecord(line) : undefined
    if (record) {
      const position = { file: number, end: { hash: sha256(line), sequence: record.sequence }, log }
      return { last: { record, position }, goodBytes: start + end + 1, rest: tail.subarray(end + 1) }
    }
    end = before
  }
  throw new Error('the file does not end with audit records: move it away')
}

async function read (handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, position)
  return buffer.subarray(0, bytesRead)
}
