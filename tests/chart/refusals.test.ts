/** Values that Kubernetes would refuse or misread: the chart fails to render, and says what to set instead. */
import t from 'tap'
import { needsHelm, podOf, refusal, render, values } from '../support/chart.ts'

const oidc = { 'auth.token': '', 'auth.oidc': { issuers: ['https://id.example'], clientId: 'id', existingSecret: 'a' } }
const replicas = {
  replicaCount: 2,
  'audit.sinks': ['file:/var/log/kafscale-mcp/audit.jsonl'],
  'audit.persistence': { enabled: true, accessModes: ['ReadWriteMany'] },
}

t.test('a variable that the chart sets is refused in extraEnv, whatever sets it', needsHelm(), async t => {
  const reserved: [variable: string, by: string, values?: Record<string, unknown>][] = [
    ['KAFSCALE_MCP_LOG_LEVEL', 'mcp.logLevel'],
    ['KAFSCALE_MCP_PUBLIC_URL', 'mcp.publicURL'],
    ['KAFSCALE_MCP_RATE_LIMIT', 'mcp.limits.rateLimit'],
    ['KAFSCALE_MCP_AUTH_TOKEN_FILE', 'mcp.auth'],
    ['KAFSCALE_MCP_OIDC_CLIENT_SECRET_FILE', 'mcp.auth.oidc', oidc],
    ['KAFSCALE_MCP_TLS_CERT_FILE', 'mcp.tls', { 'tls.existingSecret': 'tls' }],
    ['KAFSCALE_MCP_ETCD_USERNAME', 'mcp.etcd.existingSecret', { 'etcd.existingSecret': 'etcd' }],
    ['HTTPS_PROXY', 'mcp.proxy.httpsProxy', { 'proxy.httpsProxy': 'http://proxy.example:3128' }],
    ['POD_NAME', 'mcp.audit.persistence', replicas],
  ]
  for (const [name, by, given] of reserved) {
    const message = await refusal(values({ ...given, extraEnv: [{ name, value: 'x' }] }))
    t.ok(message.includes(`mcp.extraEnv sets ${name}, which ${by} already sets: remove it`), `${name}: ${message}`)
    t.ok(message.includes(`and set ${by} instead`))
  }
  t.match(
    await refusal(values({ extraEnv: [{ name: 'A', value: '1' }, { name: 'B' }, { name: 'A', value: '2' }] })),
    /mcp\.extraEnv sets A twice: keep one entry/
  )
  const { containers: [{ env }] } = podOf(
    await render(values({ extraEnv: [{ name: 'HTTPS_PROXY', value: 'http://a' }, { name: 'POD_NAME', value: 'b' }] }))
  )
  t.match(env.slice(-2), [{ name: 'HTTPS_PROXY' }, { name: 'POD_NAME' }], 'accepted while the chart does not set them')
})

t.test('one port for calls and metrics is refused', needsHelm(), async t => {
  for (
    const given of [
      { httpAddr: ':9090' },
      { 'telemetry.addr': ':8090' },
      { httpAddr: '0.0.0.0:9000', 'telemetry.addr': '[::]:9000' },
      { 'telemetry.addr': '127.0.0.1:8090' },
    ]
  ) {
    t.match(
      await refusal(values(given)),
      /mcp\.httpAddr \(.*\) and mcp\.telemetry\.addr \(.*\) use the same port, .*: change the port of one, or/,
      JSON.stringify(given)
    )
  }
  t.ok(await render(values({ httpAddr: ':9090', 'telemetry.addr': 'off' })))
})
