import fc from 'fast-check'
import t from 'tap'
import { canonical, sha256 } from '../../../plugins/audit/chain.ts'
import { cleanse } from '../../../plugins/audit/cleanse.ts'
import { ownEntry } from '../../../plugins/audit/record.ts'
import { redactor, shrink } from '../../../plugins/audit/redact.ts'
import { tokenRedactor } from '../../../plugins/audit/tokens.ts'
import { holds } from '../../support/property.ts'

const REDACTED = '[redacted]'

t.test('a value named like a secret is not recorded', async t => {
  const redact = redactor()
  for (
    const name of [
      'password',
      'ssl.keystore.password',
      'sasl.jaas.config',
      'listener.name.x.SASL.JAAS.Config',
      'sasl_jaas_config',
      'client_secret',
      'accessToken',
      'TOKEN',
      'api-key',
      'private_key',
      'Authorization',
      'credentials',
      'PWD',
      'passcode',
      'Set-Cookie',
      'bearer',
      'accessKey',
      'aws_access_key_id',
      'jwt',
      'ｐａｓｓｗｏｒｄ',
      'Ｓecret',
    ]
  ) {
    t.strictSame(redact({ [name]: 'hidden', limit: 1 }), { [name]: REDACTED, limit: 1 }, name)
    t.strictSame(redact({ a: [{ [name]: { deep: ['hidden'] } }] }), { a: [{ [name]: REDACTED }] }, `${name}, nested`)
    t.strictSame(redact({ name, value: 'hidden', before: 'hidden', after: null }), {
      name,
      value: REDACTED,
      before: REDACTED,
      after: null,
    }, `an entry named ${name}`)
  }
  t.strictSame(redact({ path: '/configs/sasl.jaas.config', old_value: 'a', new_value: 'b' }), {
    path: '/configs/sasl.jaas.config',
    old_value: REDACTED,
    new_value: REDACTED,
  })
})

t.test('an entry is recognized whatever the case of its members', async t => {
  const redact = redactor()
  t.strictSame(redact({ Name: 'SASL.JAAS.CONFIG', Value: 'hidden', OldValue: 'hidden', Count: 1 }), {
    Name: 'SASL.JAAS.CONFIG',
    Value: REDACTED,
    OldValue: REDACTED,
    Count: 1,
  })
  t.strictSame(redact({ ＮＡＭＥ: 'password', ｖalue: 'hidden' }), { ＮＡＭＥ: 'password', ｖalue: REDACTED })
})

t.test('what has the shape of a JWT is not recorded, wherever it stands', async t => {
  const redact = redactor()
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const header = part({ alg: 'RS256', kid: 'a' })
  const jwt = `${header}.${part({ sub: 'alice' })}.c2lnbmF0dXJl`
  const jwe = `${header}.a2V5.aXY.Y2lwaGVy.dGFn`
  const cases: [string, string][] = [
    [jwt, REDACTED],
    [`Bearer ${jwt}`, `Bearer ${REDACTED}`],
    [`orders-${jwt}`, `orders-${REDACTED}`],
    [`x${jwt}`, `x${REDACTED}`],
    [`${jwt} and ${jwt}`, `${REDACTED} and ${REDACTED}`],
    [`a.${jwt}.json`, `a.${REDACTED}.json`],
    [`{"t":"${jwt}"}`, `{"t":"${REDACTED}"}`],
    [`${header}.${part({ sub: 'alice' })}.`, REDACTED],
    [jwe, REDACTED],
    [`${header}..aXY.Y2lwaGVy.dGFn`, REDACTED],
    ['eyJ.a.b', REDACTED],
    ['eyJ.a', 'eyJ.a'],
    ['surveyJobs.orders.v1', 'surveyJobs.orders.v1'],
    ['keyJournalOfTheWarehouse.orders.v1', 'keyJournalOfTheWarehouse.orders.v1'],
    ['a.b.c', 'a.b.c'],
  ]
  for (const [given, kept] of cases) {
    t.equal(redact(given), kept, given)
    t.strictSame(Object.keys(redact({ [given]: null }) as object), [kept])
    t.strictSame(redact({ pattern: [given] }), { pattern: [kept] })
    const { what, where, who, warning, rule } = await cleanse({
      ...ownEntry('tool_call', given),
      who: {
        subject: given,
        issuer: given,
        client_id: given,
        roles: [given],
        method: 'jwks',
        token_id: given,
        client_certificate: given,
      },
      what: { tool: given, operation: null, arguments: { [given]: given }, resources: { topics: [given] } },
      where: { remote_address: given, user_agent: given, mcp_client: given, request_id: given, trace_id: given },
      rule: given,
    }, redact)
    const all = { what, where: { ...where, replica: '' }, who, warning, rule }
    if (given !== kept) t.notOk(JSON.stringify(all).includes(given), given)
    t.equal(what?.tool, kept)
    t.equal(where.user_agent, kept)
  }
})

t.test('a known token is not recorded in any form', async t => {
  const clean = tokenRedactor({ secret: 'very ä secret', isToken: text => text === 'an-opaque+token/1=' })
  t.equal(clean('xvery ä secretx'), `x${REDACTED}x`)
  t.equal(clean('access_token=an-opaque+token/1=&a'), `access_token=${REDACTED}&a`)
  t.equal(clean('Bearer an-opaque+token/1=, "an-opaque+token/1="'), `Bearer ${REDACTED}, "${REDACTED}"`)
  t.equal(clean('another-opaque+token/1='), 'another-opaque+token/1=')
})

t.test('looking for tokens takes linear time', async t => {
  let tried = 0
  const clean = tokenRedactor({ isToken: text => { tried += text.length; return false } })
  for (const text of ['eyJ', 'eyJ.', 'eyJ..', '.', '-eyJ', 'eyJhbGciOiJSUzI1NiIs', 'keyJ.a.b.']) {
    const long = text.repeat(1_000_000 / text.length)
    clean(long)
    t.ok(tried <= long.length, JSON.stringify(text))
    tried = 0
  }
})

t.test('a value that is not a secret is recorded', async t => {
  const redact = redactor()
  const plain = {
    names: ['orders'],
    group_id: 'password-resets',
    limit: 3,
    topics: [{ name: 'secret-orders', partitions: 3, before: { partitions: 1 } }],
    nothing: null,
  }
  t.strictSame(redact(plain), plain)
  t.equal(redact('text'), 'text')
})

t.test('AUDIT_REDACT adds names', async t => {
  t.strictSame(redactor(['card.number', ''])({ cardNumber: '4111', 'card-number': '4111', card: 1 }), {
    cardNumber: REDACTED,
    'card-number': REDACTED,
    card: 1,
  })
})

t.test('names that differ only in lone surrogates stay distinct, and __proto__ is a name', async t => {
  const redact = redactor()
  t.equal(canonical(redact({ '\ud800': 1, '\ud801': 2 })), '{"\ufffd":1,"\ufffd\ufffd":2}')
  t.equal(canonical(redact(JSON.parse('{"__proto__":{"a":1}}'))), '{"__proto__":{"a":1}}')
})

t.test('nesting deeper than any input is cut off', async t => {
  let deep: unknown = 'bottom'
  for (let depth = 0; depth < 100_000; depth++) deep = [deep]
  const text = canonical(redactor()(deep))
  t.match(text, '[nested deeper than 64]')
  t.notMatch(text, 'bottom')
})

t.test('a value over 2 KB is replaced by its size and digest', async t => {
  const large = 'x'.repeat(2 * 1024)
  const replaced = (value: unknown) => ({
    bytes: Buffer.byteLength(canonical(value)),
    sha256: sha256(canonical(value)),
  })
  t.strictSame(await shrink({ a: large, b: 1 }), { a: replaced(large), b: 1 })
  t.strictSame(
    await shrink({ a: 'x'.repeat(2 * 1024 - 100), b: 1 }),
    { a: 'x'.repeat(2 * 1024 - 100), b: 1 },
    'a smaller one is kept'
  )
  const many = Array.from({ length: 2_000 }, (_, index) => `topic-${index}`)
  t.strictSame(
    await shrink({ topics: many, limit: 1 }),
    { topics: replaced(many), limit: 1 },
    'a list without a large item'
  )
  t.strictSame(await shrink([large]), [replaced(large)])
  const hundred = [large, ...Array<number>(99).fill(0)]
  t.strictSame(await shrink(hundred), [replaced(large), ...hundred.slice(1)])
  t.strictSame(await shrink([...hundred, 0]), replaced([...hundred, 0]), 'more than 100 members, as a whole')
  const wide = Object.fromEntries(many.map(name => [name, 1]))
  t.strictSame(await shrink(wide), replaced(wide))
  t.strictSame(await shrink('ä'.repeat(1_024)), replaced('ä'.repeat(1_024)), 'the size is in bytes, not characters')
})

t.test('a small value is returned at once, and no value stays large', async t => {
  const small = { limit: 1, names: ['a', null, true] }
  t.equal(shrink(small), small)
  await t.resolves(
    fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 4 }), fc.integer({ min: 1, max: 5_000 }), async (value, repeat) => {
        const text = canonical(await shrink({ value, pad: 'ab'.repeat(repeat) }))
        return Buffer.byteLength(text) <= 2 * 1024
      }),
      { numRuns: 100 }
    )
  )
  holds(
    t,
    'redacting twice changes nothing',
    fc.jsonValue(),
    value => canonical(redactor()(redactor()(value))) === canonical(redactor()(value)),
    100
  )
})

t.test('a record takes at most 16 KB, whatever the caller sends', async t => {
  for (const text of ['x', '\u0001', 'ä', '\ud800', '"', '\u200b', '\u{e0061}']) {
    for (const length of [300, 330, 1_000, 2_000, 2_046, 100_000]) {
      const long = text.repeat(length)
      const entry = await cleanse({
        ...ownEntry('tool_call', long),
        who: {
          subject: long,
          issuer: long,
          client_id: long,
          roles: [long],
          method: 'jwks',
          token_id: long,
          client_certificate: long,
        },
        what: { tool: long, operation: null, arguments: { long, [long]: [long] }, resources: { topics: [long, long] } },
        where: {
          remote_address: '192.0.2.1',
          user_agent: long,
          mcp_client: long,
          request_id: long,
          trace_id: long,
        },
        diff: [long],
      }, redactor())
      const bytes = Buffer.byteLength(canonical(entry))
      t.ok(bytes < 15 * 1024, `${length} × ${JSON.stringify(text)}: ${bytes}`)
    }
  }
})
