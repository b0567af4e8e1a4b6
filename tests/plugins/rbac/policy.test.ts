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
    /^line 4: bindings\.0\.value must be string or boolean$/
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

t.test('a key that the policy does not know is refused, whatever hides it', async t => {
  const rule = '{ topcs: [orders] }'
  for (
    const text of [
      `roles: { "a\\nb": { allow: [${rule}] } }\nbindings: []`,
      `roles: { "a\\u2028b": { allow: [${rule}] } }\nbindings: []`,
      'roles: { "a\\nb": { alow: [] } }\nbindings: []',
      'roles: { "a\\nb": 5 }\nbindings: []',
      'roles: { a: !!set { alow } }\nbindings: []',
      'roles: !!omap [{ a: { alow: [] } }]\nbindings: []',
      'roles: !!map { a: !x { alow: [] } }\nbindings: []',
      '%YAML 1.1\n---\nroles: { a: !!set { alow } }\nbindings: []',
      '%YAML 1.1\n---\nroles: { a: { <<: { allow: [] } } }\nbindings: []',
      'roles: { a: { !!merge <<: { allow: [] } } }\nbindings: []',
      'roles: { a: { <<: { allow: [] } } }\nbindings: []',
      'roles: { a: { __proto__: { allow: [] } } }\nbindings: []',
      'roles: { a: { ? [allow] : [] } }\nbindings: []',
      'roles: { a: { "allow ": [] } }\nbindings: []',
      '{ bindings: [], "": 1 }',
      '{ bindings: [{ role: observer, claim: sub, value: x, isuer: y }] }',
    ]
  ) t.not(mistakes(text), 'none', text)
  t.match(
    mistakes('roles:\n  "a\\nb":\n    allow: [{ topcs: [orders] }]\nbindings: []\n'),
    /^line 2: roles must have names of 1 to 256 printable characters: "a\\nb" is not one$/
  )
  t.match(mistakes('roles: { 1: {}, "1": { deny: [] } }\nbindings: []'), /^line 1: Map keys must be unique$/)
  t.match(mistakes('roles: !x {}\nbindings: []'), /^line 1: Unresolved tag: !x$/)
})

t.test('names are printable', async t => {
  const policies = (name: string) => [
    { roles: { [name]: {} }, bindings: [] },
    { bindings: [{ role: 'observer', claim: name, value: 'x' }] },
    { bindings: [{ role: 'observer', claim: 'sub', value: name }] },
    { bindings: [{ role: 'observer', claim: 'sub', value: 'x', issuer: name }] },
    ...['topics', 'groups', 'environments'].map(list =>
      ({ roles: { a: { deny: [{ [list]: [name] }] } }, bindings: [] })
    ),
  ].map(policy => JSON.stringify(policy))
  for (const name of ['orders-reader', 'Team Orders', 'größe', '読者', 'a*?.b/c:d', '🙂', 'true', '__proto__']) {
    for (const text of policies(name)) t.equal(mistakes(text), 'none', text)
  }
  const hidden = '\n\t\0\x7f\u00a0\u00ad\u034f\u200b\u2028\u202e\u2800\u3164\ue000\ufe0f\ufeff\ufff9\u{e0041}\ud800'
  for (const character of hidden) {
    for (const text of policies(`a${character}b`)) {
      t.match(mistakes(text), /printable characters/, `U+${character.codePointAt(0)?.toString(16)}`)
      t.notMatch(mistakes(text), /[\p{Cc}\u200b\u2028\u202e]/u, 'and so is the message')
    }
  }
  t.match(mistakes('roles: { "": {} }\nbindings: []'), /printable characters: "" is not one/)
  t.match(mistakes(`roles: { ${'a'.repeat(257)}: {} }\nbindings: []`), /of 1 to 256 printable/)
})
