import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import type { Test } from 'tap'

/** One assertion for a property: it holds for every input that was tried, or the smallest one for which it doesn't is shown. */
export function holds<T> (
  t: Test,
  what: string,
  arbitrary: fc.Arbitrary<T>,
  property: (input: T) => boolean,
  numRuns = 300
): void {
  t.doesNotThrow(() => fc.assert(fc.property(arbitrary, property), { numRuns }), what)
}

export { isDeepStrictEqual as same }
