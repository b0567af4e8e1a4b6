import { CHECKPOINT_RECORDS } from '../chain.ts'
import type { FileReport } from './file.ts'
import type { Head } from './heads.ts'
import * as problems from './problems.ts'

/** The first file that does not follow the one before it. Reports are in the order of their numbers. */
export function findMisplaced (reports: readonly FileReport[]): problems.Problem | undefined {
  for (const [index, report] of reports.entries()) {
    const before = reports[index - 1]
    const problem = before && misplacement(before, report)
    if (problem) return problem
  }
}

function misplacement (before: FileReport, report: FileReport): problems.Problem | undefined {
  const { path, number, before: expected } = report
  const { sequence, hash } = before.end
  if (report.log !== before.log) return atStart(report, problems.otherLog(before.path))
  if (number === before.number) return atStart(report, problems.sameNumber(number, before.path))
  if (number > before.number + 1) return atStart(report, problems.filesMissing(number, before.path, before.number))
  if (expected.sequence > sequence) return atEnd(before, problems.fileCutOff(sequence, path, expected.sequence))
  if (expected.sequence < sequence) {
    return atStart(report, problems.fileExtended(expected.sequence, before.path, sequence))
  }
  if (expected.hash !== hash) return atEnd(before, problems.lastRecordChanged(path))
}

/** A log that is so long, or closed, that it must have been signed by now, but was not. */
export function findNeverSigned (reports: readonly FileReport[]): problems.Problem | undefined {
  const last = reports.at(-1)
  if (!last || reports.some(({ signers }) => signers.size > 0)) return
  const records = reports.reduce((sum, report) => sum + report.records, 0)
  if (records > CHECKPOINT_RECORDS || reports.some(({ closed }) => closed)) {
    return atEnd(last, problems.neverSigned(records))
  }
}

/** A log that ends before a record that is known to have been written. */
export function findCutOff (reports: readonly FileReport[], expectSequence: number): problems.Problem | undefined {
  const last = reports.at(-1)
  if (last && last.end.sequence < expectSequence) {
    return atEnd(last, problems.logCutOff(last.end.sequence, expectSequence))
  }
}

/** What signed heads vouch for and the log does not have. */
export function findMissing (reports: readonly FileReport[], heads: readonly Head[]): problems.Problem | undefined {
  const [first] = reports
  const last = reports.at(-1)
  if (!first || !last) return
  const ours = heads.filter(({ log }) => log === first.log)
  const lost = ours.filter(head => isLost(head, reports))
  const [earliest] = lost
  if (earliest) {
    const file = reports.find(({ hashes }) => hashes.has(earliest.sequence))
    const newest = lost.at(-1) ?? earliest
    if (!file) return atEnd(last, problems.behindHead(last.end.sequence, newest))
    const line = earliest.sequence - file.before.sequence
    return { path: file.path, line, what: problems.besideHead(earliest, lost.length) }
  }
  const replicas = new Set(reports.flatMap(({ replicas }) => [...replicas]))
  const replaced = heads.findLast(({ log, replica }) =>
    log !== first.log && placeOf(log) === placeOf(first.log) && replicas.has(replica)
  )
  if (replaced) return atStart(first, problems.logReplaced(replaced))
}

/** A record that should be in the files that were given, and is not or is another one. */
function isLost ({ sequence, hash }: Head, reports: readonly FileReport[]): boolean {
  const found = reports.find(({ hashes }) => hashes.has(sequence))?.hashes.get(sequence)
  return found === undefined ? sequence > (reports.at(-1)?.end.sequence ?? 0) : found !== hash
}

function placeOf (log: string | undefined): string | undefined {
  return log?.split('-')[0]
}

function atStart ({ path }: FileReport, what: string): problems.Problem {
  return { path, line: 1, what }
}

function atEnd ({ path, lines }: FileReport, what: string): problems.Problem {
  return { path, line: lines, what }
}
