/** Verifies, from its files alone, that an audit log is as the service wrote it. */
import { createPublicKey } from 'node:crypto'
import { sha256 } from '../chain.ts'
import { sideFile } from '../side-files.ts'
import { type FileReport, verifyFile } from './file.ts'
import { readHeads } from './heads.ts'
import {
  findAdded,
  findCutOff,
  findEarlierMissing,
  findMisplaced,
  findMissing,
  findNeverSigned,
  findNotBegun,
  findUnsealed,
} from './log.ts'
import type { Problem } from './problems.ts'
import { describe, findUnproven, summarize } from './summary.ts'

export interface VerifyOptions {
  /** PEM of the trusted keys: every checkpoint must be signed with one of them. */
  publicKeys?: readonly string[]
  /** Sequence number of a record that is known to have been written: a log that ends before it was cut off. */
  expectSequence?: number
  /** Files with signed heads, which vouch for the log from outside it. */
  headFiles?: readonly string[]
  /** The number of the first file that must be there: earlier ones were removed on purpose. */
  fromFile?: number
}

export interface Verdict {
  /** 0 intact, 1 altered or incomplete, 2 unreadable or not proven. */
  exitCode: 0 | 1 | 2
  /** Lines of text for a reader, problems included. */
  findings: string[]
  problems: Problem[]
}

/**
 * Verifies the files of one chain, given in any order. Anyone who can write the files can forge an unsigned chain as a
 * whole; the findings say so. Not detected: a change to the last record of an open file, since nothing follows it; and
 * without heads, records cut off at an open end or before a run. Never rejects: files and keys that cannot be read are
 * part of the verdict.
 */
export async function verifyFiles (
  paths: readonly string[],
  { publicKeys, expectSequence, headFiles, fromFile }: VerifyOptions = {}
): Promise<Verdict> {
  let trusted: string[] | undefined
  try {
    trusted = publicKeys?.map(fingerprint)
  } catch (error) {
    return { exitCode: 2, findings: [`the public key cannot be read: ${(error as Error).message}`], problems: [] }
  }

  const outside = await readHeads(headFiles ?? [], trusted)
  const { heads } = outside
  const sequences = new Set(heads.map(({ sequence }) => sequence))
  const { reports, problems, skipped, unreadable } = await verifyEach(paths, trusted, sequences)
  skipped.push(...outside.skipped)
  unreadable.push(...outside.unreadable)
  if (problems.length === 0 && unreadable.length === 0) {
    const problem = findMisplaced(reports) ??
      findAdded(reports) ??
      (trusted && (findNeverSigned(reports) ?? findNotBegun(reports))) ??
      findUnsealed(reports) ??
      (expectSequence === undefined ? undefined : findCutOff(reports, expectSequence)) ??
      findMissing(reports, heads) ??
      findEarlierMissing(reports, heads, fromFile)
    if (problem) problems.push(problem)
  }

  const findings = [
    ...skipped,
    ...unreadable,
    ...reports.flatMap(report => describe(report, heads)),
    ...problems.map(({ path, line, what }) => `${path}:${line}: altered: ${what}`),
  ]
  if (problems.length > 0) return { exitCode: 1, findings, problems }
  const [first, ...others] = reports
  if (!first || unreadable.length > 0) return { exitCode: 2, findings, problems }
  const unproven = findUnproven([first, ...others], trusted !== undefined, headFiles && heads)
  if (unproven.length > 0) return { exitCode: 2, findings: [...findings, ...unproven], problems }
  findings.push(...summarize([first, ...others], trusted !== undefined, heads))
  return { exitCode: 0, findings, problems }
}

/** Verifies each file by itself. Reports are in the order of the files' numbers. */
async function verifyEach (
  paths: readonly string[],
  trusted: readonly string[] | undefined,
  sequences: ReadonlySet<number>
) {
  const reports: FileReport[] = []
  const problems: Problem[] = []
  const skipped: string[] = []
  const unreadable: string[] = []
  for (const path of paths) {
    const aside = sideFile(path)
    if (aside !== undefined) {
      skipped.push(`${path}: skipped: ${aside}, which is not part of the chain`)
      continue
    }
    try {
      const found = await verifyFile(path, trusted, sequences)
      if ('what' in found) problems.push(found)
      else reports.push(found)
    } catch (error) {
      unreadable.push(`${path}: unreadable: ${(error as Error).message}`)
    }
  }
  reports.sort((a, b) => a.number - b.number)
  return { reports, problems, skipped, unreadable }
}

/** SHA-256 of a key's SPKI in DER. @throws when the PEM is not a key */
function fingerprint (pem: string): string {
  return sha256(createPublicKey(pem).export({ type: 'spki', format: 'der' }))
}
