// Control characters, and characters that reorder or hide text: bidirectional marks, zero-width characters, line
// separators, fillers, tags.
const UNPRINTABLE = /[\p{Cc}\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\u3164\ufeff\u{e0000}-\u{e007f}]/gu

/** Quotes text from the cluster or a caller for a message or a log. Invisible characters become `\uXXXX`. */
export function quote (text: string): string {
  return escapeUnprintable(JSON.stringify(text))
}

/** Escapes invisible characters in JSON as `\uXXXX`. They only occur in strings, so the value stays the same. */
export function escapeUnprintable (json: string): string {
  return json.replace(UNPRINTABLE, character =>
    character.split('').map(unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`).join(''))
}
