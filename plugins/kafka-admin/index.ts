/** A request to a broker that changes the cluster. */
export type AdminCall =
  | { api: 'create_topic', topic: string, partitions: number, replicationFactor: number }
  | { api: 'delete_topic', topic: string }
  | { api: 'create_partitions', topic: string, partitions: number }
  | { api: 'alter_configs', topic: string, config: Readonly<Record<string, string>> }
  | { api: 'delete_group', groupId: string }

/** What a broker answered. */
export type AdminResult =
  /** The named item is in the response, with code 0. */
  | { kind: 'ok' }
  /** The named item has a code other than 0 and −1. Nothing was changed. */
  | { kind: 'refused', code: number, name: string, message: string | null }
  /** The response does not contain the named item, which KafScale sends for what it did not do. */
  | { kind: 'missing' }
  /** A timeout, a lost connection or code −1 after the request was sent: it may take effect, even much later. */
  | { kind: 'unknown', reason: string }

/** A broker's view of the cluster, from its Metadata response. */
export interface BrokerView {
  clusterId: string | null
  brokers: readonly { nodeId: number, host: string, port: number }[]
  /** Topics with the number of their partitions. */
  topics: ReadonlyMap<string, number>
}

/** A connection to one broker. Requests are sent one after the other, and none is ever repeated. */
export interface BrokerSession {
  /** host:port. */
  readonly address: string
  /** Asks for all topics by naming none: a broker creates a topic that is named. */
  view: (signal: AbortSignal) => Promise<BrokerView>
  /** Asks the broker to check a call without doing it. `undefined` for an API without `validate_only`. */
  validate: (call: AdminCall, signal: AbortSignal) => Promise<AdminResult | undefined>
  /** Sends a call once, and waits at most 15 s. Never rejects once anything was sent. */
  send: (call: AdminCall) => Promise<AdminResult>
  close: () => Promise<void>
}

/** The brokers' admin API. Does not exist unless `KAFSCALE_MCP_CHANGES` is `enabled`. */
export interface KafkaAdmin {
  /** The principal in KafScale's ACLs: `KAFSCALE_MCP_KAFKA_CLIENT_ID`. */
  readonly principal: string
  /**
   * Connects to one broker: `preferred` if it is configured and answers, else the first of
   * `KAFSCALE_MCP_KAFKA_BROKERS` that does.
   * @throws {BrokerUnreachable} if none answers
   */
  connect: (signal: AbortSignal, preferred?: string) => Promise<BrokerSession>
}
