import { hash } from 'node:crypto'
import { logOf, readRecord } from './chain.ts'
import { type Line, lineBatchesOf, linesOf } from './lines.ts'
import type { LogRecord } from './record.ts'

/** More than the batches that a few replicas send at once: a collector may receive each of them twice. */
const REMEMBERED_LINES = 16_384

/** A line of a log and where it is; `record` is missing when there is none on it. Nothing else has been checked. */
export interface LogLine { path: string, number: number, bytes: Buffer, record: LogRecord | undefined }

/** A file and what its first line states. */
interface LogFile { path: string, log: string | undefined, sequence: number, time: string, first: string }

/** Lines of a file that have been read together. */
interface Batch { path: string, lines: Iterator<Line> }

/** Files that are read one after the other. */
interface Source {
  files: LogFile[]
  /** Time of the latest record that was read, or of the first one. */
  time: string
  batches: AsyncGenerator<Batch, void, void>
  batch?: Batch
  next?: LogLine | undefined
}

/**
 * The lines of the files of one or more logs, exact copies once. The files of a log, by what their first records
 * state, are read in the log's order, whatever their names are; everything else is merged by time. Only files that
 * overlap are open together, and no file is held in memory.
 * @throws when a file cannot be read
 */
export async function * recordsIn (paths: readonly string[]): AsyncGenerator<LogLine, void, void> {
  const waiting = sourcesOf(await Promise.all(paths.map(inspect)))
  const open: Source[] = []
  const latest = new LatestLines()
  for (;;) {
    let source = earliest(open)
    while (waiting[0] && (!source || waiting[0].time <= source.time)) {
      const opened = waiting.shift() as Source
      if (await advance(opened)) open.push(opened)
      source = earliest(open)
    }
    if (!source?.next) return
    const line = source.next
    if (!latest.isCopy(line)) yield line
    if (!advanceInBatch(source) && !await advance(source)) open.splice(open.indexOf(source), 1)
  }
}

async function inspect (path: string): Promise<LogFile> {
  const lines = linesOf(path)
  const { value: line } = await lines.next()
  await lines.return()
  const record = line && recordOn(line)
  return {
    path,
    log: record?.event === 'header' ? logOf(record) : undefined,
    sequence: record?.sequence ?? 0,
    time: record?.time ?? '',
    first: line ? hash('sha256', line.bytes) : '',
  }
}

/** One for each log, and one for each file that states no log or is there twice, the earliest first. */
function sourcesOf (files: LogFile[]): Source[] {
  const logs = new Map<string, LogFile[]>()
  const others: LogFile[][] = []
  const seen = new Set<string>()
  for (const file of files.sort((a, b) => a.sequence - b.sequence)) {
    const { log, first } = file
    if (log === undefined || seen.has(first)) others.push([file])
    else logs.set(log, [...logs.get(log) ?? [], file])
    seen.add(first)
  }
  return [...logs.values(), ...others]
    .map(files => ({ files, time: files[0]?.time ?? '', batches: batchesIn(files) }))
    .sort((a, b) => a.time < b.time ? -1 : a.time > b.time ? 1 : 0)
}

async function * batchesIn (files: LogFile[]): AsyncGenerator<Batch, void, void> {
  for (const { path } of files) {
    for await (const lines of lineBatchesOf(path)) yield { path, lines }
  }
}

function recordOn ({ bytes, torn }: Line): LogRecord | undefined {
  return torn ? undefined : readRecord(bytes) as LogRecord | undefined
}

/** Reads the next line. Resolves to whether there is one. */
async function advance (source: Source): Promise<boolean> {
  while (!advanceInBatch(source)) {
    const { value } = await source.batches.next()
    if (!value) return false
    source.batch = value
  }
  return true
}

/** Reads the next line without waiting. Returns whether there is one. */
function advanceInBatch (source: Source): boolean {
  const { value: line } = source.batch?.lines.next() ?? {}
  if (!line) {
    source.next = undefined
    return false
  }
  const record = recordOn(line)
  source.next = { path: source.batch?.path ?? '', ...line, record }
  // A clock that was set back does not change the order of a log.
  const time = record?.time ?? ''
  if (time > source.time) source.time = time
  return true
}

function earliest (sources: Source[]): Source | undefined {
  let found: Source | undefined
  for (const source of sources) if (!found || isBefore(source, found)) found = source
  return found
}

function isBefore (a: Source, b: Source): boolean {
  return a.time < b.time || (a.time === b.time && sequenceOf(a.next) < sequenceOf(b.next))
}

function sequenceOf (line: LogLine | undefined): number {
  return line?.record?.sequence ?? 0
}

/** Remembers the latest lines. */
class LatestLines {
  readonly #digests = new Set<string>()
  /** The same, in the order in which they came: a set finds its oldest member only slowly. */
  readonly #order: string[] = []
  #next = 0

  /** Returns whether a line is an exact copy of one of them, and remembers it otherwise. */
  isCopy ({ bytes, record }: LogLine): boolean {
    if (!record) return false
    const digest = hash('sha256', bytes, 'base64')
    if (this.#digests.has(digest)) return true
    const oldest = this.#order[this.#next]
    if (oldest !== undefined) this.#digests.delete(oldest)
    this.#digests.add(digest)
    this.#order[this.#next] = digest
    this.#next = (this.#next + 1) % REMEMBERED_LINES
    return false
  }
}
