import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import { createRemoteJWKSet, errors, type JWTPayload, type JWTVerifyGetKey, type RemoteJWKSet } from 'jose'
import {
  allowInsecureRequests, type ClientAuth, ClientSecretBasic, ClientSecretPost, type Configuration,
  discovery, None, tokenIntrospection
} from 'openid-client'
import { Unverifiable } from '../../errors.ts'
import { quote } from '../../lib/printable.ts'
import { isConfidential } from '../config/auth-mode.ts'

const REQUEST_TIMEOUT_MS = 5_000
/** Also how long a key that the issuer has withdrawn is still taken. */
const KEYS_MAX_AGE_MS = 300_000
/** An unknown `kid` costs the issuer no more than a request in so long, whoever invents them. */
const UNKNOWN_KEY_INTERVAL_MS = 30_000
const FIRST_RETRY_MS = 1_000
/** One that does not answer is left alone for so long, whoever asks. */
const SILENCE_MS = 1_000
const MAX_RETRY_MS = 30_000

interface Options {
  /** With which opaque tokens are introspected. */
  client?: { id: string, secret: string } | undefined
  onKeysChange: () => void
  log: FastifyBaseLogger
}

/**
 * One issuer of tokens, as its discovery document describes it. While it is down, its last keys serve; until it was up
 * once, nothing of it can be verified.
 */
export class Issuer {
  readonly identifier: string
  readonly #options: Options
  #server: Configuration | undefined
  #jwks: RemoteJWKSet | undefined
  #refreshing: Promise<void> | undefined
  #attemptedAtMs = -Infinity
  #reachable: boolean | undefined
  #silentSinceMs = -Infinity

  constructor (identifier: string, options: Options) {
    this.identifier = identifier
    this.#options = options
  }

  /** Discovers the issuer and keeps its keys fresh, until the signal ends it. */
  async follow (signal: AbortSignal): Promise<void> {
    let retryMs = FIRST_RETRY_MS
    while (!signal.aborted) {
      await this.#refresh()
      await delay(this.#reachable ? KEYS_MAX_AGE_MS : retryMs, undefined, { signal, ref: false }).catch(() => {})
      retryMs = this.#reachable ? FIRST_RETRY_MS : Math.min(2 * retryMs, MAX_RETRY_MS)
    }
  }

  /** The key that a token's header names, among the issuer's. @throws {Unverifiable} when they are not known yet */
  readonly key: JWTVerifyGetKey = async (header, token) => {
    const { jwks } = await this.#known()
    try {
      return await jwks(header, token)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || !await this.#refreshed()) throw error
      return await jwks(header, token)
    }
  }

  /** What the issuer says of a token; `undefined` when it isn't active, or may be asked of none. @throws {Unverifiable} when it doesn't answer */
  async introspect (token: string): Promise<JWTPayload | undefined> {
    const { server } = await this.#known()
    if (server.serverMetadata().introspection_endpoint === undefined) return undefined
    if (performance.now() - this.#silentSinceMs < SILENCE_MS) throw new Unverifiable('its issuer does not answer')
    try {
      const { active, ...claims } = await tokenIntrospection(server, token, { token_type_hint: 'access_token' })
      return active ? claims as JWTPayload : undefined
    } catch (error) {
      this.#silentSinceMs = performance.now()
      this.#options.log.warn({ issuer: this.identifier, reason: reasonOf(error) }, 'a token could not be introspected')
      throw new Unverifiable('its issuer does not answer')
    }
  }

  async #known (): Promise<{ server: Configuration, jwks: RemoteJWKSet }> {
    if (!this.#jwks?.fresh) await this.#refreshing
    if (!this.#server || !this.#jwks?.fresh) throw new Unverifiable('its issuer has not been reached yet')
    return { server: this.#server, jwks: this.#jwks }
  }

  /** Whether the keys have been asked for anew. */
  async #refreshed (): Promise<boolean> {
    if (!this.#refreshing && performance.now() - this.#attemptedAtMs < UNKNOWN_KEY_INTERVAL_MS) return false
    await this.#refresh()
    return true
  }

  #refresh (): Promise<void> {
    this.#refreshing ??= this.#load().finally(() => { this.#refreshing = undefined })
    return this.#refreshing
  }

  async #load (): Promise<void> {
    const { log, onKeysChange } = this.#options
    this.#attemptedAtMs = performance.now()
    try {
      this.#server ??= await this.#discover()
      // When to ask again is decided here: jose would ask whenever it has failed, and forget the keys that it has.
      this.#jwks ??= createRemoteJWKSet(new URL(this.#server.serverMetadata().jwks_uri as string),
        { timeoutDuration: REQUEST_TIMEOUT_MS, cooldownDuration: Infinity, cacheMaxAge: Infinity })
      const before = JSON.stringify(this.#jwks.jwks())
      await this.#jwks.reload()
      if (before !== undefined && JSON.stringify(this.#jwks.jwks()) !== before) onKeysChange()
      if (!this.#reachable) log.info({ issuer: this.identifier }, 'the issuer of tokens is known')
      this.#reachable = true
    } catch (error) {
      if (this.#reachable !== false) {
        log.warn({ issuer: this.identifier, reason: reasonOf(error) }, 'the issuer of tokens is not reached')
      }
      this.#reachable = false
    }
  }

  async #discover (): Promise<Configuration> {
    const url = new URL(this.identifier)
    const { client } = this.#options
    const options = {
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
      throw new Error(`it calls itself ${quote(issuer)}: KAFSCALE_MCP_OIDC_ISSUER must say exactly that`)
    }
    if (jwksUri === undefined || !isConfidential(jwksUri)) throw new Error('it names no https URL of its keys')
    return server
  }
}

/** By HTTP Basic, as RFC 6749 wants every server to take it, unless the server says that it doesn't. */
function clientSecret (secret: string): ClientAuth {
  const basic = ClientSecretBasic(secret)
  const post = ClientSecretPost(secret)
  return (as, ...rest) => {
    const methods = as.introspection_endpoint_auth_methods_supported ?? as.token_endpoint_auth_methods_supported
    return (methods?.includes('client_secret_basic') ?? true ? basic : post)(as, ...rest)
  }
}

/** What a log says of a failed request: neither the request nor the response, which hold secrets. */
function reasonOf (error: unknown): string {
  // Of what is no JSON it shows some, and that may be a token.
  if (error instanceof SyntaxError) return 'the answer is no JSON'
  const { message, cause } = error as Error
  return cause instanceof Error ? `${message}: ${reasonOf(cause)}` : message
}
