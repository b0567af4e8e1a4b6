import fc from 'fast-check'
import { aggregate, type BrokerPage, InvalidPageError, parseBrokerPage } from '../../../../kafscale/broker-metrics.ts'
import { recording } from '../../paths.ts'
import type { Target } from '../target.ts'

const pages = recording<{ body?: string }>('metrics.jsonl.gz').flatMap(({ body }) => body ?? [])

/** What pages consist of, and what they should not have. */
const fragment = fc.oneof(
  fc.constantFrom(
    '\n', ' ', '{', '}', '"', '=', ',', '#', '# TYPE ', '# HELP ', '\\', '0', '-1', '1e309', 'NaN', '+Inf', '-Inf', '',
    'kafscale_s3_health_state', '{state="healthy"} 1', '{le="5"} 1', '_bucket', '_count', '_sum', '__proto__', '\r',
    'kafscale_produce_latency_ms_bucket{le="+Inf"} 1\n', 'kafscale_admin_requests_total{api="x"} 1\n'
  ),
  fc.string({ unit: 'binary', maxLength: 8 })
)
const edit = fc.record({ at: fc.nat(), remove: fc.nat(40), insert: fragment })
const edits = fc.array(edit, { minLength: 1, maxLength: 4 })

function edited (page: string, changes: readonly { at: number, remove: number, insert: string }[]): string {
  return changes.reduce((text, { at, remove, insert }) => {
    const start = at % (text.length + 1)
    return text.slice(0, start) + insert + text.slice(start + remove)
  }, page)
}

/** The page's figures, or undefined when it is refused. Whatever else the parser throws is a finding. */
function parse (text: string): BrokerPage | undefined {
  try {
    return parseBrokerPage(text)
  } catch (error) {
    if (error instanceof InvalidPageError) return undefined
    throw error
  }
}

/** Every number is one, apart from the last bound of a histogram, which is infinite. */
function isSound (value: unknown, name = ''): boolean {
  if (typeof value === 'number') return Number.isFinite(value) || (name === 'le' && value === Infinity)
  if (typeof value !== 'object' || value === null) return true
  return Object.entries(value).every(([name, member]) => isSound(member, name))
}

export default {
  name: 'broker-page',
  run (seed) {
    const options = { seed, numRuns: 200 }
    fc.assert(
      fc.property(fc.constantFrom(...pages), edits, (page, edits) => {
        const figures = parse(edited(page, edits))
        return figures === undefined || (isSound(figures) && isSound(aggregate([figures, figures])))
      }),
      options
    )
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.array(fragment).map(parts => parts.join(''))), text =>
        parse(`${text}\n`) === undefined),
      options
    )
  },
} satisfies Target
