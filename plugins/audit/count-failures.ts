import { normalizeIP } from '@fastify/rate-limit'
import type { AuditEntry } from './record.ts'

const INTERVAL_MS = 10_000
/** Failed sign-ins of one address, and of all, that get a record of their own within an interval. */
const ONE_BY_ONE = 20
const ALL_ONE_BY_ONE = 1_000
/** Addresses that are counted each by itself within an interval. */
const MAX_ADDRESSES = 1_000

/** The failures of an address within an interval. */
interface Tally {
  /** With a record of their own. */
  recorded: number
  /** Those after them, and the last one. */
  counted: number
  last?: AuditEntry
}

/**
 * Records the first failures of each address in an interval one by one. When the interval ends, it records those after
 * them as one for each address: the last failure, with their `count`. So noise from one address hides no other. Beyond
 * a number of addresses, the others share one record.
 */
export function countFailures (record: (entry: AuditEntry) => Promise<void>) {
  const tallies = new Map<string, Tally>()
  let timer: NodeJS.Timeout | undefined
  let oneByOne = 0
  /** Of all addresses beyond the bound. */
  let others: Tally = { recorded: 0, counted: 0 }

  function tallyOf ({ where: { remote_address: address } }: AuditEntry): Tally {
    const key = address === null ? '' : normalizeIP(address)
    let tally = tallies.get(key)
    if (!tally) {
      if (tallies.size >= MAX_ADDRESSES) return others
      tally = { recorded: 0, counted: 0 }
      tallies.set(key, tally)
    }
    return tally
  }

  async function endInterval (): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    const summaries = [
      ...[...tallies.values()].map(tally => summaryOf(tally, 'from this address')),
      summaryOf(others, `from addresses beyond the first ${MAX_ADDRESSES}`),
    ]
    tallies.clear()
    others = { recorded: 0, counted: 0 }
    oneByOne = 0
    await Promise.all(summaries.map(entry => entry && record(entry)))
  }

  return {
    async add (entry: AuditEntry): Promise<void> {
      timer ??= setTimeout(endInterval, INTERVAL_MS).unref()
      const tally = tallyOf(entry)
      if (tally !== others && tally.recorded < ONE_BY_ONE && oneByOne < ALL_ONE_BY_ONE) {
        tally.recorded++
        oneByOne++
        await record(entry)
      } else {
        tally.counted++
        tally.last = entry
      }
    },
    close: endInterval,
  }
}

/** One record for the failures that were only counted. A single one is recorded as it is. */
function summaryOf ({ counted, last }: Tally, whose: string): AuditEntry | undefined {
  if (!last || counted === 1) return last
  const warning = `${counted} failures within ${INTERVAL_MS / 1_000} s ${whose}, of which this is the last: ` +
    `${last.warning}`
  return { ...last, count: counted, warning }
}
