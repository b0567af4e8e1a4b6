/**
 * A glob (`*`, `?`) over the whole name, case-sensitive; everything matches when there is none. Takes time in proportion
 * to the pattern times the name, whatever they are.
 */
export function matcher (pattern: string | undefined): (name: string) => boolean {
  return pattern === undefined ? () => true : name => matches(pattern, name)
}

function matches (pattern: string, name: string): boolean {
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
      // The last star takes one more; the stars before it never need to.
      p = star.p
      n = ++star.n
    } else {
      return false
    }
  }
  while (pattern[p] === '*') p++
  return p === pattern.length
}
