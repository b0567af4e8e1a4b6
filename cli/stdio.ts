/** `kafscale-mcp stdio`: serves the tools to the client that started the process, without a listener. */
import { Console } from 'node:console'
import { readFileSync } from 'node:fs'
import { buildStdioApp } from '../app.ts'
import { ConfigError } from '../errors.ts'
import { closeOnSignal } from '../lib/close-on-signal.ts'
import { serveClient } from '../routes/mcp/stdio.ts'
import { onlyHelp } from './only-help.ts'

const USAGE = `Usage:
  kafscale-mcp stdio
      Serves the tools over standard input and output, to the client that starts it. The environment variables of the
      service configure it, without those of HTTP. It records calls only if KAFSCALE_MCP_AUDIT_SINKS is set, logs to
      standard error, and ends with the client.
`

const CLOSE_MS = 5_000
/** How often to look whether the parent still runs: it may leave standard input open. */
const PARENT_INTERVAL_MS = 500

/** Runs `stdio` until the client is gone. Resolves to the exit code. */
export async function stdio (args: string[]): Promise<number> {
  const parents = whoStarted()
  const exitCode = onlyHelp('stdio', args, USAGE)
  if (exitCode !== undefined) return exitCode
  // Whatever a dependency prints must not end up in the protocol.
  globalThis.console = new Console(process.stderr)
  try {
    await serve(parents)
    return 0
  } catch (error) {
    const reason = error instanceof ConfigError ? error.message : (error as Error).stack ?? String(error)
    process.stderr.write(`kafscale-mcp does not start:\n${reason}\n`)
    process.exit(1)
  }
}

async function serve (parents: string): Promise<void> {
  const app = await buildStdioApp()
  const ended = serveClient(app)
  const shutDown = closeOnSignal(() => app.close(), app.log, CLOSE_MS)
  setInterval(() => { if (whoStarted() !== parents) shutDown({ reason: 'the parent is gone' }) }, PARENT_INTERVAL_MS)
    .unref()
  await app.ready()
  await ended
  shutDown({ reason: 'the client is gone' })
}

/**
 * The parent. Of npx, that is a shell, which outlives npx if npx is killed: there it is also the shell's parent, where
 * `/proc` tells it.
 */
function whoStarted (): string {
  const parent = process.ppid
  if (process.env['npm_command'] !== 'exec') return String(parent)
  try {
    // After the name in parentheses: the state and the parent.
    const [, grandparent] = readFileSync(`/proc/${parent}/stat`, 'latin1').split(') ').at(-1)?.split(' ') ?? []
    return `${parent} of ${grandparent}`
  } catch {
    return String(parent)
  }
}
