import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { AuditUnavailable } from '../../errors.ts'
import type { AuditSink } from '../config/parsers.ts'
import { reveal } from '../config/secret.ts'
import type { Body } from './chain.ts'
import { cleanse } from './cleanse.ts'
import { countFailures } from './count-failures.ts'
import { HeadGuard, type HeadState } from './head/guard.ts'
import { LiveRecords } from './live.ts'
import { type AuditEntry, isCall, ownEntry } from './record.ts'
import { redactor } from './redact.ts'
import { REPLICA } from './replica.ts'
import { readSigningKey } from './signing-key.ts'
import { collectorAt } from './sinks/collector.ts'
import { FileMedium } from './sinks/file.ts'
import { HttpMedium } from './sinks/http.ts'
import type { Medium } from './sinks/medium.ts'
import { Sink } from './sinks/sink.ts'
import type { SinkState } from './sinks/sink-status.ts'
import { stdoutMedium } from './sinks/stdout.ts'
import { tokenRedactor } from './tokens.ts'

declare module 'fastify' {
  interface FastifyInstance {
    audit: Audit
  }
}

/** The audit log, as the rest of the service uses it. */
export interface Audit {
  /**
   * Records an event. Resolves once at least one sink has accepted it; a file is synced within 100 ms after that. With
   * `AUDIT_FAIL_MODE=open`, also resolves when no sink accepts it, and counts it as lost.
   * @throws {AuditUnavailable} when no sink accepts it
   */
  record: (entry: AuditEntry) => Promise<void>
  /**
   * As `record`, but resolves only once the record is durable: a mutation waits for this before it runs. A record that
   * only standard output has accepted is not, unless that is the only sink.
   * @throws {AuditUnavailable} when no sink accepts it, whatever `AUDIT_FAIL_MODE` is
   */
  recordDurably: (entry: AuditEntry) => Promise<void>
  /**
   * Records a failed sign-in. The first ones of an address in an interval get a record each; those after them share
   * one, with their `count`, when the interval ends. Never rejects, since the caller is refused anyway.
   */
  authenticationFailure: (entry: AuditEntry) => Promise<void>
  /** Arguments or a diff as they are recorded: without secrets and tokens. */
  redact: (value: unknown) => unknown
  /** The latest records, and those to come. */
  readonly live: LiveRecords
  readonly state: AuditState
}

/** The state of the audit log, for `/healthz`. */
export interface AuditState {
  /** How the file with the newest head is doing, if there is one. */
  head_file?: HeadState
  /**
   * `degraded`: at least one sink or the head file fails; `unavailable`: all sinks do, or calls are refused because the
   * log contradicts its head file.
   */
  state: 'ok' | 'degraded' | 'unavailable'
  /** Records that no sink has accepted since the start. */
  lost: number
  sinks: SinkState[]
}

/** Decorates the app with `audit`, which writes each record to all configured sinks. */
export default fp(async function audit (app) {
  const { auditSinks, auditSigningKeyFile, auditHeadFile, auditFailMode, auditRedact, auth } = app.config
  const key = auditSigningKeyFile === undefined ? undefined : readSigningKey(auditSigningKeyFile)
  const logFile = auditSinks.find(setting => setting.kind === 'file')
  const guard = auditHeadFile === undefined || !logFile
    ? undefined
    : new HeadGuard({
      path: auditHeadFile,
      log: logFile.path,
      key,
      logger: app.log,
      record: async entry => { await put(entry, true) },
      seal: () => { for (const sink of sinks) sink.seal() },
    })
  const sinks = auditSinks
    .filter(setting => setting.kind !== 'none')
    .map(setting =>
      new Sink(mediumOf(setting, app), {
        key,
        log: app.log,
        onHead,
        hasHeadFile: guard && (() => guard.exists),
      })
    )
  const collectors = sinks.filter(({ kind }) => kind === 'http')
  const withoutTokens = tokenRedactor({
    secret: auth.mode === 'token' ? reveal(auth.token) : undefined,
    // Tokens are accepted by a plugin that comes later.
    isToken: auth.mode === 'oidc' && auth.introspection ? text => app.isAcceptedToken(text) : undefined,
  })
  const redact = redactor(auditRedact, withoutTokens)
  const live = new LiveRecords()
  let lost = 0

  async function put (entry: AuditEntry, durable: boolean): Promise<void> {
    if (sinks.length === 0) return
    const cleansed = cleanse(entry, redact, withoutTokens)
    live.publish(await write(cleansed instanceof Promise ? await cleansed : cleansed, durable))
  }

  /**
   * Resolves to the line of the first sink that accepts the record. Standard output cannot promise that it keeps a
   * record, so next to another sink it does not make one durable.
   * @throws {AggregateError} when none does
   */
  async function write (entry: AuditEntry, durable: boolean): Promise<string> {
    const body = { ...entry, time: new Date().toISOString() } satisfies Body
    const writes = sinks.map(sink => sink.write(body, durable))
    const keeping = durable ? writes.filter((_, index) => sinks[index]?.kind !== 'stdout') : []
    try {
      const line = await Promise.any(keeping.length > 0 ? keeping : writes)
      // A mutation runs only after every sink that can make its intent durable has done so or failed.
      if (durable) await Promise.allSettled(writes.filter((_, index) => sinks[index]?.syncs))
      return line
    } catch (error) {
      const isLost = (await Promise.allSettled(writes)).every(({ status }) => status === 'rejected')
      if (isLost) lost++
      throw error
    }
  }

  /** Keeps a head of the log in files where those who can change the log cannot change it. */
  function onHead (head: string): void {
    guard?.keep(head)
    const time = new Date().toISOString()
    const body = { event: 'file_head', head, time, where: { replica: REPLICA } } satisfies Body
    // A collector that misses one gets the next one, and its chain records the gap.
    for (const collector of collectors) collector.write(body, false).catch(() => {})
  }

  /** Whether calls are refused until an operator has acknowledged that the log is not what it should be. */
  function refuses (): boolean {
    return auditFailMode === 'closed' && guard?.state.state === 'contradiction'
  }

  async function record (entry: AuditEntry): Promise<void> {
    if (refuses() && isCall(entry)) throw new AuditUnavailable()
    try {
      await put(entry, false)
    } catch {
      if (auditFailMode === 'closed') throw new AuditUnavailable()
    }
  }

  const failures = countFailures(entry => record(entry).catch(() => {}))

  app.decorate<Audit>('audit', {
    record,
    async recordDurably (entry) {
      if (refuses() && isCall(entry)) throw new AuditUnavailable()
      try {
        await put(entry, true)
      } catch {
        throw new AuditUnavailable()
      }
    },
    authenticationFailure: failures.add,
    redact,
    live,
    get state (): AuditState {
      const states = sinks.map(({ state }) => state)
      const failed = states.filter(({ state }) => state === 'failed').length
      const isUnavailable = refuses() || (failed > 0 && failed === states.length)
      const isOk = failed === 0 && (!guard || guard.state.state === 'ok')
      return {
        state: isUnavailable ? 'unavailable' : isOk ? 'ok' : 'degraded',
        lost,
        sinks: states,
        ...guard && { head_file: guard.state },
      }
    },
  })

  let started = false
  app.addHook('onReady', async () => {
    await Promise.all(sinks.map(sink => sink.prepare()))
    started = true
    const check = await guard?.start()
    const warning = key || sinks.length === 0 ? null : 'checkpoints are not signed: no signing key is set'
    await record(ownEntry('start', warning)).catch(() => {})
    if (check) await record(check).catch(() => {})
    await guard?.settle()
  })
  app.addHook('onClose', async () => {
    await failures.close()
    if (started) await record(ownEntry('stop', null)).catch(() => {})
    // Collectors get the last head of the files.
    await Promise.all(sinks.filter(sink => !collectors.includes(sink)).map(sink => sink.close()))
    await Promise.all([guard?.close(), ...collectors.map(sink => sink.close())])
  })
}, { name: 'audit', dependencies: ['config'] })

function mediumOf (setting: Exclude<AuditSink, { kind: 'none' }>, app: FastifyInstance): Medium {
  switch (setting.kind) {
    case 'stdout':
      return stdoutMedium()
    case 'file':
      return new FileMedium(setting.path)
    case 'http':
      return new HttpMedium(collectorAt(setting.url, app), { maxBytes: app.config.auditCollectorBatchBytes })
  }
}
