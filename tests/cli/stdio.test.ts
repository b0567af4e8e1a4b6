/** `kafscale-mcp stdio`, as the process that a client starts. `package.test.ts` runs it in a package. */
import { type ChildProcess, execFileSync } from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Client as Client2026 } from '@modelcontextprotocol/client'
import { StdioClientTransport as Transport2026 } from '@modelcontextprotocol/client/stdio'
import { Client as Client2025 } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport as Transport2025 } from '@modelcontextprotocol/sdk/client/stdio.js'
import t, { type Test } from 'tap'
import { ConfigSchema, type SettingKey } from '../../plugins/config/schema.ts'
import { HTTP_SETTINGS } from '../../plugins/config/stdio.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { ROOT } from '../support/paths.ts'
import { fill, recordedKeyspace } from '../support/service.ts'
import { clean, follow, spawnClean } from '../support/spawn.ts'
import { waitFor } from '../support/wait-for.ts'

const LAUNCHER = join(ROOT, 'bin/kafscale-mcp.js')
const INFO = { name: 'test', version: '1' }
const START_BOUND_MS = 10_000
const EXIT_BOUND_MS = 3_000
const NO_ETCD = { KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1' }

interface Started {
  process: ChildProcess
  output: { stdout: string, stderr: string }
  exit: Promise<number | NodeJS.Signals>
}

/** Starts it with an open standard input, and waits until it serves, or has ended. */
async function start (
  t: Test,
  env: Record<string, string> = NO_ETCD,
  args: string[] = [LAUNCHER, 'stdio'],
  input: number | 'pipe' = 'pipe'
): Promise<Started> {
  const child = spawnClean(process.execPath, args, { env, stdio: [input, 'pipe', 'pipe'] })
  const { output, exit, hasEnded } = follow(child)
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exit
  })
  const serves = () => hasEnded() || output.stderr.includes('serving the client') || output.stderr
  await waitFor(serves, START_BOUND_MS, 'served')
  return { process: child, output, exit }
}

/** Sends lines, closes the input, and resolves to the answers and the exit code. */
async function pipe (t: Test, lines: string[], env?: Record<string, string>) {
  const { process: { stdin }, output, exit } = await start(t, env)
  stdin?.end(lines.map(line => `${line}\n`).join(''))
  const code = await exit
  return { code, answers: output.stdout.trim().split('\n').map(line => JSON.parse(line)), stderr: output.stderr }
}

const message = (id: unknown, method: string, params?: unknown) =>
  JSON.stringify({ jsonrpc: '2.0', id, method, params })

t.test('clients of both generations', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const [command, args] = clean(process.execPath, [LAUNCHER, 'stdio'], etcd.env)
  const server = { command, args, stderr: 'ignore' as const }
  const clients = {
    '2026-07-28': async () => {
      const client = new Client2026(INFO, { versionNegotiation: { mode: 'auto' } })
      await client.connect(new Transport2026(server))
      t.equal(client.getNegotiatedProtocolVersion(), '2026-07-28')
      return client
    },
    '2025-11-25 with the newer client': async () => {
      const client = new Client2026(INFO)
      await client.connect(new Transport2026(server))
      t.equal(client.getNegotiatedProtocolVersion(), '2025-11-25')
      return client
    },
    '2025-11-25': async () => {
      const client = new Client2025(INFO)
      await client.connect(new Transport2025(server))
      return client
    },
  }
  for (const [name, connect] of Object.entries(clients)) {
    await t.test(name, async t => {
      const client = await connect()
      const errors: Error[] = []
      client.onerror = error => errors.push(error)
      t.match(await client.callTool({ name: 'list_topics', arguments: {} }), {
        structuredContent: { topics: [{ name: 'audit-events' }, { name: 'orders' }, { name: 'payments' }] },
      }, 'the first call waits for the first load')
      t.match(client.getServerVersion(), { name: 'kafscale-mcp' })
      t.match(client.getInstructions(), 'Start with cluster_status')
      t.equal((await client.listTools()).tools.length, 10)
      t.match(await client.callTool({ name: 'explain_access', arguments: {} }), {
        structuredContent: { principal: { subject: 'local' }, roles: ['observer'] },
      })
      t.match(await client.callTool({ name: 'describe_group', arguments: { group_id: 'nope' } }), {
        isError: true,
        _meta: { 'kafscale-mcp/error': { code: 'GROUP_NOT_FOUND' } },
      })
      await t.rejects(async () => { await client.callTool({ name: 'nope' }) }, {
        code: -32602,
        message: /"nope" does not exist/,
      })
      await client.close()
      t.strictSame(errors, [], 'nothing else is on standard output')
    })
  }
})

t.test('every line gets an answer, also those that are no message and those before the end of the input', async t => {
  const { code, answers } = await pipe(t, [
    message('a', 'tools/list', null),
    'nope',
    '[]',
    '',
    '{"id":7}',
    '[['.repeat(40),
    message(3, 'tools/call', { name: 'explain_access', arguments: null }),
    message(4, 'tools/call', { name: 'list_topics', arguments: { pattern: '\u202e' } }),
  ])
  t.equal(code, 0)
  const byId = (id: unknown) => answers.filter(answer => answer.id === id)
  t.match(byId(null), [
    { error: { code: -32700, message: /not valid JSON/ } },
    { error: { code: -32600, message: /no batches/ } },
    { error: { code: -32600, message: /nest/ } },
  ])
  t.match(byId(7), [{ error: { code: -32600, message: /not a JSON-RPC message/ } }])
  t.equal(byId('a')[0]?.result.tools.length, 10)
  t.match(byId(3), [{ result: { structuredContent: { principal: { subject: 'local' } } } }])
  t.match(byId(4), [{ result: { isError: true, content: [{ text: /^METADATA_UNAVAILABLE/ }] } }])
})

t.test('it records nowhere, unless AUDIT_SINKS says where', async t => {
  const file = join(t.testdir({}), 'audit.jsonl')
  const calls = [
    message(1, 'initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: INFO }),
    message(2, 'tools/call', { name: 'explain_access', arguments: {} }),
    message(3, 'tools/call', { name: 'nope', arguments: {} }),
    message(4, 'tools/call', { name: 'explain_access', arguments: 'none' }),
  ]
  const { answers } = await pipe(t, calls)
  t.strictSame(answers.map(({ id }) => id).sort(), [1, 2, 3, 4])
  t.strictSame(readdirSync(t.testdirName), [])
  await pipe(t, calls, { ...NO_ETCD, KAFSCALE_MCP_AUDIT_SINKS: `file:${file}` })
  const records = readFileSync(file, 'utf8').trim().split('\n').map(line => JSON.parse(line))
  const recorded = records.filter(({ event }) => event === 'tool_call')
  t.match(recorded.map(({ who: { subject, roles } }) => [subject, roles]), Array(3).fill(['local', ['observer']]))
  t.strictSame(
    recorded.map(({ what: { tool }, outcome, error_code: code }) => [tool, outcome, code]).sort(),
    [['explain_access', 'error', 'INVALID_PARAMS'], ['explain_access', 'ok', null], ['nope', 'error', 'INVALID_PARAMS']]
  )
  t.match(recorded[0], { where: { mcp_client: 'test 1', remote_address: null, request_id: /^[234]$/ } })
  t.ok(records.some(({ event }) => event === 'stop'))
})

t.test('an audit sink on standard output is refused, with every other mistake', async t => {
  const { output, exit } = await start(t, {
    KAFSCALE_MCP_AUDIT_SINKS: 'file:/tmp/a,stdout',
    KAFSCALE_MCP_LOG_LEVEL: 'x',
  })
  t.equal(await exit, 1)
  t.strictSame(output, {
    stdout: '',
    stderr: 'kafscale-mcp does not start:\n' +
      'KAFSCALE_MCP_ETCD_ENDPOINTS is not set: expected etcd endpoints, comma-separated: http://host:port or ' +
      'https://host:port; http if no scheme is given\n' +
      'KAFSCALE_MCP_LOG_LEVEL is "x": expected one of fatal, error, warn, info, debug, trace, silent\n' +
      'KAFSCALE_MCP_AUDIT_SINKS contains stdout, which carries the protocol: expected file:PATH, a URL, or nothing, ' +
      'which records nothing\n',
  })
})

t.test('it opens no port, ignores the settings of HTTP and says so, and applies the others', async t => {
  const { process: { pid, stdin }, output, exit } = await start(t, {
    ...NO_ETCD,
    KAFSCALE_MCP_HTTP_ADDR: ':8090',
    KAFSCALE_MCP_TELEMETRY_ADDR: ':9090',
    KAFSCALE_MCP_AUTH_TOKEN_FILE: '/nowhere',
    KAFSCALE_MCP_OIDC_ISSUER: 'https://id.example',
    KAFSCALE_MCP_KAFKA_BROKERS: 'broker:9092',
    KAFSCALE_MCP_TOOLS: 'list_groups,explain_access',
  })
  t.match(
    output.stderr,
    'KAFSCALE_MCP_HTTP_ADDR, KAFSCALE_MCP_AUTH_TOKEN_FILE, KAFSCALE_MCP_OIDC_ISSUER, KAFSCALE_MCP_TELEMETRY_ADDR, ' +
      'KAFSCALE_MCP_KAFKA_BROKERS have no effect over standard input and output'
  )
  t.strictSame(listeningSockets(pid as number), [])
  stdin?.end(`${message(1, 'tools/list')}\n`)
  t.equal(await exit, 0)
  t.strictSame(
    JSON.parse(output.stdout).result.tools.map(({ name }: { name: string }) => name),
    ['explain_access', 'list_groups']
  )
})

t.test('it cannot change the cluster, and says so in one sentence', async t => {
  const { output, exit } = await start(t, {
    ...NO_ETCD,
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_KAFKA_BROKERS: 'broker:9092',
  })
  t.equal(await exit, 1)
  t.match(output, {
    stdout: '',
    stderr: 'kafscale-mcp does not start:\n' +
      'KAFSCALE_MCP_CHANGES is enabled: expected disabled over standard input and output, since a change belongs to ' +
      'a caller who has signed in, and here nobody signs in\n',
  })
})

/** The sockets on which a process listens. */
function listeningSockets (pid: number): string[] {
  const LISTEN = '0A'
  const listening = ['tcp', 'tcp6'].flatMap(name =>
    readFileSync(`/proc/${pid}/net/${name}`, 'utf8').trim().split('\n').slice(1).map(line => line.trim().split(/\s+/))
  ).filter(columns => columns[3] === LISTEN).map(columns => `socket:[${columns[9]}]`)
  return readdirSync(`/proc/${pid}/fd`).map(fd => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      return ''
    }
  }).filter(target => listening.includes(target))
}

t.test('it exits', async t => {
  const exits = async ({ exit, output }: Started, code: number) => {
    await waitFor(async () => await exit === code || output.stderr, EXIT_BOUND_MS, 'exit')
    t.match(output.stderr, 'shutdown complete')
    t.equal(output.stdout, '')
  }
  await t.test('when its input is closed', async () => {
    const started = await start(t)
    started.process.stdin?.end()
    await exits(started, 0)
  })
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    await t.test(`on ${signal}`, async () => {
      const started = await start(t)
      started.process.kill(signal)
      await exits(started, 0)
    })
  }
  await t.test('when its parent is gone, although its input stays open', async t => {
    const parent = `
      import { spawn } from 'node:child_process'
      spawn(process.execPath, [${JSON.stringify(LAUNCHER)}, 'stdio'], { stdio: 'inherit' })
      setInterval(() => {}, 1_000)
    `
    const fifo = join(t.testdir({}), 'input')
    execFileSync('mkfifo', [fifo])
    const input = openSync(fifo, 'r+')
    t.teardown(() => closeSync(input))
    const started = await start(t, NO_ETCD, ['--input-type=module', '--eval', parent], input)
    started.process.kill('SIGKILL')
    await waitFor(async () => await started.exit === 'SIGKILL', EXIT_BOUND_MS, 'the end of both')
    t.match(started.output.stderr, /the parent is gone.*shutdown complete/s)
  })
  const skip = existsSync('/proc/self/stat') ? false : 'only /proc tells the parent of another process'
  await t.test('when npx is gone, whose shell stays, although its input stays open', { skip }, async t => {
    const npx = `
      import { spawn } from 'node:child_process'
      const args = ['-c', '"$0" "$1" stdio; true', process.execPath, ${JSON.stringify(LAUNCHER)}]
      spawn('sh', args, { env: { ...process.env, npm_command: 'exec' }, stdio: 'inherit' })
      setInterval(() => {}, 1_000)
    `
    const fifo = join(t.testdir({}), 'input')
    execFileSync('mkfifo', [fifo])
    const input = openSync(fifo, 'r+')
    t.teardown(() => closeSync(input))
    const started = await start(t, NO_ETCD, ['--input-type=module', '--eval', npx], input)
    started.process.kill('SIGKILL')
    await waitFor(async () => await started.exit === 'SIGKILL', EXIT_BOUND_MS, 'the end of all')
    t.match(started.output.stderr, /the parent is gone.*shutdown complete/s)
  })
})

t.test('every setting either has an effect or is one of HTTP', async t => {
  const effective: SettingKey[] = [
    'etcdEndpoints', 'etcdUsername', 'etcdPassword', 'etcdCaFile', 'etcdCertFile', 'etcdKeyFile',
    'brokerMetricsUrl', 'metricsAllowedHosts', 'metricsMaxAgeMs', 'verifyIntervalMs', 'policyFile', 'environment',
    'tools', 'disabledTools', 'auditSinks', 'auditSigningKeyFile', 'auditHeadFile', 'auditFailMode', 'auditRedact',
    'auditCollectorBatchBytes', 'auditCollectorHeadersFile', 'auditCollectorCaFile', 'auditCollectorCertFile',
    'auditCollectorKeyFile', 'changes', 'logLevel',
  ]
  t.strictSame([...effective, ...HTTP_SETTINGS].sort(), Object.keys(ConfigSchema).sort())
})

t.test('it has a usage, and refuses what it does not know', async t => {
  const help = await start(t, {}, [LAUNCHER, 'stdio', '--help'])
  t.equal(await help.exit, 0)
  t.match(help.output, { stdout: /^Usage:\n {2}kafscale-mcp stdio\n/, stderr: '' })
  const wrong = await start(t, {}, [LAUNCHER, 'stdio', '--port', '1'])
  t.equal(await wrong.exit, 2)
  t.match(wrong.output, { stdout: '', stderr: /^kafscale-mcp stdio: Unknown option '--port'[^]*\nUsage:\n/ })
})
