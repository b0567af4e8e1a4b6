/** The official MCP clients of both generations, over a real connection. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Client as Client2026, StreamableHTTPClientTransport as Transport2026 } from '@modelcontextprotocol/client'
import { Client as Client2025 } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport as Transport2025 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import t, { type Test } from 'tap'
import { needsEtcd, startEtcd } from '../../support/etcd.ts'
import { recording } from '../../support/paths.ts'
import { buildSyncedApp, fill, recordedKeyspace } from '../../support/service.ts'

const INFO = { name: 'test', version: '1' }
const INPUTS: Record<string, Record<string, unknown>> = {
  describe_group: { group_id: 'billing' },
  fetch_offsets: { group_id: 'analytics' },
}

/** A `fetch` that records the content type of each response. */
function recordingFetch () {
  const types: (string | undefined)[] = []
  const recordedFetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const response = await fetch(input, init)
    types.push(response.headers.get('content-type')?.split(';')[0])
    return response
  }
  return { fetch: recordedFetch, types }
}

/** Serves a broker's recorded page like the broker. */
async function serveBrokerPage (t: Test): Promise<string> {
  const [{ body }] = recording('metrics.jsonl.gz') as [{ body: string }]
  const server = createServer((_, response) =>
    response.setHeader('content-type', 'text/plain; version=0.0.4').end(body)
  ).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`
}

t.test('clients of both generations', needsEtcd(), async t => {
  const etcd = await startEtcd(t)
  await fill(etcd, recordedKeyspace())
  const app = await buildSyncedApp(t, etcd, { KAFSCALE_MCP_BROKER_METRICS_URL: await serveBrokerPage(t) })
  const url = new URL(`${await app.listen({ port: 0, host: '127.0.0.1' })}/mcp`)

  const clients = {
    '2026-07-28': async (t: Test) => {
      const { fetch, types } = recordingFetch()
      const client = new Client2026(INFO, { versionNegotiation: { mode: 'auto' } })
      await client.connect(new Transport2026(url, { fetch }))
      t.teardown(() => client.close())
      return { client, types, revision: client.getNegotiatedProtocolVersion() }
    },
    '2025-11-25 with the newer client': async (t: Test) => {
      const { fetch, types } = recordingFetch()
      const client = new Client2026(INFO)
      await client.connect(new Transport2026(url, { fetch }))
      t.teardown(() => client.close())
      return { client, types, revision: client.getNegotiatedProtocolVersion() }
    },
    '2025-11-25': async (t: Test) => {
      const { fetch, types } = recordingFetch()
      const client = new Client2025(INFO)
      const transport = new Transport2025(url, { fetch })
      await client.connect(transport)
      t.teardown(() => client.close())
      return { client, types, revision: transport.protocolVersion }
    },
  }

  for (const [name, connect] of Object.entries(clients)) {
    t.test(name, async t => {
      const { client, types, revision } = await connect(t)

      t.test('negotiates a revision and gets the server info', async t => {
        t.equal(revision, name.slice(0, 10))
        t.match(client.getServerVersion(), { name: 'kafscale-mcp', title: 'KafScale' })
        t.match(client.getServerCapabilities(), { tools: {} })
        t.match(client.getInstructions(), 'Start with cluster_status')
      })

      t.test('lists the tools and calls each one; the client validates every answer', async t => {
        const { tools } = await client.listTools()
        t.equal(tools.length, 10)
        for (const { name } of tools) {
          const { isError, content, structuredContent } = await client.callTool({ name, arguments: INPUTS[name] ?? {} })
          t.notOk(isError, name)
          t.match(content, [{ type: 'text' }])
          t.strictSame(
            structuredContent,
            JSON.parse((content as [{ text: string }])[0].text),
            `${name}: the text is the structured content`
          )
        }
        t.match(await client.callTool({ name: 'cluster_metrics' }), {
          structuredContent: { s3_state: 'healthy', partial: false },
        })
      })

      t.test('gets a failure of a tool in the result', async t => {
        t.match(await client.callTool({ name: 'describe_group', arguments: { group_id: 'nope' } }), {
          isError: true,
          content: [{ type: 'text', text: /^GROUP_NOT_FOUND: Consumer group "nope" does not exist/ }],
          _meta: { 'kafscale-mcp/error': { code: 'GROUP_NOT_FOUND', retryable: false } },
        })
        t.match(await client.callTool({ name: 'list_topics', arguments: { limit: 'many' } }), {
          isError: true,
          content: [{
            text: 'INVALID_ARGUMENT: The arguments do not match the tool\'s input schema: "limit" must be integer.',
          }],
        })
      })

      t.test('gets a protocol error for an unknown tool', async t => {
        await t.rejects(async () => {
          await client.callTool({ name: 'nope' })
        }, { code: -32602, message: /Tool "nope" does not exist/ })
      })

      t.test('gets only JSON responses', async t => {
        t.ok(types.length >= 15)
        // The response to a notification has no body.
        t.strictSame(types.filter(type => type !== 'application/json' && type !== undefined), [])
      })
    })
  }
})
