/**
 * `npm run bench:audit-show [-- --megabytes N]`: writes an audit log in rotated files, one of them compressed, and
 * measures how long `audit show` takes to write to a file, and how much memory it needs. Exits with 1 if either is over
 * its bound.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import { BEGINNING, type Body, chain, header, newLog } from '../plugins/audit/chain.ts'
import { ownEntry } from '../plugins/audit/record.ts'

const BOUND_SECONDS_PER_GIGABYTE = 30
const BOUND_MEGABYTES = 200
const FILE_BYTES = 100e6
/** Makes a process report its largest size, and the processor time that it has used, when it ends. */
const REPORT = encodeURIComponent(
  'const used = () => process.resourceUsage();' +
    'process.on("exit", () => process.stderr.write(used().maxRSS + " " + used().userCPUTime))'
)
const RECORD_PADDING = 'x'.repeat(300)

const { values: options } = parseArgs({ options: { megabytes: { type: 'string', default: '1000' } } })
const bytes = Number(options.megabytes) * 1e6
const dir = mkdtempSync(join(tmpdir(), 'audit-show-'))
let failed = false
try {
  const paths = writeLog()
  for (
    const args of [
      ['--who', 'caller-7', '--topic', 'orders', '--since', '2026-07-20', '--until', '2026-07-27'],
      ['--outcome', 'denied'],
      ['--json'],
      [],
    ]
  ) {
    failed = measure(paths, args) || failed
  }
} finally {
  rmSync(dir, { recursive: true })
}
process.exitCode = failed ? 1 : 0

/** Returns the paths of the files of a log. */
function writeLog (): string[] {
  const paths = []
  const log = newLog(dir)
  let end = BEGINNING
  let written = 0
  let timeMs = Date.parse('2026-07-20T00:00:00Z')
  for (let number = 1; written < bytes; number++) {
    const path = join(dir, `audit.jsonl.2026-07-20.${`${number}`.padStart(6, '0')}`)
    const file = openSync(path, 'w')
    const share = Math.min(FILE_BYTES, bytes - written)
    const append = (body: Body): number => {
      const appended = chain(end, { ...body, time: new Date(timeMs += 500).toISOString() })
      end = appended.end
      return writeSync(file, `${appended.line}\n`)
    }
    let size = append({ ...header(number, end, log), where: { replica: 'bench' } })
    while (size < share) size += append(call(end.sequence))
    closeSync(file)
    if (number === 1) {
      writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 1 }))
      rmSync(path)
    }
    paths.push(number === 1 ? `${path}.gz` : path)
    written += size
  }
  return paths
}

function call (number: number): Body {
  const subject = `caller-${number % 100}`
  return {
    ...ownEntry('tool_call', null),
    who: { subject, issuer: 'https://id.example', client_id: 'agent', roles: ['observer'], method: 'oidc' },
    what: { tool: 'describe_topics', operation: 'observe', arguments: {}, resources: { topics: ['orders'] } },
    where: { remote_address: '10.0.0.1', user_agent: RECORD_PADDING, replica: 'bench' },
    decision: 'allowed',
    outcome: number % 1_000 === 0 ? 'denied' : 'ok',
    rule: 'observer.allow[0]',
  }
}

/** Returns whether a bound was exceeded. */
function measure (paths: string[], args: string[]): boolean {
  const output = openSync(join(dir, 'output'), 'w')
  const startedMs = performance.now()
  const { status, stderr } = spawnSync(
    process.execPath,
    [join(import.meta.dirname, '../bin/kafscale-mcp.js'), 'audit', 'show', ...paths, ...args],
    { env: { NODE_OPTIONS: `--import=data:text/javascript,${REPORT}` }, stdio: ['ignore', output, 'pipe'] }
  )
  const seconds = (performance.now() - startedMs) / 1_000
  closeSync(output)
  const [kilobytes = NaN, userMicroseconds = NaN] = stderr.toString().split(' ').map(Number)
  const megabytes = kilobytes / 1_024
  const isOver = status !== 0 || !(megabytes <= BOUND_MEGABYTES) ||
    seconds > Math.max(BOUND_SECONDS_PER_GIGABYTE * bytes / 1e9, 1)
  console.log(
    `${isOver ? 'FAILED' : 'ok'}  ${options.megabytes} MB in ${seconds.toFixed(1)} s ` +
      `(${(userMicroseconds / 1e6).toFixed(1)} s of processor time), ` +
      `${megabytes.toFixed(0)} MB of memory: audit show ${args.join(' ')}`
  )
  return isOver
}
