import closeWithGrace from 'close-with-grace'
import { buildApp } from './app.ts'
import { ConfigError } from './plugins/config.ts'

const FINISH_CALLS_MS = 10_000
/** npm forwards a signal that the terminal has sent to the service already. */
const SAME_SIGNAL_MS = 1_000

/** Where the service listens. */
export const url = await start()

async function start (): Promise<string> {
  try {
    const app = await buildApp()
    closeOnSignal(() => app.close())
    const { host, port } = app.config.httpAddr
    const url = `${await app.listen({ host, port })}/mcp`
    app.log.info({ url }, 'listening')
    app.log.info('there is no authentication yet, so the service listens on loopback only')
    return url
  } catch (error) {
    process.stderr.write(`kafscale-mcp does not start:\n${sentence(error as NodeJS.ErrnoException)}\n`)
    process.exit(1)
  }
}

function sentence (error: NodeJS.ErrnoException & { address?: string, port?: number }): string {
  if (error instanceof ConfigError) return error.message
  const address = `KAFSCALE_MCP_HTTP_ADDR (${error.address}:${error.port})`
  switch (error.code) {
    case 'EADDRINUSE': return `${address} is in use: stop what listens there, or choose another port.`
    case 'EADDRNOTAVAIL': return `${address} is no address of this machine: choose one that is, such as 127.0.0.1:8090.`
    case 'EACCES': return `${address} may not be used by this user: choose a port from 1024 on.`
    default: return error.stack ?? String(error)
  }
}

/** SIGTERM or SIGINT: closes and exits 0; a second signal exits at once. */
function closeOnSignal (close: () => Promise<void>): void {
  const grace = closeWithGrace({ delay: FINISH_CALLS_MS, skip: ['SIGTERM', 'SIGINT'] }, close)
  let first: { signal: string, atMs: number } | undefined
  const onSignal = (signal: string) => {
    if (!first) {
      first = { signal, atMs: performance.now() }
      grace.close()
    } else if (signal !== first.signal || performance.now() - first.atMs > SAME_SIGNAL_MS) {
      process.exit(1)
    }
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
}
