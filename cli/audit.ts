/** `kafscale-mcp audit`: reads the files of an audit log, without the service that wrote them. */
import { parseArgs } from 'node:util'
import { escapeUnprintable, quote } from '../lib/printable.ts'
import { type ChainRecord, parseRecord } from '../plugins/audit/chain.ts'
import { linesOf } from '../plugins/audit/lines.ts'
import type { AuditEntry } from '../plugins/audit/record.ts'
import { type Filter, matches, table } from '../plugins/audit/show.ts'
import { readPublicKeys, verifyFiles } from '../plugins/audit/verify.ts'

const USAGE = `Usage:
  kafscale-mcp audit verify FILE... [--public-key PEM_FILE]... [--expect-sequence N]
      Tells whether anything was changed, removed, inserted, reordered or cut off. The files of one log, in any order.
      Exit code 0: intact, 1: altered, with the file and line, 2: unreadable.
  kafscale-mcp audit show FILE... [--who SUBJECT] [--tool NAME] [--event EVENT] [--outcome ok|error|denied]
                                  [--since TIME] [--until TIME] [--json]
      Prints the records, as a table or as one JSON object per line. Times are RFC 3339, or a date.
`

/** Runs `audit verify` or `audit show`. Resolves to the exit code. */
export async function audit ([command, ...options]: string[]): Promise<number> {
  try {
    switch (command) {
      case 'verify':
        return await verify(options)
      case 'show':
        return await show(options)
      case '--help':
      case '-h':
        process.stdout.write(USAGE)
        return 0
      default:
        throw new UsageError(command === undefined ? 'there is no command' : `there is no command ${quote(command)}`)
    }
  } catch (error) {
    const misunderstood = error instanceof UsageError ||
      String((error as NodeJS.ErrnoException).code).startsWith('ERR_PARSE_ARGS')
    process.stderr.write(`kafscale-mcp audit: ${(error as Error).message}\n${misunderstood ? USAGE : ''}`)
    return 2
  }
}

class UsageError extends Error {}

async function verify (args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { 'public-key': { type: 'string', multiple: true }, 'expect-sequence': { type: 'string' } },
  })
  const { 'public-key': keyFiles, 'expect-sequence': expected } = values
  if (expected !== undefined && !/^[0-9]{1,15}$/.test(expected)) {
    throw new UsageError(`--expect-sequence is ${quote(expected)}: expected a number`)
  }
  const { exitCode, findings } = await verifyFiles(files(positionals), {
    ...keyFiles && { publicKeys: await readPublicKeys(keyFiles) },
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
  const filter: Filter = {
    who,
    tool,
    event,
    outcome,
    since: time('--since', values.since),
    until: time('--until', values.until),
  }
  const shown: ChainRecord[] = []
  let unreadable = 0
  for (const path of files(positionals)) {
    for await (const { number, bytes, torn } of linesOf(path)) {
      const record = torn ? undefined : parseRecord(bytes)
      if (!record) {
        unreadable++
        process.stderr.write(`${escapeUnprintable(path)}:${number}: this line is no record: run audit verify\n`)
      } else if (matches(record as Partial<AuditEntry>, filter)) {
        if (json) process.stdout.write(`${escapeUnprintable(bytes.toString())}\n`)
        else shown.push(record)
      }
    }
  }
  if (!json) process.stdout.write(table(shown.sort((a, b) => a.sequence - b.sequence)))
  return unreadable > 0 ? 1 : 0
}

function files (paths: string[]): string[] {
  if (paths.length === 0) throw new UsageError('there is no file')
  return paths
}

function time (option: string, text: string | undefined): Date | undefined {
  if (text === undefined) return
  const date = new Date(text)
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(date.getTime())) {
    throw new UsageError(`${option} is ${quote(text)}: expected a time such as 2026-07-28T12:00:00Z, or a date`)
  }
  return date
}
