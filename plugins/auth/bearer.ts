import type { FastifyRequest } from 'fastify'
import { Unauthenticated } from '../../errors.ts'

/**
 * The bearer token of a request: of the one `Authorization` header, since a second one is what a proxy in front may have
 * checked instead, and never of the query string, which stands in logs. RFC 6750, section 2.
 * @throws {Unauthenticated}
 */
export function bearerToken ({ raw: { rawHeaders }, query }: FastifyRequest): string {
  if (Object.keys(query as object).some(name => name.toLowerCase() === 'access_token')) {
    throw new Unauthenticated(
      'a token in the query string is not accepted, since it ends up in logs; send it in the Authorization header',
      'invalid_request'
    )
  }
  // Node.js keeps the first of several in `headers`.
  const [header, ...more] = rawHeaders.filter((_, index) =>
    index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === 'authorization'
  )
  if (more.length > 0) throw new Unauthenticated('there is more than one Authorization header', 'invalid_request')
  const [, credentials] = /^bearer(?: +(.*))?$/i.exec(header ?? '') ?? []
  if (!credentials) throw new Unauthenticated('no bearer token was sent')
  if (/\s/.test(credentials)) throw new Unauthenticated('the Authorization header is malformed', 'invalid_request')
  return credentials
}
