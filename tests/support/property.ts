import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import type { Test } from 'tap'

/** Asserts that a property is true for every generated input; a failure shows the smallest counterexample. */
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
