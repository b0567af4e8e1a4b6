import type { KeyObject } from 'node:crypto'
import type { End } from '../chain.ts'
import { Draft } from './draft.ts'

const INTERVAL_MS = 60_000

/** Knows how many records of a chain have no checkpoint yet, and makes one due within a minute of the first of them. */
export class Checkpoints {
  readonly #key: KeyObject | undefined
  readonly #onDue: () => void
  readonly #hasHeadFile: () => boolean
  #unsealed = 0
  #due = false
  #timer: NodeJS.Timeout | undefined

  /**
   * @param key signs the checkpoints; without it they are unsigned
   * @param hasHeadFile whether the newest head is kept in a file, as a checkpoint then states
   */
  constructor (key: KeyObject | undefined, onDue: () => void, hasHeadFile: () => boolean = () => false) {
    this.#hasHeadFile = hasHeadFile
    this.#key = key
    this.#onDue = onDue
  }

  get due (): boolean {
    return this.#due
  }

  draft (end: End, log?: string): Draft {
    return new Draft(end, this.#unsealed, this.#key, log, this.#hasHeadFile())
  }

  /** Adds the checkpoint that is due, unless everything in the draft has one already. */
  sealIfDue (draft: Draft): void {
    if (this.#due && draft.unsealed > 0) draft.seal()
    this.#due = false
  }

  /** Makes a checkpoint due now. */
  demand (): void {
    this.#due = true
    this.#onDue()
  }

  /** The draft is now part of the chain. */
  appended ({ unsealed }: Pick<Draft, 'unsealed'>): void {
    this.#unsealed = unsealed
    this.#schedule()
  }

  /** A draft could not be appended: its checkpoint is due again a minute later. */
  postpone (): void {
    this.#due = false
    this.#schedule()
  }

  stop (): void {
    clearTimeout(this.#timer)
  }

  #schedule (): void {
    if (this.#unsealed === 0) return
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#due = true
      this.#onDue()
    }, INTERVAL_MS).unref()
  }
}
