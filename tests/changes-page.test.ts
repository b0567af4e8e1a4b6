/** Compares the policy in docs/changes.md with what the service decides. */
import t from 'tap'
import { CHANGE_TOOLS, type ChangeTool, RESOURCE_KINDS, TOOLS_OF_CHANGES } from '../plugins/changes/change.ts'
import { decideOn } from '../plugins/rbac/decide.ts'
import { parsePolicy, type PolicyOperation, requirementOf, saysClosed } from '../plugins/rbac/policy.ts'
import { allTools } from '../scripts/docs-tools.ts'
import { readPage } from './support/pages.ts'

const page = readPage('changes.md')
const policy = parsePolicy(page.block('yaml policy'), [])
/** The words of a cell that are code. */
const codeIn = (cell = '') => [...cell.matchAll(/`([^`]+)`/g)].map(([, word = '']) => word)
const isChange = (name: string): name is ChangeTool => (CHANGE_TOOLS as readonly string[]).includes(name)

t.test('every code block is of a kind that a test covers', async t => {
  // The others are in tests/changes-walkthrough.test.ts; text is the life of a change.
  t.strictSame(page.kinds, [
    'json change', 'sh change', 'sh story', 'text', 'text story', 'yaml policy', 'yaml stop',
  ])
})

t.test('the example policy decides as its table says', async t => {
  const rows = page.rows('roles')
  t.ok(rows.length > 5)
  for (const row of rows) {
    const [roles, [operation = ''], [tool = '', name = ''], [environment = ''], [rule]] =
      row.map(codeIn) as [string[], string[], string[], string[], string[]]
    if (!isChange(tool)) throw new Error(`${tool} is not a change`)
    const resource = { kind: RESOURCE_KINDS[tool], name }
    const decision = decideOn(policy, roles, operation as PolicyOperation, tool, resource, environment)
    t.strictSame(`${decision.kind}: ${decision.rule}`, `${row[4]?.split(':')[0]}: ${rule}`, row.join(' '))
  }
})

t.test('a change needs what the table says', async t => {
  const rows = page.rows('environment')
  t.equal(rows.length, 4)
  for (const [environment = '', ...cells] of rows) {
    const [name = ''] = codeIn(environment)
    const needs = (['create_topic', 'delete_topic'] as const).map(tool => {
      const { mode, approvals } = requirementOf(policy, tool, name)
      return mode === 'approval' ? `approval by ${approvals}` : mode
    })
    t.strictSame(needs, cells, environment)
  }
})

t.test('the emergency stop stops, on this page and in the runbook', async t => {
  const runbook = readPage('runbook.md')
  for (const stop of [page.block('yaml stop'), runbook.block('yaml stop')]) {
    t.equal(parsePolicy(`bindings: []\n${stop}`, []).changes, 'closed')
    t.ok(saysClosed(page.block('yaml policy') + stop), 'also when it was added to the file instead')
  }
  const [, ...sections] = runbook.text.split('\n## Changes\n')
  t.match(sections[0], /^[^#]*### Emergency stop\n/, 'it comes first')
})

t.test('every refusal of a tool of changes is listed', async t => {
  const listed = page.rows('because of').flatMap(([, codes]) => codeIn(codes))
  const tools = (await allTools()).filter(({ name, operation }) =>
    TOOLS_OF_CHANGES.includes(name) && operation !== 'observe')
  t.equal(tools.length, 9)
  // Besides those of the tools, calls of every tool can be refused with these.
  const codes = new Set([...tools.flatMap(({ errors }) => errors), 'PERMISSION_DENIED', 'INSUFFICIENT_SCOPE',
    'AUDIT_UNAVAILABLE'])
  t.strictSame(listed.filter((code, index) => listed.indexOf(code) === index).sort(), [...codes].sort())
})
