/** The hash chain that makes a log tamper evident: how a line is written, and how one is read again. Pure. */
import { isUtf8 } from 'node:buffer'
import { createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto'

/** Version of the record's form. */
export const SCHEMA = 1

/** Where a chain has got to: its last line's SHA-256, and that line's number. */
export interface End { hash: string, sequence: number }

/** The end of what is not there: before the first record of all. */
export const BEGINNING: End = { hash: '0'.repeat(64), sequence: 0 }

/** The members of a record, but for those that place it in a chain. */
export type Body = Record<string, unknown> & { event: string }

/** A record as a line of a log holds it. */
export type ChainRecord = Body & { prev: string, schema: number, sequence: number, time: string }

/** What a checkpoint states besides its place: whether the file ends with it, and who vouches for all before it. */
export interface Checkpoint {
  closing: boolean
  /** The signer's Ed25519 key, SPKI in DER, as hex. */
  public_key: string | null
  /** SHA-256 of the record without `hash` and `signature`. */
  hash: string
  /** Ed25519 over the same bytes, as hex. */
  signature: string | null
}

// What JSON escapes, and lone surrogates.
const NOT_PLAIN = /["\\\p{Cc}\p{Cs}]/u

/**
 * JSON by RFC 8785, for values as `JSON.parse` gives them. What I-JSON can't hold is made to fit: a lone surrogate becomes
 * U+FFFD, a bigint its decimal text, and a number that is none `null`. A member that is `undefined` is left out.
 */
export function canonical (value: unknown): string {
  if (typeof value === 'string') return quoted(value)
  if (typeof value === 'bigint') return `"${value}"`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  // The default order of strings is that of their UTF-16 code units, which is what the RFC asks for.
  let members = ''
  for (const key of Object.keys(value).sort()) {
    const member = (value as Record<string, unknown>)[key]
    if (member !== undefined) members += `${members && ','}${quoted(key)}:${canonical(member)}`
  }
  return `{${members}}`
}

function quoted (text: string): string {
  return NOT_PLAIN.test(text) ? JSON.stringify(text.toWellFormed()) : `"${text}"`
}

export function sha256 (data: string | Buffer): string {
  return hash('sha256', data)
}

/** The line, without its end, that puts a record behind the end of a chain, and the end that it makes. */
export function chain ({ hash: prev, sequence }: End, body: Body): { line: string, end: End } {
  const line = canonical({ ...body, prev, schema: SCHEMA, sequence: sequence + 1 })
  return { line, end: { hash: sha256(line), sequence: sequence + 1 } }
}

/** The body of a checkpoint behind the end of a chain; without a key, one that nobody has signed. */
export function checkpoint (
  { hash: prev, sequence }: End,
  body: Omit<Body, 'event'>,
  closing: boolean,
  key?: KeyObject
): Body {
  const publicKey = key ? createPublicKey(key).export({ type: 'spki', format: 'der' }).toString('hex') : null
  const unsealed = { ...body, event: 'checkpoint', checkpoint: { closing, public_key: publicKey } }
  const statement = canonical({ ...unsealed, prev, schema: SCHEMA, sequence: sequence + 1 })
  const signature = key ? sign(null, Buffer.from(statement), key).toString('hex') : null
  return { ...unsealed, checkpoint: { closing, public_key: publicKey, hash: sha256(statement), signature } }
}

/**
 * What is wrong with a checkpoint by itself, if anything: it does not say whose key should have signed it.
 * Hex is compared as text, so that there is one way only to write a signature.
 */
export function checkpointProblem (record: ChainRecord): string | undefined {
  const given = record['checkpoint'] as Partial<Checkpoint> | null | undefined
  const { hash: stated, signature, ...unsealed } = given ?? {}
  const { closing, public_key: publicKey } = unsealed
  if (typeof closing !== 'boolean' || publicKey === undefined || signature === undefined) {
    return 'the checkpoint is incomplete'
  }
  const statement = canonical({ ...record, checkpoint: unsealed })
  if (sha256(statement) !== stated) return 'the checkpoint was changed'
  if (publicKey === null && signature === null) return
  if (!isHex(publicKey) || !isHex(signature)) return 'the checkpoint\'s signature is malformed'
  try {
    const key = createPublicKey({ key: Buffer.from(publicKey, 'hex'), type: 'spki', format: 'der' })
    if (
      key.asymmetricKeyType === 'ed25519' && verify(null, Buffer.from(statement), key, Buffer.from(signature, 'hex'))
    ) return
  } catch {
    // A key that can't be read has signed nothing.
  }
  return 'the checkpoint\'s signature is wrong'
}

function isHex (text: unknown): text is string {
  return typeof text === 'string' && /^(?:[0-9a-f]{2})+$/.test(text)
}

/** The record that a line holds; `undefined` when its bytes aren't the canonical JSON of a record. */
export function parseRecord (line: Buffer): ChainRecord | undefined {
  if (!isUtf8(line)) return
  const text = line.toString()
  try {
    const record = JSON.parse(text) as Partial<ChainRecord> | null
    if (canonical(record) !== text || record === null) return
    const { event, prev, schema, sequence, time } = record
    const placed = typeof event === 'string' && typeof prev === 'string' && /^[0-9a-f]{64}$/.test(prev) &&
      schema === SCHEMA && Number.isSafeInteger(sequence) && typeof time === 'string'
    return placed ? record as ChainRecord : undefined
  } catch {
    return undefined
  }
}

/** What a file's first record says of the file before; `undefined` when the record is no header. */
export function headerOf (record: ChainRecord | undefined): { number: number, before: End } | undefined {
  const file = record?.['file'] as Record<string, unknown> | null | undefined
  if (record?.event !== 'header' || !file) return
  const { number, previous_hash: hash, previous_sequence: sequence } = file
  if (
    typeof number !== 'number' || !Number.isSafeInteger(number) || hash !== record.prev ||
    sequence !== record.sequence - 1
  ) return
  const before = { hash, sequence }
  const isFirst = hash === BEGINNING.hash && sequence === BEGINNING.sequence
  return number >= 1 && isFirst === (number === 1) ? { number, before } : undefined
}

/** The body of a file's first record. */
export function header (number: number, { hash, sequence }: End): Body {
  return { event: 'header', file: { number, previous_hash: hash, previous_sequence: sequence } }
}
