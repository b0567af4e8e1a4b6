/** While etcd is away, the delay between two attempts of a broker to reconnect grows up to this. */
const MAX_RECONNECT_MS = 120_000
/** When there are more outages, the oldest is forgotten: no session timeout is that long. */
const MAX_OUTAGES = 32

/** The times at which etcd was away, so that brokers could not store heartbeats. */
export class Outages {
  readonly #outages: { fromMs: number, toMs: number }[] = []

  /**
   * Adds an outage. Brokers notice its end only at their next attempt to reconnect, which may take as long as the
   * outage did, so for them it is up to twice as long.
   */
  add (fromMs: number, toMs: number): void {
    const last = this.#outages.at(-1)
    const endMs = toMs + Math.min(toMs - fromMs, MAX_RECONNECT_MS)
    if (last && last.toMs >= fromMs) last.toMs = Math.max(last.toMs, endMs)
    else this.#outages.push({ fromMs, toMs: endMs })
    if (this.#outages.length > MAX_OUTAGES) this.#outages.shift()
  }

  /** How much of a period was outage, in milliseconds. */
  within (fromMs: number, toMs: number): number {
    return this.#outages.reduce((sum, outage) =>
      sum + Math.max(0, Math.min(outage.toMs, toMs) - Math.max(outage.fromMs, fromMs)), 0)
  }
}
