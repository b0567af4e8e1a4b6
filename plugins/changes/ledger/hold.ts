import type { LedgerClient } from './client.ts'
import { get, hasValue, isAbsent, put, remove } from './keys.ts'

/** How long before the end of its lease a hold counts as lost. */
const MARGIN_MS = 2_000

/**
 * A key that one replica at a time has, through a lease that it renews. After a failure of the replica, the key is gone
 * when the lease ends. The lease is measured on the monotonic clock, from before it was requested.
 */
export class Hold {
  readonly #client: LedgerClient
  readonly #key: string
  readonly #value: string
  readonly #ttlMs: number
  readonly #endMs: number
  #lease: string
  #heldUntilMs: number
  #timer: NodeJS.Timeout | undefined
  #renewal: Promise<void> | undefined

  private constructor (client: LedgerClient, key: string, value: string, ttlMs: number, maxMs: number, first: Lease) {
    this.#client = client
    this.#key = key
    this.#value = value
    this.#ttlMs = ttlMs
    this.#lease = first.id
    this.#heldUntilMs = first.heldUntilMs
    this.#endMs = performance.now() + maxMs
    this.#schedule()
  }

  /**
   * Takes a key that nobody has. Resolves to the value of whoever has it otherwise.
   * @param value unique to this attempt
   * @param maxMs after this time, the lease is no longer renewed
   * @throws {LedgerUnavailable}
   */
  static async take (
    client: LedgerClient,
    key: string,
    value: string,
    { ttlMs, maxMs = Infinity }: { ttlMs: number, maxMs?: number }
  ): Promise<Hold | string> {
    const lease = await grant(client, ttlMs)
    try {
      const { succeeded, responses } = await client.transact([isAbsent(key)], [put(key, value, lease.id)], [get(key)])
      const holder = responses[0]?.response_range?.kvs[0]?.value.toString() ?? ''
      // An earlier attempt may have been carried out although its answer was lost.
      if (succeeded || holder === value) return new Hold(client, key, value, ttlMs, maxMs, lease)
      void client.revoke(lease.id)
      return holder
    } catch (error) {
      void client.revoke(lease.id)
      throw error
    }
  }

  /** Whether nobody else can have the key now. */
  get held (): boolean {
    return performance.now() < this.#heldUntilMs
  }

  /** Gives the key back; if etcd does not answer, when the lease ends. Never rejects. */
  async release (): Promise<void> {
    this.#heldUntilMs = 0
    clearTimeout(this.#timer)
    await this.#renewal
    await this.#client.transact([hasValue(this.#key, this.#value)], [remove(this.#key)]).catch(() => {})
    await this.#client.revoke(this.#lease)
  }

  #schedule (): void {
    if (performance.now() > this.#endMs) return
    this.#timer = setTimeout(() => {
      this.#renewal = this.#renew().catch(() => {}).then(() => {
        if (this.held) this.#schedule()
      })
    }, this.#ttlMs / 5)
    this.#timer.unref()
  }

  async #renew (): Promise<void> {
    const lease = await grant(this.#client, this.#ttlMs)
    // A new lease rather than a longer one: no stream is needed, and an expired token of etcd is renewed.
    const { succeeded } = await this.#client.transact(
      [hasValue(this.#key, this.#value)],
      [put(this.#key, this.#value, lease.id)]
    )
    const old = succeeded ? this.#lease : lease.id
    if (succeeded) this.#lease = lease.id
    if (this.#heldUntilMs > 0) this.#heldUntilMs = succeeded ? lease.heldUntilMs : 0
    await this.#client.revoke(old)
  }
}

interface Lease { id: string, heldUntilMs: number }

async function grant (client: LedgerClient, ttlMs: number): Promise<Lease> {
  const sentAtMs = performance.now()
  return { id: await client.grant(ttlMs), heldUntilMs: sentAtMs + ttlMs - MARGIN_MS }
}
