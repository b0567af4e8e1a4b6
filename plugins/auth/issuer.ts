import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import {
  createRemoteJWKSet, customFetch as joseFetch, errors, type JWTPayload, type JWTVerifyGetKey, type RemoteJWKSet
} from 'jose'
import {
  allowInsecureRequests,
  type ClientAuth,
  ClientSecretBasic,
  ClientSecretPost,
  Configuration,
  type CustomFetch,
  customFetch,
  discovery,
  None,
  ResponseBodyError,
  tokenIntrospection,
  WWWAuthenticateChallengeError,
} from 'openid-client'
import { Unauthenticated, Unverifiable } from '../../errors.ts'
import { isConfidential } from '../../lib/address.ts'
import { quote } from '../../lib/printable.ts'
import { variableOf } from '../config/schema.ts'

const REQUEST_TIMEOUT_MS = 5_000
/** Also how long a key is accepted after the issuer has withdrawn it. */
const KEYS_MAX_AGE_MS = 300_000
/** Tokens with an unknown `kid`, which anyone can invent, cause at most one request to the issuer in this time. */
const UNKNOWN_KEY_INTERVAL_MS = 30_000
const FIRST_RETRY_MS = 1_000
const MAX_RETRY_MS = 30_000
/** After an introspection without an answer, the issuer is not asked again for this long. */
const INTROSPECTION_PAUSE_MS = 1_000
/** Of opaque tokens, which issuers keep short. Longer ones would be answered with an error of the issuer's server. */
const MAX_OPAQUE_LENGTH = 8_192
/** Errors of an introspection that are about the client as which the service asks. */
const ABOUT_THE_CLIENT = new Set(['invalid_client', 'unauthorized_client'])
/** Statuses below 500 that are about the service, its credentials or its rate, and not about the token. */
const ABOUT_THE_SERVICE = new Set([401, 403, 407, 408, 429])

interface Options {
  /** The client that introspects opaque tokens. */
  client?: { id: string, secret: string } | undefined
  /** Where the keys are. Then nothing is discovered. */
  jwksUrl?: string | undefined
  /** Where opaque tokens are introspected, in place of the endpoint that the issuer names. */
  introspectionUrl?: string | undefined
  /** Called when the issuer has published other keys than before. */
  onKeysChange: () => void
  /** Sends every request to the issuer. */
  fetch: typeof fetch
  log: FastifyBaseLogger
}

/** The issuer's keys, and its endpoints, of which only that for introspection is used. */
interface Discovered { server: Configuration | undefined, jwks: RemoteJWKSet }

/** Whether an issuer answers. Reasons contain codes and statuses, but no addresses. */
export interface IssuerState {
  issuer: string
  state: 'connecting' | 'reachable' | 'unreachable'
  reason?: string
  /** The last introspection that was about the service; absent if none failed since. */
  introspection?: { state: 'failing', reason: string }
}

/**
 * A token issuer, known through its discovery document or its configured addresses. While it is unreachable, its last
 * keys stay in use. Until it has been reached once, none of its tokens can be verified.
 */
export class Issuer {
  readonly identifier: string
  readonly #options: Options
  #discovered: Discovered | undefined
  #refreshing: Promise<void> | undefined
  #refreshedAtMs = -Infinity
  #reachable: boolean | undefined
  #failure: Failure | undefined
  #introspectionFailure: Failure | undefined
  /** The status of the last answer to a request for keys, which the errors of jose lack. */
  #keysStatus: number | undefined
  #unansweredAtMs = -Infinity

  constructor (identifier: string, options: Options) {
    this.identifier = identifier
    this.#options = options
  }

  get state (): IssuerState {
    const state = this.#reachable === undefined ? 'connecting' : this.#reachable ? 'reachable' : 'unreachable'
    return {
      issuer: this.identifier,
      state,
      ...this.#failure && { reason: summaryOf(this.#failure) },
      ...this.#introspectionFailure && {
        introspection: { state: 'failing' as const, reason: summaryOf(this.#introspectionFailure) },
      },
    }
  }

  /** Discovers the issuer and keeps its keys current, until the signal aborts. */
  async follow (signal: AbortSignal): Promise<void> {
    let retryMs = FIRST_RETRY_MS
    while (!signal.aborted) {
      await this.#refresh()
      await delay(this.#reachable ? KEYS_MAX_AGE_MS : retryMs, undefined, { signal, ref: false }).catch(() => {})
      retryMs = this.#reachable ? FIRST_RETRY_MS : Math.min(2 * retryMs, MAX_RETRY_MS)
    }
  }

  /** Selects the issuer's key that a token's header names. @throws {Unverifiable} while the keys are unknown */
  readonly key: JWTVerifyGetKey = async (header, token) => {
    const { jwks } = await this.#known()
    try {
      return await jwks(header, token)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || !await this.#refreshForUnknownKey()) throw error
      return await jwks(header, token)
    }
  }

  /**
   * The claims of an opaque token, from the issuer; undefined when the token is not active or the issuer has no
   * introspection endpoint. Only silence of the issuer holds up other tokens: an answer may be about this one.
   * @throws {Unauthenticated} when the token is too long, or the issuer's answer to it is an error or malformed
   * @throws {Unverifiable} when the issuer does not answer, or refuses the service
   */
  async introspect (token: string): Promise<JWTPayload | undefined> {
    if (token.length > MAX_OPAQUE_LENGTH) {
      throw new Unauthenticated(
        `the token is longer than the accepted ${MAX_OPAQUE_LENGTH} characters`,
        'invalid_token'
      )
    }
    const { server } = await this.#known()
    if (server?.serverMetadata().introspection_endpoint === undefined) return undefined
    if (performance.now() - this.#unansweredAtMs < INTROSPECTION_PAUSE_MS) {
      throw new Unverifiable('its issuer does not answer')
    }
    try {
      const { active, ...claims } = await tokenIntrospection(server, token, { token_type_hint: 'access_token' })
      this.#introspectionFailure = undefined
      return active ? claims as JWTPayload : undefined
    } catch (error) {
      const failure = failureOf(error)
      const { status, refusesClient } = failure
      const aboutToken = status !== undefined && !refusesClient && !ABOUT_THE_SERVICE.has(status) &&
        (status < 300 || (status >= 400 && status < 500))
      this.#introspectionFailure = aboutToken ? undefined : failure
      this.#options.log[aboutToken ? 'info' : 'warn'](
        { issuer: this.identifier, ...detailsOf(failure) },
        refusesClient ? CLIENT_REFUSED : 'a token could not be introspected'
      )
      if (aboutToken) throw new Unauthenticated('the token is not understood by its issuer', 'invalid_token')
      if (refusesClient) throw new Unverifiable('its issuer refuses the client credentials of this service')
      if (status !== undefined) throw new Unverifiable('its issuer answers with an error')
      this.#unansweredAtMs = performance.now()
      throw new Unverifiable('its issuer does not answer')
    }
  }

  async #known (): Promise<Discovered> {
    if (!this.#discovered?.jwks.fresh) await this.#refreshing
    if (!this.#discovered?.jwks.fresh) throw new Unverifiable('its issuer has not been reached yet')
    return this.#discovered
  }

  /** Resolves to false when the keys were requested too recently. */
  async #refreshForUnknownKey (): Promise<boolean> {
    if (!this.#refreshing && performance.now() - this.#refreshedAtMs < UNKNOWN_KEY_INTERVAL_MS) return false
    await this.#refresh()
    return true
  }

  #refresh (): Promise<void> {
    this.#refreshing ??= this.#load().finally(() => { this.#refreshing = undefined })
    return this.#refreshing
  }

  async #load (): Promise<void> {
    const { log, onKeysChange } = this.#options
    this.#refreshedAtMs = performance.now()
    this.#keysStatus = undefined
    try {
      this.#discovered ??= await this.#discover()
      const { jwks } = this.#discovered
      const before = JSON.stringify(jwks.jwks())
      await jwks.reload()
      if (before !== undefined && JSON.stringify(jwks.jwks()) !== before) onKeysChange()
      if (!this.#reachable) log.info({ issuer: this.identifier }, 'the token issuer has been reached')
      this.#reachable = true
      this.#failure = undefined
    } catch (error) {
      const failure = failureOf(error)
      if (this.#keysStatus !== undefined && this.#keysStatus !== 200) failure.status = this.#keysStatus
      const last = this.#failure
      // Again if it fails in another way.
      if (!last || failure.code !== last.code || failure.status !== last.status) {
        log.warn({ issuer: this.identifier, ...detailsOf(failure) }, 'the token issuer cannot be reached')
      }
      this.#failure = failure
      this.#reachable = false
    }
  }

  async #discover (): Promise<Discovered> {
    const { jwksUrl, introspectionUrl } = this.#options
    if (jwksUrl !== undefined) {
      return {
        server: introspectionUrl === undefined ? undefined : this.#introspectionAt(introspectionUrl),
        jwks: this.#keysAt(jwksUrl),
      }
    }
    const { server, jwksUri } = await this.#discoverServer()
    return {
      server: introspectionUrl === undefined ? server : this.#introspectionAt(introspectionUrl, server),
      jwks: this.#keysAt(jwksUri),
    }
  }

  async #discoverServer (): Promise<{ server: Configuration, jwksUri: string }> {
    const url = new URL(this.identifier)
    const { client, fetch } = this.#options
    const options = {
      [customFetch]: fetch as CustomFetch,
      timeout: REQUEST_TIMEOUT_MS / 1_000,
      execute: url.protocol === 'http:' ? [allowInsecureRequests] : [],
    }
    const discover = (algorithm: 'oidc' | 'oauth2') =>
      discovery(url, client?.id ?? 'kafscale-mcp', undefined, client ? introspectingClient(client.secret) : None(), {
        ...options,
        algorithm,
      })
    const server = await discover('oidc').catch(error =>
      discover('oauth2').catch(() => {
        throw error
      })
    )
    const { issuer, jwks_uri: jwksUri } = server.serverMetadata()
    if (issuer !== this.identifier) {
      throw new Error(`it identifies itself as ${quote(issuer)}: set KAFSCALE_MCP_OIDC_ISSUER to exactly that`)
    }
    if (jwksUri === undefined || !isConfidential(jwksUri)) throw new Error('its metadata has no https URL of its keys')
    return { server, jwksUri }
  }

  #keysAt (url: string): RemoteJWKSet {
    // This class decides when to reload. jose itself would after each failure, and would drop the keys that it has.
    return createRemoteJWKSet(new URL(url), {
      timeoutDuration: REQUEST_TIMEOUT_MS,
      cooldownDuration: Infinity,
      cacheMaxAge: Infinity,
      [joseFetch]: async (url, options) => {
        const response = await this.#options.fetch(url, options)
        this.#keysStatus = response.status
        return response
      },
    })
  }

  /** An issuer with this endpoint for introspection, which need not be https. */
  #introspectionAt (url: string, discovered?: Configuration): Configuration {
    const { client } = this.#options
    const known = discovered?.serverMetadata()
    const methods = known?.introspection_endpoint_auth_methods_supported ?? known?.token_endpoint_auth_methods_supported
    const metadata = {
      issuer: this.identifier,
      introspection_endpoint: url,
      ...methods && { introspection_endpoint_auth_methods_supported: methods },
    }
    const auth = client ? introspectingClient(client.secret) : None()
    const server = new Configuration(metadata, client?.id ?? 'kafscale-mcp', undefined, auth)
    server[customFetch] = this.#options.fetch as CustomFetch
    server.timeout = REQUEST_TIMEOUT_MS / 1_000
    if (new URL(url).protocol === 'http:') allowInsecureRequests(server)
    return server
  }
}

const CLIENT_REFUSED = 'the token issuer refuses the client credentials of the service: ' +
  `${variableOf('oidcClientId')} or ${variableOf('oidcClientSecret')} is wrong`

/** How a request to an issuer failed. */
interface Failure {
  /** Of the answer; undefined when there was none, or not all of it. */
  status: number | undefined
  /** Of the network or TLS, such as `ECONNREFUSED`, or of OAuth, such as `invalid_client`. */
  code: string | undefined
  reason: string
  /** Whether the issuer refuses the service's own client. */
  refusesClient: boolean
}

/** Why a request to an issuer failed, for the log: without the request and the response, which contain secrets. */
export function describeFailure (error: unknown): { code?: string, status?: number, reason: string } {
  return detailsOf(failureOf(error))
}

function failureOf (error: unknown): Failure {
  const status = statusOf(error)
  const code = codeOf(error)
  const refusesClient = status !== undefined && (status === 401 || (code !== undefined && ABOUT_THE_CLIENT.has(code)))
  return { status, code, reason: reasonOf(error), refusesClient }
}

/** What the log shows of a failure. */
function detailsOf ({ status, code, reason }: Failure) {
  return { ...code !== undefined && { code }, ...status !== undefined && { status }, reason }
}

/** A failure in one sentence, without addresses. */
function summaryOf ({ status, code, refusesClient }: Failure): string {
  if (refusesClient) return CLIENT_REFUSED
  if (status !== undefined && status !== 200) return `the token issuer answers with HTTP ${status}`
  if (status === 200) return 'the answer of the token issuer is not valid: the log contains the reason'
  return `the token issuer cannot be reached${code === undefined ? '' : `: ${code}`}`
}

/** The most specific code of an error: that of its last cause, or that of an answer in OAuth. */
function codeOf (error: unknown): string | undefined {
  if (error instanceof ResponseBodyError) return error.error
  let found: string | undefined
  for (let each = error; each instanceof Error; each = each.cause) {
    const { code, name } = each as Error & { code?: unknown }
    if (typeof code === 'string') found = code
    else if (name === 'TimeoutError') found = 'TIMEOUT'
  }
  return found
}

function introspectingClient (secret: string): ClientAuth {
  return clientSecret(secret, as =>
    as.introspection_endpoint_auth_methods_supported ?? as.token_endpoint_auth_methods_supported)
}

/** HTTP Basic, which RFC 6749 requires servers to support, unless the server's metadata says that it does not. */
export function clientSecret (
  secret: string,
  methodsOf: (as: Parameters<ClientAuth>[0]) => string[] | undefined
): ClientAuth {
  const basic = ClientSecretBasic(secret)
  const post = ClientSecretPost(secret)
  return (as, ...rest) => (methodsOf(as)?.includes('client_secret_basic') ?? true ? basic : post)(as, ...rest)
}

/** The HTTP status of the answer that an error is about; undefined when there was none, or not all of it. */
function statusOf (error: unknown): number | undefined {
  if (error instanceof ResponseBodyError || error instanceof WWWAuthenticateChallengeError) return error.status
  for (let each = error; each instanceof Error; each = each.cause) {
    // What `fetch` throws: no connection, or a timeout.
    if (each instanceof TypeError || each instanceof DOMException) return undefined
    if (each.cause instanceof Response) return each.cause.status
  }
  return 200
}

/** Why a request failed, without the request and the response, which contain secrets. */
function reasonOf (error: unknown): string {
  // The message of a SyntaxError quotes the text, which may contain a token.
  if (error instanceof SyntaxError) return 'the answer is not JSON'
  const { message, cause } = error as Error
  return cause instanceof Error ? `${message}: ${reasonOf(cause)}` : message
}
