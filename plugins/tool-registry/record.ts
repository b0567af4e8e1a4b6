import { hash } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Caller, ToolResult } from '../../tools/tool.ts'
import type { AuditEntry } from '../audit/record.ts'
import { REDACTED } from '../audit/redact.ts'
import type { Decision, Operation } from '../rbac/decide.ts'

/** A tool as its calls are recorded. One that does not exist does nothing, and one that was not named has no name. */
interface Named { name: string | null, operation: Operation | null }

/**
 * Begins the audit record of a call; what is returned ends it with the result, or with `null` says what is about to be done.
 * @param decision `null` where there was nothing to decide
 */
export function recordOf (
  app: FastifyInstance,
  tool: Named,
  input: unknown,
  caller: Caller,
  decision: Decision | null
): (result: ToolResult | null) => AuditEntry {
  const { principal, receivedAt } = caller
  const startedMs = performance.now()
  // Now, not when it has ended: the policy may be another by then.
  const roles = app.authorize.roles(principal)
  return result => {
    const text = result?.content[0]?.text ?? ''
    return {
      event: result ? 'tool_call' : 'intent',
      who: {
        subject: principal.subject,
        issuer: principal.issuer,
        client_id: principal.clientId,
        roles,
        method: principal.method,
        token_id: principal.tokenId,
        client_certificate: principal.clientCertificate,
      },
      what: {
        tool: tool.name,
        operation: tool.operation,
        arguments: input ?? {},
        resources: resourcesOf(app.audit.redact(input)),
      },
      when: {
        received: receivedAt.toISOString(),
        finished: new Date().toISOString(),
        duration_ms: Math.round((performance.now() - startedMs) * 1000) / 1000,
      },
      where: {
        remote_address: caller.remoteAddress,
        user_agent: caller.userAgent,
        mcp_client: caller.mcpClient,
        request_id: caller.requestId,
        trace_id: caller.traceId,
      },
      decision: decision?.kind ?? null,
      rule: decision?.rule ?? null,
      outcome: decision?.kind === 'denied' ? 'denied' : result?.isError ? 'error' : 'ok',
      error_code: (result && codeOf(result)) ?? null,
      result: result && { bytes: Buffer.byteLength(text), sha256: hash('sha256', text) },
      diff: null,
      warning: principal.method === 'token' ? 'the token is a shared secret: nobody can tell who this was' : null,
    }
  }
}

/** The code of a failure; `undefined` where there is none. */
export function codeOf ({ isError, _meta: meta }: ToolResult): string | undefined {
  return isError ? (meta?.['kafscale-mcp/error'] as { code: string }).code : undefined
}

/** The topics and groups that the arguments name, but for those that are not to be recorded. */
function resourcesOf (redacted: unknown): { topics?: string[], groups?: string[] } {
  if (typeof redacted !== 'object' || redacted === null) return {}
  const { names, topics, topic, group_id: group } = redacted as Record<string, unknown>
  const isName = (name: unknown): name is string => typeof name === 'string' && name !== REDACTED
  const named = [names, topics, topic].flat().filter(isName)
  return { ...(named.length > 0 && { topics: named }), ...(isName(group) && { groups: [group] }) }
}
