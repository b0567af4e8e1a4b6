/** Keeps secrets and large values out of the log. */
import { canonical } from './chain.ts'
import { REDACTED, tokenRedactor } from './tokens.ts'

/** A value whose canonical JSON is larger is replaced by its size and digest. */
const MAX_VALUE_BYTES = 2 * 1024
/** A list or object with more members is replaced as a whole: a digest for each of thousands takes too long. */
const MAX_MEMBERS = 100
/** Deeper than any valid input, and shallow enough for recursion. */
const MAX_DEPTH = 64

/** A member is a secret if its name contains one of these, regardless of case, width and separators. */
const SECRETS = [
  'password',
  'passwd',
  'pwd',
  'passphrase',
  'passcode',
  'secret',
  'token',
  'jwt',
  'bearer',
  'cookie',
  'credential',
  'authorization',
  'apikey',
  'accesskey',
  'privatekey',
  'sasl.jaas.config',
]
/** Members that name a configuration entry, and members that hold its value. */
const NAMES = new Set(['name', 'key', 'path'])
const VALUES = new Set(['value', 'before', 'after', 'old', 'new', 'oldvalue', 'newvalue', 'default'])

/** What the name of a member says about it. */
interface Meaning { secret: boolean, isName: boolean, isValue: boolean }

/**
 * Returns the function that removes secrets from arguments and diffs: a member named like a secret, and the scalar
 * value of an entry named like one (`{name: 'sasl.jaas.config', value: …}`), become `[redacted]`, and so do tokens in
 * any text. The result can be written as I-JSON: names are made well-formed and stay distinct. A secret under an
 * innocuous name is not found, unless it is a token.
 * @param more further names to treat like those of secrets
 */
export function redactor (more: readonly string[] = [], withoutTokens = tokenRedactor()): (value: unknown) => unknown {
  const secret = new RegExp([...SECRETS, ...more].map(plain).filter(term => term !== '').join('|'))
  // Tools use few different names, so each is examined once.
  const known = new Map<string, Meaning>()

  function meaningOf (name: string): Meaning {
    const remembered = known.get(name)
    if (remembered) return remembered
    const text = plain(name)
    const meaning = { secret: secret.test(text), isName: NAMES.has(text), isValue: VALUES.has(text) }
    if (known.size < 1_000 && name.length < 100) known.set(name, meaning)
    return meaning
  }

  function redact (value: unknown, depth: number): unknown {
    if (typeof value === 'string') return withoutTokens(value)
    if (typeof value !== 'object' || value === null) return value
    if (depth > MAX_DEPTH) return `[nested deeper than ${MAX_DEPTH}]`
    if (Array.isArray(value)) return value.map(item => redact(item, depth + 1))
    const members = Object.entries(value).map(([key, member]) => ({ key, member, meaning: meaningOf(key) }))
    const namesSecret = members.some(({ member, meaning: { isName } }) =>
      isName && typeof member === 'string' && meaningOf(member).secret
    )
    const names = new Set<string>()
    return Object.fromEntries(members.map(({ key, member, meaning }) => {
      const hidden = meaning.secret || (namesSecret && meaning.isValue && typeof member !== 'object')
      const name = distinct(withoutTokens(key.toWellFormed()), names)
      return [name, hidden && member !== null ? REDACTED : redact(member, depth + 1)]
    }))
  }
  return value => redact(value, 0)
}

/** Names that differ only in lone surrogates must not hide one another. */
function distinct (name: string, taken: Set<string>): string {
  while (taken.has(name)) name += '\ufffd'
  taken.add(name)
  return name
}

function plain (name: string): string {
  return name.normalize('NFKC').toLowerCase().replace(/[^\p{L}\p{N}]/gu, '')
}

/**
 * Replaces every part of a value that is over 2 KB as canonical JSON, innermost first, by `{bytes, sha256}` of that
 * JSON. Returns a small value itself, and a promise only for one that may be large: its digest is computed off the
 * event loop.
 */
export function shrink (value: unknown): unknown | Promise<unknown> {
  return mostBytes(value) <= MAX_VALUE_BYTES ? value : replaceLarge(value)
}

async function replaceLarge (value: unknown): Promise<unknown> {
  const text = Buffer.from(canonical(value))
  if (text.length <= MAX_VALUE_BYTES) return value
  if (typeof value === 'object' && value !== null && Object.keys(value).length <= MAX_MEMBERS) {
    const smaller = Array.isArray(value)
      ? await Promise.all(value.map(shrink))
      : Object.fromEntries(
        await Promise.all(Object.entries(value).map(async ([key, member]) => [key, await shrink(member)] as const))
      )
    if (Buffer.byteLength(canonical(smaller)) <= MAX_VALUE_BYTES) return smaller
  }
  return { bytes: text.length, sha256: await digest(text) }
}

/** An upper bound of the size of a value's canonical JSON, found without writing it. */
function mostBytes (value: unknown): number {
  if (typeof value === 'string') return value.length * 6 + 2 // a character can become \u0000
  if (typeof value !== 'object' || value === null) return 32
  let bytes = 2
  for (const [key, member] of Object.entries(value)) {
    bytes += key.length * 6 + 4 + mostBytes(member)
    if (bytes > MAX_VALUE_BYTES) break
  }
  return bytes
}

async function digest (data: Uint8Array<ArrayBuffer>): Promise<string> {
  return Buffer.from(await crypto.subtle.digest('SHA-256', data)).toString('hex')
}
