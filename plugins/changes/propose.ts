import { randomBytes } from 'node:crypto'
import {
  BrokerDenied, BrokerRefused, BrokerUnreachable, ChangeImpossible, ChangesClosed, PermissionDenied, TooManyPlans
} from '../../errors.ts'
import type { Caller } from '../../tools/tool.ts'
import type { AdminCall, AdminResult } from '../kafka-admin/index.ts'
import type { Change, ChangeTool, ChangeView } from './change.ts'
import type { Parts } from './parts.ts'
import { kindOf, personOf, requireAllowed } from './people.ts'
import { currentMirror, digestOf, planNow, requireCluster } from './plan.ts'
import { stepRecord } from './record.ts'
import { viewOf } from './view.ts'

/** How many open changes one principal may have. */
export const MAX_OPEN = 200
const VALIDATE_TIMEOUT_MS = 10_000
/** Codes with which a broker says that the principal may not do this. */
const DENIED = new Set([29, 30, 31])

/** Plans a change, and stores it. Sends nothing that could change the cluster. */
export async function propose (
  parts: Parts,
  caller: Caller,
  tool: ChangeTool,
  args: Record<string, unknown>,
  signal: AbortSignal
): Promise<ChangeView> {
  const { settings, authorize, ledger, audit } = parts
  const { principal } = caller
  if (authorize.changesClosed) throw new ChangesClosed()
  const { rule } = requireAllowed(parts, principal, 'propose', { tool, arguments: args })
  const requirement = authorize.requirement(tool)
  if (requirement.mode === 'closed') {
    throw new PermissionDenied(tool, `a change to the rule ${requirement.rule} of the policy, which says closed`)
  }
  const mirror = currentMirror(parts)
  requireCluster(parts, mirror)
  const plan = planNow(parts, principal, { tool, arguments: args }, mirror)
  const now = Date.now()
  const change: Change = {
    version: 1,
    change_id: `chg-${randomBytes(8).toString('hex')}`,
    state: 'planned',
    tool,
    ...plan,
    environment: settings.environment,
    cluster_id: settings.expectedClusterId,
    requested_by: personOf(principal),
    requested_at: new Date(now).toISOString(),
    expires_at: new Date(now + settings.plannedLifetimeMs).toISOString(),
    revision: mirror.revision,
    requires: { mode: requirement.mode, approvals_needed: requirement.mode === 'direct' ? 0 : requirement.approvals },
    approvals: [],
    rejection: null,
    break_glass: null,
    execution: null,
    outcome: null,
    digest: digestOf({ ...plan, tool }),
  }
  await askBroker(parts, change, signal)
  const record = (more: { outcome?: 'error', errorCode?: string }) =>
    audit.recordDurably(stepRecord(parts, 'plan', change, { caller, step: 'propose', rule, ...more }))
  await record({})
  const stored = await ledger.create(change, MAX_OPEN)
  if (!stored) {
    await record({ outcome: 'error', errorCode: 'TOO_MANY_PLANS' })
    throw new TooManyPlans(String(MAX_OPEN))
  }
  const view = viewOf(parts, change)
  parts.onState(view)
  return view
}

/**
 * Asks a broker to check the change without doing it, where Kafka's API has that.
 * @throws {ChangeImpossible} if nothing could be sent
 */
async function askBroker (parts: Parts, change: Change, signal: AbortSignal): Promise<void> {
  const call = kindOf(parts, change).call(change.arguments, currentMirror(parts))
  if (!isAdminCall(call)) {
    if (parts.brokerControl.configured) return
    throw new ChangeImpossible(
      "the brokers' control plane is not configured: an operator must set KAFSCALE_MCP_BROKER_CONTROL_ADDR"
    )
  }
  const limit = AbortSignal.any([signal, AbortSignal.timeout(VALIDATE_TIMEOUT_MS)])
  const session = await parts.kafkaAdmin.connect(limit, await parts.ledger.lastBroker())
  try {
    const result = await session.validate(call, limit)
    if (result?.kind === 'unknown') throw new BrokerUnreachable(result.reason)
    if (result && result.kind !== 'ok') throw refusal(parts, result)
  } finally {
    await session.close().catch(() => {}) // the answer is known by now
  }
}

export function isAdminCall (call: { api: string }): call is AdminCall {
  return call.api !== 'drain' && call.api !== 'flush'
}

/** Why a broker did not do it. */
export function refusal ({ kafkaAdmin }: Parts, result: Extract<AdminResult, { kind: 'refused' | 'missing' }>) {
  if (result.kind === 'missing') {
    return new BrokerRefused('it answered with success and without the result of this change, so it did nothing')
  }
  const { code, name, message } = result
  const reason = `${name} (${code})${message === null ? '' : `: ${message}`}`
  return DENIED.has(code) ? new BrokerDenied(kafkaAdmin.principal, reason) : new BrokerRefused(reason)
}
