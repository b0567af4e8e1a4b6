import type { FileReport } from './file.ts'

/** The reports of a log with at least one file. */
type LogReport = readonly [FileReport, ...FileReport[]]

/** A line about a file, and one for each irregularity that the service recorded in it. */
export function describe ({ path, number, before, end, lines, closed, notes }: FileReport): string[] {
  const state = closed ? 'closed' : 'open: it does not end with a closing checkpoint'
  return [
    `${path}: file ${number}, records ${before.sequence + 1} to ${end.sequence} on ${lines} lines, ${state}`,
    ...notes,
  ]
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
