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
  type Configuration,
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
/** Statuses below 500 that are about the service, its credentials or its rate, and not about the token. */
const ABOUT_THE_SERVICE = new Set([401, 403, 407, 408, 429])

interface Options {
  /** The client that introspects opaque tokens. */
  client?: { id: string, secret: string } | undefined
  /** Called when the issuer has published other keys than before. */
  onKeysChange: () => void
  /** Sends every request to the issuer. */
  fetch: typeof fetch
  log: FastifyBaseLogger
}

/** What discovery has found out: the issuer's endpoints and its keys. */
interface Discovered { server: Configuration, jwks: RemoteJWKSet }

/**
 * A token issuer, known through its discovery document. While it is unreachable, its last keys stay in use. Until it
 * has been reached once, none of its tokens can be verified.
 */
export class Issuer {
  readonly identifier: string
  readonly #options: Options
  #discovered: Discovered | undefined
  #refreshing: Promise<void> | undefined
  #refreshedAtMs = -Infinity
  #reachable: boolean | undefined
  #unansweredAtMs = -Infinity

  constructor (identifier: string, options: Options) {
    this.identifier = identifier
    this.#options = options
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
    if (server.serverMetadata().introspection_endpoint === undefined) return undefined
    if (performance.now() - this.#unansweredAtMs < INTROSPECTION_PAUSE_MS) {
      throw new Unverifiable('its issuer does not answer')
    }
    try {
      const { active, ...claims } = await tokenIntrospection(server, token, { token_type_hint: 'access_token' })
      return active ? claims as JWTPayload : undefined
    } catch (error) {
      const status = statusOf(error)
      const aboutToken = status !== undefined && !ABOUT_THE_SERVICE.has(status) &&
        (status < 300 || (status >= 400 && status < 500))
      this.#options.log[aboutToken ? 'info' : 'warn'](
        { issuer: this.identifier, status, reason: reasonOf(error) },
        'a token could not be introspected'
      )
      if (aboutToken) throw new Unauthenticated('the token is not understood by its issuer', 'invalid_token')
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
    try {
      this.#discovered ??= await this.#discover()
      const { jwks } = this.#discovered
      const before = JSON.stringify(jwks.jwks())
      await jwks.reload()
      if (before !== undefined && JSON.stringify(jwks.jwks()) !== before) onKeysChange()
      if (!this.#reachable) log.info({ issuer: this.identifier }, 'the token issuer has been reached')
      this.#reachable = true
    } catch (error) {
      if (this.#reachable !== false) {
        log.warn({ issuer: this.identifier, reason: reasonOf(error) }, 'the token issuer cannot be reached')
      }
      this.#reachable = false
    }
  }

  async #discover (): Promise<Discovered> {
    const url = new URL(this.identifier)
    const { client, fetch } = this.#options
    const options = {
      [customFetch]: fetch as CustomFetch,
      timeout: REQUEST_TIMEOUT_MS / 1_000,
      execute: url.protocol === 'http:' ? [allowInsecureRequests] : [],
    }
    const discover = (algorithm: 'oidc' | 'oauth2') =>
      discovery(url, client?.id ?? 'kafscale-mcp', undefined, client ? clientSecret(client.secret) : None(), {
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
    // This class decides when to reload. jose itself would after each failure, and would drop the keys that it has.
    const jwks = createRemoteJWKSet(new URL(jwksUri), {
      timeoutDuration: REQUEST_TIMEOUT_MS,
      cooldownDuration: Infinity,
      cacheMaxAge: Infinity,
      [joseFetch]: fetch,
    })
    return { server, jwks }
  }
}

/** HTTP Basic, which RFC 6749 requires servers to support, unless the server's metadata says that it does not. */
function clientSecret (secret: string): ClientAuth {
  const basic = ClientSecretBasic(secret)
  const post = ClientSecretPost(secret)
  return (as, ...rest) => {
    const methods = as.introspection_endpoint_auth_methods_supported ?? as.token_endpoint_auth_methods_supported
    return (methods?.includes('client_secret_basic') ?? true ? basic : post)(as, ...rest)
  }
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
