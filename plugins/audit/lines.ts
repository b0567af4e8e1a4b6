import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'

/** Far more than a record takes: a longer line is not one. */
const MAX_LINE_BYTES = 16 * 1024 * 1024
const CHUNK_BYTES = 256 * 1024
const LINE_END = 0x0a

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
  for await (const lines of lineBatchesOf(path)) yield * lines
}

/**
 * As `linesOf`, in batches that are valid until the next one is read: to wait for each line takes almost as long as to
 * parse it. A batch is read once, and to its end.
 */
export async function * lineBatchesOf (path: string): AsyncGenerator<IteratorObject<Line>, void, void> {
  const state = { number: 0, rest: Buffer.alloc(0) as Buffer }
  for await (const chunk of contentOf(path)) {
    const complete = chunk.lastIndexOf('\n') + 1
    if (complete > 0) {
      yield linesIn(chunk.subarray(0, complete), state)
      state.rest = Buffer.from(chunk.subarray(complete))
    } else {
      state.rest = Buffer.concat([state.rest, chunk])
    }
    if (state.rest.length > MAX_LINE_BYTES) break
  }
  if (state.rest.length > 0) yield [{ number: ++state.number, bytes: state.rest, torn: true }].values()
}

/** The lines of bytes that end with a line end, and that continue `rest`. */
function * linesIn (bytes: Buffer, state: { number: number, rest: Buffer }): Generator<Line, void, void> {
  let start = 0
  for (let end = bytes.indexOf(LINE_END); end >= 0; end = bytes.indexOf(LINE_END, start)) {
    const line = bytes.subarray(start, end)
    yield {
      number: ++state.number,
      bytes: state.rest.length === 0 ? line : Buffer.concat([state.rest, line]),
      torn: false,
    }
    if (start === 0) state.rest = Buffer.alloc(0)
    start = end + 1
  }
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
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EISDIR') throw error
    throw new Error(`${path} is a folder: name the files in it`, { cause: error })
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
