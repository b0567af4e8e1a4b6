/**
 * Matches whole names, case-sensitively: `*` is any text, `?` is one character. Without a pattern, every name matches.
 * The time is at most proportional to the length of the pattern times the length of the name.
 */
export function matcher (pattern: string | undefined): (name: string) => boolean {
  return pattern === undefined ? () => true : name => globMatches(pattern, name)
}

function globMatches (pattern: string, name: string): boolean {
  let p = 0
  let n = 0
  let star: { p: number, n: number } | undefined
  while (n < name.length) {
    if (pattern[p] === '*') {
      star = { p: ++p, n }
    } else if (pattern[p] === '?') {
      p++
      n += (name.codePointAt(n) as number) > 0xffff ? 2 : 1
    } else if (pattern[p] === name[n]) {
      p++
      n++
    } else if (star) {
      // The last star takes one more character. Earlier stars never need to.
      p = star.p
      n = ++star.n
    } else {
      return false
    }
  }
  while (pattern[p] === '*') p++
  return p === pattern.length
}
