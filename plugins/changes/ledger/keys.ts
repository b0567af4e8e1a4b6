/** The keys of the ledger, and requests for them. */
import { hash } from 'node:crypto'
import type { ICompare, IRangeRequest, IRequestOp } from 'etcd3'
import { canonical } from '../../audit/chain.ts'
import type { Person } from '../change.ts'

const PREFIX = '/kafscale-mcp/changes/'

/** A change, as JSON. */
export const byId = (id: string): string => `${PREFIX}by-id/${id}`
/** Exists as long as an open change has not expired. Those of one principal have one prefix. */
export const alive = (requester: Person, id: string): string => `${aliveOf(requester)}${id}`
export const aliveOf = (requester: Person): string => `${ALIVE}${ownerOf(requester)}/`
export const ALIVE = `${PREFIX}alive/`
/** Exists as long as a plan is kept that ended before anybody asked to apply it. Prefixes as above. */
export const unused = (requester: Person, id: string): string => `${unusedOf(requester)}${id}`
export const unusedOf = (requester: Person): string => `${PREFIX}unused/${ownerOf(requester)}/`
/** The state of each change that somebody may still have to do something about. */
export const active = (id: string): string => `${ACTIVE}${id}`
export const ACTIVE = `${PREFIX}active/`
/** Exists as long as the mirror is watched for the effect of a change, or for the end of that effect. */
export const watch = (id: string): string => `${WATCH}${id}`
export const WATCH = `${PREFIX}watch/`
export const ALL = `${PREFIX}by-id/`
export const LOCK = `${PREFIX}lock`
export const SETTLER = `${PREFIX}settler`
export const BREAK_GLASS = `${PREFIX}break-glass`
/** Exists once something that is good once has been used. */
export const used = (nonce: string): string => `${PREFIX}used/${nonce}`
export const LAST_BROKER = `${PREFIX}last-broker`

function ownerOf ({ issuer, subject }: Person): string {
  return hash('sha256', canonical([issuer, subject])).slice(0, 32)
}

/** The first key after those with a prefix. */
export function endOf (prefix: string): Buffer {
  const end = Buffer.from(prefix)
  end[end.length - 1]! += 1
  return end
}

export const withPrefix = (prefix: string): IRangeRequest & { key: Buffer, range_end: Buffer } =>
  ({ key: Buffer.from(prefix), range_end: endOf(prefix) })

export const put = (key: string, value: string, lease?: string): IRequestOp =>
  ({ request_put: { key: Buffer.from(key), value: Buffer.from(value), ...lease !== undefined && { lease } } })

export const remove = (key: string): IRequestOp => ({ request_delete_range: { key: Buffer.from(key) } })

export const get = (key: string): IRequestOp => ({ request_range: { key: Buffer.from(key) } })

export const exists = (key: string): ICompare =>
  ({ key: Buffer.from(key), target: 'Create', result: 'Greater', create_revision: '0' })

export const isAbsent = (key: string): ICompare =>
  ({ key: Buffer.from(key), target: 'Create', result: 'Equal', create_revision: '0' })

/** A condition that never holds. */
export const never = (key: string): ICompare =>
  ({ key: Buffer.from(key), target: 'Version', result: 'Less', version: '0' })

export const hasRevision = (key: string, modRevision: string): ICompare =>
  ({ key: Buffer.from(key), target: 'Mod', result: 'Equal', mod_revision: modRevision })

export const hasValue = (key: string, value: string): ICompare =>
  ({ key: Buffer.from(key), target: 'Value', result: 'Equal', value: Buffer.from(value) })

/** Whether no key with the prefix was created after the revision. */
export const noneSince = (prefix: string, revision: string): ICompare => ({
  ...withPrefix(prefix),
  target: 'Create',
  result: 'Less',
  create_revision: (BigInt(revision) + 1n).toString(),
})
