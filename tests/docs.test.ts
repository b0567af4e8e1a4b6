/** Runs every example in docs/security.md, or compares it with what the service does. */
import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { readConfig } from '../plugins/config/read.ts'
import { parsePolicy } from '../plugins/rbac/policy.ts'
import { authority, clientOf } from './support/authorization.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'
import { temporaryFolder } from './support/run.ts'
import { buildSyncedApp, buildTestApp, CALLER, fill, modern, startService } from './support/service.ts'

const page = readPage('security.md')
const { block } = page
/** The examples of settings, with the authentication mode that each one configures. */
const settings = ['jwks', 'oidc', 'token'].flatMap(mode => page.ofKind(`sh env ${mode}`).map(text => ({ mode, text })))

/** A folder with every file that the page's settings refer to. */
async function folder (t: Test): Promise<string> {
  const dir = temporaryFolder(t)
  writeFileSync(join(dir, 'token'), 'x'.repeat(32))
  writeFileSync(join(dir, 'policy.yaml'), block('yaml policy orders'))
  await page.run(block('sh run keys'), { cwd: dir })
  await page.run(block('sh run tokens'), { cwd: dir })
  await page.run(
    'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 1 -subj /CN=test ' +
      '-keyout tls.key -out tls.crt',
    { cwd: dir }
  )
  copyFileSync(join(dir, 'tls.crt'), join(dir, 'client-ca.crt'))
  return dir
}

t.test('every kind of example is tested', async t => {
  t.strictSame(page.kinds, [
    'json answer',
    'json record',
    'sh env jwks',
    'sh env oidc',
    'sh env refused',
    'sh env token',
    'sh run keys',
    'sh run review',
    'sh run tokens',
    'text sentence',
    'yaml pod',
    'yaml policy kubernetes',
    'yaml policy orders',
  ])
})

t.test('the links of security.md and audit.md exist', async t => {
  for (const source of [page, readPage('audit.md')]) {
    for (const { path, anchor } of source.links) {
      if (path !== '') t.ok(existsSync(join(ROOT, 'docs', path)), path)
      if (anchor === undefined) continue
      const target = path === '' ? source : readPage(path)
      t.ok(target.anchors.includes(anchor), `${path}#${anchor}`)
    }
  }
})

t.test('the settings configure their mode without warnings', async t => {
  const dir = await folder(t)
  const config = (text: string) =>
    readConfig({ KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://etcd:2379', ...page.environment(text, dir) })
  for (const { mode, text } of settings) {
    const { auth: { mode: authMode }, warnings } = config(text)
    t.equal(authMode, mode)
    t.strictSame(warnings.filter(warning => !/PUBLIC_URL is not set|shared secret/.test(warning)), [])
  }
  t.throws(() => config(block('sh env refused')), { name: 'ConfigError', message: block('text sentence').trim() })
})

t.test('the defaults are those on the page', async t => {
  const config = readConfig({
    KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://etcd:2379',
    KAFSCALE_MCP_OIDC_ISSUER: 'https://id.example',
  })
  t.match(config, {
    auth: { maxTokenLifetimeMs: 3_600_000 },
    rateLimit: 1_200,
    addressRateLimit: 0,
    maxConcurrentCalls: 64,
    addressMaxConcurrentCalls: 0,
    maxAuthFailures: 300,
    maxEventLoopDelayMs: 1_000,
    maxBodyBytes: 2 ** 18,
    requestTimeoutMs: 30_000,
    auditSinks: [{ kind: 'stdout' }],
    auditFailMode: 'closed',
  })
})

t.test('the example policy has the effects in its table', needsEtcd(), async t => {
  const issuer = 'https://id.example/realms/main'
  const { env, token, policyFile } = await authority(t, issuer)
  const etcd = await startEtcd(t)
  const topics = ['orders', 'orders-eu', 'orders-secret', 'payments', 'public-news']
  await fill(etcd, [
    {
      key: '/kafscale/metadata/snapshot',
      value: JSON.stringify({ Topics: topics.map(name => ({ Topic: name, Partitions: [] })) }),
    },
    ...['orders-1', 'billing'].map(group => ({
      key: `/kafscale/consumers/${group}/offsets/orders/0`,
      value: '{"offset":1}',
    })),
  ])
  const app = await buildSyncedApp(t, etcd, {
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile(block('yaml policy orders')),
    KAFSCALE_MCP_ENVIRONMENT: 'staging',
  })
  const scope = 'kafscale:observe'
  const client = async (sub: string, claims: object) => clientOf(app, await token(sub, { scope, ...claims }))

  const reader = await client('alice', { groups: ['team-orders'] })
  t.match(await reader.ask('list_topics'), { topics: [{ name: 'orders' }, { name: 'orders-eu' }], total: 2 })
  t.match(await reader.ask('describe_topics', { names: ['orders-secret'] }), {
    topics: [{ error_code: 3, error: 'unknown topic' }],
  })
  t.match(await reader.call('describe_group', { group_id: 'billing' }), { content: [{ text: /^GROUP_NOT_FOUND: / }] })
  t.match(await reader.ask('list_groups'), { groups: [{ group_id: 'orders-1' }], total: 1 })
  const denied = (rule: string) => ({ isError: true, content: [{ text: new RegExp(`^PERMISSION_DENIED: .*${rule}`) }] })
  t.match(await (await client('carol', {})).call('list_topics'), denied('a role that allows list_topics'))
  t.match(await (await client('bob', {})).call('list_topics'), denied('a binding'))
  t.match(await (await client('eve', { realm_access: { roles: ['kafka-sre'] } })).ask('list_topics'), {
    total: topics.length,
  })
  const contractor = await client('dan', { scope: `${scope} kafscale:contractor` })
  t.match(await contractor.ask('list_topics'), { topics: [{ name: 'public-news' }], total: 1 })
  t.match(await contractor.ask('cluster_status'), { topic_count: 1, group_count: 0 })
  t.strictSame((await contractor.tools()).map(({ name }) => name), [
    'cluster_status', 'describe_topics', 'explain_access', 'list_topics',
  ])
})

t.test('a pod authenticates with its service account', async t => {
  const [binding] = parsePolicy(block('yaml policy kubernetes'), []).bindings ?? []
  const { env, token, policyFile } = await authority(t, binding?.issuer)
  const app = await buildTestApp(t, { ...env, KAFSCALE_MCP_POLICY_FILE: policyFile(block('yaml policy kubernetes')) })
  const { serviceAccountToken: { audience, expirationSeconds } } =
    parse(block('yaml pod')).volumes[0].projected.sources[0]
  t.equal(audience, `${env['KAFSCALE_MCP_PUBLIC_URL']}/mcp`)
  const { auth } = app.config
  t.ok(auth.mode === 'jwks' && expirationSeconds * 1_000 <= auth.maxTokenLifetimeMs)
  // As in the API server's tokens: no scope, but the identity of the pod.
  const claims = (name: string) => ({
    'kubernetes.io': { namespace: 'agents', pod: { name: 'triage-0', uid: 'a' }, serviceaccount: { name, uid: 'b' } },
  })
  const tools = async (name: string) =>
    await clientOf(app, await token(`system:serviceaccount:agents:${name}`, claims(name))).tools()
  t.equal((await tools('triage')).length, app.tools.list(CALLER.principal).length)
  t.strictSame((await tools('default')).map(({ name }) => name), ['explain_access'])
})

t.test('keys, tokens, records and their verification work together', async t => {
  const dir = await folder(t)
  const [, issued = ''] = await page.run(block('sh run tokens').replaceAll('token.key', 'more.key'), { cwd: dir })
  const audited = settings.map(({ text }) => text).find(text => text.includes('AUDIT_SIGNING_KEY_FILE')) ?? ''
  const service = startService(t, page.environment(audited, dir))
  const url = await service.url
  const call = async (name: string, input: object) => {
    const { headers, payload } = modern('tools/call', { name, arguments: input })
    const response = await fetch(url, {
      method: 'POST',
      headers: { ...headers, authorization: `Bearer ${issued.trim()}` },
      body: JSON.stringify(payload),
    })
    return (await response.json() as { result: { structuredContent: { tools: { name: string }[] } } }).result
  }

  t.test('explain_access returns the example', async t => {
    const { structuredContent: answer } = await call('explain_access', {})
    const shown = JSON.parse(block('json answer')) as typeof answer
    t.strictSame(
      { ...answer, tools: answer.tools.filter(({ name }) => shown.tools.some(tool => tool.name === name)) },
      shown
    )
  })
  await call('describe_topics', { names: ['orders'] })
  await call('explain_access', { more: 1 })
  service.process.kill('SIGTERM')
  t.equal(await service.exit, 0)

  t.test('a record has the fields of the example', async t => {
    const fields = (value: unknown): unknown => typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).map(([name, value]) => [name, fields(value)]))
      : null
    const shown = JSON.parse(block('json record'))
    const recorded = readFileSync(join(dir, 'audit.jsonl'), 'utf8').trim().split('\n').map(line => JSON.parse(line))
      .find(({ what }) => what?.tool === 'describe_topics')
    t.strictSame(fields(recorded), fields(shown))
    t.match(
      page.text.split('| field |')[1]?.split('\n\n')[0],
      new RegExp(Object.keys(shown).map(name => `(?=[^]*\`${name}\`)`).join('')),
      'every field is explained'
    )
    t.equal(
      service.output.stdout.split('\n').filter(line => line.includes('"describe_topics"')).length,
      1,
      'standard output has the record too'
    )
  })

  t.test('the log is intact and searchable', async t => {
    const [verified = '', refused = '', alice = ''] = await page.run(block('sh run review'), { cwd: dir })
    t.match(verified, /, closed$[^]*^Signed by key \w+, which is trusted\.$[^]*^intact: records 1 to \d+$/m)
    t.equal(refused.trim().split('\n').length, 1, 'only the header of the table')
    t.match(alice.trim().split('\n').map(line => JSON.parse(line)), [{
      who: { subject: 'alice' },
      what: { tool: 'describe_topics' },
      error_code: 'METADATA_UNAVAILABLE',
    }])
    writeFileSync(join(dir, 'audit.jsonl'), readFileSync(join(dir, 'audit.jsonl'), 'utf8').replace('"alice"', '"bob"'))
    await t.rejects(
      page.run(block('sh run review'), { cwd: dir }),
      Object.assign(new Error(), { code: 1 }),
      'a changed record is detected'
    )
  })
})
