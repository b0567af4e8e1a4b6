import { RateLimited, Unauthenticated, Unverifiable } from '../../errors.ts'

/**
 * Why a request was not authenticated, as the values of a metric's label. `unverifiable`: the issuer does not answer.
 */
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
  if (error instanceof Unverifiable) return 'unverifiable'
  if (!(error instanceof Unauthenticated)) return 'internal'
  return error.expired ? 'expired_token' : error.bearerError ?? 'no_token'
}
