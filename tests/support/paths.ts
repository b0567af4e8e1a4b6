/** The project's root, and the recording of a real cluster. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'

export const ROOT = join(import.meta.dirname, '../..')

/** The lines of a recorded file (`*.jsonl`, `*.jsonl.gz`), parsed. */
export function recording<Line> (name: string): Line[] {
  const bytes = readFileSync(join(import.meta.dirname, 'fixtures/recording', name))
  const text = (name.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()
  return text.trim().split('\n').map(line => JSON.parse(line) as Line)
}
