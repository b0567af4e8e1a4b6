/** The service with the environment that KafScale's own chart gives it, as docs/upgrade.md describes. */
import t from 'tap'
import { parse } from 'yaml'
import type { Environment } from '../plugins/config/read.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { readPage } from './support/pages.ts'
import { startService } from './support/service.ts'
import { waitFor } from './support/wait-for.ts'

const TOKEN = 'a-token-of-32-characters-or-more'
const SYNC_BOUND_MS = 10_000

interface KafscaleValues {
  auth?: { token?: string }
  etcdEndpoints?: string[]
  etcd?: { username?: string, password?: string, existingSecret?: string }
  metrics?: { brokerMetricsURL?: string }
  sessionTimeout?: string
}

/**
 * The container's environment in that chart: an empty value has no variable, and the kubelet adds those of the Service.
 * The address is `:8090` there; here, any free port.
 */
function environmentOf (mcp: KafscaleValues): Environment {
  const set = {
    ETCD_ENDPOINTS: mcp.etcdEndpoints?.join(','),
    ETCD_USERNAME: mcp.etcd?.username,
    ETCD_PASSWORD: mcp.etcd?.password,
    BROKER_METRICS_URL: mcp.metrics?.brokerMetricsURL,
    SESSION_TIMEOUT: mcp.sessionTimeout,
    AUTH_TOKEN: mcp.auth?.token,
  }
  return {
    KAFSCALE_MCP_HTTP_ADDR: ':0',
    KAFSCALE_MCP_ETCD_ENDPOINTS: undefined,
    KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0',
    KAFSCALE_MCP_AUDIT_SINKS: undefined,
    ...Object.fromEntries(
      Object.entries(set).filter(([, value]) => value).map(([name, value]) => [`KAFSCALE_MCP_${name}`, value])
    ),
    KAFSCALE_MCP_SERVICE_HOST: '10.96.0.10',
    KAFSCALE_MCP_SERVICE_PORT: '80',
    KAFSCALE_MCP_SERVICE_PORT_HTTP: '80',
    KAFSCALE_MCP_PORT: 'tcp://10.96.0.10:80',
    KAFSCALE_MCP_PORT_80_TCP: 'tcp://10.96.0.10:80',
    KAFSCALE_MCP_PORT_80_TCP_PROTO: 'tcp',
    KAFSCALE_MCP_PORT_80_TCP_PORT: '80',
    KAFSCALE_MCP_PORT_80_TCP_ADDR: '10.96.0.10',
  }
}

const { mcp } = parse(readPage('upgrade.md').block('yaml kafscale-chart')) as { mcp: KafscaleValues }
const documented = { ...mcp, auth: { token: TOKEN } }

t.test('starts with the documented values, and answers the probe of that chart', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  const env = environmentOf({ ...documented, etcdEndpoints: etcd.endpoints, sessionTimeout: '30m' })
  const { url, output } = startService(t, env)
  const origin = new URL(await url).origin.replace('[::]', '127.0.0.1').replace('0.0.0.0', '127.0.0.1')
  t.equal((await fetch(new URL('/healthz', origin))).status, 200)
  t.equal((await fetch(new URL('/mcp', origin), { method: 'POST' })).status, 401)
  await waitFor(async () => (await fetch(new URL('/readyz', origin))).ok, SYNC_BOUND_MS, 'ready')
  t.match(output.stderr, /KAFSCALE_MCP_SESSION_TIMEOUT has no effect/)
  t.notMatch(output.stderr, /is not a variable of this service/, 'Kubernetes set the variables of the Service')
})

t.test('succeeds in that probe without metadata, which only /readyz shows', async t => {
  const { url } = startService(t, environmentOf({ ...documented, etcdEndpoints: ['http://127.0.0.1:1'] }))
  const origin = new URL(await url).origin.replace('[::]', '127.0.0.1').replace('0.0.0.0', '127.0.0.1')
  t.equal((await fetch(new URL('/healthz', origin))).status, 200)
  t.equal((await fetch(new URL('/readyz', origin))).status, 503)
})

t.test('does not start with values that the Go service accepts, and says why', async t => {
  const refused: [values: KafscaleValues, sentence: RegExp][] = [
    [{ auth: { token: '' } }, /is not a loopback address, and no authentication is configured: set /],
    [{ auth: { token: 'short' } }, /KAFSCALE_MCP_AUTH_TOKEN is not valid: expected at least 32 characters/],
    [{ etcdEndpoints: [] }, /KAFSCALE_MCP_ETCD_ENDPOINTS is not set: expected etcd endpoints/],
    [{ etcd: { username: 'reader' } }, /ETCD_USERNAME is set and KAFSCALE_MCP_ETCD_PASSWORD is not/],
    [{ etcd: { password: 'secret' } }, /ETCD_PASSWORD is set and KAFSCALE_MCP_ETCD_USERNAME is not/],
    [{ metrics: { brokerMetricsURL: 'broker:9093' } }, /KAFSCALE_MCP_BROKER_METRICS_URL is .*: expected URLs such as/],
  ]
  for (const [given, sentence] of refused) {
    const { exit, output } = startService(t, environmentOf({ ...documented, ...given }))
    t.equal(await exit, 1, JSON.stringify(given))
    t.match(output.stderr, sentence)
  }
})
