/** Tells, from its files alone, whether an audit log is as it was written. */
import { createPublicKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { quote } from '../../lib/printable.ts'
import {
  type ChainRecord,
  type Checkpoint,
  checkpointProblem,
  type End,
  headerOf,
  parseRecord,
  sha256,
} from './chain.ts'
import { linesOf } from './lines.ts'

/** The service writes a checkpoint at the latest behind so many records, those of the chain itself among them. */
const CHECKPOINT_RECORDS = 1_000
const OF_THE_CHAIN = new Set(['header', 'torn_line', 'gap', 'checkpoint'])

/** How a file is called that holds what a crash left of a line. */
const TORN = /\.torn-[^/]*$/

/** What is wrong, where. */
export interface Problem { path: string, line: number, what: string }

/** One file by itself: its place among the others, and how far it can be trusted. */
interface FileReport {
  path: string
  /** What its header says. */
  number: number
  before: End
  end: End
  lines: number
  /** But for those of the chain itself. */
  records: number
  /** Whether it ends with a closing checkpoint. */
  closed: boolean
  /** Up to here a signed checkpoint vouches for all. */
  signedLines: number
  signedSequence: number
  checkpoints: number
  unsigned: number
  /** Digests of the keys that signed. */
  signers: Set<string>
  /** What the service itself says was not as it should be. */
  notes: string[]
}

export interface VerifyOptions {
  /** PEM of the keys that may have signed: then every checkpoint has to be signed by one of them. */
  publicKeys?: readonly string[]
  /** A record that is known to have been written: a log that ends before it was cut off. */
  expectSequence?: number
}

export interface Verdict {
  /** 0 intact, 1 altered, 2 unreadable. */
  exitCode: 0 | 1 | 2
  /** A line for each finding, to be read. */
  findings: string[]
  problems: Problem[]
}

/**
 * Verifies the files of one chain, in whatever order they are given. A chain that isn't signed can be forged as a whole by
 * whoever may write it; the verdict says so. What it does not promise: that an open end was not cut off, or that the last
 * record of an open file is as it was, for nothing comes after it.
 */
export async function verifyFiles (
  paths: readonly string[],
  { publicKeys, expectSequence }: VerifyOptions = {}
): Promise<Verdict> {
  const findings: string[] = []
  const problems: Problem[] = []
  const reports: FileReport[] = []
  let unreadable = 0
  try {
    const trusted = publicKeys?.map(fingerprint)
    for (const path of paths) {
      if (TORN.test(path)) {
        findings.push(`${path}: left out: what a crash left of a line, which is no part of the chain`)
        continue
      }
      try {
        const found = await verifyFile(path, trusted)
        if ('what' in found) problems.push(found)
        else reports.push(found)
      } catch (error) {
        unreadable++
        findings.push(`${path}: unreadable: ${(error as Error).message}`)
      }
    }
  } catch (error) {
    return { exitCode: 2, findings: [`the public key can not be read: ${(error as Error).message}`], problems }
  }

  reports.sort((a, b) => a.number - b.number)
  if (problems.length === 0 && unreadable === 0) problems.push(...misplaced(reports))
  if (problems.length === 0 && unreadable === 0 && publicKeys) problems.push(...neverSigned(reports))
  const last = reports.at(-1)
  if (
    problems.length === 0 && unreadable === 0 && last && expectSequence !== undefined &&
    last.end.sequence < expectSequence
  ) {
    problems.push({
      path: last.path,
      line: last.lines,
      what:
        `the log ends with record ${last.end.sequence}, and record ${expectSequence} is expected: its end was cut off`,
    })
  }
  findings.push(
    ...reports.flatMap(report => [describe(report), ...report.notes]),
    ...problems.map(({ path, line, what }) => `${path}:${line}: altered: ${what}`)
  )
  if (problems.length > 0) return { exitCode: 1, findings, problems }
  if (unreadable > 0 || !last) return { exitCode: 2, findings, problems }
  findings.push(...summary(reports as [FileReport, ...FileReport[]], publicKeys !== undefined))
  return { exitCode: 0, findings, problems }
}

/** A key's digest: SHA-256 of its SPKI in DER. @throws when it is no public key */
export function fingerprint (pem: string): string {
  return sha256(createPublicKey(pem).export({ type: 'spki', format: 'der' }))
}

export async function readPublicKeys (paths: readonly string[]): Promise<string[]> {
  return await Promise.all(paths.map(path => readFile(path, 'utf8')))
}

/** Checks a file by itself. It stops at the first problem: what comes behind has nothing to hold on to. */
async function verifyFile (path: string, trusted: readonly string[] | undefined): Promise<FileReport | Problem> {
  let report: FileReport | undefined
  /** A line whose link is wrong: the next line tells whether it was changed itself, or the one before it. */
  let suspect: { line: number, hash: string } | undefined
  /** Records since the last checkpoint. What a crash leaves without one, the next run seals before anything else. */
  let unsealed = 0
  let sealedSequence = 0
  const problem = (line: number, what: string): Problem => ({ path, line, what })
  const changed = (line: number) => problem(line, 'the record was changed')

  for await (const { number: line, bytes, torn } of linesOf(path)) {
    const record = torn ? undefined : parseRecord(bytes)
    if (suspect) return changed(record?.prev === suspect.hash ? suspect.line - 1 : suspect.line)
    if (torn) {
      return problem(
        line,
        'the line is cut off. A crash leaves such a line too: the service sets it aside when it starts again'
      )
    }
    if (!record) return problem(line, 'the line is not a record in canonical JSON')
    const wrong = record.event === 'checkpoint' ? checkpointProblem(record) : undefined
    if (wrong) return problem(line, wrong)

    const hash = sha256(bytes)
    if (!report) {
      const header = headerOf(record)
      if (!header) return problem(line, 'the file does not begin with a header')
      sealedSequence = record.sequence
      report = {
        ...header,
        path,
        end: { hash, sequence: record.sequence },
        lines: 1,
        records: 0,
        closed: false,
        signedLines: 0,
        signedSequence: 0,
        checkpoints: 0,
        unsigned: 0,
        signers: new Set(),
        notes: [],
      }
      continue
    }
    const { end } = report
    if (record.event === 'header') return problem(line, 'a header stands within the file')
    if (record.sequence > end.sequence + 1) {
      return problem(line, `${record.sequence - end.sequence - 1} records are missing before this one`)
    }
    if (record.sequence <= end.sequence) {
      return problem(line, `record ${record.sequence} comes after record ${end.sequence}: it was inserted, or moved`)
    }
    if (record.prev !== end.hash) {
      // A checkpoint has proved itself already.
      if (record.event === 'checkpoint') return changed(line - 1)
      suspect = { line, hash }
      continue
    }
    report.end = { hash, sequence: record.sequence }
    report.lines = line
    report.closed = false
    const note = noteOf(record, sealedSequence)
    if (note !== undefined) report.notes.push(`${path}:${line}: ${note}`)
    if (!OF_THE_CHAIN.has(record.event)) {
      report.records++
      if (++unsealed > CHECKPOINT_RECORDS) {
        return problem(
          line,
          `more than ${CHECKPOINT_RECORDS} records in a row are without a checkpoint: the service writes one before`
        )
      }
    }
    if (record.event !== 'checkpoint') continue
    unsealed = 0
    sealedSequence = record.sequence
    const { closing, public_key: publicKey } = record['checkpoint'] as Checkpoint
    const signer = publicKey === null ? undefined : sha256(Buffer.from(publicKey, 'hex'))
    if (trusted && !signer) return problem(line, 'the checkpoint is not signed')
    if (trusted && !trusted.includes(signer ?? '')) {
      return problem(line, `the checkpoint is signed by another key, ${signer}`)
    }
    report.closed = closing
    report.checkpoints++
    if (signer) {
      report.signers.add(signer)
      report.signedLines = line
      report.signedSequence = record.sequence
    } else {
      report.unsigned++
    }
  }
  if (suspect) return problem(suspect.line - 1, 'the record was changed, or the hash of it in the next one')
  return report ?? problem(1, 'the file does not begin with a header')
}

/** What a record says of others that are not there, or that nobody vouched for when they were written. */
function noteOf ({ event, sequence, gap, torn, found }: ChainRecord, sealedSequence: number): string | undefined {
  if (event === 'gap') {
    const { records, reason } = (gap ?? {}) as { records?: unknown, reason?: unknown }
    return `a gap: ${
      typeof records === 'number' ? records : 'an unknown number of'
    } records are missing, and the service says so: ${quote(String(reason))}`
  }
  if (event === 'torn_line') {
    const { bytes, set_aside: aside } = (torn ?? {}) as { bytes?: unknown, set_aside?: unknown }
    return `${
      Number(bytes)
    } bytes that were no record stood at the end when the service started, and are set aside as ${quote(String(aside))}`
  }
  if (event !== 'checkpoint' || found !== true) return undefined
  return `records ${sealedSequence + 1} to ${
    sequence - 1
  } had no checkpoint when the service started: a crash leaves such records, and so does whoever writes or cuts while the service is down`
}

/** Files that don't follow one another. */
function misplaced (reports: readonly FileReport[]): Problem[] {
  const [first, ...rest] = reports
  let before = first
  for (const report of rest) {
    const { path, number } = report
    if (!before) break
    const at = (what: string) => [{ path, line: 1, what }]
    if (number === before.number) return at(`it is file ${number}, and so is ${before.path}`)
    if (number > before.number + 1) {
      return at(
        `it is file ${number}, and the one before it, ${before.path}, is file ${before.number}: what was between them is missing`
      )
    }
    if (report.before.sequence > before.end.sequence) {
      return [{
        path: before.path,
        line: before.lines,
        what:
          `it ends with record ${before.end.sequence}, and by the header of ${path} with record ${report.before.sequence}: its end was cut off`,
      }]
    }
    if (report.before.sequence < before.end.sequence) {
      return at(
        `by its header the file before ends with record ${report.before.sequence}, and ${before.path} goes on to record ${before.end.sequence}`
      )
    }
    if (report.before.hash !== before.end.hash) {
      return [{
        path: before.path,
        line: before.lines,
        what: `the record was changed: the header of ${path} has another hash of it`,
      }]
    }
    before = report
  }
  return []
}

/** A log that must have been signed by now, and was not. */
function neverSigned (reports: readonly FileReport[]): Problem[] {
  const last = reports.at(-1)
  if (!last || reports.some(({ signers }) => signers.size > 0)) return []
  const records = reports.reduce((sum, report) => sum + report.records, 0)
  if (records <= CHECKPOINT_RECORDS && !reports.some(({ closed }) => closed)) return []
  return [{ path: last.path, line: last.lines, what: `there are ${records} records, and not one signed checkpoint` }]
}

function describe ({ path, number, before, end, lines, closed }: FileReport): string {
  return `${path}: file ${number}, records ${before.sequence + 1} to ${end.sequence} on ${lines} lines, ${
    closed ? 'closed' : 'open: it does not end with a closing checkpoint'
  }`
}

function summary (reports: [FileReport, ...FileReport[]], checked: boolean): string[] {
  const said: string[] = []
  const [first] = reports
  const last = reports.at(-1) as FileReport
  if (first.number > 1) {
    said.push(
      `The log goes further back: it is intact from file ${first.number} on, and the files before it were not given.`
    )
  }
  const checkpoints = reports.reduce((sum, report) => sum + report.checkpoints, 0)
  const unsigned = reports.reduce((sum, report) => sum + report.unsigned, 0)
  const signers = new Set(reports.flatMap(report => [...report.signers]))
  if (unsigned > 0) {
    said.push(
      `${
        unsigned === checkpoints ? 'The' : `${unsigned} of ${checkpoints}`
      } checkpoints are unsigned: whoever may write the files can have written them anew.`
    )
  }
  for (const signer of signers) {
    said.push(`Signed by key ${signer}${checked ? ', which is trusted' : ': compare it, or give --public-key'}.`)
  }
  const newest = reports.findLast(({ signedLines }) => signedLines > 0)
  if (signers.size > 0 && (newest !== last || newest.signedLines < last.lines)) {
    said.push(`No signature covers what comes behind ${newest?.path}:${newest?.signedLines} yet.`)
  }
  const notSigned = last.end.sequence - (newest?.signedSequence ?? first.before.sequence)
  if (checked && notSigned > 0) {
    said.push(notSigned === 1 ? '1 record is not signed yet.' : `${notSigned} records are not signed yet.`)
  }
  if (checkpoints === 0) said.push('There is no checkpoint yet: nothing vouches for the records but their own chain.')
  if (!last.closed) {
    said.push('The end is open: whether records were cut off there, a following file or --expect-sequence tells.')
  }
  said.push(`intact: records ${first.before.sequence + 1} to ${last.end.sequence}`)
  return said
}
