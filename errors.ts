import createError, { type FastifyError } from '@fastify/error'

/**
 * Every error that a tool can fail with. A message says what happened, to what, and what to do next; it holds nothing
 * internal: no stack, no path, no address with credentials. `%s` stands for what the constructor is given.
 */
export const InvalidArgument = createError<[string]>(
  'INVALID_ARGUMENT',
  "The input does not fit the tool's schema: %s. Correct what is named and call again.",
  400
)
export const InvalidCursor = createError<[]>(
  'INVALID_CURSOR',
  'The cursor is malformed, or belongs to another tool or other arguments. Call again without a cursor, or with the arguments that it came from.',
  400
)
export const GroupNotFound = createError<[string]>(
  'GROUP_NOT_FOUND',
  'There is no consumer group %s: it has neither members nor committed offsets. Call list_groups for the groups that exist.',
  404
)
export const ResultTooLarge = createError<[string]>('RESULT_TOO_LARGE', 'The answer would be 4 MB or more. %s', 413)
export const MetadataUnavailable = createError<[string]>(
  'METADATA_UNAVAILABLE',
  "The cluster's metadata is not known: %s. Call again in a few seconds; an operator finds more under /healthz.",
  503
)
export const MetricsNotConfigured = createError<[]>(
  'METRICS_NOT_CONFIGURED',
  'No broker metrics are configured. An operator sets KAFSCALE_MCP_BROKER_METRICS_URL.',
  501
)
export const MetricsUnavailable = createError<[string]>(
  'METRICS_UNAVAILABLE',
  'No broker answered with its metrics: %s. Call again in a few seconds; cluster_status answers without them.',
  503
)
export const PermissionDenied = createError<[string, string]>(
  'PERMISSION_DENIED',
  'You may not call %s. It would need %s; explain_access tells what you may.',
  403
)
export const RateLimited = createError<[string]>(
  'RATE_LIMITED',
  'There are too many calls: %s. Wait for those under way, then call again.',
  429
)
export const AuditUnavailable = createError<[]>(
  'AUDIT_UNAVAILABLE',
  'The call can not be recorded, so it is not answered. Call again in a few seconds; an operator finds the reason under /healthz.',
  503
)
export const Internal = createError<[]>(
  'INTERNAL',
  "The service failed to answer. Call again; if it fails again, an operator finds the reason in the service's log.",
  500
)

// --- Why a request goes no further than the door: told by HTTP status, before there is any tool

/** What RFC 6750 calls what is wrong with a token; nothing where none was sent. */
type BearerError = 'invalid_request' | 'invalid_token'

/** HTTP 401. The reason is for the caller and the audit record, and never holds anything of the token. */
export class Unauthenticated extends createError<[string]>('UNAUTHENTICATED', 'Not authenticated: %s.', 401) {
  readonly bearerError: BearerError | undefined
  /** The token was good once: the usual failure where nothing is wrong. */
  readonly expired: boolean

  constructor (reason: string, bearerError?: BearerError, expired = false) {
    super(reason)
    this.bearerError = bearerError
    this.expired = expired
  }
}

/** HTTP 503: a token that may be good can't be verified now. A client that were told 401 would throw it away. */
export const Unverifiable = createError<[string]>(
  'UNAUTHENTICATED',
  'The token can not be verified now: %s. Try again in a few seconds.',
  503
)

/** HTTP 403 with every scope that the call needs, so that a client can ask for them at once. */
export class InsufficientScope
  extends createError<[string]>('INSUFFICIENT_SCOPE', 'The token lacks a scope. The call needs: %s.', 403) {
  readonly scopes: readonly string[]

  constructor (scopes: readonly string[]) {
    super(scopes.join(' '))
    this.scopes = scopes
  }
}

/** Whether an error is one of this table, and so may be shown to whoever called. */
export function isToolError (error: unknown): error is FastifyError {
  return TABLE.some(known => error instanceof known)
}

const TABLE = [
  InvalidArgument,
  InvalidCursor,
  GroupNotFound,
  ResultTooLarge,
  MetadataUnavailable,
  MetricsNotConfigured,
  MetricsUnavailable,
  PermissionDenied,
  RateLimited,
  AuditUnavailable,
  Internal,
]

/** Codes for which the same call may succeed later, and after how many milliseconds it is worth trying. */
const RETRY_AFTER_MS: ReadonlyMap<string, number> = new Map([
  ['METADATA_UNAVAILABLE', 2_000],
  ['METRICS_UNAVAILABLE', 5_000],
  ['RATE_LIMITED', 1_000],
  ['AUDIT_UNAVAILABLE', 5_000],
])

/** How a failure is told to a machine, under `_meta["kafscale-mcp/error"]`. */
export function describeError ({ code }: FastifyError): { code: string, retryable: boolean, retry_after_ms?: number } {
  const retryAfterMs = RETRY_AFTER_MS.get(code)
  return retryAfterMs === undefined
    ? { code, retryable: code === 'INTERNAL' }
    : { code, retryable: true, retry_after_ms: retryAfterMs }
}

// --- Why the service does not start

/** Each line of the message names a setting, its value unless that is a secret, and what was expected. */
export class ConfigError extends Error {
  override name = 'ConfigError'
}
