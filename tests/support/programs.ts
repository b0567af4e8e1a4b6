/** The programs that the tests run: the machine's, and those that `scripts/test-setup.ts` puts into `.cache`. */
import { createHash } from 'node:crypto'
import { accessSync, constants, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { ROOT } from './paths.ts'

export const BIN = join(ROOT, '.cache/bin')
/** Built with Go: another go.sum has another file. */
export const etcd36 = built('etcd-3.6')
export const helm = built('helm-3')

process.env['PATH'] = [process.env['PATH'], BIN].join(delimiter)

/** Whether a program is in the path. */
export function exists (program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some(folder => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

function built (name: string): string {
  const goSum = readFileSync(join(import.meta.dirname, name, 'go.sum'))
  return join(ROOT, '.cache', `${name}-${createHash('sha256').update(goSum).digest('hex').slice(0, 8)}`)
}
