import { createPrivateKey } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import {
  BEGINNING,
  type Body,
  canonical,
  chain,
  checkpoint,
  type End,
  header,
  newLog,
  sha256,
} from '../../../plugins/audit/chain.ts'
import { FileMedium } from '../../../plugins/audit/sinks/file.ts'
import { Sink } from '../../../plugins/audit/sinks/sink.ts'
import { verifyFiles } from '../../../plugins/audit/verify/index.ts'
import { body, signingKey, silent } from '../../support/audit.ts'

/** The lines of each file of a log. */
type Log = string[][]

/** Writes a log of several closed files, as the service does. */
async function writeLog (
  dir: string,
  { records = 16, runs = 2, keyFile }: { records?: number, runs?: number, keyFile?: string } = {}
): Promise<Log> {
  const folder = mkdtempSync(join(dir, 'log-'))
  const path = join(folder, 'audit.jsonl')
  const key = keyFile === undefined ? undefined : createPrivateKey(readFileSync(keyFile, 'utf8'))
  for (let run = 0; run < runs; run++) {
    const sink = new Sink(new FileMedium(path, { maxBytes: 5_600 }), { key, log: silent })
    for (let written = 0; written < records / runs; written++) {
      await sink.write(body({ rule: `rule ${run}.${written}` }), false)
    }
    await sink.close()
  }
  const log = readdirSync(folder).sort().map(file => splitLines(readFileSync(join(folder, file), 'utf8')))
  rmSync(folder, { recursive: true })
  return [...log.slice(1), log[0] as string[]]
}

const splitLines = (text: string) => text.split('\n').slice(0, -1)
const textOf = (lines: readonly string[]) => lines.map(line => `${line}\n`).join('')

/** The verdict on files with these contents. */
async function verdictOf (
  dir: string,
  contents: readonly (string | Buffer)[],
  options: Parameters<typeof verifyFiles>[1] = {}
) {
  const folder = mkdtempSync(join(dir, 'verify-'))
  const paths = contents.map((content, index) => {
    const path = join(folder, `file-${index + 1}`)
    writeFileSync(path, content)
    return path
  })
  const verdict = await verifyFiles(paths, options)
  rmSync(folder, { recursive: true })
  return {
    ...verdict,
    where: verdict.problems.map(({ path, line }) => `${path.slice(folder.length + 1)}:${line}`),
    findings: verdict.findings.map(finding => finding.replaceAll(`${folder}/`, '')),
  }
}

/** The log with the lines of one file changed. */
function edit (log: Log, file: number, change: (lines: string[]) => string[]): string[] {
  return log.map((lines, index) => textOf(index === file ? change([...lines]) : lines))
}

t.test('an untouched log is intact', async t => {
  const dir = t.testdir()
  const log = await writeLog(dir)
  t.ok(log.length > 2)
  const { exitCode, findings } = await verdictOf(dir, log.map(textOf))
  t.equal(exitCode, 0)
  t.match(findings.filter(finding => /^file-\d: /.test(finding)), ['file-1: file 1, records 1 to', 'file-2: file 2'])
  t.match(findings.at(-1), /^intact: records 1 to \d+$/)
  t.match(findings.join('\n'), 'The checkpoints are unsigned')
  t.equal((await verdictOf(dir, log.toReversed().map(textOf))).exitCode, 0, 'in any order of the files')
})

t.test('no untouched log is called altered', async t => {
  const dir = t.testdir()
  const { keyFile, publicKey } = signingKey(dir)
  await t.resolves(
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        async (records, runs, signed) => {
          const log = await writeLog(dir, { records, runs, ...signed && { keyFile } })
          return (await verdictOf(dir, log.map(textOf), signed ? { publicKeys: [publicKey] } : {})).exitCode === 0
        }
      ),
      { numRuns: 15 }
    )
  )
})

t.test('every kind of tampering is found, within a file and between files', async t => {
  const dir = t.testdir()
  const { keyFile } = signingKey(dir)
  for (const signed of [true, false]) {
    const log = await writeLog(dir, { ...signed && { keyFile } })
    const original = log.map(textOf)
    const finds = async (what: string, tampering: fc.Arbitrary<(string | Buffer)[]>, numRuns = 40) => {
      await t.resolves(
        fc.assert(
          fc.asyncProperty(
            tampering.filter(contents => !sameContents(contents, original)),
            async contents => (await verdictOf(dir, contents)).exitCode === 1
          ),
          { numRuns }
        ),
        `${what}, ${signed ? 'signed' : 'unsigned'}`
      )
    }
    const file = fc.nat(log.length - 1)
    const place = file.chain(index =>
      fc.record({ index: fc.constant(index), offset: fc.nat(original[index]!.length - 1) })
    )
    const line = file.chain(index => fc.record({ index: fc.constant(index), line: fc.nat(log[index]!.length - 1) }))
    const isEnd = ({ index, line }: { index: number, line: number }) =>
      index === log.length - 1 && line === log[index]!.length - 1
    const spliced = (index: number, at: number, deleted: number, inserted: Buffer) =>
      original.map((text, other) => {
        const bytes = Buffer.from(text)
        return other === index ? Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at + deleted)]) : text
      })

    await finds(
      'a byte changed',
      fc.tuple(place, fc.nat(255)).map(([{ index, offset }, byte]) => spliced(index, offset, 1, Buffer.from([byte]))),
      200
    )
    await finds(
      'bytes inserted',
      fc.tuple(place, fc.uint8Array({ minLength: 1, maxLength: 20 })).map(([{ index, offset }, bytes]) =>
        spliced(index, offset, 0, Buffer.from(bytes))
      )
    )
    await finds(
      'bytes removed',
      fc.tuple(place, fc.integer({ min: 1, max: 50 })).map(([{ index, offset }, count]) =>
        spliced(index, offset, count, Buffer.alloc(0))
      )
        .filter(contents => !endsWithLine(contents, original))
    )
    await finds(
      'bytes cut off',
      place.map(({ index, offset }) => spliced(index, offset, Infinity, Buffer.alloc(0))).filter(contents =>
        !endsWithLine(contents, original)
      )
    )
    await finds(
      'a line removed',
      line.filter(chosen => !isEnd(chosen)).map(({ index, line }) =>
        edit(log, index, lines => lines.toSpliced(line, 1))
      )
    )
    await finds(
      'a line inserted',
      fc.tuple(line, line).map(([from, to]) =>
        edit(log, to.index, lines => lines.toSpliced(to.line, 0, log[from.index]![from.line]!))
      )
    )
    await finds(
      'a line replaced by another',
      fc.tuple(line, line).map(([from, to]) =>
        edit(log, to.index, lines => lines.with(to.line, log[from.index]![from.line]!))
      )
    )
    await finds(
      'lines reordered',
      fc.tuple(line, line).map(([one, other]) =>
        log.map((lines, index) =>
          textOf(lines.map((text, at) =>
            index === one.index && at === one.line
              ? log[other.index]![other.line]!
              : index === other.index && at === other.line
                ? log[one.index]![one.line]!
                : text
          ))
        )
      )
    )
    await finds(
      'lines cut off a file that others follow',
      fc.tuple(fc.nat(log.length - 2), fc.integer({ min: 1, max: 5 })).map(([index, count]) =>
        edit(log, index, lines => lines.slice(0, -count))
      )
    )
    await finds(
      'a file removed',
      fc.integer({ min: 1, max: log.length - 2 }).map(index => original.toSpliced(index, 1))
    )
    await finds('a file twice', file.map(index => [...original, original[index]!]))
    await finds('a header removed', file.map(index => edit(log, index, lines => lines.slice(1))))
    await finds('files joined', fc.constant([original.join('')]))
    await finds(
      'a record forged, and everything after it in its file chained again',
      line.filter(({ index, line }) => line > 0 && line < log[index]!.length - 1).map(({ index, line }) =>
        edit(log, index, lines => rechained(lines, line))
      )
    )
  }
})

/** The end is cut off between two lines, which only a later record could tell from a crash. */
function endsWithLine (contents: readonly (string | Buffer)[], original: readonly string[]): boolean {
  const last = String(contents.at(-1))
  return contents.slice(0, -1).every((content, index) => String(content) === original[index]) &&
    original.at(-1)!.startsWith(last) && last.endsWith('\n')
}

function sameContents (contents: readonly (string | Buffer)[], original: readonly string[]): boolean {
  return contents.length === original.length &&
    contents.every((content, index) => Buffer.from(content).equals(Buffer.from(original[index]!)))
}

/** The lines with one record changed, and the links of all after it recomputed, those of checkpoints included. */
function rechained (lines: readonly string[], forged: number): string[] {
  let end: End = BEGINNING
  return lines.map((text, index) => {
    const { prev, schema, sequence, ...record } = JSON.parse(text) as Body & {
      prev: string
      schema: number
      sequence: number
    }
    if (index < forged) {
      end = { hash: chain({ hash: prev, sequence: sequence - 1 }, record).end.hash, sequence }
      return text
    }
    const next = chain(end, index === forged ? { ...record, rule: 'forged' } : record)
    end = next.end
    return next.line
  })
}

t.test('what a collector has received may have exact copies of lines, but nothing else may differ', async t => {
  const dir = t.testdir()
  let begins = true
  let text = ''
  const sink = new Sink({
    kind: 'http',
    open: async position => ({ position: position ?? { file: 0, end: BEGINNING }, begins }),
    append: async lines => {
      begins = false
      text += lines
    },
    close: async () => {},
  }, { log: silent })
  for (let record = 0; record < 8; record++) await sink.write(body({ rule: `rule ${record}` }), false)
  await sink.close()
  const lines = splitLines(text)
  const last = lines.length - 1
  t.equal(last, 9, 'a header, eight records and a checkpoint')
  const exitCodeOf = async (changed: string[]) => (await verdictOf(dir, [textOf(changed)])).exitCode

  for (let first = 0; first <= last; first++) {
    for (let end = first + 1; end <= last + 1; end++) {
      const copied = [...lines.slice(0, end), ...lines.slice(first)]
      t.equal(await exitCodeOf(copied), 0, `lines ${first} to ${end} twice`)
    }
  }
  for (let line = 0; line < last; line++) {
    t.equal(await exitCodeOf(lines.toSpliced(line, 1)), 1, `without line ${line}`)
    t.equal(await exitCodeOf(lines.toSpliced(line, 2, lines[line + 1] ?? '', lines[line] ?? '')), 1, `${line} later`)
    const changed = (lines[line] ?? '').replace('"time":"2', '"time":"3')
    t.equal(await exitCodeOf(lines.with(line, changed)), 1, `line ${line} changed`)
    t.equal(await exitCodeOf(lines.toSpliced(last, 0, changed)), 1, `a changed copy of line ${line}`)
  }
  const { findings } = await verdictOf(dir, [textOf([...lines, ...lines.slice(3)])])
  t.match(findings.join('\n'), 'file-1: 7 lines are exact copies of earlier ones')

  const [file = []] = await writeLog(dir, { records: 4, runs: 1 })
  t.equal(await exitCodeOf([...file, file.at(-1) ?? '']), 1, 'a file of the service has no copies')
})

t.test('a problem has a file and a line', async t => {
  const dir = t.testdir()
  const log = await writeLog(dir)
  const where = async (contents: (string | Buffer)[]) => (await verdictOf(dir, contents)).where
  const forge = (text: string) => canonical({ ...JSON.parse(text), rule: 'forged' })
  t.strictSame(await where(edit(log, 1, lines => lines.with(2, forge(lines[2]!)))), ['file-2:3'], 'a changed record')
  t.strictSame(
    await where(edit(log, 1, lines => lines.with(2, canonical({ ...JSON.parse(lines[2]!), prev: 'ab'.repeat(32) })))),
    ['file-2:3'],
    'a changed hash'
  )
  const renamed = (line: string) => canonical({ ...JSON.parse(line), event: 'checkpoints' })
  t.strictSame(
    await where(edit(log, 2, lines => lines.with(-1, renamed(lines.at(-1)!)))),
    [`file-3:${log[2]!.length}`],
    'the event of the last checkpoint'
  )
  t.strictSame(await where(edit(log, 1, lines => lines.with(0, forge(lines[0]!)))), ['file-2:1'], 'a changed header')
  t.strictSame(await where(edit(log, 1, lines => lines.with(-2, forge(lines.at(-2)!)))), [
    `file-2:${log[1]!.length - 1}`,
  ], 'the record before the last checkpoint')
  t.strictSame(
    await where(edit(log, 1, lines => lines.with(-1, canonical({ ...JSON.parse(lines.at(-1)!), time: 'later' })))),
    [`file-2:${log[1]!.length}`],
    'a changed checkpoint'
  )
  t.strictSame(
    await where(edit(log, 0, lines => lines.toSpliced(2, 1))),
    ['file-1:3'],
    'the line after the removed one'
  )
  t.strictSame(await where(edit(log, 0, lines => lines.toSpliced(3, 0, lines[2]!))), ['file-1:4'], 'an inserted record')
  t.strictSame(await where(edit(log, 0, lines => [...lines.slice(0, 2), lines[3]!, lines[2]!, ...lines.slice(4)])), [
    'file-1:3',
  ], 'the first of two swapped lines')
  t.strictSame(
    await where(edit(log, 0, lines => lines.slice(0, -1))),
    [`file-1:${log[0]!.length - 1}`],
    'the end of a file with a successor'
  )
  t.strictSame(await where(log.map(textOf).toSpliced(1, 1)), ['file-2:1'], 'the file after a missing one')
  t.strictSame(await where([textOf(log[0]!).slice(0, -3)]), [`file-1:${log[0]!.length}`], 'a torn line')
  t.strictSame(await where(['']), ['file-1:1'], 'an empty file')
  const unclosed = edit(
    log,
    0,
    lines =>
      lines.with(
        -1,
        chain({ hash: JSON.parse(lines.at(-1)!).prev, sequence: JSON.parse(lines.at(-1)!).sequence - 1 }, {
          event: 'stop',
          time: '',
        }).line
      )
  )
  t.strictSame(await where(unclosed), [`file-1:${log[0]!.length}`], 'a last record unlike its hash in the next file')
  t.strictSame(
    await where(
      edit(log, 1, lines => lines.slice(0, 3).with(2, forge(lines[2]!)).with(1, forge(lines[1]!))).slice(1, 2)
    ),
    ['file-1:2']
  )
})

t.test('a log that ends too early is found by its expected sequence number', async t => {
  const dir = t.testdir()
  const log = await writeLog(dir)
  const { sequence } = JSON.parse(log.at(-1)!.at(-1)!)
  const cut = edit(log, log.length - 1, lines => lines.slice(0, -2))
  const open = await verdictOf(dir, cut)
  t.equal(open.exitCode, 0, 'a crash leaves the same log')
  t.match(open.findings.join('\n'), 'open: it does not end with a closing checkpoint')
  t.match(open.findings.join('\n'), 'The end is open')
  t.equal((await verdictOf(dir, cut, { expectSequence: sequence })).exitCode, 1)
  t.equal((await verdictOf(dir, cut, { expectSequence: sequence - 2 })).exitCode, 0)
  t.equal((await verdictOf(dir, log.map(textOf), { expectSequence: sequence })).exitCode, 0)
})

t.test('a log without its first files is intact from there on, and reported to go further back', async t => {
  const dir = t.testdir()
  const { exitCode, findings } = await verdictOf(dir, (await writeLog(dir)).slice(1).map(textOf))
  t.equal(exitCode, 0)
  t.match(findings.join('\n'), 'intact from file 2 on; earlier files were not given')
})

t.test('the signer is reported, and must be a trusted one if keys are given', async t => {
  const dir = t.testdir()
  const mine = signingKey(dir, 'mine')
  const theirs = signingKey(dir, 'theirs')
  const signed = (await writeLog(dir, { keyFile: mine.keyFile })).map(textOf)
  const unsigned = (await writeLog(dir)).map(textOf)
  t.match(
    (await verdictOf(dir, signed)).findings.join('\n'),
    /Signed by key [0-9a-f]{64}: compare it, or pass --public-key/
  )
  const trusted = await verdictOf(dir, signed, { publicKeys: [theirs.publicKey, mine.publicKey] })
  t.equal(trusted.exitCode, 0)
  t.match(trusted.findings.join('\n'), /Signed by key [0-9a-f]{64}, which is trusted/)
  t.match(await verdictOf(dir, signed, { publicKeys: [theirs.publicKey] }), {
    exitCode: 1,
    problems: [{ what: /signed by another key/ }],
  })
  t.match(await verdictOf(dir, unsigned, { publicKeys: [mine.publicKey] }), {
    exitCode: 1,
    problems: [{ what: 'the checkpoint is not signed' }],
  })
  t.equal((await verdictOf(dir, signed, { publicKeys: ['no key'] })).exitCode, 2)

  // A log can be forged as a whole with another key.
  const { line, end } = chain(BEGINNING, {
    event: 'header',
    file: { number: 1, previous_hash: BEGINNING.hash, previous_sequence: 0 },
    time: '',
  })
  const sealed = chain(end, checkpoint(end, { time: '' }, true, createPrivateKey(readFileSync(theirs.keyFile, 'utf8'))))
  const forged = [textOf([line, sealed.line])]
  t.equal((await verdictOf(dir, forged)).exitCode, 0)
  t.equal((await verdictOf(dir, forged, { publicKeys: [mine.publicKey] })).exitCode, 1)

  const more = chain(sealed.end, { event: 'start', time: '' }).line
  t.match(
    (await verdictOf(dir, [textOf([line, sealed.line, more])])).findings.join('\n'),
    'No signature covers the records after file-1:2 yet'
  )
  t.match((await verdictOf(dir, [textOf([line])])).findings.join('\n'), 'There is no checkpoint yet')
})

t.test('a log without the usual checkpoints is altered, and unsigned records are reported', async t => {
  const dir = t.testdir()
  const { keyFile, publicKey } = signingKey(dir)
  const key = createPrivateKey(readFileSync(keyFile, 'utf8'))
  const publicKeys = [publicKey]
  /** A log of these events, after a header. `header` begins another file. */
  const logOf = (...events: string[]) => {
    let { line, end } = chain(BEGINNING, { ...header(1, BEGINNING), time: '' })
    const files = [[line]]
    for (const event of events) {
      if (event === 'header') {
        ({ line, end } = chain(end, { ...header(files.length + 1, end), time: '' }))
        files.push([line])
        continue
      }
      ;({ line, end } = chain(
        end,
        event.endsWith('checkpoint')
          ? checkpoint(end, { time: '' }, false, event === 'checkpoint' ? key : undefined)
          : { event, time: '' }
      ))
      files.at(-1)?.push(line)
    }
    return files.map(textOf)
  }
  const calls = (count: number) => Array<string>(count).fill('tool_call')
  t.equal((await verdictOf(dir, logOf(...calls(1_000)))).exitCode, 0)
  t.match(await verdictOf(dir, logOf(...calls(1_001))), {
    exitCode: 1,
    where: ['file-1:1002'],
    problems: [{ what: /without a checkpoint/ }],
  })
  t.match(await verdictOf(dir, logOf('checkpoint', ...calls(1_001))), { exitCode: 1, where: ['file-1:1003'] })
  for (const event of ['start', 'gap', 'torn_line']) {
    t.match(await verdictOf(dir, logOf(...calls(500), event, ...calls(501))), {
      exitCode: 1,
      problems: [{ what: /without a checkpoint/ }],
    }, event)
  }
  const neverSigned = logOf(...calls(900), 'unsigned checkpoint', 'start', ...calls(900))
  t.equal((await verdictOf(dir, neverSigned)).exitCode, 0)
  t.match(await verdictOf(dir, neverSigned, { publicKeys }), {
    exitCode: 1,
    where: ['file-1:902'],
    problems: [{ what: 'the checkpoint is not signed' }],
  })
  const spread = logOf(...calls(900), 'header', ...calls(900))
  t.match(await verdictOf(dir, spread, { publicKeys }), {
    exitCode: 1,
    where: ['file-2:901'],
    problems: [{ what: /1800 records, but no signed checkpoint/ }],
  })
  t.match(await verdictOf(dir, spread), {
    exitCode: 1,
    problems: [{ what: /more than 1000 records in a row are without a checkpoint/ }],
  }, 'in several files together')
  t.equal((await verdictOf(dir, logOf(...calls(900), 'checkpoint', 'header', ...calls(900)))).exitCode, 0)

  const open = await verdictOf(dir, logOf('tool_call', 'checkpoint', ...calls(7)), { publicKeys })
  t.equal(open.exitCode, 0)
  t.ok(open.findings.includes('7 records are not signed yet.'))
  const young = await verdictOf(dir, logOf('tool_call'), { publicKeys })
  t.equal(young.exitCode, 2)
  t.match(young.findings.at(-1), /^cannot be verified: no checkpoint is signed with a trusted key/)
})

t.test('records without a signature of a trusted key are never called intact', async t => {
  const dir = t.testdir()
  const { keyFile, publicKey } = signingKey(dir)
  const publicKeys = [publicKey]
  const key = createPrivateKey(readFileSync(keyFile, 'utf8'))
  const id = newLog('/var/log/audit.jsonl')
  const begin = chain(BEGINNING, { ...header(1, BEGINNING, id), time: '' })
  /** Lines after those given, with any signature that an event has. */
  const after = (lines: string[], end: End, ...bodies: (Body | ((end: End) => Body))[]) => {
    for (const body of bodies) {
      const next = chain(end, typeof body === 'function' ? body(end) : body)
      lines = [...lines, next.line]
      end = next.end
    }
    return { lines, end, text: textOf(lines) }
  }
  const call = { event: 'tool_call', time: '' }
  const sealed = (end: End) => checkpoint(end, { time: '', log: id }, false, key)
  const continues = (end: End) =>
    checkpoint(end, { time: '', log: id, continues: { file: 0, ...BEGINNING, closed: null } }, false, key)

  for (const count of [0, 1, 1_000]) {
    const forged = after([begin.line], begin.end, ...Array<Body>(count).fill(call))
    const { exitCode, findings } = await verdictOf(dir, [forged.text], { publicKeys })
    t.equal(exitCode, count === 0 ? 2 : 1, `${count} records`)
    t.notMatch(findings.join('\n'), 'intact')
    t.match(findings.at(-1), count === 0 ? /cannot be verified: no checkpoint is signed/ : /does not begin with a chec/)
  }
  t.match(await verdictOf(dir, [after([begin.line], begin.end, call, sealed).text], { publicKeys }), {
    exitCode: 1,
    where: ['file-1:2'],
    problems: [{ what: /the service writes one before its first record/ }],
  }, 'a first checkpoint that comes late')
  const genuine = after([begin.line], begin.end, continues, call)
  t.match(await verdictOf(dir, [genuine.text], { publicKeys }), { exitCode: 0, findings: /1 record is not signed/ })

  // A file that a rotation began has no checkpoint for up to a minute.
  const closing = after(genuine.lines, genuine.end, end => checkpoint(end, { time: '', log: id }, true, key))
  const second = chain(closing.end, { ...header(2, closing.end, id), time: '' })
  const young = after([second.line], second.end, call)
  const alone = await verdictOf(dir, [young.text], { publicKeys })
  t.equal(alone.exitCode, 2)
  t.match(alone.findings.at(-1), /cannot be verified: .* Pass file 1 too, or wait a minute/)
  t.equal((await verdictOf(dir, [closing.text, young.text], { publicKeys })).exitCode, 0)
  t.equal((await verdictOf(dir, [young.text])).exitCode, 0, 'nobody asked for signatures')

  // The log was set back, and continued with the header of a file where it once had a checkpoint.
  const headFile = join(dir, 'head')
  writeFileSync(headFile, `${chain(closing.end, sealed(closing.end)).line}\n`)
  t.match(await verdictOf(dir, [closing.text, young.text], { publicKeys, headFiles: [headFile] }), {
    exitCode: 1,
    where: ['file-2:1'],
    problems: [{ what: /^this is not the record that the head of/ }],
  })
})

t.test('records after the closing record of a run were added while the service was stopped', async t => {
  const dir = t.testdir()
  const { keyFile, publicKey } = signingKey(dir)
  const closed = (await writeLog(dir, { records: 2, runs: 1, keyFile }))[0] ?? []
  const { sequence } = JSON.parse(closed.at(-1) ?? '')
  const end = { hash: sha256(closed.at(-1) ?? ''), sequence }
  const one = chain(end, body())
  const two = chain(one.end, body())
  const what = `records ${sequence + 1} to ${sequence + 2} were added while the service was stopped: ` +
    `record ${sequence} closed the log, and no crash leaves a record after that`
  const added = [...closed, one.line, two.line]
  const problem = { exitCode: 1, where: [`file-1:${sequence + 1}`], problems: [{ what }] }
  const publicKeys = [publicKey]
  t.match(await verdictOf(dir, [textOf(added)], { publicKeys }), problem, 'before the next start')
  const path = join(dir, 'audit.jsonl')
  writeFileSync(path, textOf(added))
  const sink = new Sink(new FileMedium(path), { key: createPrivateKey(readFileSync(keyFile, 'utf8')), log: silent })
  await sink.write(body(), false)
  await sink.close()
  const continued = await verdictOf(dir, [readFileSync(path)], { publicKeys })
  t.match(continued, problem, 'after it')
  t.match(continued.findings.join('\n'), `but the run before it had closed the log with record ${sequence}`)
  t.notMatch(continued.findings.join('\n'), 'crashed')
  t.notMatch(continued.findings.join('\n'), 'a crash leaves such records')

  const next = chain(end, { ...header(2, end, JSON.parse(closed[0] ?? '').log), time: '' })
  const file = textOf([next.line, chain(next.end, { event: 'tool_call', time: '' }).line])
  t.match(await verdictOf(dir, [textOf(closed), file]), {
    exitCode: 1,
    where: ['file-2:1'],
    problems: [{ what: /^records 6 to 7 were added while the service was stopped: record 5 closed the log/ }],
  }, 'in a file of their own')
  t.match(await verdictOf(dir, [`${textOf(closed)}{"torn`]), {
    exitCode: 1,
    problems: [{ what: /was added while the service was stopped/ }],
  }, 'a torn line')
})

t.test('an unreadable log is not called altered', async (t: Test) => {
  const dir = t.testdir()
  t.match(await verifyFiles([join(dir, 'missing')]), { exitCode: 2, findings: [/missing: unreadable: ENOENT/] })
  t.match(await verifyFiles([dir]), { exitCode: 2, findings: [/unreadable: .* is a folder: name the files in it$/] })
  t.equal((await verifyFiles([])).exitCode, 2)
})
