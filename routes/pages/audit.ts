/** The audit records of this replica, for auditors. */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { NotAuditor } from '../../errors.ts'
import { type LogRecord, whoOf } from '../../plugins/audit/record.ts'
import { recordMatches } from '../../plugins/audit/show.ts'
import auditStream, { readingRecord } from '../audit-stream.ts'
import type { Pages } from './pages.ts'
import { type AuditFilter, auditPage, auditRow, FILTERS, LIVE_SCRIPT } from './templates/audit.ts'

export async function auditPages (app: FastifyInstance, show: Pages): Promise<void> {
  const whoIs = (request: FastifyRequest) => {
    const visitor = show.visitor(request)
    return visitor ? whoOf(visitor.principal, app.authorize.roles(visitor.principal)) : null
  }
  const mayRead = (request: FastifyRequest) => whoIs(request)?.roles.includes('auditor') ?? false

  app.get<{ Querystring: Record<string, unknown> }>('/audit', async (request, reply) => {
    if (!await show.enter(request, reply)) return reply
    const filter = filterOf(request.query)
    const isAllowed = mayRead(request)
    // Who reads the log is part of it.
    await app.audit.record(readingRecord(request, filter, whoIs(request), isAllowed))
    if (!isAllowed) throw new NotAuditor()
    const { lines, after } = app.audit.live.latest()
    const records = lines.map(line => JSON.parse(line) as LogRecord).filter(record => recordMatches(record, filter))
    return show.page(request, reply, 'Audit', auditPage(show.prefix, filter, records, after), ['/audit/live.js'])
  })
  app.get('/audit/live.js', async (_, reply) => reply.type('text/javascript; charset=utf-8').send(LIVE_SCRIPT))
  await app.register(auditStream, {
    path: '/audit/live',
    mayRead,
    whoIs,
    render: line => auditRow(show.prefix, JSON.parse(line)).replaceAll('\n', ' '),
  })
}

/** The filters that are set. */
function filterOf (query: Record<string, unknown>): AuditFilter {
  const names = Object.keys(FILTERS) as (keyof typeof FILTERS)[]
  return Object.fromEntries(names.flatMap(name => {
    const value = query[name]
    return typeof value === 'string' && value !== '' ? [[name, value]] : []
  }))
}
