import fc from 'fast-check'
import t from 'tap'
import { escapeUnprintable, quote } from '../../lib/printable.ts'
import { holds } from '../support/property.ts'

/** Every code point except surrogates, which are no characters. */
const CHARACTERS = Array.from({ length: 0x110000 }, (_, codePoint) => codePoint)
  .filter(codePoint => codePoint < 0xd800 || codePoint > 0xdfff)
  .map(codePoint => String.fromCodePoint(codePoint))

function isEscaped (character: string): boolean {
  return escapeUnprintable(`a${character}b`) !== `a${character}b`
}

t.test('characters that are not seen are escaped, and no others', async t => {
  const unseen = /^[[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800\ufff9-\ufffc]--[ ]]$|\u2d7f/v
  const signs = new Set([0x1107f, 0x16fe4, 0x1d159])
  const wrong = CHARACTERS.filter(character =>
    isEscaped(character) !== (unseen.test(character) || signs.has(character.codePointAt(0) as number))
  )
  t.strictSame(wrong.map(character => character.codePointAt(0)?.toString(16)), [])
  for (const character of ' aé☃漢😀𝄞\u0301"\\') t.notOk(isEscaped(character), JSON.stringify(character))
})

t.test('a character outside the basic plane is escaped as its two halves', async t => {
  t.equal(quote('a\u{e0041}\u{1d173}😀'), '"a\\udb40\\udc41\\ud834\\udd73😀"')
  t.equal(quote('\ue000\u{f0041}\u{10ffff}\u0378\uffff𠀀'), '"\\ue000\\udb80\\udc41\\udbff\\udfff\\u0378\\uffff𠀀"')
})

t.test('joined emoji and scripts are escaped in JSON, whose value stays the same', async t => {
  const texts = ['❤\ufe0f', '👩\u200d🚀', 'می\u200cخواهم', 'क\u094d\u200dष']
  for (const text of texts) {
    t.match(quote(text), /\\u(fe0f|200d|200c)/)
    t.equal(JSON.parse(quote(text)), text)
  }
})

t.test('the JSON of any text shows all of its characters, and has the same value', async t => {
  const unit = fc.oneof(fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }), fc.constantFrom(
    'a', '\\', '"', '\u0000', '\u200b', '\ufe0f', '\u{e0100}', '\u{e007f}', '\ud800', '\udc00', '\udb40', '\udd00'
  ))
  holds(t, 'text', fc.string({ unit, maxLength: 40 }), text => {
    const json = quote(text)
    return JSON.parse(json) === text && !/[[\p{C}\p{Z}\p{DI}]--[ ]]/v.test(json)
  }, 3_000)
})

t.test('a text of a million unseen characters takes one pass', async t => {
  const text = 'a\u200b\u{e0101}'.repeat(300_000)
  t.equal(escapeUnprintable(text), 'a\\u200b\\udb40\\udd01'.repeat(300_000))
})
