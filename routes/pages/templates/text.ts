/** Text from the cluster and from agents is data: it is shown as it is, with what cannot be seen made visible. */
import { escapeUnprintable } from '../../../lib/printable.ts'

const MAX_CHARACTERS = 512

/**
 * A text that somebody else has written. Unseen characters become `\uXXXX`; the rest is cut off. Templates escape it
 * for HTML.
 */
export function shown (text: string, maxCharacters = MAX_CHARACTERS): string {
  const characters = [...text]
  const more = characters.length - maxCharacters
  const head = more > 0 ? characters.slice(0, maxCharacters).join('') : text
  return `${escapeUnprintable(head)}${more > 0 ? `… (${more} more characters)` : ''}`
}

/** A value of a plan: text as it is, anything else as JSON. */
export function shownValue (value: unknown): string {
  if (value === null || value === undefined) return 'none'
  if (value === '') return '(empty text)'
  return shown(typeof value === 'string' ? value : JSON.stringify(value))
}

/** `groups_with_commits` as `groups with commits`. */
export function words (name: string): string {
  return shown(name.replaceAll('_', ' '))
}
