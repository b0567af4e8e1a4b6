import type { FastifyError } from '@fastify/error'
import type { FastifyInstance } from 'fastify'
import { InsufficientScope, Unauthenticated } from '../../errors.ts'
import { metadataUrl } from './resource.ts'

/**
 * The `WWW-Authenticate` header for an error: RFC 6750, section 3, with `resource_metadata` from RFC 9728. Undefined
 * for errors that are not about the token.
 */
export function challenge (error: FastifyError, app: FastifyInstance): string | undefined {
  const refusal = refusalOf(error, app)
  if (!refusal) return undefined
  const { code, scopes } = refusal
  const { observe, advertised } = app.config.scopes
  const requested = [...new Set(scopes.flatMap(scope => scope === observe ? advertised : [scope]))]
  return 'Bearer ' + [
    ...code === undefined ? [] : [`error="${code}"`, `error_description="${error.message}"`],
    `resource_metadata="${metadataUrl(app)}"`,
    `scope="${requested.join(' ')}"`,
  ].join(', ')
}

/** `scopes` are those that the token must contain, which may differ from those that a client requests. */
function refusalOf (
  error: FastifyError,
  { config }: FastifyInstance
): { code: string | undefined, scopes: readonly string[] } | undefined {
  if (error instanceof InsufficientScope) return { code: 'insufficient_scope', scopes: error.scopes }
  if (error instanceof Unauthenticated) return { code: error.bearerError, scopes: [config.scopes.observe] }
  return undefined
}
