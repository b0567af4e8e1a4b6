/** The JSON of a tool's answer, and how much of it fits. No function here does more work than that. */
import { escapeUnprintable } from '../../lib/printable.ts'
import type { Rows } from '../../tools/tool.ts'

type Answer = Record<string, unknown>

/** How many items of a list are serialized at once. One at a time takes twice as long. */
const ITEMS = 8

/**
 * Returns the answer as compact JSON, or `undefined` if that has this many bytes or more. Stops as soon as it knows,
 * because the names in a cluster can make an answer of a gigabyte.
 */
export function answerJson (answer: Answer, maxBytes: number): string | undefined {
  const members: string[] = []
  let length = 0
  for (const [name, value] of Object.entries(answer)) {
    if (value === undefined) continue
    const json = Array.isArray(value) ? listJson(value, maxBytes - length) : JSON.stringify(value)
    if (json === undefined) return undefined
    length += json.length // a code unit has at least one byte
    if (length >= maxBytes) return undefined
    members.push(`${JSON.stringify(name)}:${json}`)
  }
  const json = escapeUnprintable(`{${members.join(',')}}`)
  return Buffer.byteLength(json) < maxBytes ? json : undefined
}

function listJson (list: readonly unknown[], maxLength: number): string | undefined {
  const parts: string[] = []
  let length = 0
  for (let index = 0; index < list.length; index += ITEMS) {
    const json = JSON.stringify(list.slice(index, index + ITEMS)).slice(1, -1)
    length += json.length
    if (length >= maxLength) return undefined
    parts.push(json)
  }
  return `[${parts.join(',')}]`
}

/**
 * The largest limit for which an answer certainly has fewer bytes, from the rows of the answer for a larger one. 0 if
 * not even one row fits.
 * @param cursor whether an answer that is not the last page has a `next_cursor`
 */
export function fittingLimit (answer: Answer, rows: Rows, cursor: boolean, maxBytes: number): number {
  const { list, nested, per } = rows
  const items = answer[list] as Answer[]
  const others = new Map(per && (answer[per.list] as Answer[]).map(item => [item[per.field], item]))
  let bytes = bytesOf({ ...answer, [list]: [], ...per && { [per.list]: [] }, next_cursor: '' })
  let count = 0
  for (const item of items) {
    const inner = nested === undefined ? [] : item[nested] as Answer[]
    bytes += bytesOf(nested === undefined ? item : { ...item, [nested]: [] }) + 1
    const other = per && others.get(item[per.field])
    if (per && other) {
      bytes += bytesOf(other) + 1
      others.delete(item[per.field])
    }
    for (const row of inner.length > 0 ? inner : [undefined]) {
      if (row) bytes += bytesOf(row) + 1
      if (bytes + (cursor ? cursorBytes({ ...item, ...row }) : 0) >= maxBytes) return count
      count++
    }
  }
  // Items of the second list that belong to no row follow the rows, and count as rows.
  for (const other of others.values()) {
    bytes += bytesOf(other) + 1
    if (bytes + (cursor ? cursorBytes(other) : 0) >= maxBytes) return count
    count++
  }
  return count
}

/** At most how long the cursor after a row is: the row's texts and numbers in base64, and a digest. */
function cursorBytes (row: Answer): number {
  const position = Object.values(row).filter(value => typeof value === 'string' || typeof value === 'number')
  return Math.ceil((Buffer.byteLength(JSON.stringify(position)) + 24) * 4 / 3)
}

function bytesOf (value: unknown): number {
  return Buffer.byteLength(escapeUnprintable(JSON.stringify(value)))
}
