/** `npm run demo -- --changes`, and what stands in for a cluster and an OpenID provider in it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Etcd3, type ICompare, type IRangeResponse, type IRequestOp } from 'etcd3'
import { decodeJwt } from 'jose'
import * as oidc from 'openid-client'
import t from 'tap'
import { serveBrokers } from '../demo/brokers.ts'
import { CLUSTER_ID, SimulatedCluster } from '../demo/cluster.ts'
import { EmbeddedEtcd } from '../demo/embedded-etcd.ts'
import { serveIdentityProvider } from '../demo/identity-provider.ts'
import { Mirror } from '../kafscale/mirror.ts'
import * as keys from '../plugins/changes/ledger/keys.ts'
import { kafkaAdminOf } from '../plugins/kafka-admin/index.ts'
import { startDemo } from './support/demo.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { PATH, run } from './support/packaging.ts'
import { ROOT } from './support/paths.ts'
import { waitFor } from './support/wait-for.ts'

const SIGNAL = AbortSignal.timeout(600_000)

t.test('a newcomer follows what the demo prints, to a change that is applied and recorded', async t => {
  const demo = await startDemo(t, { KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0' }, ['--changes'])
  const commands = demo.output.split('\n').filter(line => /^(TOKEN=|answer\(\)|PLAN=|curl |npx )/.test(line))
  const answers = await run('sh', ['-c', commands.join('\n')], { cwd: ROOT, env: { PATH } })
  const [plan, applied = ''] = answers.split(/^(?=change_id: )/m)
  t.match(plan, /^state: "planned"$/m)
  t.match(plan, /^diff: \[.*"field":"partitions","before":0,"after":3/m)
  t.match(applied, /^state: "applied"$/m)
  t.match(applied, /^outcome: .*"observed_diff":\[.*"field":"partitions","before":0,"after":3/m)
  const story = [...applied.matchAll(/^\d{4}-\S+Z {2}(.+?) {2}by (\S+)/gm)].map(([, step, who]) => `${step} by ${who}`)
  t.strictSame(story.slice(0, 3), ['plan by demo-agent', 'intent by demo-agent', 'outcome by demo-agent'])
  t.match(await demo.ask('describe_topics', { names: ['orders-eu'] }), { topics: [{ name: 'orders-eu' }] })

  t.test('its policy protects a topic, and lets nobody delete one alone', async t => {
    const propose = async (name: string, input: object) => await demo.request('tools/call', { name, arguments: input })
    const config = { 'retention.ms': 1_000 }
    t.match(await propose('update_topic_config', { topic: 'audit-log', config }), denied('protected.topics[0]'))
    const deletion = await propose('delete_topic', { topic: 'dead-letters' })
    t.match(deletion, { structuredContent: { requires: { mode: 'approval', approvals_needed: 1 } } })
  })

  t.test('changes of partitions, configs and groups take effect', async t => {
    const changes: [tool: string, input: object][] = [
      ['create_partitions', { topic: 'payments', partitions: 6 }],
      ['update_topic_config', { topic: 'clickstream', config: { 'retention.ms': '9223372036854775807' } }],
      ['delete_group', { group_id: 'legacy-billing' }],
    ]
    for (const [tool, input] of changes) {
      const { change_id: id } = await demo.ask(tool, input)
      t.match(await demo.ask('apply_change', { change_id: id }), { state: 'applied' }, tool)
    }
    t.match(await demo.ask('describe_configs', { topics: ['clickstream'] }), {
      configs: [{ retention_ms: '9223372036854775807' }],
    })
  })

  t.test('the terminal shows what approvers are told, such as that a deleted group is back', async t => {
    const { change_id: id } = await demo.ask('delete_group', { group_id: 'shipping' })
    t.match(await demo.ask('apply_change', { change_id: id }), { state: 'applied' })
    await waitFor(() => /To the approvers: `"demo-agent"` .*`delete_group /.test(demo.output), 20_000, 'the message')
    t.match(await demo.ask('get_change', { change_id: id }), { state: 'reverted' })
  })

  t.test('it names the people who sign in, and the files that it uses', async t => {
    t.match(demo.output, /^ {2}approver {3}\S+$/m)
    t.match(demo.output, /^ {2}auditor {4}\S+$/m)
    const [policyFile = ''] = /\.demo\/changes\/policy\S*\.yaml/.exec(demo.output) ?? []
    t.ok(existsSync(join(ROOT, policyFile)))
    t.equal(await demo.interrupt(), 0)
    t.equal(demo.errors(), '', 'no warnings or errors')
    t.notOk(existsSync(join(ROOT, policyFile)), 'the policy is gone with the demo')
  })
})

t.test('the demo of changes listens on this machine only', async t => {
  const env = { ...process.env, KAFSCALE_MCP_HTTP_ADDR: '0.0.0.0:0' }
  const failure = await run(process.execPath, ['demo/main.ts', '--changes'], { cwd: ROOT, env }).catch(String)
  t.match(failure, 'KAFSCALE_MCP_HTTP_ADDR is 0.0.0.0:0: expected a loopback address such as 127.0.0.1:8090')
})

t.test('transactions and leases of the embedded etcd answer as those of etcd', needsEtcd(), async t => {
  const real = await startEtcd(t)
  const embedded = new EmbeddedEtcd()
  const client = new Etcd3({ hosts: await embedded.listen() })
  t.teardown(() => {
    client.close()
    embedded.close()
  })
  const answers = await Promise.all([real.client, client].map(async etcd => {
    const { header: { revision: first } } = await etcd.kv.range({ key: Buffer.from('/a') })
    const since = (revision: string) => Number(revision) - Number(first)
    const seen: unknown[] = []
    const transact = async (compare: ICompare[], ...success: IRequestOp[]) => {
      const { succeeded, header, responses } = await etcd.kv.txn({ compare, success, failure: [keys.get('/a')] })
        .catch((error: Error) => ({ succeeded: error.message, header: { revision: first }, responses: [] }))
      seen.push([succeeded, since(header.revision), responses.map(response => {
        const { response_range: range, response_delete_range: deletion } = response
        return range ? range.kvs.map(kv => describe(kv, since)) : deletion?.deleted ?? 'put'
      })])
    }
    const { ID: lease } = await etcd.leaseClient.leaseGrant({ TTL: 3_600 })
    await transact([keys.isAbsent('/a')], keys.put('/a', '1', lease), keys.put('/b', '1'))
    await transact([keys.isAbsent('/a')], keys.put('/a', '2'))
    await transact([keys.exists('/b'), keys.hasValue('/b', '1')], keys.put('/b', '2'), keys.get('/b'))
    await transact([keys.hasValue('/absent', '')], keys.put('/b', '3'))
    await transact([keys.never('/b')], keys.put('/b', '3'))
    await transact([keys.hasRevision('/b', `${Number(first) + 2}`)], keys.put('/b', '4'))
    await transact([keys.noneSince('/', `${Number(first) + 1}`)], keys.put('/c', '1'))
    await transact([keys.noneSince('/', `${Number(first) + 1}`)], keys.put('/d', '1'))
    await transact([keys.noneSince('/none/', '1')], { request_range: keys.withPrefix('/') })
    await transact([], { request_range: { ...keys.withPrefix('/'), keys_only: true, limit: 2 } })
    await transact([], keys.remove('/c'), keys.remove('/absent'))
    await transact([], keys.remove('/absent'))
    await transact([], keys.put('/c', '5'), keys.get('/c'))
    await transact([], keys.put('/e', '1', '4711'), keys.put('/c', '6'))
    await etcd.leaseClient.leaseRevoke({ ID: lease })
    await transact([], { request_range: keys.withPrefix('/') })
    await transact([], { request_range: { key: Buffer.from('/b'), range_end: Buffer.of(0) } })
    const { count, kvs } = await etcd.kv.range({ ...keys.withPrefix('/'), count_only: true })
    seen.push(count, kvs.length)
    const { ID: short } = await etcd.leaseClient.leaseGrant({ TTL: 1 })
    await transact([], keys.put('/short', '1', short), keys.put('/kept', '1', short))
    await transact([], keys.put('/kept', '2'))
    await waitFor(async () => await etcd.get('/short').string() === null, 10_000, 'the end of the lease')
    seen.push(await etcd.get('/kept').string())
    return seen
  }))
  t.strictSame(answers[1], answers[0])
})

t.test('the brokers change the cluster', async t => {
  const mirror = new Mirror()
  let revision = 0
  const stored = new Map<string, Buffer>()
  const cluster = new SimulatedCluster({
    put (key, value) {
      stored.set(key, value)
      mirror.apply({ type: 'put', key: Buffer.from(key), value, modRevision: ++revision })
    },
    deletePrefix (prefix) {
      revision++
      for (const key of [...stored.keys()].filter(key => key.startsWith(prefix))) {
        stored.delete(key)
        mirror.apply({ type: 'delete', key: Buffer.from(key), value: Buffer.alloc(0), modRevision: revision })
      }
    },
  }, 1, Date.UTC(2026, 0, 1))
  const brokers = await serveBrokers(cluster)
  t.equal(brokers.length, 3)
  const admin = kafkaAdminOf({ brokers, clientId: 'test', tls: undefined, sasl: undefined })
  t.teardown(async () => await admin.close())
  const session = await admin.connect(SIGNAL)
  const partitions = (topic: string) => mirror.topic(topic)?.info?.partitions.length
  const tick = (seconds: number) => {
    for (let i = 1; i <= seconds * 2; i++) cluster.tick(Date.UTC(2026, 0, 1) + i * 500)
  }

  t.test('each shows the whole cluster', async t => {
    const view = await session.view(SIGNAL)
    t.equal(view.clusterId, CLUSTER_ID)
    t.strictSame(view.brokers.map(({ nodeId }) => nodeId), [0, 1, 2])
    t.equal(view.topics.get('orders'), 6)
  })

  t.test('CreateTopics', async t => {
    const call = { api: 'create_topic', topic: 'orders-eu', partitions: 3, replicationFactor: 3 } as const
    t.match(await session.validate(call, SIGNAL), { kind: 'ok' })
    t.equal(partitions('orders-eu'), undefined, 'a validation changes nothing')
    t.match(await session.send(call), { kind: 'ok' })
    t.equal(partitions('orders-eu'), 3)
    t.match(await session.send(call), { kind: 'refused', name: 'TOPIC_ALREADY_EXISTS' })
    t.match(await session.send({ ...call, topic: 'x', replicationFactor: 4 }), { kind: 'refused', code: 17 })
  })

  t.test('CreatePartitions: producers and consumers use the new ones', async t => {
    const call = { api: 'create_partitions', topic: 'orders', partitions: 8 } as const
    t.match(await session.send(call), { kind: 'ok' })
    t.equal(partitions('orders'), 8)
    tick(30)
    const { commits = [] } = mirror.group('order-processing') ?? {}
    const added = commits.filter(({ partition: { topic, number } }) => topic.name === 'orders' && number >= 6)
    t.strictSame(added.map(({ partition: { number } }) => number), [6, 7])
    t.ok(added.every(({ partition: { logEndOffset }, offset }) => Number(logEndOffset) > 0 && Number(offset) > 0))
    t.match(await session.send(call), { kind: 'refused', code: 37 })
    t.match(await session.send({ ...call, topic: 'absent' }), { kind: 'refused', code: 3 })
  })

  t.test('AlterConfigs', async t => {
    const call = { api: 'alter_configs', topic: 'orders', config: { 'retention.ms': '9223372036854775807' } } as const
    t.match(await session.send(call), { kind: 'ok' })
    t.match(await session.send({ ...call, config: { 'segment.bytes': '1048576' } }), { kind: 'ok' })
    t.match(mirror.topic('orders')?.config, { retentionMs: 9223372036854775807n, segmentBytes: 1_048_576 })
    t.match(await session.send({ ...call, config: { 'segment.bytes': '0' } }), { kind: 'refused', code: 40 })
    t.match(await session.send({ ...call, config: { 'cleanup.policy': '1' } }), { kind: 'refused', code: 40 })
  })

  t.test('DeleteTopics: nobody uses the topic any more', async t => {
    t.match(await session.send({ api: 'delete_topic', topic: 'orders' }), { kind: 'ok' })
    tick(30)
    t.equal(partitions('orders'), undefined)
    t.strictSame([...stored.keys()].filter(key => /\/(topics|offsets)\/orders\//.test(key)), [])
    t.match(await session.send({ api: 'delete_topic', topic: 'orders' }), { kind: 'refused', code: 3 })
  })

  t.test('DeleteGroups: the members of a live group join again', async t => {
    t.match(await session.send({ api: 'delete_group', groupId: 'legacy-billing' }), { kind: 'ok' })
    t.match(await session.send({ api: 'delete_group', groupId: 'shipping' }), { kind: 'ok' })
    t.equal(mirror.group('shipping')?.metadata, undefined)
    tick(10)
    t.equal(mirror.group('legacy-billing')?.metadata, undefined)
    t.match(mirror.group('shipping')?.metadata, { state: 'stable' })
    t.match(await session.send({ api: 'delete_group', groupId: 'nightly-report' }), { kind: 'refused', code: 69 })
  })
})

t.test('the OpenID provider', async t => {
  const redirectUri = 'http://127.0.0.1:1/sign-in/callback'
  const service = { id: 'service', secret: 'service-secret', redirectUri }
  const provider = await serveIdentityProvider({
    agent: { id: 'agent', secret: 'agent-secret' },
    service,
    people: { approver: 'right' },
    audience: 'http://127.0.0.1:1/mcp',
    scope: 'kafscale:observe kafscale:propose',
  })

  t.test('issues tokens for the agent', async t => {
    const token = await provider.token({ id: 'agent', secret: 'agent-secret' })
    t.match(decodeJwt(token), {
      iss: provider.issuer, sub: 'agent', aud: 'http://127.0.0.1:1/mcp', scope: 'kafscale:observe kafscale:propose',
    })
  })

  t.test('signs people in who know their password', async t => {
    const config = await oidc.discovery(new URL(provider.issuer), service.id, service.secret, undefined, {
      execute: [oidc.allowInsecureRequests],
    })
    const verifier = oidc.randomPKCECodeVerifier()
    const expected = { pkceCodeVerifier: verifier, expectedNonce: 'nonce', expectedState: 'state', maxAge: 300 }
    const browser = cookieJar()
    const page = await browser(oidc.buildAuthorizationUrl(config, {
      redirect_uri: redirectUri,
      scope: 'openid',
      state: 'state',
      nonce: 'nonce',
      prompt: 'login',
      max_age: '300',
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    }))
    t.match(await page.response.text(), /<input name="password" type="password"/)
    const wrong = await browser(page.url, { name: 'approver', password: 'wrong' })
    t.match(await wrong.response.text(), 'Wrong name or password')
    const { url } = await browser(page.url, { name: 'approver', password: 'right' })
    t.ok(url.href.startsWith(redirectUri))
    const tokens = await oidc.authorizationCodeGrant(config, url, expected)
    t.match(tokens.claims(), { sub: 'approver', auth_time: Number })
  })
})

/** The refusal by a rule of the policy. */
function denied (rule: string) {
  return { isError: true, content: [{ text: `It requires a change to ${rule} in the policy` }] }
}

function describe (kv: IRangeResponse['kvs'][number], since: (revision: string) => number): unknown[] {
  return [`${kv.key}=${kv.value}`, since(kv.create_revision), since(kv.mod_revision), kv.version]
}

/** Follows redirects within the provider, with its cookies. */
function cookieJar () {
  const cookies = new Map<string, string>()
  return async (start: URL, form?: Record<string, string>) => {
    let url = start
    for (let body = form; ; body = undefined) {
      const response = await fetch(url, {
        redirect: 'manual',
        headers: { cookie: Array.from(cookies, ([name, value]) => `${name}=${value}`).join('; ') },
        ...body && { method: 'POST', body: new URLSearchParams(body) },
      })
      for (const cookie of response.headers.getSetCookie()) {
        const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
        cookies.set(name, value)
      }
      const location = response.headers.get('location')
      if (location === null) return { url, response }
      url = new URL(location, url)
      if (url.host !== start.host) return { url, response }
    }
  }
}
