/**
 * The acknowledgement of a contradiction, in a file next to the head file: the command writes it, whether the service
 * runs or not, and the service takes it from there. It applies to one head only, so it cannot be used again.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { sha256 } from '../chain.ts'
import { openOwn, statOf } from '../sinks/own-file.ts'
import { HEAD_FILE_SETTING } from './head-file.ts'

const MAX_BYTES = 64 * 1024

export interface Acknowledgement {
  /** Who acknowledges, as they state themselves. */
  by: string
  reason: string
  /** RFC 3339. */
  time: string
  /** SHA-256 of the head file that the log contradicts; `null` when it was missing. */
  head: string | null
}

function pathOf (headFile: string): string {
  return `${headFile}.acknowledged`
}

export function digestOf (head: string | undefined): string | null {
  return head === undefined ? null : sha256(head)
}

/** Replaces an earlier acknowledgement. The superuser leaves it to whoever owns the folder of the head file. */
export async function writeAcknowledgement (headFile: string, acknowledgement: Acknowledgement): Promise<void> {
  await readAcknowledgement(headFile)
  await removeAcknowledgement(headFile)
  const handle = await open(pathOf(headFile), 'wx', 0o600)
  try {
    const { uid, gid } = await stat(dirname(headFile))
    if (process.getuid?.() === 0) await handle.chown(uid, gid)
    await handle.writeFile(`${JSON.stringify(acknowledgement)}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** @throws when there is something else, or it cannot be read */
export async function readAcknowledgement (headFile: string): Promise<Acknowledgement | undefined> {
  let handle: FileHandle
  try {
    handle = await openOwn(pathOf(headFile), constants.O_RDONLY, HEAD_FILE_SETTING)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  try {
    const stats = await handle.stat()
    const parsed = stats.isFile() && stats.size <= MAX_BYTES ? parse(await handle.readFile('utf8')) : undefined
    if (!parsed) throw new Error('the file next to the head file is not an acknowledgement: move it away')
    return parsed
  } finally {
    await handle.close()
  }
}

export async function hasAcknowledgement (headFile: string): Promise<boolean> {
  return await statOf(pathOf(headFile)) !== undefined
}

export async function removeAcknowledgement (headFile: string): Promise<void> {
  await rm(pathOf(headFile), { force: true })
}

function parse (text: string): Acknowledgement | undefined {
  try {
    const { by, reason, time, head } = JSON.parse(text) as Partial<Acknowledgement>
    if (
      typeof by === 'string' && typeof reason === 'string' && typeof time === 'string' &&
      (head === null || typeof head === 'string')
    ) return { by, reason, time, head }
  } catch {
    // Not JSON: perhaps not complete yet.
  }
}
