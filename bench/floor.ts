/**
 * The floor, in a separate process: the service without a cluster and with an additional tool that does nothing, and a
 * bare Fastify route that answers with the same bytes.
 */
import { Type } from '@sinclair/typebox'
import Fastify from 'fastify'
import { buildApp } from '../app.ts'
import { NOTHING_ON } from './everything-on.ts'
import { modernRequest } from './mcp-client.ts'

const app = await buildApp({
  env: {
    KAFSCALE_MCP_ETCD_ENDPOINTS: 'http://127.0.0.1:1', // nothing listens there
    KAFSCALE_MCP_LOG_LEVEL: 'silent',
    ...NOTHING_ON,
  },
})
app.tools.declare({
  name: 'nothing',
  title: 'Do nothing',
  description: 'Does nothing.',
  operation: 'observe',
  input: Type.Object({}, { additionalProperties: false }),
  output: Type.Object({}),
  answer: () => ({}),
})
const url = `${await app.listen({ host: '127.0.0.1', port: 0 })}/mcp`

const { headers, body } = modernRequest(url)('tools/call', { name: 'nothing', arguments: {} })
const { payload: answer } = await app.inject({ method: 'POST', url: '/mcp', headers, payload: body })
const bare = Fastify()
bare.post('/', async (_, reply) => reply.type('application/json').send(answer))
const bareUrl = await bare.listen({ host: '127.0.0.1', port: 0 })

process.stderr.write(`${JSON.stringify({ msg: 'listening', url, bareUrl })}\n`)
process.on('SIGTERM', () => process.exit(0))
