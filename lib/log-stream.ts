import { escapeUnprintable } from './printable.ts'

/** Writes log lines to standard error. Characters in them that cannot be seen are escaped. */
export const logStream = {
  write (line: string): void {
    process.stderr.write(`${escapeUnprintable(line.trimEnd())}\n`)
  },
}
