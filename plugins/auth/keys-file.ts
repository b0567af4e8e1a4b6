import { createPublicKey, type JsonWebKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { FastifyBaseLogger } from 'fastify'
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'
import { ConfigError } from '../../errors.ts'
import { watchFile } from '../../lib/watched-file.ts'
import { variableOf } from '../config/schema.ts'
import { quoteValue } from '../config/secret.ts'

interface Options {
  /** Called after each reload of changed keys. */
  onChange: () => void
  log: FastifyBaseLogger
  /** Ends the watching of the file. */
  signal: AbortSignal
}

/**
 * Selects keys from a JWKS file, which is reloaded when it changes. If the new content is invalid, the old keys stay.
 * @throws {ConfigError} when the content is invalid from the start
 */
export async function keysFromFile (path: string, { onChange, log, signal }: Options): Promise<JWTVerifyGetKey> {
  const content = await readFile(path)
  let keys = createLocalJWKSet(firstKeys(path, content))
  void watchFile(path, content, content => {
    try {
      keys = createLocalJWKSet(parseJwks(content))
      onChange()
      log.info({ file: path }, 'the token keys have been reloaded')
    } catch (error) {
      log.error(
        { file: path, reason: `expected ${(error as Error).message}` },
        'the new token keys are invalid: the old ones stay in use'
      )
    }
  }, signal)
  return (header, token) => keys(header, token)
}

function firstKeys (path: string, content: Buffer): JSONWebKeySet {
  try {
    return parseJwks(content)
  } catch (error) {
    throw new ConfigError(
      `${variableOf('authJwksFile')} is ${quoteValue(path)}: expected ${(error as Error).message}`
    )
  }
}

/** Parses a JWKS of public keys with distinct `kid`s. @throws an `Error` whose message says what was expected */
export function parseJwks (content: Buffer | string): JSONWebKeySet {
  const keys = keysOf(content)
  if (keys.length === 0) throw new Error('a JWKS with at least one key')
  for (const key of keys) {
    if (typeof key.kid !== 'string' || key.kid === '') throw new Error('a kid in each key')
    if (key.kty === 'oct' || 'd' in key) {
      throw new Error('public keys only, since anyone who can read a private key can sign tokens')
    }
    try {
      createPublicKey({ key: key as JsonWebKey, format: 'jwk' })
    } catch {
      throw new Error(`a valid public key with the kid ${JSON.stringify(key.kid)}`)
    }
  }
  if (new Set(keys.map(({ kid }) => kid)).size < keys.length) throw new Error('a different kid in each key')
  return { keys }
}

function keysOf (content: Buffer | string): JSONWebKeySet['keys'] {
  try {
    const { keys } = JSON.parse(String(content)) as JSONWebKeySet
    if (keys.every(key => typeof key === 'object' && key !== null)) return keys
  } catch {}
  throw new Error('a JWKS: a JSON object with keys')
}
