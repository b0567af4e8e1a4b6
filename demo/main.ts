/**
 * `npm run demo`: the service over an embedded cluster, which stands in for etcd and the brokers. With `-- --changes`,
 * agents can change it.
 */
import { once } from 'node:events'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join, relative } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { formatAddress, isLoopback } from '../lib/address.ts'
import { FileLock } from '../plugins/audit/sinks/lock.ts'
import { parseAddress } from '../plugins/config/parsers.ts'
import { serveBrokerPages } from './broker-pages.ts'
import { startCluster } from './cluster.ts'
import { EmbeddedEtcd } from './embedded-etcd.ts'

const SEED = 42
const PORT = 8090
const SETTABLE = ['KAFSCALE_MCP_HTTP_ADDR', 'KAFSCALE_MCP_LOG_LEVEL']
const AUDIT_FILE = 'audit.jsonl'
const CHANGES = '--changes'
const STATUS_CALL = {
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/call',
  params: { name: 'cluster_status', arguments: {} },
}

const withChanges = process.argv.includes(CHANGES)
/** Ignored by git. Each kind of demo has its own, so that both can start at once. */
const FOLDER = join(import.meta.dirname, '../.demo', withChanges ? 'changes' : '')
process.argv = process.argv.filter(argument => argument !== CHANGES) // the service reads the others

const etcd = new EmbeddedEtcd()
const cluster = startCluster(etcd, SEED)

// Settings for a real cluster in the user's environment must not apply.
for (const name of Object.keys(process.env)) {
  if (name.startsWith('KAFSCALE_MCP_') && !SETTABLE.includes(name)) delete process.env[name]
}
process.env.KAFSCALE_MCP_ETCD_ENDPOINTS = await etcd.listen()
process.env.KAFSCALE_MCP_BROKER_METRICS_URL = await serveBrokerPages(cluster)
const auditFile = relative('', await ownAuditFile())
process.env.KAFSCALE_MCP_AUDIT_SINKS = `file:${auditFile}`
process.env.KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY = '0' // a busy laptop is no reason to refuse requests
process.env.KAFSCALE_MCP_TELEMETRY_ADDR = 'off'
process.env.KAFSCALE_MCP_HTTP_ADDR ||= `127.0.0.1:${await isFree(PORT) ? PORT : 0}`
process.env.KAFSCALE_MCP_LOG_LEVEL ||= 'warn'
process.stdout.write(await (withChanges ? startWithChanges() : startReadOnly()))

async function startReadOnly (): Promise<string> {
  const { url } = await import('../server.ts')
  await isReady(url)
  await recordCall(url)
  return instructions(url)
}

async function startWithChanges (): Promise<string> {
  const { instructions, prepareChanges } = await import('./changes.ts')
  const address = process.env.KAFSCALE_MCP_HTTP_ADDR = await ownAddress()
  const publicUrl = `http://${address}`
  const policyFile = auditFile.replace('audit', 'policy').replace('.jsonl', '.yaml')
  const { env, token } = await prepareChanges(cluster, publicUrl, policyFile)
  Object.assign(process.env, env)
  const { url } = await import('../server.ts')
  await isReady(url)
  return instructions({ url, publicUrl, token, auditFile, policyFile })
}

/** An empty audit file: the usual one, unless another demo writes to that. */
async function ownAuditFile (): Promise<string> {
  mkdirSync(FOLDER, { recursive: true })
  const path = join(FOLDER, AUDIT_FILE)
  const lock = new FileLock(`${path}.lock`)
  if (await lock.acquire(() => {})) return join(FOLDER, `audit-${process.pid}.jsonl`)
  for (const name of readdirSync(FOLDER)) if (name.startsWith(AUDIT_FILE)) rmSync(join(FOLDER, name))
  await lock.release()
  return path
}

/** Where the service will listen, with its port, which tokens name. */
async function ownAddress (): Promise<string> {
  const text = process.env.KAFSCALE_MCP_HTTP_ADDR ?? ''
  const { host, port } = parseAddress(text)
  if (!isLoopback(host)) {
    process.stderr.write(
      `KAFSCALE_MCP_HTTP_ADDR is ${text}: expected a loopback address such as 127.0.0.1:8090, since the demo prints ` +
      'tokens and passwords\n'
    )
    process.exit(1)
  }
  if (port !== 0) return formatAddress({ host, port })
  const server = createServer().listen(0, host)
  await once(server, 'listening')
  const free = (server.address() as AddressInfo).port
  await once(server.close(), 'close')
  return formatAddress({ host, port: free })
}

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

async function isReady (url: string): Promise<void> {
  while (!(await fetch(new URL('/readyz', url))).ok) await delay(20)
}

/** Calls a tool, so that the audit file has a call to show. */
async function recordCall (url: string): Promise<void> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify(STATUS_CALL),
  })
  await response.text()
}

function instructions (url: string): string {
  const clientConfig = (server: object) => `{
  "mcpServers": {
    "kafscale": ${JSON.stringify(server)}
  }
}`
  return `
The demo cluster is up. kafscale-mcp is serving it at

  ${url}

MCP clients with HTTP support:

${clientConfig({ type: 'http', url })}

MCP clients without it:

${clientConfig({ command: 'npx', args: ['-y', 'mcp-remote', url] })}

Claude Code:

claude mcp add --transport http kafscale ${url}

A tool call without a client:

curl ${url} -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' -d '${
    JSON.stringify(STATUS_CALL)
  }'

Calls are recorded in ${auditFile}, which the next start replaces. Verify and show the records:

npx kafscale-mcp audit verify ${auditFile}
npx kafscale-mcp audit show ${auditFile}

Press Ctrl-C to stop.
`
}
