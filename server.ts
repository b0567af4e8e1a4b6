import type { Socket } from 'node:net'
import { parseArgs } from 'node:util'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { buildApp } from './app.ts'
import { ConfigError } from './errors.ts'
import type { Address } from './lib/address.ts'
import { closeOnSignal } from './lib/close-on-signal.ts'
import { isRunning } from './lib/is-running.ts'
import { listenOn, listenProblem } from './lib/listening.ts'
import packageJson from './package.json' with { type: 'json' }

/** How long a shutdown waits for calls in flight. */
const FINISH_CALLS_MS = 10_000
/** How often to look whether the process of `--exit-with` still runs. */
const EXIT_WITH_INTERVAL_MS = 500

/** The URL that the service listens on. */
export const url = await start()

async function start (): Promise<string> {
  const parent = parentOf(process.argv.slice(2))
  let address: Address | undefined
  try {
    const app = await buildApp()
    exitWith(parent, closeOnSignal(closer(app), app.log, FINISH_CALLS_MS + 1_000), app.log)
    address = app.config.httpAddr
    const url = `${await listenOn(address, ({ host, port }) => app.listen({ host, port }))}/mcp`
    app.log.info({ url }, 'listening')
    return url
  } catch (error) {
    process.stderr.write(`kafscale-mcp does not start:\n${reasonOf(error as Error, address)}\n`)
    process.exit(1)
  }
}

function reasonOf (error: Error, address: Address | undefined): string {
  if (error instanceof ConfigError) return error.message
  const problem = address && listenProblem('KAFSCALE_MCP_HTTP_ADDR', address, error)
  return problem ?? error.stack ?? String(error)
}

/**
 * Returns a function that closes the app: it lets calls in flight finish within `FINISH_CALLS_MS`, then cuts them off.
 * It does not wait for sockets that have not sent a request yet, such as those that browsers open in advance.
 */
function closer (app: FastifyInstance): () => Promise<void> {
  const unused = new Set<Socket>()
  // With TLS, a request has another socket than the connection below it.
  app.server.on(app.config.tls ? 'secureConnection' : 'connection', (socket: Socket) => {
    unused.add(socket)
    socket.once('close', () => unused.delete(socket))
  })
  app.server.on('request', ({ socket }) => unused.delete(socket))
  return async () => {
    const deadline = setTimeout(() => app.server.closeAllConnections(), FINISH_CALLS_MS)
    const closed = app.close()
    for (const socket of unused) socket.destroy()
    await closed
    clearTimeout(deadline)
  }
}

/** Shuts down when the process of `--exit-with` has ended. */
function exitWith (
  pid: number | undefined,
  shutDown: (reason: { signal: string }) => void,
  log: FastifyBaseLogger
): void {
  if (pid === undefined) return
  const timer = setInterval(() => {
    if (isRunning(pid)) return
    clearInterval(timer)
    log.info({ pid }, 'the process of --exit-with has ended')
    shutDown({ signal: 'SIGTERM' })
  }, EXIT_WITH_INTERVAL_MS).unref()
}

/**
 * The process ID of `--exit-with`, if any: npm's, in `npm start`. The shell of Windows does not expand it. Ends this
 * process after `--version`, and on arguments that it does not know.
 */
function parentOf (args: string[]): number | undefined {
  try {
    const { values: { 'exit-with': pid, version } } = parseArgs({
      args,
      options: { 'exit-with': { type: 'string' }, version: { type: 'boolean' } },
    })
    if (version) {
      process.stdout.write(`${packageJson.version}\n`)
      process.exit()
    }
    return Number(pid) > 0 ? Number(pid) : undefined
  } catch (error) {
    process.stderr.write(`kafscale-mcp: ${(error as Error).message}\n`)
    process.exit(2)
  }
}
