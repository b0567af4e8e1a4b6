/** The pages of changes, and what people decide there. */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FormIncomplete, isToolError, SignInRequired, SignInTooOld } from '../../errors.ts'
import type { Recomputed } from '../../plugins/changes/decisions.ts'
import { CHANGE_STATES, type ChangeState } from '../../plugins/changes/states.ts'
import type { PageSettings } from '../../plugins/sign-in.ts'
import type { Caller } from '../../tools/tool.ts'
import { explain, type Pages } from './pages.ts'
import { callerOf, type Visitor } from './session.ts'
import { changePage, isDestructive, titleOf } from './templates/change.ts'
import { listPage } from './templates/list.ts'

const MAX_COMMENT = 1_000

interface ById { Params: { id: string }, Querystring: { done?: unknown } }

/** What has been done, as the page says it after a step. */
const DONE: Readonly<Record<string, string>> = {
  approve: 'You have approved it.',
  'approve-and-apply': 'You have approved it, and it was applied in the name of the requester.',
  apply: 'It was applied in the name of the requester.',
  reject: 'You have rejected it.',
  review: 'You have reviewed it.',
}

export async function changePages (app: FastifyInstance, { publicUrl }: PageSettings, show: Pages): Promise<void> {
  app.get<{ Querystring: { state?: unknown } }>('/changes', async (request, reply) => {
    const visitor = await show.enter(request, reply)
    if (!visitor) return reply
    const { state } = request.query
    const chosen = CHANGE_STATES.find((each): each is ChangeState => each === state)
    const changes = await app.changes.list(callerOf(request, visitor), chosen ? { state: chosen } : {})
    return show.page(request, reply, 'Changes', listPage(show.prefix, chosen, changes))
  })

  app.get<ById>('/changes/:id', async (request, reply) => {
    const visitor = await show.enter(request, reply)
    if (!visitor) return reply
    const found = await app.changes.recompute(callerOf(request, visitor), request.params.id)
    const { done } = request.query
    const text = typeof done === 'string' && Object.hasOwn(DONE, done) ? DONE[done] : undefined
    const isTrue = text !== undefined && hasDone(found, done as string)
    return change(request, reply, visitor, found, isTrue ? { isGood: true, text } : undefined)
  })

  app.post<ById & { Body: Record<string, string> }>('/changes/:id', {
    preHandler: app.csrfProtection,
  }, async (request, reply) => {
    const visitor = show.visitor(request)
    if (!visitor) throw new SignInRequired()
    request.principal = visitor.principal
    await app.limits.admit(request, reply)
    const { id } = request.params
    const caller = callerOf(request, visitor)
    try {
      const action = await decide(caller, id, request.body ?? {}, visitor.mayDecide)
      return reply.redirect(`${publicUrl}/changes/${id}?done=${action}`, 303)
    } catch (error) {
      if (!isRefusal(error)) throw error
      const found = await app.changes.recompute(caller, id).catch(() => undefined)
      if (!found) throw error
      const refusal = { isGood: false, text: `Not done: ${explain(error)} (${error.code})` }
      return change(request, reply.code(error.statusCode ?? 500), visitor, found, refusal)
    }
  })

  /** Takes the step that a form asks for. */
  async function decide (
    caller: Caller,
    id: string,
    { action = '', digest = '', comment: text = '', confirmation = '' }: Record<string, string>,
    mayDecide: boolean
  ): Promise<string> {
    if (!Object.hasOwn(DONE, action)) throw new FormIncomplete('the form does not say what to do')
    if (text.length > MAX_COMMENT) throw new FormIncomplete(`a comment has at most ${MAX_COMMENT} characters`)
    if (!mayDecide) throw new SignInTooOld()
    const comment = text.trim() === '' ? null : text
    if (action === 'reject' || action === 'review') {
      if (comment === null) throw new FormIncomplete('a comment is required, for the requester and the audit log')
      await app.changes[action === 'reject' ? 'reject' : 'reviewBreakGlass'](caller, id, comment)
      return action
    }
    const { view, name } = await app.changes.recompute(caller, id)
    if (isDestructive(view.change) && confirmation !== name) {
      throw new FormIncomplete('the name that you typed is not the one that this change is about')
    }
    if (action !== 'apply') await app.changes.approve(caller, id, digest, comment)
    if (action !== 'approve') await app.changes.applyForRequester(caller, id, digest)
    return action
  }

  function change (
    request: FastifyRequest,
    reply: FastifyReply,
    { mayDecide }: Visitor,
    found: Recomputed,
    message: { isGood: boolean, text: string } | undefined
  ): FastifyReply {
    const { view: { change: { tool } }, name } = found
    const body = changePage({ ...found, prefix: show.prefix, csrf: reply.generateCsrf(), mayDecide, message })
    return show.page(request, reply, titleOf(tool, name), body)
  }
}

function isRefusal (error: unknown): error is FastifyError {
  return isToolError(error) || error instanceof SignInTooOld || error instanceof FormIncomplete
}

/** The address of a page says nothing that is not so. */
function hasDone ({ view: { change }, hasApproved }: Recomputed, done: string): boolean {
  switch (done) {
    case 'approve': return hasApproved
    case 'reject': return change.state === 'rejected'
    case 'review': return change.break_glass?.review != null
    default: return change.execution?.approver !== undefined && change.state === 'applied'
  }
}
