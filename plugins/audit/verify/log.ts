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
  if (number > before.number + 1) {
    const what = problems.filesMissing(number, before.path, before.number, sequence + 1, expected.sequence)
    const { removed } = report
    const how = removed && `. File ${removed.number} was ${problems.removedHow(removed.setAside)}`
    return atStart(report, `${what}${how ?? ''}`)
  }
  if (expected.sequence > sequence) return atEnd(before, problems.fileCutOff(sequence, path, expected.sequence))
  if (expected.sequence < sequence) {
    return atStart(report, problems.fileExtended(expected.sequence, before.path, sequence))
  }
  if (expected.hash !== hash) return atEnd(before, problems.lastRecordChanged(path))
}

/** The first record that was added after the closing record of a run, within a file or as another file. */
export function findAdded (reports: readonly FileReport[]): problems.Problem | undefined {
  for (const [index, report] of reports.entries()) {
    const [added] = report.added
    if (reports[index - 1]?.endsRun && report.lines > 1 && !report.beginsRun) {
      const { path, before: { sequence }, runs: [next], end } = report
      const last = next ? sequence + next.line - 1 : end.sequence
      return { path, line: 1, what: problems.recordsAdded(sequence + 1, last) }
    }
    if (added) return { path: report.path, line: added.line, what: problems.recordsAdded(added.first, added.last) }
  }
}

/** More records in a row without a checkpoint than the service writes, in several files together. */
export function findUnsealed (reports: readonly FileReport[]): problems.Problem | undefined {
  let unsealed = 0
  for (const report of reports) {
    if (unsealed + report.unsealedFirst > CHECKPOINT_RECORDS) {
      return atEnd(report, problems.checkpointMissing(CHECKPOINT_RECORDS))
    }
    unsealed = report.checkpoints > 0 ? report.unsealedLast : unsealed + report.unsealedLast
  }
}

/** A log in files that does not begin as the service begins each one. */
export function findNotBegun ([first]: readonly FileReport[]): problems.Problem | undefined {
  if (first?.number !== 1 || first.log === undefined || first.lines === 1 || first.beginsRun) return
  return { path: first.path, line: 2, what: problems.NO_FIRST_CHECKPOINT }
}

/**
 * Files before the first one that was given, which must be there.
 * @param fromFile the caller does not expect files before this one
 */
export function findEarlierMissing (
  [first]: readonly FileReport[],
  heads: readonly Head[],
  fromFile: number | undefined
): problems.Problem | undefined {
  if (!first || first.number === 1) return
  const { number, removed, before: { sequence: last } } = first
  if (fromFile !== undefined) {
    return number > fromFile ? atStart(first, problems.earlierFilesMissing(number, last, fromFile)) : undefined
  }
  if (removed) {
    return { path: first.path, line: removed.line, what: problems.fileRemoved(removed.number, last, removed.setAside) }
  }
  const early = headsOf(first, heads).filter(({ sequence }) => sequence <= last)
  const newest = early.at(-1)
  if (newest) return atStart(first, problems.beforeHeads({ number, last, count: early.length, newest }))
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
  const ours = headsOf(first, heads)
  const lost = ours.filter(head => isLost(head, reports))
  const [earliest] = lost
  if (earliest) {
    const file = reports.find(({ hashes }) => hashes.has(earliest.sequence))
    const newest = lost.at(-1) ?? earliest
    if (!file) return atEnd(last, problems.behindHead(last.end.sequence, newest))
    const line = Math.max(1, earliest.sequence - file.before.sequence)
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

/** The heads that are about the log that a file is part of. */
export function headsOf ({ log }: FileReport, heads: readonly Head[]): Head[] {
  return heads.filter(head => head.log === log)
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
