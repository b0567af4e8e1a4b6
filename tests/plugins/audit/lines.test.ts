/** Lines of a file, wherever the parts end in which it is read. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { linesOf } from '../../../plugins/audit/lines.ts'
import { temporaryFolder } from '../../support/run.ts'

/** A file is read in parts of this size. */
const CHUNK_BYTES = 256 * 1024

t.test('each line has its bytes and its number', async t => {
  const dir = temporaryFolder(t)
  const half = 'h'.repeat(CHUNK_BYTES / 2)
  for (
    const [what, lines] of Object.entries({
      'no line': [],
      'empty lines': ['', '', ''],
      'a line that ends with a part, and one after it': ['x'.repeat(CHUNK_BYTES - 1), 'next'],
      'a line end that begins a part': ['x'.repeat(CHUNK_BYTES), 'next'],
      'a line in two parts': ['first', half, half, 'next'],
      'a line in many parts': ['first', half.repeat(9), '', 'next'],
    })
  ) {
    const content = lines.map(line => `${line}\n`).join('')
    for (const end of ['', 'torn']) {
      const path = join(dir, 'log')
      writeFileSync(path, content + end)
      writeFileSync(`${path}.gz`, gzipSync(content + end))
      for (const file of [path, `${path}.gz`]) {
        const found = []
        for await (const { number, bytes, torn } of linesOf(file)) found.push([number, bytes.toString(), torn])
        const expected = lines.map((line, index) => [index + 1, line, false])
        t.strictSame(found, end === '' ? expected : [...expected, [lines.length + 1, end, true]], what)
      }
    }
  }
})
