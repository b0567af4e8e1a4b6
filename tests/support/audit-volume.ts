/**
 * Fills up and then unmounts a small file system, in a mount namespace of this process. Prints the outcomes as JSON.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { verifyFiles } from '../../plugins/audit/verify/index.ts'
import { body, fileSink } from './audit.ts'

const volume = join(process.argv[2] ?? '', 'volume')
mkdirSync(volume)
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', volume])
const path = join(volume, 'audit.jsonl')
const sink = fileSink(path)

const attempt = async () => {
  try {
    await sink.write(body(), true)
    return 'ok'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? (error as Error).message
  }
}

await attempt()
const filler = join(volume, 'filler')
let full = ''
try {
  writeFileSync(filler, Buffer.alloc(1024 * 1024))
} catch {
  for (let tries = 0; full !== 'ENOSPC' && tries < 1_000; tries++) full = await attempt()
}
rmSync(filler)
const afterwards = await attempt()
const { findings } = await verifyFiles([path])
execFileSync('umount', ['-l', volume])
const gone = await attempt()
const onRoot = existsSync(path) || readdirSync(volume).length > 0
await sink.close()
process.stdout.write(JSON.stringify({ full, afterwards, gone, onRoot, findings }))
