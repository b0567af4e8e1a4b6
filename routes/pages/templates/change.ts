import { html } from 'ghtml'
import type { Change, ChangeTool, FieldDiff, Person, Plan } from '../../../plugins/changes/change.ts'
import type { Recomputed } from '../../../plugins/changes/decisions.ts'
import { shown, shownValue, words } from './text.ts'

/** What a change does, as the heading of its page says it. */
const TITLES: Readonly<Record<ChangeTool, string>> = {
  create_topic: 'Create the topic',
  delete_topic: 'Delete the topic',
  create_partitions: 'Add partitions to the topic',
  update_topic_config: 'Change the settings of the topic',
  delete_group: 'Delete the consumer group',
  drain_broker: 'Drain the broker',
  flush_broker: 'Flush the broker',
}

/** Changes whose approver types the name of what they are about. */
const DESTRUCTIVE: ReadonlySet<ChangeTool> = new Set(['delete_topic', 'delete_group', 'drain_broker'])

const ENVIRONMENTS = [
  { kind: 'production', names: /^(?:prod|production|live)$/i },
  { kind: 'staging', names: /^(?:stag(?:e|ing)|preprod|pre-production|uat|qa)$/i },
  { kind: 'development', names: /^(?:dev|development|test|local|demo|sandbox)$/i },
]

export function isDestructive ({ tool }: Pick<Change, 'tool'>): boolean {
  return DESTRUCTIVE.has(tool)
}

/** `Delete the topic orders`. */
export function titleOf (tool: ChangeTool, name: string): string {
  return `${TITLES[tool]} ${shown(name)}`
}

/** The environment in words and in color. */
export function environmentBand (environment: string | null): string {
  const { kind } = ENVIRONMENTS.find(({ names }) => names.test(environment ?? '')) ?? { kind: 'other' }
  return environment === null
    ? html`<strong class="environment production">An environment without a name, treated as production</strong>`
    : html`<strong class="environment ${kind}">Environment: ${shown(environment, 64)}</strong>`
}

export interface ChangePage extends Recomputed {
  prefix: string
  csrf: string
  /** Whether the sign-in is recent enough to decide. */
  mayDecide: boolean
  /** What has just been done or refused. */
  message?: { isGood: boolean, text: string } | undefined
}

/** The page of a change: everything that an approver should know, and what the visitor can do. */
export function changePage (page: ChangePage): string {
  const { view, plan, drift, name } = page
  const { change, next } = view
  // What it would do now, as long as it can be done.
  const current: Plan = plan ?? change
  return html`<h1>${titleOf(change.tool, name)}</h1>
!${environmentBand(change.environment)}
!${page.message ? messageBox(page.message) : ''}
<p><strong>State: ${change.state}.</strong> ${shown(next)}</p>
!${preconditionBox(page)}
<h2>Who asks</h2>
<dl>
<dt>Requester</dt><dd>!${person(change.requested_by)}</dd>
<dt>Through the client</dt><dd><code>${shownValue(change.requested_by.client_id)}</code></dd>
<dt>Requested</dt><dd>!${time(change.requested_at)}</dd>
<dt>Expires</dt><dd>!${change.expires_at === null ? 'not open any more' : time(change.expires_at)}</dd>
<dt>Cluster</dt><dd><code>${shown(change.cluster_id)}</code></dd>
<dt>Change</dt><dd><code>${shown(change.change_id)}</code></dd>
<dt>Call</dt><dd><code>${change.tool} ${shown(JSON.stringify(change.arguments), 2_000)}</code></dd>
</dl>
<h2>What it changes</h2>
!${diffTable('The planned difference', change.diff)}
<h2>What it affects${plan ? ' now' : ''}</h2>
!${plan || drift.length > 0 ? '' : html`<p>As planned at ${change.requested_at}.</p>`}
!${effects(current)}
<h2>Warnings</h2>
!${current.warnings.length === 0 ? '<p>None.</p>' : list(current.warnings)}
<h2>Undo</h2>
!${undo(current)}
<h2>Approvals</h2>
!${approvals(change)}
!${breakGlass(change)}
!${outcome(change)}
!${decisions(page)}`
}

function messageBox ({ isGood, text }: { isGood: boolean, text: string }): string {
  return html`<div class="note ${isGood ? 'good' : 'bad'}" role="status"><p>${shown(text, 2_000)}</p></div>`
}

function preconditionBox ({ view: { change }, drift, plan }: ChangePage): string {
  const isOpen = ['planned', 'pending', 'approved'].includes(change.state)
  if (!isOpen) return ''
  if (drift.length > 0) {
    return html`<div class="note bad"><p><strong>The cluster is no longer as the plan expects.</strong> This change
cannot be applied: it must be proposed again.</p>!${list(drift)}</div>`
  }
  return plan
    ? '<div class="note good"><p>The cluster is as the plan expects, checked when this page was opened.</p></div>'
    : html`<div class="note bad"><p>It is not known whether the cluster is still as the plan expects, because its
metadata is not current. Open this page again in a few seconds.</p></div>`
}

function person ({ subject, issuer }: Person): string {
  return html`<code>${shown(subject, 128)}</code> of <code>${shownValue(issuer)}</code>`
}

function time (at: string): string {
  return html`<time datetime="${at}">${at.replace('T', ' ').replace(/\.\d+Z$/, ' UTC')}</time>`
}

function list (texts: readonly string[]): string {
  return html`<ul>!${texts.map(text => html`<li>${shown(text, 1_000)}</li>`)}</ul>`
}

function diffTable (caption: string, diff: readonly FieldDiff[]): string {
  if (diff.length === 0) return '<p>Nothing that etcd shows.</p>'
  return html`<div class="scroll" tabindex="0" role="group" aria-label="${caption}"><table>
<thead><tr><th scope="col">Field</th><th scope="col">Before</th><th scope="col">After</th></tr></thead>
<tbody>!${diff.map(({ field, before, after }) => html`<tr><th scope="row"><code>${shown(field)}</code></th>
<td class="data">${shownValue(before)}</td><td class="data">${shownValue(after)}</td></tr>`)}</tbody>
</table></div>`
}

function effects (plan: Pick<Plan, 'effects'>): string {
  const all = Object.entries(plan.effects)
  if (all.length === 0) return '<p>Nothing that can be counted.</p>'
  return html`<dl>!${all.map(([name, value]) => html`<dt>${words(name)}</dt><dd>${value ?? 'unknown'}</dd>`)}</dl>`
}

function undo ({ undo, undo_note: note }: Pick<Plan, 'undo' | 'undo_note'>): string {
  return html`!${undo
    ? html`<p>The call that would reverse it: <code>${undo.tool} ${shown(JSON.stringify(undo.arguments))}</code></p>`
    : '<p><strong>It cannot be undone.</strong></p>'}!${note === '' ? '' : html`<p>${shown(note)}</p>`}`
}

function approvals ({ requires, approvals, rejection }: Change): string {
  const needed = requires.mode === 'direct'
    ? 'The policy requires none here.'
    : `The policy requires ${requires.approvals_needed} by somebody other than the requester.`
  const rejected = rejection &&
    html`<p><strong>Rejected</strong> by !${person(rejection.by)}, !${time(rejection.at)}!${comment(rejection)}</p>`
  return html`<p>${needed} Given: ${approvals.length}.</p>
!${approvals.length === 0
    ? ''
    : html`<ul>!${approvals.map(each => html`<li>!${person(each.by)}, !${time(each.at)}!${comment(each)}</li>`)}</ul>`}
!${rejected ?? ''}`
}

function comment ({ comment }: { comment: string | null }): string {
  return comment === null ? '' : html`: <q class="data">${shown(comment, 1_000)}</q>`
}

function breakGlass ({ break_glass: glass }: Change): string {
  if (!glass) return ''
  return html`<h2>Break-glass</h2>
<div class="note bad"><p>!${person(glass.by)} applied it without an approval, !${time(glass.at)}.</p>
<p>Reason: <q class="data">${shown(glass.reason, 1_024)}</q>. Ticket: <q class="data">${shown(glass.ticket)}</q>.</p>
<p>!${glass.review
    ? html`Reviewed by !${person(glass.review.by)}, !${time(glass.review.at)}!${comment(glass.review)}`
    : 'Nobody has reviewed it. Until then, nobody can use break-glass again.'}</p></div>`
}

function outcome ({ outcome, execution }: Change): string {
  if (!outcome) return ''
  const { at, error, observed_diff: diff } = outcome
  return html`<h2>Outcome</h2>
<p>!${time(at)}, in the name of !${execution ? person(execution.by) : 'the requester'}!${execution?.approver
    ? html`, applied on this page by !${person(execution.approver)}`
    : ''}.</p>
!${error ? html`<div class="note bad"><p><code>${error.code}</code> ${shown(error.message, 1_000)}</p></div>` : ''}
!${diffTable('The observed difference', diff)}`
}

/** What the visitor can do, or why not. */
function decisions (page: ChangePage): string {
  const { view: { change }, needs, mayDecide, drift, plan, prefix } = page
  const { state, change_id: id } = change
  const reviewable = change.break_glass !== null && change.break_glass.review === null
  const decidable = state === 'pending' || state === 'approved'
  if (!decidable && !reviewable) return ''
  if (needs !== null) {
    return html`<h2>Your decision</h2><div class="note"><p>You cannot decide on this change: that requires
${shown(needs)}.</p></div>`
  }
  if (!mayDecide) {
    return html`<h2>Your decision</h2><div class="note"><p>To decide, you must have signed in within the last 5 minutes.
<a href="${prefix}/sign-in?again&to=/changes/${id}">Sign in again</a>, and you return to this page.</p></div>`
  }
  const isOver = drift.length > 0 || plan === null
  return html`<h2>Your decision</h2>
!${state === 'pending' && !isOver ? approveForm(page) : ''}
!${state === 'approved' && !isOver && page.hasApproved ? applyForm(page) : ''}
!${decidable ? rejectForm(page) : ''}
!${reviewable ? reviewForm(page) : ''}`
}

function form ({ prefix, csrf, view: { change } }: ChangePage, label: string, fields: string): string {
  return html`<form class="decision" method="post" action="${prefix}/changes/${change.change_id}" aria-label="${label}"
autocomplete="off">
<input type="hidden" name="_csrf" value="${csrf}">
<input type="hidden" name="digest" value="${change.digest}">
!${fields}
</form>`
}

function approveForm (page: ChangePage): string {
  const { view: { change } } = page
  const lacking = change.requires.approvals_needed - change.approvals.length
  if (page.hasApproved) return '<p>You have approved it. It needs the approval of somebody else as well.</p>'
  return form(page, 'Approve', html`!${confirmation(page)}
!${commentField('approve', 'Comment (optional)', false)}
<button class="go" name="action" value="approve">Approve</button>
!${lacking === 1
    ? '<button class="go" name="action" value="approve-and-apply">Approve and apply in the requester\'s name</button>'
    : ''}`)
}

function applyForm (page: ChangePage): string {
  return form(page, 'Apply', html`!${confirmation(page)}
<button class="go" name="action" value="apply">Apply in the requester's name</button>`)
}

function rejectForm (page: ChangePage): string {
  return form(page, 'Reject', html`!${commentField('reject', 'Why you reject it', true)}
<button class="stop" name="action" value="reject">Reject</button>`)
}

function reviewForm (page: ChangePage): string {
  return form(page, 'Review the use of break-glass', html`!${commentField('review', 'What you found', true)}
<button class="go" name="action" value="review">Mark as reviewed</button>`)
}

function confirmation ({ view: { change }, name }: ChangePage): string {
  if (!isDestructive(change)) return ''
  return html`<label for="confirmation">Type the name to confirm: <code>${shown(name)}</code></label>
<input type="text" id="confirmation" name="confirmation" required autocapitalize="none" spellcheck="false">`
}

function commentField (id: string, label: string, isRequired: boolean): string {
  return html`<label for="${id}-comment">${label}</label>
<textarea id="${id}-comment" name="comment" rows="2" maxlength="1000" !${isRequired ? 'required' : ''}></textarea>`
}
