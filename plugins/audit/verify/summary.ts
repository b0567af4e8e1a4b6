import { quote } from '../../../lib/printable.ts'
import type { FileReport, Run } from './file.ts'
import type { Head } from './heads.ts'

/** The reports of a log with at least one file. */
type LogReport = readonly [FileReport, ...FileReport[]]

/** A line about a file, and one for each run that began in it and each irregularity that the service recorded in it. */
export function describe (
  { path, number, before, end, lines, closed, log, runs, notes }: FileReport,
  heads: readonly Head[]
): string[] {
  const ours = heads.filter(head => head.log === log)
  const state = closed ? 'closed' : 'open: it does not end with a closing checkpoint'
  return [
    `${path}: file ${number}, records ${before.sequence + 1} to ${end.sequence} on ${lines} lines, ${state}`,
    ...runs.map(run => `${path}:${run.line}: ${describeRun(run, ours)}`),
    ...notes,
  ]
}

/** What a run continued from, and who vouches that nothing came after it. */
function describeRun (
  { time, continues: { file, sequence, hash, closed }, closedAt }: Run,
  heads: readonly Head[]
): string {
  const began = `a run of the service began at ${quote(time)}`
  if (closed === null) return `${began}, with a new log. Nothing outside the files vouches that there was none before`
  const end = closed
    ? 'where the run before it had closed the log'
    : closedAt !== undefined
      ? `but the run before it had closed the log with record ${closedAt}`
      : 'but the run before it has no closing record: it crashed, or its last records were removed'
  const continued = `${began}. It continues after record ${sequence} of file ${file}, ${end}. `
  const before = heads.findLast(head => head.sequence <= sequence)
  if (!before) return `${continued}Nothing outside the files vouches that record ${sequence} was the last`
  if (before.hash === hash && before.endsRun) {
    return `${continued}${nameOf(before)} vouches that record ${sequence} was the last`
  }
  return `${continued}${nameOf(before)} vouches for the records up to ` +
    `${before.sequence}; nothing outside the files vouches that no other came after record ${sequence}`
}

function nameOf ({ path, time }: Head): string {
  return `The head of ${quote(time)} in ${path}`
}

/**
 * Why nothing proves that a log without problems is genuine; empty when something does.
 * @param trusted only the keys that the caller trusts count
 * @param heads those that were given, if any were asked for
 */
export function findUnproven (
  [first, ...others]: LogReport,
  trusted: boolean,
  heads: readonly Head[] | undefined
): string[] {
  const reasons: string[] = []
  if (trusted && [first, ...others].every(({ signers }) => signers.size === 0)) {
    reasons.push(`cannot be verified: no checkpoint is signed with a trusted key, so anyone can have written these ${
      first.number > 1
        ? `records. Pass file ${first.number - 1} too, or wait a minute for the next checkpoint`
        : 'records. A running service writes a signed checkpoint within a minute: copy the files again then'
    }`)
  }
  if (heads && !heads.some(({ log }) => first.log !== undefined && log === first.log)) {
    reasons.push(
      first.log === undefined
        ? 'cannot be compared with the heads: heads are about audit files, and this is not one'
        : `cannot be compared with the heads: none of them is about this log, ${first.log}${
          heads.length > 0 ? '. Pass the heads of this log, or the log that they are about:' : ''
        }`,
      ...Map.groupBy(heads, ({ log }) => log).values().map(describeHeads)
    )
  }
  return reasons
}

/** The heads of one log, of which there is at least one. */
function describeHeads (heads: readonly Head[]): string {
  const newest = heads.at(-1) as Head
  const count = heads.length === 1 ? '1 head is' : `${heads.length} heads are`
  return `${count} about log ${newest.log}, written by ${quote(String(newest.replica))}, up to record ` +
    `${newest.sequence}, in ${newest.path}`
}

/**
 * What can be said about a log without problems, and what cannot.
 * @param trusted each checkpoint was signed with one of the keys that the caller trusts
 */
export function summarize (reports: LogReport, trusted: boolean, heads: readonly Head[]): string[] {
  const [first] = reports
  const last = reports.at(-1) ?? first
  const lines: string[] = []
  if (first.number > 1) {
    lines.push(`The log goes further back: it is intact from file ${first.number} on; earlier files were not given.`)
  }
  lines.push(...summarizeSignatures(reports, trusted), ...summarizeHeads(reports, heads))
  if (reports.every(({ checkpoints }) => checkpoints === 0)) {
    lines.push('There is no checkpoint yet: only the chain itself vouches for the records.')
  }
  if (!last.closed) {
    lines.push(
      'The end is open: only a later file, --heads or --expect-sequence can show whether records were cut off there.'
    )
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

/** How far heads vouch for the log, and which of them are about something else. */
function summarizeHeads ([first, ...others]: LogReport, heads: readonly Head[]): string[] {
  const lines: string[] = []
  const ours = heads.filter(({ log }) => log === first.log)
  const early = ours.filter(({ sequence }) => sequence <= first.before.sequence).length
  const newest = ours.at(-1)
  if (newest && newest.sequence > first.before.sequence) {
    const end = (others.at(-1) ?? first).end.sequence
    lines.push(
      `${ours.length - early} heads vouch for the records up to ${newest.sequence}` +
        `${newest.sequence < end ? `, and for none of the ${end - newest.sequence} after it` : ''}.`
    )
  }
  if (early > 0) {
    lines.push(
      `${early} heads are about records 1 to ${first.before.sequence}, before the files that were given.`
    )
  }
  const foreign = heads.length - ours.length
  if (foreign > 0) {
    const logs = new Set(heads.flatMap(({ log }) => log === first.log ? [] : log)).size
    lines.push(`${foreign} heads are about ${logs} other logs, which were not given. This log is ${first.log}.`)
  }
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
