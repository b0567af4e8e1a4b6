import { header } from '../chain.ts'
import type { Checkpoints } from './checkpoints.ts'
import type { Draft } from './draft.ts'
import type { ChainPosition, Medium, Opened } from './medium.ts'
import type { PendingRecord, RecordQueue } from './record-queue.ts'
import type { MissedRecords, SinkStatus } from './sink-status.ts'
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
   * Rejects if the batch was not appended; it is then still in flight.
   */
  async writeBatch (queue: RecordQueue, { closing = false } = {}): Promise<void> {
    let opened = await this.#medium.open(this.#position)
    this.#position = opened.position
    if (opened.due && this.#medium.rotate) opened = await this.#rotate(opened)

    const { position, position: { file, end, log }, begins, torn, gap } = opened
    const missed = this.#status.unrecordedGap
    const draft = this.#checkpoints.draft(end, log)
    preface(draft, opened, missed)
    queue.fill(draft)
    if (closing) draft.seal({ endsRun: true })
    else this.#checkpoints.sealIfDue(draft)
    if (draft.text === '') return

    await this.#medium.append(draft.text)
    this.#position = { ...position, file: begins ? file + 1 : file, end: draft.end }
    this.#checkpoints.appended(draft)
    if (missed) this.#status.gapRecorded(missed)
    if (torn ?? gap) this.#status.damageRecorded(opened)
    const records = queue.takeAppended()
    this.#status.accepted(records.length)
    this.#syncer.settle([...records, ...this.#headOf(draft, log)])
  }

  /** The draft's last checkpoint, which is published once it is durable: never before the log is sure to have it. */
  #headOf ({ head }: Draft, log: string | undefined): PendingRecord[] {
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
    await this.#medium.append(draft.text)
    this.#position = { ...opened.position, end: draft.end }
    this.#checkpoints.appended(draft)
    this.#syncer.settle(this.#headOf(draft, log))
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
  { position: { file, end, log }, begins, continues, unsealed, torn, gap }: Opened,
  missed: MissedRecords | undefined
): void {
  if (begins) draft.note(header(file + 1, end, log))
  // Sealed at once: no call is answered before its run has stated where it began, and repeated crashes leave no more
  // records without a checkpoint than a single one.
  if (continues) draft.seal({ found: unsealed === true && !begins, continues })
  if (torn) draft.note({ event: 'torn_line', torn })
  if (gap) draft.note({ event: 'gap', gap: { since: null, ...gap } })
  if (missed) draft.note({ event: 'gap', gap: missed })
}
