/** Where a request comes from, as callers and audit records have it. */
import type { FastifyError, FastifyRequest } from 'fastify'
import { clientAddress } from '../lib/client-address.ts'
import { type AuditEntry, ownEntry, type Source, whereOf } from '../plugins/audit/record.ts'
import { traceIdOf } from '../plugins/telemetry/trace-context.ts'

/** @param message the JSON-RPC message of the request, which may contain a trace of its own */
export function sourceOf (request: FastifyRequest, message?: unknown): Source {
  return {
    remoteAddress: clientAddress(request),
    userAgent: request.headers['user-agent'] ?? null,
    mcpClient: null,
    requestId: request.id,
    traceId: traceIdOf(request.headers, message),
  }
}

/** The record of a sign-in that failed. */
export function failedSignIn (
  request: FastifyRequest,
  { code, message, statusCode = 500 }: FastifyError
): AuditEntry {
  return {
    ...ownEntry('authentication_failure', message),
    where: whereOf(sourceOf(request)),
    outcome: statusCode < 500 ? 'denied' : 'error',
    error_code: code,
  }
}
