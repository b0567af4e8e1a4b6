/** Whether the addresses can be listened on. */
import { once } from 'node:events'
import { get } from 'node:http'
import { get as getTls } from 'node:https'
import { createServer } from 'node:net'
import { createSecureContext } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import { type Address, formatAddress } from '../../lib/address.ts'
import { listenOn, listenProblem } from '../../lib/listening.ts'
import { tlsOptions } from '../../plugins/tls.ts'
import { attempt, type Finding } from './finding.ts'

const ANSWER_MS = 2_000

export async function * checkListeners ({ config }: FastifyInstance): AsyncGenerator<Finding> {
  const { httpAddr, telemetryAddr, tls } = config
  if (tls) {
    yield await attempt('TLS', async () => {
      createSecureContext(tlsOptions(tls) ?? {})
      return 'the certificate and its key are valid'
    })
  }
  yield await checkAddress('KAFSCALE_MCP_HTTP_ADDR', httpAddr, async () => await isService(httpAddr, tls !== undefined))
  if (!telemetryAddr) return
  const finding = await checkAddress('KAFSCALE_MCP_TELEMETRY_ADDR', telemetryAddr, async () =>
    /^kafscale_mcp_/m.test(await page(telemetryAddr, false, '/metrics')))
  // The service starts without it.
  yield finding.level === 'failed' ? { ...finding, level: 'warning' } : finding
}

/** @param isOurs whether the service already listens on the address */
async function checkAddress (setting: string, address: Address, isOurs: () => Promise<boolean>): Promise<Finding> {
  const item = `${setting} ${formatAddress(address)}`
  return await attempt(item, async () => {
    try {
      await bind(address)
      return 'can be listened on'
    } catch (error) {
      const isInUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
      if (isInUse && await isOurs().catch(() => false)) return 'the service already listens on it'
      throw new Error(listenProblem(setting, address, error) ?? String(error))
    }
  })
}

async function bind (address: Address): Promise<void> {
  const server = createServer()
  await listenOn(address, async ({ host, port }) => {
    server.listen(port, host)
    await once(server, 'listening')
  })
  server.close()
  await once(server, 'close')
}

async function isService (address: Address, hasTls: boolean): Promise<boolean> {
  const { status, dependencies } = JSON.parse(await page(address, hasTls, '/healthz')) as Record<string, unknown>
  return status === 'ok' && typeof dependencies === 'object'
}

/** A page of a listener on this machine, whose certificate may be for another name. */
async function page ({ host, port }: Address, hasTls: boolean, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const hostname = host === '::' || host === '0.0.0.0' ? '127.0.0.1' : host
  const options = { hostname, port, path, rejectUnauthorized: false, signal: AbortSignal.timeout(ANSWER_MS) }
  const request = (hasTls ? getTls : get)(options, async response => {
    resolve(Buffer.concat(await response.toArray()).toString())
  })
  request.on('error', reject)
  return await promise
}
