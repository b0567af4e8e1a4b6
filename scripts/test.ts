/**
 * `npm test [-- ARGUMENTS]`: runs tap with what the tests need: programs, a folder for temporary files, and the time
 * scale, which is how many times slower this machine is than a quiet one with two cores. `TEST_TIME_SCALE` overrides
 * it.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { exists } from '../tests/support/programs.ts'
import { folderOf, removeStaleFolders } from '../tests/support/run.ts'
import { MAX_SCALE, measureWork, timeScale } from '../tests/support/time-scale.ts'

/** As many test files run at once: `jobs` in .taprc. */
const JOBS = 3
const TICK_MS = 5
/** Seconds for a test file on a quiet machine. The slowest takes half a minute. */
const FILE_TIMEOUT_S = 180

if (isMainThread) await main()
else parentPort?.once('message', () => parentPort?.postMessage(measureWork()))

async function main (): Promise<void> {
  await import('./test-setup.ts')
  const scale = process.env['TEST_TIME_SCALE'] ?? `${await measureTimeScale()}`
  if (!(Number(scale) >= 1 && Number(scale) <= MAX_SCALE)) {
    throw new Error(`TEST_TIME_SCALE is ${JSON.stringify(scale)}: expected a number from 1 to ${MAX_SCALE}`)
  }
  console.log(`# Time scale ${scale}: tests allow ${scale} times the time that a quiet machine with two cores needs.`)
  // A fresh install has tap's default plugins.
  const { status } = spawnSync('tap', ['build'], { stdio: ['ignore', 'ignore', 'inherit'] })
  if (status !== 0) process.exit(1)

  removeStaleFolders()
  const folder = folderOf(process.pid)
  mkdirSync(folder)
  const skips = exists('etcd') ? [] : ['--allow-incomplete-coverage']
  const tap = spawn('tap', [...skips, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: {
      ...process.env,
      TEST_TIME_SCALE: scale,
      TEST_FOLDER: folder,
      TAP_TIMEOUT: `${Math.ceil(FILE_TIMEOUT_S * Number(scale))}`,
    },
  })
  process.on('SIGINT', () => {}) // the terminal sends it to tap as well
  process.on('SIGTERM', () => tap.kill('SIGTERM'))
  tap.once('exit', code => {
    rmSync(folder, { recursive: true, force: true })
    process.exit(code ?? 1)
  })
}

/** Measures computing, on as many threads as test files run, and the lateness of the event loop beside them. */
async function measureTimeScale (): Promise<number> {
  const workers = Array.from({ length: JOBS }, () => new Worker(new URL(import.meta.url)))
  const done = new AbortController()
  const lateMs = latestTick(done.signal)
  const workMs = await Promise.all(workers.map(async worker => {
    const result = new Promise<number>(resolve => worker.once('message', resolve))
    worker.postMessage('measure')
    return await result
  }))
  done.abort()
  return timeScale(Math.max(...workMs), await lateMs)
}

async function latestTick (done: AbortSignal): Promise<number> {
  let lateMs = 0
  while (!done.aborted) {
    const dueMs = performance.now() + TICK_MS
    await new Promise(resolve => { setTimeout(resolve, TICK_MS) })
    lateMs = Math.max(lateMs, performance.now() - dueMs)
  }
  return lateMs
}
