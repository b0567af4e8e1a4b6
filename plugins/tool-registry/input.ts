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

/** A schema that accepts no other properties than it has, at any depth. What is published does not say so. */
export function closed<T extends TSchema> (schema: T): T {
  if (!hasProperties(schema)) return schema
  const properties = Object.entries(schema.properties).map(([name, property]) => [name, closed(property)])
  return { additionalProperties: false, ...schema, properties: Object.fromEntries(properties) }
}

/**
 * Returns the input as the tool's schema accepts it. What models and clients add to it does no harm:
 *
 * - An optional property that is `null`, an empty text, an empty list or an object of these counts as absent: some
 *   models fill in every property.
 * - JSON text counts as the list, object or number that it contains, where the schema requires one.
 * - Properties that clients add to any tool are ignored. Any other property that is not in the schema is a mistake,
 *   because a misspelled filter would otherwise return everything.
 * @param validate for the {@link closed} schema
 * @throws {InvalidArgument} describing the mistakes
 */
export function validInput ({ input: schema }: Tool, validate: ValidateFunction, input: unknown = {}): Input {
  const given = isObject(input) ? withoutClients(schema, asMeant(schema, input)) : input
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

/** Whether a value says nothing. An object where something else belongs is a mistake. */
function isEmpty (value: unknown, schema: TSchema): boolean {
  return value === '' || (Array.isArray(value) && value.length === 0) || (
    isObject(value) && hasProperties(schema) && Object.entries(value).every(([name, member]) =>
      member === null || isEmpty(member, schema.properties[name] ?? {} as TSchema))
  )
}

function hasProperties (schema: TSchema): schema is TObject {
  return isObject(schema['properties'])
}

/**
 * The properties that say something, each with the value that its schema requires, as far as it contains one.
 * @throws {InvalidArgument} if there are too many to examine
 */
function asMeant ({ properties, required = [] }: TObject, input: Input): Input {
  const count = Object.keys(input).length
  if (count > MAX_PROPERTIES) {
    throw new InvalidArgument(`the input has ${count} properties, of which this tool has ` +
      `${Object.keys(properties).length}`)
  }
  return Object.fromEntries(Object.entries(input).flatMap(([name, given]) => {
    const schema = Object.hasOwn(properties, name) ? properties[name] : undefined
    if (!schema) return [[name, given]]
    const text = typeof given === 'string' ? parsed(schema, given) : given
    const isAbsent = text === null || (isEmpty(text, schema) && !required.includes(name))
    if (isAbsent) return []
    return [[name, isObject(text) && hasProperties(schema) ? asMeant(schema, text) : text]]
  }))
}

function withoutClients ({ properties }: TObject, input: Input): Input {
  return Object.fromEntries(
    Object.entries(input).filter(([name]) => Object.hasOwn(properties, name) || !isOfClient(name))
  )
}

/** The list, object or number in a JSON text, if the schema accepts that. A list that is too long is one too long. */
function parsed ({ type, maxItems = Infinity }: TSchema, text: string): unknown {
  const types = [type].flat()
  const [list, object, number] = ['array', 'object', 'integer'].map(type => types.includes(type))
  const value = list || object || number ? parseJson(text) : text
  if (list && Array.isArray(value)) return value.slice(0, maxItems + 1)
  if (object && isObject(value)) return value
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

/** The required properties, and the items of lists, that are given but empty, at any depth. */
function emptyIn ({ properties, required = [] }: TObject, input: Input, above = ''): string[] {
  return Object.entries(properties).filter(([name]) => Object.hasOwn(input, name)).flatMap(([name, schema]) => {
    const value = input[name]
    const path = above + name
    if (isEmpty(value, schema) && required.includes(name)) return [`${quote(path)} is required and must not be empty`]
    if (isObject(value) && hasProperties(schema)) return emptyIn(schema, value, `${path}.`)
    return Array.isArray(value)
      ? value.flatMap((item, index) => item === '' ? [`${quote(`${path}.${index}`)} must not be empty`] : [])
      : []
  })
}

function describe ({ instancePath, keyword, message, params }: ErrorObject, schema: TObject, input: unknown): string {
  if (!isObject(input)) return `the input ${message}`
  const names = instancePath.split('/').slice(1)
  const path = names.join('.')
  const within = names.length === 0 ? '' : `${path}.`
  if (keyword === 'additionalProperties') {
    const of = names.reduce<TSchema>((of, name) => of['properties'][name], schema) as TObject
    return describeUnknown(params.additionalProperty, of, valueAt(input, names) as Input, within)
  }
  if (keyword === 'required') return `${quote(within + params.missingProperty)} is required`
  return `${quote(path)} ${describeValue(keyword, params.type, valueAt(input, names)) ?? message}`
}

function valueAt (input: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((value, name) => (value as Input)[name], input)
}

function describeUnknown (name: string, { properties }: TObject, input: Input, within: string): string {
  const unknown = `${quote(within + name.slice(0, 64))} is not an input of this tool`
  const known = lookalike(name, properties)
  return known === undefined || Object.hasOwn(input, known) ? unknown : `${unknown}, but ${quote(within + known)} is`
}

function describeValue (keyword: string, type: unknown, value: unknown): string | undefined {
  if (keyword === 'type' && Array.isArray(type)) return `must be ${type.join(' or ')}`
  if (typeof value !== 'string') return undefined
  if (type === 'array' || type === 'object') return `must be a JSON ${type}, not a string`
  // Only integers in text have a pattern.
  return keyword === 'pattern' ? 'must be integer' : undefined
}
