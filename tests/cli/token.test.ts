import { generateKeyPairSync } from 'node:crypto'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { decodeJwt, decodeProtectedHeader, type JSONWebKeySet } from 'jose'
import t, { type Test } from 'tap'
import { token } from '../../cli/token.ts'
import { parseJwks } from '../../plugins/auth/keys-file.ts'
import { ask, jwks as jwksAuth, startAuthApp } from '../support/auth.ts'

/** Functions that run the command with files in a temporary folder. */
function setUp (t: Test) {
  const dir = t.testdir({})
  const [key, jwks] = [`${dir}/token.key`, `${dir}/jwks.json`]
  const run = async (...argv: string[]) => {
    const stdout = t.capture(process.stdout, 'write', () => true)
    const stderr = t.capture(process.stderr, 'write', () => true)
    const code = await token(argv)
    const [out, err] = [stdout, stderr].map(captured => captured().map(({ args: [text] }) => text).join('')) as [
      string,
      string
    ]
    stdout.restore()
    stderr.restore()
    return { code, out, err }
  }
  const issue = async (...argv: string[]) => await run('issue', '--key', key, ...argv)
  return { dir, key, jwks, run, issue, keygen: async () => await run('keygen', '--key', key, '--jwks', jwks) }
}

t.test('the service accepts an issued token', async t => {
  const { jwks, keygen, issue } = setUp(t)
  t.match(await keygen(), { code: 0, err: '' })
  const { url } = await startAuthApp(t, { config: { auth: jwksAuth(jwks, 'ops') } })
  const options = '--subject alice --ttl 15m --scope kafscale:observe --issuer ops'.split(' ')
  const claims = ['groups=team-orders', 'groups=team-x', 'note=a=b'].map(claim => `--claim=${claim}`)
  const { code, out } = await issue(...options, '--audience', url, ...claims)
  t.equal(code, 0)
  t.match(await ask(url, out.trim()), {
    status: 200,
    principal: {
      subject: 'alice',
      issuer: 'ops',
      method: 'jwks',
      scopes: ['kafscale:observe'],
      claims: { groups: ['team-orders', 'team-x'], note: 'a=b' },
    },
  })
  t.equal(
    (await ask(url, (await issue('--subject', 'alice', '--issuer', 'other', '--audience', url)).out.trim())).status,
    401
  )
})

t.test('keygen writes a private key that only its owner can read, and a public key with a kid', async t => {
  const { key, jwks, keygen } = setUp(t)
  const { out } = await keygen()
  t.equal(statSync(key).mode & 0o777, 0o600)
  t.match(readFileSync(key, 'utf8'), '-----BEGIN PRIVATE KEY-----')
  const { keys: [jwk] } = JSON.parse(readFileSync(jwks, 'utf8')) as JSONWebKeySet
  t.strictSame(Object.keys(jwk ?? {}).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x'])
  t.match(jwk, { kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA', use: 'sig', kid: /^[\w-]{43}$/ })
  t.match(out, String(jwk?.kid))
  t.notMatch(out, 'PRIVATE KEY-----')

  const before = readFileSync(key)
  const refused = `kafscale-mcp token: ${key} already exists: a private key is not overwritten\n`
  t.match(await keygen(), { code: 1, err: refused })
  t.strictSame(readFileSync(key), before)
  t.equal(parseJwks(readFileSync(jwks)).keys.length, 1)
})

t.test('keygen adds the new key to an existing JWKS', async t => {
  const { dir, jwks, keygen, run } = setUp(t)
  await keygen()
  t.equal((await run('keygen', '--key', `${dir}/next.key`, '--jwks', jwks)).code, 0)
  t.equal(parseJwks(readFileSync(jwks)).keys.length, 2)

  writeFileSync(jwks, '{}')
  t.match(await run('keygen', '--key', `${dir}/third.key`, '--jwks', jwks), {
    code: 1,
    err: `kafscale-mcp token: ${jwks}: expected a JWKS: a JSON object with keys\n`,
  })
  t.equal(readFileSync(jwks, 'utf8'), '{}', 'a file that is not a JWKS is not overwritten')
})

t.test('the claims of an issued token', async t => {
  const { keygen, issue } = setUp(t)
  const kid = /kid: (.*)/.exec((await keygen()).out)?.[1]
  const { out } = await issue('--subject', 'alice')
  const { iat, exp, jti, ...claims } = decodeJwt(out)
  t.strictSame(decodeProtectedHeader(out), { alg: 'EdDSA', typ: 'at+jwt', kid })
  t.strictSame(
    claims,
    { iss: 'kafscale-mcp', sub: 'alice', aud: 'http://127.0.0.1:8090/mcp' },
    'no scope by default'
  )
  t.equal(Number(exp) - Number(iat), 900)
  t.match(jti, /^[\da-f-]{36}$/)
  const lifetime = async (ttl: string) => {
    const { exp, iat } = decodeJwt((await issue('--subject', 'alice', '--ttl', ttl)).out)
    return Number(exp) - Number(iat)
  }
  t.equal(await lifetime('1h'), 3_600)
  t.equal(await lifetime('1s'), 1)
  t.equal(decodeJwt((await issue('--subject', 'a', '--scope', 'x', '--scope', 'y z')).out)['scope'], 'x y z')
})

t.test('invalid usage exits with 2 and prints the usage', async t => {
  const { keygen, run, issue } = setUp(t)
  await keygen()
  const refused: [argv: string[], message: string][] = [
    [[], 'a command is missing'],
    [['sign'], 'unknown command "sign"'],
    [['issue'], '--subject is not set: expected the subject of the token'],
    [['issue', '--subject', ''], '--subject is not set: expected the subject of the token'],
    [['keygen', '--bits', '1'], "Unknown option '--bits'"],
    ...['61m', '0', '999ms', '1d', '-5m', ''].map((
      ttl
    ): [string[], string] => [
      ['issue', '--subject', 'a', `--ttl=${ttl}`],
      `--ttl is ${JSON.stringify(ttl)}: expected a duration such as 15m, from 1s to 1h`,
    ]),
    ...['groups', '=x', ''].map((
      claim
    ): [string[], string] => [
      ['issue', '--subject', 'a', `--claim=${claim}`],
      `--claim is ${JSON.stringify(claim)}: expected name=value`,
    ]),
    ...['sub=root', 'exp=9999999999', 'aud=x', 'iss=x', 'scope=x', 'iat=0', 'nbf=0', 'jti=x'].map((
      claim
    ): [string[], string] => [
      ['issue', '--subject', 'a', '--claim', claim],
      `--claim is ${JSON.stringify(claim)}: expected a claim that the command does not set itself`,
    ]),
  ]
  for (const [argv, message] of refused) {
    const { code, out, err } = await run(...argv)
    t.equal(code, 2, argv.join(' '))
    t.equal(out, '')
    t.ok(err.startsWith(`kafscale-mcp token: ${message}`), err)
    t.match(err, 'Usage:')
  }
  t.match(await run('--help'), { code: 0, out: /^Usage:/, err: '' })
  t.equal((await issue('--subject', 'a', '--claim', '__proto__=x')).code, 0)
})

t.test('a file that is not an Ed25519 private key is refused', async t => {
  const { key, issue } = setUp(t)
  t.match(await issue('--subject', 'a'), { code: 1, err: /ENOENT/, out: '' })
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
    type: 'pkcs8',
    format: 'pem',
  }) as string
  for (const content of ['garbage', rsa]) {
    writeFileSync(key, content)
    t.match(await issue('--subject', 'a'), {
      code: 1,
      err: `kafscale-mcp token: ${key}: expected an Ed25519 private key in PEM, as written by keygen\n`,
      out: '',
    })
  }
})
