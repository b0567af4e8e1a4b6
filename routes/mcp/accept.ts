/** What the 2025 revisions require a client to accept. */
const REQUIRED = ['application/json', 'text/event-stream']

/** An `Accept` header in the spelling that the SDK compares with. */
export const ACCEPT_BOTH = REQUIRED.join(', ')

/**
 * Whether a client of a 2025 revision accepts what the revision requires, by the rules of HTTP (RFC 9110, section
 * 12.5.1): case is ignored, a wildcard covers both types, and a client without the header accepts anything.
 *
 * This is more lenient than the specification, by which a client must list both types. Many HTTP libraries and proxies
 * send no `Accept`, or only a wildcard. They can read the JSON that every answer here is, and refusing them protects
 * nobody. A client that lists one of the two types excludes the other, and is refused as the specification demands.
 */
export function acceptsBoth (accept = ''): boolean {
  const ranges = accept.toLowerCase().split(',').map(range => range.replace(/;.*/s, '').trim())
  if (ranges.every(range => range === '')) return true
  return REQUIRED.every(type => [type, type.replace(/\/.*/, '/*'), '*/*'].some(range => ranges.includes(range)))
}
