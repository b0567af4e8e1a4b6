/** The demo, as a process. */
import { once } from 'node:events'
import { ROOT } from './paths.ts'
import type { Teardown } from './run.ts'
import { spawnClean } from './spawn.ts'
import { waitFor } from './wait-for.ts'

const START_BOUND_MS = 15_000

type Answer = Record<string, unknown>

/** Starts the demo and waits until it has printed its instructions. */
export async function startDemo (t: Teardown, env: Record<string, string>, args: string[] = []) {
  const child = spawnClean(process.execPath, ['demo/main.ts', ...args], {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  let output = ''
  let errors = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => { output += text })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { errors += text })
  await waitFor(() => output.includes('Press Ctrl-C') || output + errors, START_BOUND_MS, 'the instructions')

  const [, token] = /^TOKEN=(.*)$/m.exec(output) ?? []
  const url = /^ {2}(http:\/\/\S+)$/m.exec(output)![1]!
  const request = async (method: string, params = {}): Promise<Answer> => {
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        ...token !== undefined && { authorization: `Bearer ${token}` },
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
    })
    return (await response.json() as { result: Answer }).result
  }
  return {
    /** What it has printed so far. */
    get output () { return output },
    errors: () => errors,
    url,
    port: Number(new URL(url).port),
    lineWith: (start: string) => output.split('\n').find(line => line.startsWith(start))!,
    request,
    ask: async (name: string, input = {}) =>
      (await request('tools/call', { name, arguments: input })).structuredContent as Answer,
    /** Resolves to the exit code. */
    async interrupt (times = 1) {
      for (let i = 0; i < times; i++) child.kill('SIGINT')
      await waitFor(() => child.exitCode !== null || child.signalCode, 5_000, 'the end')
      await exited
      return child.exitCode
    },
  }
}
