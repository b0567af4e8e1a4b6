import { TooComplex } from '../../errors.ts'

/** Limits that no valid MCP request exceeds. The message of `TOO_COMPLEX` repeats them. */
const MAX_DEPTH = 32
const MAX_VALUES = 20_000

const [QUOTE, BACKSLASH, COMMA] = ['"', '\\', ','].map(character => character.charCodeAt(0))
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [...'[]{}'].map(character => character.charCodeAt(0))

/**
 * The JSON of a body; `undefined` if it is not valid. Like the SDK, ignores a byte order mark.
 * @throws {TooComplex} before anything is parsed
 */
export function parseBody (text: string): unknown {
  checkComplexity(text)
  try {
    return JSON.parse(text.replace(/^\ufeff/, ''))
  } catch {
    return undefined
  }
}

/**
 * Refuses JSON that takes long to parse and to validate, by its brackets and commas alone: a megabyte of brackets takes
 * `JSON.parse` a hundred times as long as a megabyte of text. An empty list or object counts as two values.
 */
function checkComplexity (text: string): void {
  let depth = 0
  let values = 0
  for (let index = 0; index < text.length; index++) {
    switch (text.charCodeAt(index)) {
      case QUOTE:
        index = endOfString(text, index)
        break
      case OPEN_LIST:
      case OPEN_OBJECT:
        depth++
        values++
        break
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        depth--
        break
      case COMMA:
        values++
    }
    if (depth > MAX_DEPTH + 1 || values > MAX_VALUES) throw new TooComplex()
  }
}

/** Where the string that begins at `start` ends; the end of the text if it does not. */
function endOfString (text: string, start: number): number {
  for (let index = start + 1; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit === QUOTE) return index
    if (unit === BACKSLASH) index++
  }
  return text.length
}
