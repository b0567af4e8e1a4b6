import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const ROOT = join(import.meta.dirname, '..')
/** The launcher, which starts the service with V8's options. */
export const LAUNCHER = 'bin/kafscale-mcp.js'
/** Those options. */
export const V8_OPTIONS: readonly string[] = readFileSync(join(ROOT, LAUNCHER), 'utf8').match(/--[\w-]+=\d+/g) ?? []
const START_BOUND_MS = 15_000
const CLOCK_TICKS_PER_SECOND = 100 // USER_HZ on Linux

/** A server of the project, in a separate process. */
export interface Running {
  pid: number
  /** The log line with its URL. */
  listening: { url: string, bareUrl?: string }
  /** Sends SIGTERM and waits for the exit. */
  stop: () => Promise<void>
}

/** Starts a script of the project and waits for the log line that says it is listening. */
export async function startNode (args: readonly string[], env: Record<string, string> = {}): Promise<Running> {
  // The kernel kills the child when this process ends, however it ends.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, ...args],
    { cwd: ROOT, env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = once(child, 'exit')

  const last: string[] = []
  const listening = await new Promise<Running['listening']>((resolve, reject) => {
    const fail = (what: string) => () => reject(new Error(`node ${args.join(' ')} ${what}:\n${last.join('\n')}`))
    const timer = setTimeout(fail('is not listening in time'), START_BOUND_MS)
    void exited.then(fail('exited'))
    createInterface(child.stderr).on('line', line => {
      last.splice(0, last.length - 10, line)
      if (!line.includes('"msg":"listening"')) return
      clearTimeout(timer)
      resolve(JSON.parse(line) as Running['listening'])
    })
  })
  return {
    pid: child.pid as number,
    listening,
    async stop () {
      child.kill('SIGTERM')
      await exited
    },
  }
}

/** The CPU time that a process has used so far, user and system. */
export function cpuMs (pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // follows pid and name
  return (Number(fields[11]) + Number(fields[12])) * 1_000 / CLOCK_TICKS_PER_SECOND
}

/** The resident memory of a process, now and at its peak. */
export function memoryMb (pid: number): { resident: number, peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const megabytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) / 1024
  return { resident: megabytes('VmRSS'), peak: megabytes('VmHWM') }
}
