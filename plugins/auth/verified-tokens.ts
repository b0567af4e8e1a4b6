import type { Principal } from './principal.ts'

const MAX_TOKENS = 1_000

/** A token that has been accepted. */
export interface VerifiedToken {
  principal: Principal
  /** Until when the token is accepted without being verified again, in milliseconds since the epoch. */
  untilMs: number
}

/**
 * The principals of accepted tokens, by the digest of the token, so that each signature is verified once and not for
 * every call. Discard the cache when the keys change: it may hold tokens that only the old keys verify.
 */
export class VerifiedTokens {
  readonly #verified = new Map<string, VerifiedToken>()
  readonly #pending = new Map<string, Promise<Principal>>()

  get (digest: string): Principal | undefined {
    const verified = this.#verified.get(digest)
    return verified && Date.now() < verified.untilMs ? verified.principal : undefined
  }

  /** Whether a token has been accepted before, even if it has to be verified again. */
  hasAccepted (digest: string): boolean {
    return this.#verified.has(digest)
  }

  /** Verifies a token and remembers it when it is accepted. Concurrent calls for one token share one verification. */
  verify (digest: string, verify: () => Promise<VerifiedToken>): Promise<Principal> {
    const known = this.#pending.get(digest)
    if (known) return known
    const pending = verify()
      .then(verified => this.#remember(digest, verified))
      .finally(() => this.#pending.delete(digest))
    this.#pending.set(digest, pending)
    return pending
  }

  #remember (digest: string, verified: VerifiedToken): Principal {
    // Deleting first moves the token to the end of the map, which is ordered by insertion.
    this.#verified.delete(digest)
    if (this.#verified.size >= MAX_TOKENS) {
      const [oldest] = this.#verified.keys()
      if (oldest !== undefined) this.#verified.delete(oldest)
    }
    this.#verified.set(digest, verified)
    return verified.principal
  }
}
