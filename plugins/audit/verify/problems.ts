import { quote } from '../../../lib/printable.ts'

/** A place in a log that is not as the service wrote it. */
export interface Problem { path: string, line: number, what: string }

// --- Within a file

export const TORN_LINE =
  'the line is incomplete. A crash leaves such a line too; the service sets it aside at its next start'
export const TORN_LINE_AFTER_CLOSING =
  'the line is incomplete. It was added while the service was stopped: no crash leaves a line after the closing record'
export const NOT_A_RECORD = 'the line is not a record in canonical JSON'
export const NO_HEADER = 'the file does not begin with a header'
export const HEADER_WITHIN_FILE = 'there is a header in the middle of the file'
export const RECORD_CHANGED = 'the record was changed'
export const RECORD_OR_HASH_CHANGED = 'the record was changed, or its hash in the next one was'
export const CHECKPOINT_NOT_SIGNED = 'the checkpoint is not signed'

export function recordsMissing (count: number): string {
  return `${count} records are missing before this one`
}

export function outOfOrder (sequence: number, before: number): string {
  return `record ${sequence} comes after record ${before}: it was inserted or moved`
}

export function checkpointMissing (maxRecords: number): string {
  return `more than ${maxRecords} records in a row are without a checkpoint: the service writes one earlier`
}

export function signedByAnotherKey (signer: string): string {
  return `the checkpoint is signed by another key, ${signer}`
}

// --- Between files

export function sameNumber (number: number, other: string): string {
  return `this is file ${number}, and so is ${other}`
}

export function otherLog (before: string): string {
  return `the file belongs to another log than ${before}`
}

export function recordsAdded (first: number, last: number): string {
  return `${records(first, last)} added while the service was stopped: record ${first - 1} closed the log, and no ` +
    'crash leaves a record after that'
}

/** @param first the first record of the files that are missing */
export function filesMissing (
  number: number,
  before: string,
  beforeNumber: number,
  first: number,
  last: number
): string {
  return `this is file ${number}, but the one before it, ${before}, is file ${beforeNumber}: the files between them, ` +
    `with records ${first} to ${last}, are missing`
}

/** @param setAside the name under which the service kept the file, if it was altered */
export function fileRemoved (number: number, last: number, setAside: string | undefined): string {
  return `records 1 to ${last} are missing: the last of them were in file ${number}, which was ` +
    `${removedHow(setAside)}, as the service recorded. Pass that file and all before it${startsAt(number + 1)}`
}

export function removedHow (setAside: string | undefined): string {
  return setAside === undefined
    ? 'moved or removed while the service was writing to it'
    : `altered while the service was writing to it and set aside as ${quote(setAside)}`
}

/** What to do when files are missing on purpose. */
function startsAt (number: number): string {
  return `, or --from-file ${number} if they were removed on purpose`
}

export function earlierFilesMissing (number: number, last: number, expected: number): string {
  return `this is file ${number}, but the log is expected from file ${expected} on: records up to ${last} are missing`
}

export function fileCutOff (sequence: number, next: string, expected: number): string {
  return `the file ends with record ${sequence}, but with record ${expected} according to the header of ${next}: ` +
    'its end was cut off'
}

export function fileExtended (expected: number, before: string, sequence: number): string {
  return `according to this header, the previous file ends with record ${expected}, ` +
    `but ${before} continues to record ${sequence}`
}

export function lastRecordChanged (next: string): string {
  return `${RECORD_CHANGED}: the header of ${next} has a different hash for it`
}

export function neverSigned (records: number): string {
  return `there are ${records} records, but no signed checkpoint`
}

export const NO_FIRST_CHECKPOINT =
  'the log does not begin with a checkpoint: the service writes one before its first record'

export function logCutOff (sequence: number, expected: number): string {
  return `the log ends with record ${sequence}, but record ${expected} is expected: its end was cut off`
}

// --- Between the files and signed heads

interface HeadName { path: string, sequence: number, time: string }

export function behindHead (sequence: number, head: HeadName): string {
  return `the log ends with record ${sequence}, but ${named(head)} vouches for record ${head.sequence}: ` +
    `${head.sequence - sequence} records are missing`
}

export function besideHead (head: HeadName, count: number): string {
  return `this is not the record that ${named(head)} vouches for, and so for ${count} heads: the log was set back to ` +
    'an earlier end and continued from there, and the records written before that are missing'
}

export function logReplaced (head: HeadName): string {
  return `${named(head)} vouches for record ${head.sequence} of another log in the same place, written by the same ` +
    'instance: that log was removed, or its files were not given'
}

export function beforeHeads (
  { number, last, count, newest }: { number: number, last: number, count: number, newest: HeadName }
): string {
  return `records 1 to ${last} are missing: the log begins with file ${number}, but ${named(newest)} vouches for ` +
    `the records up to ${newest.sequence} (${count} heads are about records before this file). Pass all files from ` +
    `file 1 on${startsAt(number)}`
}

function records (first: number, last: number): string {
  return first === last ? `record ${first} was` : `records ${first} to ${last} were`
}

function named ({ path, time }: HeadName): string {
  return `the head of ${quote(time)} in ${path}`
}
