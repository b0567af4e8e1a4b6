/** Plans, their digests, and whether the cluster is still as they expect. */
import { hash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { ChangeImpossible, ClusterMismatch, MetadataStale } from '../../errors.ts'
import type { Mirror } from '../../kafscale/mirror.ts'
import { EVERYTHING, VisibleMirror } from '../../kafscale/visible-mirror.ts'
import { escapeUnprintable, quote } from '../../lib/printable.ts'
import { canonical } from '../audit/chain.ts'
import type { Principal } from '../auth/principal.ts'
import type { Change, ChangeTool, Fact, Plan } from './change.ts'
import type { Parts } from './parts.ts'
import { kindOf } from './people.ts'

/** @throws {MetadataStale} unless the mirror is current */
export function currentMirror ({ metadata }: Parts): Mirror {
  const { mirror, state, reason } = metadata
  if (!mirror || state !== 'synced') throw new MetadataStale(reason ?? state)
  return mirror
}

/** @throws {ClusterMismatch} unless the mirror shows the cluster that may be changed */
export function requireCluster ({ settings }: Parts, { snapshot }: Mirror): void {
  const id = snapshot?.clusterId ?? null
  if (id === settings.expectedClusterId) return
  const shown = id === null ? 'no cluster id' : `the cluster id ${quote(id)}`
  throw new ClusterMismatch(`etcd has ${shown}, and ${quote(settings.expectedClusterId)} is expected`)
}

/**
 * @param principal whose view of the cluster the effects count
 * @throws {ChangeImpossible}
 */
export function planNow (
  parts: Parts,
  principal: Principal | 'everything',
  { tool, arguments: args }: { tool: ChangeTool, arguments: Record<string, unknown> },
  mirror: Mirror
): Plan {
  const visibility = principal === 'everything'
    ? EVERYTHING
    : parts.authorize.visibility(principal, { name: tool, operation: 'propose' })
  return kindOf(parts, { tool }).plan(args, {
    cluster: mirror,
    visible: visibility.everything ? mirror : new VisibleMirror(mirror, visibility),
    maxPartitions: parts.settings.maxPartitions,
    writeRate: parts.writeRate,
  })
}

/** What an approver approves: SHA-256 (hex) of the canonical JSON of tool, arguments, preconditions and diff. */
export function digestOf (plan: Pick<Change, 'tool' | 'arguments' | 'preconditions' | 'diff'>): string {
  const { tool, arguments: args, preconditions, diff } = plan
  return hash('sha256', canonical({ tool, arguments: args, preconditions, diff }))
}

/** What of a plan's preconditions holds no more, one sentence each. */
export function driftOf (parts: Parts, principal: Principal, change: Change, mirror: Mirror): string[] {
  let plan: Plan
  try {
    plan = planNow(parts, principal, change, mirror)
  } catch (error) {
    if (error instanceof ChangeImpossible) return [error.message]
    throw error
  }
  const drift = differences(change.preconditions, plan.preconditions)
  return drift.length > 0 || digestOf({ ...plan, tool: change.tool }) === change.digest
    ? drift
    : ['the same call would now do something else']
}

function differences (expected: readonly Fact[], found: readonly Fact[]): string[] {
  const keyOf = ({ fact, subject }: Fact) => JSON.stringify([fact, subject])
  const now = new Map(found.map(each => [keyOf(each), each]))
  const before = new Set(expected.map(keyOf))
  return [
    ...expected.filter(each => !isDeepStrictEqual(now.get(keyOf(each))?.value, each.value)).map(each => {
      const value = now.get(keyOf(each))?.value
      return `${each.fact} of ${quote(each.subject)} was ${show(each.value)} and is ${show(value)}`
    }),
    ...found.filter(each => !before.has(keyOf(each))).map(({ fact, subject, value }) =>
      `${fact} of ${quote(subject)} is ${show(value)} and was not there`),
  ]
}

function show (value: unknown): string {
  return value === undefined ? 'unknown' : escapeUnprintable(JSON.stringify(value))
}
