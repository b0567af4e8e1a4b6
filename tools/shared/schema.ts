import { type TObject, type TProperties, type TSchema, Type } from '@sinclair/typebox'
import { type Int64, toJson } from '../../kafscale/int64.ts'

/** The parts that tools' schemas share. Descriptions are few: all definitions together must stay small. */

export const text = Type.String()
export const integer = Type.Integer()
export const number = Type.Number()
export const flag = Type.Boolean()
export const textOrNull = Type.Unsafe<string | null>({ type: ['string', 'null'] })
export const integerOrNull = Type.Unsafe<number | null>({ type: ['integer', 'null'] })
export const numberOrNull = Type.Unsafe<number | null>({ type: ['number', 'null'] })
export const flagOrNull = Type.Unsafe<boolean | null>({ type: ['boolean', 'null'] })
/** A JSON integer within ±(2^53−1), a decimal string beyond. */
export const int64 = Type.Unsafe<number | string>({ type: ['integer', 'string'] })
export const int64OrNull = Type.Unsafe<number | string | null>({ type: ['integer', 'string', 'null'] })

export function list<T extends TSchema> (items: T) {
  return Type.Array(items)
}

export function words<T extends string> (...values: T[]) {
  return Type.Unsafe<T>({ enum: values })
}

export function object<T extends TProperties> (properties: T): TObject<T> {
  return Type.Object(properties)
}

/** An input: nothing but these properties. */
export function input<T extends TProperties> (properties: T): TObject<T> {
  return Type.Object(properties, { additionalProperties: false })
}

export const names = Type.Optional(Type.Array(Type.String(), { maxItems: 1000 }))
export const pattern = Type.Optional(Type.String({ maxLength: 256, description: 'Glob (* ?) over the whole name' }))
export const page = {
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, description: 'Rows, default 100' })),
  cursor: Type.Optional(Type.String({ description: 'next_cursor of the page before' })),
}

/** What every answer from the mirror has. */
export const observed = { observed_at: text, revision: int64 }
export const paged = { total: integer, next_cursor: Type.Optional(Type.String()) }

export function int64OrNullJson (value: Int64 | null): number | string | null {
  return value === null ? null : toJson(value)
}

/** RFC 3339 UTC. */
export function time (ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}

const MAX_TEXT_BYTES = 4096

/** Text from the cluster that is no name: cut when it is over 4 KB, and says so. */
export function cut (text: string): string {
  if (text.length <= MAX_TEXT_BYTES / 3) return text // no character takes more than three bytes a code unit
  const bytes = Buffer.from(text)
  if (bytes.length <= MAX_TEXT_BYTES) return text
  const mark = `… [cut, ${bytes.length} bytes]`
  let end = MAX_TEXT_BYTES - Buffer.byteLength(mark)
  while ((bytes[end] as number) >> 6 === 0b10) end-- // not within a character
  return bytes.subarray(0, end).toString() + mark
}
