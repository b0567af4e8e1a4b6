import { type Static, Type } from '@sinclair/typebox'
import { Ajv, type ErrorObject } from 'ajv'
import { type Document, isAlias, isMap, isNode, isScalar, LineCounter, parseDocument, visit } from 'yaml'
import { PolicyError } from '../../errors.ts'
import { matcher } from '../../kafscale/glob.ts'
import { escapeUnprintable, quote } from '../../lib/printable.ts'
import { CHANGE_TOOLS, type ChangeTool, TOOLS_OF_CHANGES } from '../changes/change.ts'

/** A character that can be seen, or a space. */
const PRINTABLE = '(?:(?![\\p{Default_Ignorable_Code_Point}\\u2800])[\\p{L}\\p{M}\\p{N}\\p{P}\\p{S} ])'
const printable = { pattern: `^${PRINTABLE}*$` }
/** Ajv checks only the values of keys that match. `.` does not match a line break. */
const roleName = Type.String({ pattern: `^${PRINTABLE}{1,256}$` })

const glob = Type.String({ ...printable, minLength: 1, maxLength: 256 })
const globs = Type.Optional(Type.Array(glob))

function oneOf<const T extends string> (values: readonly T[]) {
  return Type.Unsafe<T>({ enum: values })
}

/** What somebody does through a tool, or with a change. */
export type PolicyOperation = typeof OPERATIONS[number]
const OPERATIONS = ['observe', 'propose', 'apply', 'approve', 'break-glass'] as const

/** How `mutate`, which older policies contain, is read. */
const MUTATE: readonly PolicyOperation[] = ['propose', 'apply']

/** What a rule covers. `decide.ts` says what an absent list means. */
const RuleSchema = Type.Object({
  operations: Type.Optional(Type.Array(oneOf([...OPERATIONS, 'mutate']))),
  tools: Type.Optional(Type.Array(Type.String(printable))),
  topics: globs,
  groups: globs,
  /** Node ids. */
  brokers: globs,
  environments: globs,
}, { additionalProperties: false, minProperties: 1 })

const MODES = ['direct', 'approval', 'closed'] as const

/** An entry of `changes`: what it takes to apply a change, and in which environments. An absent list means all. */
const ChangeRuleSchema = Type.Object({
  environments: globs,
  tools: Type.Optional(Type.Array(Type.String(printable))),
  mode: oneOf(MODES),
  approvals: Type.Optional(Type.Integer({ minimum: 1, maximum: 10 })),
}, { additionalProperties: false })

/** The value of `changes` that stops them all. */
const CLOSED = 'closed'

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
  changes: Type.Optional(Type.Unsafe<ChangeRule[] | typeof CLOSED>({
    type: ['array', 'string'], items: ChangeRuleSchema, pattern: `^${CLOSED}$`,
  })),
  /** What nobody may change. */
  protected: Type.Optional(Type.Object({ topics: globs, groups: globs }, { additionalProperties: false })),
}, { additionalProperties: false })

type Content = Static<typeof PolicySchema>
type ChangeRule = Static<typeof ChangeRuleSchema>

export type Rule = Omit<Static<typeof RuleSchema>, 'operations'> & { operations?: readonly PolicyOperation[] }
export interface Role { allow: readonly Rule[], deny: readonly Rule[] }
export type Binding = Static<typeof PolicySchema>['bindings'][number]

export interface Policy {
  roles: ReadonlyMap<string, Role>
  /** `null` without a policy file: every token with the scope is an observer. */
  bindings: readonly Binding[] | null
  /** `closed` stops all changes. */
  changes: readonly ChangeRule[] | typeof CLOSED
  protected: { topics: readonly string[], groups: readonly string[] }
}

const NOTHING_PROTECTED = { topics: [], groups: [] }

/** Roles that every policy contains. `auditor` may read the audit stream, but call no tool. */
const PREDEFINED: ReadonlyMap<string, Role> = new Map([
  ['observer', { allow: [{ operations: ['observe'] }], deny: [] }],
  ['auditor', { allow: [], deny: [] }],
])

/** In effect without a policy file. Nobody may propose or apply a change. */
export const NO_POLICY: Policy = { roles: PREDEFINED, bindings: null, changes: [], protected: NOTHING_PROTECTED }

const validate = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(PolicySchema)

/** Only what JSON has too: a set, a merge key or a key that is not a string would hide keys from the schema. */
const AS_JSON = { schema: 'core', merge: false, resolveKnownTags: false, stringKeys: true } as const

/**
 * Parses a policy in YAML or JSON.
 * @param tools the names of tools that rules may contain, besides those of changes
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
  if (mistakes.length === 0) {
    mistakes.push(...unknownNames(content as Content, tools, at), ...mistakesInChanges(content as Content, at))
  }
  if (mistakes.length > 0) {
    throw new PolicyError(
      mistakes.sort((a, b) => a.line - b.line)
        .map(({ line, message }) => escapeUnprintable(`line ${line}: ${message}`)).join('\n')
    )
  }
  const { roles = {}, bindings, changes = [], protected: guarded } = content as Content
  const own = Object.entries(roles).map(([name, { allow = [], deny = [] }]): [string, Role] =>
    [name, { allow: allow.map(asRule), deny: deny.map(asRule) }])
  return {
    roles: new Map([...PREDEFINED, ...own]), bindings, changes, protected: { ...NOTHING_PROTECTED, ...guarded },
  }
}

/**
 * Whether a text says `changes: closed`, even if it is no valid policy: an emergency stop must not fail because of a
 * mistake elsewhere in the file, such as another `changes` above it.
 */
export function saysClosed (text: string): boolean {
  const document = parseDocument(text, { ...AS_JSON, uniqueKeys: false, prettyErrors: false })
  const { contents } = document
  return isMap(contents) && contents.items.some(({ key, value }) => {
    const said = isAlias(value) ? value.resolve(document) : value
    return isScalar(key) && key.value === 'changes' && isScalar(said) && said.value === CLOSED
  })
}

function asRule ({ operations, ...rest }: Static<typeof RuleSchema>): Rule {
  if (operations === undefined) return rest
  return { ...rest, operations: [...new Set(operations.flatMap(each => each === 'mutate' ? MUTATE : [each]))] }
}

/** What it takes to apply a change. `rule` names the entry of `changes` that says so. */
export interface Requirement { mode: typeof MODES[number], approvals: number, rule: string }

/** The environment of a service that does not name one. */
const UNNAMED = 'default'

/** Whether an environment has no name. No entry of `changes`, and no rule for a change, can name it. */
export function isUnnamed (environment: string | null): boolean {
  return environment === null || environment === UNNAMED
}

/**
 * What the first matching entry of `changes` requires; as in production if none matches. Where the environment is not
 * named, an entry can only require more than that: a setting that somebody forgot must not open anything.
 */
export function requirementOf ({ changes }: Policy, tool: ChangeTool, environment: string | null): Requirement {
  if (changes === CLOSED) return { mode: 'closed', approvals: 0, rule: 'changes' }
  const standard = standardRequirement(tool)
  const name = environment ?? UNNAMED
  const index = changes.findIndex(({ tools, environments }) => (tools?.includes(tool) ?? true) &&
    (environments?.some(glob => matcher(glob)(name)) ?? true))
  const entry = changes[index]
  if (entry === undefined) return standard
  const { mode, approvals = 1 } = entry
  const found = { mode, approvals: mode === 'approval' ? approvals : 0, rule: `changes[${index}]` }
  return isUnnamed(name) && strictness(found) < strictness(standard) ? standard : found
}

/** What production requires. */
function standardRequirement (tool: ChangeTool): Requirement {
  const rule = 'changes.default'
  return tool === 'delete_topic' ? { mode: 'closed', approvals: 0, rule } : { mode: 'approval', approvals: 1, rule }
}

function strictness ({ mode, approvals }: Requirement): number {
  return mode === 'closed' ? Infinity : approvals
}

/** The entries of `changes` that have no effect, because an earlier one matches whatever they match. */
export function ineffectiveEntries ({ changes }: Policy): string[] {
  if (changes === CLOSED) return []
  const covers = (earlier: ChangeRule, { tools, environments = ['*'] }: ChangeRule) =>
    (tools ?? CHANGE_TOOLS).every(tool => earlier.tools?.includes(tool) ?? true) &&
    environments.every(glob => earlier.environments?.some(each => each === '*' || each === glob) ?? true)
  return changes.flatMap((entry, index) =>
    changes.slice(0, index).some(earlier => covers(earlier, entry)) ? [`changes[${index}]`] : [])
}

/** Whether any of these changes needs an approval in an environment. */
export function needsApproval (
  policy: Policy,
  environment: string | null,
  tools: readonly ChangeTool[] = CHANGE_TOOLS
): boolean {
  return tools.some(tool => requirementOf(policy, tool, environment).mode === 'approval')
}

/** Whether a tool proposes a change, or carries one further. */
function isStep (tool: string): boolean {
  return isChangeTool(tool) || tool === 'apply_change' || tool === 'cancel_change'
}

export function isChangeTool (tool: string): tool is ChangeTool {
  return (CHANGE_TOOLS as readonly string[]).includes(tool)
}

/** What the schema expects, with the name of the property that it is about. */
function expected ({ keyword, instancePath, message = '', params }: ErrorObject): string {
  if (instancePath === '/changes') return `must be a list, or the word ${CLOSED}`
  if (keyword === 'pattern') return 'must consist of printable characters'
  if (keyword === 'enum') return `must be one of ${params['allowedValues'].join(', ')}`
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

type LineAt = (path: (string | number)[]) => number

function unknownNames ({ roles = {}, bindings }: Content, tools: readonly string[], at: LineAt) {
  const mistakes: { line: number, message: string }[] = []
  for (const [name, role] of Object.entries(roles)) {
    if (PREDEFINED.has(name)) {
      mistakes.push({ line: at(['roles', name]), message: `the role ${name} is predefined: choose another name` })
    }
    for (const kind of ['allow', 'deny'] as const) {
      for (const [index, rule] of role[kind]?.entries() ?? []) {
        for (const [position, tool] of rule.tools?.entries() ?? []) {
          const line = at(['roles', name, kind, index, 'tools', position])
          if (!tools.includes(tool) && !TOOLS_OF_CHANGES.includes(tool)) {
            mistakes.push({ line, message: `there is no tool ${tool}` })
          } else if (kind === 'allow' && isStep(tool) && !rule.operations?.some(each => each !== 'observe')) {
            mistakes.push({
              line,
              message: `the rule names ${tool}, but allows nothing of it: add operations, such as [propose, apply]`,
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

function mistakesInChanges ({ changes = [] }: Content, at: LineAt) {
  const mistakes: { line: number, message: string }[] = []
  if (changes === CLOSED) return mistakes
  for (const [index, { environments = [], tools = [], mode, approvals }] of changes.entries()) {
    for (const [position, tool] of tools.entries()) {
      if (isChangeTool(tool)) continue
      mistakes.push({
        line: at(['changes', index, 'tools', position]),
        message: `${tool} is not a change: expected ${CHANGE_TOOLS.join(', ')}`,
      })
    }
    if (environments.includes(UNNAMED) && mode !== CLOSED) {
      mistakes.push({
        line: at(['changes', index, 'environments', environments.indexOf(UNNAMED)]),
        message: `${UNNAMED} is the environment of a service that does not set KAFSCALE_MCP_ENVIRONMENT: name another`,
      })
    }
    if (approvals !== undefined && mode !== 'approval') {
      mistakes.push({
        line: at(['changes', index, 'approvals']),
        message: `changes.${index} has approvals, but its mode is ${mode}: expected mode approval, or no approvals`,
      })
    }
  }
  return mistakes
}
