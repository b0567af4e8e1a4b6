/** The audit plugin in the test's process or in one of its own, and helpers for its tests. */
import { type ChildProcess, spawn } from 'node:child_process'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type ServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import Fastify, { type FastifyBaseLogger, type FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Test } from 'tap'
import { type Body, parseRecord } from '../../plugins/audit/chain.ts'
import auditPlugin from '../../plugins/audit/index.ts'
import type { AuditEntry, LogRecord } from '../../plugins/audit/record.ts'
import { Collector, type CollectorFiles } from '../../plugins/audit/sinks/collector.ts'
import { FileMedium, type FileOptions } from '../../plugins/audit/sinks/file.ts'
import { HttpMedium } from '../../plugins/audit/sinks/http.ts'
import type { Medium } from '../../plugins/audit/sinks/medium.ts'
import type { PendingRecord } from '../../plugins/audit/sinks/record-queue.ts'
import { Sink } from '../../plugins/audit/sinks/sink.ts'
import { type Config, readConfig } from '../../plugins/config/read.ts'

import './check-records.ts'

export const silent = Fastify().log

/** The entry for an allowed and answered call, with the changes of a test. */
export function entry (more: Partial<AuditEntry> = {}): AuditEntry {
  const now = new Date().toISOString()
  return {
    event: 'tool_call',
    who: {
      subject: 'alice',
      issuer: 'https://id.example',
      client_id: 'agent',
      roles: ['observer'],
      method: 'oidc',
      token_id: 'jti-1',
      client_certificate: null,
    },
    what: { tool: 'list_topics', operation: 'observe', arguments: { limit: 3 }, resources: { topics: ['orders'] } },
    when: { received: now, finished: now, duration_ms: 1.5 },
    where: {
      remote_address: '127.0.0.1',
      user_agent: 'test/1',
      mcp_client: 'test 1',
      request_id: 'req-1',
      trace_id: null,
    },
    decision: 'allowed',
    rule: 'observer',
    outcome: 'ok',
    error_code: null,
    result: { bytes: 2, sha256: 'ab'.repeat(32) },
    diff: null,
    warning: null,
    ...more,
  }
}

export type AuditConfig = Pick<
  Config,
  | 'auditSinks'
  | 'auditSigningKeyFile'
  | 'auditHeadFile'
  | 'auditFailMode'
  | 'auditRedact'
  | 'auditCollectorBatchBytes'
  | 'auditCollectorHeadersFile'
  | 'auditCollectorCaFile'
  | 'auditCollectorCertFile'
  | 'auditCollectorKeyFile'
  | 'logLevel'
>

/** A started app with the audit plugin only. */
export async function buildAudit (t: Test, config: Partial<AuditConfig> = {}): Promise<FastifyInstance> {
  const app = auditApp(config)
  t.teardown(() => app.close())
  await app.ready()
  return app
}

export function auditApp (config: Partial<AuditConfig>): FastifyInstance {
  const defaults = readConfig({ KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1' })
  const app = Fastify({ logger: { level: config.logLevel ?? 'fatal', stream: process.stderr } })
  app.register(fp(async app => { app.decorate('config', { ...defaults, ...config }) }, { name: 'config' }))
  app.register(auditPlugin)
  return app
}

/** A sink on a file, with options that no setting offers: small files and another day. */
export function fileSink (path: string, options: FileOptions = {}, log: FastifyBaseLogger = silent): Sink {
  return new Sink(new FileMedium(path, options), { log })
}

export function sinkOver (medium: Medium, log: FastifyBaseLogger = silent): Sink {
  return new Sink(medium, { log })
}

/** A sink on a collector, which waits only a moment between attempts. */
export function collectorSink (
  url: string,
  { maxBytes = 524_288, files = {}, log = silent, key }: CollectorSinkOptions = {}
): Sink {
  return new Sink(new HttpMedium(new Collector(url, { files, log }), { maxBytes, retryMs: { first: 1, last: 5 } }), {
    log,
    key,
  })
}

interface CollectorSinkOptions {
  maxBytes?: number
  files?: CollectorFiles
  log?: FastifyBaseLogger
  key?: KeyObject
}

/** An event as a sink gets it. */
export function body (more: Partial<AuditEntry> = {}) {
  const given = entry(more)
  return { ...given, where: { ...given.where, replica: 'test' }, time: new Date().toISOString() }
}

/** A record that nobody waits for, for parts of a sink. */
export function pending (body: Body, durable = false): PendingRecord {
  return { body, durable, sinceMs: performance.now(), line: '', resolve: () => {}, reject: () => {} }
}

/** The records of a file. @throws when a line is not a record */
export function recordsOf (path: string): LogRecord[] {
  const lines = readFileSync(path, 'utf8').split('\n')
  if (lines.pop() !== '') throw new Error(`${path} ends within a line`)
  return lines.map(line => {
    const record = parseRecord(Buffer.from(line))
    if (!record) throw new Error(`not a record: ${line}`)
    return record as LogRecord
  })
}

/** Without the checkpoints that begin runs, of which every run of the service has one. */
export function events (path: string): string[] {
  return recordsOf(path).filter(record => !('continues' in record)).map(({ event }) => event)
}

/** Writes a signing key and its public key to PEM files. */
export function signingKey (
  dir: string,
  name = 'audit'
): { keyFile: string, publicKeyFile: string, publicKey: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const keyFile = join(dir, `${name}.key`)
  const publicKeyFile = join(dir, `${name}.pub`)
  writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  writeFileSync(publicKeyFile, pem)
  return { keyFile, publicKeyFile, publicKey: pem }
}

/** Starts `audit-service.ts`, which ends with the test at the latest. */
export function startService (
  t: Test,
  config: Partial<AuditConfig>,
  { wrapper = [] }: { wrapper?: string[] } = {}
): ChildProcess {
  const [command = '', ...args] = [
    ...wrapper,
    process.execPath,
    join(import.meta.dirname, 'audit-service.ts'),
    JSON.stringify(config),
  ]
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', config.logLevel ? 'pipe' : 'inherit', 'pipe'] })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await exited
  })
  return child
}

/** A collector on loopback. `handle` answers. */
export async function startAuditCollector (
  t: Test,
  handle: (request: IncomingMessage, body: string, response: ServerResponse) => void,
  tls?: ServerOptions
): Promise<string> {
  const onRequest = async (request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    handle(request, Buffer.concat(chunks).toString(), response)
  }
  const server = tls ? createTlsServer(tls, onRequest) : createServer(onRequest)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.closeAllConnections(); server.close() })
  return `http${tls ? 's' : ''}://127.0.0.1:${(server.address() as AddressInfo).port}/audit`
}
