import t from 'tap'
import { CHANGE_TOOLS } from '../../../plugins/changes/change.ts'
import { parsePolicy, saysClosed } from '../../../plugins/rbac/policy.ts'

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
    ...['topics', 'groups', 'brokers', 'environments'].map(list =>
      ({ roles: { a: { deny: [{ [list]: [name] }] } }, bindings: [] })
    ),
    { bindings: [], changes: [{ environments: [name], mode: 'direct' }] },
    { bindings: [], protected: { topics: [name] } },
    { bindings: [], protected: { groups: [name] } },
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

t.test('a policy says who may change what, whether or not changes are enabled', async t => {
  const { roles, changes, protected: guarded } = parsePolicy(`
roles:
  operator:
    allow: [{ operations: [observe, mutate, approve, break-glass], topics: ["orders-*"], brokers: ["1"] }]
    deny:  [{ operations: [mutate, apply] }]
bindings: []
changes:
  - { environments: [dev], mode: direct }
  - { tools: [delete_topic], mode: approval, approvals: 2 }
  - { mode: closed }
protected: { topics: ["__*"] }
`, [])
  t.strictSame(roles.get('operator'), {
    allow: [{
      operations: ['observe', 'propose', 'apply', 'approve', 'break-glass'], topics: ['orders-*'], brokers: ['1'],
    }],
    deny: [{ operations: ['propose', 'apply'] }],
  })
  t.strictSame(changes, [
    { environments: ['dev'], mode: 'direct' },
    { tools: ['delete_topic'], mode: 'approval', approvals: 2 },
    { mode: 'closed' },
  ])
  t.strictSame(guarded, { topics: ['__*'], groups: [] })
  t.equal(parsePolicy('{ bindings: [], changes: closed }', []).changes, 'closed')
  t.match(parsePolicy('bindings: []', []), { changes: [], protected: { topics: [], groups: [] } })
})

t.test('the tools of changes are known, whether or not changes are enabled', async t => {
  const others = ['apply_change', 'cancel_change', 'list_changes', 'get_change', 'broker_status']
  const allow = [{ operations: ['observe', 'propose', 'apply'], tools: [...CHANGE_TOOLS, ...others] }]
  const deny = [{ tools: [...CHANGE_TOOLS, ...others] }]
  t.equal(mistakes(JSON.stringify({ roles: { a: { allow, deny } }, bindings: [] })), 'none')
})

t.test('a mistake about changes is reported with its line', async t => {
  const after = (text: string) => mistakes(`bindings: []\n${text}`)
  t.equal(after('changes: Closed'), 'line 2: changes must be a list, or the word closed')
  t.equal(after('changes: { mode: direct }'), 'line 2: changes must be a list, or the word closed')
  t.equal(after('changes:'), 'line 2: changes must be a list, or the word closed')
  t.equal(
    after('changes:\n  - { mode: direct }\n  - { environments: [dev] }'),
    "line 4: changes.1 must have required property 'mode' (mode)"
  )
  t.equal(
    after('changes:\n  - mode: open'),
    'line 3: changes.0.mode must be one of direct, approval, closed'
  )
  t.equal(
    after('changes:\n  - mode: direct\n    environment: [dev]'),
    'line 3: changes.0 must NOT have additional properties (environment)'
  )
  t.equal(
    after('changes:\n  - mode: closed\n    tools: [delete_topic, apply_change]'),
    `line 4: apply_change is not a change: expected ${CHANGE_TOOLS.join(', ')}`
  )
  t.equal(
    after('changes:\n  - mode: direct\n    approvals: 1'),
    'line 4: changes.0 has approvals, but its mode is direct: expected mode approval, or no approvals'
  )
  for (const approvals of ['0', '11', '1.5', 'two']) {
    const mistake = /^line 4: changes\.0\.approvals must be /
    t.match(after(`changes:\n  - mode: approval\n    approvals: ${approvals}`), mistake)
  }
  t.equal(
    after('changes:\n  - mode: direct\n    environments: [dev, default]'),
    'line 4: default is the environment of a service that does not set KAFSCALE_MCP_ENVIRONMENT: name another'
  )
  t.equal(after('changes:\n  - mode: closed\n    environments: [default]'), 'none', 'closing it is possible')
  t.match(after('protected: { brokers: ["1"] }'), /^line 2: protected must NOT have additional properties \(brokers\)$/)
  t.match(after('protected: []'), /^line 2: protected must be object$/)

  const rule = (content: string) => mistakes(`roles:\n  a:\n    allow:\n      - ${content}\nbindings: []\n`)
  t.equal(rule('{ operations: [brake-glass] }'),
    'line 4: roles.a.allow.0.operations.0 must be one of observe, propose, apply, approve, break-glass, mutate')
  t.equal(rule('{ brokers: [1] }'), 'line 4: roles.a.allow.0.brokers.0 must be string')
  for (const tool of ['create_topic', 'apply_change', 'cancel_change']) {
    for (const content of [`tools: [list_topics, ${tool}]`, `tools: [${tool}]\n        operations: [observe]`]) {
      t.equal(rule(content),
        `line 4: the rule names ${tool}, but allows nothing of it: add operations, such as [propose, apply]`)
    }
  }
  t.equal(rule('{ tools: [list_changes, get_change, broker_status] }'), 'none', 'they observe')
})

t.test('an emergency stop counts even in a policy with mistakes', async t => {
  for (const text of [
    'changes: closed',
    'bindings: []\nchanges: []\nchanges: closed\n',
    'changes: closed\nbindings: []\nchanges: [{ mode: direct }]\n',
    'roles: { a: { alow: [] } }\nbindings: []\nchanges: closed',
    '{"bindings": 7, "changes": "closed"}',
    'bindings: [\nchanges: closed',
    'bindings: [{ role: &a closed }]\nchanges: *a\n',
  ]) {
    t.not(mistakes(text), 'none', text)
    t.equal(saysClosed(text), true, text)
  }
  for (const text of [
    '', 'closed', 'changes: open', 'changes: [closed]', '# changes: closed', 'roles: { changes: closed }',
    'changes: Closed', 'changes: { mode: closed }', '[changes, closed]',
  ]) t.equal(saysClosed(text), false, text)
})
