import type { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fastifySSE, type SSEMessage } from '@fastify/sse'
import { type Static, Type } from '@sinclair/typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { NotAuditor } from '../errors.ts'
import type { LiveEvent } from '../plugins/audit/live.ts'
import { matches } from '../plugins/audit/show.ts'

const HEARTBEAT_MS = 15_000
/** How often it is looked whether a client may still read, and does. */
const CHECK_INTERVAL_MS = 5_000
/** A client that has taken nothing at so many checks is gone. */
const STALLED_CHECKS = 6

// Fastify's Ajv takes out what additionalProperties forbids, and a filter that is misspelt would let everything through.
const Filter = Type.Object({
  who: Type.Optional(Type.String()),
  tool: Type.Optional(Type.String()),
  event: Type.Optional(Type.String()),
  outcome: Type.Optional(Type.String()),
}, { propertyNames: { enum: ['who', 'tool', 'event', 'outcome'] } })

export interface AuditStreamOptions {
  /** Whether who asks has the role `auditor` now. */
  mayRead: (request: FastifyRequest) => boolean | Promise<boolean>
}

/**
 * `GET /audit/stream`: records as they are recorded, as server-sent events. `who`, `tool`, `event` and `outcome` of the query
 * choose among them. `Last-Event-ID` resumes behind a record while the buffer has it; an event `missed` says how many records
 * (`null`: unknown) a client was too late for.
 */
export default async function auditStream (app: FastifyInstance, { mayRead }: AuditStreamOptions) {
  const closing = new AbortController()
  app.addHook('preClose', async () => closing.abort())
  await app.register(fp(fastifySSE), { heartbeatInterval: HEARTBEAT_MS, serializer: String })

  app.get<{ Querystring: Static<typeof Filter> }>(
    '/audit/stream',
    { sse: 'only', schema: { querystring: Filter } },
    async (request, reply) => {
      if (!await mayRead(request)) throw new NotAuditor()
      const { sse, raw } = reply
      const ended = new AbortController()
      const signal = AbortSignal.any([closing.signal, ended.signal])
      // What waits for a client that takes nothing can only be thrown away.
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
      // A client that goes away is no error.
      await pipeline(
        messages(app.audit.live.follow(sse.lastEventId, signal), request.query),
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

async function * messages (events: AsyncIterable<LiveEvent>, filter: Static<typeof Filter>): AsyncGenerator<SSEMessage> {
  for await (const event of events) {
    if (event.kind === 'missed') yield { event: 'missed', data: JSON.stringify({ records: event.records }) }
    else if (matches(JSON.parse(event.line), filter)) yield { id: event.id, event: 'record', data: event.line }
  }
}
