/**
 * The configurations of Fluent Bit and Vector in examples/: run where the program is in the path, and compared with a
 * log that the service wrote otherwise. The programs in Vector's language always run, in Vector's own compiler.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync, createWriteStream, globSync, readdirSync, readFileSync, rmSync, writeFileSync
} from 'node:fs'
import { basename, join, matchesGlob } from 'node:path'
import { gzipSync } from 'node:zlib'
import vrl from '@bpinternal/verel'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { canonical, type ChainRecord, parseRecord } from '../plugins/audit/chain.ts'
import { RECORD_EVENTS } from '../plugins/audit/record.ts'
import { sideFile } from '../plugins/audit/side-files.ts'
import { body, entry, fileSink } from './support/audit.ts'
import { needsHelm, only, podOf, render, type Values } from './support/chart.ts'
import { SCHEMA_FILE } from './support/check-records.ts'
import { readPage } from './support/pages.ts'
import { ROOT } from './support/paths.ts'
import { exists } from './support/programs.ts'
import { fieldsOf } from './support/record-fields.ts'
import { temporaryFolder } from './support/run.ts'
import { waitFor } from './support/wait-for.ts'

interface FluentBit {
  parsers: Record<string, string>[]
  includes: string[]
  pipeline: { inputs: Settings[], filters: Settings[] }
}
type Settings = Record<string, string>
interface Vector {
  sources: Record<string, {
    include: string[]
    exclude: string[]
    max_line_bytes: number
    extra_label_selector?: string
  }>
  transforms: Record<string, { inputs: string[], source: string, condition: string }>
}
interface EcsEvent extends Record<string, unknown> {
  event: Record<string, unknown>
  kafscale_mcp?: ShippedRecord
}
type ShippedRecord = ChainRecord

const LOG = '/var/log/kafscale-mcp/audit.jsonl'
/** As docs/audit.md states it. */
const LARGEST_RECORD = 16 * 1024
const read = <Config>(path: string): Config => parse(readFileSync(join(ROOT, 'examples', path), 'utf8')) as Config
const fields = fieldsOf(JSON.parse(readFileSync(SCHEMA_FILE, 'utf8')))

/** A folder with a log in several files, and with everything that the service puts next to it. */
async function writeLog (t: Test): Promise<{ dir: string, files: string[], lines: string[] }> {
  const dir = temporaryFolder(t)
  const path = join(dir, basename(LOG))
  const { who, what, where } = entry()
  const digest = { bytes: 3_000, sha256: 'ab'.repeat(32) }
  const calls = [
    body(),
    body({ where: { ...where, user_agent: 'hid\u200bden \\u200b "é" \u{1f600}\t\n', trace_id: 'ab'.repeat(16) } }),
    body({ who: { ...who!, subject: digest as never, roles: ['a', digest as never], client_certificate: 'CN=a' } }),
    body({ what: { ...what!, operation: 'apply', arguments: { event: 'header', none: [[], {}, '', null], n: 1e9 } } }),
    body({ what: null, who: null, event: 'authentication_failure', outcome: 'denied', error_code: 'X', count: 2 }),
    body({ what: null, who: null, event: 'policy_reload', outcome: 'error', warning: 'invalid', rule: null }),
    body({ what: { ...what!, tool: 'delete_topic', operation: 'propose' }, event: 'plan', change_id: 'chg-0' }),
    body({ decision: 'denied', outcome: 'denied', rule: null, when: { ...entry().when, duration_ms: 0.1 } }),
  ]
  const sink = fileSink(path, { maxBytes: 3_000 })
  for (const call of calls) await sink.write(call, false)
  // Someone else writes, and the service sets the file aside.
  appendFileSync(path, '{"torn":\n')
  for (const call of calls) await sink.write(call, false)
  const [rotated = ''] = readdirSync(dir).filter(name => /\.\d{6}$/.test(name)).sort()
  const beside = [`${basename(LOG)}.torn-2026-07-28T120000.000Z`, `${basename(LOG)}.lock`]
  await sink.close()
  for (const name of beside) writeFileSync(join(dir, name), 'no record\n')
  writeFileSync(join(dir, `${rotated}.gz`), gzipSync(readFileSync(join(dir, rotated))))
  const files = readdirSync(dir).filter(name => !sideFile(name) && !name.endsWith('.gz')).sort()
    .map(name => join(dir, name))
  return { dir, files, lines: files.flatMap(file => readFileSync(file, 'utf8').trimEnd().split('\n')) }
}

/** The record on a line; `undefined` if it has none. */
function recordOn (line: string): ShippedRecord | undefined {
  return parseRecord(Buffer.from(line)) as ShippedRecord | undefined
}

t.test('a log for these tests has files of every kind, and records with every kind of value', async t => {
  const { dir, files, lines } = await writeLog(t)
  t.ok(files.length >= 3)
  for (const kind of [/\.torn-/, /\.altered-/, /\.lock$/, /\.gz$/, /\.\d{4}-\d\d-\d\d\.\d{6}$/]) {
    t.ok(readdirSync(dir).some(name => kind.test(name)), String(kind))
  }
  const events = lines.map(line => recordOn(line)?.event)
  t.match(new Set(events), new Set(['header', 'checkpoint', 'gap', 'tool_call', undefined]))
})

t.test('they read the log and its rotated files, and nothing else next to them', async t => {
  const { dir, files } = await writeLog(t)
  const [input] = read<FluentBit>('fluent-bit/files.yaml').pipeline.inputs
  const { include = [], exclude = [] } = read<Vector>('vector/files.yaml').sources['kafscale_mcp_lines'] ?? {}
  const matching = (patterns: string[]) =>
    patterns.flatMap(pattern => globSync(pattern.replace(/^.*\//, `${dir}/`))).sort()
  t.strictSame(exclude.map(pattern => basename(pattern)), input?.['exclude_path']?.split(','))
  t.strictSame([...new Set(include.map(pattern => pattern.slice(0, LOG.length)))], [LOG])
  t.strictSame(input?.['path']?.split(','), include)
  const excluded = matching(exclude)
  t.equal(excluded.length, 1)
  t.strictSame(matching(include).filter(path => !excluded.includes(path)), [...files].sort())
})

t.test('lines that are longer than any record are skipped, and no record is', async t => {
  for (const name of ['files', 'pod']) {
    const [input] = read<FluentBit>(`fluent-bit/${name}.yaml`).pipeline.inputs
    t.match(input, { buffer_max_size: '1M', skip_long_lines: 'on', read_from_head: 'on' }, name)
    for (const source of Object.values(read<Vector>(`vector/${name}.yaml`).sources)) {
      t.ok(source.max_line_bytes >= 2 * LARGEST_RECORD, name)
    }
  }
})

t.test('they read the pods of the chart', needsHelm(), async t => {
  const { mcp } = read<{ mcp: Values }>('helm-production/values.yaml')
  const objects = await render(mcp, { release: 'kafscale-mcp' })
  const { metadata, spec } = only(objects, 'Deployment')
  const { containers: [{ name }] } = podOf(objects)
  const [path = ''] = read<FluentBit>('fluent-bit/pod.yaml').pipeline.inputs.map(({ path }) => path)
  t.ok(matchesGlob(`/var/log/containers/${metadata.name}-7d4b9c-x2x_kafka_${name}-${'ab'.repeat(32)}.log`, path))
  t.notOk(matchesGlob(`/var/log/containers/other-7d4b9c-x2x_kafka_${name}-${'ab'.repeat(32)}.log`, path))
  const [source] = Object.values(read<Vector>('vector/pod.yaml').sources)
  const labels = source?.extra_label_selector?.split(',').map(label => label.split('=')) ?? []
  t.ok(labels.length > 0)
  t.match(spec?.template.metadata.labels, Object.fromEntries(labels))
})

t.test('Fluent Bit', async t => {
  const [parser = {}] = read<FluentBit>('fluent-bit/records.yaml').parsers

  t.test('the time of an event is that of its record, exactly', async t => {
    const { lines } = await writeLog(t)
    t.match(parser, { format: 'json', time_key: 'time', time_keep: 'on' })
    t.ok(fields.includes(parser['time_key'] ?? ''))
    for (const { time } of lines.flatMap(line => recordOn(line) ?? [])) {
      t.equal(new Date(timeBy(parser['time_format'] ?? '', time)).toISOString(), time)
    }
    t.throws(() => timeBy(parser['time_format'] ?? '', '2026-07-28T12:00:00Z'), 'this check can fail')
  })

  for (const name of ['files', 'pod']) {
    t.test(`${name}.yaml keeps the line and every field of its record`, async t => {
      const { includes, pipeline: { inputs: [input], filters } } = read<FluentBit>(`fluent-bit/${name}.yaml`)
      t.strictSame(includes, ['records.yaml'])
      for (const { match } of filters) t.equal(match, input?.['tag'])
      const [parse, nest] = filters.slice(-2)
      t.match(parse, { name: 'parser', parser: parser['name'], preserve_key: 'on', reserve_data: 'on' })
      t.match(nest, { operation: 'nest', wildcard: '*', nest_under: 'kafscale_mcp' })
      const key = parse?.['key_name'] ?? ''
      t.notOk(fields.some(field => field === key || field.startsWith(`${key}.`)), 'the key of the line is no field')
      t.ok(input?.['key'] === key || filters.some(({ rename }) => rename === `log ${key}`))
    })
  }

  // Neither Debian nor npm has it.
  if (!exists('fluent-bit')) return
  t.test('runs files.yaml: every line once, also when a file is rotated meanwhile', async t => {
    const log = await writeLog(t)
    const events = await startFluentBit(t, 'files.yaml', log.dir)
    await waitFor(async () => (await events()).length >= log.lines.length, 60_000, 'every line')
    const path = join(log.dir, basename(LOG))
    rmSync(`${path}.lock`)
    const sink = fileSink(path, { maxBytes: 2_000 })
    for (let count = 0; count < 20; count++) await sink.write(body(), false)
    await sink.close()
    const lines = globSync(`${path}{,.[0-9]*[0-9],.altered-*}`)
      .flatMap(file => readFileSync(file, 'utf8').trimEnd().split('\n'))
    await waitFor(async () => (await events()).length >= lines.length, 60_000, 'every new line')
    await checkEvents(t, lines, await events())
  })

  t.test('runs pod.yaml: joins parts of a line, and leaves out standard error', async t => {
    const { dir, lines } = await writeLog(t)
    const file = join(dir, `kafscale-mcp-7d4b9c_kafscale-mcp_mcp-${'ab'.repeat(32)}.log`)
    const at = '2026-07-28T12:00:00.123456789+02:00'
    writeFileSync(file, lines.map(line => {
      const half = line.length >> 1
      return `${at} stderr F {"level":30,"time":"x"}\n` +
        `${at} stdout P ${line.slice(0, half)}\n${at} stdout F ${line.slice(half)}\n`
    }).join(''))
    const events = await startFluentBit(t, 'pod.yaml', dir)
    await waitFor(async () => (await events()).length >= lines.length, 60_000, 'every line')
    await checkEvents(t, lines, await events())
  })
})

/** Starts Fluent Bit with a folder in the place of those that its configuration names. Returns what it has printed. */
async function startFluentBit (t: Test, name: string, dir: string): Promise<() => Promise<Record<string, unknown>[]>> {
  const own = temporaryFolder(t)
  for (const file of readdirSync(join(ROOT, 'examples/fluent-bit')).filter(file => file.endsWith('.yaml'))) {
    const text = readFileSync(join(ROOT, 'examples/fluent-bit', file), 'utf8')
    writeFileSync(
      join(own, file),
      text.replaceAll('/var/lib/fluent-bit', own).replaceAll(/\/var\/log\/[a-z-]+/g, dir)
        .replaceAll('refresh_interval: 10', 'refresh_interval: 1')
    )
  }
  const output = join(own, 'output')
  // In another zone than UTC, to find a time that is read as a local one.
  const child = spawn('fluent-bit', ['--quiet', '--flush', '1', '--config', join(own, name)], {
    env: { ...process.env, TZ: 'America/New_York' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child.stdout.pipe(createWriteStream(output))
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.kill()
    await exited
  })
  return async () => {
    const complete = readFileSync(output, 'utf8').split('\n').slice(0, -1)
    return complete.filter(line => line.startsWith('{')).map(line => JSON.parse(line))
  }
}

/** Whether events of Fluent Bit are the lines of a log, each one once, with every field. */
async function checkEvents (t: Test, lines: string[], events: Record<string, unknown>[]): Promise<void> {
  const records = events.map(event => event['kafscale_mcp'] as ShippedRecord & { original: string })
  t.strictSame(records.map(({ original }) => original).sort(), [...lines].sort())
  for (const [index, { original, ...record }] of records.entries()) {
    const expected = recordOn(original)
    t.strictSame(record, expected ?? {})
    if (expected) t.equal(Math.round(Number(events[index]?.['date']) * 1_000), Date.parse(expected.time))
  }
  await verifyRestored(t, 'fluent-bit', events)
}

/** Whether the commands in a README restore the files of a log from events, and `audit verify` finds them intact. */
async function verifyRestored (t: Test, name: string, events: object[]): Promise<void> {
  const page = readPage(`../examples/${name}/README.md`)
  const skip = exists('jq') ? false : 'there is no jq: npm run test:setup -- --all'
  await t.test('its README restores the log', { skip }, async t => {
    const cwd = temporaryFolder(t)
    // Agents deliver some events twice, and in any order.
    const exported = [...events, ...events].reverse().map(event => `${JSON.stringify(event)}\n`)
    writeFileSync(join(cwd, 'events.jsonl'), exported.join(''))
    const printed = await page.run(page.block('sh verify'), { cwd })
    t.match(printed.join(''), /^intact: records 1 to \d+$/m)
    await t.rejects(
      page.run(page.block('sh verify').replace('[].original', '[].original | sub("alice"; "bob")'), { cwd }),
      /altered/,
      'this check can fail'
    )
  })
}

/** Milliseconds since 1970 of a time in UTC, by a format of strptime. @throws when the time is not of that format */
function timeBy (format: string, time: string): number {
  const patterns: Record<string, string> = {
    '%Y': '(\\d{4})',
    '%m': '(\\d\\d)',
    '%d': '(\\d\\d)',
    '%H': '(\\d\\d)',
    '%M': '(\\d\\d)',
    '%S': '(\\d\\d)',
    '%L': '(\\d{1,9})',
  }
  const order = [...format.matchAll(/%./g)].map(([directive]) => directive)
  const expression = new RegExp(`^${format.replaceAll(/%./g, directive => patterns[directive] ?? '(?!)')}$`)
  const found = expression.exec(time)
  if (!found) throw new Error(`${time} is not of the format ${format}`)
  const part = (directive: string) => found[order.indexOf(directive) + 1] ?? ''
  const [year, month, day, hour, minute, second] = ['%Y', '%m', '%d', '%H', '%M', '%S'].map(name => Number(part(name)))
  return Date.UTC(year!, month! - 1, day, hour, minute, second) + Number(`0.${part('%L')}`) * 1_000
}

t.test('Vector', async t => {
  const { transforms } = read<Vector>('vector/records.yaml')
  const [parseRecord, mapToEcs] = ['kafscale_mcp_records', 'kafscale_mcp_ecs'].map(id => transforms[id]!)
  /** The event after a transform: as it was before if the program fails, as `drop_on_error: false` has it. */
  const after = ({ source }: { source: string }, event: object): object => {
    try {
      return vrl.execute(source, event).event
    } catch {
      return event
    }
  }
  const mapped = (line: string) =>
    after(mapToEcs!, after(parseRecord!, { message: line, timestamp: '2000-01-01T00:00:00Z', file: LOG })) as EcsEvent

  t.test('its programs compile, without a warning', async t => {
    const conditions = Object.values(read<Vector>('vector/pod.yaml').transforms).map(({ condition }) => condition)
    const programs = [...Object.values(transforms).map(({ source }) => source), ...conditions]
    t.equal(programs.length, 3)
    for (const program of programs) t.strictSame(vrl.check(program), { errors: [], warnings: [] })
    t.not(vrl.check('.timestamp = parse_timestamp!(1, "%+"').errors.length, 0, 'this check can fail')
    t.strictSame(conditions.map(condition => vrl.execute(condition, { stream: 'stdout' }).result), [true])
    t.strictSame(conditions.map(condition => vrl.execute(condition, { stream: 'stderr' }).result), [false])
  })

  t.test('an event has the line, every field of the record, and its time', async t => {
    // Vector leaves out a fraction that is zero.
    const instant = (time: unknown) => new Date(String(time)).toISOString()
    const { lines } = await writeLog(t)
    const events = lines.map(mapped)
    for (const [index, { event, kafscale_mcp: record, timestamp, '@timestamp': time }] of events.entries()) {
      t.equal(event['original'], lines[index])
      t.strictSame(record, recordOn(lines[index] ?? ''))
      if (record) t.strictSame([timestamp, time].map(instant), [record.time, record.time])
    }
    await verifyRestored(t, 'vector', events)
  })

  t.test('a line that is not a record is kept', async t => {
    for (const line of ['{"checkpoint":', 'null', '{"time":1}', '{}']) {
      const event = mapped(line)
      t.equal(event.event['original'], line)
      t.notOk('kafscale_mcp' in event)
    }
  })

  t.test('the ECS fields are those of docs/audit.md, with the values that it states', async t => {
    const rows = readPage('audit.md').rows('record')
    const documented = rows.flatMap(([, ecs = '']) => /^`([^`]+)`/.exec(ecs)?.[1] ?? [])
    const assigned = [...mapToEcs!.source.matchAll(/"([a-z@_.]+)"(?=:| =(?!=))/g)].map(([, name]) => name)
    const always = ['ecs.version', 'event.kind', 'event.original', 'event.category']
    t.strictSame([...new Set(assigned)].sort(), [...new Set([...documented, ...always])].sort())

    const { lines } = await writeLog(t)
    const records = lines.flatMap(line => recordOn(line) ?? [])
    const of = (select: (record: ShippedRecord) => boolean) => mapped(canonical(records.find(select)))
    t.match(of(({ decision }) => decision === 'allowed'), {
      event: { action: 'tool_call', category: ['api'], type: ['access', 'allowed'], duration: 1_500_000 },
      user: { id: 'alice', roles: ['observer'] },
      gen_ai: { tool: { name: 'list_topics' } },
    })
    t.match(of(({ decision }) => decision === 'denied'), {
      event: { outcome: 'failure', type: ['access', 'denied'], duration: 100_000 },
    })
    t.match(of(({ event }) => event === 'authentication_failure'), {
      event: { category: ['authentication'], type: ['start'], outcome: 'failure' },
      error: { code: 'X' },
    })
    t.match(of(({ event }) => event === 'policy_reload'), {
      event: { category: ['configuration'], type: ['change'], reason: 'invalid' },
    })
    t.match(of(({ event }) => event === 'plan'), {
      event: { action: 'plan', category: ['api'], type: ['change', 'allowed'] },
      gen_ai: { tool: { name: 'delete_topic' } },
    })
    t.match(of(({ event }) => event === 'gap').event, { action: 'gap', reason: /./ })
    const { user, tls } = of(({ who }) => JSON.stringify(who ?? '').includes('CN=a'))
    t.strictSame(user, { roles: ['a'] }, 'a digest is no text')
    t.strictSame(tls, { client: { subject: 'CN=a' } })
    const compared = [...mapToEcs!.source.matchAll(/record\.event == "(\w+)"/g)].map(([, name = '']) => name)
    t.strictSame(compared.filter(name => !RECORD_EVENTS.includes(name)), [])
  })
})
