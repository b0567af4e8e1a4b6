import { createPrivateKey, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fp from 'fastify-plugin'
import { AuditUnavailable, ConfigError } from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import type { AuditSink } from '../config/parsers.ts'
import type { Body } from './chain.ts'
import { LiveRecords } from './live.ts'
import type { Audit, AuditEntry, AuditEvent, AuditState } from './record.ts'
import { redactor, shrink } from './redact.ts'
import { FileMedium } from './sinks/file.ts'
import { httpMedium } from './sinks/http.ts'
import { type Medium, REPLICA, Sink } from './sinks/sink.ts'
import { stdoutMedium } from './sinks/stdout.ts'

declare module 'fastify' {
  interface FastifyInstance {
    audit: Audit
  }
}

/** Failed sign-ins are recorded one by one up to so many in an interval. */
const FAILURES_ONE_BY_ONE = 20
const FAILURES_INTERVAL_MS = 10_000

/** Every record that is to be kept goes through here, to all sinks at once. */
export default fp(async function audit (app) {
  const { auditSinks, auditSigningKeyFile, auditFailMode, auditRedact } = app.config
  const key = auditSigningKeyFile === undefined ? undefined : readSigningKey(auditSigningKeyFile)
  const sinks = auditSinks.filter(({ kind }) => kind !== 'none').map(setting =>
    new Sink(mediumOf(setting), { key, log: app.log })
  )
  const redact = redactor(auditRedact)
  const live = new LiveRecords()
  let lost = 0

  async function put (entry: AuditEntry, durable: boolean): Promise<void> {
    if (sinks.length === 0) return
    const clean = cleanse(entry)
    const recorded = clean instanceof Promise ? await clean : clean
    live.publish(await taken(recorded, durable))
  }

  /** The line of the sink that was first to take a record. @throws {AggregateError} when none does */
  async function taken (entry: AuditEntry, durable: boolean): Promise<string> {
    const body = { ...entry, time: new Date().toISOString() } satisfies Body
    const writes = sinks.map(sink => sink.write(body, durable))
    try {
      const line = await Promise.any(writes)
      // What can be made durable is, or has failed to be, before a mutation runs.
      if (durable) await Promise.allSettled(writes.filter((_, index) => sinks[index]?.syncs))
      return line
    } catch (error) {
      lost++
      throw error
    }
  }

  /** What is kept of an entry: no secrets, nothing large, the replica. A promise where there is a large value to digest. */
  function cleanse (entry: AuditEntry): AuditEntry | Promise<AuditEntry> {
    const { what, when, where, who, diff, warning } = entry
    const parts = [
      what && redact(what.arguments),
      what?.resources,
      diff === null ? null : redact(diff),
      warning,
      where,
      who,
    ].map(shrink)
    const assemble = ([args, resources, diff, warning, where, who]: unknown[]) =>
      ({
        ...entry,
        what: what && { ...what, arguments: args, resources },
        when: { ...when, duration_ms: Math.round(when.duration_ms * 1_000) / 1_000 },
        where: { ...where as AuditEntry['where'], replica: REPLICA },
        who,
        diff,
        warning,
      }) as AuditEntry
    return parts.some(part => part instanceof Promise) ? Promise.all(parts).then(assemble) : assemble(parts)
  }

  async function record (entry: AuditEntry): Promise<void> {
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
      return { state: failed === 0 ? 'ok' : failed < states.length ? 'degraded' : 'unavailable', lost, sinks: states }
    },
  })

  let started = false
  app.addHook('onReady', async () => {
    started = true
    await record(
      ownEntry('start', key || sinks.length === 0 ? null : 'checkpoints are not signed: no signing key is set')
    ).catch(() => {})
  })
  app.addHook('onClose', async () => {
    await failures.close()
    if (started) await record(ownEntry('stop', null)).catch(() => {})
    await Promise.all(sinks.map(sink => sink.close()))
  })
}, { name: 'audit', dependencies: ['config'] })

function mediumOf (setting: AuditSink): Medium {
  switch (setting.kind) {
    case 'stdout':
      return stdoutMedium()
    case 'file':
      return new FileMedium(setting.path)
    case 'http':
      return httpMedium(setting.url)
    default:
      throw new Error(`no medium ${setting.kind}`)
  }
}

/** @throws {ConfigError} */
function readSigningKey (path: string): KeyObject {
  try {
    const key = createPrivateKey(readFileSync(path, 'utf8'))
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch {
    // What is wrong with it is no help, and might show some of it.
  }
  throw new ConfigError(
    `KAFSCALE_MCP_AUDIT_SIGNING_KEY_FILE is ${
      quote(path)
    }: expected a file with an unencrypted Ed25519 private key in PEM`
  )
}

/** What the service itself does. */
export function ownEntry (event: AuditEvent, warning: string | null): AuditEntry {
  const now = new Date().toISOString()
  return {
    event,
    who: null,
    what: null,
    when: { received: now, finished: now, duration_ms: 0 },
    where: { remote_address: null, user_agent: null, mcp_client: null, request_id: null, trace_id: null },
    decision: null,
    rule: null,
    outcome: 'ok',
    error_code: null,
    result: null,
    diff: null,
    warning,
  }
}

/** Lets the first failures of an interval through, and makes one record of those that follow. */
function countFailures (record: (entry: AuditEntry) => Promise<void>) {
  let timer: NodeJS.Timeout | undefined
  let seen = 0
  let last: AuditEntry | undefined

  async function end (): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    const count = seen - FAILURES_ONE_BY_ONE
    seen = 0
    if (!last) return
    const entry = {
      ...last,
      count,
      warning: `${count} failures within ${FAILURES_INTERVAL_MS / 1_000} s, of which this is the last`,
    }
    last = undefined
    await record(entry)
  }

  return {
    async add (entry: AuditEntry): Promise<void> {
      timer ??= setTimeout(end, FAILURES_INTERVAL_MS).unref()
      if (++seen > FAILURES_ONE_BY_ONE) last = entry
      else await record(entry)
    },
    close: end,
  }
}
