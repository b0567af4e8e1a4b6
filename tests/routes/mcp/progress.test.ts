/** A client that asks for progress is told each step of a change while it is applied. */
import { Client as Client2026, StreamableHTTPClientTransport as Transport2026 } from '@modelcontextprotocol/client'
import { Client as Client2025 } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport as Transport2025 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type { LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import { authority, clientOf } from '../../support/authorization.ts'
import { declareChangeTools, viewOf } from '../../support/change-tools.ts'
import { buildTestApp, legacy, modern } from '../../support/service.ts'

const INFO = { name: 'test', version: '1' }
/** The last one has characters that are not seen. */
const STEPS = ['locked', 'sent to broker-0:9092', 'applied \u202eorders\n']

async function build (t: Test) {
  const { env, token, policyFile } = await authority(t)
  const app = await buildTestApp(t, {
    ...env,
    KAFSCALE_MCP_POLICY_FILE: policyFile({
      roles: { operator: { allow: [{ operations: ['observe', 'propose', 'apply'] }] } },
      bindings: [{ role: 'operator', claim: 'sub', value: 'alice' }],
      changes: [{ mode: 'direct' }],
    }),
  })
  await declareChangeTools(app, {
    async apply (_, id, __, progress) {
      for (const step of STEPS) progress(step)
      return viewOf(id, { state: 'applied' })
    },
    get: async (_, id) => viewOf(id),
  })
  const scope = 'kafscale:observe kafscale:propose kafscale:apply'
  return { app, bearer: await token('alice', { scope }) }
}

const call = (name: string, meta: object = {}) => ({ name, arguments: { change_id: 'c-1' }, _meta: meta })
const asked = { progressToken: 'p' }

/** The messages in a stream of events. */
function eventsOf ({ headers, body }: LightMyRequestResponse): { method?: string, params?: object, result?: object }[] {
  if (!String(headers['content-type']).startsWith('text/event-stream')) throw new Error(`no stream: ${body}`)
  return body.split('\n').filter(line => line.startsWith('data: ')).map(line => JSON.parse(line.slice(6)))
}

for (const [revision, form] of Object.entries({ '2026-07-28': modern, '2025-11-25': legacy })) {
  t.test(revision, async t => {
    const { app, bearer } = await build(t)
    const client = clientOf(app, bearer, form)

    t.test('the steps come before the outcome, in a stream', async t => {
      const response = await client.request('tools/call', call('apply_change', asked))
      const [result, ...notifications] = eventsOf(response).reverse()
      t.match(result, { id: 1, result: { structuredContent: { change_id: 'c-1', state: 'applied' } } })
      t.strictSame(notifications.reverse().map(({ method, params }) => [method, params]), STEPS.map((message, index) =>
        ['notifications/progress', { progressToken: 'p', progress: index + 1, message }]))
      t.notMatch(response.body, '\u202e', 'characters that are not seen are escaped')
      t.match(response.body, '\\u202e')
    })

    t.test('without a request for progress, the outcome is one JSON message', async t => {
      const response = await client.request('tools/call', call('apply_change'))
      t.match(response.headers['content-type'], 'application/json')
      t.match(response.json(), { result: { structuredContent: { state: 'applied' } } })
    })

    t.test('a tool without steps answers with JSON, whatever the client asks for', async t => {
      const response = await client.request('tools/call', call('get_change', asked))
      t.match(response.headers['content-type'], 'application/json')
      t.match(response.json(), { result: { structuredContent: { state: 'planned' } } })
    })

    t.test('a refusal is an answer like any other', async t => {
      const refused = clientOf(app, undefined, form)
      const response = await refused.request('tools/call', call('apply_change', asked))
      t.equal(response.statusCode, 401)
    })
  })
}

t.test('the official clients report the steps', async t => {
  const { app, bearer } = await build(t)
  const url = new URL(`${await app.listen({ port: 0, host: '127.0.0.1' })}/mcp`)
  const requestInit = { headers: { authorization: `Bearer ${bearer}` } }
  const newer = new Client2026(INFO, { versionNegotiation: { mode: 'auto' } })
  const older = new Client2025(INFO)
  await newer.connect(new Transport2026(url, { requestInit }))
  await older.connect(new Transport2025(url, { requestInit }) as never)
  for (const client of [newer, older]) {
    t.teardown(() => client.close())
    const steps: (string | undefined)[] = []
    const onprogress = ({ message }: { message?: string | undefined }) => { steps.push(message) }
    const params = { name: 'apply_change', arguments: { change_id: 'c-1' } }
    const answer = client === newer
      ? await newer.callTool(params, { onprogress })
      : await older.callTool(params, undefined, { onprogress })
    t.match(answer.structuredContent, { state: 'applied' })
    t.strictSame(steps, STEPS)
  }
})
