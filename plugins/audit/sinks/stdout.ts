import { write } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { BEGINNING } from '../chain.ts'
import type { Medium } from './sink.ts'

const STDOUT = 1
const FULL_PIPE_DELAY_MS = 10

const writeBytes = promisify(write)

/**
 * Lines on the process's standard output, one chain for each run of the process. They are written off the event loop, which
 * `process.stdout` would hold up while nobody reads a pipe.
 */
export function stdoutMedium (fd = STDOUT): Medium {
  let begins = true
  let closed = false
  /** What a failure has left of a batch: the rest of a line must end before another begins. */
  let torn = false
  return {
    kind: 'stdout',
    open: async position => ({ position: position ?? { file: 0, end: BEGINNING }, begins }),
    append: async lines => {
      const bytes = Buffer.from(torn ? `\n${lines}` : lines)
      for (let offset = 0; offset < bytes.length;) {
        try {
          offset += (await writeBytes(fd, bytes, offset)).bytesWritten
          torn = true
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || closed) throw error
          await delay(FULL_PIPE_DELAY_MS)
        }
      }
      torn = false
      begins = false
    },
    close: async () => { closed = true },
  }
}
