import type { KeyObject } from 'node:crypto'
import {
  type Body,
  chain,
  type ChainNote,
  checkpoint,
  CHECKPOINT_RECORDS,
  type Continuation,
  type End,
} from '../chain.ts'
import { REPLICA } from '../replica.ts'

interface Seal {
  /** The file ends here. */
  closing?: boolean
  /** The run of the service ends here, and so does the file. */
  endsRun?: boolean
  /** Covers records of an earlier run: its signer found them rather than wrote them. */
  found?: boolean
  /** The first checkpoint of a run: where it found the end of the chain. */
  continues?: Continuation | undefined
}

/** Lines to append to a chain in one go. Until that has succeeded, a draft can be dropped without a trace. */
export class Draft {
  readonly #key: KeyObject | undefined
  readonly #log: string | undefined
  readonly #hasHeadFile: boolean
  /** The end of the chain with these lines. */
  end: End
  /** Records after the last checkpoint. */
  unsealed: number
  text = ''
  /** The line of the last checkpoint in it. */
  head: string | undefined

  /**
   * @param log the log that the chain belongs to, if it is kept in files
   * @param hasHeadFile its newest head is kept in a file elsewhere
   */
  constructor (end: End, unsealed: number, key: KeyObject | undefined, log?: string, hasHeadFile = false) {
    this.#hasHeadFile = hasHeadFile
    this.#key = key
    this.#log = log
    this.end = end
    this.unsealed = unsealed
  }

  /** Adds a record, and a checkpoint when enough records are without one. Returns the record's line. */
  add (body: Body): string {
    const line = this.#append(body)
    if (this.unsealed >= CHECKPOINT_RECORDS) this.seal()
    return line
  }

  note (note: ChainNote): void {
    this.#append({ ...note, ...stamp() })
  }

  /** Adds a checkpoint. */
  seal ({ endsRun = false, closing = endsRun, found = false, continues }: Seal = {}): void {
    const states = {
      log: this.#log,
      ...found && { found },
      ...continues && { continues },
      ...endsRun && { ends_run: true },
      ...this.#hasHeadFile && { head_file: true },
    }
    this.head = this.#append(checkpoint(this.end, { ...stamp(), ...states }, closing, this.#key))
    this.unsealed = 0
  }

  #append (body: Body): string {
    const { line, end } = chain(this.end, body)
    this.end = end
    this.text += `${line}\n`
    this.unsealed++
    return line
  }
}

function stamp (): { time: string, where: { replica: string } } {
  return { time: new Date().toISOString(), where: { replica: REPLICA } }
}
