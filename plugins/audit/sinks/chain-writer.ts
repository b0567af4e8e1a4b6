import { header } from '../chain.ts'
import type { Checkpoints } from './checkpoints.ts'
import type { Draft, Taken } from './draft.ts'
import type { ChainPosition, Medium, Opened } from './medium.ts'
import type { PendingRecord, RecordQueue } from './record-queue.ts'
import type { SinkStatus } from './sink-status.ts'
import type { Syncer } from './syncer.ts'

/** Writes one chain to one medium, from file to file. */
export class ChainWriter {
  readonly #medium: Medium
  readonly #checkpoints: Checkpoints
  readonly #syncer: Syncer
  readonly #status: SinkStatus
  readonly #onHead: (line: string) => void
  #position: ChainPosition | undefined

  /** @param onHead is called with each checkpoint of a log in files that ends a batch, once it is durable */
  constructor (
    medium: Medium,
    checkpoints: Checkpoints,
    syncer: Syncer,
    status: SinkStatus,
    onHead: (line: string) => void
  ) {
    this.#onHead = onHead
    this.#medium = medium
    this.#checkpoints = checkpoints
    this.#syncer = syncer
    this.#status = status
  }

  /**
   * Appends one batch of the queue, after whatever the chain has to state about itself, and settles its records.
   * Rejects if part of the batch was not appended; that part is then still in flight.
   */
  async writeBatch (queue: RecordQueue, { closing = false } = {}): Promise<void> {
    // What follows a record that the medium refused is drafted again: it has to chain to a gap instead.
    while (!await this.#writeDraft(queue, closing));
  }

  /** Resolves to whether all of the draft was appended, rather than only what comes before a refused record. */
  async #writeDraft (queue: RecordQueue, closing: boolean): Promise<boolean> {
    let opened = await this.#medium.open(this.#position)
    this.#position = opened.position
    if (opened.due && this.#medium.rotate) opened = await this.#rotate(opened)

    const { position, position: { file, end, log }, begins } = opened
    const draft = this.#checkpoints.draft(end, log)
    preface(draft, opened, this.#status)
    queue.fill(draft)
    if (closing) draft.seal({ endsRun: true })
    else this.#checkpoints.sealIfDue(draft)

    while (!draft.isEmpty) {
      const appended = await this.#medium.append(draft.text, attempt => this.#status.attempted(attempt))
      const taken = draft.take(appended?.lines)
      if (appended?.lines !== 0) {
        this.#position = { ...position, file: begins ? file + 1 : file, end: taken.end }
        this.#checkpoints.appended(taken)
        const records = queue.takeAppended(taken.records)
        this.#status.accepted(records.length)
        this.#syncer.settle([...records, ...this.#headOf(taken, log)])
      }
      if (appended?.refused !== undefined) {
        this.#leaveOut(queue, appended.refused)
        return false
      }
    }
    return true
  }

  /** Gives up the first record in flight; the others wait again. */
  #leaveOut (queue: RecordQueue, reason: string): void {
    const [refused] = queue.takeAppended(1)
    queue.putBack()
    this.#status.refused(reason)
    refused?.reject(new Error(reason))
  }

  /** The last checkpoint appended, which is published once it is durable: never before the log is sure to have it. */
  #headOf ({ head }: Taken, log: string | undefined): PendingRecord[] {
    if (head === undefined || log === undefined) return []
    return [{
      body: { event: 'checkpoint' },
      durable: true,
      sinceMs: performance.now(),
      line: head,
      resolve: () => this.#onHead(head),
      reject: () => {},
    }]
  }

  /** Closes the file with a checkpoint and sets it aside. If that fails, the chain continues in the same file. */
  async #rotate (opened: Opened): Promise<Opened> {
    const { file, end, log } = opened.position
    const draft = this.#checkpoints.draft(end, log)
    draft.seal({ closing: true, found: opened.unsealed === true, continues: opened.continues })
    await this.#medium.append(draft.text, attempt => this.#status.attempted(attempt))
    const taken = draft.take()
    this.#position = { ...opened.position, end: taken.end }
    this.#checkpoints.appended(taken)
    this.#syncer.settle(this.#headOf(taken, log))
    await this.#syncer.flush()
    await this.#medium.rotate?.(file).catch((error: Error) => this.#status.rotationFailed(error))
    return { ...opened, unsealed: false, continues: undefined, ...await this.#medium.open(this.#position) }
  }
}

/**
 * What a chain states before the next record: that a file begins, what was found in it, and which records are missing.
 */
function preface (
  draft: Draft,
  opened: Opened,
  status: SinkStatus
): void {
  const { position: { file, end, log }, begins, continues, unsealed, torn, gap } = opened
  if (begins) draft.note(header(file + 1, end, log))
  // Sealed at once: no call is answered before its run has stated where it began, and repeated crashes leave no more
  // records without a checkpoint than a single one.
  if (continues) draft.seal({ found: unsealed === true && !begins, continues })
  const onDamage = () => status.damageRecorded(opened)
  if (torn) draft.note({ event: 'torn_line', torn }, gap ? undefined : onDamage)
  if (gap) draft.note({ event: 'gap', gap: { since: null, ...gap } }, onDamage)
  for (const missed of status.unrecordedGaps) {
    draft.note({ event: 'gap', gap: missed }, () => status.gapRecorded(missed))
  }
}
