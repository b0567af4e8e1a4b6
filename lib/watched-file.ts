import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

const POLL_INTERVAL_MS = 1_000

/**
 * Calls `onChange` with a file's content whenever it differs from `current`, until the signal ends it. It polls: a file
 * that is replaced by rename, or by the symlink swap of a Kubernetes volume, is a change like any other. A file that can't
 * be read for a while changes nothing.
 */
export async function watchFile (
  path: string,
  current: Buffer,
  onChange: (content: Buffer) => void | Promise<void>,
  signal: AbortSignal
): Promise<void> {
  let known = current
  while (!signal.aborted) {
    await delay(POLL_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {})
    if (signal.aborted) return
    const content = await readFile(path).catch(() => undefined)
    if (!content || content.equals(known)) continue
    known = content
    await onChange(content)
  }
}
