import { generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import {
  BEGINNING,
  canonical,
  chain,
  type ChainRecord,
  checkpoint,
  checkpointOf,
  header,
  headerOf,
  isCanonical,
  parseRecord,
  sha256,
} from '../../../plugins/audit/chain.ts'
import { holds, same } from '../../support/property.ts'

const stamp = { time: '2026-07-28T00:00:00.000Z' }
const read = (line: string) => parseRecord(Buffer.from(line)) as ChainRecord

t.test('canonical JSON follows RFC 8785, but shows what cannot be seen', async t => {
  // The examples of sections 3.2.2 and 3.2.3.
  const example = String.raw`{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
    "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}`
  t.equal(
    canonical(JSON.parse(example)),
    String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],` +
      String.raw`"string":"€$\u000f\nA'B\"\\\\\"/"}`
  )
  const sorting = String.raw`{"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\ud83d\ude00": 5, "\u0080": 6, "\u00f6": 7}`
  t.equal(canonical(JSON.parse(sorting)), '{"\\r":2,"1":4,"\\u0080":6,"\u00f6":7,"\u20ac":1,"\u{1f600}":5,"\ufb33":3}')
  t.equal(
    canonical({ 'a\u200b': 'b\u202e\ufe0f\u{e0061}\u2028 \u00a0' }),
    String.raw`{"a\u200b":"b\u202e\ufe0f\udb40\udc61\u2028 \u00a0"}`
  )
  t.equal(canonical({ 10: 0, 9: 0, a: -0 }), '{"10":0,"9":0,"a":0}', 'names that look like numbers sort as text')
})

t.test('values outside JSON are converted', async t => {
  t.equal(canonical(['\ud800', 'a\udfffb', '\ud83d\ude00']), '["\ufffd","a\ufffdb","😀"]')
  t.equal(canonical({ '\ud800': 1 }), '{"\ufffd":1}')
  t.equal(
    canonical({ a: undefined, b: [undefined, NaN, Infinity], c: 9007199254740993n }),
    '{"b":[null,null,null],"c":"9007199254740993"}'
  )
})

t.test('canonical JSON keeps the value, and is unique', async t => {
  holds(
    t,
    'the value is kept',
    fc.jsonValue({ stringUnit: 'binary' }),
    value => same(JSON.parse(canonical(value)), JSON.parse(JSON.stringify(value)))
  )
  holds(
    t,
    'canonicalizing it again changes nothing',
    fc.jsonValue({ stringUnit: 'binary' }),
    value => canonical(JSON.parse(canonical(value))) === canonical(value)
  )
  holds(
    t,
    'any string becomes well-formed',
    fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map(code => String.fromCharCode(code)) }),
    text => canonical(text).isWellFormed() && JSON.parse(canonical(text)) === text.toWellFormed()
  )
})

t.test('each line carries the SHA-256 of the one before', async t => {
  const first = chain(BEGINNING, { event: 'start', ...stamp })
  const second = chain(first.end, { event: 'stop', ...stamp })
  t.match(read(first.line), { event: 'start', schema: 1, sequence: 1, prev: '0'.repeat(64) })
  t.match(read(second.line), { event: 'stop', schema: 1, sequence: 2, prev: sha256(first.line) })
})

t.test('only canonical JSON, byte for byte, is a record', async t => {
  const { line } = chain(BEGINNING, { event: 'start', text: 'ä', ...stamp })
  t.ok(read(line))
  for (
    const [what, bytes] of Object.entries({
      'a blank': Buffer.from(line.replace('":1', '": 1')),
      'another order': Buffer.from(
        JSON.stringify({ ...JSON.parse(line), event: 'start' }, [
          'text',
          'time',
          'event',
          'prev',
          'schema',
          'sequence',
        ])
      ),
      'a name twice': Buffer.from(line.replace('{', '{"event":"stop",')),
      'an unnecessary escape': Buffer.from(line.replace('start', '\\u0073tart')),
      'bytes that are not UTF-8': Buffer.from(line.replace('ä', '\u00ff'), 'latin1'),
      'a byte order mark': Buffer.from(`\ufeff${line}`),
      'a lone surrogate': Buffer.from(line.replace('ä', '\\ud800')),
      'a number in another notation': Buffer.from(line.replace('"sequence":1', '"sequence":1.0')),
      'another schema': Buffer.from(line.replace('"schema":1', '"schema":2')),
      'no hash': Buffer.from(line.replace('0'.repeat(64), 'none')),
      'no JSON': Buffer.from(line.slice(1)),
      null: Buffer.from('null'),
      'deep nesting': Buffer.from('['.repeat(100_000) + ']'.repeat(100_000)),
      nothing: Buffer.alloc(0),
    })
  ) t.equal(parseRecord(bytes), undefined, what)
})

t.test('a line is canonical exactly if its record is written like that', async t => {
  const agrees = (line: string): boolean => {
    const record = JSON.parse(line)
    return isCanonical(Buffer.from(line), record) === (canonical(record) === line)
  }
  const value = fc.jsonValue({ stringUnit: 'binary' })
  holds(t, 'as it should be written', value, value => agrees(canonical(value)))
  holds(t, 'as JavaScript writes it', value, value => agrees(JSON.stringify(value)))
  const member = fc.tuple(fc.constantFrom('a', 'b', '1', '10', '9', '__proto__', 'toJSON', '\u200b', '\u00e9'), value)
  holds(t, 'with members in any order, and twice', fc.array(member), members =>
    agrees(`{${members.map(([name, value]) => `${canonical(name)}:${canonical(value)}`).join(',')}}`))
  const escapes = ['\\ud800', '\\uDFFF', '\\ud83d\\ude00', '\\udb40\\udc01', '\\\\ud800', '\\u200B', '\\u200b', '\\/']
  for (const escape of escapes) t.ok(agrees(`{"a":["${escape}"]}`), escape)
  for (const number of ['-0', '1.0', '1E2', '1e21', '1e+21', '100000000000000000001']) {
    t.ok(agrees(`[${number}]`), number)
  }
})

t.test('a header names the file before it, of which the first file has none', async t => {
  const first = chain(BEGINNING, { ...header(1, BEGINNING), ...stamp })
  const second = chain(first.end, { ...header(2, first.end), ...stamp })
  t.strictSame(headerOf(read(first.line)), { number: 1, before: BEGINNING })
  t.strictSame(headerOf(read(second.line)), { number: 2, before: first.end })
  t.equal(
    headerOf(read(chain(BEGINNING, { ...header(2, BEGINNING), ...stamp }).line)),
    undefined,
    'the second file must follow a first one'
  )
  t.equal(
    headerOf(read(chain(first.end, { ...header(1, first.end), ...stamp }).line)),
    undefined,
    'the first file must not follow another'
  )
  t.equal(
    headerOf(read(chain(first.end, { ...header(2, BEGINNING), ...stamp }).line)),
    undefined,
    'it must agree with the chain'
  )
  t.equal(headerOf(read(chain(first.end, { event: 'start', ...stamp }).line)), undefined)
  t.equal(headerOf(read(chain(first.end, { event: 'header', ...stamp }).line)), undefined)
})

t.test('a checkpoint proves its own integrity', async t => {
  const { privateKey } = generateKeyPairSync('ed25519')
  const { end } = chain(BEGINNING, { event: 'start', ...stamp })
  for (const key of [privateKey, undefined]) {
    const signed = key ? 'signed' : 'unsigned'
    const { line } = chain(end, checkpoint(end, stamp, true, key))
    t.match(checkpointOf(read(line)), { checkpoint: { closing: true }, problem: undefined }, signed)
    t.match(read(line), {
      event: 'checkpoint',
      sequence: 2,
      prev: end.hash,
      checkpoint: { closing: true, signature: key ? /^[0-9a-f]{128}$/ : null },
    })
    // No byte of it can be changed.
    for (let index = 0; index < line.length; index++) {
      const changed = Buffer.from(line)
      changed[index] = changed[index] === 0x31 ? 0x32 : 0x31
      const record = parseRecord(changed)
      if (record?.event === 'checkpoint' && 'checkpoint' in checkpointOf(record)) {
        t.fail(`${signed}: byte ${index} of ${line}`)
      }
    }
  }
  const other = generateKeyPairSync('ed25519').privateKey
  const [mine, theirs] = [privateKey, other].map(key => read(chain(end, checkpoint(end, stamp, true, key)).line)) as [
    ChainRecord,
    ChainRecord
  ]
  const { signature } = theirs['checkpoint'] as { signature: string }
  const problemWith = (more: object) =>
    checkpointOf({ ...mine, checkpoint: { ...mine['checkpoint'] as object, ...more } })
  t.strictSame(problemWith({ signature }), { problem: "the checkpoint's signature is wrong" })
  t.strictSame(problemWith({ signature: signature.toUpperCase() }), {
    problem: "the checkpoint's signature is malformed",
  })
  t.strictSame(checkpointOf({ ...mine, checkpoint: null }), { problem: 'the checkpoint is incomplete' })
  t.strictSame(problemWith({ closing: false }), { problem: 'the checkpoint was changed' })
  const keyless = { closing: true, public_key: 'abcd' }
  const statement = { ...mine, checkpoint: keyless }
  t.strictSame(
    checkpointOf({ ...mine, checkpoint: { ...keyless, hash: sha256(canonical(statement)), signature } }),
    { problem: "the checkpoint's signature is wrong" },
    'not a key'
  )
})
