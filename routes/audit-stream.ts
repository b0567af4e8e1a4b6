import type { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fastifySSE, type SSEMessage } from '@fastify/sse'
import { type Static, Type } from '@sinclair/typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { NotAuditor } from '../errors.ts'
import type { LiveEvent } from '../plugins/audit/live.ts'
import { type AuditEntry, ownEntry, whereOf } from '../plugins/audit/record.ts'
import { recordMatches } from '../plugins/audit/show.ts'
import { sourceOf } from './request-source.ts'

const HEARTBEAT_MS = 15_000
/** How often each client is checked: it must still have the role, and be reading. */
const CHECK_INTERVAL_MS = 5_000
/** A client that has read nothing at this many checks in a row is disconnected at the next. */
const STALLED_CHECKS = 6

// Fastify's Ajv removes what additionalProperties forbids, so a misspelt filter would let everything through.
const FilterQuery = Type.Object({
  who: Type.Optional(Type.String()),
  tool: Type.Optional(Type.String()),
  event: Type.Optional(Type.String()),
  outcome: Type.Optional(Type.String()),
  change: Type.Optional(Type.String()),
  after: Type.Optional(Type.String()),
}, { propertyNames: { enum: ['who', 'tool', 'event', 'outcome', 'change', 'after'] } })

export interface AuditStreamOptions {
  path?: string
  /** What the stream contains of a record, by default its line. */
  render?: (line: string) => string
  /** Who is asking, as their records name them. */
  whoIs: (request: FastifyRequest) => AuditEntry['who']
  /** Whether the caller has the role `auditor` now. */
  mayRead: (request: FastifyRequest) => boolean | Promise<boolean>
}

/**
 * `GET /audit/stream`: records as they are written, as server-sent events. The query parameters `who`, `tool`, `event`,
 * `outcome` and `change` filter them. `Last-Event-ID`, or else `after`, resumes after a record that is still in the
 * buffer; the event `missed` states how many records (`null`: unknown) left the buffer before the client could read
 * them.
 */
export default async function auditStream (
  app: FastifyInstance,
  { mayRead, whoIs, path = '/audit/stream', render = line => line }: AuditStreamOptions
) {
  const closing = new AbortController()
  app.addHook('preClose', async () => closing.abort())
  await app.register(fp(fastifySSE), { heartbeatInterval: HEARTBEAT_MS, serializer: String })

  app.get<{ Querystring: Static<typeof FilterQuery> }>(
    path,
    { sse: 'only', schema: { querystring: FilterQuery } },
    async (request, reply) => {
      const allowed = await mayRead(request)
      // Before the first record is sent: who reads the log is part of it.
      await app.audit.record(readingRecord(request, request.query, whoIs(request), allowed))
      if (!allowed) throw new NotAuditor()
      const { sse, raw } = reply
      const ended = new AbortController()
      const signal = AbortSignal.any([closing.signal, ended.signal])
      // A client that is not reading would never let the buffered data drain.
      signal.addEventListener('abort', () => {
        if (raw.writableNeedDrain) raw.destroy()
      })
      let stalledChecks = 0
      const check = setInterval(async () => {
        stalledChecks = raw.writableNeedDrain ? stalledChecks + 1 : 0
        if (stalledChecks > STALLED_CHECKS || !await mayStillRead(request)) ended.abort()
      }, CHECK_INTERVAL_MS).unref()
      sse.onClose(() => {
        clearInterval(check)
        ended.abort()
      })
      sse.sendHeaders()
      raw.flushHeaders()
      // A client that disconnects is not an error.
      const { after = null, ...filter } = request.query
      await pipeline(
        messages(app.audit.live.follow(sse.lastEventId ?? after, signal), filter, render),
        sse.stream() as Transform,
        raw
      ).catch(() => {})
    }
  )

  async function mayStillRead (request: FastifyRequest): Promise<boolean> {
    try {
      return await mayRead(request)
    } catch {
      return false
    }
  }
}

/** The record of an attempt to read the records. */
export function readingRecord (
  request: FastifyRequest,
  query: object,
  who: AuditEntry['who'],
  allowed: boolean
): AuditEntry {
  const { code } = new NotAuditor()
  return {
    ...ownEntry('audit_stream', null),
    who,
    what: { tool: null, operation: null, arguments: query, resources: {} },
    where: whereOf(sourceOf(request)),
    decision: allowed ? 'allowed' : 'denied',
    outcome: allowed ? 'ok' : 'denied',
    error_code: allowed ? null : code,
  }
}

async function * messages (
  events: AsyncIterable<LiveEvent>,
  filter: Omit<Static<typeof FilterQuery>, 'after'>,
  render: (line: string) => string
): AsyncGenerator<SSEMessage> {
  for await (const event of events) {
    if (event.kind === 'missed') yield { event: 'missed', data: JSON.stringify({ records: event.records }) }
    else if (recordMatches(JSON.parse(event.line), filter)) {
      yield { id: event.id, event: 'record', data: render(event.line) }
    }
  }
}
