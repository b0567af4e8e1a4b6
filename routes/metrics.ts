import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { type Address, formatAddress } from '../lib/address.ts'
import { listenOn, listenProblem } from '../lib/listening.ts'

/** More than scrapes need, and few enough to leave file descriptors for callers. */
const MAX_CONNECTIONS = 20

/**
 * `GET /metrics`, without authentication, on a listener of its own that serves nothing else. If that listener cannot
 * start, the service runs without it.
 */
export default async function metrics (app: FastifyInstance) {
  const { telemetryAddr } = app.config
  if (!telemetryAddr) return
  const server = createServer(async (request, response) => {
    if (request.url?.split('?')[0] !== '/metrics') return response.writeHead(404).end()
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return response.writeHead(405, { allow: 'GET, HEAD' }).end()
    }
    try {
      const { contentType, text } = await app.telemetry.page()
      response.writeHead(200, { 'content-type': contentType }).end(text)
    } catch (error) {
      app.log.error({ err: error }, 'the metrics could not be read')
      response.writeHead(500).end()
    }
  })
  server.maxConnections = MAX_CONNECTIONS
  let listening: Promise<void> | undefined

  app.addHook('onListen', async () => {
    listening = listen(telemetryAddr)
    await listening
  })
  app.addHook('onClose', async () => {
    await listening
    if (!server.listening) return
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })

  async function listen (address: Address): Promise<void> {
    try {
      await listenOn(address, async ({ host, port }) => {
        server.listen(port, host)
        await once(server, 'listening')
      })
      const { address: host, port } = server.address() as AddressInfo
      app.log.info({ url: `http://${formatAddress({ host, port })}/metrics` }, 'metrics are served')
    } catch (error) {
      const problem = listenProblem('KAFSCALE_MCP_TELEMETRY_ADDR', address, error) ?? String(error)
      const { code } = error as NodeJS.ErrnoException
      app.log.warn({ code }, `cannot listen on KAFSCALE_MCP_TELEMETRY_ADDR, so there are no metrics: ${problem}`)
    }
  }
}
