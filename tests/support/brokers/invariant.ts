/**
 * Whether the service had the right to send a change: a double collects the evidence when the change arrives, before it
 * acts upon it, and looks at it when its test ends.
 */
import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import type { Change, ChangeTool } from '../../../plugins/changes/change.ts'
import type { Etcd } from '../etcd.ts'
import { scaled } from '../run.ts'

const LEDGER = '/kafscale-mcp/changes/'
const LEDGER_TIMEOUT_MS = 2_000

export type Checked = { auditFiles: readonly string[] } | { exempt: string }

/** What the ledger and the audit logs said when a change arrived. */
export type Evidence = 'exempt' | {
  /** `undefined` if etcd did not answer. */
  ledger: { lockedBy: string | null, changes: readonly Change[] } | undefined
  records: readonly AuditLine[]
}

interface AuditLine {
  event: string
  change_id?: string
  decision?: string | null
  what?: { tool: string | null, arguments: unknown } | null
}

/** A request that changes the cluster. */
export interface Mutation {
  /** For messages. */
  what: string
  /** host:port that it arrived at. */
  address: string
  /** The tool whose change it carries out, with the arguments that it has; `null` unless that is exactly one change. */
  call: { tool: ChangeTool, arguments: Record<string, unknown> } | null
  /**
   * What the broker had answered just before, on the same connection, to the question what it knows of the cluster.
   * `none` for a protocol that has no such question.
   */
  fence: { clusterId: string | null } | 'none' | undefined
  evidence: Evidence
}

/** Changes that were sent, by their id, for all doubles of this process. */
const sent = new Map<string, Mutation>()

export async function collectEvidence (
  { client }: Etcd,
  { auditFiles }: { auditFiles: readonly string[] }
): Promise<Evidence> {
  const records = auditFiles.flatMap(file =>
    readFileSync(file, 'utf8').split('\n').slice(0, -1).map(line => JSON.parse(line) as AuditLine))
  const stored = await Promise.race([
    client.getAll().prefix(LEDGER).exec().catch(() => undefined),
    setTimeout(scaled(LEDGER_TIMEOUT_MS), undefined, { ref: false }),
  ])
  if (!stored) return { ledger: undefined, records }
  const changes: Change[] = []
  let lockedBy: string | null = null
  for (const { key, value, lease } of stored.kvs) {
    const name = key.toString().slice(LEDGER.length)
    if (name.startsWith('by-id/')) changes.push(JSON.parse(value.toString()) as Change)
    // A lock without a lease would outlive a crash.
    if (name === 'lock' && lease !== '0') lockedBy = (JSON.parse(value.toString()) as { change_id: string }).change_id
  }
  return { ledger: { lockedBy, changes }, records }
}

/** One sentence for each thing that was missing when a change arrived. */
export function violationsOf (mutations: readonly Mutation[]): string[] {
  return mutations.flatMap(mutation => missingFor(mutation).map(missing => `${mutation.what}: ${missing}`))
}

function missingFor (mutation: Mutation): string[] {
  const { evidence, call, fence } = mutation
  if (evidence === 'exempt') return []
  if (!call) return ['it is not what exactly one change does']
  const intents = evidence.records.filter(({ event, what }) =>
    event === 'intent' && what?.tool === call.tool && covers(what.arguments, call.arguments))
  const missing: [isMissing: boolean, what: string][] = [
    [fence === undefined, 'the broker was not asked just before what it knows of the cluster'],
  ]
  if (!evidence.ledger) {
    missing.push([intents.length === 0, 'no intent is recorded'])
  } else {
    const { lockedBy, changes } = evidence.ledger
    const change = changes.find(({ change_id: id }) => id === lockedBy)
    if (!change) return ['no change holds the lock']
    missing.push(...missingIn(change, mutation, call))
    const ofChange = (event: string) =>
      evidence.records.findLast(record => record.event === event && record.change_id === lockedBy)
    const plan = ofChange('plan')
    missing.push(
      [!intents.some(({ change_id: id }) => id === lockedBy), 'no intent is recorded'],
      [!plan, 'no plan is recorded'],
      [plan !== undefined && plan.decision !== 'allowed', 'the policy did not allow the plan']
    )
  }
  return missing.filter(([isMissing]) => isMissing).map(([, what]) => what)
}

function missingIn (
  change: Change,
  mutation: Mutation,
  call: NonNullable<Mutation['call']>
): [isMissing: boolean, what: string][] {
  const { change_id: id, requires, requested_by: requester, execution } = change
  const { fence, address } = mutation
  const earlier = sent.get(id)
  sent.set(id, earlier ?? mutation)
  const approvers = new Set(change.approvals.map(({ by }) => `${by.issuer} ${by.subject}`))
  approvers.delete(`${requester.issuer} ${requester.subject}`)
  const isApproved = requires.mode === 'direct' || change.break_glass !== null ||
    approvers.size >= requires.approvals_needed
  return [
    [earlier !== undefined && earlier !== mutation, `the same change was sent before: ${earlier?.what}`],
    [change.tool !== call.tool || !covers(change.arguments, call.arguments), 'it is not what was planned'],
    [!isApproved, 'its approvals are missing'],
    [typeof fence === 'object' && fence.clusterId !== change.cluster_id, 'the broker is of another cluster'],
    [change.state !== 'applying', `the change is ${change.state} instead of applying`],
    [typeof execution?.sent_at_revision !== 'number', 'the ledger does not say that it may have been sent'],
    [fence !== 'none' && execution?.broker !== address, 'the ledger names another broker'],
  ]
}

/** Whether a plan's arguments have everything that a request says. Numbers may be text. */
function covers (planned: unknown, requested: unknown): boolean {
  if (typeof requested !== 'object' || requested === null) return String(planned) === String(requested)
  if (typeof planned !== 'object' || planned === null) return false
  return Object.entries(requested).every(([key, value]) => covers((planned as Record<string, unknown>)[key], value))
}
