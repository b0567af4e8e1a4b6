import { quote } from '../../lib/printable.ts'

/** Returns the value of a secret. */
export let reveal: (secret: Secret) => string

/** A configured secret. Its value cannot be read from the object, not even by `inspect`: only `reveal` returns it. */
export class Secret {
  readonly #value: string

  constructor (value: string) {
    this.#value = value
  }

  static {
    reveal = secret => secret.#value
  }
}

/** A setting's value as a message shows it: on one line, without what may be credentials in a URL or its query. */
export function quoteValue (text: string): string {
  return quote(text.replace(/^.*@/s, '…@').replace(/\?.*$/s, '?…'))
}
