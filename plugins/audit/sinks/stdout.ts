import { write } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { BEGINNING } from '../chain.ts'
import type { Medium } from './medium.ts'

const STDOUT = 1
const FULL_PIPE_DELAY_MS = 10

const writeBytes = promisify(write)

/**
 * Writes lines to standard output, as one chain per run of the process. The descriptor is written to
 * asynchronously, since `process.stdout` would block the event loop while nobody reads the pipe.
 */
export function stdoutMedium (fd = STDOUT): Medium {
  let begins = true
  let closed = false
  /** A failed batch may have left part of a line, which has to end before the next one begins. */
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
