// Controls, and what reorders or hides text: bidirectional marks, zero-width characters, line separators, fillers, tags.
const UNPRINTABLE = /[\p{Cc}\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\u3164\ufeff\u{e0000}-\u{e007f}]/gu

/** Text from the cluster or a caller as a message or a log shows it: quoted, what can't be seen as `\uXXXX`. */
export function quote (text: string): string {
  return escapeUnprintable(JSON.stringify(text))
}

/** The same JSON with nothing in it that can't be seen: within strings, the only place for them, such characters become `\uXXXX`. */
export function escapeUnprintable (json: string): string {
  return json.replace(UNPRINTABLE, character =>
    character.split('').map(unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`).join(''))
}
