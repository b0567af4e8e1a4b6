import { html } from 'ghtml'
import { RESOURCE_KINDS } from '../../../plugins/changes/change.ts'
import type { ChangeView, UnknownChange } from '../../../plugins/changes/index.ts'
import { CHANGE_STATES, type ChangeState } from '../../../plugins/changes/states.ts'
import { titleOf } from './change.ts'
import { shown } from './text.ts'

const MAX_ROWS = 200
const NAME_OF = { topic: 'topic', group: 'group_id', broker: 'node_id' } as const

/** The changes that the visitor may see, newest first. */
export function listPage (
  prefix: string,
  state: ChangeState | undefined,
  changes: readonly (ChangeView | UnknownChange)[]
): string {
  const rows = changes.slice(0, MAX_ROWS)
  const left = changes.length - rows.length
  return html`<h1>Changes</h1>
<form method="get" action="${prefix}/changes">
<label for="state">State</label>
<select id="state" name="state">
<option value="">all</option>
!${CHANGE_STATES.map(each =>
    html`<option value="${each}" !${each === state ? 'selected' : ''}>${each}</option>`)}
</select>
<button>Show</button>
</form>
!${rows.length > 0 ? table(prefix, rows) : html`<p>There is no${state ? ` ${state}` : ''} change that you may see.</p>`}
!${left > 0 ? html`<p>${left} older changes are not shown. Choose a state.</p>` : ''}`
}

function table (prefix: string, rows: readonly (ChangeView | UnknownChange)[]): string {
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Changes"><table>
<thead><tr><th scope="col">Change</th><th scope="col">State</th><th scope="col">Environment</th>
<th scope="col">Requested by</th><th scope="col">Requested</th></tr></thead>
<tbody>!${rows.map(row => 'change' in row ? known(prefix, row) : unknown(row))}</tbody></table></div>`
}

function known (prefix: string, { change }: ChangeView): string {
  const name = String(change.arguments[NAME_OF[RESOURCE_KINDS[change.tool]]])
  return html`<tr><th scope="row"><a href="${prefix}/changes/${change.change_id}">${titleOf(change.tool, name)}</a></th>
<td>${change.state}</td><td>${shown(change.environment ?? 'without a name', 64)}</td>
<td><code>${shown(change.requested_by.subject, 128)}</code></td>
<td><time datetime="${change.requested_at}">${change.requested_at.slice(0, 16).replace('T', ' ')} UTC</time></td></tr>`
}

function unknown ({ change_id: id, version }: UnknownChange): string {
  return html`<tr><th scope="row"><code>${shown(id, 64)}</code></th>
<td colspan="4">stored in version ${version} of the format, which this version of the service does not know</td></tr>`
}
