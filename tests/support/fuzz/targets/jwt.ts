import { generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import { createLocalJWKSet, exportJWK, type JWTHeaderParameters, type JWTPayload, SignJWT } from 'jose'
import { Unauthenticated } from '../../../../errors.ts'
import { type Claims, verifyJwt } from '../../../../plugins/auth/jwt.ts'
import { fingerprint } from '../../../../plugins/auth/spelling.ts'
import type { Target } from '../target.ts'

const EXPECTED = {
  issuer: 'https://id.example', audiences: ['us'], maxLifetimeMs: 3_600_000, acceptsIdTokens: false, onTooLong: () => {}
}
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const key = createLocalJWKSet({ keys: [{ ...await exportJWK(publicKey), kid: 'a', alg: 'ES256' }] })

async function sign (claims: object, header: object = {}): Promise<string> {
  const iat = Math.floor(Date.now() / 1_000)
  const { issuer: iss, audiences: aud } = EXPECTED
  return await new SignJWT({ iss, aud, sub: 'alice', iat, exp: iat + 600, ...claims } as JWTPayload)
    .setProtectedHeader({ ...header, alg: 'ES256', kid: 'a' } as JWTHeaderParameters).sign(privateKey)
}

/** The claims, or undefined when the token is refused. Whatever else is thrown is a finding. */
async function verify (token: string): Promise<Claims | undefined> {
  try {
    return await verifyJwt(token, key, EXPECTED)
  } catch (error) {
    if (error instanceof Unauthenticated) return undefined
    throw error
  }
}

// --- Other spellings

const BASE64 = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. \n\0é']
const edit = fc.record({
  /** From the end of a part, where the bits are that decoders drop. */
  part: fc.nat(2),
  back: fc.oneof(fc.constantFrom(0, 1), fc.nat(200)),
  remove: fc.nat(2),
  insert: fc.array(fc.constantFrom(...BASE64), { maxLength: 3 }),
})

interface Edit { part: number, back: number, remove: number, insert: string[] }

function edited (token: string, { part, back, remove, insert }: Edit): string {
  const parts = token.split('.')
  const changed = [...parts[part] as string]
  changed.splice(Math.max(0, changed.length - back), remove, ...insert)
  return parts.toSpliced(part, 1, changed.join('')).join('.')
}

// --- Other kinds of tokens

const ofAccessTokens = new Set(['at+jwt', 'application/at+jwt', 'jwt', 'application/jwt'])
const typ = fc.oneof(
  fc.constantFrom('at+jwt', 'AT+JWT', 'application/at+jwt', 'JWT', 'logout+jwt', 'secevent+jwt', 'ID', 'Bearer'),
  fc.string(),
  fc.jsonValue()
)
const kind = fc.oneof(
  fc.constantFrom('Bearer', 'ID', 'Refresh', 'Offline', 'Logout', 'id', 'access', 'refresh_token', 'id_token'),
  fc.jsonValue()
)
const marks = fc.record({
  typ: kind,
  token_use: kind,
  token_type: kind,
  nonce: fc.jsonValue(),
  at_hash: fc.jsonValue(),
  c_hash: fc.jsonValue(),
  events: fc.jsonValue(),
}, { requiredKeys: [] })

/** Whether an accepted token may be one, by rules that leave out the names in use by access tokens. */
function isPlausible (marks: Record<string, unknown>, header: unknown): boolean {
  const named = typeof header === 'string' ? header.toLowerCase() : header
  const declares = named === 'at+jwt' || named === 'application/at+jwt' ||
    (typeof marks['typ'] === 'string' && marks['typ'].toLowerCase() === 'bearer')
  return (header === undefined || (typeof named === 'string' && ofAccessTokens.has(named))) &&
    !['at_hash', 'c_hash', 'events'].some(name => name in marks) && (declares || !('nonce' in marks)) &&
    ['typ', 'token_use', 'token_type'].every(name => {
      const value = marks[name]
      return value === undefined || (typeof value === 'string' && !/^(?:id|refresh|offline|logout)/i.test(value))
    })
}

const garbage = fc.oneof(fc.string(), fc.array(fc.base64String(), { maxLength: 6 }).map(parts => parts.join('.')))
const claims = fc.dictionary(fc.constantFrom('iss', 'aud', 'sub', 'iat', 'exp', 'nbf', 'jti', 'scope'), fc.jsonValue())

export default {
  name: 'jwt',
  async run (seed) {
    const options = { seed, numRuns: 200 }
    const token = await sign({ filler: 'x'.repeat(seed % 3) })
    if (!await verify(token)) throw new Error('a valid token is refused')
    await fc.assert(
      fc.asyncProperty(edit, async edit => {
        const other = edited(token, edit)
        return other === token || await verify(other) === undefined
      }),
      options
    )
    await fc.assert(
      fc.asyncProperty(marks, fc.option(typ, { nil: undefined }), async (marks, typ) => {
        const accepted = await verify(await sign(marks, typ === undefined ? {} : { typ }))
        return accepted === undefined || isPlausible(marks, typ)
      }),
      options
    )
    await fc.assert(
      fc.asyncProperty(claims, async claims => {
        const accepted = await verify(await sign(claims))
        return accepted === undefined || (
          accepted.iss === EXPECTED.issuer &&
          [accepted.aud].flat().some(aud => EXPECTED.audiences.includes(String(aud))) &&
          typeof accepted.sub === 'string' && accepted.sub !== '' &&
          (accepted.exp - Number(accepted.iat)) * 1_000 <= EXPECTED.maxLifetimeMs
        )
      }),
      options
    )
    await fc.assert(
      fc.asyncProperty(garbage, async text => await verify(text) === undefined && fingerprint(text).length === 43),
      options
    )
  },
} satisfies Target
