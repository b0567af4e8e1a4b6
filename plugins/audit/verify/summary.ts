import { quote } from '../../../lib/printable.ts'
import type { FileReport, Run } from './file.ts'

/** The reports of a log with at least one file. */
type LogReport = readonly [FileReport, ...FileReport[]]

/** A line about a file, and one for each run that began in it and each irregularity that the service recorded in it. */
export function describe ({ path, number, before, end, lines, closed, runs, notes }: FileReport): string[] {
  const state = closed ? 'closed' : 'open: it does not end with a closing checkpoint'
  return [
    `${path}: file ${number}, records ${before.sequence + 1} to ${end.sequence} on ${lines} lines, ${state}`,
    ...runs.map(run => `${path}:${run.line}: ${describeRun(run)}`),
    ...notes,
  ]
}

/** What a run continued from, and who vouches that nothing came after it. */
function describeRun ({ time, continues: { file, sequence, closed } }: Run): string {
  const began = `a run of the service began at ${quote(time)}`
  if (closed === null) return `${began}, with a new log. Nothing outside the files vouches that there was none before`
  const end = closed
    ? 'where the run before it had closed the log'
    : 'but the run before it has no closing record: it crashed, or its last records were removed'
  return `${began}. It continues after record ${sequence} of file ${file}, ${end}. ` +
    `Nothing outside the files vouches that record ${sequence} was the last`
}

/**
 * What can be said about a log without problems, and what cannot.
 * @param trusted each checkpoint was signed with one of the keys that the caller trusts
 */
export function summarize (reports: LogReport, trusted: boolean): string[] {
  const [first] = reports
  const last = reports.at(-1) ?? first
  const lines: string[] = []
  if (first.number > 1) {
    lines.push(`The log goes further back: it is intact from file ${first.number} on; earlier files were not given.`)
  }
  lines.push(...summarizeSignatures(reports, trusted))
  if (reports.every(({ checkpoints }) => checkpoints === 0)) {
    lines.push('There is no checkpoint yet: only the chain itself vouches for the records.')
  }
  if (!last.closed) {
    lines.push('The end is open: only a later file or --expect-sequence can show whether records were cut off there.')
  }
  if (last.closed && !last.endsRun) {
    lines.push(
      `File ${last.number} was closed to begin file ${last.number + 1}, which was not given. If it does not exist, ` +
        'it was removed, or the service crashed before it could begin it.'
    )
  }
  lines.push(`intact: records ${first.before.sequence + 1} to ${last.end.sequence}`)
  return lines
}

/** Who signed, and which records no signature covers. */
function summarizeSignatures (reports: LogReport, trusted: boolean): string[] {
  const [first] = reports
  const last = reports.at(-1) ?? first
  const lines: string[] = []
  const checkpoints = reports.reduce((sum, report) => sum + report.checkpoints, 0)
  const unsigned = reports.reduce((sum, report) => sum + report.unsigned, 0)
  if (unsigned > 0) {
    const which = unsigned === checkpoints ? 'The' : `${unsigned} of ${checkpoints}`
    lines.push(`${which} checkpoints are unsigned: anyone who can write the files can have rewritten them all.`)
  }
  for (const signer of new Set(reports.flatMap(({ signers }) => [...signers]))) {
    lines.push(`Signed by key ${signer}${trusted ? ', which is trusted' : ': compare it, or pass --public-key'}.`)
  }
  const newest = reports.findLast(({ signedLines }) => signedLines > 0)
  if (newest && (newest !== last || newest.signedLines < last.lines)) {
    lines.push(`No signature covers the records after ${newest.path}:${newest.signedLines} yet.`)
  }
  const notSigned = last.end.sequence - (newest?.signedSequence ?? first.before.sequence)
  if (trusted && notSigned > 0) {
    lines.push(notSigned === 1 ? '1 record is not signed yet.' : `${notSigned} records are not signed yet.`)
  }
  return lines
}
