/**
 * An exact integer: a `number` within ±(2^53−1), a `bigint` beyond. Each value has exactly one form, so nothing is ever
 * rounded and the common case is as cheap as plain numbers.
 */
export type Int64 = number | bigint

const MIN = -(2n ** 63n)
const MAX = 2n ** 63n - 1n
// Leading zeros aside, an int64 has at most 19 digits. The text may have millions.
const decimal = /^-?0*[0-9]{1,19}$/

/** Converts a bigint to its one form. */
export function int64 (value: bigint): Int64 {
  const rounded = Number(value)
  return Number.isSafeInteger(rounded) ? rounded : value
}

/** Parses decimal text: `-?[0-9]+` within int64. `undefined` for any other text. */
export function parseInt64 (text: string): Int64 | undefined {
  if (!decimal.test(text)) return undefined
  if (text.length <= 15) return Number(text) + 0 // + 0 turns -0 into 0
  const value = BigInt(text)
  return value < MIN || value > MAX ? undefined : int64(value)
}

/** The exact sum, which may exceed int64. */
export function add (a: Int64, b: Int64): Int64 {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b
    if (Number.isSafeInteger(sum)) return sum
  }
  return int64(BigInt(a) + BigInt(b))
}

/** The exact difference, which may exceed int64. */
export function subtract (a: Int64, b: Int64): Int64 {
  if (typeof a === 'number' && typeof b === 'number') {
    const difference = a - b
    if (Number.isSafeInteger(difference)) return difference
  }
  return int64(BigInt(a) - BigInt(b))
}

/** The form used in answers: a JSON integer within ±(2^53−1), a decimal string beyond. */
export function toJson (value: Int64): number | string {
  return typeof value === 'number' ? value : value.toString()
}
