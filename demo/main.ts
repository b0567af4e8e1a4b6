/**
 * `npm run demo`: the service as it is, with an embedded cluster where etcd and brokers would be.
 */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { serveBrokerPages } from './broker-pages.ts'
import { startCluster } from './cluster.ts'
import { EmbeddedEtcd } from './embedded-etcd.ts'

const SEED = 42
const PORT = 8090
const OWN_SETTINGS = ['KAFSCALE_MCP_HTTP_ADDR', 'KAFSCALE_MCP_LOG_LEVEL']

const etcd = new EmbeddedEtcd()
const cluster = startCluster((key, value) => etcd.put(key, value), SEED)

// What the user's shell says of a real cluster must not lead there.
for (const name of Object.keys(process.env)) {
  if (name.startsWith('KAFSCALE_MCP_') && !OWN_SETTINGS.includes(name)) delete process.env[name]
}
process.env.KAFSCALE_MCP_ETCD_ENDPOINTS = await etcd.listen()
process.env.KAFSCALE_MCP_BROKER_METRICS_URL = await serveBrokerPages(cluster)
process.env.KAFSCALE_MCP_AUDIT_SINKS = 'none' // standard output tells how to ask
process.env.KAFSCALE_MCP_TELEMETRY_ADDR = 'off'
process.env.KAFSCALE_MCP_HTTP_ADDR ||= `127.0.0.1:${await isFree(PORT) ? PORT : 0}`
process.env.KAFSCALE_MCP_LOG_LEVEL ||= 'warn'

const { url } = await import('../server.ts')
while (!await isSynced()) await delay(20)
process.stdout.write(instructions())

async function isFree (port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
    return true
  } catch {
    return false
  } finally {
    server.close()
  }
}

async function isSynced (): Promise<boolean> {
  const health = await (await fetch(new URL('/healthz', url))).json() as { dependencies: { etcd: { state: string } } }
  return health.dependencies.etcd.state === 'connected'
}

function instructions (): string {
  const clientConfig = (server: object) => `{
  "mcpServers": {
    "kafscale": ${JSON.stringify(server)}
  }
}`
  const call = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'cluster_status', arguments: {} } }
  return `
The demo cluster lives, and kafscale-mcp answers for it at

  ${url}

MCP clients that speak HTTP:

${clientConfig({ type: 'http', url })}

MCP clients that don't:

${clientConfig({ command: 'npx', args: ['-y', 'mcp-remote', url] })}

Claude Code:

claude mcp add --transport http kafscale ${url}

A question without any client:

curl ${url} -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' -d '${
    JSON.stringify(call)
  }'

Ctrl-C ends it.
`
}
