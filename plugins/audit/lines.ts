import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'

/** Far more than a record takes: a longer line is not one. */
const MAX_LINE_BYTES = 16 * 1024 * 1024
const CHUNK_BYTES = 256 * 1024

/**
 * A line without its line end; `torn` when the file ends in the middle of it. Its bytes are valid until the next line
 * is read.
 */
export interface Line { number: number, bytes: Buffer, torn: boolean }

/**
 * The lines of a file, as bytes; after one that is too long, nothing. A file whose name ends with `.gz` or `.zst` is
 * decompressed.
 * @throws when the file cannot be read
 */
export async function * linesOf (path: string): AsyncGenerator<Line, void, void> {
  let number = 0
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of contentOf(path)) {
    let start = 0
    for (let end = chunk.indexOf('\n'); end >= 0; end = chunk.indexOf('\n', start)) {
      const bytes = chunk.subarray(start, end)
      yield { number: ++number, bytes: rest.length === 0 ? bytes : Buffer.concat([rest, bytes]), torn: false }
      rest = Buffer.alloc(0)
      start = end + 1
    }
    rest = Buffer.concat([rest, chunk.subarray(start)])
    if (rest.length > MAX_LINE_BYTES) break
  }
  if (rest.length > 0) yield { number: ++number, bytes: rest, torn: true }
}

function contentOf (path: string): AsyncIterable<Buffer> {
  if (path.endsWith('.gz')) return decompressed(path, createGunzip({ chunkSize: CHUNK_BYTES }))
  if (path.endsWith('.zst')) return decompressed(path, createZstdDecompress({ chunkSize: CHUNK_BYTES }))
  return chunksOf(path)
}

/** All chunks share one buffer, so that a large file leaves no garbage. */
async function * chunksOf (path: string): AsyncGenerator<Buffer, void, void> {
  const file = await open(path)
  try {
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, null)
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await file.close()
  }
}

async function * decompressed (
  path: string,
  decompress: ReturnType<typeof createGunzip | typeof createZstdDecompress>
): AsyncGenerator<Buffer, void, void> {
  try {
    // An error of the file ends the iteration too.
    yield * pipeline(createReadStream(path), decompress, () => {}) as AsyncIterable<Buffer>
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw code === 'ENOENT' ? error : new Error(`${path} cannot be decompressed: ${message}`, { cause: error })
  }
}
