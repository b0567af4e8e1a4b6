import t from 'tap'
import { cut, int64OrNullJson, time } from '../../../tools/shared/schema.ts'

t.test('a text over 4 KB is truncated, with a note of its length', async t => {
  t.equal(cut('x'.repeat(4096)), 'x'.repeat(4096))
  const long = cut('x'.repeat(4097))
  t.equal(Buffer.byteLength(long), 4096)
  t.match(long, /^x+… \[cut, 4097 bytes\]$/)
})

t.test('a text is truncated between characters', async t => {
  for (const character of ['é', '€', '\u{1f600}']) {
    const whole = character.repeat(3000)
    for (const text of [whole, `x${whole}`, `xx${whole}`, `xxx${whole}`]) {
      const short = cut(text)
      t.ok(Buffer.byteLength(short) <= 4096)
      t.notMatch(short, /\ufffd/)
      t.ok(short.endsWith(`${character}… [cut, ${Buffer.byteLength(text)} bytes]`))
    }
  }
})

t.test('times are RFC 3339 in UTC, large integers are strings, and unknown values are null', async t => {
  t.equal(time(0), '1970-01-01T00:00:00.000Z')
  t.equal(time(null), null)
  t.equal(int64OrNullJson(null), null)
  t.equal(int64OrNullJson(2n ** 60n), '1152921504606846976')
})
