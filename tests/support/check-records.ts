/**
 * Importing this module compares every line that a sink of this process is about to write with the schema of records. A
 * line that does not match ends the process, and so fails the test.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020, type AnySchemaObject } from 'ajv/dist/2020.js'
import { Draft } from '../../plugins/audit/sinks/draft.ts'
import { ROOT } from './paths.ts'

export const SCHEMA_FILE = join(ROOT, 'schemas/audit-record.json')

/** In the environment of a process that runs the service from its source, this checks its records too. */
export const CHECKED = { NODE_OPTIONS: `--import=${import.meta.url}` }

/**
 * What is wrong with a record. The published schema lets later versions add members; this version has no others.
 * @returns an empty string when nothing is
 */
export function mistakesIn (record: unknown): string {
  const event = (record as { event?: unknown } | null)?.event
  const name = typeof event === 'string' && event in definitions && event !== 'event_record' ? event : 'event_record'
  const validate = ajv.getSchema(`${schema['$id']}#/$defs/${name}`)
  if (!validate) throw new Error(`no definition ${name} in ${SCHEMA_FILE}`)
  return validate(record) ? '' : ajv.errorsText(validate.errors, { dataVar: name })
}

function closed (schema: unknown): unknown {
  if (typeof schema !== 'object' || schema === null) return schema
  if (Array.isArray(schema)) return schema.map(closed)
  const entries = Object.entries(schema).map(([key, member]) => [key, closed(member)] as const)
  return { ...Object.fromEntries(entries), ...'required' in schema && { additionalProperties: false } }
}

const schema = closed(JSON.parse(readFileSync(SCHEMA_FILE, 'utf8'))) as AnySchemaObject
const definitions: object = schema['$defs']
const ajv = new Ajv2020({ allErrors: true, allowUnionTypes: true })
ajv.addSchema(schema)

const text = Object.getOwnPropertyDescriptor(Draft.prototype, 'text')?.get
if (!text) throw new Error('a draft of records has no text')
Object.defineProperty(Draft.prototype, 'text', {
  configurable: true,
  get (this: Draft): string {
    const lines: string = text.call(this)
    for (const line of lines.split('\n').slice(0, -1)) {
      const mistakes = mistakesIn(JSON.parse(line))
      // A sink survives what a medium throws, so this is thrown where nothing catches it.
      if (mistakes !== '') setImmediate(() => { throw new Error(`schemas/audit-record.json: ${mistakes}: ${line}`) })
    }
    return lines
  },
})
