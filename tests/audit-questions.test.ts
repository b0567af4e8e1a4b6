/** Runs the answers to reviewers' questions in docs/audit.md. Of LogQL, only the form is checked. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { BEGINNING, type Body, chain, header } from '../plugins/audit/chain.ts'
import { type AuditEntry, ownEntry } from '../plugins/audit/record.ts'
import { entry } from './support/audit.ts'
import { readPage } from './support/pages.ts'
import { exists } from './support/programs.ts'
import { temporaryFolder } from './support/run.ts'

const page = readPage('audit.md')
const dir = temporaryFolder(t)

const { who, what } = entry()
const call = (more: Partial<AuditEntry>) => entry({ who: { ...who!, subject: 'bob' }, ...more })
const named = (topics: unknown) => call({ what: { ...what!, resources: { topics } as { topics: string[] } } })
const ID = 'chg-5f0c1a2b3c4d5e6f'
const step = (event: AuditEntry['event'], id: string) =>
  call({ event, change_id: id, what: { ...what!, arguments: {}, resources: {} } })
const records: [time: string, body: Body][] = [
  ['07-19T23:59', { ...header(1, BEGINNING) }], // 1
  ['07-19T23:59', { ...named(['orders']) }],
  ['07-20T00:00', { ...named(['payments', 'orders']) }],
  ['07-21T09:00', { ...named(['orders-eu']) }],
  ['07-21T09:01', { ...named({ bytes: 3_000, sha256: 'ab'.repeat(32) }) }], // 5
  ['07-22T11:54', { ...call({ what: { ...what!, resources: {} }, who: { ...who!, method: 'token' } }) }],
  ['07-22T11:55', { ...call({ what: null, who: { ...who!, method: 'none' }, outcome: 'denied' }) }],
  ['07-22T12:04', { ...ownEntry('policy_reload', null) }],
  ['07-22T12:05', { ...ownEntry('start', null) }],
  ['07-27T00:00', { ...named(['orders']), outcome: 'denied' }], // 10
  ['07-28T12:00', { ...step('plan', ID) }],
  ['07-28T12:00', { ...call({ what: { ...what!, arguments: { change_id: ID }, resources: {} } }) }],
  ['07-28T12:01', { ...step('break_glass', 'chg-0') }],
  ['07-28T12:01', { ...step('outcome', ID) }],
]
const expected: Record<string, number[]> = {
  topic: [3, 5],
  denied: [7],
  unnamed: [6, 7],
  policy: [8, 9],
  change: [11, 12, 14],
  glass: [13],
  around: [7, 8],
}

let end = BEGINNING
const lines = records.map(([time, body]) => {
  const chained = chain(end, { ...body, time: `2026-${time}:00.000Z` })
  end = chained.end
  return `${chained.line}\n`
})
writeFileSync(join(dir, 'audit.jsonl.2026-07-22.000001'), lines.slice(0, 7).join(''))
writeFileSync(join(dir, 'audit.jsonl'), lines.slice(7).join(''))

async function sequences (kind: string): Promise<number[]> {
  const printed = await page.run(page.block(kind), { cwd: dir })
  const found = printed.join('').trim().split('\n').map(line => JSON.parse(line).sequence)
  return found.sort((a, b) => a - b)
}

t.test('audit show', async t => {
  for (const [question, numbers] of Object.entries(expected)) {
    t.strictSame(await sequences(`sh show ${question}`), numbers, question)
  }
})

t.test('jq', { skip: exists('jq') ? false : 'there is no jq: npm run test:setup -- --all' }, async t => {
  for (const [question, numbers] of Object.entries(expected)) {
    t.strictSame(await sequences(`sh jq ${question}`), numbers, question)
  }
})

t.test('LogQL: a selector, members by their path, and filters on what they are called', async t => {
  const queries = page.ofKind('logql')
  t.equal(queries.length, Object.keys(expected).length)
  for (const query of queries) {
    const [selector = '', json = '', ...filters] = query.trim().split(/\s+\| (?=\w)/)
    t.match(selector, /^\{app="[\w-]+"\}$/)
    const members = [...json.matchAll(/(\w+)="[a-z_]+(?:\.[a-z_]+)*"/g)].map(([, name]) => name)
    t.equal(json.replaceAll(/\w+="[\w.]+"(?:, )?/g, ''), 'json ')
    t.ok(filters.length > 0)
    for (const filter of filters) {
      t.match(filter, /^\w+ (?:=|=~) (?:"[^"]*"|`[^`]*`)$/)
      t.ok(members.includes(filter.split(' ')[0]))
    }
  }
})
