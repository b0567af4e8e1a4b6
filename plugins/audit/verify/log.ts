import { CHECKPOINT_RECORDS } from '../chain.ts'
import type { FileReport } from './file.ts'
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

function atStart ({ path }: FileReport, what: string): problems.Problem {
  return { path, line: 1, what }
}

function atEnd ({ path, lines }: FileReport, what: string): problems.Problem {
  return { path, line: lines, what }
}
