import { setTimeout as delay } from 'node:timers/promises'
import { variableOf } from '../../config/schema.ts'
import { BEGINNING, isOfChain, parseRecord } from '../chain.ts'
import type { Answer, Collector } from './collector.ts'
import type { Appended, Attempt, Medium } from './medium.ts'
import { LATE } from './sink-status.ts'

const RETRY_MS = { first: 200, last: 5_000 }
/** A batch that has failed so often, and as often again, is halved: something in it may be the cause. */
const FAILURES_PER_HALVING = 2
/** A record is given up after so many failures in a row, and so many of them while the collector took another line. */
const FAILURES_PER_RECORD = 10
const PROVEN_FAILURES_PER_RECORD = 5

/** Refusals that may have another cause than the batch. */
const PASSING = new Set([401, 403, 404, 407, 408, 425, 429])
/** Refusals that say nothing about the batch: 407 comes from a proxy. */
const UNRELATED = new Set([401, 407, 429])

export interface HttpOptions {
  /** Of a batch, with its line ends. A longer line is a batch of its own. */
  maxBytes: number
  /** How long to wait after the first failure, which doubles with each one after it, and at most. */
  retryMs?: { first: number, last: number }
}

/**
 * Posts lines to a collector, as one chain per run of the process. They are accepted when the collector answers 2xx.
 *
 * - A batch that is too large or refused for good is halved, until only the record that is the cause is refused.
 * - Any other batch is sent again until it is accepted. One whose answer was lost therefore arrives twice, with the
 *   same bytes: whatever is repeated begins with the same lines.
 */
export class HttpMedium implements Medium {
  readonly kind = 'http'
  readonly #collector: Collector
  readonly #maxBytes: number
  readonly #retryMs: { first: number, last: number }
  /** Lines of the next batch at most. */
  #maxLines = Infinity
  #begins = true
  /** The last line that the collector has accepted. */
  #known: string | undefined

  constructor (collector: Collector, { maxBytes, retryMs = RETRY_MS }: HttpOptions) {
    this.#collector = collector
    this.#maxBytes = maxBytes
    this.#retryMs = retryMs
  }

  async open (position: Parameters<Medium['open']>[0]): ReturnType<Medium['open']> {
    return { position: position ?? { file: 0, end: BEGINNING }, begins: this.#begins }
  }

  async append (text: string, onAttempt: (attempt: Attempt) => void): Promise<Appended> {
    const lines = text.split(/(?<=\n)/)
    const { signal } = this.#collector
    let proven = 0
    let failure = LATE
    for (let failures = 0; ; failures++) {
      const batch = this.#batchOf(lines)
      const isAlone = batch.length === 1
      const answer = await this.#collector.post(batch.join(''))
      if (isAccepted(answer)) {
        onAttempt({ status: statusOf(answer) })
        this.#maxLines = Math.max(this.#maxLines, 2 * batch.length)
        this.#begins = false
        this.#known = batch.at(-1)
        return { lines: batch.length }
      }
      if (signal.aborted) throw new Error(failure)
      // What the chain states about itself cannot be left out.
      const isRecord = isAlone && !isNote(lines[0])
      if (isFinal(answer) && (!isAlone || isRecord)) {
        onAttempt({ status: statusOf(answer) })
        if (isRecord) return { lines: 0, refused: reasonOf(answer) }
        this.#halve(batch)
        continue
      }
      failure = failureOf(answer)
      onAttempt({ status: statusOf(answer), failure })
      if (isRecord && isAboutBatch(answer) && failures >= FAILURES_PER_RECORD && this.#known !== undefined) {
        // Otherwise a collector that is down could not be told from a record that it cannot take. It then has the line
        // twice, which does not alter the log.
        const probe = await this.#collector.post(this.#known)
        if (signal.aborted) throw new Error(failure)
        onAttempt({ status: statusOf(probe), failure })
        proven = isAccepted(probe) ? proven + 1 : 0
        if (proven === PROVEN_FAILURES_PER_RECORD) {
          return { lines: 0, refused: `${reasonOf(answer)}, for this record only` }
        }
      }
      if (isAboutBatch(answer) && failures % FAILURES_PER_HALVING === FAILURES_PER_HALVING - 1) this.#halve(batch)
      const waitMs = Math.min(this.#retryMs.first * 2 ** failures, this.#retryMs.last)
      await delay(Math.max(waitMs, answer.retryAfterMs ?? 0), undefined, { signal }).catch(() => {})
      if (signal.aborted) throw new Error(failure)
    }
  }

  async close (): Promise<void> {
    this.#collector.close()
  }

  /** The first lines that make a batch. */
  #batchOf (lines: readonly string[]): string[] {
    let bytes = 0
    const tooFar = lines.findIndex((line, index) => {
      bytes += Buffer.byteLength(line)
      return index > 0 && (bytes > this.#maxBytes || index >= this.#maxLines)
    })
    return lines.slice(0, tooFar === -1 ? lines.length : tooFar)
  }

  #halve (batch: readonly string[]): void {
    this.#maxLines = Math.ceil(batch.length / 2)
  }
}

function isAccepted ({ status = 0 }: Answer): boolean {
  return status >= 200 && status < 300
}

/** The collector will never accept the batch. */
function isFinal ({ status = 0 }: Answer): boolean {
  return status >= 400 && status < 500 && !PASSING.has(status)
}

/** Something in the batch may be the cause. */
function isAboutBatch ({ status = 0, retryAfterMs, reached }: Answer): boolean {
  return reached && retryAfterMs === undefined && !UNRELATED.has(status)
}

function statusOf ({ status }: Answer): string {
  return String(status ?? 'none')
}

/** Becomes the reason of a gap. */
function reasonOf ({ status, reason = `the collector answered ${status}` }: Answer): string {
  return reason
}

/** What went wrong, and what to look at. */
export function failureOf (answer: Answer): string {
  const { status } = answer
  const hint = status === 401 || status === 403
    ? `: is the header that it requires in ${variableOf('auditCollectorHeadersFile')}?`
    : ''
  return `${reasonOf(answer)}${hint}`
}

/** Whether the chain states something about itself on a line. */
function isNote (line = ''): boolean {
  const record = parseRecord(Buffer.from(line.trimEnd()))
  return record !== undefined && isOfChain(record)
}
