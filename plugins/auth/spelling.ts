import { hash } from 'node:crypto'
import { Unauthenticated } from '../../errors.ts'

/**
 * Whether a token is a JWT, signed or encrypted: it begins with a header in JSON. Read leniently, as an issuer may do
 * that introspects it.
 */
export function formOf (token: string): 'signed' | 'encrypted' | 'opaque' {
  const first = token.split('.').find(part => part !== '') ?? ''
  try {
    const header: unknown = JSON.parse(Buffer.from(first.replace(/[^\w+/-]/g, ''), 'base64').toString())
    if (typeof header !== 'object' || header === null) return 'opaque'
    return Object.hasOwn(header, 'enc') ? 'encrypted' : 'signed'
  } catch {
    return 'opaque'
  }
}

/**
 * Requires the only spelling of a JWT: its parts in base64url, without padding, characters that decoders skip, or bits
 * that they drop. Otherwise, the same token would have several digests.
 * @throws {Unauthenticated}
 */
export function requireCanonical (token: string, partCount: 3 | 5): void {
  const parts = token.split('.')
  if (
    parts.length !== partCount || parts.some(part => Buffer.from(part, 'base64url').toString('base64url') !== part)
  ) {
    throw new Unauthenticated(
      'the token is not a JWT in its only spelling: three parts in base64url, without padding or unused bits',
      'invalid_token'
    )
  }
}

/** A digest of a token. It leaves out the signature of a JWT: of an ECDSA signature, anyone can make a second one. */
export function fingerprint (token: string): string {
  const identifying = formOf(token) === 'signed' ? token.slice(0, token.lastIndexOf('.')) : token
  return hash('sha256', identifying, 'base64url')
}
