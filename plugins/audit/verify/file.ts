import { quote } from '../../../lib/printable.ts'
import {
  type ChainRecord,
  type Checkpoint,
  CHECKPOINT_RECORDS,
  checkpointOf,
  type Continuation,
  continuationOf,
  type End,
  endsRun,
  gapOf,
  headerOf,
  isOfChain,
  logOf,
  parseRecord,
  replicaOf,
  sha256,
  subjectOf,
  tornLineOf,
} from '../chain.ts'
import { type Line, linesOf } from '../lines.ts'
import * as problems from './problems.ts'

/** More lines than a batch has. */
const REMEMBERED_LINES = 2_000

/** Where a run of the service began, and the end that it found. */
export interface Run {
  line: number
  time: string
  continues: Continuation
  /** The record with which the run before it closed the log, if others were added after it. */
  closedAt?: number | undefined
}

/** Records after the closing record of a run, which the service cannot have written. */
export interface Added { line: number, first: number, last: number }

/** The file before this one, which was moved, removed or altered while the service was writing to it. */
export interface RemovedFile { line: number, number: number, setAside: string | undefined }

/** A file without a problem of its own: its place among the others, and how far it can be trusted. */
export interface FileReport {
  path: string
  /** From its header, like the end of the file before it. */
  number: number
  before: End
  end: End
  lines: number
  /** Without those of the chain itself. */
  records: number
  /** Names the log that the file is part of. */
  log: string | undefined
  /** The instances of the service that sealed it. */
  replicas: Set<unknown>
  /** The hashes of the records that something outside the files vouches for. */
  hashes: Map<number, string>
  /** It ends with a closing checkpoint. */
  closed: boolean
  /** That checkpoint ends a run of the service, not only the file. */
  endsRun: boolean
  /** Line and sequence number of the last signed checkpoint, which vouches for everything before it. */
  signedLines: number
  signedSequence: number
  checkpoints: number
  unsigned: number
  /** Digests of the keys that signed. */
  signers: Set<string>
  /** Records before the first checkpoint, and after the last one. */
  unsealedFirst: number
  unsealedLast: number
  /** Its second line is the checkpoint with which a run of the service begins. */
  beginsRun: boolean
  /** The runs of the service that began in this file. */
  runs: Run[]
  added: Added[]
  removed: RemovedFile | undefined
  /** Irregularities that the service itself recorded. */
  notes: string[]
}

/**
 * Verifies one file by itself, up to its first problem: nothing after that has a valid line to be compared with.
 * @param trusted digests of the keys of which one must have signed each checkpoint; without it, any signature or none
 * will do
 * @param sequences the records whose hashes the report needs
 * @throws when the file cannot be read
 */
export async function verifyFile (
  path: string,
  trusted: readonly string[] | undefined,
  sequences: ReadonlySet<number> = new Set()
): Promise<FileReport | problems.Problem> {
  const check = new FileCheck(path, trusted, sequences)
  for await (const line of linesOf(path)) {
    const problem = check.next(read(line))
    if (problem) return problem
  }
  return check.end()
}

/** A record that is valid by itself, and what it states if it is a checkpoint. */
interface ValidLine { number: number, hash: string, record: ChainRecord, checkpoint?: Checkpoint, problem?: never }

/** A line that is not a record, or a checkpoint that was changed. */
interface InvalidLine { number: number, record?: ChainRecord, problem: string }

function read ({ number, bytes, torn }: Line): ValidLine | InvalidLine {
  const record = torn ? undefined : parseRecord(bytes)
  if (!record) return { number, problem: torn ? problems.TORN_LINE : problems.NOT_A_RECORD }
  const line = { number, hash: sha256(bytes), record }
  // A checkpoint whose event was changed must not pass for a record that needs no signature.
  return record.event === 'checkpoint' || 'checkpoint' in record ? { ...line, ...checkpointOf(record) } : line
}

/** Judges the lines of a file, in order. */
class FileCheck {
  readonly #path: string
  readonly #trusted: readonly string[] | undefined
  readonly #sequences: ReadonlySet<number>
  /** Of the lines so far, from the header on. */
  #report: FileReport | undefined
  /** Hashes of the latest lines of a log that is not in files: its collector may have received a batch twice. */
  readonly #latest = new Set<string>()
  #copies = 0
  /** A record that does not fit the one before it. The next line tells which of the two was changed. */
  #suspect: { number: number, hash: string } | undefined
  /** Events since the last checkpoint, and the sequence number of that. */
  #unsealed = 0
  #sealedSequence = 0
  /** The record before this one closed a run, or others were added since. */
  #closedAt: number | undefined
  #added: Added | undefined

  constructor (path: string, trusted: readonly string[] | undefined, sequences: ReadonlySet<number>) {
    this.#path = path
    this.#sequences = sequences
    this.#trusted = trusted
  }

  next (line: ValidLine | InvalidLine): problems.Problem | undefined {
    if (this.#suspect) return this.#blame(this.#suspect, line)
    if (line.problem !== undefined) return this.#problem(line.number, this.#whyInvalid(line.problem))
    if (this.#latest.has(line.hash)) {
      this.#copies++
      return
    }
    return this.#report ? this.#follow(line, this.#report) : this.#begin(line)
  }

  end (): FileReport | problems.Problem {
    if (this.#suspect) return this.#problem(this.#suspect.number - 1, problems.RECORD_OR_HASH_CHANGED)
    if (this.#copies > 0) {
      this.#report?.notes.push(
        `${this.#path}: ${this.#copies} lines are exact copies of earlier ones: a batch is sent again if the ` +
          'answer of the collector was lost'
      )
    }
    return this.#report ?? this.#problem(1, problems.NO_HEADER)
  }

  #whyInvalid (problem: string): string {
    return problem === problems.TORN_LINE && this.#report?.endsRun ? problems.TORN_LINE_AFTER_CLOSING : problem
  }

  #problem (line: number, what: string): problems.Problem {
    return { path: this.#path, line, what }
  }

  #blame (suspect: { number: number, hash: string }, { record }: ValidLine | InvalidLine): problems.Problem {
    const changed = record?.prev === suspect.hash ? suspect.number - 1 : suspect.number
    return this.#problem(changed, problems.RECORD_CHANGED)
  }

  #begin ({ number, hash, record }: ValidLine): problems.Problem | undefined {
    const header = headerOf(record)
    if (!header) return this.#problem(number, problems.NO_HEADER)
    this.#sealedSequence = record.sequence
    this.#report = {
      ...header,
      path: this.#path,
      end: { hash, sequence: record.sequence },
      log: logOf(record),
      replicas: new Set(),
      hashes: new Map(),
      lines: 1,
      records: 0,
      closed: false,
      endsRun: false,
      signedLines: 0,
      signedSequence: 0,
      checkpoints: 0,
      unsigned: 0,
      signers: new Set(),
      unsealedFirst: 0,
      unsealedLast: 0,
      beginsRun: false,
      runs: [],
      added: [],
      removed: undefined,
      notes: [],
    }
    // A head can be of the file before this one, or of a record that this header took the place of.
    const { before, end } = this.#report
    for (const { sequence, hash } of [before, end]) {
      if (this.#sequences.has(sequence)) this.#report.hashes.set(sequence, hash)
    }
    this.#remember(hash, this.#report)
  }

  #follow (line: ValidLine, report: FileReport): problems.Problem | undefined {
    const { number, hash, record, checkpoint } = line
    const misplaced = misplacement(record, report.end)
    if (misplaced !== undefined) return this.#problem(number, misplaced)
    if (record.prev !== report.end.hash) {
      // A checkpoint proves itself, so the record before it was changed.
      if (checkpoint) return this.#problem(number - 1, problems.RECORD_CHANGED)
      this.#suspect = { number, hash }
      return
    }
    report.end = { hash, sequence: record.sequence }
    this.#remember(hash, report)
    if (this.#sequences.has(record.sequence)) report.hashes.set(record.sequence, hash)
    report.lines = number
    const continues = checkpoint && continuationOf(record)
    const note = noteOf(record, { sealedSequence: this.#sealedSequence, added: this.#added, run: report.runs.at(-1) })
    if (note !== undefined) report.notes.push(`${this.#path}:${number}: ${note}`)
    if (number === 2) report.beginsRun = continues !== undefined
    report.closed = checkpoint?.closing === true
    report.endsRun = endsRun(record)
    if (checkpoint) report.replicas.add(replicaOf(record))
    if (continues) {
      report.runs.push({ line: number, time: record.time, continues, closedAt: this.#added && this.#closedAt })
      this.#closedAt = undefined
      this.#added = undefined
    } else if (this.#closedAt !== undefined) {
      this.#add(number, record.sequence, report)
    }
    if (report.endsRun) this.#closedAt = record.sequence
    const { file: removed, set_aside: setAside } = record.event === 'gap' ? gapOf(record) : {}
    if (removed === report.number - 1) report.removed = { line: number, number: removed, setAside }
    const problem = checkpoint ? this.#seal(line, checkpoint, report) : this.#count(record, report)
    if (problem !== undefined) return this.#problem(number, problem)
  }

  #add (line: number, sequence: number, report: FileReport): void {
    if (!this.#added) {
      this.#added = { line, first: sequence, last: sequence }
      report.added.push(this.#added)
    }
    this.#added.last = sequence
  }

  #remember (hash: string, { log }: FileReport): void {
    if (log !== undefined) return
    this.#latest.add(hash)
    if (this.#latest.size <= REMEMBERED_LINES) return
    const [oldest = ''] = this.#latest
    this.#latest.delete(oldest)
  }

  #count (record: ChainRecord, report: FileReport): string | undefined {
    if (isOfChain(record)) return
    report.records++
    if (report.checkpoints === 0) report.unsealedFirst++
    report.unsealedLast++
    if (++this.#unsealed > CHECKPOINT_RECORDS) return problems.checkpointMissing(CHECKPOINT_RECORDS)
  }

  #seal (
    { number, record: { sequence } }: ValidLine,
    { public_key: publicKey }: Checkpoint,
    report: FileReport
  ): string | undefined {
    this.#unsealed = 0
    report.unsealedLast = 0
    this.#sealedSequence = sequence
    report.checkpoints++
    if (publicKey === null) {
      report.unsigned++
      return this.#trusted && problems.CHECKPOINT_NOT_SIGNED
    }
    const signer = sha256(Buffer.from(publicKey, 'hex'))
    report.signers.add(signer)
    report.signedLines = number
    report.signedSequence = sequence
    if (this.#trusted?.includes(signer) === false) return problems.signedByAnotherKey(signer)
  }
}

/** Why a record cannot be the next one after `end`. */
function misplacement ({ event, sequence }: ChainRecord, end: End): string | undefined {
  if (event === 'header') return problems.HEADER_WITHIN_FILE
  if (sequence > end.sequence + 1) return problems.recordsMissing(sequence - end.sequence - 1)
  if (sequence <= end.sequence) return problems.outOfOrder(sequence, end.sequence)
}

/** What a record states about others: that they are missing, or that they had no checkpoint for a while. */
function noteOf (
  record: ChainRecord,
  { sealedSequence, added, run }: { sealedSequence: number, added: Added | undefined, run: Run | undefined }
): string | undefined {
  switch (record.event) {
    case 'gap': {
      const { records, reason } = gapOf(record)
      return `a gap: ${records ?? 'an unknown number of'} records are missing, ` +
        `as the service itself recorded: ${quote(reason)}`
    }
    case 'torn_line': {
      const { bytes, set_aside: aside } = tornLineOf(record)
      const whose = run?.continues.closed ? '. It was added while the service was stopped: the log was closed' : ''
      return `a torn line of ${bytes} bytes was at the end of the file when the service started: ` +
        `it was set aside as ${quote(aside)}${whose}`
    }
    case 'head_check':
      return record['outcome'] === 'ok'
        ? undefined
        : `the service found that the log contradicts its head file: ${quote(String(record['warning']))}`
    case 'head_acknowledgement':
      return `${quote(subjectOf(record))} acknowledged that: ${quote(String(record['warning']))}`
    case 'checkpoint':
      // The problem says more.
      if (record['found'] !== true || added) return
      return `records ${sealedSequence + 1} to ${record.sequence - 1} had no checkpoint when the service started: ` +
        'a crash leaves such records, and so does anyone who adds or removes records while the service is down'
  }
}
