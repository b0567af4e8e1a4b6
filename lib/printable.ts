/**
 * Characters that are not seen where text is shown, or that change how other text is shown: control and format
 * characters, line and paragraph separators, whatever Unicode lets a renderer ignore (zero-width characters, marks of
 * direction, fillers, tags, variation selectors), blanks other than the space, and what has no glyph because it is
 * private or not assigned.
 */
const UNSEEN =
  /[[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800\ufffc]--[ ]]+/gv

/** Signs that have no glyph either. */
const WITHOUT_GLYPH = [0x2d7f, 0x1107f, 0x16fe4, 0x1d159]

/** The planes of Unicode that have characters. The others have none, or only private ones. */
const PLANES = [0x0, 0x1, 0x2, 0x3, 0xe]

/** 1 for each code point of {@link UNSEEN}: a lookup costs a fraction of what the expression does. */
const IS_UNSEEN = unseenTable()

/** What is never escaped, so that most texts need no lookup. */
const NOT_ASCII = /[^ -~]/

/** A text without blanks, quotes and backslashes that does not look empty; in ASCII, it has no unseen characters. */
const PLAIN = /^(?!-$)[^\s"\\]+$/
const PLAIN_ASCII = /^(?!-$)[!#-[\]-~]+$/
const HEX = Uint16Array.from('0123456789abcdef', digit => digit.charCodeAt(0))

/** Quotes text from the cluster or a caller for a message or a log. Unseen characters become `\uXXXX`. */
export function quote (text: string): string {
  return escapeUnprintable(JSON.stringify(text))
}

/**
 * A text for a table whose cells have blanks between them and `-` where they are empty. It is quoted if it could be
 * taken for something else: several cells, an empty one, an escape, or a quoted text.
 */
export function quoteUnlessPlain (text: string): string {
  return PLAIN_ASCII.test(text) || (PLAIN.test(text) && escapeUnprintable(text) === text) ? text : quote(text)
}

/**
 * Escapes the characters in JSON that are not seen, as `\uXXXX`. They only occur in strings, so the value stays exactly
 * the same. That includes the characters that join letters and emoji or select their form (U+200C, U+200D, U+FE0F):
 * nothing tells them from hidden text. Parsing the JSON restores them.
 *
 * The time is proportional to the length of the text, whatever it contains.
 */
export function escapeUnprintable (json: string): string {
  const first = json.search(NOT_ASCII)
  const count = first === -1 ? 0 : countUnseen(json, first)
  if (count === 0) return json
  const units = new Uint16Array(json.length - first + 5 * count)
  let end = 0
  for (let index = first; index < json.length; index++) {
    const codePoint = json.codePointAt(index) as number
    if (IS_UNSEEN[codePoint] === 1) {
      end = writeEscape(units, end, json.charCodeAt(index))
      if (codePoint > 0xffff) end = writeEscape(units, end, json.charCodeAt(++index))
    } else {
      units[end++] = json.charCodeAt(index)
      if (codePoint > 0xffff) units[end++] = json.charCodeAt(++index)
    }
  }
  return json.slice(0, first) + Buffer.from(units.buffer).toString('utf16le')
}

/** How many UTF-16 code units of a text belong to unseen characters. */
function countUnseen (text: string, from: number): number {
  let count = 0
  for (let index = from; index < text.length; index++) {
    const codePoint = text.codePointAt(index) as number
    const units = codePoint > 0xffff ? 2 : 1
    if (IS_UNSEEN[codePoint] === 1) count += units
    index += units - 1
  }
  return count
}

function writeEscape (units: Uint16Array, at: number, unit: number): number {
  units[at] = 0x5c // \
  units[at + 1] = 0x75 // u
  units[at + 2] = HEX[unit >> 12] as number
  units[at + 3] = HEX[(unit >> 8) & 0xf] as number
  units[at + 4] = HEX[(unit >> 4) & 0xf] as number
  units[at + 5] = HEX[unit & 0xf] as number
  return at + 6
}

function unseenTable (): Uint8Array {
  const table = new Uint8Array(0x110000).fill(1, 0x40000)
  for (const plane of PLANES) table.fill(0, plane << 16, (plane + 1) << 16)
  for (const plane of PLANES) {
    const start = plane << 16
    const units = plane === 0 ? 1 : 2
    for (const { 0: { length }, index } of charactersOf(plane).matchAll(UNSEEN)) {
      table.fill(1, start + index / units, start + (index + length) / units)
    }
  }
  for (const codePoint of WITHOUT_GLYPH) table[codePoint] = 1
  return table
}

/** Every code point of a plane, in one text. */
function charactersOf (plane: number): string {
  const units = new Uint16Array(plane === 0 ? 0x10000 : 0x20000)
  for (let index = 0; index < 0x10000; index++) {
    if (plane === 0) {
      units[index] = index
    } else {
      units[2 * index] = 0xd800 + ((plane - 1) << 6) + (index >> 10)
      units[2 * index + 1] = 0xdc00 + (index & 0x3ff)
    }
  }
  return Buffer.from(units.buffer).toString('utf16le')
}
