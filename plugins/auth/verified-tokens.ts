import type { Principal } from './principal.ts'

const MAX_TOKENS = 1_000

/** Whom a token stands for, and until when that need not be found out again, in milliseconds since the epoch. */
export interface Found { principal: Principal, untilMs: number }

/**
 * Whom tokens that have been verified stand for, by the digest of each, so that a signature is verified once and not with
 * every call. Only as good as the keys that verified them: with new keys begins a new cache.
 */
export class VerifiedTokens {
  readonly #verified = new Map<string, Found>()
  readonly #pending = new Map<string, Promise<Principal>>()

  get (digest: string): Principal | undefined {
    const found = this.#verified.get(digest)
    return found && Date.now() < found.untilMs ? found.principal : undefined
  }

  /** Whether a token was good, which may be over. */
  knew (digest: string): boolean {
    return this.#verified.has(digest)
  }

  /** Finds out, once for all who ask at the same time. */
  find (digest: string, verify: () => Promise<Found>): Promise<Principal> {
    const known = this.#pending.get(digest)
    if (known) return known
    const pending = verify().then(found => this.#keep(digest, found)).finally(() => this.#pending.delete(digest))
    this.#pending.set(digest, pending)
    return pending
  }

  #keep (digest: string, found: Found): Principal {
    this.#verified.delete(digest)
    if (this.#verified.size >= MAX_TOKENS) this.#verified.delete(this.#verified.keys().next().value as string)
    this.#verified.set(digest, found)
    return found.principal
  }
}
