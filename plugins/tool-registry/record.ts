import { hash } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Caller, ToolResult } from '../../tools/tool.ts'
import { type AuditEntry, whereOf, whoOf } from '../audit/record.ts'
import { REDACTED } from '../audit/tokens.ts'
import type { Decision, Operation } from '../rbac/decide.ts'

/** The tool of a call. `operation` is `null` if the tool does not exist, `name` if the call does not name one. */
interface Named { name: string | null, operation: Operation | null }

/**
 * Starts the audit record of a call. The returned function completes it with the result, which is `null` for a call
 * that does not reach a tool.
 * @param decision `null` if the tool does not exist
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
  // Read now, because the policy may change while the call runs.
  const roles = app.authorize.roles(principal)
  return result => {
    const text = result?.content[0]?.text ?? ''
    return {
      event: 'tool_call',
      who: whoOf(principal, roles),
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
      where: whereOf(caller),
      decision: decision?.kind ?? null,
      rule: decision?.rule ?? null,
      outcome: decision?.kind === 'denied' ? 'denied' : result?.isError ? 'error' : 'ok',
      error_code: (result && codeOf(result)) ?? null,
      result: result && { bytes: Buffer.byteLength(text), sha256: hash('sha256', text) },
      diff: null,
      warning: principal.method === 'token' ? 'the token is a shared secret: it does not identify the caller' : null,
    }
  }
}

/** The error code of a failed result. */
export function codeOf ({ isError, _meta: meta }: ToolResult): string | undefined {
  return isError ? (meta?.['kafscale-mcp/error'] as { code: string }).code : undefined
}

/** The topics, groups and brokers that the arguments name, except redacted ones. A list may be JSON text. */
function resourcesOf (redacted: unknown): { topics?: string[], groups?: string[], brokers?: string[] } {
  if (typeof redacted !== 'object' || redacted === null) return {}
  const { names, topics, topic, group_id: group, node_id: nodeId } = redacted as Record<string, unknown>
  const isName = (name: unknown): name is string => typeof name === 'string' && name !== '' && name !== REDACTED
  const named = [listIn(names), listIn(topics), topic].flat().filter(isName)
  return {
    ...named.length > 0 && { topics: named },
    ...isName(group) && { groups: [group] },
    ...Number.isSafeInteger(nodeId) && { brokers: [String(nodeId)] },
  }
}

/** No tool accepts a longer list. In a JSON text, nothing else bounds it. */
const MAX_ITEMS = 1_000

function listIn (value: unknown): unknown {
  if (typeof value !== 'string' || !value.trimStart().startsWith('[')) return value
  try {
    return (JSON.parse(value) as unknown[]).slice(0, MAX_ITEMS)
  } catch {
    return value
  }
}
