import { readFileSync } from 'node:fs'
import { Agent as HttpAgent, type AgentOptions, type OutgoingHttpHeaders, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { createSecureContext } from 'node:tls'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { watchFile } from '../../../lib/watched-file.ts'
import { readHeaders } from '../../config/parsers.ts'
import { variableOf } from '../../config/schema.ts'
import { proxyOptions } from '../../outbound.ts'

const ANSWER_BOUND_MS = 10_000
/** A collector that wants to be left alone for longer is asked earlier. */
const MAX_RETRY_AFTER_MS = 60_000

/** Files that apply to every collector. Each is read again when it changes. */
export interface CollectorFiles {
  /** Header lines to send with each batch, such as a token. */
  headersFile?: string | undefined
  caFile?: string | undefined
  certFile?: string | undefined
  keyFile?: string | undefined
}

interface CollectorOptions {
  files: CollectorFiles
  log: FastifyBaseLogger
  /** Of the connections, such as those through a proxy. */
  agent?: AgentOptions
}

/** What came of a batch. */
export interface Answer {
  /** The HTTP status; undefined without an answer. The batch may have arrived nevertheless. */
  status?: number | undefined
  /** Why there is none. */
  reason?: string
  retryAfterMs?: number | undefined
  /** The batch was sent, so it may be the cause of the trouble. */
  reached: boolean
}

const TOO_LATE: Answer = { reason: `the collector did not answer within ${ANSWER_BOUND_MS / 1_000} s`, reached: true }
/** The collector closes the connection, sends something else than HTTP, or does not read. */
const AFTER_CONNECTING = /^(?:ECONNRESET|EPIPE|HPE_)/

/** A collector at a URL, with the files and proxies of the settings. */
export function collectorAt (url: string, { config, log }: Pick<FastifyInstance, 'config' | 'log'>): Collector {
  const {
    auditCollectorHeadersFile: headersFile,
    auditCollectorCaFile: caFile,
    auditCollectorCertFile: certFile,
    auditCollectorKeyFile: keyFile,
  } = config
  const files = { headersFile, caFile, certFile, keyFile }
  return new Collector(url, { files, log, agent: proxyOptions(config, url) })
}

/** Sends batches to one URL. */
export class Collector {
  readonly #url: URL
  readonly #files: CollectorFiles
  readonly #log: FastifyBaseLogger
  readonly #closing = new AbortController()
  readonly #agentOptions: AgentOptions
  #headers: OutgoingHttpHeaders
  #agent: HttpAgent
  /** A file has changed. */
  #isStale = false

  constructor (url: string, { files, log, agent = {} }: CollectorOptions) {
    this.#url = new URL(url)
    this.#files = files
    this.#log = log
    this.#agentOptions = { keepAlive: true, ...agent }
    this.#headers = headersOf(files)
    this.#agent = this.#newAgent()
    for (const file of Object.values(files) as (string | undefined)[]) {
      if (file !== undefined) void watchFile(file, readFileSync(file), () => { this.#isStale = true }, this.signal)
    }
  }

  /** Aborts when the collector is closed. */
  get signal (): AbortSignal {
    return this.#closing.signal
  }

  /** Never rejects. Called one at a time. */
  async post (batch: string): Promise<Answer> {
    if (this.#isStale) this.#reload()
    const headers = { 'content-type': 'application/x-ndjson', 'content-length': Buffer.byteLength(batch) }
    return await this.#send('POST', headers, batch)
  }

  /** Asks for the headers of an answer, which adds no record. Never rejects. */
  async ask (): Promise<Answer> {
    return await this.#send('HEAD')
  }

  async #send (method: string, more: OutgoingHttpHeaders = {}, body?: string): Promise<Answer> {
    const { promise, resolve } = Promise.withResolvers<Answer>()
    const timeout = AbortSignal.timeout(ANSWER_BOUND_MS)
    const request = (this.#isHttps ? httpsRequest : httpRequest)(this.#url, {
      method,
      agent: this.#agent,
      headers: { ...this.#headers, ...more },
      signal: AbortSignal.any([this.signal, timeout]),
    })
    request.once('response', response => {
      response.on('error', () => {}).resume()
      const { statusCode: status, headers } = response
      resolve({ status, retryAfterMs: parseRetryAfter(headers['retry-after']), reached: true })
    })
    // Stays for errors after the answer, such as that of a collector that closes the connection before it has read all.
    request.on('error', ({ code = 'unknown error' }: NodeJS.ErrnoException) => {
      const reached = AFTER_CONNECTING.test(code)
      resolve(timeout.aborted ? TOO_LATE : { reason: reasonOf(code, reached), reached })
    })
    request.end(body)
    return await promise
  }

  close (): void {
    this.#closing.abort()
    this.#agent.destroy()
  }

  get #isHttps (): boolean {
    return this.#url.protocol === 'https:'
  }

  #newAgent (): HttpAgent {
    if (!this.#isHttps) return new HttpAgent(this.#agentOptions)
    const [ca, cert, key] = [this.#files.caFile, this.#files.certFile, this.#files.keyFile].map(file =>
      file === undefined ? undefined : readFileSync(file)
    )
    return new HttpsAgent({ ...this.#agentOptions, secureContext: createSecureContext({ ca, cert, key }) })
  }

  /** Between two requests, since it closes the connections. */
  #reload (): void {
    this.#isStale = false
    try {
      const headers = headersOf(this.#files)
      const agent = this.#newAgent()
      this.#agent.destroy()
      this.#agent = agent
      this.#headers = headers
      this.#log.info('the files for the audit collector have been reloaded')
    } catch (error) {
      this.#log.error(
        { reason: (error as Error).message },
        'the new files for the audit collector are invalid: the old ones stay in use'
      )
    }
  }
}

function headersOf ({ headersFile }: CollectorFiles): OutgoingHttpHeaders {
  return headersFile === undefined ? {} : readHeaders(headersFile)
}

/** Without the address, which error messages contain. */
function reasonOf (code: string, reached: boolean): string {
  return reached
    ? `the connection to the collector failed: ${code}`
    : `the collector cannot be reached: ${code}${hintOf(code)}`
}

function hintOf (code: string): string {
  // An alert is what the collector says about the certificate of the service.
  if (/ALERT.*(?:CERTIFICATE|UNKNOWN_CA)/.test(code)) {
    return `: does it trust the certificate in ${variableOf('auditCollectorCertFile')}?`
  }
  if (/^(?:SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_(?:GET_ISSUER|VERIFY))/.test(code)) {
    return `: is the CA of its certificate in ${variableOf('auditCollectorCaFile')}?`
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return `: is the host in ${variableOf('auditSinks')} one that its certificate names?`
  }
  return ''
}

/** A number of seconds or a date. */
function parseRetryAfter (text: string | undefined): number | undefined {
  if (text === undefined) return
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - Date.now()
  return Number.isNaN(waitMs) ? undefined : Math.min(Math.max(0, waitMs), MAX_RETRY_AFTER_MS)
}
