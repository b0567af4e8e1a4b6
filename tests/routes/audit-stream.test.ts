import { once } from 'node:events'
import { type IncomingMessage, request as httpRequest } from 'node:http'
import { join } from 'node:path'
import { mock } from 'node:test'
import { promisify } from 'node:util'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { AuditUnavailable } from '../../errors.ts'
import auditStream from '../../routes/audit-stream.ts'
import { auditApp, entry, recordsOf } from '../support/audit.ts'
import { waitFor } from '../support/wait-for.ts'

interface Message { id: string | undefined, event: string | undefined, data: string }

/** A listening app with an audit log and its stream. */
async function buildStream (t: Test, mayRead: (request: FastifyRequest) => boolean | Promise<boolean> = () => true) {
  const path = join(t.testdir(), 'audit.jsonl')
  const app = auditApp({ auditSinks: [{ kind: 'file', path }] })
  app.register(auditStream, { mayRead, whoIs: () => entry().who })
  t.teardown(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, path, url: `${url}/audit/stream` }
}

/** A client of the stream that has received the response headers. */
async function open (t: Test, url: string, headers: Record<string, string> = {}) {
  const request = httpRequest(url, { headers: { accept: 'text/event-stream', ...headers } })
  request.on('error', () => {})
  t.teardown(() => request.destroy())
  request.end()
  const [response] = await once(request, 'response') as [IncomingMessage]
  const messages: Message[] = []
  let heartbeats = 0
  let text = ''
  let ended = false
  response.setEncoding('utf8').on('data', chunk => {
    text += chunk
    const blocks = text.split('\n\n')
    text = blocks.pop() ?? ''
    for (const block of blocks) {
      if (block === ': heartbeat') heartbeats++
      else messages.push(parse(block))
    }
  }).on('error', () => {}).on('close', () => { ended = true })
  return { response, request, messages, get heartbeats () { return heartbeats }, get ended () { return ended } }
}

function parse (block: string): Message {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1]
  return { id: field('id'), event: field('event'), data: field('data') ?? '' }
}

const rules = (messages: Message[]) =>
  messages.map(({ event, data }) => event === 'record' ? JSON.parse(data).rule : event)

async function recordAll (app: FastifyInstance, from: number, to: number): Promise<void> {
  for (let rule = from; rule <= to; rule++) await app.audit.record(entry({ rule: `${rule}` }))
}

t.test('records are streamed as they are written', async t => {
  const { app, path, url } = await buildStream(t)
  const { response, messages } = await open(t, url)
  t.match(response.headers['content-type'], 'text/event-stream')
  await recordAll(app, 1, 3)
  await waitFor(() => messages.length === 3 || messages, 2_000, 'three records')
  t.strictSame(rules(messages), ['1', '2', '3'])
  t.strictSame(messages.map(({ data }) => JSON.parse(data)), recordsOf(path).slice(-3))
  t.equal(new Set(messages.map(({ id }) => id)).size, 3)
})

t.test('who opens the stream, or tries to, is recorded first', async t => {
  let isAuditor = true
  const { app, path, url } = await buildStream(t, () => isAuditor)
  const { response } = await open(t, `${url}?tool=list_topics`)
  t.equal(response.statusCode, 200)
  const opened = () => recordsOf(path).filter(({ event }) => event === 'audit_stream')
  t.match(opened(), [{
    who: { subject: 'alice' },
    what: { arguments: { tool: 'list_topics' } },
    where: { remote_address: '127.0.0.1' },
    decision: 'allowed',
    outcome: 'ok',
    error_code: null,
  }])
  isAuditor = false
  t.equal((await open(t, url)).response.statusCode, 403)
  t.match(opened()[1], { decision: 'denied', outcome: 'denied', error_code: 'NOT_AUDITOR' })
  await app.close()
})

t.test('nobody may read while that cannot be recorded', async t => {
  const { app, url } = await buildStream(t)
  app.audit.record = () => Promise.reject(new AuditUnavailable())
  t.equal((await open(t, url)).response.statusCode, 503)
})

t.test('the query filters records', async t => {
  const { app, url } = await buildStream(t)
  const all = await open(t, url)
  const bob = await open(t, `${url}?who=bob&outcome=denied`)
  const tool = await open(t, `${url}?tool=list_groups`)
  const failures = await open(t, `${url}?event=authentication_failure`)
  await app.audit.record(entry({ rule: 'alice' }))
  await app.audit.record(entry({ rule: 'bob', who: { ...entry().who!, subject: 'bob' }, outcome: 'denied' }))
  await app.audit.record(entry({ rule: 'bob ok', who: { ...entry().who!, subject: 'bob' } }))
  await app.audit.record(entry({ rule: 'groups', what: { ...entry().what!, tool: 'list_groups' } }))
  await app.audit.record(entry({ rule: 'failure', event: 'authentication_failure', who: null, what: null }))
  await waitFor(() => all.messages.length === 8 || all.messages, 2_000, 'five records, and three other readers')
  await waitFor(() => failures.messages.length === 1 || failures.messages, 2_000, 'one failure')
  t.strictSame([bob, tool, failures].map(({ messages }) => rules(messages)), [['bob'], ['groups'], ['failure']])
  t.equal((await open(t, `${url}?whom=bob`)).response.statusCode, 400)
})

t.test('only an auditor may read, and only while in that role', async t => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  let answer: () => boolean = () => false
  const { app, url } = await buildStream(t, () => answer())
  const denied = await open(t, url)
  t.equal(denied.response.statusCode, 403)
  for (const end of [() => false, () => { throw new Error('the policy is gone') }]) {
    answer = () => true
    const client = await open(t, url)
    await recordAll(app, 1, 1)
    await waitFor(() => client.messages.length === 1, 2_000, 'a record')
    mock.timers.tick(5_000)
    t.notOk(client.ended)
    answer = end
    mock.timers.tick(5_000)
    await waitFor(() => client.ended, 2_000, 'the end')
  }
})

t.test('a client resumes after the last record it has seen', async t => {
  const { app, url } = await buildStream(t)
  const first = await open(t, url)
  await recordAll(app, 1, 2)
  await waitFor(() => first.messages.length === 2, 2_000, 'two records')
  first.request.destroy()
  await recordAll(app, 3, 5)
  const again = await open(t, url, { 'last-event-id': first.messages[0]?.id ?? '' })
  await recordAll(app, 6, 6)
  await waitFor(() => again.messages.length === 6 || again.messages, 2_000, 'the rest')
  t.strictSame(rules(again.messages), ['2', '3', '4', '5', null, '6'], 'with the record of its own return')
})

t.test('a client that resumes too late is told how many records it missed', async t => {
  const { app, url } = await buildStream(t)
  const first = await open(t, url)
  await recordAll(app, 1, 1)
  await waitFor(() => first.messages.length === 1, 2_000, 'a record')
  await Promise.all(Array.from({ length: 1_010 }, (_, index) => app.audit.record(entry({ rule: `${index + 2}` }))))
  const late = await open(t, url, { 'last-event-id': first.messages[0]?.id ?? '' })
  await waitFor(() => late.messages.length === 1_001 || late.messages.length, 5_000, 'the buffer')
  t.match(late.messages[0], { event: 'missed', data: '{"records":11}' })
  t.equal(rules(late.messages)[1], '13')
  for (const id of ['another-run', 'ab-1', '', first.messages[0]?.id?.replace(/\d+$/, '99999') ?? '']) {
    const stranger = await open(t, url, { 'last-event-id': id })
    await recordAll(app, 1, 1)
    const expected = id === '' ? 1 : 1_002
    await waitFor(() => stranger.messages.length === expected || stranger.messages.length, 2_000, 'the buffer')
    t.match(stranger.messages[0], id === '' ? { event: 'record' } : { event: 'missed', data: '{"records":null}' }, id)
  }
})

t.test('a client that does not read costs no memory and delays no other client', async t => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  const { app, url } = await buildStream(t)
  const stuck = await open(t, url)
  stuck.response.pause()
  const reading = await open(t, url)
  const text = 'x'.repeat(1_800)
  const large = {
    diff: { a: text },
    warning: text,
    where: { remote_address: null, user_agent: text, mcp_client: null, request_id: null, trace_id: null },
  }
  const total = 4_500
  for (let sent = 0; sent < total; sent += 500) {
    await Promise.all(
      Array.from({ length: 500 }, (_, index) => app.audit.record(entry({ rule: `${sent + index}`, ...large })))
    )
    await waitFor(
      () => reading.messages.length === sent + 500 || reading.messages.length,
      10_000,
      'the records at the other client'
    )
  }
  stuck.response.resume()
  await waitFor(() => stuck.messages.some(({ event }) => event === 'missed') || stuck.messages.length, 5_000, 'the gap')
  await waitFor(() => rules(stuck.messages).at(-1) === `${total - 1}` || stuck.messages.length, 5_000, 'the end')
  const missed = stuck.messages.filter(({ event }) => event === 'missed').reduce(
    (sum, { data }) => sum + JSON.parse(data).records,
    0
  )
  t.equal(
    stuck.messages.filter(({ event }) => event === 'record').length + missed,
    total + 1,
    'every record is received or counted, that of the other client included'
  )
  t.ok(missed > 0)
  stuck.response.pause()
  for (let sent = 0; sent < 2_500; sent += 500) {
    await Promise.all(Array.from({ length: 500 }, () => app.audit.record(entry(large))))
  }
  for (let checks = 0; checks < 10; checks++) {
    mock.timers.tick(5_000)
    await new Promise(resolve => setImmediate(resolve))
  }
  const connections = promisify(app.server.getConnections.bind(app.server))
  await waitFor(
    async () => await connections() === 1,
    5_000,
    'a client that reads nothing for half a minute is disconnected'
  )
  t.notOk(reading.ended)
})

t.test('a heartbeat keeps an idle stream open, and a close ends it', async t => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  const { app, url } = await buildStream(t)
  const client = await open(t, url)
  mock.timers.tick(15_000)
  await waitFor(() => client.heartbeats === 1, 2_000, 'a heartbeat')
  await app.close()
  await waitFor(() => client.ended, 2_000, 'the end')
})

t.test('a client that does not accept events gets 406', async t => {
  const { url } = await buildStream(t)
  t.equal((await open(t, url, { accept: 'application/json' })).response.statusCode, 406)
})
