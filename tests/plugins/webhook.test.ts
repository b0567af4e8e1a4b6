import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import type { Change } from '../../plugins/changes/change.ts'
import config from '../../plugins/config/index.ts'
import type { Config } from '../../plugins/config/read.ts'
import { Secret } from '../../plugins/config/secret.ts'
import webhook, { type Webhook } from '../../plugins/webhook.ts'

const SECRET = 'a secret of the webhook'

const CHANGE = {
  version: 1,
  change_id: '0190b1b6-0000-7000-8000-000000000001',
  state: 'pending',
  tool: 'delete_topic',
  arguments: { topic: 'orders' },
  environment: 'staging',
  requested_by: { subject: 'agent@example.com', issuer: 'https://id.example', client_id: 'agent' },
  break_glass: null,
} as Partial<Change> as Change

interface Delivery { headers: IncomingHttpHeaders, body: string }

/** Starts a receiver that answers with these statuses, and the plugin that posts to it. */
async function start (t: Test, ...statuses: number[]): Promise<{ webhook: Webhook, deliveries: Delivery[] }> {
  const deliveries: Delivery[] = []
  const server = createServer(async (request, response) => {
    deliveries.push({ headers: request.headers, body: await text(request) })
    response.writeHead(statuses.shift() ?? 204, { location: '/elsewhere' }).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`
  return { webhook: await webhookOf(t, { url: new Secret(url), secret: new Secret(SECRET) }), deliveries }
}

async function webhookOf (t: Test, settings: { url: Secret, secret: Secret } | undefined): Promise<Webhook> {
  const app = Fastify()
  await app.register(config, { config: { changes: { webhook: settings }, warnings: [] } as unknown as Config })
  await app.register(webhook)
  await app.ready()
  t.teardown(() => app.close())
  return app.webhook
}

t.test('a message is signed, and has a text for people and the change for programs', async t => {
  const { webhook, deliveries } = await start(t)
  t.equal(await webhook.send('approval_requested', CHANGE, 'https://mcp.example/changes/1'), true)
  const [{ headers, body } = {} as Delivery] = deliveries
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature } = headers
  const expected = createHmac('sha256', SECRET).update(`${id}.${timestamp}.${body}`).digest('base64')
  t.equal(signature, `v1,${expected}`)
  t.strictSame(JSON.parse(body), {
    text: '`"agent@example.com"` asks for approval of `delete_topic {"topic":"orders"}` in `"staging"` ' +
      '(0190b1b6-0000-7000-8000-000000000001). https://mcp.example/changes/1',
    event: 'approval_requested',
    approval_url: 'https://mcp.example/changes/1',
    change: CHANGE,
  })
})

t.test('a name cannot link, mention or hide anything', async t => {
  const { webhook, deliveries } = await start(t)
  const hostile = 'a`<!channel> <https://evil.example|click>\u202e'
  const requester = { ...CHANGE.requested_by, subject: hostile }
  await webhook.send('ambiguous', { ...CHANGE, requested_by: requester, arguments: { topic: hostile } })
  const { text } = JSON.parse(deliveries[0]?.body ?? '{}') as { text: string }
  t.equal(text.match(/[<>]/), null)
  t.equal(text.match(/`/g)?.length, 6, 'only the marks around each name')
  t.match(text, '\\u202e')
})

t.test('break-glass names who, why and the ticket', async t => {
  const { webhook, deliveries } = await start(t)
  await webhook.send('break_glass', {
    ...CHANGE,
    break_glass: {
      by: { subject: 'on-call@example.com', issuer: null, client_id: null },
      at: '2026-01-01T00:00:00Z',
      reason: 'disk full',
      ticket: 'INC-7',
      notified: true,
      review: null,
    },
  })
  t.match(JSON.parse(deliveries[0]?.body ?? '{}'), {
    text: /^`"on-call@example.com"` uses break-glass to apply .*Ticket `"INC-7"`: `"disk full"`\.$/,
  })
})

t.test('a failed delivery is repeated with the same id, so that the receiver can tell', async t => {
  const { webhook, deliveries } = await start(t, 503, 500)
  t.equal(await webhook.send('reverted', CHANGE), true)
  t.equal(deliveries.length, 3)
  t.equal(new Set(deliveries.map(({ headers }) => headers['webhook-id'])).size, 1)
})

t.test('the reason of a failure says nothing about the receiver but its status', async t => {
  const { webhook, deliveries } = await start(t, 404, 404, 404)
  t.equal(await webhook.send('reverted', CHANGE), 'it answered with status 404')
  t.equal(deliveries.length, 3)
})

t.test('a redirect is not followed', async t => {
  const { webhook, deliveries } = await start(t, 302, 302, 302)
  t.equal(await webhook.send('reverted', CHANGE), 'it did not answer')
  t.strictSame(deliveries.map(({ headers }) => headers['content-type']), Array(3).fill('application/json'))
})

t.test('without a URL, nothing is sent and the reason names the setting', async t => {
  const webhook = await webhookOf(t, undefined)
  t.equal(await webhook.send('ambiguous', CHANGE), 'KAFSCALE_MCP_WEBHOOK_URL is not set')
})
