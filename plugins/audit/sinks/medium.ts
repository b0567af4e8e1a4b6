import type { FastifyBaseLogger } from 'fastify'
import type { Continuation, End, Gap, TornLine } from '../chain.ts'

/** Where a chain ends. */
export interface ChainPosition {
  /** The number of its current file, or of a process's one stream. */
  file: number
  /** The last line in it. */
  end: End
  /** Names a log that is kept in files, and so outlives the process. */
  log?: string
}

/** The state in which a medium was opened. */
export interface Opened {
  /** Where the chain continues. */
  position: ChainPosition
  /** The file or stream is empty, so a header comes first. */
  begins: boolean
  /** Where this process found the end of a chain that outlives it, until it has recorded that. */
  continues?: Continuation | undefined
  /** An earlier run left records after its last checkpoint. */
  unsealed?: boolean
  /** The file is large or old enough to be rotated. */
  due?: boolean
  torn?: TornLine | undefined
  /** Records that had been written and are gone. */
  gap?: Omit<Gap, 'since'> | undefined
}

/** What a medium took of the lines that it was given. */
export interface Appended {
  /** How many of them, from the first on. */
  lines: number
  /** Why the medium will never take the line after these, a record. */
  refused?: string
}

/** One attempt to hand lines over. A medium may need several. */
export interface Attempt {
  /** The HTTP status of the answer; `none` without an answer. */
  status: string
  /** Why it failed, if it will be repeated. */
  failure?: string | undefined
}

/** A destination for lines: the part that differs between kinds of sinks. */
export interface Medium {
  readonly kind: 'stdout' | 'file' | 'http'
  /** Takes what only one process may have. Called before anything else, if at all. */
  prepare?: (log: FastifyBaseLogger) => Promise<void>
  /** Prepares for appending lines after `position`, the last one that this process wrote, if any. */
  open: (position: ChainPosition | undefined) => Promise<Opened>
  /**
   * Resolves once lines are handed over: all of them, unless the result says otherwise. Rejects if none is.
   * @param onAttempt is called after each attempt that others may follow
   */
  append: (lines: string, onAttempt: (attempt: Attempt) => void) => Promise<Appended | void>
  /** Makes everything appended durable. Absent when handing over is all a medium can do. */
  sync?: () => Promise<void>
  /** Sets aside the file, which ends with a closing checkpoint. */
  rotate?: (file: number) => Promise<void>
  close: () => Promise<void>
}
