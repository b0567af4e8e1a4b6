/** Reads the input of a tool as its caller means it, validates it against the schema, and describes the mistakes. */
import type { TObject, TSchema } from '@sinclair/typebox'
import type { ErrorObject, ValidateFunction } from 'ajv'
import { InvalidArgument } from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import type { Tool } from '../../tools/tool.ts'
import { isOfClient, lookalike } from './property-names.ts'

/** Mistakes beyond this are only counted, because a small input can contain thousands. */
const MAX_MISTAKES = 20
/** Far more than a tool has, with those that clients add. */
const MAX_PROPERTIES = 100

type Input = Record<string, unknown>

/**
 * Returns the input as the tool's schema accepts it. What models and clients add to it does no harm:
 *
 * - An optional property that is `null`, an empty text or an empty list counts as absent: some models fill in every
 *   property.
 * - JSON text counts as the list or number that it contains, where the schema requires one.
 * - Properties that clients add to any tool are ignored. Any other property that is not in the schema is a mistake,
 *   because a misspelled filter would otherwise return everything.
 * @throws {InvalidArgument} describing the mistakes
 */
export function validInput ({ input: schema }: Tool, validate: ValidateFunction, input: unknown = {}): Input {
  const properties = isObject(input) ? Object.keys(input).length : 0
  if (properties > MAX_PROPERTIES) {
    throw new InvalidArgument(`the input has ${properties} properties, of which this tool has ` +
      `${Object.keys(schema.properties).length}`)
  }
  const given = isObject(input) ? asMeant(schema, input) : input
  const errors = validate(given) ? [] : validate.errors ?? []
  const empty = isObject(given) ? emptyIn(schema, given) : []
  const count = empty.length + errors.length
  if (count === 0) return given as Input
  const mistakes = [...empty, ...errors.slice(0, MAX_MISTAKES).map(error => describe(error, schema, given))]
  const more = count > MAX_MISTAKES ? `; and ${count - MAX_MISTAKES} more` : ''
  throw new InvalidArgument(mistakes.slice(0, MAX_MISTAKES).join('; ') + more)
}

function isObject (value: unknown): value is Input {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isEmpty (value: unknown): boolean {
  return value === '' || (Array.isArray(value) && value.length === 0)
}

/** The properties that say something, each with the value that its schema requires, as far as it contains one. */
function asMeant ({ properties, required = [] }: TObject, input: Input): Input {
  return Object.fromEntries(Object.entries(input).flatMap(([name, given]) => {
    const schema = Object.hasOwn(properties, name) ? properties[name] : undefined
    if (!schema) return isOfClient(name) ? [] : [[name, given]]
    const value = typeof given === 'string' ? parsed(schema, given) : given
    const isAbsent = value === null || (isEmpty(value) && !required.includes(name))
    return isAbsent ? [] : [[name, value]]
  }))
}

/** The list or number in a JSON text, if the schema accepts that. A list that is too long is one item too long. */
function parsed ({ type, maxItems = Infinity }: TSchema, text: string): unknown {
  const types = [type].flat()
  const [list, number] = [types.includes('array'), types.includes('integer')]
  const value = list || number ? parseJson(text) : text
  if (list && Array.isArray(value)) return value.slice(0, maxItems + 1)
  // Where the schema also accepts text, that stays, as does an integer that JavaScript cannot represent.
  if (types.includes('string')) return Number.isSafeInteger(value) ? value : text
  return value === null || (number && typeof value === 'number') ? value : text
}

function parseJson (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** The required properties, and the items of lists, that are given but empty. */
function emptyIn ({ properties, required = [] }: TObject, input: Input): string[] {
  return Object.keys(properties).filter(name => Object.hasOwn(input, name)).flatMap(name => {
    const value = input[name]
    if (isEmpty(value) && required.includes(name)) return [`${quote(name)} is required and must not be empty`]
    return Array.isArray(value)
      ? value.flatMap((item, index) => item === '' ? [`${quote(`${name}.${index}`)} must not be empty`] : [])
      : []
  })
}

function describe ({ instancePath, keyword, message, params }: ErrorObject, schema: TObject, input: unknown): string {
  if (!isObject(input)) return `the input ${message}`
  if (keyword === 'additionalProperties') return describeUnknown(params.additionalProperty, schema, input)
  if (keyword === 'required') return `${quote(params.missingProperty)} is required`
  const path = instancePath.slice(1).replaceAll('/', '.')
  return `${quote(path)} ${describeValue(keyword, params.type, input[path]) ?? message}`
}

function describeUnknown (name: string, { properties }: TObject, input: Input): string {
  const unknown = `${quote(name.slice(0, 64))} is not an input of this tool`
  const known = lookalike(name, properties)
  return known === undefined || Object.hasOwn(input, known) ? unknown : `${unknown}, but ${quote(known)} is`
}

function describeValue (keyword: string, type: unknown, value: unknown): string | undefined {
  if (keyword === 'type' && Array.isArray(type)) return `must be ${type.join(' or ')}`
  if (typeof value !== 'string') return undefined
  if (type === 'array') return 'must be a JSON array, not a string'
  // Only integers in text have a pattern.
  return keyword === 'pattern' ? 'must be integer' : undefined
}
