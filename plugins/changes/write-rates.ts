import { add, type Int64, subtract } from '../../kafscale/int64.ts'
import type { MirrorView } from '../../kafscale/mirror.ts'

/** How far apart the samples are. */
export const SAMPLE_MS = 10_000

interface Sample { atMs: number, ends: ReadonlyMap<string, Ends> }
/** The log end offsets of a topic: their sum, and how many are known. */
interface Ends { sum: Int64, known: number }

/** How many records each topic gets, from what the mirror showed at the last two samples. */
export class WriteRates {
  #before: Sample | undefined
  #last: Sample | undefined

  /** @param atMs a time that never goes back */
  sample ({ topics }: MirrorView, atMs: number): void {
    const ends = new Map(topics.map(({ name, partitions }) => {
      const known = [...partitions.values()].flatMap(({ logEndOffset }) => logEndOffset ?? [])
      return [name, { sum: known.reduce((sum, end) => add(sum, end), 0 as Int64), known: known.length }]
    }))
    this.#before = this.#last
    this.#last = { atMs, ends }
  }

  /** Records in one second; `null` if the samples do not tell, as when the topic is new or was created again. */
  of (topic: string): number | null {
    const [before, last] = [this.#before?.ends.get(topic), this.#last?.ends.get(topic)]
    if (!this.#before || !this.#last || !before || !last || before.known !== last.known || last.known === 0) return null
    const records = Number(subtract(last.sum, before.sum))
    return records < 0 ? null : Math.round(records / (this.#last.atMs - this.#before.atMs) * 10_000) / 10
  }
}
