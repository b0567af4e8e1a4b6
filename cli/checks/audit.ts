/** Whether calls could be recorded. Nothing is written: no record, no file, no lock. */
import { dirname, resolve } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { HeadFile } from '../../plugins/audit/head/head-file.ts'
import { readSigningKey } from '../../plugins/audit/signing-key.ts'
import { checkFile, checkFolder } from '../../plugins/audit/sinks/file.ts'
import type { AuditSink } from '../../plugins/config/parsers.ts'
import { attempt, type Finding } from './finding.ts'

const ANSWER_MS = 5_000
/** Statuses of a collector that would not accept a record either. */
const REFUSALS = new Set([401, 403, 404, 407, 410])

export async function * checkAudit ({ config }: FastifyInstance): AsyncGenerator<Finding> {
  const { auditSinks, auditSigningKeyFile: key, auditHeadFile: head } = config
  for (const sink of auditSinks) yield await checkSink(sink)
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

async function checkSink (sink: AuditSink): Promise<Finding> {
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
      return await checkCollector(sink.url)
  }
}

/** Asks with HEAD, which adds no record. The path is left out, because the paths of collectors may contain tokens. */
async function checkCollector (url: string): Promise<Finding> {
  const item = `audit sink ${new URL(url).origin}`
  return await attempt(item, async () => {
    const signal = AbortSignal.timeout(ANSWER_MS)
    const response = await fetch(url, { method: 'HEAD', redirect: 'manual', signal }).catch((error: Error) => {
      const { code, message } = (error.cause ?? error) as NodeJS.ErrnoException
      throw new Error(`does not answer: ${signal.aborted ? `nothing within ${ANSWER_MS / 1_000} s` : code ?? message}`)
    })
    await response.body?.cancel()
    const { status } = response
    if (status >= 500 || REFUSALS.has(status)) throw new Error(`answers HEAD with ${status}`)
    if (status >= 300 && status < 400) throw new Error(`redirects (${status}), which the service does not follow`)
    return `answers HEAD with ${status}; whether it accepts records, only a POST could show`
  })
}
