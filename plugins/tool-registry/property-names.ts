/** The names of properties that are not inputs of a tool: whose they are, or what they should have been. */
import type { TSchema } from '@sinclair/typebox'
import { closestMatch } from 'leven'

/** Properties that clients add to the arguments of any tool. They say nothing to the tool. */
const CLIENTS = new Set([
  'toolCallId', 'sessionId', 'action', 'chatInput', // n8n
  'random_string', // Cursor, for tools without required properties
  '_placeholder', // OpenCode, for the same reason
  'task_progress', // Cline
  'wait_for_previous', // Gemini CLI
].map(plain))

/** How many changes of a letter a misspelling has at most. */
const MAX_DISTANCE = 2
const MAX_LENGTH = 64

/** Whether clients are known to add a property of this name, in any spelling. */
export function isOfClient (name: string): boolean {
  return name.length <= MAX_LENGTH && CLIENTS.has(plain(name))
}

/**
 * The property that a name looks like: spelled in another way (`groupId`), misspelled (`patern`), with a word in common
 * (`topic_name` and `topics`), or the only one whose description has that word (`topics` and `names`).
 */
export function lookalike (name: string, properties: Readonly<Record<string, TSchema>>): string | undefined {
  if (name.length > MAX_LENGTH) return undefined
  const known = Object.keys(properties)
  const given = plain(name)
  const maxDistance = Math.min(MAX_DISTANCE, Math.floor(given.length / 3))
  const close = closestMatch(given, known.map(plain), { maxDistance })
  if (close !== undefined) return known.find(property => plain(property) === close)

  const words = new Set(wordsOf(name))
  const sharing = (textOf: (property: string) => string) =>
    known.filter(property => wordsOf(textOf(property)).some(word => words.has(word)))
  const [described, ...more] = sharing(property => properties[property]?.description ?? '')
  return sharing(property => property)[0] ?? (more.length === 0 ? described : undefined)
}

function plain (name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, '')
}

/** The words of a text in the singular, without the shortest. */
function wordsOf (text: string): string[] {
  return text.replace(/[a-z](?=[A-Z])/g, '$&_').toLowerCase().split(/[^a-z0-9]+/)
    .map(word => word.replace(/s$/, ''))
    .filter(word => word.length > 2)
}
