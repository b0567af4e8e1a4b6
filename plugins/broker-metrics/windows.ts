import { type ProduceCount, type ProduceWindow, produceWindow } from '../../kafscale/broker-metrics.ts'

/** How far the uptimes of two pages may be off the time between them if one broker served both. */
const TOLERANCE_S = 5

/** Remembers the last page of each broker, to tell what happened since. */
export class Windows {
  #last = new Map<string, ProduceCount & { atMs: number }>()

  /**
   * The produce requests since the page before; `null` if there is none, or if another broker served it.
   * @param identified whether the URL is that of one broker; behind others, each answer may come from a different one
   */
  until (page: ProduceCount, url: string, identified: boolean): ProduceWindow | null {
    const { uptimeSeconds, produceLatencyMs } = page
    const before = this.#last.get(url)
    const atMs = performance.now()
    this.#last.set(url, { uptimeSeconds, produceLatencyMs, atMs })
    if (!before) return null
    const elapsedS = (atMs - before.atMs) / 1000
    const drift = Math.abs(uptimeSeconds - before.uptimeSeconds - elapsedS)
    if (!identified && drift > TOLERANCE_S && uptimeSeconds > elapsedS) return null
    return produceWindow(before, page, elapsedS)
  }

  /** Forgets all brokers but these. */
  keep (urls: readonly string[]): void {
    const kept = new Set(urls)
    for (const url of this.#last.keys()) if (!kept.has(url)) this.#last.delete(url)
  }
}
