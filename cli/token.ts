/** `kafscale-mcp token`: short-lived tokens without an identity provider. The service needs only the public key. */
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { calculateJwkThumbprint, exportJWK, type JWK, SignJWT } from 'jose'
import { UsageError } from '../errors.ts'
import { parseDuration } from '../lib/duration.ts'
import { quote } from '../lib/printable.ts'
import { parseJwks } from '../plugins/auth/keys-file.ts'

const MAX_TTL_MS = 3_600_000
const KEY_FILE = 'kafscale-mcp-token.key'
const JWKS_FILE = 'kafscale-mcp-jwks.json'
const ISSUER = 'kafscale-mcp'
const AUDIENCE = 'http://127.0.0.1:8090/mcp'
/** Claims that the command sets itself, some of them from an option of their own. */
const OWN_CLAIMS = new Set(['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'scope'])

const USAGE = `Usage:
  kafscale-mcp token keygen [--key FILE] [--jwks FILE]
      Writes a new private key (default ${KEY_FILE}, mode 0600) and adds its public key to the JWKS
      (default ${JWKS_FILE}), which the service reads as KAFSCALE_MCP_AUTH_JWKS_FILE.
  kafscale-mcp token issue --subject SUBJECT [--ttl 15m] [--scope SCOPE]... [--claim NAME=VALUE]...
                           [--key FILE] [--issuer ISSUER] [--audience RESOURCE]
      Prints a token that is valid for --ttl, one hour at most. --issuer must be the KAFSCALE_MCP_AUTH_JWKS_ISSUER of
      the service (default ${ISSUER}), and --audience its resource, {PUBLIC_URL}/mcp
      (default ${AUDIENCE}). A --claim that is given more than once becomes a list.
`

/** Runs `token keygen` or `token issue`. Resolves to the exit code: 0 success, 1 failure, 2 invalid usage. */
export async function token ([command, ...options]: string[]): Promise<number> {
  try {
    switch (command) {
      case 'keygen':
        return await keygen(options)
      case 'issue':
        return await issue(options)
      case '--help':
      case '-h':
        process.stdout.write(USAGE)
        return 0
      default:
        throw new UsageError(
          command === undefined ? 'a command is missing' : `unknown command ${quote(command)}`
        )
    }
  } catch (error) {
    const invalidUsage = error instanceof UsageError ||
      String((error as NodeJS.ErrnoException).code).startsWith('ERR_PARSE_ARGS')
    process.stderr.write(`kafscale-mcp token: ${(error as Error).message}\n${invalidUsage ? USAGE : ''}`)
    return invalidUsage ? 2 : 1
  }
}

async function keygen (args: string[]): Promise<number> {
  const { values: { key: keyFile, jwks: jwksFile } } = parseArgs({
    args, options: { key: { type: 'string', default: KEY_FILE }, jwks: { type: 'string', default: JWKS_FILE } },
  })
  // Existing keys stay, so that tokens they have signed remain valid until they expire.
  const keys = existsSync(jwksFile) ? readKeys(jwksFile) : []
  const { privateKey } = generateKeyPairSync('ed25519')
  const key = await publicJwk(privateKey)
  writeNew(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const unfinished = `${jwksFile}.${process.pid}`
  writeFileSync(unfinished, `${JSON.stringify({ keys: [...keys, key] }, undefined, 2)}\n`)
  renameSync(unfinished, jwksFile)
  process.stdout.write(
    `Private key: ${keyFile} (keep it off the service's host)\n` +
    `Public keys: ${jwksFile} (KAFSCALE_MCP_AUTH_JWKS_FILE)\n` +
    `kid: ${key.kid}\n`
  )
  return 0
}

async function issue (args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      key: { type: 'string', default: KEY_FILE },
      subject: { type: 'string' },
      ttl: { type: 'string', default: '15m' },
      scope: { type: 'string', multiple: true },
      claim: { type: 'string', multiple: true, default: [] },
      issuer: { type: 'string', default: ISSUER },
      audience: { type: 'string', default: AUDIENCE },
    },
  })
  const { key: keyFile, subject, scope, claim, issuer, audience } = values
  if (!subject) throw new UsageError('--subject is not set: expected the subject of the token')
  const lifetimeS = parseTtl(values.ttl)
  const claims = parseClaims(claim)
  const privateKey = readPrivateKey(keyFile)
  const { kid } = await publicJwk(privateKey)
  const issuedAtS = Math.floor(Date.now() / 1_000)
  const jwt = await new SignJWT({ ...claims, ...scope && { scope: scope.join(' ') } })
    .setProtectedHeader({ alg: 'EdDSA', typ: 'at+jwt', kid: kid as string })
    .setIssuer(issuer).setSubject(subject).setAudience(audience).setJti(randomUUID())
    .setIssuedAt(issuedAtS).setExpirationTime(issuedAtS + lifetimeS)
    .sign(privateKey)
  process.stdout.write(`${jwt}\n`)
  return 0
}

function parseTtl (text: string): number {
  const expected = `--ttl is ${quote(text)}: expected a duration such as 15m, from 1s to 1h`
  try {
    const ttlMs = parseDuration(text)
    if (ttlMs >= 1_000 && ttlMs <= MAX_TTL_MS) return Math.floor(ttlMs / 1_000)
  } catch {}
  throw new UsageError(expected)
}

function parseClaims (pairs: string[]): Record<string, string | string[]> {
  const claims = new Map<string, string[]>()
  for (const pair of pairs) {
    const [, name, value] = /^([^=]+)=(.*)$/s.exec(pair) ?? []
    if (name === undefined || value === undefined) {
      throw new UsageError(`--claim is ${quote(pair)}: expected name=value`)
    }
    if (OWN_CLAIMS.has(name)) {
      throw new UsageError(`--claim is ${quote(pair)}: expected a claim that the command does not set itself`)
    }
    claims.set(name, [...claims.get(name) ?? [], value])
  }
  return Object.fromEntries(
    [...claims].map(([name, values]) => [name, values.length === 1 ? values[0] as string : values])
  )
}

function readPrivateKey (file: string): KeyObject {
  const content = readFileSync(file)
  try {
    const key = createPrivateKey(content)
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch {}
  throw new Error(`${file}: expected an Ed25519 private key in PEM, as written by keygen`)
}

function readKeys (file: string): JWK[] {
  try {
    return parseJwks(readFileSync(file)).keys
  } catch (error) {
    throw new Error(`${file}: expected ${(error as Error).message}`)
  }
}

/** The public key, with its thumbprint (RFC 7638) as `kid`, which can thus be derived from the private key. */
async function publicJwk (privateKey: KeyObject): Promise<JWK> {
  const { kty, crv, x } = await exportJWK(privateKey) as { kty: string, crv: string, x: string }
  const jwk = { kty, crv, x }
  return { ...jwk, kid: await calculateJwkThumbprint(jwk), alg: 'EdDSA', use: 'sig' }
}

function writeNew (file: string, content: string | Buffer): void {
  try {
    writeFileSync(file, content, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'EEXIST'
      ? new Error(`${file} already exists: a private key is not overwritten`)
      : error
  }
}
