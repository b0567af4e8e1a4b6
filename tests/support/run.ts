/** What `scripts/test.ts` gives to all tests of a run: a folder for everything temporary, and the time scale. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isRunning } from '../../lib/is-running.ts'
import { measureWork, timeScale } from './time-scale.ts'

/** The part of a tap test that helpers use. */
export interface Teardown { teardown: (handler: () => unknown) => unknown }

const measured = process.env['TEST_TIME_SCALE'] ?? (process.env['TAP'] ? timeScale(measureWork(1), 0) : 1)

/** How many times slower this machine is than a quiet one with two cores; measured here where only tap was started. */
export const TIME_SCALE = Number(measured)

/** A bound that is promised for a quiet machine with two cores, as long as this machine needs it. */
export const scaled = (ms: number): number => ms * TIME_SCALE

const PREFIX = 'kafscale-mcp-tests-'

/** The folder of a run, by the ID of its process. */
export const folderOf = (pid: number): string => join(tmpdir(), `${PREFIX}${pid}`)

const folder = process.env['TEST_FOLDER'] ?? folderOf(process.pid)

/** An empty folder. The teardown of `t` removes it, or the end of the run where the test times out. */
export function temporaryFolder (t: Teardown): string {
  if (!existsSync(folder)) {
    mkdirSync(folder)
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  }
  const dir = mkdtempSync(join(folder, 'test-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** Removes the folders of runs that were killed. */
export function removeStaleFolders (): void {
  for (const name of readdirSync(tmpdir())) {
    if (name.startsWith(PREFIX) && !isRunning(Number(name.slice(PREFIX.length)))) {
      rmSync(join(tmpdir(), name), { recursive: true, force: true })
    }
  }
}
