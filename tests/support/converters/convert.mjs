/**
 * `node convert.mjs URL`: connects the SDKs to the service, and prints what each sends to its model for each tool. Runs
 * beside `node_modules` of this folder's manifest.
 */
import { createGoogleGenerativeAI } from '@ai-sdk/google'
import { createMCPClient } from '@ai-sdk/mcp'
import { mcpTools } from '@anthropic-ai/sdk/helpers/beta/mcp'
import { transformJSONSchema } from '@anthropic-ai/sdk/lib/transform-json-schema'
import { MCPToolset } from '@google/adk'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { Agent, getAllMcpTools, MCPServerStreamableHttp, RunContext } from '@openai/agents'
import { generateText } from 'ai'
import { toStrictJsonSchema } from 'openai/lib/transform'

const [, , url] = process.argv
const client = new Client({ name: 'converters', version: '1' })
await client.connect(new StreamableHTTPClientTransport(new URL(url)))
const { tools } = await client.listTools()

const results = {
  '@ai-sdk/google': await aiSdk(),
  '@google/adk': await adk(),
  '@openai/agents': await openAiAgents(),
  openai: tools.map(({ name, inputSchema }) => [name, toStrictJsonSchema(allRequired(inputSchema))]),
  '@anthropic-ai/sdk': mcpTools(tools, client, { strict: true }).map(tool =>
    [tool.name, transformJSONSchema(tool.input_schema), tool.strict]
  ),
}
await client.close()
process.stdout.write(JSON.stringify(results))

/** What the AI SDK sends to Gemini. */
async function aiSdk () {
  const mcp = await createMCPClient({ transport: { type: 'http', url } })
  let sent
  const google = createGoogleGenerativeAI({
    apiKey: 'none',
    fetch: async (_, { body }) => {
      sent = JSON.parse(body)
      return Response.json({ candidates: [{ content: { parts: [{ text: 'ok' }] }, finishReason: 'STOP' }] })
    },
  })
  await generateText({ model: google('gemini-3-pro-preview'), tools: await mcp.tools(), prompt: 'Which groups lag?' })
  await mcp.close()
  return sent.tools.flatMap(({ functionDeclarations }) => functionDeclarations)
    .map(({ name, parameters, parametersJsonSchema }) => [name, parameters ?? parametersJsonSchema])
}

async function adk () {
  const toolset = new MCPToolset({ type: 'StreamableHTTPConnectionParams', url })
  const converted = (await toolset.getTools()).map(tool => tool._getDeclaration())
  await toolset.close()
  return converted.map(({ name, parameters }) => [name, parameters])
}

async function openAiAgents () {
  const server = new MCPServerStreamableHttp({ url })
  await server.connect()
  const converted = await getAllMcpTools({
    mcpServers: [server],
    runContext: new RunContext(),
    agent: new Agent({ name: 'test' }),
    convertSchemasToStrict: true,
  })
  await server.close()
  return converted.map(({ name, parameters, strict }) => [name, parameters, strict])
}

/** OpenAI's strict mode has no optional properties: models fill in every one. */
function allRequired (schema) {
  if (!schema.properties) return schema
  const properties = Object.entries(schema.properties).map(([name, property]) => [name, allRequired(property)])
  return { ...schema, properties: Object.fromEntries(properties), required: Object.keys(schema.properties) }
}
