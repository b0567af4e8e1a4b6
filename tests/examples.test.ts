/** Every example runs: against the real service, a real identity provider, a real etcd and the real Helm. */
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { type Environment, readConfig } from '../plugins/config/read.ts'
import { parsePolicy } from '../plugins/rbac/policy.ts'
import { environmentOf, type Manifest, needsHelm, only, podOf, render, type Values } from './support/chart.ts'
import { mistakes } from './support/chart-schemas.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { type IdentityProvider, startProvider } from './support/oidc-provider.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'
import { buildTestApp, fill, modern, recordedKeyspace, type Service, startService } from './support/service.ts'
import { waitFor } from './support/wait-for.ts'

const EXAMPLES = join(ROOT, 'examples')
const READY_BOUND_MS = 10_000
const read = (path: string) => readFileSync(join(EXAMPLES, path), 'utf8')
const { tools: { known: tools } } = await buildTestApp(t)

/** The URL of a service once its mirror is loaded. */
async function ready ({ url }: Service): Promise<string> {
  const origin = await url
  await waitFor(async () => (await fetch(new URL('/readyz', origin))).status === 200, READY_BOUND_MS, 'ready')
  return origin
}

t.test('the index lists every example and links to files that exist', async t => {
  const listed = [...read('README.md').matchAll(/^\| \[`(.+)\/`\]/gm)].map(([, name]) => name)
  const folders = readdirSync(EXAMPLES, { withFileTypes: true }).filter(entry => entry.isDirectory())
  t.strictSame(listed.sort(), folders.map(({ name }) => name).sort())
  for (const folder of ['.', ...folders.map(({ name }) => name)]) {
    const { links } = readPage(join('../examples', folder, 'README.md'))
    for (const { path } of links) t.ok(existsSync(join(EXAMPLES, folder, path)), `${folder}: ${path}`)
  }
})

t.test('compose-oidc', needsEtcd(), async t => {
  interface ComposeService {
    ports?: string[]
    volumes?: string[]
    environment?: Record<string, string>
    depends_on?: object
    network_mode?: string
    command?: string[]
  }
  interface Realm {
    realm: string
    groups: { name: string }[]
    users: { username: string, groups: string[] }[]
    clientScopes: [{ name: string, protocolMappers: { protocolMapper: string, config: Record<string, string> }[] }]
    clients: [{ clientId: string, optionalClientScopes: string[] }]
  }
  const { services } = parse(read('compose-oidc/compose.yaml')) as {
    services: Record<'etcd' | 'keycloak' | 'kafscale-mcp', ComposeService>
  }
  const { keycloak, 'kafscale-mcp': service } = services
  const realm = JSON.parse(read('compose-oidc/realm.json')) as Realm
  const [scope] = realm.clientScopes
  const mapper = (name: string) => scope.protocolMappers.find(({ protocolMapper }) => protocolMapper === name)?.config
  /** The service's variables with the files that compose.yaml mounts, as a container of the image reads them. */
  const environment = inContainer(service.environment ?? {}, service.volumes ?? [])
  const config = readConfig({ KAFSCALE_MCP_HTTP_ADDR: ':8090', ...environment })

  t.test('configures the service without a warning, and only on loopback', async t => {
    t.match(config, { auth: { mode: 'oidc' }, etcdEndpoints: ['http://etcd:2379'], warnings: { length: 0 } })
    const ports = Object.values(services).flatMap(({ ports = [] }) => ports)
    for (const port of ports) t.match(port, /^127\.0\.0\.1:(\d+):\1$/)
    t.equal(service.network_mode, 'service:keycloak')
    t.ok(keycloak.ports?.includes('127.0.0.1:8090:8090'), 'so its port is published there')
    t.strictSame(service.depends_on, {
      etcd: { condition: 'service_healthy' },
      keycloak: { condition: 'service_started' },
    })
    for (const { volumes = [] } of Object.values(services)) {
      for (const volume of volumes.filter(volume => volume.startsWith('./'))) {
        t.ok(existsSync(join(EXAMPLES, 'compose-oidc', volume.split(':')[0] ?? '')), volume)
      }
    }
  })

  t.test('has Keycloak issue the tokens that the service expects', async t => {
    const issuer = `${keycloak.environment?.['KC_HOSTNAME']}/realms/${realm.realm}`
    t.strictSame(config.auth.mode === 'oidc' && config.auth.issuers, [issuer])
    t.equal(mapper('oidc-audience-mapper')?.['included.custom.audience'], `${config.publicUrl}/mcp`)
    t.equal(scope.name, 'kafscale:observe')
    t.strictSame(realm.clients[0].optionalClientScopes, [scope.name])
    t.ok(mapper('oidc-sub-mapper'), 'without the built-in client scopes, nothing else adds the subject')
  })

  t.test('binds roles to the groups of the realm', async t => {
    const { bindings } = parsePolicy(read('compose-oidc/policy.yaml'), tools)
    t.strictSame(bindings?.map(({ value }) => value).sort(), realm.groups.map(({ name }) => name).sort())
    for (const { claim } of bindings ?? []) t.equal(claim, mapper('oidc-group-membership-mapper')?.['claim.name'])
  })

  t.test('accepts a token from the provider and applies the policy', async t => {
    const etcd = await startEtcd(t)
    await fill(etcd, recordedKeyspace())
    const idp = await startProvider(t)
    const running = startService(t, { ...environment, ...etcd.env, KAFSCALE_MCP_OIDC_ISSUER: idp.issuer })
    const url = await ready(running)
    const ask = async (token: string, tool: string) => {
      const { headers, payload } = modern('tools/call', { name: tool, arguments: {} })
      const response = await fetch(url, {
        method: 'POST',
        headers: { ...headers, authorization: `Bearer ${token}` },
        body: JSON.stringify(payload),
      })
      return response.status === 200 ? (await response.json() as { result: unknown }).result : response.status
    }
    const tokenOf = (username: string) => {
      const groups = realm.users.find(user => user.username === username)?.groups.map(path => path.slice(1))
      return tokenLikeKeycloak(idp, `${config.publicUrl}/mcp`, { sub: username, ...groups && { groups } })
    }

    t.match(await ask(await tokenOf('alice'), 'list_topics'), {
      structuredContent: { topics: [{ name: 'orders' }], total: 1 },
    })
    t.match(await ask(await tokenOf('bob'), 'list_topics'), {
      structuredContent: { topics: [{ name: 'audit-events' }, { name: 'orders' }, { name: 'payments' }] },
    })
    t.match(await ask(await tokenOf('mallory'), 'list_topics'), {
      isError: true,
      content: [{ text: /^PERMISSION_DENIED/ }],
    })
    t.equal(await ask('no-token', 'list_topics'), 401)

    const page = readPage('../examples/compose-oidc/README.md')
    const [answer = ''] = await page.run(page.block('sh ask'), {
      cwd: t.testdir({}),
      url,
      env: { KAFSCALE_TOKEN: await tokenOf('alice') },
    })
    t.match(JSON.parse(answer).result.structuredContent, {
      principal: { subject: 'alice', issuer: idp.issuer, method: 'oidc' },
      roles: ['orders-reader'],
    })
    t.match(running.output.stdout, '"subject":"alice"', 'calls are recorded on standard output')
  })
})

/** Variables whose values name a mounted file, with the file's path on this machine instead. */
function inContainer (variables: Record<string, string>, volumes: string[]): Environment {
  const mounts = new Map(volumes.map(volume => {
    const [from = '', to = ''] = volume.split(':')
    return [to, join(EXAMPLES, 'compose-oidc', from)]
  }))
  return Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, mounts.get(value) ?? value]))
}

/** A token with the claims that Keycloak puts into one of the example's realm. */
async function tokenLikeKeycloak (idp: IdentityProvider, audience: string, claims: object): Promise<string> {
  const now = Math.floor(Date.now() / 1_000)
  return await idp.sign({
    iss: idp.issuer,
    aud: audience,
    iat: now,
    exp: now + 300,
    azp: 'agent',
    scope: 'kafscale:observe',
    typ: 'Bearer',
    ...claims,
  }, { typ: 'JWT' })
}

t.test('helm-production', needsHelm(), async t => {
  const { mcp } = parse(read('helm-production/values.yaml')) as { mcp: Values }
  const objects = await render(mcp, { namespace: 'kafscale-mcp' })

  t.test('renders objects that Kubernetes accepts', async t => {
    for (const object of objects.filter(({ apiVersion }) => !apiVersion.startsWith('monitoring.coreos.com/'))) {
      t.strictSame(mistakes(object), [], `${object.kind} ${object.metadata.name}`)
    }
  })

  t.test('renders what production needs, and no Secret', async t => {
    t.strictSame(objects.map(({ kind }) => kind).sort(), [
      'ConfigMap', // the policy
      'ConfigMap', // the dashboards
      'Deployment',
      'Ingress',
      'NetworkPolicy',
      'PersistentVolumeClaim',
      'Pod', // the Helm test
      'PodDisruptionBudget',
      'PrometheusRule',
      'Service',
      'Service', // the metrics
      'ServiceAccount',
      'ServiceMonitor',
    ])
    t.match(only(objects, 'Deployment').spec, { replicas: 2 })
    t.match(only(objects, 'Ingress').spec, { tls: [{ hosts: ['mcp.example'] }] })
    t.match(only(objects, 'PersistentVolumeClaim').spec, { accessModes: ['ReadWriteMany'] })
  })

  t.test('configures the service without a warning', async t => {
    const config = readConfig(environmentOf(t, podOf(objects), objects, existing(t)))
    t.match(config, {
      auth: { mode: 'oidc' },
      publicUrl: 'https://mcp.example',
      etcdUsername: 'kafscale-mcp',
      auditSinks: [{ kind: 'stdout' }, { kind: 'file', path: '/var/log/kafscale-mcp/audit.jsonl' }],
      warnings: { length: 0 },
    })
    const { bindings } = parsePolicy(readFileSync(String(config.policyFile), 'utf8'), tools)
    const accepted = config.auth.mode === 'oidc' ? config.auth.issuers : []
    t.ok(accepted.length > 0)
    for (const { issuer } of bindings ?? []) t.ok(accepted.includes(String(issuer)))
  })

  t.test('needs only what its README creates', async t => {
    const commands = read('helm-production/README.md')
    for (const [kind, name, keys] of referencedBy(objects)) {
      const created = new RegExp(`create ${kind} (?:generic )?${name} (?:.*\\\\\n)?.*${keys.join('.*')}`)
      t.match(commands, created, `${kind} ${name}`)
    }
    t.match(commands, '--values examples/helm-production/values.yaml')
  })
})

/** What the README of the Helm example creates, made here. */
function existing (t: Test): Record<string, Record<string, string>> {
  const dir = t.testdir({})
  execFileSync('sh', ['-ec', `
    openssl genpkey -algorithm ed25519 -out audit.key
    openssl req -x509 -key audit.key -days 1 -subj /CN=etcd -out ca.crt
  `], { cwd: dir, stdio: 'pipe' })
  return {
    'Secret/kafscale-mcp-etcd': { ETCD_USERNAME: 'kafscale-mcp', ETCD_PASSWORD: 'of etcd' },
    'ConfigMap/etcd-ca': { 'ca.crt': readFileSync(join(dir, 'ca.crt'), 'utf8') },
    'Secret/kafscale-mcp-audit': { 'audit.key': readFileSync(join(dir, 'audit.key'), 'utf8') },
  }
}

/** The Secrets and ConfigMaps, with their keys, that a pod reads and the chart does not render. */
function referencedBy (objects: Manifest[]): [kind: string, name: string, keys: string[]][] {
  const { containers: [{ env }], volumes = [] } = podOf(objects)
  const sources = volumes.flatMap(({ projected }) => projected?.sources ?? [])
  const found = [
    ...sources.flatMap(({ secret, configMap }) => [
      ...secret ? [{ kind: 'Secret', name: secret.name, keys: secret.items.map(({ key }) => key) }] : [],
      ...configMap ? [{ kind: 'ConfigMap', name: configMap.name, keys: configMap.items.map(({ key }) => key) }] : [],
    ]),
    ...env.flatMap(({ valueFrom }) => {
      const ref = valueFrom?.secretKeyRef
      return ref ? [{ kind: 'Secret', name: ref.name, keys: [ref.key] }] : []
    }),
  ]
  return found
    .filter(({ kind, name }) => !objects.some(object => object.kind === kind && object.metadata.name === name))
    .map(({ kind, name, keys }) => [kind.toLowerCase(), name, keys])
}

t.test('agent', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const url = await ready(startService(t, etcd.env))
  const run = async (...args: string[]) =>
    await promisify(execFile)(process.execPath, [join(EXAMPLES, 'agent/agent.ts'), ...args], { cwd: ROOT })

  const { stdout } = await run(url)
  const groups = stdout.trim().split('\n').map(line =>
    /^(\w+) \((\w+)\): (\d+) records behind on (\d+) partitions, \d+ stale members$/.exec(line)?.slice(1)
  )
  t.strictSame(groups.map(group => group?.[0]), ['analytics', 'billing', 'nightly', 'stuck'])
  t.match(groups[0], ['analytics', 'stable', /^\d+$/, '9'])

  t.test('fails with the reason when a call fails', async t => {
    await t.rejects(run(await startService(t).url), /METADATA_UNAVAILABLE: /)
  })
})
