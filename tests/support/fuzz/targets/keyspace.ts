import fc from 'fast-check'
import { formatKey } from '../../../../demo/encode.ts'
import { parseKey } from '../../../../kafscale/keyspace.ts'
import { type KeyEvent, Mirror } from '../../../../kafscale/mirror.ts'
import { history, oddNames, type Operation, type Random, random } from '../../generate.ts'
import type { Target } from '../target.ts'

const WRITES = 300
const NOW = new Date('2026-07-28T00:00:00Z')

/** Parts of keys, in any order. */
const part = fc.oneof(
  fc.constantFrom(
    '/kafscale/', 'topics/', 'consumers/', 'partition-leases/', 'group-leases/', 'metadata/', 'metadata', 'snapshot',
    'offsets/', '/offsets/', '/partitions/', 'partitions', '/next_offset', '/config', '/', '//', '0', '01', '-1', '7',
    '2147483647', '2147483648', '\0', '\ufeff'
  ),
  fc.constantFrom(...oddNames),
  fc.string({ unit: 'binary', maxLength: 4 })
)
const key = fc.array(part, { maxLength: 8 }).map(parts => `/kafscale/${parts.join('')}`)

/** The bytes with a few of them removed, changed or inserted. */
function damaged (bytes: Buffer, { int }: Random): Buffer {
  const start = int(bytes.length + 1)
  const inserted = Buffer.from(Array.from({ length: int(4) }, () => int(256)))
  return Buffer.concat([bytes.subarray(0, start), inserted, bytes.subarray(start + int(4))])
}

/** A write in which a value, or seldom a key, is damaged now and then. */
function write (operation: Operation, modRevision: number, choose: Random): KeyEvent {
  if ('delete' in operation) return { type: 'delete', key: operation.delete, value: Buffer.alloc(0), modRevision }
  const { put: key, value } = operation
  return {
    type: 'put',
    key: choose.chance(0.05) ? damaged(key, choose) : key,
    value: choose.chance(0.3) ? damaged(value, choose) : value,
    modRevision,
  }
}

function mirrorOf (events: Iterable<KeyEvent>): Mirror {
  const mirror = new Mirror()
  for (const event of events) mirror.apply(event)
  return mirror
}

export default {
  name: 'keyspace',
  run (seed) {
    fc.assert(
      fc.property(key, text => {
        const parsed = parseKey(text)
        if (parsed?.kind !== 'ambiguous-offset') return parsed === undefined || formatKey(parsed) === text
        return parsed.candidates.every(candidate =>
          formatKey({ kind: 'committed-offset', ...candidate, partition: parsed.partition }) === text)
      }),
      { seed, numRuns: 1_000 }
    )
    for (let turn = 0; turn < 5; turn++) {
      const choose = random(seed * 5 + turn)
      const events = history(seed * 5 + turn, WRITES, NOW).operations
        .map((operation, index) => write(operation, index + 1, choose))
      // What the mirror makes of a keyspace depends on its contents alone, not on how it came about.
      const left = new Map<string, KeyEvent>()
      for (const event of events) {
        const name = event.key.toString('latin1')
        if (event.type === 'put') left.set(name, event)
        else left.delete(name)
      }
      const differences = mirrorOf(events).differences(mirrorOf(choose.some([...left.values()], left.size)))
      if (differences.length > 0) throw new Error(`the mirror depends on the order of writes: ${differences.join()}`)
    }
  },
} satisfies Target
