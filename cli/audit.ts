/**
 * `kafscale-mcp audit`: reads the files of an audit log, without the service that wrote them, and tells the service
 * what an operator acknowledges.
 */
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { UsageError } from '../errors.ts'
import { escapeUnprintable, quote } from '../lib/printable.ts'
import { parseRecord } from '../plugins/audit/chain.ts'
import { digestOf, hasAcknowledgement, writeAcknowledgement } from '../plugins/audit/head/acknowledgement.ts'
import { HeadFile } from '../plugins/audit/head/head-file.ts'
import { linesOf } from '../plugins/audit/lines.ts'
import type { LogRecord } from '../plugins/audit/record.ts'
import { type RecordFilter, recordMatches, table } from '../plugins/audit/show.ts'
import { sideFile } from '../plugins/audit/side-files.ts'
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
  kafscale-mcp audit show FILE... [--who SUBJECT] [--tool NAME] [--event EVENT] [--outcome ok|error|denied]
                                  [--since TIME] [--until TIME] [--json]
      Prints the records as a table, or as one JSON object per line. TIME is RFC 3339, or a date.
  kafscale-mcp audit acknowledge HEAD_FILE --by NAME --reason TEXT
      Lets the service answer calls again after it found that the audit log contradicts HEAD_FILE. The service records
      who acknowledged that and why: now if it is running, otherwise at its next start.
`

const TAKEN_WITHIN_MS = 5_000
const POLL_INTERVAL_MS = 100

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
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      who: text,
      tool: text,
      event: text,
      outcome: text,
      since: text,
      until: text,
      json: { type: 'boolean', default: false },
    },
  })
  const { who, tool, event, outcome, json } = values
  const filter: RecordFilter = {
    who,
    tool,
    event,
    outcome,
    since: timeOf('--since', values.since),
    until: timeOf('--until', values.until),
  }
  const selected: LogRecord[] = []
  let invalid = 0
  for (const path of filesOf(positionals).filter(file => sideFile(file) === undefined)) {
    for await (const { number, bytes, torn } of linesOf(path)) {
      const record = torn ? undefined : parseRecord(bytes) as LogRecord | undefined
      if (!record) {
        invalid++
        process.stderr.write(`${escapeUnprintable(path)}:${number}: not a valid record: run audit verify\n`)
      } else if (recordMatches(record, filter)) {
        if (json) process.stdout.write(`${escapeUnprintable(bytes.toString())}\n`)
        else selected.push(record)
      }
    }
  }
  if (!json) process.stdout.write(table(selected.sort((a, b) => a.sequence - b.sequence)))
  return invalid > 0 ? 1 : 0
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

function timeOf (option: string, text: string | undefined): Date | undefined {
  if (text === undefined) return
  const date = new Date(text)
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(date.getTime())) {
    throw new UsageError(`${option} is ${quote(text)}: expected a time such as 2026-07-28T12:00:00Z, or a date`)
  }
  return date
}
