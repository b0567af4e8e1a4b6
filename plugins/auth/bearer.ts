import type { FastifyRequest } from 'fastify'
import { Unauthenticated } from '../../errors.ts'

/**
 * The bearer token from the `Authorization` header (RFC 6750, section 2). A second `Authorization` header is refused: a
 * proxy may have checked that one. A token in the query string is refused: URLs end up in logs.
 * @throws {Unauthenticated}
 */
export function bearerToken ({ raw: { rawHeaders }, query }: FastifyRequest): string {
  if (Object.keys(query as object).some(name => name.toLowerCase() === 'access_token')) {
    throw new Unauthenticated(
      'a token in the query string is not accepted, since it ends up in logs; send it in the Authorization header',
      'invalid_request'
    )
  }
  // `headers` would drop all but the first.
  const [header, ...more] = rawHeaders.filter((_, index) =>
    index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === 'authorization'
  )
  if (more.length > 0) throw new Unauthenticated('there is more than one Authorization header', 'invalid_request')
  const [, credentials] = /^bearer(?: +(.*))?$/i.exec(header ?? '') ?? []
  if (!credentials) throw new Unauthenticated('no bearer token was sent')
  if (/\s/.test(credentials)) throw new Unauthenticated('the Authorization header is malformed', 'invalid_request')
  return credentials
}
