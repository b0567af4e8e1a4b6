import { createHash } from 'node:crypto'
import { InvalidCursor } from '../../errors.ts'
import { compare } from '../../kafscale/mirror.ts'

/**
 * The values by which a list is sorted, for one row. A cursor contains those of the last row on its page, so it stays
 * valid when that row is gone, and works on every replica.
 */
export type RowPosition = readonly (string | number)[]

/** Rows per page if no limit is given. */
export const DEFAULT_LIMIT = 100

/** The input of a paged tool. */
type Query = Record<string, unknown> & { limit?: number, cursor?: string }

export interface Page<Row> {
  rows: Row[]
  total: number
  /** Absent on the last page. */
  next_cursor?: string
}

/**
 * Returns one page of rows, which must be sorted by position.
 * @throws {InvalidCursor} if the cursor is malformed, or belongs to another tool or to other arguments
 */
export function paginate<Row> (
  tool: string,
  query: Query,
  rows: readonly Row[],
  positionOf: (row: Row) => RowPosition
): Page<Row> {
  const after = readCursor(tool, query)
  const start = after ? firstAfter(rows, row => comparePositions(positionOf(row), after)) : 0
  const end = start + (query.limit ?? DEFAULT_LIMIT)
  const page = rows.slice(start, end)
  const last = page.at(-1)
  return end < rows.length && last !== undefined
    ? { rows: page, total: rows.length, next_cursor: writeCursor(tool, query, positionOf(last)) }
    : { rows: page, total: rows.length }
}

export function writeCursor (tool: string, query: Query, position: RowPosition): string {
  return encode([digest(tool, query), ...position])
}

function encode (content: readonly unknown[]): string {
  return Buffer.from(JSON.stringify(content)).toString('base64url')
}

/** The position after which a page starts; `undefined` for the first page. @throws {InvalidCursor} */
export function readCursor (tool: string, query: Query): RowPosition | undefined {
  if (query.cursor === undefined) return undefined
  let content: unknown
  try {
    content = JSON.parse(Buffer.from(query.cursor, 'base64url').toString())
  } catch {
    throw new InvalidCursor()
  }
  if (
    !Array.isArray(content) || content.length < 2 || encode(content) !== query.cursor ||
    content.shift() !== digest(tool, query)
  ) throw new InvalidCursor()
  return content
}

/** Compares part by part: numbers by value, strings by code unit. */
function comparePositions (a: RowPosition, b: RowPosition): number {
  if (a.length !== b.length) throw new InvalidCursor()
  for (const [index, part] of a.entries()) {
    const other = b[index]
    if (typeof part !== typeof other) throw new InvalidCursor()
    const order = typeof part === 'number' ? part - Number(other) : compare(part, String(other))
    if (order !== 0) return order
  }
  return 0
}

/** The index of the first row whose `order` is positive, by binary search. */
export function firstAfter<Row> (rows: readonly Row[], order: (row: Row) => number): number {
  let low = 0
  let high = rows.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (order(rows[middle] as Row) > 0) high = middle
    else low = middle + 1
  }
  return low
}

/** Identifies a tool and its arguments, to which a cursor is bound. An empty list is the same as an absent one. */
function digest (tool: string, { limit, cursor, ...query }: Query): string {
  const given = Object.entries(query)
    .filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0))
    .sort(([a], [b]) => compare(a, b))
  return createHash('sha256').update(JSON.stringify([tool, given])).digest('base64url').slice(0, 16)
}
