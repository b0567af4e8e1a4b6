import { RateLimited, Unauthenticated } from '../../errors.ts'

/** Why nobody knows who is asking, in as many words as a label may have. `unverifiable`: the issuer does not answer. */
export const AUTHENTICATION_FAILURES = [
  'no_token',
  'invalid_request',
  'invalid_token',
  'expired_token',
  'unverifiable',
  'rate_limited',
  'internal',
] as const
export type AuthenticationFailure = typeof AUTHENTICATION_FAILURES[number]

export function authenticationFailure (error: unknown): AuthenticationFailure {
  if (error instanceof RateLimited) return 'rate_limited'
  // `instanceof` goes by the code, which both errors of authentication have.
  if (!(error instanceof Unauthenticated)) return 'internal'
  const { statusCode, bearerError, expired } = error
  if (statusCode === 503) return 'unverifiable'
  return expired ? 'expired_token' : bearerError ?? 'no_token'
}
