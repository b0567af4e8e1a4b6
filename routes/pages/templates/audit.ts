import { html } from 'ghtml'
import type { LogRecord } from '../../../plugins/audit/record.ts'
import { shown, shownValue } from './text.ts'

/** The filters of the page, by the names of their parameters. */
export const FILTERS = {
  change: 'Change', event: 'Event', who: 'Subject', tool: 'Tool', outcome: 'Outcome',
} as const

export type AuditFilter = { [Name in keyof typeof FILTERS]?: string }

/** The latest records that this replica has written, newest first. Without scripts, it is current when it is opened. */
export function auditPage (
  prefix: string,
  filter: AuditFilter,
  records: readonly LogRecord[],
  after: string
): string {
  const query = new URLSearchParams({ ...filter, after }).toString()
  return html`<h1>Audit records</h1>
<p>The latest records of this replica. The complete log is where <code>KAFSCALE_MCP_AUDIT_SINKS</code> says; <code>
kafscale-mcp audit verify</code> proves that it is complete.</p>
<form method="get" action="${prefix}/audit">
!${Object.entries(FILTERS).map(([name, label]) => html`<label for="${name}">${label}</label>
<input type="text" id="${name}" name="${name}" value="${filter[name as keyof AuditFilter] ?? ''}">`)}
<button>Show</button>
</form>
<p id="live" role="status" data-stream="${prefix}/audit/live?${query}">!${records.length === 0
    ? 'No record of this replica matches.'
    : ''}</p>
<div class="scroll" tabindex="0" role="group" aria-label="Audit records"><table>
<thead><tr><th scope="col">Time</th><th scope="col">Event</th><th scope="col">Who</th><th scope="col">What</th>
<th scope="col">Outcome</th><th scope="col">Change</th></tr></thead>
<tbody id="records">!${records.map(record => auditRow(prefix, record))}</tbody></table></div>`
}

/** A record as a row. */
export function auditRow (prefix: string, { time, event, who, what, outcome, ...record }: LogRecord): string {
  const { error_code: code, change_id: id, warning } = record
  const { tool = null, arguments: args } = what ?? {}
  const isId = typeof id === 'string' && /^[a-z0-9-]{1,64}$/.test(id)
  return html`<tr><td>${shown(String(time), 32)}</td><th scope="row">${shown(String(event), 64)}</th>
<td><code>${shownValue(who?.subject ?? null)}</code></td>
<td class="data">${tool === null ? '' : `${shown(tool, 64)} ${shown(JSON.stringify(args) ?? '', 300)}`}${warning
    ? ` – ${shown(warning, 300)}`
    : ''}</td>
<td>${shown(String(outcome ?? ''), 16)}${code ? ` ${shown(code, 64)}` : ''}</td>
<td>!${isId ? html`<a href="${prefix}/audit?change=${id}">${id}</a>` : ''}</td></tr>`
}

/** Adds rows as records are written. They are HTML of this service, in which every text is escaped. */
export const LIVE_SCRIPT = `
const status = document.getElementById('live')
const rows = document.getElementById('records')
const source = new EventSource(status.dataset.stream)
source.addEventListener('open', () => { status.textContent = 'Live: new records appear at the top.' })
source.addEventListener('record', ({ data }) => {
  const template = document.createElement('template')
  template.innerHTML = data
  rows.prepend(template.content)
  while (rows.rows.length > 1000) rows.deleteRow(-1)
})
source.addEventListener('missed', () => {
  source.close()
  status.textContent = 'Some records were missed. Load this page again.'
})
source.addEventListener('error', () => {
  if (source.readyState === EventSource.CLOSED) status.textContent = 'No longer live. Load this page again.'
})
`
