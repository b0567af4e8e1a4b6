import { type Static, Type } from '@sinclair/typebox'
import { Ajv, type ErrorObject } from 'ajv'
import { type Document, isNode, LineCounter, parseDocument, visit } from 'yaml'
import { PolicyError } from '../../errors.ts'
import { escapeUnprintable, quote } from '../../lib/printable.ts'

/** A character that can be seen, or a space. */
const PRINTABLE = '(?:(?![\\p{Default_Ignorable_Code_Point}\\u2800])[\\p{L}\\p{M}\\p{N}\\p{P}\\p{S} ])'
const printable = { pattern: `^${PRINTABLE}*$` }
/** Ajv checks only the values of keys that match. `.` does not match a line break. */
const roleName = Type.String({ pattern: `^${PRINTABLE}{1,256}$` })

const glob = Type.String({ ...printable, minLength: 1, maxLength: 256 })
const globs = Type.Optional(Type.Array(glob))

/** What a rule covers. An absent list means everything, but a deny rule with `topics` or `groups` covers only those. */
const RuleSchema = Type.Object({
  operations: Type.Optional(Type.Array(Type.Unsafe<'observe' | 'mutate'>({ enum: ['observe', 'mutate'] }))),
  tools: Type.Optional(Type.Array(Type.String(printable))),
  topics: globs,
  groups: globs,
  environments: globs,
}, { additionalProperties: false, minProperties: 1 })

const PolicySchema = Type.Object({
  roles: Type.Optional(Type.Record(roleName, Type.Object({
    allow: Type.Optional(Type.Array(RuleSchema)),
    deny: Type.Optional(Type.Array(RuleSchema)),
  }, { additionalProperties: false }), { additionalProperties: false })),
  bindings: Type.Array(Type.Object({
    role: Type.String(printable),
    /** The name of a claim or a dotted path to it. */
    claim: Type.String({ ...printable, minLength: 1 }),
    value: Type.Unsafe<string | boolean>({ type: ['string', 'boolean'], ...printable }),
    /** Limits the binding to tokens of this issuer. */
    issuer: Type.Optional(Type.String(printable)),
  }, { additionalProperties: false })),
}, { additionalProperties: false })

export type Rule = Static<typeof RuleSchema>
export interface Role { allow: readonly Rule[], deny: readonly Rule[] }
export type Binding = Static<typeof PolicySchema>['bindings'][number]

export interface Policy {
  roles: ReadonlyMap<string, Role>
  /** `null` without a policy file: every token with the scope is an observer. */
  bindings: readonly Binding[] | null
}

/** Roles that every policy contains. `auditor` may read the audit stream, but call no tool. */
const PREDEFINED: ReadonlyMap<string, Role> = new Map([
  ['observer', { allow: [{ operations: ['observe'] }], deny: [] }],
  ['auditor', { allow: [], deny: [] }],
])

/** In effect without a policy file. Nobody may mutate. */
export const NO_POLICY: Policy = { roles: PREDEFINED, bindings: null }

const validate = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(PolicySchema)

/** Only what JSON has too: a set, a merge key or a key that is not a string would hide keys from the schema. */
const AS_JSON = { schema: 'core', merge: false, resolveKnownTags: false, stringKeys: true } as const

/**
 * Parses a policy in YAML or JSON.
 * @param tools the names of tools that rules may contain
 * @throws {PolicyError} listing every mistake with its line
 */
export function parsePolicy (text: string, tools: readonly string[]): Policy {
  const lines = new LineCounter()
  const document = parseDocument(text, { ...AS_JSON, lineCounter: lines, uniqueKeys: true, prettyErrors: false })
  const at = (path: readonly (string | number)[]): number => {
    for (let depth = path.length; depth > 0; depth--) {
      const node = document.getIn(path.slice(0, depth), true)
      if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
    }
    return 1
  }
  const mistakes = [
    ...[...document.errors, ...document.warnings].map(({ pos: [offset], message }) => ({ offset, message })),
    ...unknownAliases(document),
  ].map(({ offset, message }) => ({ line: lines.linePos(offset).line, message }))
  const content: unknown = mistakes.length > 0 ? undefined : contentOf(document)
  if (mistakes.length === 0 && !validate(content)) {
    for (const error of validate.errors ?? []) {
      const path = error.instancePath.split('/').slice(1).map(part => part.replaceAll('~1', '/').replaceAll('~0', '~'))
      mistakes.push({ line: at(path), message: `${path.join('.') || 'the policy'} ${expected(error)}` })
    }
  }
  if (mistakes.length === 0) mistakes.push(...unknownNames(content as Static<typeof PolicySchema>, tools, at))
  if (mistakes.length > 0) {
    throw new PolicyError(
      mistakes.sort((a, b) => a.line - b.line)
        .map(({ line, message }) => escapeUnprintable(`line ${line}: ${message}`)).join('\n')
    )
  }
  const { roles = {}, bindings } = content as Static<typeof PolicySchema>
  const own = Object.entries(roles).map(([name, { allow = [], deny = [] }]): [string, Role] => [name, { allow, deny }])
  return { roles: new Map([...PREDEFINED, ...own]), bindings }
}

/** What the schema expects, with the name of the property that it is about. */
function expected ({ keyword, instancePath, message = '', params }: ErrorObject): string {
  if (keyword === 'pattern') return 'must consist of printable characters'
  if (keyword === 'type' && Array.isArray(params['type'])) return `must be ${params['type'].join(' or ')}`
  if (keyword === 'additionalProperties' && instancePath === '/roles') {
    return `must have names of 1 to 256 printable characters: ${quote(params['additionalProperty'])} is not one`
  }
  const name: unknown = params['additionalProperty'] ?? params['missingProperty']
  return name === undefined ? message : `${message} (${String(name)})`
}

/** The document as a value; `undefined`, which is not a valid policy, when aliases expand too far. */
function contentOf (document: Document.Parsed): unknown {
  try {
    return document.toJS()
  } catch {
    return undefined
  }
}

function unknownAliases (document: Document.Parsed): { offset: number, message: string }[] {
  const mistakes: { offset: number, message: string }[] = []
  visit(document, {
    Alias (_, alias) {
      if (!alias.resolve(document)) {
        mistakes.push({ offset: alias.range?.[0] ?? 0, message: `there is no anchor ${alias.source}` })
      }
    },
  })
  return mistakes
}

function unknownNames (
  { roles = {}, bindings }: Static<typeof PolicySchema>,
  tools: readonly string[],
  at: (path: (string | number)[]) => number
) {
  const mistakes: { line: number, message: string }[] = []
  for (const [name, role] of Object.entries(roles)) {
    if (PREDEFINED.has(name)) {
      mistakes.push({ line: at(['roles', name]), message: `the role ${name} is predefined: choose another name` })
    }
    for (const kind of ['allow', 'deny'] as const) {
      for (const [index, rule] of role[kind]?.entries() ?? []) {
        for (const [position, tool] of rule.tools?.entries() ?? []) {
          if (!tools.includes(tool)) {
            mistakes.push({
              line: at(['roles', name, kind, index, 'tools', position]),
              message: `there is no tool ${tool}`,
            })
          }
        }
      }
    }
  }
  for (const [index, { role }] of bindings.entries()) {
    if (!PREDEFINED.has(role) && !Object.hasOwn(roles, role)) {
      mistakes.push({ line: at(['bindings', index, 'role']), message: `there is no role ${role}` })
    }
  }
  return mistakes
}
