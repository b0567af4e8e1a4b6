/** The table of `audit show`. */
import fc from 'fast-check'
import t from 'tap'
import { BEGINNING, type Body, chain } from '../../../plugins/audit/chain.ts'
import type { LogRecord } from '../../../plugins/audit/record.ts'
import { Table } from '../../../plugins/audit/show.ts'
import { body, entry } from '../../support/audit.ts'
import { holds, same } from '../../support/property.ts'

/** The cells of the row for a record. Blanks in quotes are part of a cell. */
function rowOf (given: Body): string[] {
  const table = new Table(time => time)
  const record = JSON.parse(chain(BEGINNING, given).line) as LogRecord
  const [, row = '', ...more] = `${table.add(record)}${table.rest()}`.trimEnd().split('\n')
  t.strictSame(more, [])
  return (row.match(/(?:"(?:[^"\\]|\\.)*"|\{.*\}|[^ "]| (?! ))+/g) ?? []).map(cell => cell.trim())
}

const named = (text: string): Body => {
  const { who, what } = entry()
  return body({
    who: { ...who!, subject: text },
    what: { ...what!, tool: text, resources: { topics: [text, 'orders'], groups: [text] } },
    rule: text,
  })
}

t.test('a plain name is shown as it is, and a blank in a name does not begin another cell', async t => {
  t.match(rowOf(named('orders-eu_1.é')).slice(3), [
    'orders-eu_1.é', 'orders-eu_1.é', 'ok', '-', '1.5', 'orders-eu_1.é', 'orders-eu_1.é orders orders-eu_1.é',
  ])
  const forged = 'alice  list_topics  ok  -  1.5'
  t.match(rowOf(named(forged)).slice(3), [`"${forged}"`, `"${forged}"`, 'ok', '-', '1.5', `"${forged}"`])
  t.match(rowOf(named('orders payments')).at(-1), '"orders payments" orders "orders payments"', 'one name, not two')
})

t.test('different texts look different', async t => {
  const shown = ['\u200b', '\\u200b', '"\\u200b"', '-', '', ' ', '\u00a0', '{"bytes":1}', 'a', '"a"', 'a ']
    .map(text => rowOf(named(text))[3])
  t.equal(new Set(shown).size, shown.length, shown.join(' '))
  t.strictSame(shown.slice(0, 6), ['"\\u200b"', '"\\\\u200b"', '"\\"\\\\u200b\\""', '"-"', '""', '" "'])
  const [, , , nobody] = rowOf(body({ who: null }))
  t.equal(nobody, '-', 'no caller')
  const digest = { bytes: 3_000, sha256: 'ab'.repeat(32) }
  t.equal(rowOf({ ...body(), who: { subject: digest } })[3], JSON.stringify(digest), 'a value that was too large')
})

t.test('whatever a record contains, its row has its cells, and they have its texts', async t => {
  const likeTable = fc.string({ unit: fc.constantFrom(' ', '-', '"', '\\', 'a', '×', '\n') })
  const text = fc.oneof(fc.string({ unit: 'binary' }), likeTable)
  holds(t, 'cells', text, text => {
    const row = rowOf(named(text.toWellFormed()))
    const valueOf = (cell = '') => cell.startsWith('"') ? JSON.parse(cell) : cell
    return row.length === 10 && same([row[3], row[4], row[8]].map(valueOf), Array(3).fill(text.toWellFormed()))
  })
})

t.test('a checkpoint that covers records which it found is marked, and no event can pass for it', async t => {
  const checkpoint = { event: 'checkpoint', time: body().time, checkpoint: { closing: false }, where: { replica: 'a' } }
  t.equal(rowOf(checkpoint)[2], 'checkpoint')
  t.equal(rowOf({ ...checkpoint, found: true })[2], 'checkpoint (found)')
  t.equal(rowOf({ ...checkpoint, event: 'checkpoint (found)' })[2], '"checkpoint (found)"')
  t.equal(rowOf(body({ event: 'authentication_failure', count: 3 }))[2], 'authentication_failure ×3')
  t.equal(rowOf({ ...body(), event: 'tool_call ×3' })[2], '"tool_call ×3"')
})
