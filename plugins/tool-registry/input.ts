/** Reads the input of a tool as its caller means it, validates it against the schema, and describes the mistakes. */
import type { TObject } from '@sinclair/typebox'
import type { ErrorObject, ValidateFunction } from 'ajv'
import { InvalidArgument } from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import type { Tool } from '../../tools/tool.ts'

/** Mistakes beyond this are only counted, because a small input can contain thousands. */
const MAX_MISTAKES = 20

type Input = Record<string, unknown>

/**
 * Returns the input as the tool's schema accepts it. Some models fill in every property, so an optional one that is
 * `null`, an empty text or an empty list counts as absent.
 * @throws {InvalidArgument} describing the mistakes
 */
export function validInput (tool: Tool, validate: ValidateFunction, input: unknown = {}): Input {
  const given = isObject(input) ? withoutEmpty(tool.input, input) : input
  const mistakes = validate(given) ? [] : validate.errors ?? []
  const empty = isObject(given) ? emptyIn(tool.input, given) : []
  if (mistakes.length + empty.length > 0) throw new InvalidArgument(listed([...empty, ...mistakes.map(describe)]))
  return given as Input
}

function isObject (value: unknown): value is Input {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isEmpty (value: unknown): boolean {
  return value === '' || (Array.isArray(value) && value.length === 0)
}

function withoutEmpty ({ properties, required = [] }: TObject, input: Input): Input {
  return Object.fromEntries(Object.entries(input).filter(([name, value]) =>
    !Object.hasOwn(properties, name) || !(value === null || (isEmpty(value) && !required.includes(name)))))
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

function listed (mistakes: string[]): string {
  const more = mistakes.length - MAX_MISTAKES
  return mistakes.slice(0, MAX_MISTAKES).join('; ') + (more > 0 ? `; and ${more} more` : '')
}

function describe ({ instancePath, keyword, message = 'is not valid', params }: ErrorObject): string {
  const path = instancePath.slice(1).replaceAll('/', '.')
  if (keyword === 'additionalProperties') {
    return `${quote(params.additionalProperty.slice(0, 64))} is not an input of this tool`
  }
  if (keyword === 'required') return `${quote(params.missingProperty)} is required`
  return `${path === '' ? 'the input' : quote(path)} ${message}`
}
