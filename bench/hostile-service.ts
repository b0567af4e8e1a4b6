/** The service in a separate process, which reports to its parent for how long a request has blocked the event loop. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { buildApp } from '../app.ts'

const app = await buildApp({ env: { ...process.env as Record<string, string>, KAFSCALE_MCP_LOG_LEVEL: 'silent' } })
const delays = monitorEventLoopDelay({ resolution: 1 })
const url = `${await app.listen({ host: '127.0.0.1', port: 0 })}/mcp`
process.stderr.write(`${JSON.stringify({ msg: 'listening', url })}\n`)
process.send?.(url)
delays.enable()

process.on('message', question => {
  if (question === 'reset') delays.reset()
  // Two turns, so that the turn that has sent the answer is over.
  setTimeout(() => setTimeout(() => process.send?.(delays.max / 1e6), 2), 2)
})
process.on('disconnect', () => process.exit())
