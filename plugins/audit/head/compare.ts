import type { KeyObject } from 'node:crypto'
import { createPublicKey } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { quote } from '../../../lib/printable.ts'
import { checkpointOf, type End, hasHeadFile, headerOf, logOf, parseRecord, sha256 } from '../chain.ts'
import { linesOf } from '../lines.ts'
import { rotatedFiles } from '../log-files.ts'
import { type Head, headIn } from '../verify/heads.ts'

/** What a comparison of the log with its head file says: it fits, or why it does not. `note` is for the record. */
export type Comparison = { contradiction: string, note?: never } | { contradiction?: never, note: string | null }

/**
 * Compares the log at `path` with the text of its head file.
 * @param keptBefore the log states that there was a head file before this run
 * @param key signs the heads of this service
 * @throws when a file of the log cannot be read
 */
export async function compare (
  path: string,
  text: string | undefined,
  keptBefore: boolean,
  key: KeyObject | undefined
): Promise<Comparison> {
  if (text === undefined) {
    return keptBefore
      ? { contradiction: 'the head file is missing, but the log states that there was one' }
      : { note: 'there was no head file yet: nothing outside the log vouches for records before this one' }
  }
  const trusted = key && [sha256(createPublicKey(key).export({ type: 'spki', format: 'der' }))]
  const head = headIn(text, trusted)
  if (head === undefined) return { contradiction: 'the head file is empty or damaged' }
  if ('problem' in head) return { contradiction: `the head file does not fit: ${head.problem}` }
  const contradiction = await contradictionOf(await filesOf(path), head)
  return contradiction === undefined ? { note: null } : { contradiction }
}

/** Whether the last checkpoint of the log at `path` states that there was a head file. */
export async function statesHeadFile (path: string): Promise<boolean> {
  for (const file of await filesOf(path)) {
    const states = await lastStates(file)
    if (states !== undefined) return states
  }
  return false
}

/** `undefined` for a file without a checkpoint. */
async function lastStates (file: string): Promise<boolean | undefined> {
  let last: Buffer | undefined
  for await (const { bytes } of linesOf(file)) {
    if (bytes.subarray(0, CHECKPOINT.length).equals(CHECKPOINT)) last = Buffer.from(bytes)
  }
  const record = last && parseRecord(last)
  return record && 'checkpoint' in checkpointOf(record) ? hasHeadFile(record) : undefined
}

/** The first bytes of a checkpoint, in canonical JSON. */
const CHECKPOINT = Buffer.from('{"checkpoint":{')

/** @param files the newest first */
async function contradictionOf (files: readonly string[], head: Omit<Head, 'path'>): Promise<string | undefined> {
  const vouches = `the head of ${quote(head.time)} vouches for record ${head.sequence}`
  let end: number | undefined
  for (const file of files) {
    const before = await headerIn(file)
    if (before === undefined) continue
    if (before.log !== head.log) return `${vouches} of another log than the one that is there`
    // The record itself must be there: its hash in the header of the next file could be all that is left.
    if (head.sequence <= before.sequence) continue
    const { bytes, lines } = await lineIn(file, head.sequence - before.sequence)
    if (bytes) return sha256(bytes) === head.hash ? undefined : changed(head, vouches)
    end = before.sequence + lines
    break
  }
  if (end !== undefined) {
    return `the log ends with record ${end}, but ${vouches}: ${head.sequence - end} records are missing`
  }
  return files.length === 0 ? `${vouches}, but there is no log` : `${vouches}, but the file that contains it is missing`
}

function changed ({ sequence }: Omit<Head, 'path'>, vouches: string): string {
  return `${vouches}, but another record ${sequence} is in the log: it was changed, or set back and continued`
}

/** The log that a file belongs to, and the end of the file before it; `undefined` without a header. */
async function headerIn (file: string): Promise<End & { log: string | undefined } | undefined> {
  const first = await lineIn(file, 1)
  const record = first.bytes && parseRecord(first.bytes)
  const header = headerOf(record)
  return record && header && { log: logOf(record), ...header.before }
}

/** A line, by its number; without it, how many complete lines there are. */
async function lineIn (file: string, line: number): Promise<{ bytes?: Buffer, lines: number }> {
  let lines = 0
  for await (const { number, bytes, torn } of linesOf(file)) {
    if (torn) break
    lines = number
    if (number === line) return { bytes, lines }
  }
  return { lines }
}

/** The files of a log, the newest first. */
async function filesOf (path: string): Promise<string[]> {
  const folder = dirname(path)
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  const rotated = rotatedFiles(basename(path), names).map(name => join(folder, name))
  return names.includes(basename(path)) ? [path, ...rotated] : rotated
}
