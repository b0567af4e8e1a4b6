/** The process ends: when the service is closed, whatever it was doing, and when npm, which started it, ends. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { fillCluster, SILENCE_BOUND_MS } from './support/faults.ts'
import { PATH, start as startCommand } from './support/packaging.ts'
import { ROOT } from './support/paths.ts'
import { startProxy } from './support/proxy.ts'
import { spawnClean } from './support/spawn.ts'
import { waitFor } from './support/wait-for.ts'

const START_BOUND_MS = 15_000
const EXIT_BOUND_MS = 3_000

/** Runs the service, prints every change of its state, and closes it at SIGTERM without ending the process. */
const script = `
  import { buildApp } from './app.ts'
  const app = await buildApp()
  await app.listen({ host: '127.0.0.1', port: 0 })
  process.once('SIGTERM', () => app.close())
  let printed
  const print = () => {
    const { state, reason } = app.metadata
    if (printed !== state + reason) console.log(state, reason)
    printed = state + reason
  }
  print()
  setInterval(print, 10).unref()
`

interface Service { process: ChildProcess, output: () => string }

function start (t: Test, endpoints: string): Service {
  const child = spawnClean(process.execPath, ['--input-type=module', '-e', script], {
    cwd: ROOT,
    env: {
      KAFSCALE_MCP_ETCD_ENDPOINTS: endpoints,
      KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0',
      KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: '0',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  }
  t.teardown(() => child.kill('SIGKILL'))
  return { process: child, output: () => output }
}

async function says ({ output }: Service, what: string, boundMs: number): Promise<void> {
  await waitFor(() => output().includes(what) || output(), boundMs, what)
}

async function closesAndExits (t: Test, { process, output }: Service): Promise<void> {
  const exit = once(process, 'exit')
  process.kill('SIGTERM')
  await waitFor(() => process.exitCode !== null || process.signalCode !== null || output(), EXIT_BOUND_MS, 'exit')
  t.strictSame(await exit, [0, null])
}

t.test('the process ends by itself once the service is closed', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fillCluster(etcd)
  const endpoint = etcd.endpoints[0] as string
  const network = await startProxy(t, endpoint)
  const startSynced = async (endpoint: string) => {
    const service = start(t, endpoint)
    await says(service, 'synced', START_BOUND_MS)
    return service
  }

  await t.test('when it has just begun', async t => {
    const early = start(t, endpoint)
    await says(early, 'unavailable', START_BOUND_MS)
    await closesAndExits(t, early)
  })
  await t.test('while etcd was never there', async t => {
    const unsynced = start(t, 'http://127.0.0.1:1')
    await says(unsynced, 'unavailable etcd can\'t be reached', START_BOUND_MS)
    await closesAndExits(t, unsynced)
  })
  await t.test('while synced', async t => await closesAndExits(t, await startSynced(endpoint)))
  const [silent, refused, probing, paused, dead] = await Promise.all([
    startSynced(network.endpoint),
    startSynced(network.endpoint),
    startSynced(endpoint),
    startSynced(endpoint),
    startSynced(endpoint),
  ])
  await t.test('while the network is silent', async t => {
    network.halfOpen()
    await says(silent, 'stale', SILENCE_BOUND_MS)
    await closesAndExits(t, silent)
  })
  await t.test('while the network refuses', async t => {
    network.cut()
    await says(refused, 'stale etcd can\'t be reached', SILENCE_BOUND_MS)
    await closesAndExits(t, refused)
  })
  await t.test('when etcd has just been paused', async t => {
    etcd.pause()
    await closesAndExits(t, probing)
  })
  await t.test('while etcd is paused', async t => {
    await says(paused, 'stale', SILENCE_BOUND_MS)
    await closesAndExits(t, paused)
  })
  await t.test('while etcd is dead', async t => {
    await etcd.kill()
    await says(dead, 'stale etcd can\'t be reached', SILENCE_BOUND_MS)
    await closesAndExits(t, dead)
  })
})

t.test('a service that npm started ends with npm', async t => {
  t.jobs = 2
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    t.test(signal, async t => {
      const service = await startCommand(t, 'npm', ['start'], {
        cwd: ROOT,
        env: {
          PATH,
          HOME: t.testdir(),
          npm_config_update_notifier: 'false',
          KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1',
          KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
          KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
          KAFSCALE_MCP_AUDIT_SINKS: 'none',
          KAFSCALE_MCP_LOG_LEVEL: 'info',
        },
      })
      t.equal((await fetch(new URL('/healthz', service.url))).status, 200)
      service.process.kill(signal)
      await waitFor(async () => await service.exit !== undefined, EXIT_BOUND_MS, 'the end of the service')
      t.match(service.output.stderr, '"msg":"shutting down"')
    })
  }
})
