/** A broker for tests of the change path, in the test's process: it does what it is told, and logs what was sent. */
import { BrokerUnreachable } from '../../errors.ts'
import type { AdminCall, AdminResult, BrokerView, KafkaAdmin } from '../../plugins/kafka-admin/index.ts'
import type { Etcd } from './etcd.ts'

const SNAPSHOT = '/kafscale/metadata/snapshot'
export const CLUSTER_ID = 'cluster-1'

interface StoredSnapshot {
  ClusterID: string | null
  Brokers: { NodeID: number, Host: string, Port: number }[]
  Topics: { Topic: string, Partitions: { Partition: number }[] }[]
}

/** What the broker does with a change. By default, it does it and says so. */
export interface Behaviour {
  /** Whether it takes effect. */
  effect?: boolean
  result?: AdminResult
}

export class ChangeBroker {
  address = 'broker-0:9092'
  /** The changes that were sent, in their order. */
  readonly sent: AdminCall[] = []
  /** Called for each change, after it was sent and before the broker does anything. */
  onSend: (call: AdminCall) => Behaviour | Promise<Behaviour> = () => ({})
  /** The broker's own view, where it differs from etcd's. */
  viewed: Partial<BrokerView> = {}
  validation: AdminResult = { kind: 'ok' }
  reachable = true
  /** How often a replica has tried to connect. */
  attempts = 0
  readonly #etcd: Etcd

  constructor (etcd: Etcd) {
    this.#etcd = etcd
  }

  /** The brokers' admin API as a replica has it. */
  admin (): KafkaAdmin {
    return {
      principal: 'kafscale-mcp',
      connect: async () => {
        this.attempts++
        if (!this.reachable) throw new BrokerUnreachable('connection refused')
        return {
          address: this.address,
          view: async () => await this.view(),
          validate: async () => this.validation,
          send: async call => await this.send(call),
          close: async () => { throw new Error('the connection is broken') },
        }
      },
    }
  }

  async view (): Promise<BrokerView> {
    const { ClusterID, Brokers, Topics } = await this.snapshot()
    return {
      clusterId: ClusterID,
      brokers: Brokers.map(({ NodeID, Host, Port }) => ({ nodeId: NodeID, host: Host, port: Port })),
      topics: new Map(Topics.map(({ Topic, Partitions }) => [Topic, Partitions.length])),
      ...this.viewed,
    }
  }

  async send (call: AdminCall): Promise<AdminResult> {
    this.sent.push(call)
    const { effect, result = { kind: 'ok' } } = await this.onSend(call)
    if (effect ?? result.kind === 'ok') await this.carryOut(call)
    return result
  }

  /** Writes into etcd what a broker would. */
  async carryOut (call: AdminCall): Promise<void> {
    const snapshot = await this.snapshot()
    if (call.api === 'create_topic') {
      const partitions = Array.from({ length: call.partitions }, (_, Partition) => ({ Partition }))
      snapshot.Topics.push({ Topic: call.topic, Partitions: partitions })
    } else if (call.api === 'delete_topic') {
      snapshot.Topics = snapshot.Topics.filter(({ Topic }) => Topic !== call.topic)
    } else {
      throw new Error(`not for tests: ${call.api}`)
    }
    await this.store(snapshot)
  }

  async snapshot (): Promise<StoredSnapshot> {
    const text = await this.#etcd.client.get(SNAPSHOT).string()
    return text === null
      ? { ClusterID: CLUSTER_ID, Brokers: [{ NodeID: 0, Host: 'broker-0', Port: 9092 }], Topics: [] }
      : JSON.parse(text) as StoredSnapshot
  }

  async store (snapshot: StoredSnapshot): Promise<void> {
    await this.#etcd.client.put(SNAPSHOT).value(JSON.stringify(snapshot))
  }
}
