/** The programs that the tests run: the machine's, and those that `scripts/test-setup.ts` puts into `.cache`. */
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { ROOT } from './paths.ts'

export const BIN = join(ROOT, '.cache/bin')
/** Built with Go: another go.sum has another file. */
export const etcd36 = cached('etcd-3.6', 'etcd-3.6/go.sum')
export const helm = cached('helm-3', 'helm-3/go.sum')
/** Folders with the SDKs of `converters/`: one with `node_modules`, one with a virtual environment of Python. */
export const nodeSdks = cached('node-sdks', 'converters/package-lock.json')
export const pythonSdks = cached('python-sdks', 'converters/requirements.txt')
/** A cache of modules with the SDK for Go that `go-client/` requires. */
export const goSdk = cached('go-sdk', 'go-client/go.sum')

process.env['PATH'] = [process.env['PATH'], BIN].join(delimiter)

/** Options for tap: skips tests that need one of these folders. */
export const needsSdks = (folder: string) =>
  ({ skip: existsSync(folder) ? false : 'the SDKs are not installed: npm run test:setup -- --all' })

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

/** @param lock the file that pins it, in this folder */
function cached (name: string, lock: string): string {
  const pinned = readFileSync(join(import.meta.dirname, lock))
  return join(ROOT, '.cache', `${name}-${createHash('sha256').update(pinned).digest('hex').slice(0, 8)}`)
}
