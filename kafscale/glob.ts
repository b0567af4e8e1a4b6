/** Counts what a match costs: comparisons, and words of 32 bits. */
export interface Steps { count: number }

/** A string, or its code points. */
type Characters = ArrayLike<string>

/**
 * Matches whole names, case-sensitively: `*` is any text, `?` is one character. Without a pattern, every name matches.
 *
 * The stars divide the pattern into parts. The first and the last part must be at the ends of the name, and each part
 * in between is looked for after the one before. The time is proportional to the length of the name, with a factor of
 * at most one for each 32 characters of the pattern.
 */
export function matcher (pattern: string | undefined, steps: Steps = { count: 0 }): (name: string) => boolean {
  if (pattern === undefined) return () => true
  // Only `?` makes a difference between code units and code points.
  const split = (text: string): Characters => pattern.includes('?') ? [...text] : text
  const [first = '', ...rest] = pattern.split(/\*+/).map(split)
  const last = rest.pop()
  const middle = rest.map(searcher)
  return name => {
    const characters = split(name)
    const end = characters.length - (last?.length ?? 0)
    if (end < first.length || !isAt(first, characters, 0, steps)) return false
    if (last === undefined) return first.length === end
    if (!isAt(last, characters, end, steps)) return false
    let from = first.length
    for (const findAfter of middle) {
      from = findAfter(characters, from, end, steps)
      if (from === -1) return false
    }
    return true
  }
}

function isAt (part: Characters, characters: Characters, at: number, steps: Steps): boolean {
  for (let index = 0; index < part.length; index++) {
    steps.count++
    if (part[index] !== '?' && part[index] !== characters[at + index]) return false
  }
  return true
}

/**
 * Returns a function that looks for the first occurrence of a part between two positions, and returns where that ends,
 * or −1. This is the algorithm Shift-And: bit `n` of the state says whether the last `n + 1` characters match the
 * beginning of the part, and one pass over the name updates all bits.
 */
function searcher (part: Characters): (name: Characters, from: number, end: number, steps: Steps) => number {
  const words = Math.ceil(part.length / 32)
  const wildcards = masks(part, '?', words)
  const found = new Map<string, Uint32Array>()
  for (let index = 0; index < part.length; index++) {
    const character = part[index] as string
    if (!found.has(character)) {
      found.set(character, masks(part, character, words).map((bits, word) => bits | (wildcards[word] as number)))
    }
  }
  const lastBit = 1 << ((part.length - 1) % 32)
  return (characters, from, end, steps) => {
    const state = new Uint32Array(words)
    for (let index = from; index < end; index++) {
      const matching = found.get(characters[index] as string) ?? wildcards
      let carry = 1
      for (let word = 0; word < words; word++) {
        const bits = state[word] as number
        state[word] = (bits << 1 | carry) & (matching[word] as number)
        carry = bits >>> 31
      }
      steps.count += words
      if (((state[words - 1] as number) & lastBit) !== 0) return index + 1
    }
    return -1
  }
}

/** The positions of a character in a part, as bits. */
function masks (part: Characters, character: string, words: number): Uint32Array {
  const bits = new Uint32Array(words)
  for (let index = 0; index < part.length; index++) {
    if (part[index] === character) bits[index >> 5] = (bits[index >> 5] as number) | 1 << (index % 32)
  }
  return bits
}
