import { constants, type Stats } from 'node:fs'
import { type FileHandle, lstat, open } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Opens a file, but not what a symbolic link at its path points to, which may belong to somebody else.
 * @param setting names the variable that the path comes from
 */
export async function openOwn (path: string, flags: number, setting: string): Promise<FileHandle> {
  try {
    return await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ELOOP') throw error
    throw new Error(
      'the file is a symbolic link, which could lead to the file of somebody else: ' +
        `remove it, or name the file itself in ${setting}`
    )
  }
}

/** Of a symbolic link itself, not of what it points to. */
export async function statOf (path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
}

export function identity ({ dev, ino }: Stats): string {
  return `${dev}:${ino}`
}

/** Makes the file's directory entry durable. */
export async function syncFolder (path: string): Promise<void> {
  const folder = await open(dirname(path))
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
