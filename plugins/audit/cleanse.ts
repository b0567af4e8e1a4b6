import type { AuditEntry } from './record.ts'
import { shrink } from './redact.ts'
import { REPLICA } from './replica.ts'
import { tokenRedactor } from './tokens.ts'

/** Real tools have shorter names; a caller can make up any. */
const MAX_TOOL_NAME = 256

/** The parts of an entry that can contain secrets or large values, without them. */
type Cleansed = Record<'arguments' | 'resources' | 'diff' | 'warning' | 'where' | 'who', unknown>

/**
 * An entry as it is recorded: without secrets, tokens and large values, so that it takes at most 16 KB, and with the
 * replica. Returns a promise only when a value may be large.
 */
export function cleanse (
  given: AuditEntry,
  redact: (value: unknown) => unknown,
  withoutTokens = tokenRedactor()
): AuditEntry | Promise<AuditEntry> {
  const text = <T>(value: T): T => (typeof value === 'string' ? withoutTokens(value) : value) as T
  const texts = (value: unknown) => mapTexts(value, text)
  const { what: called, rule, error_code: code } = given
  const entry = {
    ...given,
    what: called && { ...called, tool: text(called.tool) },
    rule: text(rule),
    error_code: text(code),
  }
  const { what, where, who, diff, warning } = entry
  const cleansed: Cleansed = {
    arguments: shrink(what && redact(what.arguments)),
    resources: shrink(texts(what?.resources)),
    diff: shrink(redact(diff)),
    warning: shrink(texts(warning)),
    where: shrink(texts(where)),
    who: shrink(texts(who)),
  }
  return Object.values(cleansed).some(part => part instanceof Promise)
    ? settled(cleansed).then(parts => merge(entry, parts))
    : merge(entry, cleansed)
}

/** A text, or the texts in a list or an object. */
function mapTexts (value: unknown, map: <T>(text: T) => T): unknown {
  if (typeof value !== 'object' || value === null) return map(value)
  if (Array.isArray(value)) return value.map(item => mapTexts(item, map))
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, mapTexts(member, map)]))
}

async function settled (parts: Cleansed): Promise<Cleansed> {
  const entries = Object.entries(parts).map(async ([name, part]) => [name, await part] as const)
  return Object.fromEntries(await Promise.all(entries)) as Cleansed
}

function merge (entry: AuditEntry, { arguments: args, resources, diff, warning, where, who }: Cleansed): AuditEntry {
  const { what, when } = entry
  return {
    ...entry,
    what: what && { ...what, tool: what.tool?.slice(0, MAX_TOOL_NAME) ?? null, arguments: args, resources },
    when: { ...when, duration_ms: Math.round(when.duration_ms * 1_000) / 1_000 },
    where: { ...where as AuditEntry['where'], replica: REPLICA },
    who,
    diff,
    warning,
  } as AuditEntry
}
