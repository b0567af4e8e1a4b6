import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { getCACertificates } from 'node:tls'
import { noop } from 'cockatiel'
import {
  ClientClosedError, Etcd3, EtcdAuthenticationFailedError, EtcdPermissionDeniedError, GRPCDeadlineExceededError,
  GRPCResourceExhastedError, type ICompare, type IRangeRequest, type IRangeResponse, type IRequestOp,
  isRecoverableError, type ITxnResponse
} from 'etcd3'
import { LedgerUnavailable } from '../../../errors.ts'
import { reveal, type Secret } from '../../config/secret.ts'

/** Where the ledger is, and who writes it. */
export interface LedgerSettings {
  endpoints: readonly string[]
  username?: string | undefined
  password?: Secret | undefined
  caFile?: string | undefined
  certFile?: string | undefined
  keyFile?: string | undefined
}

const CALL_TIMEOUT_MS = 2_000
/** How long a call is repeated while members of etcd are away. */
const REPEAT_MS = 3_000
const REPEAT_INTERVAL_MS = 100
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024

/** Why the ledger does not answer, as shown to callers. Addresses and details are only logged. */
export const LEDGER_REASONS = {
  unreachable: "its etcd can't be reached",
  timedOut: 'its etcd does not answer in time',
  refused: 'its etcd refuses the credentials or the permission',
  full: 'its etcd accepts no more data',
  failed: 'its etcd failed',
} as const

/**
 * The calls to etcd that the ledger makes. Each is repeated for some seconds, so callers make only calls that may be
 * carried out twice: leases, reads, and transactions that compare what they replace.
 * @throws {LedgerUnavailable} from every method, unless it says otherwise
 */
export class LedgerClient {
  readonly #etcd: Etcd3
  readonly #onFailure: (error: Error) => void
  /** Why the last call failed, as callers see it; `undefined` if it did not. */
  failure: string | undefined

  /** @param onFailure learns, once for an outage, why calls fail, with details that callers do not see */
  constructor (settings: LedgerSettings, onFailure: (error: Error) => void) {
    const { endpoints, username, password, caFile, certFile, keyFile } = settings
    this.#onFailure = onFailure
    this.#etcd = new Etcd3({
      hosts: [...endpoints],
      ...username !== undefined && password && { auth: { username, password: reveal(password) } },
      // Given credentials, etcd3 uses TLS whatever the scheme is. Without a CA, it trusts those of the system.
      ...endpoints.every(endpoint => endpoint.startsWith('https:')) && {
        credentials: {
          rootCertificate: caFile === undefined ? Buffer.from(getCACertificates().join('\n')) : readFileSync(caFile),
          ...certFile !== undefined && keyFile !== undefined &&
            { privateKey: readFileSync(keyFile), certChain: readFileSync(certFile) },
        },
      },
      defaultCallOptions: () => ({ deadline: Date.now() + CALL_TIMEOUT_MS }),
      grpcOptions: {
        'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
        'grpc.use_local_subchannel_pool': 1, // a new channel must not inherit the backoff of an old one
      },
      // By default, a circuit breaker refuses calls for 5 s after an outage, and writes are repeated blindly.
      faultHandling: { host: () => noop, global: noop },
    })
  }

  /** Grants a lease, and resolves to its id. */
  async grant (ttlMs: number): Promise<string> {
    const ttl = Math.max(1, Math.ceil(ttlMs / 1_000))
    const { ID: id } = await this.#repeat(async () => await this.#etcd.leaseClient.leaseGrant({ TTL: ttl }))
    return id
  }

  /** Revokes a lease, if etcd answers: otherwise it ends by itself. Never rejects. */
  async revoke (lease: string): Promise<void> {
    await this.#etcd.leaseClient.leaseRevoke({ ID: lease }).catch(() => {})
  }

  async range (request: IRangeRequest): Promise<IRangeResponse> {
    return await this.#repeat(async () => await this.#etcd.kv.range(request))
  }

  async transact (compare: ICompare[], success: IRequestOp[], failure: IRequestOp[] = []): Promise<ITxnResponse> {
    return await this.#repeat(async () => await this.#etcd.kv.txn({ compare, success, failure }))
  }

  close (): void {
    this.#etcd.close()
  }

  async #repeat<T> (call: () => Promise<T>): Promise<T> {
    const untilMs = performance.now() + REPEAT_MS
    for (;;) {
      try {
        const answer = await call()
        this.failure = undefined
        return answer
      } catch (error) {
        const failed = error as Error
        const passes = isRecoverableError(failed) || failed instanceof GRPCDeadlineExceededError
        if (!passes || performance.now() > untilMs) {
          const isNew = this.failure === undefined && !(failed instanceof ClientClosedError)
          if (isNew) this.#onFailure(failed)
          this.failure = reasonOf(failed)
          throw new LedgerUnavailable(this.failure)
        }
        await delay(REPEAT_INTERVAL_MS)
      }
    }
  }
}

function reasonOf (error: Error): string {
  if (error instanceof GRPCDeadlineExceededError) return LEDGER_REASONS.timedOut
  const isRefusal = error instanceof EtcdAuthenticationFailedError || error instanceof EtcdPermissionDeniedError ||
    /user name is empty/.test(error.message)
  if (isRefusal) return LEDGER_REASONS.refused
  if (error instanceof GRPCResourceExhastedError) return LEDGER_REASONS.full
  return isRecoverableError(error) ? LEDGER_REASONS.unreachable : LEDGER_REASONS.failed
}
