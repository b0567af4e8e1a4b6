/** Finds bearer tokens in texts, wherever a caller has put them. */

/** Replaces a secret. */
export const REDACTED = '[redacted]'

/** The first characters of a JWT: `{"` and the beginning of a name, in base64url. */
const JWT_START = 'eyJ'
const SIGNED_PARTS = 3
const ENCRYPTED_PARTS = 5
/** Shorter ones are not tried as opaque tokens. */
const MIN_OPAQUE = 16
const MAX_OPAQUE = 8_192

export interface KnownTokens {
  /** The static token. */
  secret?: string | undefined
  /** Whether a text is an opaque token that has been accepted. */
  isToken?: ((text: string) => boolean) | undefined
}

/**
 * Returns the function that replaces tokens in a text by `[redacted]` and leaves the rest: whatever has the shape of a
 * JWT, the static token, and opaque tokens that stand by themselves. It takes linear time.
 */
export function tokenRedactor ({ secret, isToken }: KnownTokens = {}): (text: string) => string {
  return text => {
    let left = text
    if (secret !== undefined) left = left.replaceAll(secret, REDACTED)
    if (left.includes(JWT_START)) left = left.replace(/[\w.-]+/g, withoutJwts)
    if (isToken && left.length >= MIN_OPAQUE) {
      left = left.replace(/[\w.~+/-]+=*/g, word =>
        word.length >= MIN_OPAQUE && word.length <= MAX_OPAQUE && isToken(word) ? REDACTED : word)
    }
    return left
  }
}

/** Replaces the JWTs in a text of base64url and dots. An encrypted one has five parts; the second can be empty. */
function withoutJwts (word: string): string {
  const parts = word.split('.')
  const kept: string[] = []
  for (let index = 0; index < parts.length; index++) {
    const part = parts[index] as string
    const start = index + SIGNED_PARTS <= parts.length ? startIn(part) : -1
    if (start === -1) {
      kept.push(part)
    } else {
      kept.push(part.slice(0, start) + REDACTED)
      index += (index + ENCRYPTED_PARTS <= parts.length ? ENCRYPTED_PARTS : SIGNED_PARTS) - 1
    }
  }
  return kept.join('.')
}

/**
 * Where a JWT begins in a part: at its beginning, after `-` or `_`, or wherever a header in JSON begins. In a word such
 * as `surveyJobs`, none does.
 */
function startIn (part: string): number {
  for (let at = part.indexOf(JWT_START); at !== -1; at = part.indexOf(JWT_START, at + 1)) {
    if (at === 0 || /[_-]/.test(part.charAt(at - 1))) return at
    const head = part.slice(at, at + 16)
    if (head.length === 16 && /^[ -~]+$/.test(Buffer.from(head, 'base64url').toString('latin1'))) return at
  }
  return -1
}
