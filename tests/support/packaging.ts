/** The package and the image, built as npm and a container engine build them. */
import { type ChildProcess, execFile } from 'node:child_process'
import { cpSync, globSync, readFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { ROOT } from './paths.ts'
import { type Teardown, temporaryFolder } from './run.ts'
import { modern } from './service.ts'
import { clean, follow, spawnClean } from './spawn.ts'
import { waitFor } from './wait-for.ts'

import './programs.ts' // adds to the path

/** The machine's path, where `node` is the one that runs the tests. */
export const PATH = [dirname(process.execPath), process.env['PATH']].join(delimiter)
const START_BOUND_MS = 20_000
/** V8's options, which only the launcher knows. */
export const V8_OPTIONS = readFileSync(join(ROOT, 'bin/kafscale-mcp.js'), 'utf8').match(/--[\w-]+=\d+/g) ?? []

/** The names that `.dockerignore` lets through. It must be a plain list of them. */
export function contextNames (): string[] {
  const [first, ...names] = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n').filter(line =>
    line !== '' && !line.startsWith('#')
  )
  if (first !== '*' || !names.every(name => /^![\w.-]+$/.test(name))) {
    throw new Error('.dockerignore: expected * and then !name lines')
  }
  return names.map(name => name.slice(1))
}

/** The files that the build compiles. */
export function sources (): string[] {
  const { include } = JSON.parse(readFileSync(join(ROOT, 'tsconfig.build.json'), 'utf8')) as { include: string[] }
  return globSync(include, { cwd: ROOT }).filter(path => !path.endsWith('.d.ts'))
}

/** A copy of the build context of the image. */
export function buildContext (t: Teardown): string {
  const dir = temporaryFolder(t)
  for (const name of contextNames()) cpSync(join(ROOT, name), join(dir, name), { recursive: true })
  return dir
}

/** Runs a program and resolves to its standard output. @throws with its output when it fails */
export async function run (
  file: string,
  args: string[],
  { cwd, env = {} }: { cwd: string, env?: Record<string, string> }
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  execFile(...clean(file, args, { ...environment(), ...env }), { cwd, env: {} }, (error, stdout, stderr) => {
    if (error) reject(new Error(`${file} ${args.join(' ')}: ${error.code}\n${stdout}${stderr}`, { cause: error.code }))
    else resolve(stdout)
  })
  return await promise
}

/** The environment without what tap, and the npm that runs the tests, have set. */
function environment (): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries({ ...process.env, PATH, npm_config_update_notifier: 'false', npm_config_prefer_offline: 'true' })
      .filter(([name]) =>
        !/^(?:INIT_CWD|NODE_OPTIONS|NODE_V8_COVERAGE|_?TAP|npm_(?:package|lifecycle|command|execpath|node_execpath))/
          .test(name)
      )
  )
}

/** A service in a process of its own. */
export interface Started {
  process: ChildProcess
  url: string
  output: { stdout: string, stderr: string }
  /** Resolves once it and its child processes have ended, to the exit code or the signal of the first. */
  exit: Promise<number | NodeJS.Signals>
  stop: () => Promise<number | NodeJS.Signals>
}

/**
 * Starts the service by a command, with only `env` and no limit on the event loop's delay in its environment, and waits
 * until it listens. The teardown of `t` ends it and its child processes.
 */
export async function start (
  t: Teardown,
  file: string,
  args: string[],
  { env, ...options }: { cwd: string, env: Record<string, string | undefined>, uid?: number, gid?: number }
): Promise<Started> {
  const child = spawnClean(file, args, {
    ...options,
    env: { KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: '0', ...env },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const { output, exit, hasEnded } = follow(child)
  const signalGroup = (signal: NodeJS.Signals) => {
    if (child.pid !== undefined && !hasEnded()) process.kill(-child.pid, signal)
  }
  t.teardown(async () => {
    signalGroup('SIGKILL')
    await exit
  })
  const url = () => /"url":"([^"]+)","msg":"listening"/.exec(output.stderr)?.[1]
  await Promise.race([
    waitFor(() => url() !== undefined || output.stderr, START_BOUND_MS, 'listening'),
    exit.then(code => { throw new Error(`${file} ended with ${code}: ${output.stderr}`) }),
  ])
  return {
    process: child,
    url: String(url()).replace('[::]', '127.0.0.1'),
    output,
    exit,
    stop: async () => {
      signalGroup('SIGTERM')
      return await exit
    },
  }
}

/** Calls a tool over the network once the service is ready, and resolves to its structured content. */
export async function ask ({ url }: Started, name: string, token?: string): Promise<unknown> {
  await waitFor(async () => (await fetch(new URL('/readyz', url))).status === 200, START_BOUND_MS, 'ready')
  const { headers, payload } = modern('tools/call', { name, arguments: {} })
  const response = await fetch(url, {
    method: 'POST',
    headers: { ...headers, ...token && { authorization: `Bearer ${token}` } },
    body: JSON.stringify(payload),
  })
  const { result } = await response.json() as { result?: { structuredContent?: unknown } }
  return result?.structuredContent
}

/** The arguments of a process, without its program. */
export function commandLine (pid: number | undefined): string[] {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(1, -1)
}
