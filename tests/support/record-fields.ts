/** The fields of audit records, as their JSON Schema defines them. */
/** The part of a schema that says where its members are. */
interface Schema extends Record<string, unknown> {
  $ref?: string
  $defs?: Record<string, Schema>
  properties?: Record<string, Schema>
  oneOf?: Schema[]
  anyOf?: Schema[]
}

/** What replaces a value that is too large has no fields of its own. */
const DIGEST = '#/$defs/digest'

/** The paths of all members that have no members themselves, such as `who.subject`, sorted. */
export function fieldsOf (schema: Schema): string[] {
  const under = (node: Schema, path: string): string[] => {
    const { $ref, properties, oneOf = [], anyOf = [] } = node
    if ($ref === DIGEST) return []
    if ($ref !== undefined) return under(schema.$defs?.[$ref.slice('#/$defs/'.length)] ?? {}, path)
    const found = [
      ...Object.entries(properties ?? {}).flatMap(([name, member]) => under(member, `${path && `${path}.`}${name}`)),
      ...[...oneOf, ...anyOf].flatMap(alternative => under(alternative, path)),
    ]
    return found.length > 0 || path === '' ? found : [path]
  }
  const paths = [...new Set(under(schema, ''))].sort()
  return paths.filter(path => !paths.some(other => other.startsWith(`${path}.`)))
}
