/** A request to a broker's control plane that changes what it does. */
export type ControlCall =
  | { api: 'drain', nodeId: number, deadlineSeconds: number | null }
  | { api: 'flush', nodeId: number }

export type ControlResult =
  | { kind: 'ok', figures: Readonly<Record<string, number | boolean>> }
  /** The broker does not implement it (`UNIMPLEMENTED`), so it did nothing. */
  | { kind: 'unsupported' }
  /** The broker answered with another gRPC status than OK. */
  | { kind: 'refused', code: number, name: string, message: string }
  /** A timeout or a lost connection after the request was sent. */
  | { kind: 'unknown', reason: string }

/** What `GetStatus` says. KafScale lists one pseudo partition, `__s3_health`, whose fields are figures of S3. */
export interface BrokerStatus {
  nodeId: number
  version: string
  ready: boolean
  s3: { state: string, latencyMs: number, errorRate: number } | null
}

/** The brokers' gRPC control plane. */
export interface BrokerControl {
  /** Whether `KAFSCALE_MCP_BROKER_CONTROL_ADDR` is set. */
  readonly configured: boolean
  /** @throws {BrokerUnreachable} */
  status: (broker: { nodeId: number, host: string }, signal: AbortSignal) => Promise<BrokerStatus>
  /** Sends a call once. Never rejects once anything was sent. @throws {BrokerUnreachable} */
  send: (call: ControlCall, host: string) => Promise<ControlResult>
}
