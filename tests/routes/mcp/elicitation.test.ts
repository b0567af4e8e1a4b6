/** Clients that can open a URL for their user are asked to open the page of a change that needs an approval. */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import t from 'tap'
import { startApprovals } from '../../support/approvals.ts'
import { needsEtcd } from '../../support/etcd.ts'
import { MODERN } from '../../support/service.ts'

interface Answer {
  resultType?: string
  content: { type: 'text', text: string }[]
  isError?: true
  [key: string]: unknown
  structuredContent?: Record<string, unknown>
  inputRequests?: Record<string, { method: string, params: { mode: string, url: string, message: string } }>
  requestState?: string
}

const OPENS_URLS = { elicitation: { url: {} } }
const ACCEPTED = { approval: { action: 'accept' } }

t.test('asking for an approval', needsEtcd(), async t => {
  const { url, app, send, request, provider, token } = await startApprovals(t)
  const apply = async (id: string, params: Record<string, unknown> = {}, capabilities: object = OPENS_URLS,
    who = 'alice') => await send(who, {
    name: 'apply_change',
    arguments: { change_id: id },
    ...params,
    _meta: { 'io.modelcontextprotocol/clientCapabilities': capabilities },
  }) as { result?: Answer, error?: { code: number, message: string } }
  const bob = {
    principal: {
      subject: 'bob',
      issuer: provider.issuer,
      clientId: 'pages',
      method: 'oidc' as const,
      scopes: undefined,
      tokenId: null,
      expiresAt: null,
      claims: { groups: ['approvers'] },
      clientCertificate: null,
    },
    receivedAt: new Date(),
    remoteAddress: null,
    userAgent: null,
    mcpClient: null,
    requestId: null,
    traceId: null,
  }
  const approve = async (id: string) =>
    await app.changes.approve(bob, id, (await app.changes.get(bob, id)).change.digest, null)

  await t.test('a client that opens URLs gets the link twice, and its retry continues after the approval', async t => {
    const id = await request('orders')
    const { result } = await apply(id)
    const link = `${url}/changes/${id}`
    t.match(result, {
      resultType: 'input_required',
      inputRequests: { approval: { method: 'elicitation/create', params: { mode: 'url', url: link, message: link } } },
      content: [{ text: link }],
      requestState: /^v1\./,
    })
    await approve(id)
    const { requestState } = result!
    const retried = await apply(id, { requestState, inputResponses: ACCEPTED })
    t.match(retried.result?.structuredContent, { state: 'applied', change_id: id })

    const again = await apply(id, { requestState, inputResponses: ACCEPTED })
    t.match(again.error, { code: -32602, message: /it is good once/ })
    t.match((await apply(id)).result?.structuredContent, { state: 'applied' }, 'nothing is sent twice')
  })

  await t.test('a retry before the approval waits for it with a plain answer', async t => {
    const id = await request('early')
    const { result } = await apply(id)
    const retried = await apply(id, { requestState: result?.requestState, inputResponses: ACCEPTED })
    t.match(retried.result, { isError: true, content: [{ text: `${url}/changes/${id}` }] })
    t.notOk(retried.result?.inputRequests)
  })

  await t.test('a state is for its principal and its change', async t => {
    const [id, other] = [await request('mine'), await request('other')]
    const { result } = await apply(id)
    const requestState = String(result?.requestState)
    await approve(other)
    const refused = { code: -32602, message: /requestState/ }
    t.match((await apply(other, { requestState })).error, refused, 'another change')
    t.match((await apply(id, { requestState }, OPENS_URLS, 'carol')).error, refused, 'another principal')
    t.match((await apply(id, { requestState: `${requestState.slice(0, -2)}xx` })).error, refused, 'forged')
    t.match((await apply(id, { requestState })).result, { isError: true }, 'none of that has used it')
  })

  await t.test('other clients get the link in the text', async t => {
    const id = await request('plain')
    for (const capabilities of [{}, { elicitation: {} }, { elicitation: { form: {} } }]) {
      const { result } = await apply(id, {}, capabilities)
      t.match(result, { isError: true, content: [{ text: `${url}/changes/${id}` }] })
      t.notOk(result?.inputRequests)
    }
  })

  await t.test('the client of the SDK opens the page, and its call returns the outcome', async t => {
    const id = await request('sdk')
    const client = new Client({ name: 'test', version: '1' }, {
      capabilities: { elicitation: { url: {} } },
      versionNegotiation: { mode: { pin: MODERN } },
    })
    const opened: unknown[] = []
    client.setRequestHandler('elicitation/create', async ({ params }) => {
      opened.push((params as { url?: string }).url)
      await approve(id)
      return { action: 'accept' as const }
    })
    const headers = { authorization: `Bearer ${await token('alice')}` }
    await client.connect(new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit: { headers } }))
    t.teardown(() => client.close())
    const result = await client.callTool({ name: 'apply_change', arguments: { change_id: id } })
    t.match(result.structuredContent, { state: 'applied' })
    t.strictSame(opened, [`${url}/changes/${id}`])
  })
})
