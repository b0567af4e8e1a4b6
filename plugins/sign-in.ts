/** Signs people in at the issuer, for the pages: the authorization code flow of OpenID Connect. */
import { randomUUID } from 'node:crypto'
import fp from 'fastify-plugin'
import {
  allowInsecureRequests, authorizationCodeGrant, AuthorizationResponseError, buildAuthorizationUrl,
  calculatePKCECodeChallenge, type Configuration, type CustomFetch, customFetch, discovery, enableNonRepudiationChecks,
  randomNonce, randomPKCECodeVerifier, randomState
} from 'openid-client'
import { SignInFailed, SignInUnavailable } from '../errors.ts'
import { clientSecret, describeFailure } from './auth/issuer.ts'
import { LEEWAY_S } from './auth/jwt.ts'
import { type Principal, visitorPrincipal } from './auth/principal.ts'
import { resourceUrl } from './auth/resource.ts'
import type { Config } from './config/read.ts'
import { variableOf } from './config/schema.ts'
import { reveal, type Secret } from './config/secret.ts'
import { fetchOutbound } from './outbound.ts'

declare module 'fastify' {
  interface FastifyInstance { signIn: SignIn }
}

const REQUEST_TIMEOUT_MS = 5_000
/** How old a sign-in may be with which somebody decides on a change. */
export const DECIDING_MAX_AGE_S = 300

/** A sign-in that has begun: what the issuer's answer must match. */
export interface SignInAttempt {
  state: string
  nonce: string
  verifier: string
  recency: Recency
}

/**
 * When the issuer must have asked for the credentials: `any`; `recent`, at most 5 minutes ago, so that somebody who is
 * signed in there at once can decide at once; or `now`.
 */
export type Recency = 'any' | 'recent' | 'now'

/** Somebody who has signed in. */
export interface SignedIn {
  principal: Principal
  /** When the issuer asked for the credentials, in seconds since the epoch; `null` if it does not say. */
  authTime: number | null
}

export interface SignIn {
  /** @throws {SignInUnavailable} */
  begin: (recency: Recency) => Promise<{ url: URL, attempt: SignInAttempt }>
  /** @throws {SignInFailed} {SignInUnavailable} */
  finish: (query: string, attempt: SignInAttempt) => Promise<SignedIn>
}

/** What the pages need. */
export interface PageSettings {
  issuer: string
  clientId: string
  clientSecret: Secret
  /** Without a slash at the end. */
  publicUrl: string
  /** In base64, the current key first. */
  sessionKeys: readonly Secret[]
}

/** Undefined unless everything is set that the pages need. */
export function pageSettings ({ auth, publicUrl, changes }: Config): PageSettings | undefined {
  if (!changes?.sessionKeys || publicUrl === undefined || auth.mode !== 'oidc') return undefined
  const { issuers: [issuer], introspection: client } = auth
  if (issuer === undefined || !client) return undefined
  return {
    issuer,
    clientId: client.clientId,
    clientSecret: client.clientSecret,
    publicUrl: publicUrl.replace(/\/$/, ''),
    sessionKeys: changes.sessionKeys,
  }
}

/**
 * Decorates the app with `signIn`, if everything is set that the pages need. People sign in at the first issuer: the
 * client is registered there, and no other may see its secret.
 */
export default fp(async function signIn (app) {
  const settings = pageSettings(app.config)
  if (!settings) return
  const { issuer, clientId, publicUrl } = settings
  const fetch = fetchOutbound(app.config)
  const redirectUri = `${publicUrl}/sign-in/callback`
  let known: Configuration | undefined

  async function server (): Promise<Configuration> {
    if (known) return known
    const url = new URL(issuer)
    const auth = clientSecret(reveal(settings!.clientSecret), as => as.token_endpoint_auth_methods_supported)
    try {
      const found = await discovery(url, clientId, undefined, auth, {
        [customFetch]: fetch as CustomFetch,
        timeout: REQUEST_TIMEOUT_MS / 1_000,
        execute: [enableNonRepudiationChecks, ...url.protocol === 'http:' ? [allowInsecureRequests] : []],
      })
      known = found
    } catch (error) {
      app.log.warn({ issuer, ...describeFailure(error) }, 'the issuer cannot be reached, so nobody can sign in')
      throw new SignInUnavailable('the issuer does not answer')
    }
    return known
  }

  app.decorate<SignIn>('signIn', {
    async begin (recency) {
      const config = await server()
      requireSameSubjects(config)
      const attempt = { state: randomState(), nonce: randomNonce(), verifier: randomPKCECodeVerifier(), recency }
      const url = buildAuthorizationUrl(config, {
        redirect_uri: redirectUri,
        scope: 'openid',
        state: attempt.state,
        nonce: attempt.nonce,
        code_challenge: await calculatePKCECodeChallenge(attempt.verifier),
        code_challenge_method: 'S256',
        ...recency !== 'any' && { max_age: String(DECIDING_MAX_AGE_S) },
        ...recency === 'now' && { prompt: 'login' },
      })
      return { url, attempt }
    },

    async finish (query, { state, nonce, verifier, recency }) {
      const config = await server()
      const answer = await authorizationCodeGrant(config, new URL(`${redirectUri}?${query}`), {
        expectedState: state,
        expectedNonce: nonce,
        pkceCodeVerifier: verifier,
        idTokenExpected: true,
      }).catch((error: unknown) => { throw refusal(error) })
      const { sub, iss, auth_time: authTime = null, ...claims } = answer.claims() ?? {}
      if (sub === undefined || iss === undefined) throw new SignInFailed('the issuer sent no ID token')
      if (authTime === null && recency === 'now') {
        throw new SignInFailed('the issuer does not say when it asked for your credentials: an operator must make it ' +
          'add auth_time to its ID tokens')
      }
      if (authTime !== null && authTime > Date.now() / 1_000 + LEEWAY_S) {
        throw new SignInFailed('by its clock, the issuer has asked for your credentials in the future')
      }
      return {
        principal: visitorPrincipal({
          subject: sub, issuer: iss, clientId, tokenId: randomUUID(), claims: { ...claims, sub, iss },
        }),
        authTime,
      }
    },
  })

  /**
   * A requester who signs in must be recognized: the issuer must give all clients the same subject, or the requester's
   * tokens must be for the client of the pages.
   */
  function requireSameSubjects (config: Configuration): void {
    const { subject_types_supported: types } = config.serverMetadata() as { subject_types_supported?: string[] }
    const { auth } = app.config
    const audiences = (auth.mode === 'oidc' && auth.audiences) || [resourceUrl(app)]
    if (!types || types.includes('public') || audiences.every(audience => audience === clientId)) return
    app.log.error(
      { issuer },
      'the issuer gives each client another subject, so nobody could tell that an approver is the requester: ' +
        `expected ${variableOf('oidcAudience')} to be the client ${variableOf('oidcClientId')}`
    )
    throw new SignInUnavailable(
      'the issuer gives each client another subject, so approver and requester cannot be told apart, unless ' +
      `${variableOf('oidcAudience')} is the client ${variableOf('oidcClientId')}`
    )
  }

  function refusal (error: unknown): Error {
    const { code, status, reason } = describeFailure(error)
    app.log.warn({ issuer, code, status, reason }, 'somebody could not sign in')
    if (error instanceof AuthorizationResponseError) {
      return new SignInFailed(error.error === 'access_denied'
        ? 'the issuer says that you have cancelled it, or may not use this service'
        : 'the issuer refuses the request of this service')
    }
    if (code === 'invalid_grant') {
      return new SignInFailed('the answer of the issuer has been used already, or came too late')
    }
    if (status === undefined) return new SignInUnavailable('the issuer does not answer')
    if (status === 401 || code === 'invalid_client' || code === 'unauthorized_client') {
      return new SignInUnavailable('the issuer refuses the client of this service')
    }
    if (status >= 500) return new SignInUnavailable('the issuer answers with an error')
    return new SignInFailed('the answer of the issuer is not valid for this sign-in')
  }
}, { name: 'sign-in', dependencies: ['config'] })
