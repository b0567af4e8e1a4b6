import { generateKeyPairSync } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import { exportJWK, type JWK, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose'
import t, { type Test } from 'tap'
import { parseJwks } from '../../../plugins/auth/keys-file.ts'
import { ask, jwks, startAuthApp } from '../../support/auth.ts'
import { waitFor } from '../../support/wait-for.ts'

const ISSUER = 'kafscale-mcp'
const RELOAD_BOUND_MS = 5_000
const now = () => Math.floor(Date.now() / 1_000)

async function newKey (kid: string, alg = 'EdDSA') {
  const { privateKey, publicKey } = alg === 'EdDSA'
    ? generateKeyPairSync('ed25519')
    : generateKeyPairSync('rsa', { modulusLength: 2048 })
  const sign = (claims: JWTPayload) => new SignJWT(claims).setProtectedHeader({ alg, kid }).sign(privateKey)
  return { sign, jwk: { ...await exportJWK(publicKey), kid }, private: { ...await exportJWK(privateKey), kid } }
}

async function start (t: Test, ...keys: JWK[]) {
  const file = `${t.testdir({})}/jwks.json`
  const write = (content: string) => {
    writeFileSync(`${file}.new`, content)
    renameSync(`${file}.new`, file)
  }
  const publish = (...keys: JWK[]) => write(JSON.stringify({ keys }))
  publish(...keys)
  const { url, log } = await startAuthApp(t, { config: { auth: jwks(file, ISSUER) } })
  return { url, log, write, publish, claims: { iss: ISSUER, aud: url, sub: 'alice', iat: now(), exp: now() + 600 } }
}

t.test('a token signed by a key in the file authenticates its subject', async t => {
  const [ed, rsa] = [await newKey('ed'), await newKey('rsa', 'RS256')]
  const { url, claims } = await start(t, ed.jwk, rsa.jwk)
  for (const key of [ed, rsa]) {
    const { status, principal } = await ask(url, await key.sign(claims))
    t.equal(status, 200)
    t.match(principal, { subject: 'alice', issuer: ISSUER, method: 'jwks' })
  }
})

t.test('tokens are checked as strictly as in the mode oidc', async t => {
  const key = await newKey('a')
  const stranger = await newKey('a')
  const unknown = await newKey('b')
  const { url, claims } = await start(t, key.jwk)
  const { sub, ...nobody } = claims
  const refused: [Promise<string> | string, RegExp][] = [
    [key.sign({ ...claims, iss: 'other' }), /another issuer/],
    [key.sign({ ...claims, aud: 'other' }), /another resource/],
    [key.sign({ ...claims, exp: now() - 60 }), /expired/],
    [key.sign({ ...claims, nbf: now() + 60 }), /not valid yet/],
    [key.sign({ ...claims, exp: now() + 3_700 }), /valid for longer/],
    [key.sign(nobody), /no subject/],
    [stranger.sign(claims), /not signed by its issuer/],
    [unknown.sign(claims), /not name a key of its issuer/],
    [new UnsecuredJWT(claims).encode(), /algorithm|not a JWT/],
    [
      new SignJWT(claims).setProtectedHeader({ alg: 'HS256', kid: 'a' }).sign(Buffer.from(JSON.stringify(key.jwk))),
      /algorithm/,
    ],
    ['opaque', /not a JWT/],
  ]
  for (const [token, message] of refused) {
    t.match(await ask(url, await token), { status: 401, message, challenge: /invalid_token/ })
  }
})

t.test('the file is reloaded when it changes', async t => {
  const [old, next] = [await newKey('old'), await newKey('new')]
  const { url, log, claims, publish, write } = await start(t, old.jwk)
  const [oldToken, newToken] = [await old.sign(claims), await next.sign(claims)]
  const status = async (token: string) => (await ask(url, token)).status
  t.strictSame([await status(oldToken), await status(newToken)], [200, 401])

  publish(old.jwk, next.jwk)
  await waitFor(async () => await status(newToken) === 200, RELOAD_BOUND_MS, 'the new key')
  t.equal(await status(oldToken), 200)

  write('{"keys": [')
  await waitFor(() => log().includes('the new token keys are invalid'), RELOAD_BOUND_MS, 'an invalid file is logged')
  t.strictSame([await status(oldToken), await status(newToken)], [200, 200], 'and changes nothing')

  publish(next.jwk)
  await waitFor(
    async () => await status(oldToken) === 401,
    RELOAD_BOUND_MS,
    'the old key and the tokens that it verified are gone'
  )
  t.equal(await status(newToken), 200)
})

t.test('a file that is not a JWKS of public keys stops the start', async t => {
  const { jwk, private: secret } = await newKey('a')
  const { kid, ...nameless } = jwk
  const refused: [content: string, message: string][] = [
    ['', 'a JWKS: a JSON object with keys'],
    ['[]', 'a JWKS: a JSON object with keys'],
    ['null', 'a JWKS: a JSON object with keys'],
    ['{"keys":[null]}', 'a JWKS: a JSON object with keys'],
    ['{"keys":[]}', 'a JWKS with at least one key'],
    [JSON.stringify({ keys: [jwk, nameless] }), 'a kid in each key'],
    [JSON.stringify({ keys: [{ ...jwk, kid: '' }] }), 'a kid in each key'],
    [JSON.stringify({ keys: [jwk, jwk] }), 'a different kid in each key'],
    [JSON.stringify({ keys: [secret] }), 'public keys only, since anyone who can read a private key can sign tokens'],
    [
      JSON.stringify({ keys: [{ kty: 'oct', k: 'c2VjcmV0', kid }] }),
      'public keys only, since anyone who can read a private key can sign tokens',
    ],
    [JSON.stringify({ keys: [{ ...jwk, x: '!' }] }), 'a valid public key with the kid "a"'],
  ]
  for (const [content, message] of refused) {
    t.throws(() => parseJwks(content), { message }, content.slice(0, 40))
    const dir = t.testdir({ 'jwks.json': content })
    await t.rejects(startAuthApp(t, { config: { auth: jwks(`${dir}/jwks.json`, ISSUER) } }), {
      name: 'ConfigError',
      message: `KAFSCALE_MCP_AUTH_JWKS_FILE is "${dir}/jwks.json": expected ${message}`,
    })
  }
})
