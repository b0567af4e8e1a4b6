/**
 * An exact integer: a `number` within ±(2^53−1), a `bigint` beyond. The form is canonical, so that the common case costs
 * what numbers cost and nothing is ever rounded.
 */
export type Int64 = number | bigint

const MIN = -(2n ** 63n)
const MAX = 2n ** 63n - 1n
// Zeros apart, an int64 has 19 digits at most; a text may have millions.
const decimal = /^-?0*[0-9]{1,19}$/

/** Brings a bigint into the canonical form. */
export function int64 (value: bigint): Int64 {
  const rounded = Number(value)
  return Number.isSafeInteger(rounded) ? rounded : value
}

/** Reads decimal text, `-?[0-9]+` within int64 and nothing else; `undefined` for any other text. */
export function parseInt64 (text: string): Int64 | undefined {
  if (!decimal.test(text)) return undefined
  if (text.length <= 15) return Number(text) + 0 // + 0: "-0" is 0
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

/** How an answer carries it: a JSON integer within ±(2^53−1), a decimal string beyond. */
export function toJson (value: Int64): number | string {
  return typeof value === 'number' ? value : value.toString()
}
