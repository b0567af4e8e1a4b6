/** The SDKs of model hosts connect to the service and convert its tools for their models, without losing anything. */
import { execFile } from 'node:child_process'
import { copyFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { TOOLS_OF_CHANGES } from '../../plugins/changes/change.ts'
import { allTools } from '../../scripts/docs-tools.ts'
import { ROOT } from '../support/paths.ts'
import { needsSdks, nodeSdks, pythonSdks } from '../support/programs.ts'
import { temporaryFolder } from '../support/run.ts'
import { buildTestApp, CALLER } from '../support/service.ts'

interface Schema {
  type?: string
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  items?: Schema
  required?: string[]
  description?: string
  additionalProperties?: boolean
}
/** What an SDK sends to its model for each tool. `strict` is absent if it has no such mode. */
type Converted = [name: string, schema: Schema, strict?: boolean][]

const app = await buildTestApp(t)
// The converters do not sign in, so everyone may list the tools of changes here.
for (const tool of await allTools()) {
  if (TOOLS_OF_CHANGES.includes(tool.name)) app.tools.declare({ ...tool, operation: 'observe' })
}
const url = `${await app.listen({ port: 0, host: '127.0.0.1' })}/mcp`
const published = app.tools.list(CALLER.principal).map(({ name, inputSchema }) =>
  ({ name, properties: (inputSchema as Required<Schema>).properties }))

const converter = (name: string) => join(ROOT, 'tests/support/converters', name)

/** Runs a converter without the credentials and proxies of the machine. */
async function convert (file: string, ...args: string[]): Promise<Record<string, Converted>> {
  const { PATH } = process.env
  const { stdout } = await promisify(execFile)(file, [...args, url], { env: { PATH }, maxBuffer: 2 ** 24 })
  return JSON.parse(stdout) as Record<string, Converted>
}

/** A schema without what OpenAI's SDK adds to optional properties. */
function required ({ anyOf: [schema, ...more] = [], ...rest }: Schema): Schema {
  return schema && more.every(({ type }) => type === 'null') ? schema : rest
}

function check (t: Test, converted: Converted, mode: 'strict for all' | 'strict with optional inputs' | 'not strict') {
  t.strictSame(converted.map(([name]) => name).sort(), published.map(({ name }) => name))
  for (const { name, properties } of published) {
    const [, schema, strict] = converted.find(([converted]) => converted === name) ?? []
    const names = Object.keys(properties)
    t.match(schema?.type, /^object$/i, name)
    t.strictSame(Object.keys(schema?.properties ?? {}), names, `${name} has all inputs`)
    for (const [input, { type = '', description = '', items }] of Object.entries(properties)) {
      const found = required(schema?.properties?.[input] ?? {})
      t.equal(found.type?.toLowerCase(), type, `${name} ${input}: ${type}`)
      t.match(found.description, description)
      t.equal(found.items?.type?.toLowerCase(), items?.type)
    }
    if (mode === 'not strict') continue
    t.equal(strict ?? true, true, `${name} is strict`)
    t.equal(schema?.additionalProperties, false)
    if (mode === 'strict for all') t.strictSame(schema?.required, names)
  }
}

t.test('SDKs from npm', needsSdks(nodeSdks), async t => {
  const dir = temporaryFolder(t)
  copyFileSync(converter('convert.mjs'), join(dir, 'convert.mjs'))
  symlinkSync(join(nodeSdks, 'node_modules'), join(dir, 'node_modules'))
  const converted = await convert(process.execPath, join(dir, 'convert.mjs'))
  for (const [sdk, mode] of [
    ['@ai-sdk/google', 'not strict'],
    ['@google/adk', 'not strict'],
    ['@openai/agents', 'strict for all'],
    ['openai', 'strict for all'],
    ['@anthropic-ai/sdk', 'strict with optional inputs'],
  ] as const) {
    t.test(sdk, async t => check(t, converted[sdk] ?? [], mode))
  }
})

t.test('SDKs from PyPI', needsSdks(pythonSdks), async t => {
  const converted = await convert(join(pythonSdks, 'bin/python'), converter('convert.py'))
  for (const [sdk, mode] of [
    ['google-genai', 'not strict'],
    ['openai-agents', 'strict for all'],
    ['langchain', 'strict for all'],
  ] as const) {
    t.test(sdk, async t => check(t, converted[sdk] ?? [], mode))
  }
})
