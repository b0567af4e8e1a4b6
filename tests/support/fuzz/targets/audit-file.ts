import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { BEGINNING, chain, checkpoint, type End, header, newLog, parseRecord } from '../../../../plugins/audit/chain.ts'
import { verifyFiles } from '../../../../plugins/audit/verify/index.ts'
import type { Target } from '../target.ts'

const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const publicKeys = [publicKey.export({ type: 'spki', format: 'pem' }).toString()]
const TIME = '2026-07-28T00:00:00.000Z'
const LOG = newLog('audit.jsonl')

/** A closed file with a signed checkpoint after every third record, as the service writes it. */
function logOf (values: readonly unknown[]): { lines: string[], end: End } {
  const lines: string[] = []
  let end = BEGINNING
  const append = (body: Parameters<typeof chain>[1]) => {
    const added = chain(end, body)
    lines.push(added.line)
    end = added.end
  }
  append({ ...header(1, BEGINNING, LOG), time: TIME })
  const continues = { file: 0, ...BEGINNING, closed: null }
  append(checkpoint(end, { time: TIME, log: LOG, continues }, false, privateKey))
  for (const [index, value] of values.entries()) {
    append({ event: 'tool_call', time: TIME, value })
    if (index % 3 === 2) append(checkpoint(end, { time: TIME, log: LOG }, false, privateKey))
  }
  append(checkpoint(end, { time: TIME, log: LOG, ends_run: true }, true, privateKey))
  return { lines, end }
}

interface Edit { at: number, remove: number, insert: Uint8Array }

const text = fc.string({ unit: 'binary' })
const values = fc.array(fc.oneof(fc.jsonValue({ stringUnit: 'binary' }), text), { minLength: 1, maxLength: 8 })
const edit: fc.Arbitrary<Edit> = fc.record({
  at: fc.nat(),
  remove: fc.oneof(fc.nat(2), fc.nat(400)),
  insert: fc.oneof(
    fc.uint8Array({ maxLength: 4 }),
    fc.constantFrom('\n', '"', '\\u0061', '0', ' ', '\ufeff', '\r').map(text => Buffer.from(text))
  ),
})

/** Ways to rearrange whole lines. */
const shuffle = fc.tuple(fc.constantFrom('remove', 'repeat', 'swap', 'replace'), fc.nat(), fc.nat())

function shuffled (lines: readonly string[], [how, a, b]: [string, number, number]): string[] {
  const [from, to] = [a % lines.length, b % lines.length]
  const [line, other] = [lines[from] as string, lines[to] as string]
  switch (how) {
    case 'remove':
      return lines.toSpliced(from, 1)
    case 'repeat':
      return lines.toSpliced(to, 0, line)
    case 'replace':
      return lines.with(to, line)
    default:
      return lines.with(from, other).with(to, line)
  }
}

function edited (bytes: Buffer, { at, remove, insert }: Edit): Buffer {
  const start = at % bytes.length
  return Buffer.concat([bytes.subarray(0, start), insert, bytes.subarray(start + remove)])
}

export default {
  name: 'audit-file',
  async run (seed) {
    const folder = mkdtempSync(join(tmpdir(), 'kafscale-mcp-fuzz-'))
    const path = join(folder, 'audit.jsonl')
    const exitCode = async (content: Buffer, expectSequence?: number) => {
      writeFileSync(path, content)
      return (await verifyFiles([path], { publicKeys, ...expectSequence !== undefined && { expectSequence } })).exitCode
    }
    /** Whether a log passes exactly when it is the one that was written. */
    const isSound = async (values: readonly unknown[], change: (lines: string[]) => Buffer) => {
      const { lines, end: { sequence } } = logOf(values)
      const content = change(lines)
      const original = bytesOf(lines)
      return await exitCode(content, sequence) === (content.equals(original) ? 0 : 1)
    }
    const options = { seed, numRuns: 100 }
    try {
      await fc.assert(fc.asyncProperty(values, async values => await isSound(values, bytesOf)), options)
      await fc.assert(
        fc.asyncProperty(values, edit, async (values, edit) =>
          await isSound(values, lines => edited(bytesOf(lines), edit))),
        options
      )
      await fc.assert(
        fc.asyncProperty(values, shuffle, async (values, shuffle) =>
          await isSound(values, lines => bytesOf(shuffled(lines, shuffle)))),
        options
      )
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ maxLength: 500 }), async bytes => {
          parseRecord(Buffer.from(bytes))
          return await exitCode(Buffer.from(bytes)) === 1
        }),
        options
      )
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
} satisfies Target

function bytesOf (lines: readonly string[]): Buffer {
  return Buffer.from(lines.map(line => `${line}\n`).join(''))
}
