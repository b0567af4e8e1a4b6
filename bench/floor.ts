/**
 * The floor, as a process of its own: the service's own way from HTTP to a tool, with one tool that does nothing; and a
 * bare Fastify route that answers with the same bytes.
 */
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import config, { readConfig } from '../plugins/config.ts'
import toolRegistry from '../plugins/tool-registry.ts'
import mcp from '../routes/mcp.ts'
import { modernRequest } from './mcp-client.ts'

const app = Fastify()
await app.register(config, { config: readConfig({ KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1' }) }) // nothing connects to it
await app.register(toolRegistry)
app.tools.declare({
  name: 'nothing',
  title: 'Do nothing',
  description: 'Does nothing.',
  operation: 'observe',
  input: Type.Object({}, { additionalProperties: false }),
  output: Type.Object({}),
  answer: () => ({}),
})
await app.register(mcp)
const url = `${await app.listen({ host: '127.0.0.1', port: 0 })}/mcp`

const { headers, body } = modernRequest(url)('tools/call', { name: 'nothing', arguments: {} })
const { payload: answer } = await app.inject({ method: 'POST', url: '/mcp', headers, payload: body })
const bare = Fastify()
bare.post('/', async (_, reply) => reply.type('application/json').send(answer))
const bareUrl = await bare.listen({ host: '127.0.0.1', port: 0 })

process.stderr.write(`${JSON.stringify({ msg: 'listening', url, bareUrl })}\n`)
process.on('SIGTERM', () => process.exit(0))
