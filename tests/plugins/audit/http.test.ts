/** Sinks that send records to a collector, over HTTP on loopback. */
import { createPrivateKey } from 'node:crypto'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import fc from 'fast-check'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { type ChainRecord, gapOf, parseRecord } from '../../../plugins/audit/chain.ts'
import type { Sink } from '../../../plugins/audit/sinks/sink.ts'
import { verifyFiles, type VerifyOptions } from '../../../plugins/audit/verify/index.ts'
import { body, buildAudit, collectorSink, entry, signingKey, startAuditCollector } from '../../support/audit.ts'
import { authority } from '../../support/authority.ts'
import { waitFor } from '../../support/wait-for.ts'

const BOUND_MS = 10_000
const BAD = 'a record that the collector does not take'

const recordsIn = (text: string) =>
  text.split('\n').slice(0, -1).map(line => parseRecord(Buffer.from(line)) as ChainRecord)
const rulesIn = (text: string) => recordsIn(text).flatMap(({ rule }) => rule === undefined ? [] : [String(rule)])
const gapsIn = (text: string) => recordsIn(text).filter(({ event }) => event === 'gap').map(gapOf)

/** The verdict on what a collector has stored, in order. */
async function verdictOn (t: Test, text: string, options: VerifyOptions = {}) {
  const folder = mkdtempSync(join(t.testdirName, 'collected-'))
  const path = join(folder, 'collected.jsonl')
  writeFileSync(path, text)
  const verdict = await verifyFiles([path], options)
  rmSync(folder, { recursive: true })
  return { ...verdict, findings: verdict.findings.map(finding => finding.replaceAll(`${folder}/`, '')) }
}

/** A collector that stores each batch for which `statusOf` returns 2xx, the default. */
async function collector (t: Test, statusOf: (batch: string, request: IncomingMessage) => number = () => 200) {
  t.testdir({})
  const seen = { stored: '', statuses: [] as number[], batches: [] as string[] }
  const url = await startAuditCollector(t, (request, batch, response) => {
    const status = statusOf(batch, request)
    seen.statuses.push(status)
    seen.batches.push(batch)
    if (status < 300) seen.stored += batch
    response.writeHead(status).end()
  })
  return { url, seen }
}

const write = (sink: Sink, rules: readonly string[]) =>
  Promise.allSettled(rules.map(rule => sink.write(body({ rule }), false)))
const numbered = (count: number, from = 0) => Array.from({ length: count }, (_, index) => `rule ${from + index}`)

/** A logger whose lines can be read. */
function logged () {
  const lines: Record<string, unknown>[] = []
  const { log } = Fastify({ logger: { level: 'info', stream: { write: line => lines.push(JSON.parse(line)) } } })
  return { log, lines, text: () => JSON.stringify(lines) }
}

for (const status of [400, 402, 405, 409, 410, 413, 415, 422, 431, 451]) {
  t.test(`a record that gets ${status} becomes a gap, and all others arrive`, async t => {
    const { url, seen } = await collector(t, batch => batch.includes(BAD) ? status : 200)
    const { log, lines } = logged()
    const sink = collectorSink(url, { log })
    const rules = [...numbered(20), BAD, ...numbered(20, 20)]
    const settled = await write(sink, rules)
    t.strictSame(settled.map(({ status }) => status === 'rejected'), rules.map(rule => rule === BAD))
    t.strictSame(rulesIn(seen.stored), numbered(40), 'in order')
    const reason = `the collector answered ${status}`
    t.strictSame(gapsIn(seen.stored), [{ records: 1, reason }])
    t.match(sink.state, { state: 'ok', written: 40, missed: 1, gaps: 1, answers: { [status]: Number } })
    t.match(lines, [
      { level: 50, err: { message: reason }, msg: 'an audit sink is not accepting records' },
      { level: 40, missed: 1, msg: 'an audit sink is accepting records again' },
    ])
    t.equal(lines.length, 2)
    await sink.close()
    const { exitCode, findings } = await verdictOn(t, seen.stored)
    t.equal(exitCode, 0, findings.join('\n'))
    t.match(findings.join('\n'), `1 records are missing, as the service itself recorded: "${reason}"`)
  })
}

t.test('a refused record has its gap at once, and its status until another one is accepted', async t => {
  const { url, seen } = await collector(t, batch => batch.includes(BAD) ? 422 : 200)
  const sink = collectorSink(url)
  await write(sink, ['first'])
  await t.rejects(sink.write(body({ rule: BAD }), false), { message: 'the collector answered 422' })
  await waitFor(() => gapsIn(seen.stored).length === 1 || seen.stored, BOUND_MS, 'a gap')
  t.match(sink.state, { state: 'failed', reason: 'the collector answered 422', missed: 1, gaps: 1 })
  await write(sink, ['second'])
  t.match(sink.state, { state: 'ok' })
  await sink.close()
  t.equal((await verdictOn(t, seen.stored)).exitCode, 0)
})

t.test('a collector that refuses every record for good gets gaps instead, and nothing is blocked', async t => {
  const { url, seen } = await collector(t, batch => batch.includes('"tool_call"') ? 400 : 200)
  const sink = collectorSink(url)
  const settled = await write(sink, numbered(30))
  t.ok(settled.every(({ status }) => status === 'rejected'))
  await sink.close()
  t.equal(gapsIn(seen.stored).reduce((sum, { records }) => sum + (records ?? NaN), 0), 30)
  t.equal((await verdictOn(t, seen.stored)).exitCode, 0)
})

for (const status of [300, 307, 401, 403, 404, 407, 408, 425, 429, 500, 501, 502, 503, 504, 507, 599]) {
  t.test(`a batch that gets ${status} is sent again until it is accepted`, async t => {
    let failing = true
    const { url, seen } = await collector(t, () => failing ? status : 200)
    const { log, lines } = logged()
    const sink = collectorSink(url, { log })
    const written = write(sink, numbered(30))
    await waitFor(() => seen.statuses.length >= 30 || seen.statuses, BOUND_MS, 'attempts')
    const hint = status === 401 || status === 403
      ? ': is the header that it requires in KAFSCALE_MCP_AUDIT_COLLECTOR_HEADERS_FILE?'
      : ''
    const reason = `the collector answered ${status}${hint}`
    t.match(sink.state, { state: 'failed', reason, missed: 0 })
    t.equal(lines.length, 1, 'logged once, not once per attempt')
    t.match(lines, [{ level: 50, err: { message: reason }, msg: 'an audit sink is not accepting records' }])
    failing = false
    await written
    t.match(sink.state, { state: 'ok', written: 30, missed: 0, gaps: 0, answers: { 200: Number, [status]: Number } })
    t.match(lines[1], { level: 40, msg: 'an audit sink is accepting records again' })
    await sink.close()
    t.strictSame(rulesIn(seen.stored), numbered(30))
    t.strictSame((await verdictOn(t, seen.stored)).exitCode, 0)
  })
}

t.test('each change of the answer is logged once', async t => {
  let status = 503
  const { url, seen } = await collector(t, () => status)
  const { log, lines } = logged()
  const sink = collectorSink(url, { log })
  const written = write(sink, ['first'])
  await waitFor(() => seen.statuses.length >= 5 || seen.statuses, BOUND_MS, 'answers')
  status = 401
  await waitFor(() => seen.statuses.length >= 15 || seen.statuses, BOUND_MS, 'other answers')
  status = 200
  await written
  t.match(lines.map(({ err, msg }) => (err as Error | undefined)?.message ?? msg), [
    'the collector answered 503',
    /^the collector answered 401/,
    'an audit sink is accepting records again',
  ])
  await sink.close()
})

t.test('Retry-After is honored', async t => {
  t.testdir({})
  const atMs: number[] = []
  const inTwoSeconds = () => new Date(Date.now() + 2_000).toUTCString()
  const url = await startAuditCollector(t, (_, __, response) => {
    atMs.push(performance.now())
    if (atMs.length === 1) response.writeHead(503, { 'retry-after': '1' }).end()
    else if (atMs.length === 2) response.writeHead(429, { 'retry-after': inTwoSeconds() }).end()
    else response.writeHead(200).end()
  })
  const sink = collectorSink(url)
  await write(sink, ['first'])
  const [first = NaN, second = NaN, third = NaN] = atMs
  t.ok(second - first >= 990, 'a number of seconds')
  t.ok(third - second >= 500, 'a date')
  await sink.close()
})

t.test('without an answer, a batch is sent again; the copies that arrive do not alter the log', async t => {
  t.testdir({})
  let stored = ''
  let lost = 3
  const url = await startAuditCollector(t, (request, batch, response) => {
    stored += batch
    if (lost-- > 0) request.socket.destroy()
    else response.writeHead(200).end()
  })
  const sink = collectorSink(url)
  const settled = await write(sink, numbered(20))
  t.ok(settled.every(({ status }) => status === 'fulfilled'))
  t.equal(sink.state.missed, 0)
  await sink.close()
  t.ok(rulesIn(stored).length > 20)
  t.strictSame([...new Set(rulesIn(stored))], numbered(20))
  const { exitCode, findings } = await verdictOn(t, stored)
  t.equal(exitCode, 0, findings.join('\n'))
  t.match(findings.join('\n'), /\d+ lines are exact copies of earlier ones/)
})

t.test('a collector that cannot be reached is told from one that refuses', async t => {
  const { url, seen } = await collector(t)
  const { port } = new URL(url)
  const sink = collectorSink(url.replace(port, '1'))
  void write(sink, ['first'])
  await waitFor(
    () => sink.state.reason === 'the collector cannot be reached: ECONNREFUSED' || sink.state,
    BOUND_MS,
    'a reason'
  )
  t.match(sink.state, { state: 'failed', answers: { none: Number } })
  t.notMatch(sink.state.reason, port)
  t.strictSame(seen.statuses, [])
  await sink.close()
})

/** A reverse proxy that judges a request by its length before it reads the body, as nginx does. */
async function limitingProxy (t: Test, maxBytes: number) {
  t.testdir({})
  const seen = { stored: '', down: false, sizes: [] as number[], refused: 0 }
  const server = createServer(async (request: IncomingMessage, response: ServerResponse) => {
    const bytes = Number(request.headers['content-length'])
    if (bytes > maxBytes) {
      seen.refused++
      response.writeHead(413, { connection: 'close' }).end()
      request.resume()
      return
    }
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    if (seen.down) return response.writeHead(502).end()
    seen.sizes.push(bytes)
    seen.stored += Buffer.concat(chunks).toString()
    response.writeHead(204).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.closeAllConnections(); server.close() })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/audit`, seen }
}

/** Records that take about four times as many bytes as characters. */
const wide = (count: number, from = 0) => numbered(count, from).map(rule => `${rule} ${'\u{1F600}'.repeat(600)}`)

t.test('after an outage, the backlog passes a proxy with a limit of 1 MiB, in order', async t => {
  const { url, seen } = await limitingProxy(t, 1_048_576)
  const sink = collectorSink(url)
  seen.down = true
  const written = write(sink, wide(1_500))
  await waitFor(() => sink.state.state === 'failed' || sink.state, BOUND_MS, 'an outage')
  seen.down = false
  await written
  t.strictSame(rulesIn(seen.stored), wide(1_500))
  t.equal(seen.refused, 0, 'no batch is larger than the limit')
  const largest = Math.max(...seen.sizes)
  t.ok(largest <= 524_288 && largest > 500_000, `up to ${largest} bytes`)
  t.ok(seen.sizes.length < 30, `${seen.sizes.length} batches`)
  t.match(sink.state, { state: 'ok', written: 1_500, missed: 0 })
  await sink.close()
  t.equal((await verdictOn(t, seen.stored)).exitCode, 0)
})

t.test('a proxy with a lower limit gets smaller batches, without a setting', async t => {
  const { url, seen } = await limitingProxy(t, 20_000)
  const { log, lines } = logged()
  const sink = collectorSink(url, { log })
  await write(sink, wide(300))
  t.strictSame(rulesIn(seen.stored), wide(300))
  t.ok(seen.refused > 0)
  t.match(sink.state, { state: 'ok', missed: 0, gaps: 0, answers: { 413: seen.refused } })
  t.strictSame(lines, [])
  await sink.close()
  t.equal((await verdictOn(t, seen.stored)).exitCode, 0)
})

t.test('no batch is larger than the setting, its last record and its line ends included', async t => {
  const { url, seen } = await collector(t)
  const sink = collectorSink(url, { maxBytes: 32_768 })
  await write(sink, wide(200))
  const sizes = seen.batches.map(batch => Buffer.byteLength(batch))
  t.ok(sizes.every(size => size <= 32_768), sizes.join(' '))
  t.ok(sizes.some(size => size > 28_000), sizes.join(' '))
  t.ok(seen.batches.every(batch => batch.endsWith('}\n')))
  await sink.close()
  t.equal((await verdictOn(t, seen.stored)).exitCode, 0)
})

for (const [answer, reason] of [
  [403, 'the collector answered 403, for this record only'],
  [500, 'the collector answered 500, for this record only'],
  [0, 'the connection to the collector failed: ECONNRESET, for this record only'],
] as const) {
  t.test(`a record that always gets ${answer || 'no answer'} blocks the others for a while only`, async t => {
    t.testdir({})
    let stored = ''
    let attempts = 0
    const url = await startAuditCollector(t, (request, batch, response) => {
      const isBad = batch.includes(BAD)
      if (isBad) attempts++
      else stored += batch
      if (isBad && answer === 0) request.socket.destroy()
      else response.writeHead(isBad ? answer : 200).end()
    })
    const sink = collectorSink(url)
    const rules = [...numbered(20), BAD, ...numbered(20, 20)]
    const settled = await write(sink, rules)
    t.strictSame(settled.map(({ status }) => status === 'rejected'), rules.map(rule => rule === BAD))
    t.match(sink.state, { state: 'ok', written: 40, missed: 1, gaps: 1 })
    await sink.close()
    t.strictSame([...new Set(rulesIn(stored))], numbered(40))
    t.strictSame(gapsIn(stored), [{ records: 1, reason }])
    t.ok(attempts >= 15, `${attempts} attempts`)
    const { exitCode, findings } = await verdictOn(t, stored)
    t.equal(exitCode, 0, findings.join('\n'))
  })
}

t.test('a sink that closes during an outage logs what is left, and nothing else', async t => {
  const { url } = await collector(t, () => 503)
  const { log, lines } = logged()
  const sink = collectorSink(url, { log })
  const written = write(sink, numbered(3))
  await waitFor(() => sink.state.state === 'failed' || sink.state, BOUND_MS, 'an outage')
  await sink.close()
  await written
  t.match(lines, [
    { err: { message: 'the collector answered 503' }, msg: 'an audit sink is not accepting records' },
    { records: 3, msg: 'an audit sink was closed without these records' },
  ])
  t.equal(lines.length, 2)
})

t.test('an outage is no reason to give up a record, however long it is', async t => {
  let failing = false
  const { url, seen } = await collector(t, () => failing ? 500 : 200)
  const sink = collectorSink(url)
  await write(sink, ['first'])
  failing = true
  const written = write(sink, ['second', 'third'])
  await waitFor(() => seen.statuses.length >= 100 || seen.statuses.length, BOUND_MS, 'attempts')
  failing = false
  t.ok((await written).every(({ status }) => status === 'fulfilled'))
  await sink.close()
  t.equal(sink.state.missed, 0)
  t.equal((await verdictOn(t, seen.stored)).exitCode, 0)
})

t.test('a collector that refuses even the header loses nothing', async t => {
  let status = 405
  const { url, seen } = await collector(t, () => status)
  const sink = collectorSink(url)
  const written = write(sink, numbered(10))
  await waitFor(() => sink.state.reason === 'the collector answered 405' || sink.state, BOUND_MS, 'a reason')
  status = 200
  t.ok((await written).every(({ status }) => status === 'fulfilled'))
  t.strictSame(rulesIn(seen.stored), numbered(10))
  t.equal(sink.state.missed, 0)
  await sink.close()
})

t.test('in fail mode closed, only the call whose record is refused for good is refused', async t => {
  const { url, seen } = await collector(t, batch => batch.includes(BAD) ? 400 : 200)
  const app = await buildAudit(t, { auditSinks: [{ kind: 'http', url }], auditFailMode: 'closed' })
  await app.audit.record(entry())
  await t.rejects(app.audit.record(entry({ rule: BAD })), { code: 'AUDIT_UNAVAILABLE' })
  t.match(app.audit.state, { state: 'unavailable', sinks: [{ reason: 'the collector answered 400' }] })
  await t.resolves(app.audit.record(entry()))
  await t.resolves(app.audit.recordDurably(entry()))
  t.match(app.audit.state, { state: 'ok', lost: 1, sinks: [{ missed: 1, gaps: 1, answers: { 400: Number } }] })
  await app.close()
  t.equal((await verdictOn(t, seen.stored)).exitCode, 0)
})

t.test('headers come from a file, are read again when it changes, and are in no log', async t => {
  const dir = t.testdir({
    headers: '# of the collector\r\nAuthorization: Bearer first-secret\r\n\r\nX-Tenant : a b\r\n',
  })
  let expected = 'Bearer first-secret'
  let stored = ''
  const url = await startAuditCollector(t, ({ headers }, batch, response) => {
    const isKnown = headers.authorization === expected && headers['x-tenant'] === 'a b'
    if (isKnown) stored += batch
    response.writeHead(isKnown ? 200 : 401).end()
  })
  const { log, text } = logged()
  const file = join(dir, 'headers')
  const sink = collectorSink(url, { files: { headersFile: file }, log })
  await write(sink, ['first'])
  expected = 'Bearer second-secret'
  const written = write(sink, ['second'])
  await waitFor(() => /answered 401/.test(sink.state.reason ?? '') || sink.state, BOUND_MS, 'a refusal')
  writeFileSync(file, 'Bearer second-secret\n')
  await waitFor(() => /are invalid: the old ones stay in use/.test(text()) || text(), BOUND_MS, 'a complaint')
  writeFileSync(file, 'authorization: Bearer second-secret\nx-tenant: a b')
  await written
  t.strictSame(rulesIn(stored), ['first', 'second'])
  t.notMatch(text(), 'secret')
  t.notMatch(sink.state, 'secret')
  await sink.close()
})

t.test('a CA and a client certificate of its own, which can be renewed', async t => {
  const dir = t.testdir({})
  const ca = authority(dir, 'ca')
  const server = ca.issue('/CN=collector', 'server')
  const [first, second] = [ca.issue('/CN=agent-1', 'agent-1'), ca.issue('/CN=agent-2', 'agent-2')]
  const clients: unknown[] = []
  const url = await startAuditCollector(t, ({ socket }, _, response) => {
    clients.push((socket as TLSSocket).getPeerCertificate().subject.CN)
    response.writeHead(200).end()
  }, {
    key: readFileSync(server.key),
    cert: readFileSync(server.cert),
    ca: readFileSync(ca.ca),
    requestCert: true,
    rejectUnauthorized: true,
  })

  const stranger = collectorSink(url)
  void write(stranger, ['first'])
  await waitFor(
    () => /is the CA of its certificate in KAFSCALE_MCP_AUDIT_COLLECTOR_CA_FILE\?$/.test(stranger.state.reason ?? '') ||
      stranger.state,
    BOUND_MS,
    'an unknown CA'
  )
  const misnamed = collectorSink(url.replace('127.0.0.1', 'localhost'), { files: { caFile: ca.ca } })
  void write(misnamed, ['first'])
  await waitFor(
    () => /host in KAFSCALE_MCP_AUDIT_SINKS one that its certificate names\?$/.test(misnamed.state.reason ?? '') ||
      misnamed.state,
    BOUND_MS,
    'another name'
  )
  const unknown = collectorSink(url, { files: { caFile: ca.ca } })
  void write(unknown, ['first'])
  await waitFor(
    () => /trust the certificate in KAFSCALE_MCP_AUDIT_COLLECTOR_CERT_FILE\?$/.test(unknown.state.reason ?? '') ||
      unknown.state,
    BOUND_MS,
    'a missing certificate'
  )
  await Promise.all([stranger.close(), misnamed.close(), unknown.close()])
  t.strictSame(clients, [])

  const [certFile, keyFile] = [join(dir, 'client.pem'), join(dir, 'client.key')]
  copyFileSync(first.cert, certFile)
  copyFileSync(first.key, keyFile)
  const sink = collectorSink(url, { files: { caFile: ca.ca, certFile, keyFile } })
  await write(sink, ['first'])
  copyFileSync(second.cert, certFile)
  copyFileSync(second.key, keyFile)
  await waitFor(async () => {
    await write(sink, ['another'])
    return clients.at(-1) === 'agent-2' || clients.at(-1)
  }, BOUND_MS, 'the new certificate')
  t.equal(clients[0], 'agent-1')
  t.equal(sink.state.missed, 0)
  await sink.close()
})

/** What a collector does with a batch: `lost` stores it and does not answer, `reset` does neither. */
const ANSWERS = [
  200, 204, 302, 400, 401, 403, 404, 407, 408, 409, 413, 422, 429, 500, 502, 503, 'reset', 'lost',
] as const

t.test('whatever a collector answers, what it stores is intact, and every record is in it or in a gap', async t => {
  const dir = t.testdir({})
  const { keyFile, publicKey } = signingKey(dir)
  const key = createPrivateKey(readFileSync(keyFile, 'utf8'))
  let answer: (batch: string, request: IncomingMessage, response: ServerResponse) => void = () => {}
  const url = await startAuditCollector(t, (request, batch, response) => answer(batch, request, response))

  const runs = fc.asyncProperty(
    fc.array(fc.constantFrom(...ANSWERS), { maxLength: 40 }),
    fc.array(fc.record({ size: fc.nat(3_000), bad: fc.nat(9).map(n => n === 0) }), { minLength: 1, maxLength: 60 }),
    fc.integer({ min: 1, max: 20 }),
    fc.integer({ min: 6_000, max: 100_000 }),
    async (answers, records, together, limit) => {
      let stored = ''
      const known = new Set<string>()
      const pattern = [...answers]
      answer = (batch, request, response) => {
        const lines = batch.split('\n').slice(0, -1)
        const isKnown = lines.every(line => known.has(line))
        const status = isKnown ? 200 : batch.includes(BAD) ? 400 : batch.length > limit ? 413 : pattern.shift() ?? 200
        if (status === 200 || status === 204 || status === 'lost') {
          stored += batch
          for (const line of lines) known.add(line)
        }
        if (typeof status === 'number') response.writeHead(status).end()
        else request.socket.destroy()
      }
      const sink = collectorSink(url, { key })
      const rules = records.map(({ size, bad }, index) => `${index} ${'x'.repeat(size)} ${bad ? BAD : ''}`)
      const settled: PromiseSettledResult<string>[] = []
      for (let from = 0; from < rules.length; from += together) {
        settled.push(...await write(sink, rules.slice(from, from + together)))
      }
      await sink.close()

      const { exitCode, findings } = await verdictOn(t, stored, { publicKeys: [publicKey] })
      if (exitCode !== 0) throw new Error(findings.join('\n'))
      const received = [...new Set(rulesIn(stored))]
      const accepted = rules.filter((_, index) => settled[index]?.status === 'fulfilled')
      const gaps = gapsIn([...new Set(stored.split('\n'))].join('\n'))
      const missing = gaps.reduce((sum, { records }) => sum + (records ?? NaN), 0)
      fc.pre(true)
      const { written, missed } = sink.state
      if (JSON.stringify(received) !== JSON.stringify(accepted)) throw new Error(`received: ${received}`)
      if (received.length + missing !== rules.length) throw new Error(`${received.length} and ${missing} in gaps`)
      if (written !== received.length || missed !== missing) throw new Error(`counted: ${written}, ${missed}`)
      if (!gaps.every(({ reason }) => /^the (?:collector answered \d{3}|connection to the)/.test(reason))) {
        throw new Error(gaps.map(({ reason }) => reason).join())
      }
    }
  )
  await t.resolves(fc.assert(runs, { numRuns: 60 }), 'any pattern of answers')
})
