/** Whether calls could be recorded. Nothing is written: no record, no file, no lock. */
import { dirname, resolve } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { HeadFile } from '../../plugins/audit/head/head-file.ts'
import { readSigningKey } from '../../plugins/audit/signing-key.ts'
import { collectorAt } from '../../plugins/audit/sinks/collector.ts'
import { checkFile, checkFolder } from '../../plugins/audit/sinks/file.ts'
import { failureOf } from '../../plugins/audit/sinks/http.ts'
import type { AuditSink } from '../../plugins/config/parsers.ts'
import { attempt, type Finding } from './finding.ts'

/** Statuses of a collector that would not accept a record either. */
const REFUSALS = new Set([401, 403, 404, 407, 410])

/** @param isOptional whether it is usual that calls are not recorded */
export async function * checkAudit (
  app: FastifyInstance,
  { isOptional = false } = {}
): AsyncGenerator<Finding> {
  const { auditSinks, auditSigningKeyFile: key, auditHeadFile: head } = app.config
  for (const sink of auditSinks) {
    const finding = await checkSink(sink, app)
    yield sink.kind === 'none' && isOptional ? { ...finding, level: 'skipped' } : finding
  }
  if (key !== undefined) {
    yield await attempt('audit signing key', async () => {
      readSigningKey(key)
      return 'is an Ed25519 key'
    })
  }
  if (head === undefined) return
  yield await attempt('audit head file', async () => {
    const text = await new HeadFile(head).read()
    await checkFolder(dirname(resolve(head)))
    return `${text === undefined ? 'does not exist yet' : 'can be read'}, and its folder is writable`
  })
}

async function checkSink (sink: AuditSink, app: FastifyInstance): Promise<Finding> {
  switch (sink.kind) {
    case 'none':
      return { level: 'warning', item: 'audit sink none', detail: 'calls are not recorded' }
    case 'stdout':
      return { level: 'ok', item: 'audit sink stdout', detail: 'is always writable' }
    case 'file':
      return await attempt(`audit sink file:${sink.path}`, async () => {
        const { exists, isLocked } = await checkFile(sink.path)
        const found = exists ? 'is an audit log that can be continued' : 'can be created'
        return isLocked ? `${found}; a process of the service has its lock, or had it when it ended` : found
      })
    case 'http':
      return await checkCollector(sink.url, app)
  }
}

/**
 * Asks as the service sends its records, but with HEAD, which adds none. The path is left out of the finding, because
 * the paths of collectors may contain tokens.
 */
async function checkCollector (url: string, app: FastifyInstance): Promise<Finding> {
  return await attempt(`audit sink ${new URL(url).origin}`, async () => {
    const collector = collectorAt(url, app)
    try {
      const answer = await collector.ask()
      const { status } = answer
      if (status === undefined || status >= 500 || REFUSALS.has(status)) throw new Error(failureOf(answer))
      if (status >= 300 && status < 400) throw new Error(`redirects (${status}), which the service does not follow`)
      return `answers HEAD with ${status}; whether it accepts records, only a POST could show`
    } finally {
      collector.close()
    }
  })
}
