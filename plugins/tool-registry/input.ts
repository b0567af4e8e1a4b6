/** Validates the input of a tool against its schema and describes the mistakes. */
import type { ErrorObject, ValidateFunction } from 'ajv'
import { InvalidArgument } from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import type { Tool } from '../../tools/tool.ts'

/** Mistakes beyond this are only counted, because a small input can contain thousands. */
const MAX_MISTAKES = 20

/**
 * Returns the input as the tool's schema accepts it. A property that is `null` counts as absent.
 * @throws {InvalidArgument} describing the mistakes
 */
export function validInput (tool: Tool, validate: ValidateFunction, input: unknown = {}): Record<string, unknown> {
  const given = typeof input === 'object' && input !== null && !Array.isArray(input)
    ? Object.fromEntries(
      Object.entries(input).filter(([name, value]) => value !== null || !Object.hasOwn(tool.input.properties, name))
    )
    : input
  if (!validate(given)) throw new InvalidArgument(describeAll(validate.errors ?? []))
  return given as Record<string, unknown>
}

function describeAll (errors: ErrorObject[]): string {
  const more = errors.length - MAX_MISTAKES
  return errors.slice(0, MAX_MISTAKES).map(describe).join('; ') + (more > 0 ? `; and ${more} more` : '')
}

function describe ({ instancePath, keyword, message = 'is not valid', params }: ErrorObject): string {
  const path = instancePath.slice(1).replaceAll('/', '.')
  if (keyword === 'additionalProperties') {
    return `${quote(params.additionalProperty.slice(0, 64))} is not an input of this tool`
  }
  if (keyword === 'required') return `${quote(params.missingProperty)} is required`
  return `${path === '' ? 'the input' : quote(path)} ${message}`
}
