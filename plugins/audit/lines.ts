import { createReadStream } from 'node:fs'

/** Far more than a record takes: a longer line is not one. */
const MAX_LINE_BYTES = 16 * 1024 * 1024

/** A line without its line end; `torn` when the file ends in the middle of it. */
export interface Line { number: number, bytes: Buffer, torn: boolean }

/** The lines of a file, as bytes; after one that is too long, nothing. @throws when the file cannot be read */
export async function * linesOf (path: string): AsyncGenerator<Line, void, void> {
  let number = 0
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let start = 0
    for (let end = bytes.indexOf('\n'); end >= 0; end = bytes.indexOf('\n', start)) {
      yield { number: ++number, bytes: bytes.subarray(start, end), torn: false }
      start = end + 1
    }
    rest = bytes.subarray(start)
    if (rest.length > MAX_LINE_BYTES) break
  }
  if (rest.length > 0) yield { number: ++number, bytes: rest, torn: true }
}
