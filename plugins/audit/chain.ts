/** The hash chain that makes an audit log tamper-evident: writing lines and reading them back. Pure. */
import { isUtf8 } from 'node:buffer'
import { createPublicKey, hash, type KeyObject, randomBytes, sign, verify } from 'node:crypto'
import { escapeUnprintable } from '../../lib/printable.ts'

/** Version of the record format. */
const SCHEMA = 1

/** A chain never has more records than this without a checkpoint. */
export const CHECKPOINT_RECORDS = 1_000

/** The end of a chain: SHA-256 and sequence number of its last line. */
export interface End { hash: string, sequence: number }

/** The end of an empty chain. */
export const BEGINNING: End = { hash: '0'.repeat(64), sequence: 0 }

/** The members of a record, without those that place it in a chain. */
export type Body = Record<string, unknown> & { event: string }

/** A record as a line of a log holds it. Nothing but its place in the chain has been checked. */
export type ChainRecord = Body & { prev: string, schema: number, sequence: number, time: string }

/** First record of every file: its number, and the end of the file before it. */
interface FileHeader { number: number, previous_hash: string, previous_sequence: number }

/** Part of a line that a crash left at the end of a file, and the file that keeps it. */
export interface TornLine { bytes: number, sha256: string, set_aside: string }

/** Records missing from a chain: how many (`null`: unknown), since when, and why. */
export interface Gap {
  records: number | null
  since: string | null
  reason: string
  /** The number of the previous file, if that was moved, removed or altered while the service was writing to it. */
  file?: number
  /** The file that was altered, and is kept under this name. */
  set_aside?: string
}

/** Where a run of the service found the end of the chain, in its first checkpoint. */
export interface Continuation {
  /** The file that ended there; 0 when there was none. */
  file: number
  sequence: number
  hash: string
  /** Whether the run before it had closed the log; `null` when the log began. */
  closed: boolean | null
}

/** Vouches for every record before it. */
export interface Checkpoint {
  /** The file ends here. */
  closing: boolean
  /** The signer's Ed25519 key, SPKI in DER, as hex; `null` when unsigned. */
  public_key: string | null
  /** SHA-256 of the record without `hash` and `signature`. */
  hash: string
  /** Ed25519 over the same bytes, as hex; `null` when unsigned. */
  signature: string | null
}

/** What a chain states about itself, apart from checkpoints. */
export type ChainNote =
  | { event: 'header', file: FileHeader, log?: string | undefined }
  | { event: 'torn_line', torn: TornLine }
  | { event: 'gap', gap: Gap }

/** Events of which the chain writes records about itself. */
export const CHAIN_EVENTS: ReadonlySet<string> = new Set<ChainNote['event'] | 'checkpoint'>([
  'header',
  'torn_line',
  'gap',
  'checkpoint',
])

// What JSON escapes, and lone surrogates.
const NOT_PLAIN = /["\\\p{Cc}\p{Cs}]/u

// Where a text may have been written with a lone surrogate.
const SURROGATE = /\\ud/i

/**
 * The one way to write a value as a line of a log: JSON by RFC 8785, with `\uXXXX` for characters that cannot be seen.
 * The RFC writes these as they are, and then `cat` would not show what a caller hid in an argument.
 */
export function canonical (value: unknown): string {
  return escapeUnprintable(rfc8785(value))
}

/**
 * JSON by RFC 8785, for values as `JSON.parse` returns them. Values outside I-JSON are converted: a lone surrogate to
 * U+FFFD, a bigint to its decimal text, NaN and infinities to `null`. A member that is `undefined` is left out.
 */
function rfc8785 (value: unknown): string {
  if (typeof value === 'string') return quoted(value)
  if (typeof value === 'bigint') return `"${value}"`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  if (Array.isArray(value)) return `[${value.map(rfc8785).join(',')}]`
  // sort() compares UTF-16 code units, as the RFC requires.
  let members = ''
  for (const key of Object.keys(value).sort()) {
    const member = (value as Record<string, unknown>)[key]
    if (member !== undefined) members += `${members && ','}${quoted(key)}:${rfc8785(member)}`
  }
  return `{${members}}`
}

function quoted (text: string): string {
  return NOT_PLAIN.test(text) ? JSON.stringify(text.toWellFormed()) : `"${text}"`
}

/** As hex. */
export function sha256 (data: string | Buffer): string {
  return hash('sha256', data)
}

/** The line, without its line end, that appends a record to a chain, and the new end of the chain. */
export function chain ({ hash: prev, sequence }: End, body: Body): { line: string, end: End } {
  const line = canonical({ ...body, prev, schema: SCHEMA, sequence: sequence + 1 })
  return { line, end: { hash: sha256(line), sequence: sequence + 1 } }
}

/** The first record of a file. `log` tells the log that the file belongs to from all others. */
export function header (number: number, { hash, sequence }: End, log?: string): ChainNote {
  return { event: 'header', file: { number, previous_hash: hash, previous_sequence: sequence }, log }
}

/** A checkpoint to append after `end`; unsigned without a key. */
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

/** The record on a line; `undefined` when its bytes are not the canonical JSON of a record. */
export function parseRecord (line: Buffer): ChainRecord | undefined {
  const record = readRecord(line)
  return record && isCanonical(line, record) ? record : undefined
}

/** The record on a line that may not be canonical JSON; `undefined` when it is no record. */
export function readRecord (line: Buffer): ChainRecord | undefined {
  if (!isUtf8(line)) return
  try {
    const record = JSON.parse(line.toString()) as Partial<ChainRecord> | null
    if (record === null) return
    const { event, prev, schema, sequence, time } = record
    const placed = typeof event === 'string' && typeof prev === 'string' && /^[0-9a-f]{64}$/.test(prev) &&
      schema === SCHEMA && Number.isSafeInteger(sequence) && typeof time === 'string'
    return placed ? record as ChainRecord : undefined
  } catch {
    return undefined
  }
}

/** Whether a line is the one way to write its record. A value nested too deeply to be written is not. */
export function isCanonical (line: Buffer, record: ChainRecord): boolean {
  const text = line.toString()
  try {
    // For members in order and well-formed texts, JSON.stringify writes the same, and several times as fast.
    if (hasSortedMembers(record) && !SURROGATE.test(text)) return escapeUnprintable(JSON.stringify(record)) === text
    return canonical(record) === text
  } catch {
    return false
  }
}

/** Whether the members of a parsed value, and of those in it, are in the order in which RFC 8785 writes them. */
function hasSortedMembers (value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(hasSortedMembers)
  let last = ''
  for (const key in value) {
    if (key < last || !hasSortedMembers((value as Record<string, unknown>)[key])) return false
    last = key
  }
  return true
}

/** Whether the chain wrote a record about itself, rather than about an event of the service. */
export function isOfChain ({ event }: ChainRecord): boolean {
  return CHAIN_EVENTS.has(event)
}

/** A header's file number, and the end of the file before it; `undefined` when the record is not a valid header. */
export function headerOf (record: ChainRecord | undefined): { number: number, before: End } | undefined {
  if (record?.event !== 'header') return
  const { number, previous_hash: hash, previous_sequence: sequence } = membersOf(record['file'])
  if (
    typeof number !== 'number' || !Number.isSafeInteger(number) || hash !== record.prev ||
    sequence !== record.sequence - 1
  ) return
  const before = { hash, sequence }
  const isFirst = hash === BEGINNING.hash && sequence === BEGINNING.sequence
  return number >= 1 && isFirst === (number === 1) ? { number, before } : undefined
}

/** Whether there was a head file when a checkpoint was written. */
export function hasHeadFile (record: ChainRecord): boolean {
  return record['head_file'] === true
}

/** What a record of the event `gap` states. */
export function gapOf (record: ChainRecord): Pick<Gap, 'records' | 'reason' | 'file' | 'set_aside'> {
  const { records, reason, file, set_aside: aside } = membersOf(record['gap'])
  return {
    records: typeof records === 'number' ? records : null,
    reason: String(reason),
    ...typeof file === 'number' && { file },
    ...typeof aside === 'string' && { set_aside: aside },
  }
}

/** What a record of the event `torn_line` states. */
export function tornLineOf (record: ChainRecord): Pick<TornLine, 'bytes' | 'set_aside'> {
  const { bytes, set_aside: aside } = membersOf(record['torn'])
  return { bytes: Number(bytes), set_aside: String(aside) }
}

/** What the first checkpoint of a run states about the end that it found. */
export function continuationOf (record: ChainRecord): Continuation | undefined {
  if (record['continues'] === undefined) return
  const { file, sequence, hash, closed } = membersOf(record['continues'])
  return {
    file: Number(file),
    sequence: Number(sequence),
    hash: String(hash),
    closed: typeof closed === 'boolean' ? closed : null,
  }
}

/** The instance of the service that wrote a record of the chain. */
export function replicaOf (record: ChainRecord): unknown {
  return membersOf(record['where'])['replica']
}

/** The caller that a record names. */
export function subjectOf (record: ChainRecord): string {
  return String(membersOf(record['who'])['subject'])
}

/** The log that a header or a checkpoint belongs to; `undefined` when it is not part of a file. */
export function logOf ({ log }: ChainRecord): string | undefined {
  return typeof log === 'string' && /^[0-9a-f]{16}-[0-9a-f]{32}$/.test(log) ? log : undefined
}

/** Names a new log that is kept at `path`: the same place begins with the same 16 digits. */
export function newLog (path: string): string {
  return `${sha256(path).slice(0, 16)}-${randomBytes(16).toString('hex')}`
}

/** Whether a run of the service ended with this record, rather than only a file. */
export function endsRun (record: ChainRecord): boolean {
  return record.event === 'checkpoint' && record['ends_run'] === true
}

/**
 * What a record of the event `checkpoint` states, or why it is not what its signer wrote. Does not tell whether the
 * signer can be trusted. Hex is compared as text, so that there is only one way to write a signature.
 */
export function checkpointOf (record: ChainRecord): { checkpoint: Checkpoint } | { problem: string } {
  const { hash: stated, signature, ...unsealed } = membersOf(record['checkpoint'])
  const { closing, public_key: publicKey } = unsealed
  if (typeof closing !== 'boolean' || publicKey === undefined || signature === undefined) {
    return { problem: 'the checkpoint is incomplete' }
  }
  const statement = canonical({ ...record, checkpoint: unsealed })
  const hash = sha256(statement)
  if (hash !== stated) return { problem: 'the checkpoint was changed' }
  if (publicKey === null && signature === null) return { checkpoint: { closing, public_key: null, hash, signature } }
  if (!isHex(publicKey) || !isHex(signature)) return { problem: "the checkpoint's signature is malformed" }
  return isSignedBy(publicKey, statement, signature)
    ? { checkpoint: { closing, public_key: publicKey, hash, signature } }
    : { problem: "the checkpoint's signature is wrong" }
}

function isSignedBy (publicKey: string, statement: string, signature: string): boolean {
  try {
    const key = createPublicKey({ key: Buffer.from(publicKey, 'hex'), type: 'spki', format: 'der' })
    return key.asymmetricKeyType === 'ed25519' &&
      verify(null, Buffer.from(statement), key, Buffer.from(signature, 'hex'))
  } catch {
    // An unreadable key has signed nothing.
    return false
  }
}

function isHex (text: unknown): text is string {
  return typeof text === 'string' && /^(?:[0-9a-f]{2})+$/.test(text)
}

/** The members of a value that may be anything; none when it is not an object. */
function membersOf (value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? value as Record<string, unknown> : {}
}
