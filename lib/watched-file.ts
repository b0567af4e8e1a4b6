import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

const POLL_INTERVAL_MS = 1_000

/**
 * Calls `onChange` with a file's content each time it differs from the last, starting from `current`, until the signal
 * aborts. It polls, because a rename and the symlink swap of a Kubernetes volume replace the file that a watch would
 * follow. A file that cannot be read counts as unchanged.
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
