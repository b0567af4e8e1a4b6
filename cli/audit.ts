/**
 * `kafscale-mcp audit`: reads the files of an audit log, without the service that wrote them, and tells the service
 * what an operator acknowledges.
 */
import { readFile } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { UsageError } from '../errors.ts'
import { escapeUnprintable, quote, quoteUnlessPlain } from '../lib/printable.ts'
import { isCanonical } from '../plugins/audit/chain.ts'
import { digestOf, hasAcknowledgement, writeAcknowledgement } from '../plugins/audit/head/acknowledgement.ts'
import { HeadFile } from '../plugins/audit/head/head-file.ts'
import { recordsIn } from '../plugins/audit/log-records.ts'
import { METHODS, OUTCOMES, RECORD_EVENTS } from '../plugins/audit/record.ts'
import { isWithin, localTime, type RecordFilter, recordMatches, Table } from '../plugins/audit/show.ts'
import { sideFile } from '../plugins/audit/side-files.ts'
import { Story } from '../plugins/audit/story.ts'
import { headIn } from '../plugins/audit/verify/heads.ts'
import { verifyFiles } from '../plugins/audit/verify/index.ts'

const USAGE = `Usage:
  kafscale-mcp audit verify FILE... [--public-key PEM_FILE]... [--heads HEADS_FILE]...
                                    [--expect-sequence N] [--from-file N]
      Checks whether records were changed, removed, inserted, reordered or cut off. FILEs are those of one log, in any
      order. HEADS_FILEs contain signed heads that were kept elsewhere, such as lines of the service's log: records that
      they vouch for must be there. With --from-file, all files from file N on must be there, and earlier ones need
      not: use it when they were removed on purpose. Exit codes: 0 intact, 1 altered or incomplete (with file and
      line), 2 unreadable or not proven: no signature of a trusted key, or no head of this log.
  kafscale-mcp audit show FILE... [--who SUBJECT]... [--method METHOD]... [--tool NAME]... [--topic NAME]...
                                  [--group NAME]... [--event EVENT]... [--outcome ok|error|denied]... [--rule RULE]...
                                  [--change ID]... [--since TIME] [--until TIME] [--local | --json]
      Prints the records for which every option holds, as a table or as one JSON object per line; one of the values of
      an option is enough. FILEs can be rotated and compressed (.gz, .zst), of several logs, and in any order. TIME is
      RFC 3339 or a date, in UTC if it has no offset. --since is inclusive, --until is not. With --local, times without
      an offset, and those in the table, are in the machine's zone. With --change, it tells the story of a change from
      the logs of all replicas: every step, in the order of time, with the difference that was planned or observed.
  kafscale-mcp audit acknowledge HEAD_FILE --by NAME --reason TEXT
      Lets the service answer calls again after it found that the audit log contradicts HEAD_FILE. The service records
      who acknowledged that and why: now if it is running, otherwise at its next start.
`

const TAKEN_WITHIN_MS = 5_000
const POLL_INTERVAL_MS = 100
/** Of the output of `audit show`, to write at once. */
const PART_CHARACTERS = 64 * 1024
/** A day, a time of day and an offset from UTC. */
const TIME = /^(\d{4}-\d\d-\d\d)(?:([T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:\d\d)?)?$/i

/** Runs `audit verify`, `audit show` or `audit acknowledge`. Resolves to the exit code. */
export async function audit ([command, ...options]: string[]): Promise<number> {
  try {
    switch (command) {
      case 'verify':
        return await verify(options)
      case 'show':
        return await show(options)
      case 'acknowledge':
        return await acknowledge(options)
      case '--help':
      case '-h':
        process.stdout.write(USAGE)
        return 0
      default:
        throw new UsageError(command === undefined ? 'missing command' : `unknown command ${quote(command)}`)
    }
  } catch (error) {
    const isUsageError = error instanceof UsageError ||
      String((error as NodeJS.ErrnoException).code).startsWith('ERR_PARSE_ARGS')
    process.stderr.write(`kafscale-mcp audit: ${(error as Error).message}\n${isUsageError ? USAGE : ''}`)
    return 2
  }
}

async function verify (args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      'public-key': { type: 'string', multiple: true },
      'expect-sequence': { type: 'string' },
      'from-file': { type: 'string' },
      heads: { type: 'string', multiple: true },
    },
  })
  const { 'public-key': keyFiles, 'expect-sequence': expected, 'from-file': fromFile, heads: headFiles } = values
  if (expected !== undefined && !/^[0-9]{1,15}$/.test(expected)) {
    throw new UsageError(`--expect-sequence is ${quote(expected)}: expected a number`)
  }
  if (fromFile !== undefined && !/^[1-9][0-9]{0,14}$/.test(fromFile)) {
    throw new UsageError(`--from-file is ${quote(fromFile)}: expected the number of a file, from 1`)
  }
  const { exitCode, findings } = await verifyFiles(filesOf(positionals), {
    ...keyFiles && { publicKeys: await Promise.all(keyFiles.map(path => readFile(path, 'utf8'))) },
    ...headFiles && { headFiles },
    ...fromFile !== undefined && { fromFile: Number(fromFile) },
    ...expected !== undefined && { expectSequence: Number(expected) },
  })
  const output = findings.map(finding => `${escapeUnprintable(finding)}\n`).join('')
  ;(exitCode === 0 ? process.stdout : process.stderr).write(output)
  return exitCode
}

async function show (args: string[]): Promise<number> {
  const text = { type: 'string' } as const
  const list = { type: 'string', multiple: true } as const
  const flag = { type: 'boolean', default: false } as const
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      who: list,
      method: list,
      tool: list,
      topic: list,
      group: list,
      event: list,
      outcome: list,
      rule: list,
      change: list,
      since: text,
      until: text,
      local: flag,
      json: flag,
    },
  })
  const { since, until, local, json, ...lists } = values
  if (local && json) throw new UsageError('--local is for the table: --json prints lines as they are recorded, in UTC')
  // A misspelled value would select nothing, which reads like an answer.
  requireKnown('--event', lists.event, RECORD_EVENTS)
  requireKnown('--outcome', lists.outcome, OUTCOMES)
  requireKnown('--method', lists.method, METHODS)
  const filter: RecordFilter = {
    ...lists,
    since: timeOf('--since', since, local),
    until: timeOf('--until', until, local),
  }
  if (filter.since && filter.until && filter.since >= filter.until) {
    throw new UsageError(`--since (${since}) is not before --until (${until}): nothing is from such a time`)
  }
  const paths = filesOf(positionals).filter(file => sideFile(file) === undefined)
  const seen = { records: 0, shown: 0, invalid: 0, gaps: 0, first: '', last: '' }
  const shownTime = local ? localTime : (time: string) => time
  const table = lists.change ? new Story(shownTime) : new Table(shownTime)
  try {
    await pipeline(shown(paths, filter, json ? undefined : table, seen), process.stdout, { end: false })
  } catch (error) {
    // The reader of the output has seen enough.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error
    return 0
  }
  if (seen.shown === 0) process.stderr.write(`${nothingShown(seen, shownTime)}\n`)
  if (seen.gaps > 0) {
    process.stderr.write(`records are missing: audit show --event gap lists ${seen.gaps} gaps of that time\n`)
  }
  return seen.invalid > 0 ? 1 : 0
}

interface Seen { records: number, shown: number, invalid: number, gaps: number, first: string, last: string }

/** What `audit show` prints, in parts. Counts what it has seen. */
async function * shown (
  paths: string[],
  filter: RecordFilter,
  table: Table | Story | undefined,
  seen: Seen
): AsyncGenerator<string, void, void> {
  let part = ''
  for await (const { path, number, bytes, record } of recordsIn(paths)) {
    const matches = record && recordMatches(record, filter)
    // To check every line of a large log takes longer than to read it.
    if (!record || (matches && !isCanonical(bytes, record))) {
      seen.invalid++
      process.stderr.write(`${escapeUnprintable(path)}:${number}: not a valid record: run audit verify\n`)
      continue
    }
    seen.records++
    seen.first ||= record.time
    seen.last = record.time
    if (!matches) {
      if (record.event === 'gap' && isWithin(record, filter)) seen.gaps++
      continue
    }
    seen.shown++
    // A canonical line has no characters that cannot be seen.
    part += table ? table.add(record) : `${bytes.toString()}\n`
    if (part.length >= PART_CHARACTERS) {
      yield part
      part = ''
    }
  }
  yield part + (table?.rest() ?? '')
}

function nothingShown ({ records, first, last }: Seen, shownTime: (time: string) => string): string {
  const [from, to] = [first, last].map(time => quoteUnlessPlain(shownTime(time)))
  const found = records === 0
    ? 'the files contain no records'
    : `the files contain ${records} records, from ${from} to ${to}`
  return `no record matches: ${found}`
}

function requireKnown (option: string, given: string[] | undefined, known: readonly string[]): void {
  const unknown = given?.find(value => !known.includes(value))
  if (unknown !== undefined) throw new UsageError(`${option} is ${quote(unknown)}: expected ${known.join(', ')}`)
}

async function acknowledge (args: string[]): Promise<number> {
  const { values: { by, reason }, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { by: { type: 'string' }, reason: { type: 'string' } },
  })
  const [path, ...others] = positionals
  if (path === undefined || others.length > 0) throw new UsageError('expected one HEAD_FILE')
  if (!by?.trim()) throw new UsageError('--by is not set: expected the name of whoever acknowledges')
  if (!reason?.trim()) throw new UsageError('--reason is not set: expected why the log may contradict its head file')
  const text = await new HeadFile(path).read()
  const head = text === undefined ? undefined : headIn(text, undefined)
  await writeAcknowledgement(path, { by, reason, time: new Date().toISOString(), head: digestOf(text) })
  const about = text === undefined
    ? 'there is no head file'
    : head && 'sequence' in head
      ? `the log may lack records up to ${head.sequence}, of ${quote(head.time)}`
      : 'the head file is empty or damaged'
  process.stdout.write(`Acknowledged: ${about}.\n`)
  const deadlineMs = performance.now() + TAKEN_WITHIN_MS
  while (await hasAcknowledgement(path) && performance.now() < deadlineMs) await delay(POLL_INTERVAL_MS)
  process.stdout.write(
    await hasAcknowledgement(path)
      ? 'No running service has taken it. If none is running, the next start records it.\n'
      : 'The service has taken it: audit show --event head_acknowledgement shows the record.\n'
  )
  return 0
}

function filesOf (paths: string[]): string[] {
  if (paths.length === 0) throw new UsageError('missing FILE')
  return paths
}

function timeOf (option: string, text: string | undefined, local: boolean): Date | undefined {
  if (text === undefined) return
  const [, day = '', clock = 'T00:00', offset = local ? '' : 'Z'] = TIME.exec(text) ?? []
  const date = new Date(`${day}${clock.replace(' ', 'T')}${offset}`)
  // JavaScript takes February 30 for March 2.
  const midnight = new Date(`${day}T00:00Z`)
  const isDay = !Number.isNaN(midnight.getTime()) && midnight.toISOString().startsWith(day)
  if (!isDay || Number.isNaN(date.getTime())) {
    throw new UsageError(`${option} is ${quote(text)}: expected a time such as 2026-07-28T12:00:00Z, or a date`)
  }
  return date
}
