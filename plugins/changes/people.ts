/** Who may see a change, and whose it is. */
import { ChangeNotFound, ChangeNotYours, ChangeUnreadable, PermissionDenied } from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import type { Principal } from '../auth/principal.ts'
import type { Decision } from '../rbac/decide.ts'
import type { Change, Person, Resource } from './change.ts'
import type { Kind } from './kinds/kind.ts'
import type { Stored } from './ledger/index.ts'
import type { Parts, Step } from './parts.ts'

/** The tool through which changes are seen. */
const READER = { name: 'get_change', operation: 'observe' } as const
/** No id that this service makes looks different. */
const ID = /^[a-z0-9-]{1,64}$/

export function personOf ({ subject, issuer, clientId }: Principal): Person {
  return { subject, issuer, client_id: clientId }
}

/** Whether two are the same person, through whatever client. */
export function isSamePerson (one: Omit<Person, 'client_id'>, other: Omit<Person, 'client_id'>): boolean {
  return one.subject === other.subject && one.issuer === other.issuer
}

export function kindOf ({ kinds }: Parts, { tool }: Pick<Change, 'tool'>): Kind {
  const kind = kinds[tool]
  if (!kind) throw new Error(`no kind ${tool}`)
  return kind
}

export function resourceOf (parts: Parts, change: Pick<Change, 'tool' | 'arguments'>): Resource {
  return kindOf(parts, change).resource(change.arguments)
}

/** The requester sees a change, and whoever may see what it is about or approve it. */
export function maySee (parts: Parts, principal: Principal, change: Change): boolean {
  if (isSamePerson(personOf(principal), change.requested_by)) return true
  const { kind, name } = resourceOf(parts, change)
  if (parts.authorize.decideOn(principal, 'approve', change.tool, { kind, name }).kind === 'allowed') return true
  if (parts.authorize.decide(principal, READER).kind === 'denied') return false
  const visible = parts.authorize.visibility(principal, READER)
  return kind === 'broker' || (kind === 'topic' ? visible.topic(name) : visible.group(name))
}

/** @throws {ChangeNotFound} also if the principal may not see it */
export async function readChange (parts: Parts, principal: Principal, id: string): Promise<Stored> {
  const stored = ID.test(id) ? await parts.ledger.read(id) : undefined
  if (stored && !('change' in stored)) throw new ChangeUnreadable(stored.change_id, String(stored.version))
  if (!stored || !maySee(parts, principal, stored.change)) throw new ChangeNotFound(quote(id))
  return stored
}

/** @throws {ChangeNotYours} unless the principal is the requester */
export async function readOwnChange (parts: Parts, principal: Principal, id: string): Promise<Stored> {
  const stored = await readChange(parts, principal, id)
  if (!isSamePerson(personOf(principal), stored.change.requested_by)) throw new ChangeNotYours(id)
  return stored
}

/** @throws {PermissionDenied} unless the policy allows the step now */
export function requireAllowed (
  parts: Parts,
  principal: Principal,
  step: Step,
  change: Pick<Change, 'tool' | 'arguments'>
): Decision {
  const decision = parts.authorize.decideOn(principal, step, change.tool, resourceOf(parts, change))
  if (decision.kind === 'denied') {
    throw new PermissionDenied(CALLS[step](change.tool), decision.needs)
  }
  return decision
}

/** What was refused, as `PERMISSION_DENIED` names it. */
const CALLS: Record<Step, (tool: string) => string> = {
  propose: tool => tool,
  apply: tool => `apply_change for ${tool}`,
  approve: tool => `approve for ${tool}`,
  'break-glass': tool => `apply_change with break_glass for ${tool}`,
}
