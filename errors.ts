/** The errors that callers and operators see, in one table. Internal errors are declared where they are thrown. */
import createError, { FastifyError } from '@fastify/error'

/** An answer must be smaller than this, as compact JSON, so that no answer occupies the service for long. */
export const MAX_ANSWER_BYTES = 1024 * 1024

interface ErrorEntry {
  /** HTTP status. A failed tool call still returns 200; its status here is for logs and documentation. */
  status: number
  /** What happened, to what, and what to do next. Never a stack, a file path or credentials. */
  message: string
  /** Whether the same request may succeed later. */
  retryable: boolean
  /** How long to wait before a retry, if known. */
  retryAfterMs?: number
}

/** Errors of tool calls: a result with `isError` and the message as text. */
const TOOL_ERRORS = {
  INVALID_ARGUMENT: {
    status: 400,
    retryable: false,
    message: "The arguments do not match the tool's input schema: %s. Correct them and call again.",
  },
  INVALID_CURSOR: {
    status: 400,
    retryable: false,
    message: 'The cursor is malformed, or belongs to another tool or to other arguments. ' +
      'Call again without a cursor, or with the arguments that returned it.',
  },
  GROUP_NOT_FOUND: {
    status: 404,
    retryable: false,
    message: 'Consumer group %s does not exist: it has no members and no committed offsets%s. ' +
      'Call list_groups for the groups that exist.',
  },
  RESULT_TOO_LARGE: {
    status: 413,
    retryable: false,
    message: `The answer would be ${MAX_ANSWER_BYTES / 1024 ** 2} MB or more (a batch shares this limit). %s`,
  },
  METADATA_UNAVAILABLE: {
    status: 503,
    retryable: true,
    retryAfterMs: 2_000,
    message: 'The cluster metadata is not available: %s. ' +
      'Call again in a few seconds; operators can find the reason at /healthz or with kafscale-mcp check.',
  },
  METRICS_NOT_CONFIGURED: {
    status: 501,
    retryable: false,
    message: 'Broker metrics are not configured. An operator must set KAFSCALE_MCP_BROKER_METRICS_URL.',
  },
  METRICS_UNAVAILABLE: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'No broker returned its metrics: %s. Call again in a few seconds; cluster_status works without them.',
  },
  PERMISSION_DENIED: {
    status: 403,
    retryable: false,
    message: 'You are not allowed to call %s. It requires %s. Call explain_access to see what you may call.',
  },
  CHANGE_NOT_FOUND: {
    status: 404,
    retryable: false,
    message: 'There is no change %s that you may see. Call list_changes for those there are.',
  },
  CHANGE_IMPOSSIBLE: {
    status: 409,
    retryable: false,
    message: 'The cluster does not allow this change: %s.',
  },
  CHANGE_NOT_YOURS: {
    status: 403,
    retryable: false,
    message: 'The change %s was requested by someone else, and only the requester can apply or cancel it. ' +
      'Propose the same change yourself.',
  },
  CHANGE_EXPIRED: {
    status: 410,
    retryable: false,
    message: 'The change %s has expired. Propose it again.',
  },
  CHANGE_ENDED: {
    status: 409,
    retryable: false,
    message: 'The change %s is %s and cannot be %s. Call get_change for what happened to it.',
  },
  CHANGE_UNREADABLE: {
    status: 409,
    retryable: false,
    message: 'The change %s is stored in version %s of the format, which this version of the service does not know, ' +
      'so it is left alone. Call again when an upgrade or a rollback of the service is complete.',
  },
  CHANGES_CLOSED: {
    status: 403,
    retryable: false,
    message: 'All changes are stopped: the policy file says "changes: closed". Ask an operator.',
  },
  CLUSTER_MISMATCH: {
    status: 409,
    retryable: false,
    message: 'The change cannot run on this cluster: %s. ' +
      'An operator must compare KAFSCALE_MCP_EXPECTED_CLUSTER_ID, KAFSCALE_MCP_KAFKA_BROKERS and the cluster.',
  },
  PLAN_STALE: {
    status: 409,
    retryable: false,
    message: 'The cluster is no longer as the plan expects: %s. Propose the change again.',
  },
  APPROVAL_REQUIRED: {
    status: 403,
    retryable: false,
    message: 'The change %s needs %s by somebody else before it can be applied%s. ' +
      'Ask an approver, and call apply_change again after the approval.',
  },
  CHANGE_IN_PROGRESS: {
    status: 409,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'Another change is being applied (%s): changes run one at a time. Call again in a few seconds.',
  },
  BREAK_GLASS_UNREVIEWED: {
    status: 403,
    retryable: false,
    message: 'The break-glass change %s has not been reviewed. An approver must review it before anyone uses ' +
      'break-glass again.',
  },
  TOO_MANY_PLANS: {
    status: 429,
    retryable: false,
    message: 'You have %s open plans, the most that one principal may have. Cancel some with cancel_change, ' +
      'or wait until they expire.',
  },
  METADATA_STALE: {
    status: 503,
    retryable: true,
    retryAfterMs: 2_000,
    message: 'The service does not know the current state of the cluster (%s), so it changes nothing. ' +
      'Call again in a few seconds.',
  },
  LEDGER_UNAVAILABLE: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'The ledger of changes does not answer: %s. Call again in a few seconds; operators can find the reason ' +
      'at /healthz.',
  },
  BROKER_UNREACHABLE: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'No broker can be reached for this: %s. Nothing was sent. Call again in a few seconds.',
  },
  BROKER_STALE: {
    status: 409,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'The broker %s has another view of the cluster than etcd: %s. A change through it would overwrite what ' +
      'it does not know. Nothing was sent. Call again in a few seconds; if that persists, restart the broker.',
  },
  BROKER_DENIED: {
    status: 403,
    retryable: false,
    message: 'The broker denies this to the principal %s: %s. An operator must allow it in the ACLs of KafScale, or ' +
      'set KAFSCALE_ALLOW_ADMIN_APIS on the brokers.',
  },
  BROKER_REFUSED: {
    status: 409,
    retryable: false,
    message: 'The broker refuses the change: %s. Nothing was changed.',
  },
  BROKER_UNSUPPORTED: {
    status: 501,
    retryable: false,
    message: 'The brokers of this cluster do not support %s: they answer UNIMPLEMENTED. Nothing was changed.',
  },
  AUDIT_UNAVAILABLE: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'The call cannot be recorded in the audit log, so it is not answered. ' +
      'Call again in a few seconds; operators can find the reason at /healthz or with kafscale-mcp check.',
  },
  INTERNAL: {
    status: 500,
    retryable: true,
    message: 'The service failed to answer. Call again; if it fails again, operators can find the reason in the log.',
  },
} as const satisfies Record<string, ErrorEntry>

/** Errors of requests that are refused before they reach a tool: an HTTP status and the message. */
const HTTP_ERRORS = {
  UNAUTHENTICATED: { status: 401, retryable: false, message: 'Not authenticated: %s.' },
  /** Not 401, because the token may be valid and a client would discard it. */
  UNVERIFIABLE: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'The token cannot be verified now: %s. Try again in a few seconds.',
  },
  RATE_LIMITED: {
    status: 429,
    retryable: true,
    retryAfterMs: 1_000,
    message: 'Too many requests: %s. Wait as long as Retry-After says, then try again.',
  },
  OVERLOADED: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'The service is overloaded: its event loop is delayed by more than KAFSCALE_MCP_MAX_EVENT_LOOP_DELAY ' +
      'allows. Try again in a few seconds.',
  },
  UNREAD_ANSWERS: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'The service holds more answers that clients have not read than KAFSCALE_MCP_TOTAL_MAX_UNREAD_BYTES ' +
      'allows. Try again in a few seconds.',
  },
  INSUFFICIENT_SCOPE: { status: 403, retryable: false, message: 'The token lacks a scope. The call requires: %s.' },
  NOT_AUDITOR: { status: 403, retryable: false, message: 'Reading the audit records requires the role auditor.' },
  SIGN_IN_REQUIRED: {
    status: 401,
    retryable: false,
    message: 'You are not signed in, or your session has ended, so nothing was done. Sign in and try again.',
  },
  SIGN_IN_FAILED: {
    status: 403,
    retryable: false,
    message: 'You are not signed in: %s. Sign in again from the page of the change.',
  },
  SIGN_IN_UNAVAILABLE: {
    status: 503,
    retryable: true,
    retryAfterMs: 5_000,
    message: 'Nobody can sign in now: %s. Try again in a few seconds; operators can find the reason in the log.',
  },
  SIGN_IN_TOO_OLD: {
    status: 403,
    retryable: false,
    message: 'You signed in more than 5 minutes ago, or your issuer does not say when, so nothing was done. ' +
      'Sign in again, then decide.',
  },
  FORM_NOT_YOURS: {
    status: 403,
    retryable: false,
    message: 'This form does not come from a page of your current sign-in, so nothing was done. ' +
      'Open the page again, and decide there.',
  },
  FORM_INCOMPLETE: {
    status: 400,
    retryable: false,
    message: 'Nothing was done: %s. Open the page again, and decide there.',
  },
  TOO_COMPLEX: {
    status: 400,
    retryable: false,
    message: 'The request is nested deeper than 32 levels, or has more than 20,000 values in its lists and objects.',
  },
  ID_TOO_LONG: {
    status: 400,
    retryable: false,
    message: 'A JSON-RPC id has at most 256 characters. Send a shorter one.',
  },
  METHOD_TOO_LONG: {
    status: 400,
    retryable: false,
    message: 'A JSON-RPC method has at most 256 characters.',
  },
  BATCH_TOO_LONG: { status: 400, retryable: false, message: 'A batch has at most 10 messages.' },
} as const satisfies Record<string, ErrorEntry>

/** Every error that a caller can receive. Codes must be unique, because `instanceof` compares them. */
export const ERRORS = { ...TOOL_ERRORS, ...HTTP_ERRORS }

export type ToolErrorCode = keyof typeof TOOL_ERRORS
export type ErrorCode = keyof typeof ERRORS

/** Creates the class of an error. `Arguments` replace the `%s` in its message. */
function define<Arguments extends string[]> (code: ErrorCode) {
  const { message, status } = ERRORS[code]
  return createError<Arguments>(code, message, status)
}

export const InvalidArgument = define<[mistakes: string]>('INVALID_ARGUMENT')
export const InvalidCursor = define<[]>('INVALID_CURSOR')
export const ResultTooLarge = define<[remedy: string]>('RESULT_TOO_LARGE')
export const MetadataUnavailable = define<[reason: string]>('METADATA_UNAVAILABLE')
export const MetricsNotConfigured = define<[]>('METRICS_NOT_CONFIGURED')
export const MetricsUnavailable = define<[reason: string]>('METRICS_UNAVAILABLE')
export const PermissionDenied = define<[tool: string, needs: string]>('PERMISSION_DENIED')
export const ChangeNotFound = define<[quotedId: string]>('CHANGE_NOT_FOUND')
export const ChangeImpossible = define<[reason: string]>('CHANGE_IMPOSSIBLE')
export const ChangeNotYours = define<[changeId: string]>('CHANGE_NOT_YOURS')
export const ChangeExpired = define<[changeId: string]>('CHANGE_EXPIRED')
export const ChangeEnded = define<[changeId: string, state: string, step: string]>('CHANGE_ENDED')
export const ChangeUnreadable = define<[changeId: string, version: string]>('CHANGE_UNREADABLE')
export const ChangesClosed = define<[]>('CHANGES_CLOSED')
export const ClusterMismatch = define<[difference: string]>('CLUSTER_MISMATCH')
export const PlanStale = define<[drift: string]>('PLAN_STALE')
export const ApprovalRequired = define<[changeId: string, approvals: string, link: string]>('APPROVAL_REQUIRED')
export const ChangeInProgress = define<[changeId: string]>('CHANGE_IN_PROGRESS')
export const BreakGlassUnreviewed = define<[changeId: string]>('BREAK_GLASS_UNREVIEWED')
export const TooManyPlans = define<[count: string]>('TOO_MANY_PLANS')
export const MetadataStale = define<[reason: string]>('METADATA_STALE')
export const LedgerUnavailable = define<[reason: string]>('LEDGER_UNAVAILABLE')
export const BrokerUnreachable = define<[reason: string]>('BROKER_UNREACHABLE')
export const BrokerStale = define<[broker: string, difference: string]>('BROKER_STALE')
export const BrokerDenied = define<[principal: string, reason: string]>('BROKER_DENIED')
export const BrokerRefused = define<[reason: string]>('BROKER_REFUSED')
export const BrokerUnsupported = define<[what: string]>('BROKER_UNSUPPORTED')
export const RateLimited = define<[limit: string]>('RATE_LIMITED')
export const AuditUnavailable = define<[]>('AUDIT_UNAVAILABLE')
export const Internal = define<[]>('INTERNAL')
export const Unverifiable = define<[reason: string]>('UNVERIFIABLE')
export const Overloaded = define<[]>('OVERLOADED')
export const UnreadAnswers = define<[]>('UNREAD_ANSWERS')
export const NotAuditor = define<[]>('NOT_AUDITOR')
export const SignInRequired = define<[]>('SIGN_IN_REQUIRED')
export const SignInFailed = define<[reason: string]>('SIGN_IN_FAILED')
export const SignInUnavailable = define<[reason: string]>('SIGN_IN_UNAVAILABLE')
export const SignInTooOld = define<[]>('SIGN_IN_TOO_OLD')
export const FormNotYours = define<[]>('FORM_NOT_YOURS')
export const FormIncomplete = define<[reason: string]>('FORM_INCOMPLETE')
export const TooComplex = define<[]>('TOO_COMPLEX')
export const IdTooLong = define<[]>('ID_TOO_LONG')
export const MethodTooLong = define<[]>('METHOD_TOO_LONG')
export const BatchTooLong = define<[]>('BATCH_TOO_LONG')

/** `apartFrom` adds which keys may belong to the group, but can't be attributed to it. */
export class GroupNotFound extends define<[quotedId: string, apartFrom: string]>('GROUP_NOT_FOUND') {
  constructor (quotedId: string, apartFrom = '') {
    super(quotedId, apartFrom)
  }
}

/** The error codes of RFC 6750 for authentication. A request without a token has none. */
type BearerError = 'invalid_request' | 'invalid_token'

/** The reason goes to the caller and the audit log. It must not contain any part of the token. */
export class Unauthenticated extends define<[reason: string]>('UNAUTHENTICATED') {
  readonly bearerError: BearerError | undefined
  /** Whether the token was valid once. Expiry is routine, unlike every other reason. */
  readonly expired: boolean

  constructor (reason: string, bearerError?: BearerError, expired = false) {
    super(reason)
    this.bearerError = bearerError
    this.expired = expired
  }
}

/** Lists every scope that the call requires and those that the token has: a client requests them all at once. */
export class InsufficientScope extends define<[scopes: string]>('INSUFFICIENT_SCOPE') {
  readonly scopes: readonly string[]

  constructor (scopes: readonly string[]) {
    super(scopes.join(' '))
    this.scopes = scopes
  }
}

/** Whether the caller of a tool may see this error. Any other error is reported as {@link Internal}. */
export function isToolError (error: unknown): error is FastifyError & { code: ToolErrorCode } {
  return error instanceof FastifyError && Object.hasOwn(TOOL_ERRORS, error.code)
}

/** The machine-readable form of a tool error, for `_meta["kafscale-mcp/error"]`. */
export function describeError ({ code }: FastifyError): { code: string, retryable: boolean, retry_after_ms?: number } {
  const { retryable, retryAfterMs }: ErrorEntry = ERRORS[code as ErrorCode]
  return { code, retryable, ...(retryAfterMs !== undefined && { retry_after_ms: retryAfterMs }) }
}

// --- Errors that no caller receives

/** Prevents the start. Each line names a variable, its value (unless secret) and what was expected. */
export class ConfigError extends Error {
  override name = 'ConfigError'
}

/** The policy is invalid. Each line of the message gives a line number and the mistake. */
export class PolicyError extends Error {
  override name = 'PolicyError'
}

/** A command line that cannot be understood: the usage follows the message. */
export class UsageError extends Error {
  override name = 'UsageError'
}

/** The requested revision has been compacted, so the keyspace must be loaded again. */
export class CompactedError extends Error {
  override name = 'CompactedError'
}

/** etcd sent a message that is larger than the service accepts. */
export class MessageTooLargeError extends Error {
  override name = 'MessageTooLargeError'
  readonly bytes: number
  readonly maxBytes: number

  /** @param quotedKey the key whose value alone is too large; absent for the events of a watch */
  constructor (bytes: number, maxBytes: number, quotedKey?: string) {
    const what = quotedKey === undefined ? '' : ` for the key ${quotedKey}`
    super(`etcd sent ${bytes} bytes${what}, more than ${maxBytes}`)
    this.bytes = bytes
    this.maxBytes = maxBytes
  }
}

/** The address of a broker's host, which the snapshot names, is not one that the service connects to. */
export class HostRefusedError extends Error {
  override name = 'HostRefusedError'

  constructor () {
    super(
      'its host is a loopback, link-local, multicast or other special address: an operator can allow it in ' +
        'KAFSCALE_MCP_METRICS_ALLOWED_HOSTS'
    )
  }
}
