import type { Caller } from '../../tools/tool.ts'
import type { Change, ChangeView, UnknownChange } from './change.ts'
import type { Parts } from './parts.ts'
import { maySee, readChange, resourceOf } from './people.ts'
import type { ChangeState } from './states.ts'
import { currentViewOf, viewOf } from './view.ts'

export interface ChangeFilter { state?: ChangeState, topic?: string, group?: string }

/** @throws {ChangeNotFound} also for a change that the caller may not see */
export async function getChange (parts: Parts, { principal }: Caller, id: string): Promise<ChangeView> {
  const { change } = await readChange(parts, principal, id)
  return await currentViewOf(parts, change)
}

/** The changes that the caller may see, newest first. Nobody knows whether a filter fits those of other versions. */
export async function listChanges (
  parts: Parts,
  { principal }: Caller,
  { state, topic, group }: ChangeFilter
): Promise<(ChangeView | UnknownChange)[]> {
  const alive = await parts.ledger.alive()
  const isAbout = (change: Change, kind: string, name: string | undefined) => {
    const resource = resourceOf(parts, change)
    return name === undefined || (resource.kind === kind && resource.name === name)
  }
  return (await parts.ledger.all()).flatMap<ChangeView | UnknownChange>(stored => {
    if (!('change' in stored)) return [stored]
    const { change } = stored
    if (!isAbout(change, 'topic', topic) || !isAbout(change, 'group', group)) return []
    if (!maySee(parts, principal, change)) return []
    const view = viewOf(parts, change, alive.has(change.change_id))
    return state === undefined || view.change.state === state ? [view] : []
  })
}
