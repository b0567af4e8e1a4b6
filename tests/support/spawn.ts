import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

type Environment = Readonly<Record<string, string | undefined>>

/** Code that one process has compiled is not compiled again in the same run. */
const COMPILE_CACHE = process.env['TEST_FOLDER'] && join(process.env['TEST_FOLDER'], 'compile-cache')

/**
 * A command that runs a program with only `env` in its environment. Without it, tap adds a module to every process that
 * is spawned, which measures coverage, doubles the time of a start, and writes into the project as whatever user runs
 * it.
 */
export function clean (file: string, args: readonly string[], env: Environment): [file: string, args: string[]] {
  const variables = Object.entries({ NODE_COMPILE_CACHE: COMPILE_CACHE, ...env })
    .flatMap(([name, value]) => value === undefined ? [] : `${name}=${value}`)
  return ['/usr/bin/env', ['-i', ...variables, file, ...args]]
}

/** Spawns a {@link clean} command. */
export function spawnClean (
  file: string,
  args: readonly string[],
  { env, ...options }: SpawnOptions & { env: Environment }
): ChildProcess {
  return spawn(...clean(file, args, env), { ...options, env: {} })
}

/** What a process writes to its pipes, and how it ends. */
export interface Followed {
  /** Everything written so far. */
  output: { stdout: string, stderr: string }
  /** Resolves to its exit code, or to the signal that ended it. */
  exit: Promise<number | NodeJS.Signals>
  hasEnded: () => boolean
}

export function follow (child: ChildProcess): Followed {
  const output = { stdout: '', stderr: '' }
  child.stdout?.on('data', chunk => { output.stdout += chunk })
  child.stderr?.on('data', chunk => { output.stderr += chunk })
  let ended = false
  const exit = once(child, 'close').then(([code, signal]) => {
    ended = true
    return code ?? signal
  })
  return { output, exit, hasEnded: () => ended }
}
