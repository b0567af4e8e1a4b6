import fc from 'fast-check'
import t from 'tap'
import { compare } from '../../../kafscale/mirror.ts'
import { paginate, type RowPosition } from '../../../tools/shared/paging.ts'
import { holds, same } from '../../support/property.ts'

const refused = { code: 'INVALID_CURSOR' }
const byName = (name: string): RowPosition => [name]

/** Follows the cursors to the last page. `change` alters the rows between two pages. */
function collect (
  rows: string[],
  limit: number,
  change: (rows: string[], page: number) => string[] = rows => rows
): string[] {
  const seen: string[] = []
  let cursor: string | undefined
  for (let page = 0; ; page++) {
    const result = paginate('list', { limit, ...(cursor && { cursor }) }, rows.toSorted(compare), byName)
    seen.push(...result.rows)
    if (!result.next_cursor) return seen
    cursor = result.next_cursor
    rows = change(rows, page)
  }
}

const names = fc.uniqueArray(fc.string({ unit: 'grapheme', minLength: 1 }), { maxLength: 40 })
const limit = fc.integer({ min: 1, max: 12 })

t.test('the pages together are the whole list, in order', async t => {
  holds(
    t,
    'whatever the limit',
    fc.tuple(names, limit),
    ([rows, limit]) => same(collect(rows, limit), rows.toSorted(compare))
  )
})

t.test('while the list changes, no row that stays in it is skipped or repeated', async t => {
  holds(t, 'rows come and go', fc.tuple(names, names, names, limit), ([steady, leaving, coming, limit]) => {
    const kept = new Set(steady)
    const seen = collect([...new Set([...steady, ...leaving])], limit, (rows, page) =>
      page % 2 === 0 ? [...new Set([...rows, ...coming])] : rows.filter(name => kept.has(name)))
    return same(seen.filter(name => kept.has(name)), steady.toSorted(compare)) && new Set(seen).size === seen.length
  })
})

t.test('numbers in positions are ordered by value', async t => {
  const rows = Array.from({ length: 25 }, (_, partition) => partition)
  const position = (partition: number): RowPosition => ['orders', partition]
  const first = paginate('list', { limit: 11 }, rows, position)
  t.strictSame(paginate('list', { limit: 3, cursor: first.next_cursor as string }, rows, position).rows, [11, 12, 13])
})

t.test('total counts all rows, and the last page has no cursor', async t => {
  const page = paginate('list', { limit: 3 }, ['a', 'b', 'c'], byName)
  t.strictSame(page, { rows: ['a', 'b', 'c'], total: 3 })
  t.strictSame(paginate('list', {}, [], byName), { rows: [], total: 0 })
})

t.test('a cursor outlives its row, works with another limit, and treats an empty list as absent', async t => {
  const { next_cursor: cursor = '' } = paginate('list', { limit: 1, topics: [] }, ['a', 'b', 'c'], byName)
  t.strictSame(paginate('list', { limit: 2, cursor }, ['b', 'c'], byName).rows, ['b', 'c'])
})

t.test('a malformed cursor, or one of another query, is rejected', async t => {
  const rows = ['a', 'b', 'c']
  const { next_cursor: cursor = '' } = paginate('list', { limit: 1, pattern: '*' }, rows, byName)
  t.strictSame(paginate('list', { pattern: '*', cursor }, rows, byName).rows, ['b', 'c'])
  t.throws(() => paginate('other', { pattern: '*', cursor }, rows, byName), refused, 'another tool')
  t.throws(() => paginate('list', { pattern: 'a*', cursor }, rows, byName), refused, 'other arguments')
  t.throws(() => paginate('list', { cursor }, rows, byName), refused, 'fewer arguments')

  const forge = (content: unknown) => Buffer.from(JSON.stringify(content)).toString('base64url')
  const [digest] = JSON.parse(Buffer.from(cursor, 'base64url').toString())
  for (
    const malformed of [
      '',
      '!',
      'abc',
      cursor.slice(0, -3),
      forge(null),
      forge({}),
      forge([]),
      forge([digest]),
      forge([digest, 5]),
      forge([digest, null]),
      forge([digest, ['a']]),
    ]
  ) {
    t.throws(
      () => paginate('list', { pattern: '*', cursor: malformed }, rows, byName),
      refused,
      JSON.stringify(malformed)
    )
  }
  t.throws(() => paginate('list', { pattern: '*', cursor }, rows, name => [name, 0]), refused, 'a position too short')
})
