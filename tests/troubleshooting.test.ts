/** docs/troubleshooting.md covers every error, and the service produces every message on the page. */
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { FastifyError, FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify'
import t from 'tap'
import { describeError, ERRORS } from '../errors.ts'
import { NOT_ACCESS_TOKENS } from '../plugins/auth/access-token.ts'
import { REASONS } from '../plugins/metadata.ts'
import { authority } from './support/authorization.ts'
import { needsEtcd, startEtcd } from './support/etcd.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'
import { scaled } from './support/run.ts'
import { buildTestApp, fill, legacy, modern, recordedKeyspace, startService } from './support/service.ts'

const page = readPage('troubleshooting.md')
const TOKEN = '0123456789abcdef'.repeat(2)

const sections = new Map(
  [...page.text.matchAll(/^### `([A-Z_]+)`\n([^]*?)(?=^##|$(?![^]))/gm)].map((
    [, code = '', text = '']
  ) => [code, text])
)

t.test('every error code has a section with a cause and a fix', async t => {
  t.strictSame([...sections.keys()].sort(), Object.keys(ERRORS).sort())
  for (const [code, text] of sections) {
    t.match(text, /^- \*\*Cause\*\*: \S/m, code)
    t.match(text, /^- \*\*Fix\*\*: \S/m, code)
  }
})

t.test('the page and the error agree on retries', async t => {
  for (const [code, text] of sections) {
    const { retryable, retry_after_ms: retryAfterMs } = describeError({ code } as FastifyError)
    const retry = !retryable
      ? 'no'
      : retryAfterMs === undefined
        ? 'immediately'
        : `after ${retryAfterMs / 1_000} s`
    t.match(text, `- **Retry**: ${retry}.\n`, code)
  }
})

t.test('kafscale-mcp check reports what the page shows', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const [reported = ''] = await page.run(page.block('sh check'), {
    cwd: t.testdir({}),
    env: { ...etcd.env, KAFSCALE_MCP_HTTP_ADDR: '127.0.0.1:0', KAFSCALE_MCP_TELEMETRY_ADDR: '127.0.0.1:0' },
  })
  t.equal(
    reported.replace(String(etcd.endpoints[0]), 'http://etcd:2379').replace(/(?<=HTTP_ADDR .*):0:/, ':8090:')
      .replace(/(?<=TELEMETRY_ADDR .*):0:/, ':9090:'),
    page.block('text check')
  )
})

t.test('a refused start reports these messages', async t => {
  const dir = t.testdir({})
  await page.run(
    'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 1 -subj /CN=test ' +
      '-keyout tls.key -out tls.crt',
    { cwd: dir }
  )
  const messages = page.ofKind('text sentence')
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const { port } = taken.address() as AddressInfo
  const environments = page.ofKind('sh env refused')
  t.equal(environments.length, messages.length - 1)
  for (const [index, text] of environments.entries()) {
    const start = async () => await (await buildTestApp(t, page.environment(text, dir))).ready()
    const told = await start().then(() => 'the service starts', ({ message }: Error) => message)
    t.equal(told.replaceAll(dir, '/etc/kafscale-mcp'), messages[index]?.trim())
  }
  const service = startService(t, { KAFSCALE_MCP_HTTP_ADDR: `127.0.0.1:${port}` })
  t.equal(await service.exit, 1)
  t.equal(service.output.stderr.replace(`:${port})`, ':8090)'), `kafscale-mcp does not start:\n${messages.at(-1)}`)
})

t.test('every refused request gets the status and message of the table', async t => {
  const env = {
    KAFSCALE_MCP_AUTH_TOKEN: TOKEN,
    KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdir({})}/audit.jsonl`,
    KAFSCALE_MCP_ALLOWED_HOSTS: 'localhost',
    KAFSCALE_MCP_MAX_BODY_BYTES: '100000',
  }
  const app = await buildTestApp(t, env)
  const call = modern('tools/call', { name: 'list_topics', arguments: {} })
  const list = legacy('tools/list')
  const authorization = `Bearer ${TOKEN}`
  const request = (
    base: InjectOptions,
    headers: Record<string, string> = {},
    payload = base.payload
  ): InjectOptions => ({
    ...base,
    headers: { ...base.headers as Record<string, string>, authorization, ...headers },
    ...payload !== undefined && { payload },
  })
  const get = (url: string): InjectOptions => ({
    method: 'GET',
    url,
    headers: { authorization, accept: 'text/event-stream' },
  })

  const strict = await buildTestApp(t, {
    ...env,
    KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdirName}/more.jsonl`,
    KAFSCALE_MCP_MAX_AUTH_FAILURES: '1',
  })
  await strict.inject(call)
  const { env: jwks, token } = await authority(t, 'https://id.example')
  const scoped = await buildTestApp(t, jwks)
  const noScope = `Bearer ${await token('alice', { scope: 'other' })}`
  const unreachable = await buildTestApp(t, {
    KAFSCALE_MCP_OIDC_ISSUER: 'http://127.0.0.1:1',
    KAFSCALE_MCP_PUBLIC_URL: 'https://kafscale-mcp.example',
    KAFSCALE_MCP_AUDIT_SINKS: `file:${t.testdirName}/oidc.jsonl`,
  })
  const ofUnreachable = `Bearer ${
    [{ alg: 'EdDSA', kid: 'a' }, { iss: 'http://127.0.0.1:1' }].map(part =>
      Buffer.from(JSON.stringify(part)).toString('base64url')
    ).join('.')
  }.c2ln`

  const responses = await Promise.all([
    app.inject(request(list, {}, '{')),
    app.inject(request(list, { 'mcp-protocol-version': '2020-01-01' })),
    app.inject(request(call, { 'mcp-name': 'list_groups' })),
    app.inject(request(list, {}, JSON.stringify({ ...list.payload as object, id: 'x'.repeat(257) }))),
    app.inject(request(list, {}, JSON.stringify({ ...list.payload as object, method: 'x'.repeat(257) }))),
    app.inject(request(list, {}, JSON.stringify(Array(11).fill(list.payload)))),
    app.inject(request(list, {}, '['.repeat(40) + ']'.repeat(40))),
    app.inject(call),
    app.inject(request(call, { authorization: 'Bearer other' })),
    scoped.inject(request(call, { authorization: noScope })),
    app.inject(request(call, { host: 'evil.example' })),
    app.inject(request(call, { origin: 'https://evil.example' })),
    app.inject(get('/audit/stream')),
    app.inject(request(modern('resources/list'))),
    app.inject(get('/mcp')),
    app.inject(request(list, { accept: 'application/json' })),
    app.inject(request(list, {}, ' '.repeat(100_001))),
    app.inject(request(list, { 'content-type': 'text/plain' }, JSON.stringify(list.payload))),
    strict.inject(call),
    unreachable.inject(request(call, { authorization: ofUnreachable })),
  ])
  responses.push(await tooBusy(await buildTestApp(t, { KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY: '100ms' })))
  const rows = page.rows('status')
  t.equal(rows.length, responses.length)
  for (const [index, response] of responses.entries()) {
    const [status, message = ''] = rows[index] ?? []
    t.equal(`${response.statusCode}`, status, message)
    const { error } = response.json<{ error: { message: string } }>()
    t.ok(error.message.startsWith(message.slice(1, -1)), `${error.message} begins with ${message}`)
  }
})

/** The response of a service whose event loop is blocked. */
async function tooBusy (app: FastifyInstance): Promise<LightMyRequestResponse> {
  const cell = new Int32Array(new SharedArrayBuffer(4))
  const deadline = performance.now() + scaled(5_000)
  for (;;) {
    const response = await app.inject(legacy('ping'))
    if (response.statusCode !== 200 || performance.now() > deadline) return response
    Atomics.wait(cell, 0, 0, 250)
    await setImmediate()
  }
}

t.test('reasons and log messages occur in the source', async t => {
  const source = globSync('{*.ts,{lib,plugins,routes,tools}/**/*.ts}', { cwd: ROOT }).map(path =>
    readFileSync(join(ROOT, path), 'utf8')
  ).join('').replaceAll("\\'", "'")
  const quoted = [...page.rows('reason'), ...page.rows('message')].flatMap(([cell = '']) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, text = '']) => text)
  )
  t.ok(quoted.length > 15)
  const causes = [...sections.get('UNAUTHENTICATED')?.matchAll(/`(the [^`]+)`/g) ?? []].map(([, text = '']) =>
    text.replace(/\s+/g, ' ')
  )
  for (const text of [...quoted, ...causes]) t.ok(source.includes(text), text)
})

t.test('every reason is listed', async t => {
  t.strictSame(page.rows('reason').map(([reason = '']) => reason.slice(1, -1)).sort(), Object.values(REASONS).sort())
})

t.test('every kind of token that is not an access token is listed', async t => {
  const text = sections.get('UNAUTHENTICATED')?.replace(/\s+/g, ' ')
  for (const reason of Object.values(NOT_ACCESS_TOKENS)) t.ok(text?.includes(`\`${reason}\`:`), reason)
})

t.test('the commands work', async t => {
  const service = startService(t)
  const [health = '', ready = ''] = await page.runEach('sh run look', { cwd: t.testdir({}), url: await service.url })
  t.match(JSON.parse(health), { status: 'ok' })
  t.match(JSON.parse(ready), { status: 'not ready', reason: String })
})
