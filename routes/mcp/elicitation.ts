/** Sends the user of an agent to the page of a change that needs an approval, if the client can do that. */
import { hash, randomUUID } from 'node:crypto'
import {
  CLIENT_CAPABILITIES_META_KEY, createRequestStateCodec, inputRequired, type InputRequiredResult, ProtocolError,
  ProtocolErrorCode, type RequestStateCodec, type ServerContext
} from '@modelcontextprotocol/server'
import type { FastifyInstance } from 'fastify'
import { ApprovalRequired } from '../../errors.ts'
import { reveal } from '../../plugins/config/secret.ts'
import type { Caller, ToolResult } from '../../tools/tool.ts'

/** How long a client may take to come back. */
const MAX_AGE_S = 3_600
/** The name of the request in the answer. */
const REQUEST = 'approval'

interface State { change: string, digest: string, nonce: string }

/** What the service asks a client to do in place of the user. Exists only with what approvals need. */
export class Elicitation {
  readonly #app: FastifyInstance
  readonly #callerOf: (context: ServerContext) => Caller
  /** For the current key of sessions, and for an older one. */
  readonly #codecs: RequestStateCodec<State>[]

  constructor (app: FastifyInstance, callerOf: (context: ServerContext) => Caller) {
    this.#app = app
    this.#callerOf = callerOf
    this.#codecs = (app.config.changes?.sessionKeys ?? []).map(key => createRequestStateCodec<State>({
      key: hash('sha256', `kafscale-mcp request state\0${reveal(key)}`, 'buffer'),
      ttlSeconds: MAX_AGE_S,
      bind: context => {
        const { principal: { issuer, subject } } = callerOf(context)
        return JSON.stringify([issuer, subject])
      },
    }))
  }

  /**
   * Accepts the state with which a client comes back: that of its own principal, for the same change and plan, once.
   * @throws {ProtocolError}
   */
  async accept (changeId: unknown, context: ServerContext): Promise<boolean> {
    const state: unknown = context.mcpReq.requestState()
    if (state === undefined) return false
    const found = typeof state === 'string' ? await this.#decode(state, context) : undefined
    const isValid = found?.change === changeId && found?.digest === await this.#digestOf(changeId, context)
    if (!found || !isValid || !await this.#app.changes.once(found.nonce)) {
      throw new ProtocolError(
        ProtocolErrorCode.InvalidParams,
        'Invalid or expired requestState: it is good once, for the change and the caller that it was made for. Call ' +
          'apply_change without it.'
      )
    }
    return true
  }

  /** Adds the request to open the page of a change, if the result is that the change needs an approval. */
  async ask (result: ToolResult, changeId: unknown, context: ServerContext): Promise<ToolResult | InputRequiredResult> {
    const { code } = (result._meta?.['kafscale-mcp/error'] ?? {}) as { code?: string }
    const [codec] = this.#codecs
    if (code !== APPROVAL_REQUIRED || !codec || typeof changeId !== 'string' || !opensUrls(context)) return result
    const { change, approvalUrl } = await this.#app.changes.get(this.#callerOf(context), changeId)
    if (approvalUrl === undefined) return result
    const state = { change: changeId, digest: change.digest, nonce: randomUUID() }
    return {
      // For clients that announce this and do nothing.
      content: result.content,
      ...inputRequired({
        inputRequests: {
          [REQUEST]: inputRequired.elicitUrl({
            url: approvalUrl,
            message: `Somebody else must approve this change before it can be applied. Its page is ${approvalUrl}`,
          }),
        },
        requestState: await codec.mint(state, context),
      }),
    }
  }

  async #decode (state: string, context: ServerContext): Promise<State | undefined> {
    for (const codec of this.#codecs) {
      const found = await codec.verify(state, context).catch(() => undefined)
      if (found) return found
    }
    return undefined
  }

  async #digestOf (changeId: unknown, context: ServerContext): Promise<string | undefined> {
    if (typeof changeId !== 'string') return undefined
    const view = await this.#app.changes.get(this.#callerOf(context), changeId).catch(() => undefined)
    return view?.change.digest
  }
}

const { code: APPROVAL_REQUIRED } = new ApprovalRequired('', '', '')

function opensUrls ({ mcpReq: { envelope } }: ServerContext): boolean {
  const { [CLIENT_CAPABILITIES_META_KEY]: capabilities } = (envelope ?? {}) as Record<string, unknown>
  const { elicitation } = (capabilities ?? {}) as { elicitation?: { url?: object } }
  return elicitation?.url !== undefined
}
