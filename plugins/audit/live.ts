import { randomBytes } from 'node:crypto'

const DEFAULT_SIZE = 1_000

/** A record as a sink wrote it, or how many records a follower has missed (`null`: unknown). */
export type LiveEvent = { kind: 'record', id: string, line: string } | { kind: 'missed', records: number | null }

/**
 * The latest records, and those to come, for any number of followers. All followers share one buffer. A slow one costs
 * no memory: it is told how many records left the buffer before it reached them.
 */
export class LiveRecords {
  /** Tells ids of this process from those of another run or replica. */
  readonly #run = randomBytes(6).toString('hex')
  readonly #lines: string[] = []
  readonly #size: number
  readonly #waiting = new Set<(value?: unknown) => void>()
  #next = 1

  constructor (size = DEFAULT_SIZE) {
    this.#size = size
  }

  publish (line: string): void {
    this.#lines[this.#next++ % this.#size] = line
    for (const wake of this.#waiting) wake()
  }

  /** The records in the buffer, newest first, and the id after which a follower goes on. */
  latest (): { lines: string[], after: string } {
    const numbers = Array.from({ length: this.#next - this.#oldest }, (_, index) => this.#next - 1 - index)
    return {
      lines: numbers.map(number => this.#lines[number % this.#size] as string),
      after: `${this.#run}-${this.#next - 1}`,
    }
  }

  /** Records from now on, or after the last id that a follower has seen, until the signal is aborted. */
  async * follow (lastId: string | null, signal: AbortSignal): AsyncGenerator<LiveEvent, void, void> {
    let next = this.#next
    if (lastId !== null) {
      const [run, number] = lastId.split('-')
      const resumed = run === this.#run ? Number(number) + 1 : NaN
      if (resumed > 0 && resumed <= this.#next) {
        next = resumed
      } else {
        yield { kind: 'missed', records: null }
        next = this.#oldest
      }
    }
    while (!signal.aborted) {
      if (next < this.#oldest) {
        const records = this.#oldest - next
        next = this.#oldest
        yield { kind: 'missed', records }
      } else if (next < this.#next) {
        const number = next++
        yield { kind: 'record', id: `${this.#run}-${number}`, line: this.#lines[number % this.#size] as string }
      } else {
        await this.#published(signal)
      }
    }
  }

  get #oldest (): number {
    return Math.max(1, this.#next - this.#size)
  }

  async #published (signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<unknown>()
    this.#waiting.add(resolve)
    signal.addEventListener('abort', resolve)
    await promise
    signal.removeEventListener('abort', resolve)
    this.#waiting.delete(resolve)
  }
}
