/** How much there is of something for each key. A key without anything takes no memory. */
export class Tally {
  readonly #amounts = new Map<string, number>()

  of (key: string): number {
    return this.#amounts.get(key) ?? 0
  }

  add (key: string, amount = 1): void {
    this.#amounts.set(key, this.of(key) + amount)
  }

  subtract (key: string, amount = 1): void {
    const left = this.of(key) - amount
    if (left > 0) this.#amounts.set(key, left)
    else this.#amounts.delete(key)
  }
}
