/** Tells people about changes: approvals to give, break-glass, and what went other than planned. */
import { createHmac, randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { escapeUnprintable, quote } from '../lib/printable.ts'
import type { Change } from './changes/change.ts'
import { reveal } from './config/secret.ts'
import { fetchOutbound } from './outbound.ts'

declare module 'fastify' {
  interface FastifyInstance { webhook: Webhook }
}

export type WebhookEvent = 'approval_requested' | 'break_glass' | 'ambiguous' | 'reverted'

/** Where people are told about changes. Exists only if `KAFSCALE_MCP_CHANGES` is `enabled`. */
export interface Webhook {
  /**
   * Posts a message about a change. Resolves to `true` once it is delivered, else to the reason why it was not, after
   * at most 10 s. Never rejects.
   */
  send: (event: WebhookEvent, change: Change, approvalUrl?: string) => Promise<true | string>
}

const ATTEMPT_TIMEOUT_MS = 3_000
/** How long to wait before each attempt. With the timeouts, the attempts take at most 10 s. */
const WAITS_MS = [0, 250, 750]

const SENTENCES: Readonly<Record<WebhookEvent, string>> = {
  approval_requested: 'asks for approval of',
  break_glass: 'uses break-glass to apply',
  ambiguous: 'has requested a change whose effect is unknown:',
  reverted: 'has applied a change that another writer has undone:',
}

/**
 * Decorates the app with `webhook`, which posts to `KAFSCALE_MCP_WEBHOOK_URL`. Its headers are those of the Standard
 * Webhooks specification, signed with the bytes of `KAFSCALE_MCP_WEBHOOK_SECRET`.
 */
export default fp(async function webhook (app) {
  const settings = app.config.changes?.webhook
  const fetch = fetchOutbound(app.config)
  const closing = new AbortController()
  app.addHook('onClose', async () => closing.abort())

  app.decorate<Webhook>('webhook', {
    async send (event, change, approvalUrl) {
      if (!settings) return 'KAFSCALE_MCP_WEBHOOK_URL is not set'
      const body = escapeUnprintable(JSON.stringify({
        text: textOf(event, change, approvalUrl),
        event,
        approval_url: approvalUrl ?? null,
        // Without what only the policy needs to know.
        change: { ...change, requester: undefined },
      }))
      const id = randomUUID()
      let reason = ''
      for (const waitMs of WAITS_MS) {
        await delay(waitMs, undefined, { signal: closing.signal }).catch(() => {})
        if (closing.signal.aborted) return 'the service stops'
        const timestamp = String(Math.floor(Date.now() / 1_000))
        const signature = createHmac('sha256', reveal(settings.secret)).update(`${id}.${timestamp}.${body}`)
        try {
          const { status } = await fetch(reveal(settings.url), {
            method: 'POST',
            redirect: 'error',
            headers: {
              'content-type': 'application/json',
              'webhook-id': id,
              'webhook-timestamp': timestamp,
              'webhook-signature': `v1,${signature.digest('base64')}`,
            },
            body,
            signal: AbortSignal.any([closing.signal, AbortSignal.timeout(ATTEMPT_TIMEOUT_MS)]),
          })
          if (status >= 200 && status < 300) return true
          reason = `it answered with status ${status}`
        } catch {
          reason = 'it did not answer'
        }
      }
      app.log.warn({ event, change_id: change.change_id, reason }, 'the webhook was not delivered')
      return reason
    },
  })
}, { name: 'webhook', dependencies: ['config'] })

/** The message as Slack shows it. Names from the cluster and from agents are code: no links, no mentions. */
function textOf (event: WebhookEvent, change: Change, approvalUrl: string | undefined): string {
  const { requested_by: requester, tool, arguments: args, environment, change_id: id, break_glass: glass } = change
  const { subject } = event === 'break_glass' && glass ? glass.by : requester
  return [
    `${code(quote(subject))} ${SENTENCES[event]} ${code(`${tool} ${escapeUnprintable(JSON.stringify(args))}`)}`,
    `in ${environment === null ? 'an unnamed environment' : code(quote(environment))} (${id}).`,
    ...event === 'break_glass' && glass ? [`Ticket ${code(quote(glass.ticket))}: ${code(quote(glass.reason))}.`] : [],
    ...approvalUrl === undefined ? [] : [approvalUrl],
  ].join(' ')
}

function code (text: string): string {
  return `\`${escapeMarkup(text.replaceAll('`', "'"))}\``
}

/** The characters that Slack's own markup begins with. */
function escapeMarkup (text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
