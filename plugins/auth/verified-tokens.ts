import type { Principal } from './principal.ts'

const MAX_TOKENS = 1_000

/**
 * Whom tokens that have been verified stand for, by the digest of each, so that a signature is verified once and not with
 * every call. Only as good as the keys that verified them: with new keys begins a new cache.
 */
export class VerifiedTokens {
  readonly #verified = new Map<string, { principal: Principal, untilMs: number }>()

  get (digest: string): Principal | undefined {
    const found = this.#verified.get(digest)
    if (!found || Date.now() < found.untilMs) return found?.principal
    this.#verified.delete(digest)
    return undefined
  }

  /** @param untilMs milliseconds since the epoch */
  set (digest: string, principal: Principal, untilMs: number): void {
    if (this.#verified.size >= MAX_TOKENS) this.#verified.delete(this.#verified.keys().next().value as string)
    this.#verified.set(digest, { principal, untilMs })
  }
}
