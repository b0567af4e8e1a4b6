/** The tables in docs/audit.md that map a record to ECS and OCSF: what they name is what the schema of records has. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { SCHEMA_FILE } from './support/check-records.ts'
import { readPage } from './support/pages.ts'
import { fieldsOf } from './support/record-fields.ts'

const page = readPage('audit.md')
const names = (cell = '') => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)
const schema = JSON.parse(readFileSync(SCHEMA_FILE, 'utf8'))

t.test('the fields of a schema are its members by their path, whichever alternative has them', async t => {
  const fields = fieldsOf({
    oneOf: [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/b' }],
    $defs: {
      a: { properties: { both: { type: 'string' }, nested: { anyOf: [{ type: 'null' }, { $ref: '#/$defs/b' }] } } },
      b: {
        properties: { both: { $ref: '#/$defs/text' }, list: { anyOf: [{ items: {} }, { $ref: '#/$defs/digest' }] } },
      },
      text: { type: 'string' },
      digest: { properties: { bytes: {}, sha256: {} } },
    },
  })
  t.strictSame(fields, ['both', 'list', 'nested.both', 'nested.list'], 'a digest only replaces a value')
})

t.test('every field is in the table once, mapped or unmapped', async t => {
  const rows = page.rows('record')
  t.strictSame(rows.flatMap(([field]) => names(field)).sort(), fieldsOf(schema))
  for (const [field = '', ...targets] of rows) {
    t.equal(targets.length, 2, field)
    for (const target of targets) t.match(target, /^(?:unmapped$|`[@a-z_[\].]+`)/, field)
  }
})

t.test('every event has a category or a class', async t => {
  const { event_record: { properties }, ...others } = schema.$defs
  const ofChain = Object.values(others as Record<string, { properties?: { event?: { const: string } } }>)
    .flatMap(({ properties }) => properties?.event?.const ?? [])
  t.strictSame(
    page.rows('event | ECS `event.category`').flatMap(([events]) => names(events)).sort(),
    [...properties.event.enum, ...ofChain].sort()
  )
})
