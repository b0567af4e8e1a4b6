import { createPublicKey, type JsonWebKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { FastifyBaseLogger } from 'fastify'
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'
import { watchFile } from '../../lib/watched-file.ts'

/**
 * Public keys from a JWKS file, and again whenever it changes. A new version that is broken is not taken.
 * @throws an `Error` whose message says what was expected
 */
export async function keysFromFile (
  path: string,
  { onChange, log, signal }: { onChange: () => void, log: FastifyBaseLogger, signal: AbortSignal }
): Promise<JWTVerifyGetKey> {
  const content = await readFile(path)
  let keys = createLocalJWKSet(parseJwks(content))
  void watchFile(path, content, content => {
    try {
      keys = createLocalJWKSet(parseJwks(content))
      onChange()
      log.info({ file: path }, 'the keys of tokens have been read anew')
    } catch (error) {
      log.error(
        { file: path, reason: `expected ${(error as Error).message}` },
        'the new keys of tokens are not taken: the old ones stay'
      )
    }
  }, signal)
  return (header, token) => keys(header, token)
}

/** A JWKS of public keys, each with a `kid` of its own. @throws an `Error` whose message says what was expected */
export function parseJwks (content: Buffer | string): JSONWebKeySet {
  const keys = keysOf(content)
  if (keys.length === 0) throw new Error('a JWKS with at least one key')
  for (const key of keys) {
    if (typeof key.kid !== 'string' || key.kid === '') throw new Error('a kid in each key')
    if (key.kty === 'oct' || 'd' in key) throw new Error('public keys only: whoever reads the file could sign')
    try {
      createPublicKey({ key: key as JsonWebKey, format: 'jwk' })
    } catch {
      throw new Error(`a public key under the kid ${JSON.stringify(key.kid)}`)
    }
  }
  if (new Set(keys.map(({ kid }) => kid)).size < keys.length) throw new Error('another kid in each key')
  return { keys }
}

function keysOf (content: Buffer | string): JSONWebKeySet['keys'] {
  try {
    const { keys } = JSON.parse(String(content)) as JSONWebKeySet
    if (keys.every(key => typeof key === 'object' && key !== null)) return keys
  } catch {}
  throw new Error('a JWKS: a JSON object with keys')
}
