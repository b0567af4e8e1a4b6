import { quote } from '../../../lib/printable.ts'
import { checkpointOf, endsRun, logOf, parseRecord, replicaOf, sha256 } from '../chain.ts'
import { linesOf } from '../lines.ts'

/** A checkpoint of a log that was kept outside it, and so vouches for the log up to there. */
export interface Head {
  /** The file that keeps it. */
  path: string
  log: string
  sequence: number
  hash: string
  time: string
  replica: unknown
  /** A run of the service ended there. */
  endsRun: boolean
}

export interface Heads {
  /** In the order of their sequence numbers. */
  heads: Head[]
  /** What was left out, for a reader. */
  skipped: string[]
  unreadable: string[]
}

/**
 * The heads in files of any kind: excerpts of the service's log, head files, or copies of audit files.
 * @param trusted digests of the keys that count; without it, all do
 */
export async function readHeads (paths: readonly string[], trusted: readonly string[] | undefined): Promise<Heads> {
  const heads = new Map<string, Head>()
  const skipped: string[] = []
  const unreadable: string[] = []
  for (const path of paths) {
    try {
      let found = 0
      for await (const { number, bytes } of linesOf(path)) {
        const head = headIn(bytes.toString(), trusted)
        if (head === undefined) continue
        found++
        if ('problem' in head) skipped.push(`${path}:${number}: skipped: ${head.problem}`)
        else heads.set(`${head.log} ${head.sequence} ${head.hash}`, { ...head, path })
      }
      if (found === 0) unreadable.push(`${path}: there is no head in it: expected lines of the service's log`)
    } catch (error) {
      unreadable.push(`${path}: unreadable: ${(error as Error).message}`)
    }
  }
  return { heads: [...heads.values()].sort((a, b) => a.sequence - b.sequence), skipped, unreadable }
}

/** The head on a line, by itself or in a line of the service's log; `undefined` when there is none. */
export function headIn (
  text: string,
  trusted: readonly string[] | undefined
): Omit<Head, 'path'> | { problem: string } | undefined {
  const json = text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1)
  const line = memberHead(json) ?? json
  const record = parseRecord(Buffer.from(line))
  const log = record && logOf(record)
  if (record?.event !== 'checkpoint' || log === undefined) return
  const read = checkpointOf(record)
  if ('problem' in read) return read
  const { checkpoint: { public_key: key } } = read
  if (trusted && (key === null || !trusted.includes(sha256(Buffer.from(key, 'hex'))))) {
    return { problem: `the head of ${quote(record.time)} is not signed with a trusted key` }
  }
  const { sequence, time } = record
  return { log, sequence, hash: sha256(line), time, replica: replicaOf(record), endsRun: endsRun(record) }
}

/** The member `head` of a log line. */
function memberHead (json: string): string | undefined {
  try {
    const { head } = JSON.parse(json) as { head?: unknown }
    return typeof head === 'string' ? head : undefined
  } catch {
    return undefined
  }
}
