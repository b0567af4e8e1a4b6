/** What the schemas and answers of the tools share. */
import { type TObject, type TProperties, type TSchema, Type } from '@sinclair/typebox'
import { type Int64, toJson } from '../../kafscale/int64.ts'

/**
 * The key of a field's meaning, which `docs/tools.md` shows. As a symbol, it is not part of the JSON that `tools/list`
 * publishes, where it would cost every agent tokens.
 */
export const MEANING = Symbol('meaning')

/** Adds its meaning to the schema of a field. */
export function means<T extends TSchema> (schema: T, meaning: string): T {
  return { ...schema, [MEANING]: meaning }
}

export const text = Type.String()
export const integer = Type.Integer()
export const number = Type.Number()
export const flag = Type.Boolean()
export const textOrNull = Type.Unsafe<string | null>({ type: ['string', 'null'] })
export const integerOrNull = Type.Unsafe<number | null>({ type: ['integer', 'null'] })
export const numberOrNull = Type.Unsafe<number | null>({ type: ['number', 'null'] })
export const flagOrNull = Type.Unsafe<boolean | null>({ type: ['boolean', 'null'] })
/** A JSON integer within ±(2^53−1), beyond that a decimal string. */
export const int64 = Type.Unsafe<number | string>({ type: ['integer', 'string'] })
export const int64OrNull = Type.Unsafe<number | string | null>({ type: ['integer', 'string', 'null'] })

export function list<T extends TSchema> (items: T) {
  return Type.Array(items)
}

export function words<T extends string> (...values: T[]) {
  return Type.Unsafe<T>({ type: 'string', enum: values })
}

export function object<T extends TProperties> (properties: T): TObject<T> {
  return Type.Object(properties)
}

/**
 * An input with these properties. The registry refuses others, but the schema does not say so: Google's converter fails
 * on `additionalProperties: false`.
 */
export function input<T extends TProperties> (properties: T): TObject<T> {
  return Type.Object(properties)
}

/** The name of a topic or the id of a group, as an input. */
export function nameOf (description: string) {
  return Type.String({ maxLength: 1024, description })
}
export const groupId = nameOf('Id of the consumer group')
export const names = Type.Optional(
  Type.Array(Type.String({ maxLength: 1024 }), { maxItems: 1000, description: 'Names of topics; all if absent' })
)
export const glob = Type.String({ maxLength: 256, description: 'Glob (* and ?) for the whole name' })
export const pattern = Type.Optional(glob)
/** The input of a paged tool. */
export const page = {
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, description: 'Rows per page, default 100' })),
  cursor: Type.Optional(Type.String({ maxLength: 65_536, description: 'next_cursor of the previous page' })),
}

/** In every answer from the mirror. */
export const observed = {
  observed_at: means(text, 'When the answer was last known to be current'),
  revision: means(int64, 'etcd revision of everything in the answer'),
}
/** In every paged answer. */
export const paged = {
  total: means(integer, 'Rows on all pages'),
  next_cursor: means(Type.Optional(Type.String()), 'Pass it as `cursor` for the next page; absent on the last page'),
}

/** In a row of a partition. */
export const inSnapshotFlag = means(
  Type.Optional(flag),
  '`false` if the snapshot lacks the partition, otherwise absent'
)

export function int64OrNullJson (value: Int64 | null): number | string | null {
  return value === null ? null : toJson(value)
}

/** An RFC 3339 time in UTC. */
export function time (ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}

const MAX_TEXT_BYTES = 4096

/** Truncates a text from the cluster that is not a name to 4 KB, with a note of its full length. */
export function cut (text: string): string {
  if (text.length <= MAX_TEXT_BYTES / 3) return text // at most three bytes per code unit
  const bytes = Buffer.from(text)
  if (bytes.length <= MAX_TEXT_BYTES) return text
  const mark = `… [cut, ${bytes.length} bytes]`
  let end = MAX_TEXT_BYTES - Buffer.byteLength(mark)
  while ((bytes[end] as number) >> 6 === 0b10) end-- // not inside a character
  return bytes.subarray(0, end).toString() + mark
}
