/** `kafscale-mcp check`, as a process. */
import { execFile, execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Range } from 'etcd3'
import t, { type Test } from 'tap'
import { checkBroker, checkLedger } from '../../cli/checks/changes.ts'
import { Secret } from '../../plugins/config/secret.ts'
import { authority } from '../support/authority.ts'
import { startBroker } from '../support/brokers/broker.ts'
import { startControl } from '../support/brokers/control.ts'
import { needsEtcd, startEtcd } from '../support/etcd.ts'
import { recording, ROOT } from '../support/paths.ts'
import { fill, recordedKeyspace, startService } from '../support/service.ts'
import { clean } from '../support/spawn.ts'

const SECRET = 'a-secret-0123456789abcdef0123456789abcdef'
const LEAST = {
  KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1',
  KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
  KAFSCALE_MCP_TELEMETRY_ADDR: 'off',
}

/** Runs it with only `env` in its environment. Resolves to its lines, by their items. */
async function check (env: Record<string, string>, args: string[] = []) {
  const { promise, resolve } = Promise.withResolvers<{ code: unknown, stdout: string, stderr: string }>()
  const command = clean(process.execPath, [join(ROOT, 'bin/kafscale-mcp.js'), 'check', ...args], env)
  execFile(...command, { env: {} }, (error, stdout, stderr) =>
    resolve({ code: error ? error.code : 0, stdout, stderr }))
  const { code, stdout, stderr } = await promise
  const lines = stdout.trim().split('\n')
  const found = (level: string) => lines.filter(line => line.startsWith(level.padEnd(9))).map(line => line.slice(9))
  return { code, stdout, stderr, ok: found('ok'), warnings: found('warning'), failed: found('failed') }
}

async function listen (t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** An identity provider with one key. */
async function issuer (t: Test, { keys = true } = {}): Promise<string> {
  const jwk = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
  const url: string = await listen(t, ({ url: path }, response) => {
    const document = path === '/jwks'
      ? keys && { keys: [{ ...jwk, kid: 'a', alg: 'EdDSA', use: 'sig' }] }
      : { issuer: url, jwks_uri: `${url}/jwks`, authorization_endpoint: url, response_types_supported: ['code'] }
    response.writeHead(document ? 200 : 500, { 'content-type': 'application/json' }).end(JSON.stringify(document))
  })
  return url
}

/** Every file in a folder, with its content and when it was changed. */
function contentOf (dir: string): unknown[] {
  return readdirSync(dir).sort().map(name => {
    const path = join(dir, name)
    return [name, statSync(path).mtimeMs, statSync(path).mode, readFileSync(path, 'utf8')]
  })
}

t.test('an emergency stop is reported', async t => {
  const dir = t.testdir({ 'policy.yaml': 'bindings: []\nchanges: closed\n' })
  const { ok } = await check({
    KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1', KAFSCALE_MCP_POLICY_FILE: join(dir, 'policy.yaml'),
  })
  t.ok(ok.includes('policy: is valid, with 2 roles and 0 bindings; changes: closed stops all changes'), ok.join('\n'))
})

t.test('everything is fine, and nothing changes', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  await fill(etcd, recordedKeyspace())
  const dir = t.testdir({ 'policy.yaml': 'bindings:\n  - {claim: sub, value: alice, role: observer}\n' })
  const logs = join(dir, 'logs')
  mkdirSync(logs)
  const log = join(logs, 'audit.jsonl')
  const first = startService(t, { KAFSCALE_MCP_AUDIT_SINKS: `file:${log}` })
  await first.url
  first.process.kill('SIGTERM')
  await first.exit
  const running = startService(t, { KAFSCALE_MCP_AUDIT_SINKS: `file:${join(logs, 'running.jsonl')}` })
  await running.url
  execFileSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', join(dir, 'audit.key')])
  const [{ body }] = recording('metrics.jsonl.gz') as [{ body: string }]
  const broker = await listen(t, (_, response) => response.end(body))
  const posts: string[] = []
  const collector = await listen(t, ({ method = '' }, response) => {
    if (method !== 'HEAD') posts.push(method)
    response.writeHead(405).end()
  })
  running.process.kill('SIGSTOP') // so that its lock is not renewed meanwhile
  const before = contentOf(logs)
  const { header: { revision } } = await etcd.client.kv.range({ key: Buffer.from('/'), count_only: true })

  const { code, ok, warnings, failed, stdout, stderr } = await check({
    ...etcd.env,
    KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0',
    KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0',
    KAFSCALE_MCP_PUBLIC_URL: 'https://kafscale-mcp.example',
    KAFSCALE_MCP_BROKER_METRICS_URL: `${broker}/metrics`,
    KAFSCALE_MCP_OIDC_ISSUER: await issuer(t),
    KAFSCALE_MCP_OIDC_CLIENT_ID: 'client',
    KAFSCALE_MCP_OIDC_CLIENT_SECRET: SECRET,
    KAFSCALE_MCP_POLICY_FILE: join(dir, 'policy.yaml'),
    KAFSCALE_MCP_AUDIT_SINKS: `stdout,file:${log},file:${logs}/running.jsonl,file:${logs}/new/a.jsonl,` +
      `${collector}/${SECRET}?token=${SECRET}`,
    KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE: join(dir, 'audit.key'),
  })
  t.equal(code, 0, stdout + stderr)
  t.strictSame([failed, warnings, stderr], [[], [], ''])
  t.match(ok, [
    'settings: are valid',
    new RegExp(`^etcd ${etcd.endpoints[0]}: answers, with \\d+ keys under /kafscale/ at revision \\d+$`),
    'etcd permissions: the user can read /kafscale/ and nothing else',
    /^snapshot: decodes, with 3 topics and \d+ brokers$/,
    'broker pages: 1 of 1 answer and can be read',
    /^issuer http:.*: its metadata and keys load$/,
    'policy: is valid, with 2 roles and 1 bindings',
    'audit sink stdout: is always writable',
    `audit sink file:${log}: is an audit log that can be continued`,
    /running\.jsonl: is an audit log that can be continued; a process of the service has its lock/,
    `audit sink file:${logs}/new/a.jsonl: can be created`,
    `audit sink ${collector}: answers HEAD with 405; whether it accepts records, only a POST could show`,
    'audit signing key: is an Ed25519 key',
    'KAFSCALE_MCP_HTTP_ADDR 127.0.0.1:0: can be listened on',
    'KAFSCALE_MCP_TELEMETRY_ADDR 127.0.0.1:0: can be listened on',
  ])
  t.notMatch(stdout, SECRET)
  t.notMatch(stdout, 'read-only', 'no password')
  t.strictSame(contentOf(logs), before)
  running.process.kill('SIGCONT')
  t.strictSame(posts, [])
  const after = await etcd.client.kv.range({ key: Buffer.from('/'), count_only: true })
  t.equal(after.header.revision, revision)
})

t.test('every mistake in the settings is a line', async t => {
  const { code, failed, stdout } = await check({ KAFSCALE_MCP_LOG_LEVEL: 'x', KAFSCALE_MCP_AUTH_TOKEN: 'short' })
  t.equal(code, 1)
  t.match(failed, [/^settings: KAFSCALE_MCP_ETCD_ENDPOINTS is not set/, /AUTH_TOKEN is not valid/, /LOG_LEVEL is "x"/])
  t.match(stdout, 'skipped  everything else: the settings are not valid')
  t.notMatch(stdout, 'short')
  t.match((await check({ ...LEAST, KAFSCALE_MCP_TOOLS: 'nope' })).failed, [/^settings: .*name "nope"/, /^etcd /])
})

t.test('etcd', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  const { client, endpoints: [endpoint = ''] } = etcd
  const reader = { ...LEAST, ...etcd.env }
  const snapshot = (value: string) => fill(etcd, [{ key: '/kafscale/metadata/snapshot', value }])

  await t.test('an endpoint that does not answer fails, and the others are still checked', async t => {
    const { code, ok, failed, warnings } = await check({
      ...reader,
      KAFSCALE_MCP_ETCD_ENDPOINTS: `http://127.0.0.1:1,${endpoint}`,
    })
    t.equal(code, 1)
    t.match(failed, [/^etcd http:\/\/127\.0\.0\.1:1: etcd can't be reached \(.*ECONNREFUSED/])
    t.ok(ok.some(line => line.startsWith(`etcd ${endpoint}: answers`)))
    t.match(warnings, [/^snapshot: there is none at \/kafscale\/metadata\/snapshot/])
  })
  await t.test('a wrong password fails', async t => {
    const { code, failed, stdout } = await check({ ...reader, KAFSCALE_MCP_ETCD_PASSWORD: SECRET })
    t.equal(code, 1)
    t.match(failed, [/: etcd refuses the credentials/])
    t.match(stdout, 'skipped  etcd permissions: no etcd endpoint can be read')
    t.notMatch(stdout, SECRET)
  })
  await t.test('a user that cannot read the prefix fails', async t => {
    await client.user('nobody').create('nobody')
    const { failed } = await check({
      ...reader,
      KAFSCALE_MCP_ETCD_USERNAME: 'nobody',
      KAFSCALE_MCP_ETCD_PASSWORD: 'nobody',
    })
    t.match(failed, [/: the user may not read \/kafscale\/ \(.*permission denied\): grant it a role with read/])
  })
  await t.test('a user that can do more is a warning', async t => {
    await snapshot('{"Brokers":[],"Topics":[]}')
    const permissionsOf = async (username: string, password: string) => {
      const { code, warnings } = await check({
        ...reader,
        KAFSCALE_MCP_ETCD_USERNAME: username,
        KAFSCALE_MCP_ETCD_PASSWORD: password,
      })
      t.equal(code, 0)
      return warnings
    }
    t.match(await permissionsOf('root', 'root'), [/^etcd permissions: the user has the role root: a user with read on/])
    for (const [name, permission, range, told] of [
      ['writes', 'Readwrite', Range.prefix('/kafscale/'), 'write on "/kafscale/" and further keys'],
      ['everything', 'Read', Range.prefix('/'), 'read on "/" and further keys'],
      ['all', 'Read', new Range('\0', '\0'), 'read on "\\u0000" and further keys'],
      ['one-more', 'Read', '/other', 'read on "/other"'],
    ] as const) {
      const role = await client.role(name).create()
      await role.grant({ permission, ...typeof range === 'string' ? { key: range } : { range } })
      const user = await client.user(name).create(name)
      await user.addRole(role)
      await user.addRole('reads-kafscale')
      t.match(await permissionsOf(name, name), [`etcd permissions: the user has more than it needs, ${told}: `])
    }
  })
  await t.test('a snapshot that cannot be decoded fails; another value is a warning', async t => {
    await snapshot('{"Topics":')
    await fill(etcd, [{ key: '/kafscale/consumers/a/metadata', value: '{' }])
    const { code, failed, warnings } = await check(reader)
    t.equal(code, 1)
    t.match(failed, [/^snapshot: cannot be decoded: \S/])
    t.match(warnings, ['other values: 1 cannot be decoded, such as "/kafscale/consumers/a/metadata"'])
    await snapshot('{"Brokers":[],"Topics":[]}')
  })
  await t.test('broker pages that do not answer or are something else fail', async t => {
    const other = await listen(t, (_, response) => response.end('<html>'))
    const { code, failed } = await check({
      ...reader,
      KAFSCALE_MCP_BROKER_METRICS_URL: `http://127.0.0.1:1/metrics,${other}/metrics`,
    })
    t.equal(code, 1)
    t.match(failed, [
      /^broker page 127\.0\.0\.1:1: \S/,
      new RegExp(`^broker page ${new URL(other).host}: \\S`),
      'broker pages: 0 of 2 answer and can be read',
    ])
  })
})

t.test('an etcd without users is a warning', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, [{ key: '/kafscale/metadata/snapshot', value: '{"Brokers":[],"Topics":[]}' }])
  const { code, warnings } = await check({ ...LEAST, KAFSCALE_MCP_ETCD_ENDPOINTS: etcd.endpoints.join() })
  t.equal(code, 0)
  t.match(warnings, [/^etcd permissions: whoever reaches etcd can read every key/])
})

t.test('changes', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  const { client, endpoints: [endpoint = ''] } = etcd
  const double = await startControl(t)
  const brokers = [0, 1].map(NodeID => ({ NodeID, Host: '127.0.0.1', Port: 9092, Rack: null }))
  await fill(etcd, [{
    key: '/kafscale/metadata/snapshot',
    value: JSON.stringify({ Brokers: brokers, ControllerID: 0, Topics: [], ClusterName: 'a', ClusterID: 'cluster-1' }),
  }])
  const broker = await startBroker(t, etcd, { checked: { exempt: 'nothing is changed here' } })
  const policy = 'bindings: [{claim: sub, value: alice, role: observer}]\nchanges: [{mode: direct}]\n'
  const dir = t.testdir({ 'policy.yaml': policy, 'jwks.json': '{"keys":[]}' })
  const env = {
    ...LEAST,
    ...etcd.env,
    KAFSCALE_MCP_PUBLIC_URL: 'https://kafscale-mcp.example',
    KAFSCALE_MCP_OIDC_ISSUER: await issuer(t),
    KAFSCALE_MCP_POLICY_FILE: join(dir, 'policy.yaml'),
    KAFSCALE_MCP_AUDIT_SINKS: `file:${dir}/audit.jsonl`,
    KAFSCALE_MCP_ENVIRONMENT: 'staging',
    KAFSCALE_MCP_CHANGES: 'enabled',
    KAFSCALE_MCP_EXPECTED_CLUSTER_ID: 'cluster-1',
    KAFSCALE_MCP_KAFKA_BROKERS: broker.address,
    KAFSCALE_MCP_METRICS_ALLOWED_HOSTS: '127.0.0.1',
    KAFSCALE_MCP_BROKER_CONTROL_ADDR: `{host}:${double.address.split(':')[1]}`,
  }
  const as = (user: string) => ({ KAFSCALE_MCP_CHANGES_ETCD_USERNAME: user, KAFSCALE_MCP_CHANGES_ETCD_PASSWORD: user })
  const LEDGER = '/kafscale-mcp/changes/'
  for (const [name, ...grants] of [
    ['ledger', ['Readwrite', LEDGER]],
    ['split', ['Read', LEDGER], ['Write', LEDGER]],
    ['reads', ['Read', LEDGER]],
    ['writes', ['Write', LEDGER]],
    ['narrow', ['Readwrite', `${LEDGER}by-id/`]],
    ['both', ['Readwrite', LEDGER], ['Read', '/kafscale/']],
    ['wide', ['Readwrite', '/kafscale-mcp/']],
  ] as [string, ...['Read' | 'Write' | 'Readwrite', string][]][]) {
    const user = await client.user(name).create(name)
    for (const [index, [permission, prefix]] of grants.entries()) {
      const role = await client.role(`${name}-${index}`).create()
      await role.grant({ permission, range: Range.prefix(prefix) })
      await user.addRole(role)
    }
  }
  const ledgerOf = async (user: string, password = user, endpoints = [endpoint]) => {
    const tls = { caFile: undefined, certFile: undefined, keyFile: undefined }
    const ledger = { endpoints, username: user, password: new Secret(password), ...tls }
    return await Array.fromAsync(checkLedger(ledger), ({ level, item, detail }) => `${level} ${item}: ${detail}`)
  }

  await t.test('the ledger answers, and its user may read and write it and nothing else', async t => {
    const { header: { revision } } = await client.kv.range({ key: Buffer.from('/'), count_only: true })
    const fine = [
      `ok ledger ${endpoint}: answers`,
      'ok ledger permissions: the user can read and write /kafscale-mcp/changes/ and nothing else',
    ]
    t.strictSame(await ledgerOf('ledger'), fine)
    t.strictSame(await ledgerOf('split'), fine)
    const advice = ': a user with readwrite on /kafscale-mcp/changes/ is enough'
    for (const [user, finding] of [
      ['reads', 'failed ledger permissions: the user may not write /kafscale-mcp/changes/'],
      ['writes', 'failed ledger permissions: the user may not read /kafscale-mcp/changes/'],
      ['narrow', 'failed ledger permissions: the user may not read or write /kafscale-mcp/changes/'],
      ['both', 'warning ledger permissions: the user has more than it needs, read on "/kafscale/" and further keys'],
      [
        'wide',
        'warning ledger permissions: the user has more than it needs, write on "/kafscale-mcp/" and further keys',
      ],
      ['root', 'warning ledger permissions: the user has the role root'],
    ] as const) t.strictSame((await ledgerOf(user))[1], finding + advice, user)
    const after = await client.kv.range({ key: Buffer.from('/'), count_only: true })
    t.equal(after.header.revision, revision, 'nothing is written')
  })
  await t.test('a ledger that does not answer, or refuses the user, fails', async t => {
    const skipped = 'skipped ledger permissions: no endpoint of the ledger answers'
    const wrong = await ledgerOf('ledger', SECRET)
    t.match(wrong, [/^failed ledger .*: etcd refuses the credentials/, skipped])
    t.notMatch(wrong.join(), SECRET)
    const unreachable = 'http://127.0.0.1:1'
    t.match(await ledgerOf('ledger', 'ledger', [unreachable]), [/^failed ledger .*:1: etcd can't be reached/, skipped])
    t.match(
      await ledgerOf('ledger', 'ledger', [unreachable, endpoint]),
      [/^failed ledger /, /^ok ledger http/, /^ok ledger permissions/]
    )
  })
  await t.test('the control plane answers, and everything is a line', async t => {
    const { code, ok, failed, stdout } = await check({ ...env, ...as('ledger') })
    t.match(ok.filter(line => /^(ledger|Kafka|control)/.test(line)), [
      `ledger ${endpoint}: answers`,
      /^ledger permissions: /,
      `Kafka broker ${broker.address}: answers, and its cluster is the expected one`,
      'control plane of broker 0: answers, with version "dev"',
      'control plane of broker 1: answers, with version "dev"',
    ])
    t.strictSame([code, failed], [0, []], stdout)
    t.strictSame(new Set(double.calls.map(({ method }) => method)), new Set(['GetStatus']))
  })
  await t.test('a broker of another cluster fails, and no request names a topic', async t => {
    const kafka = { brokers: [broker.address], clientId: 'kafscale-mcp', tls: undefined, sasl: undefined }
    t.strictSame(await checkBroker(broker.address, { kafka, expectedClusterId: 'cluster-2' }), {
      level: 'failed',
      item: `Kafka broker ${broker.address}`,
      detail: 'has the cluster id "cluster-1", and KAFSCALE_MCP_EXPECTED_CLUSTER_ID is "cluster-2"',
    })
    t.match(await checkBroker('127.0.0.1:1', { kafka, expectedClusterId: 'cluster-1' }), {
      level: 'failed',
      item: 'Kafka broker 127.0.0.1:1',
      detail: /127\.0\.0\.1:1/,
    })
    t.strictSame(broker.mutations, [])
  })
  await t.test('what is missing or does not answer is a line, too', async t => {
    const { ok, failed } = await check({
      ...env,
      KAFSCALE_MCP_ENVIRONMENT: '',
      KAFSCALE_MCP_BROKER_CONTROL_ADDR: '{host}:1',
    })
    t.match(failed, [
      /^ledger /,
      /^control plane of broker 0: .*does not answer/,
      /^control plane of broker 1: .*does not answer/,
      /^policy: .*requires approvals in an environment without a name/,
    ])
    t.notOk(ok.some(line => line.startsWith('ledger')), 'the ledger does not use the credentials of the mirror')
    t.match(
      (await check({ ...env, ...as('ledger'), KAFSCALE_MCP_BROKER_CONTROL_ADDR: '' })).stdout,
      'skipped  control plane: KAFSCALE_MCP_BROKER_CONTROL_ADDR is not set, so brokers can be neither drained nor'
    )
  })
})

t.test('every etcd endpoint is checked once, while the service itself tries them too', async t => {
  const endpoints = [1, 2, 3, 4].map(port => `http://127.0.0.1:${port}`)
  const { code, failed } = await check({ ...LEAST, KAFSCALE_MCP_ETCD_ENDPOINTS: endpoints.join() })
  t.equal(code, 1)
  t.match(failed, endpoints.map(endpoint => `etcd ${endpoint}: etcd can't be reached`))
})

t.test('without etcd, everything else is still checked', async t => {
  const dir = t.testdir({ 'not-a-log': 'text\n', 'policy.yaml': 'bindings: nope\n', 'jwks.json': '{}', folder: {} })
  const failing = async (env: Record<string, string>) => {
    const { code, failed: [etcd, ...failed] } = await check({ ...LEAST, ...env })
    t.equal(code, 1)
    t.match(etcd, /^etcd /)
    return failed
  }
  await t.test('issuers and keys', async t => {
    const more = { KAFSCALE_MCP_PUBLIC_URL: 'https://kafscale-mcp.example' }
    t.match(await failing({ ...more, KAFSCALE_MCP_OIDC_ISSUER: 'http://127.0.0.1:1' }), [
      /^issuer .*:1: .* do not load: /,
    ])
    const keyless = await issuer(t, { keys: false })
    t.match(await failing({ ...more, KAFSCALE_MCP_OIDC_ISSUER: keyless }), [`issuer ${keyless}: its metadata or keys`])
    t.match(await failing({ KAFSCALE_MCP_AUTH_JWKS_FILE: `${dir}/jwks.json`, KAFSCALE_MCP_AUTH_JWKS_ISSUER: 'i' }), [
      /^authentication: KAFSCALE_MCP_AUTH_JWKS_FILE is .*: expected a JWKS/,
    ])
  })
  await t.test('the policy', async t => {
    t.match(await failing({ KAFSCALE_MCP_POLICY_FILE: `${dir}/policy.yaml` }), [
      /^policy: .*expected a valid policy line 1/,
    ])
  })
  await t.test('audit sinks', async t => {
    const collector = await listen(t, (_, response) => response.writeHead(403).end())
    chmodSync(`${dir}/folder`, 0o500)
    const isRoot = process.getuid?.() === 0
    t.match(
      await failing({
        KAFSCALE_MCP_AUDIT_SINKS: [
          `file:${dir}/not-a-log`, `file:${dir}`, `file:${dir}/not-a-log/audit.jsonl`, `${collector}/a`,
          'http://127.0.0.1:2/a', ...isRoot ? [] : [`file:${dir}/folder/audit.jsonl`],
        ].join(),
      }),
      [
        /not-a-log: the file is not an audit log: move it away$/,
        /: it is a folder: set KAFSCALE_MCP_AUDIT_SINKS to a file in it, such as file:\/.*\/audit.jsonl$/,
        /not-a-log\/audit\.jsonl: .*ENOTDIR/,
        `audit sink ${collector}: the collector answered 403: is the header that it requires in KAFSCALE_MCP_AUDIT_`,
        /^audit sink http:\/\/127\.0\.0\.1:2: the collector cannot be reached: ECONNREFUSED$/,
        ...isRoot ? [] : [/folder\/audit\.jsonl: EACCES/],
      ]
    )
    t.equal(readFileSync(`${dir}/not-a-log`, 'utf8'), 'text\n')
    t.strictSame(readdirSync(dir).sort(), ['folder', 'jwks.json', 'not-a-log', 'policy.yaml'])
  })
  await t.test('addresses; but not where the service itself listens', async t => {
    const taken = new URL(await listen(t, (_, response) => response.end('{}'))).host
    t.match(await failing({ KAFSCALE_MCP_HTTP_ADDR: taken }), [
      `KAFSCALE_MCP_HTTP_ADDR ${taken}: KAFSCALE_MCP_HTTP_ADDR (${taken}) is in use: stop the process`,
    ])
    const { warnings } = await check({ ...LEAST, KAFSCALE_MCP_TELEMETRY_ADDR: taken })
    t.match(warnings, [`KAFSCALE_MCP_TELEMETRY_ADDR ${taken}: `])
    const { host } = new URL(await startService(t, { KAFSCALE_MCP_AUDIT_SINKS: 'none' }).url)
    const { ok, failed } = await check({ ...LEAST, KAFSCALE_MCP_HTTP_ADDR: host })
    t.match(failed, [/^etcd /])
    t.ok(ok.includes(`KAFSCALE_MCP_HTTP_ADDR ${host}: the service already listens on it`))
  })
})

t.test('collectors are asked as the service sends them records', async t => {
  const dir = t.testdir({ headers: `Authorization: Bearer ${SECRET}\n` })
  const ca = authority(dir, 'ca')
  const { cert, key } = ca.issue('/CN=collector', 'collector')
  const own = ca.issue('/CN=kafscale-mcp', 'service')
  const asked: string[] = []
  const server = createTlsServer({
    cert: readFileSync(cert),
    key: readFileSync(key),
    ca: readFileSync(ca.ca),
    requestCert: true,
  }, ({ method = '', headers }, response) => {
    asked.push(method)
    response.writeHead(headers.authorization === `Bearer ${SECRET}` ? 405 : 401).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const files = {
    KAFSCALE_MCP_AUDIT_COLLECTOR_HEADERS_FILE: `${dir}/headers`,
    KAFSCALE_MCP_AUDIT_COLLECTOR_CA_FILE: ca.ca,
    KAFSCALE_MCP_AUDIT_COLLECTOR_CERT_FILE: own.cert,
    KAFSCALE_MCP_AUDIT_COLLECTOR_KEY_FILE: own.key,
  }
  const finding = async (env: Record<string, string>, url = `${origin}/in`) => {
    const { stdout, failed, ok } = await check({ ...LEAST, KAFSCALE_MCP_AUDIT_SINKS: url, ...env })
    t.notMatch(stdout, SECRET)
    return [...failed, ...ok].filter(line => line.startsWith('audit sink'))
  }
  const answers = `audit sink ${origin}: answers HEAD with 405; whether it accepts records, only a POST could show`
  t.strictSame(await finding(files), [answers])
  t.match(
    await finding({ ...files, KAFSCALE_MCP_AUDIT_COLLECTOR_CA_FILE: '' }),
    [/: the collector cannot be reached: .*: is the CA of its certificate in KAFSCALE_MCP_AUDIT_COLLECTOR_CA_FILE\?$/]
  )
  t.match(
    await finding({ ...files, KAFSCALE_MCP_AUDIT_COLLECTOR_CERT_FILE: '', KAFSCALE_MCP_AUDIT_COLLECTOR_KEY_FILE: '' }),
    [/: the collector cannot be reached: .*: does it trust the certificate in .*_COLLECTOR_CERT_FILE\?$/]
  )
  const { KAFSCALE_MCP_AUDIT_COLLECTOR_HEADERS_FILE: _, ...noHeaders } = files
  t.match(await finding(noHeaders), [/: the collector answered 401: is the header/])
  t.strictSame([...new Set(asked)], ['HEAD'])

  const seen: (string | undefined)[] = []
  const proxy = await listen(t, ({ url }, response) => {
    seen.push(url)
    response.writeHead(204).end()
  })
  const plain = 'http://collector.example/in'
  t.match(await finding({ HTTP_PROXY: proxy }, plain), [/collector\.example: answers HEAD with 204/])
  t.strictSame(seen, [plain])
})

t.test('check stdio reads the settings as stdio does', needsEtcd(), async t => {
  const etcd = await startEtcd(t, { auth: true })
  await fill(etcd, recordedKeyspace())
  const dir = t.testdir({ 'policy.yaml': 'bindings: nope\n' })
  const stdio = async (env: Record<string, string>) => await check({ ...etcd.env, ...env }, ['stdio'])

  const { code, ok, warnings, failed, stdout } = await stdio({})
  t.strictSame([code, failed, warnings], [0, [], []])
  t.match(ok, ['settings: are valid', /^etcd /, 'etcd permissions: the user can', 'snapshot: decodes'])
  t.equal(ok.length, 4, 'neither authentication nor addresses')
  t.match(stdout, 'skipped  audit sink none: calls are not recorded')

  const http = {
    KAFSCALE_MCP_HTTP_ADDR: '0.0.0.0:8090',
    KAFSCALE_MCP_AUTH_TOKEN: 'short',
    KAFSCALE_MCP_TLS_CERT_FILE: '/nowhere',
  }
  t.equal((await check({ ...etcd.env, ...http })).code, 1)
  const shared = await stdio(http)
  t.equal(shared.code, 0)
  t.match(shared.warnings, [/^settings: KAFSCALE_MCP_HTTP_ADDR, .*AUTH_TOKEN.* have no effect over standard input/])

  t.match((await stdio({ KAFSCALE_MCP_AUDIT_SINKS: 'stdout' })), {
    code: 1,
    failed: [/^settings: KAFSCALE_MCP_AUDIT_SINKS contains stdout, which carries the protocol/],
  })
  t.match(
    (await stdio({ KAFSCALE_MCP_POLICY_FILE: `${dir}/policy.yaml`, KAFSCALE_MCP_AUDIT_SINKS: `file:${dir}` })).failed,
    [/^policy: /, /^audit sink file:/]
  )
  t.match((await check({}, ['stdio'])).failed, [/^settings: KAFSCALE_MCP_ETCD_ENDPOINTS is not set/])
})

t.test('it has a usage, and refuses what it does not know', async t => {
  const usage = /^Usage:\n {2}kafscale-mcp check \[stdio\]\n/
  for (const args of [['--help'], ['stdio', '-h']]) {
    t.match(await check({}, args), { code: 0, stdout: usage, stderr: '' })
  }
  for (const args of [['--all'], ['stdio', '--all']]) {
    t.match(await check({}, args), { code: 2, stdout: '', stderr: /^kafscale-mcp check: Unknown option '--all'/ })
  }
  t.match(await check({}, ['token']), { code: 2, stdout: '', stderr: /^kafscale-mcp check: Unexpected argument/ })
})
