/** The package and the image, made in folders of their own as npm and an engine make them. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import type { Teardown } from './etcd.ts'
import { ROOT } from './paths.ts'
import { modern } from './service.ts'
import { waitFor } from './wait-for.ts'

/** Programs are found as in a shell; `node` is the one that runs the tests. */
export const PATH = [dirname(process.execPath), process.env['PATH']].join(delimiter)
const START_BOUND_MS = 20_000

/** An empty folder that no other package.json is above. */
export function emptyFolder (t: Teardown): string {
  const dir = mkdtempSync(join(tmpdir(), 'kafscale-mcp-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** What `.dockerignore` lets through, which is a list of names and nothing more clever. */
export function contextNames (): string[] {
  const [first, ...names] = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n').filter(line =>
    line !== '' && !line.startsWith('#')
  )
  if (first !== '*' || !names.every(name => /^![\w.-]+$/.test(name))) {
    throw new Error('.dockerignore: expected * and then !name lines')
  }
  return names.map(name => name.slice(1))
}

/** The files that the build compiles, types that have nothing to compile left out. */
export function sources (): string[] {
  const { include } = JSON.parse(readFileSync(join(ROOT, 'tsconfig.build.json'), 'utf8')) as { include: string[] }
  return globSync(include, { cwd: ROOT }).filter(path => !path.endsWith('.d.ts'))
}

/** A copy of what an engine is given to build from. */
export function buildContext (t: Teardown): string {
  const dir = emptyFolder(t)
  for (const name of contextNames()) cpSync(join(ROOT, name), join(dir, name), { recursive: true })
  return dir
}

/** Runs a program to its end and gives what it has printed. @throws with what it printed when it fails */
export async function run (
  file: string,
  args: string[],
  { cwd, env = {} }: { cwd: string, env?: Record<string, string> }
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  execFile(file, args, { cwd, env: { ...npmEnvironment(), ...env } }, (error, stdout, stderr) => {
    if (error) reject(new Error(`${file} ${args.join(' ')}: ${error.code}\n${stdout}${stderr}`, { cause: error.code }))
    else resolve(stdout)
  })
  return await promise
}

/** npm as it is set up on this machine, not as the npm that runs the tests has set it for its scripts. */
function npmEnvironment (): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries({ ...process.env, PATH, npm_config_update_notifier: 'false', npm_config_prefer_offline: 'true' })
      .filter(([name]) =>
        !/^(?:INIT_CWD|NODE_OPTIONS|NODE_V8_COVERAGE|TAP|npm_(?:package|lifecycle|command|execpath|node_execpath))/
          .test(name)
      )
  )
}

/** A service that was started, and what it has written. */
export interface Started {
  process: ChildProcess
  url: string
  output: { stdout: string, stderr: string }
  stop: () => Promise<number | NodeJS.Signals>
}

/** Starts the service by a command, with nothing in its environment but `env`, and waits until it listens. The teardown of `t` ends it, and what it has started. */
export async function start (
  t: Teardown,
  file: string,
  args: string[],
  { env, ...options }: { cwd: string, env: Record<string, string | undefined>, uid?: number, gid?: number }
): Promise<Started> {
  // tap puts a module of its own into whatever is spawned, which would write beside the tests as nobody.
  const variables = Object.entries(env).flatMap(([name, value]) => value === undefined ? [] : `${name}=${value}`)
  const child = spawn('/usr/bin/env', ['-i', ...variables, file, ...args], {
    ...options,
    env: {},
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', chunk => { output.stdout += chunk })
  child.stderr.on('data', chunk => { output.stderr += chunk })
  const exit = once(child, 'close').then(([code, signal]) => code ?? signal)
  const signalGroup = (signal: NodeJS.Signals) => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      process.kill(-child.pid, signal)
    }
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
    stop: async () => {
      signalGroup('SIGTERM')
      return await exit
    },
  }
}

/** What a tool answers over the network once the service has caught up with etcd. */
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

/** How the process was started that listens: the arguments behind its program. */
export function commandLine (pid: number | undefined): string[] {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(1, -1)
}
