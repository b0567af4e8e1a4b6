import type { FastifyError } from '@fastify/error'
import type { FastifyInstance } from 'fastify'
import { InsufficientScope, Unauthenticated } from '../../errors.ts'
import { SCOPES } from '../rbac/decide.ts'
import { metadataUrl } from './resource.ts'

/**
 * The `WWW-Authenticate` header for an error: RFC 6750, section 3, with `resource_metadata` from RFC 9728. Undefined
 * for errors that are not about the token.
 */
export function challenge (error: FastifyError, app: FastifyInstance): string | undefined {
  const refusal = refusalOf(error)
  if (!refusal) return undefined
  const { code, scopes } = refusal
  return 'Bearer ' + [
    ...code === undefined ? [] : [`error="${code}"`, `error_description="${error.message}"`],
    `resource_metadata="${metadataUrl(app)}"`,
    `scope="${scopes.join(' ')}"`,
  ].join(', ')
}

function refusalOf (error: FastifyError): { code: string | undefined, scopes: readonly string[] } | undefined {
  if (error instanceof InsufficientScope) return { code: 'insufficient_scope', scopes: error.scopes }
  if (error instanceof Unauthenticated) return { code: error.bearerError, scopes: [SCOPES.observe] }
  return undefined
}
