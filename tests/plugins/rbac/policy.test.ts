import t from 'tap'
import { parsePolicy } from '../../../plugins/rbac/policy.ts'

const TOOLS = ['list_topics']
const mistakes = (text: string): string => {
  try {
    parsePolicy(text, TOOLS)
    return 'none'
  } catch (error) {
    return (error as Error).message
  }
}

t.test('a policy is written in YAML or JSON', async t => {
  t.strictSame(parsePolicy('bindings: []', TOOLS), parsePolicy('{"bindings": []}', TOOLS))
  t.strictSame([...parsePolicy('bindings: []', TOOLS).roles.keys()], ['observer', 'auditor'])
})

t.test('each mistake is reported with its line', async t => {
  t.match(
    mistakes('roles:\n  a:\n    allow: [{ operation: [observe] }]\nbindings: []\n'),
    /^line 3: roles\.a\.allow\.0 must NOT have additional properties \(operation\)$/m
  )
  t.match(mistakes('roles: {}\n'), /^line 1: the policy must have required property 'bindings' \(bindings\)$/)
  t.match(mistakes('bindings:\n  - { role: nobody, claim: sub, value: x }\n'), /^line 2: there is no role nobody$/)
  t.match(
    mistakes('bindings:\n  - role: observer\n    claim: sub\n    value: 5\n'),
    /^line 4: bindings\.0\.value must be string$/
  )
  t.match(mistakes('roles:\n  observer: {}\nbindings: []\n'), /^line 2: the role observer is predefined/)
  t.match(
    mistakes('roles:\n  a:\n    deny:\n      - tools: [list_topics, drop_all]\nbindings: []\n'),
    /^line 4: there is no tool drop_all$/
  )
  t.match(mistakes('roles:\n  a: {}\n  a: {}\nbindings: []\n'), /^line 3: /)
  t.match(mistakes('roles: [\n'), /^line \d/)
  t.match(mistakes(''), /^line 1: the policy must be object/)
  t.match(mistakes('roles:\n  a:\n    allow: [{}]\nbindings: []\n'), /^line 3: /)
})

t.test('all mistakes are reported at once, in the order of their lines', async t => {
  const lines = mistakes('roles:\n  a: { allow: 5 }\n  b: { deny: 6 }\nbindings: 7\n').split('\n')
  t.strictSame(lines.map(line => line.split(':')[0]), ['line 2', 'line 3', 'line 4'])
})
