import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { openOwn, syncFolder } from '../sinks/own-file.ts'

export const HEAD_FILE_SETTING = 'KAFSCALE_MCP_AUDIT_HEAD_FILE'

/** Far more than a checkpoint takes. */
const MAX_BYTES = 64 * 1024
/** The first bytes of a checkpoint, in canonical JSON. */
const FIRST_BYTES = '{"checkpoint":{'

/** The file that keeps the newest head of the log: one line, as in the log. Nothing else at its path is touched. */
export class HeadFile {
  readonly #path: string
  /** The file system that the folder was on at first: the head must not go to the mount point of a missing volume. */
  #device: number | undefined

  constructor (path: string) {
    this.#path = path
  }

  /** What the file contains; `undefined` when there is none. @throws when it cannot be read, or is another's file */
  async read (): Promise<string | undefined> {
    let handle: FileHandle
    try {
      handle = await openOwn(this.#path, constants.O_RDONLY, HEAD_FILE_SETTING)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw error
    }
    try {
      const stats = await handle.stat()
      if (!stats.isFile()) throw new Error('the head file is not a regular file')
      const text = stats.size > MAX_BYTES ? 'too large' : await handle.readFile('utf8')
      if (text !== '' && !text.startsWith(FIRST_BYTES)) {
        throw new Error('the file at the path of the head file is not a head: move it away')
      }
      return text
    } finally {
      await handle.close()
    }
  }

  /** Replaces the head; what is there stays complete until the new one is durable. */
  async write (line: string): Promise<void> {
    const folder = dirname(this.#path)
    if (this.#device === undefined) await mkdir(folder, { recursive: true, mode: 0o700 })
    const { dev } = await stat(folder)
    if (this.#device !== undefined && dev !== this.#device) throw new Error('the volume of the head file is gone')
    await this.read()
    const next = `${this.#path}.${randomBytes(6).toString('hex')}.tmp`
    try {
      const handle = await open(next, 'wx', 0o600)
      try {
        await handle.writeFile(`${line}\n`)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(next, this.#path)
    } catch (error) {
      await rm(next, { force: true }).catch(() => {})
      throw error
    }
    await syncFolder(this.#path)
    this.#device = dev
  }
}
