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

interface Line {
  /** With its line end. */
  text: string
  /** The end of the chain with this line. */
  end: End
  /** Records after the last checkpoint, this one included. */
  unsealed: number
  kind: 'record' | 'checkpoint' | 'note'
  onTaken: (() => void) | undefined
}

/** The first lines of a draft, which the chain now has. */
export interface Taken {
  end: End
  unsealed: number
  records: number
  /** The line of the last checkpoint in it. */
  head: string | undefined
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
  /** Of all lines that were added, with their line ends. */
  bytes = 0
  #lines: Line[] = []

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

  get text (): string {
    return this.#lines.map(({ text }) => text).join('')
  }

  get isEmpty (): boolean {
    return this.#lines.length === 0
  }

  /** Adds a record, and a checkpoint when enough records are without one. Returns the record's line. */
  add (body: Body): string {
    const line = this.#append(body, 'record')
    if (this.unsealed >= CHECKPOINT_RECORDS) this.seal()
    return line
  }

  /** @param onTaken is called once the chain has the note */
  note (note: ChainNote, onTaken?: () => void): void {
    this.#append({ ...note, ...stamp() }, 'note', onTaken)
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
    this.#append(checkpoint(this.end, { ...stamp(), ...states }, closing, this.#key), 'checkpoint')
  }

  /** Removes the first lines, all by default, which the chain now has. */
  take (count = this.#lines.length): Taken {
    const lines = this.#lines.splice(0, count)
    for (const { onTaken } of lines) onTaken?.()
    const { end, unsealed } = lines.at(-1) ?? this
    const head = lines.findLast(({ kind }) => kind === 'checkpoint')?.text.slice(0, -1)
    return { end, unsealed, head, records: lines.filter(({ kind }) => kind === 'record').length }
  }

  #append (body: Body, kind: Line['kind'], onTaken?: () => void): string {
    const { line, end } = chain(this.end, body)
    const text = `${line}\n`
    this.end = end
    this.bytes += Buffer.byteLength(text)
    this.unsealed = kind === 'checkpoint' ? 0 : this.unsealed + 1
    this.#lines.push({ text, end, unsealed: this.unsealed, kind, onTaken })
    return line
  }
}

function stamp (): { time: string, where: { replica: string } } {
  return { time: new Date().toISOString(), where: { replica: REPLICA } }
}
