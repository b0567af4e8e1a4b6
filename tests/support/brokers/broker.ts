/**
 * Doubles of KafScale brokers: they speak the Kafka protocol over TCP, and write into etcd what a broker writes. Each
 * logs every request, and fails its test if it received a change that the service had no right to send.
 */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TlsOptions } from 'node:tls'
import {
  ADVERTISED,
  type ApiName,
  APIS,
  apiVersions,
  type Body,
  describeConfigs,
  emptySuccess,
  type Entry,
  findCoordinator,
  frames,
  type Item,
  itemized,
  metadata,
  type MetadataTopic,
  readRequest,
  type Request,
  type Response,
  saslAuthenticate,
  saslHandshake,
  writeFrame,
} from '../../../demo/kafka-protocol.ts'
import type { Etcd } from '../etcd.ts'
import type { Teardown } from '../run.ts'
import { type Checked, collectEvidence, type Evidence, type Mutation, violationsOf } from './invariant.ts'
import { SaslSession, type SaslUser } from './sasl.ts'
import { BrokerStore, initialSnapshot, type Snapshot, StoreError } from './store.ts'

export interface BrokerOptions {
  /** Default 0. */
  nodeId?: number
  /**
   * Where the evidence for a change is, besides the ledger: the audit logs of the service. `exempt` says why a test
   * sends changes itself, without the service.
   */
  checked: Checked
  /** The broker was started while etcd was down: it knows only itself and the topic `orders`. */
  withoutEtcd?: boolean
  /** KAFSCALE_AUTO_CREATE_TOPICS, by default on. */
  autoCreateTopics?: boolean
  /** KAFSCALE_ALLOW_ADMIN_APIS, by default on. */
  allowAdminApis?: boolean
  /** Other versions than KafScale's. */
  advertised?: typeof ADVERTISED
  /** In front of a broker, as a terminating proxy has it. */
  tls?: TlsOptions
  sasl?: SaslUser
}

/** What happens to requests of an API, before or after the broker acted upon them. */
export interface Fault {
  api: ApiName
  /** By default `before`: the broker does not act. */
  when?: 'before' | 'after'
  /**
   * - `drop`: closes the connection.
   * - `hold`: waits for {@link Injected.release}, then goes on.
   * - `missing`: answers success, without the item that was asked for, and does nothing.
   * - `twice`: answers for each item with success, and once more with code 36; does nothing.
   * - `ghost`: etcd does not take the snapshot: −1, and the change stays in the broker's memory.
   * - a code: answers with it, and does nothing.
   */
  what: 'drop' | 'hold' | 'missing' | 'twice' | 'ghost' | number
  /** What comes with the code. */
  message?: string
  /** To how many requests. Default 1. */
  times?: number
}

export interface Injected {
  /** Resolves once a request has met the fault. */
  reached: Promise<void>
  /** Ends a `hold`. */
  release: () => void
}

/** A request as it arrived, and what became of it. */
export interface LoggedRequest {
  at: Date
  /** Counts the connections of a broker from 1. */
  connection: number
  key: number
  version: number
  api: ApiName | undefined
  clientId: string | null
  body: Body | null
  /** Whether a broker may change the cluster because of it. */
  mutation: boolean
  /** What the broker answered with: an item's code, 0 for others, `null` as long as it has not answered. */
  answer: { items: Item[] } | null
}

/** Starts a broker on a free port. The teardown of `t` ends it, and throws if it received an unproven change. */
export async function startBroker (t: Teardown, etcd: Etcd, options: BrokerOptions): Promise<BrokerDouble> {
  const broker = new BrokerDouble(etcd, options)
  await broker.listen()
  t.teardown(async () => {
    await broker.close()
    const violations = broker.violations()
    if (violations.length > 0) throw new Error(violations.join('\n'))
  })
  return broker
}

interface Connection {
  number: number
  socket: Socket
  sasl: SaslSession | undefined
  /** The cluster id of the last Metadata answer, if nothing but that was asked since. */
  fence: { clusterId: string | null } | undefined
}

interface ActiveFault { fault: Fault, left: number, reached: () => void, released: Promise<void> }

export class BrokerDouble {
  /** Every request, oldest first. */
  readonly log: LoggedRequest[] = []
  /** Principals whose requests the ACL denies. */
  readonly denied = new Set<string>()
  readonly nodeId: number
  /** host:port, once it listens. */
  address = ''

  readonly #etcd: Etcd
  readonly #options: BrokerOptions
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly #mutations: Mutation[] = []
  readonly #acting = new Set<Promise<void>>()
  readonly #beforeClose: (() => Promise<void>)[] = []
  #faults: ActiveFault[] = []
  #lastConnection = 0
  #frozen: { until: Promise<void>, thaw: () => void } | undefined
  #store: BrokerStore | undefined

  constructor (etcd: Etcd, options: BrokerOptions) {
    this.#etcd = etcd
    this.#options = options
    this.nodeId = options.nodeId ?? 0
    const accept = (socket: Socket) => { void this.#accept(socket) }
    this.#server = options.tls ? createTlsServer(options.tls, accept) : createServer(accept)
  }

  async listen (): Promise<void> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening')
    const { port } = this.#server.address() as AddressInfo
    this.address = `127.0.0.1:${port}`
    const store = new BrokerStore(this.#etcd, initialSnapshot(this.nodeId, '127.0.0.1', port))
    this.#store = store
    await store.start(this.#options.withoutEtcd !== true, async () => {
      if (!this.#frozen) return
      await this.#frozen.until
      // What was waiting acts upon the view from before.
      await Promise.allSettled(this.#acting)
    })
  }

  get store (): BrokerStore {
    if (!this.#store) throw new Error('the broker does not listen yet')
    return this.#store
  }

  /** The broker's view of the cluster, which a test may change. */
  get view (): Snapshot {
    return this.store.state
  }

  /** Requests that a broker may change the cluster for. */
  get mutations (): LoggedRequest[] {
    return this.log.filter(({ mutation }) => mutation)
  }

  /** How many clients are connected. */
  get connections (): number {
    return this.#sockets.size
  }

  /** Keeps the broker's view as it is, whatever other brokers write. */
  goStale (): void {
    this.store.following = false
  }

  /** Stops the process, as SIGSTOP does: connections are accepted, and nothing answers. */
  freeze (): void {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#frozen = { until: promise, thaw: resolve }
  }

  /** Lets it go on. Requests that arrived meanwhile are carried out before it looks at etcd. */
  thaw (): void {
    const frozen = this.#frozen
    this.#frozen = undefined
    frozen?.thaw()
  }

  inject (fault: Fault): Injected {
    const reached = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    this.#faults.push({ fault, left: fault.times ?? 1, reached: reached.resolve, released: released.promise })
    return { reached: reached.promise, release: released.resolve }
  }

  /** A producer with an open log: whenever the topic is gone, it creates the topic, and `next_offset` goes on. */
  keepProducing (topic: string, partition: number, nextOffset: number): void {
    this.store.onRefresh = () => {
      if (this.store.topic(topic)) return
      void (async () => {
        await this.store.createTopic(topic, 1, 1)
        const key = `/kafscale/topics/${topic}/partitions/${partition}/next_offset`
        await this.#etcd.client.put(key).value(`${nextOffset}`).exec()
      })().catch(() => {}) // the broker or etcd has ended
    }
  }

  /** A group's members: whenever the group is deleted, they join again. */
  async keepMembers (groupId: string, record: Buffer): Promise<void> {
    const key = `/kafscale/consumers/${groupId}/metadata`
    const join = async () => { await this.#etcd.client.put(key).value(record).exec() }
    await join()
    const watcher = await this.#etcd.client.watch().key(key).create()
    watcher.on('delete', () => { join().catch(() => {}) })
    this.#beforeClose.push(async () => { await watcher.cancel() })
  }

  /** What the service had no right to send. */
  violations (): string[] {
    return 'exempt' in this.#options.checked ? [] : violationsOf(this.#mutations)
  }

  /** Ends all connections; new ones are refused. */
  async close (): Promise<void> {
    this.thaw()
    if (!this.#server.listening) return
    await Promise.all([this.#store?.close(), ...this.#beforeClose.map(async end => await end())])
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  async #accept (socket: Socket): Promise<void> {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
    const { sasl } = this.#options
    const connection: Connection = {
      number: ++this.#lastConnection,
      socket,
      sasl: sasl && new SaslSession(sasl),
      fence: undefined,
    }
    try {
      for await (const frame of frames(socket)) {
        const answer = await this.#serve(readRequest(frame), connection)
        if (answer === undefined) break
        socket.write(answer)
      }
    } catch {
      // The client or the broker closed the connection, or the request cannot be read.
    } finally {
      socket.destroy()
    }
  }

  /** @returns the answer; `undefined` to close the connection */
  async #serve (request: Request, connection: Connection): Promise<Buffer | undefined> {
    const entry: LoggedRequest = {
      at: new Date(),
      connection: connection.number,
      key: request.key,
      version: request.version,
      api: request.api,
      clientId: request.clientId,
      body: request.body,
      mutation: mayChange(request),
      answer: null,
    }
    this.log.push(entry)
    if (entry.mutation) await this.#remember(request, connection)
    const acting = Promise.withResolvers<void>()
    this.#acting.add(acting.promise)
    try {
      await this.#frozen?.until
      const response = await this.#answer(request, connection, entry)
      if (response === undefined) return undefined
      entry.answer ??= { items: [] }
      return writeFrame(request, response)
    } finally {
      this.#acting.delete(acting.promise)
      acting.resolve()
    }
  }

  async #remember (request: Request, { fence }: Connection): Promise<void> {
    const { checked } = this.#options
    const evidence: Evidence = 'exempt' in checked ? 'exempt' : await collectEvidence(this.#etcd, checked)
    this.#mutations.push({
      what: `${request.api ?? request.key} v${request.version} at ${this.address}`,
      address: this.address,
      call: callOf(request.body),
      fence,
      evidence,
    })
  }

  async #answer (request: Request, connection: Connection, entry: LoggedRequest): Promise<Response | undefined> {
    const { api, body } = request
    if (connection.sasl && !connection.sasl.done && api !== 'ApiVersions') return this.#signIn(request, connection.sasl)
    if (body === null || api === undefined) return emptySuccess(request)
    const before = this.#fault(api, 'before')
    if (before?.fault.what === 'drop') return undefined
    if (before?.fault.what === 'hold') await before.released
    if (before?.fault.what === 'ghost') this.store.failingWrites++

    const itemsOf = async (): Promise<Item[]> => {
      if (before?.fault.what === 'missing') return []
      if (before?.fault.what === 'twice') return namesOf(body).flatMap(name => [{ name, code: 0 }, { name, code: 36 }])
      const code = before?.fault.what
      const message = before?.fault.message ?? null
      if (typeof code === 'number') return namesOf(body).map(name => ({ name, code, message }))
      return await this.#act(body, request.clientId)
    }
    let response: Response
    connection.fence = undefined
    if (body.api === 'Metadata') {
      response = await this.#metadata(request, body)
      connection.fence = { clusterId: this.view.ClusterID }
    } else {
      response = await this.#other(request, body) ??
        itemized({ ...request, api }, await logged(itemsOf()))
    }

    const after = this.#fault(api, 'after')
    if (after?.fault.what === 'hold') await after.released
    return after?.fault.what === 'drop' ? undefined : response

    async function logged (items: Promise<Item[]>): Promise<Item[]> {
      entry.answer = { items: await items }
      return entry.answer.items
    }
  }

  #fault (api: ApiName, when: 'before' | 'after'): ActiveFault | undefined {
    const active = this.#faults.find(({ fault, left }) =>
      fault.api === api && (fault.when ?? 'before') === when && left > 0)
    if (active) {
      active.left--
      active.reached()
    }
    return active
  }

  #signIn (request: Request, sasl: SaslSession): Response | undefined {
    switch (request.body?.api) {
      case 'SaslHandshake': {
        const known = sasl.start(request.body.mechanism)
        return saslHandshake(known ? 0 : 33, sasl.mechanisms)
      }
      case 'SaslAuthenticate': {
        const answer = sasl.next(request.body.bytes)
        return answer === undefined
          ? saslAuthenticate(request, 58, 'Authentication failed', Buffer.alloc(0))
          : saslAuthenticate(request, 0, null, answer)
      }
      default:
        return undefined
    }
  }

  async #metadata (request: Request, { topics }: Body & { api: 'Metadata' }): Promise<Response> {
    const names = topics?.flatMap(({ name }) => name ?? []) ?? []
    if (this.#options.autoCreateTopics !== false) {
      for (const name of names.filter(name => name.trim() !== '')) {
        try {
          await this.store.createTopic(name, 1, 1)
        } catch (error) {
          if (!(error instanceof StoreError && error.kind === 'exists')) throw error
        }
      }
    }
    const { Brokers, ControllerID, ClusterID, Topics } = this.view
    const known = (Topics ?? []).map((topic): MetadataTopic => ({
      code: topic.ErrorCode,
      name: topic.Topic,
      id: uuid(topic.TopicID),
      internal: topic.IsInternal,
      partitions: (topic.Partitions ?? []).map(partition => ({
        code: partition.ErrorCode,
        partition: partition.Partition,
        leader: partition.Leader,
        leaderEpoch: partition.LeaderEpoch,
        replicas: partition.Replicas ?? [],
        isr: partition.ISR ?? [],
        offline: partition.OfflineReplicas ?? [],
      })),
    }))
    const none = { internal: false, partitions: [] }
    const byId = topics?.filter(({ id }) => id !== uuid([])) ?? []
    return metadata(request, {
      brokers: (Brokers ?? []).map(({ NodeID, Host, Port, Rack }) =>
        ({ nodeId: NodeID, host: Host, port: Port, rack: Rack })),
      clusterId: ClusterID,
      controllerId: ControllerID,
      topics: byId.length > 0
        ? byId.map(({ id }) => known.find(topic => topic.id === id) ?? { ...none, code: 100, name: null, id })
        : names.length > 0
          ? names.map(name => known.find(topic => topic.name === name) ?? { ...none, code: 3, name, id: uuid([]) })
          : known,
    })
  }

  /** APIs whose answer is not a list of codes. */
  async #other (request: Request, body: Body): Promise<Response | undefined> {
    switch (body.api) {
      case 'ApiVersions':
        return apiVersions(request, this.#options.sasl
          ? [...ADVERTISED, [APIS.SaslHandshake, 0, 1], [APIS.SaslAuthenticate, 0, 2]]
          : this.#options.advertised ?? ADVERTISED)
      case 'SaslHandshake':
      case 'SaslAuthenticate':
        return emptySuccess(request)
      case 'FindCoordinator': {
        const self = this.view.Brokers?.find(({ NodeID }) => NodeID === this.nodeId) ?? this.view.Brokers?.[0]
        return findCoordinator({ nodeId: self?.NodeID ?? 0, host: self?.Host ?? '', port: self?.Port ?? 0 })
      }
      case 'DescribeConfigs':
        return describeConfigs(await Promise.all(body.resources.map(async ({ type, name, keys }) => {
          const config = await this.store.topicConfig(name).catch(() => undefined)
          if (type !== 2 || !config) return { code: type === 2 ? 3 : 42, type, name, configs: [] }
          const retention = (value: bigint) => value === 0n ? -1n : value
          const values = [
            { name: 'retention.ms', value: retention(config.retentionMs), byDefault: -1n, type: 5 },
            { name: 'retention.bytes', value: retention(config.retentionBytes), byDefault: -1n, type: 5 },
            { name: 'segment.bytes', value: config.segmentBytes || 4_194_304n, byDefault: 0n, type: 3 },
          ]
          return {
            code: 0,
            type,
            name,
            configs: values.filter(({ name }) => keys === null || keys.includes(name))
              .map(({ name, value, byDefault, type }) => ({
                name,
                value: `${value}`,
                isDefault: name === 'segment.bytes' ? config.segmentBytes === 0n : value === byDefault,
                type,
              })),
          }
        })))
      default:
        return undefined
    }
  }

  async #act (body: Body, clientId: string | null): Promise<Item[]> {
    const denied = this.denied.has(clientId?.trim() ? clientId : 'anonymous')
    const { available } = this.store
    const down = (name: string, message: string | null): Item => ({ name, code: 7, message })
    switch (body.api) {
      case 'CreateTopics':
        return await inTurn(body.topics, async ({ name, partitions, replicationFactor }) => {
          if (denied) return { name, code: 29, message: 'unauthorized' }
          if (this.#options.allowAdminApis === false) return { name, code: 29, message: 'admin APIs disabled' }
          if (!available) return down(name, 'etcd unavailable')
          return await item(name, 17, async () => {
            if (body.validateOnly) this.store.checkTopic(name, partitions, replicationFactor)
            else await this.store.createTopic(name, partitions, replicationFactor)
          })
        })
      case 'DeleteTopics':
        return await inTurn(body.topics, async name => {
          if (denied || this.#options.allowAdminApis === false) return { name, code: 29 }
          if (!available) return down(name, null)
          return await item(name, 17, async () => { await this.store.deleteTopic(name) })
        })
      case 'CreatePartitions': {
        const seen = new Set<string>()
        return await inTurn(body.topics, async ({ name, count, assignments }) => {
          if (denied) return { name, code: 29 }
          if (!available) return down(name, 'etcd unavailable')
          if (name.trim() === '') return { name, code: 17, message: 'invalid topic name' }
          if (seen.has(name)) return { name, code: 42, message: 'duplicate topic in request' }
          seen.add(name)
          if (count <= 0) return { name, code: 37, message: 'invalid partition count' }
          if (assignments > 0) return { name, code: 42, message: 'replica assignment not supported' }
          return await item(name, 37, async () => {
            if (body.validateOnly) this.store.checkPartitions(name, count)
            else await this.store.createPartitions(name, count)
          })
        })
      }
      case 'AlterConfigs':
        return await inTurn(body.resources, async ({ type, name, configs }) => {
          const refusal = type === 2 ? 29 : 31
          return { name, type, code: denied ? refusal : await this.#alter(type, name, configs, body.validateOnly) }
        })
      case 'DeleteGroups': {
        const items = await inTurn(body.groups, async name => {
          if (denied) return { name, code: 30 }
          if (!available) return down(name, null)
          if (name.trim() === '') return { name, code: 42 }
          return await this.store.deleteGroup(name)
            .then(found => ({ name, code: found ? 0 : 69 }), () => ({ name, code: -1 }))
        })
        // A group that is named twice has the second answer twice.
        return items.map(({ name }) => items.findLast(item => item.name === name)!)
      }
      default:
        return []
    }
  }

  /** @returns the code of the answer */
  async #alter (type: number, name: string, entries: Entry[], validateOnly: boolean): Promise<number> {
    if (!this.store.available) return 7
    if (type !== 2 || name === '') return 42
    const config = await this.store.topicConfig(name).catch(() => undefined)
    if (!config) return 3 // also when etcd does not answer
    for (const { name: key, value } of entries) {
      const number = parseConfigValue(value)
      if (number === undefined) return 40
      if (key === 'retention.ms' && number >= -1n) config.retentionMs = number
      else if (key === 'retention.bytes' && number >= -1n) config.retentionBytes = number
      else if (key === 'segment.bytes' && number > 0n) config.segmentBytes = number
      else return 40
    }
    if (validateOnly) return 0
    return await this.store.putTopicConfig(config).then(() => 0, () => -1)
  }
}

/** One after the other, as a broker does. */
async function inTurn<T> (values: T[], each: (value: T) => Promise<Item>): Promise<Item[]> {
  const items: Item[] = []
  for (const value of values) items.push(await each(value))
  return items
}

/** @param invalid the code of an invalid change, which each API has its own of */
async function item (name: string, invalid: number, change: () => Promise<void>): Promise<Item> {
  try {
    await change()
    return { name, code: 0 }
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    const code = { exists: 36, invalid, unknown: 3, etcd: -1 }[error.kind]
    return { name, code, message: error.message }
  }
}

/** A decimal int64, which may have blanks around it. */
function parseConfigValue (value: string | null): bigint | undefined {
  const text = value?.trim() ?? ''
  if (!/^[-+]?\d+$/.test(text)) return undefined
  const number = BigInt(text.replace('+', ''))
  return BigInt.asIntN(64, number) === number ? number : undefined
}

const uuid = (bytes: number[]): string =>
  Buffer.concat([Buffer.from(bytes), Buffer.alloc(16 - bytes.length)]).toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')

function namesOf (body: Body): string[] {
  switch (body.api) {
    case 'CreateTopics':
    case 'CreatePartitions':
      return body.topics.map(({ name }) => name)
    case 'DeleteTopics':
      return body.topics
    case 'AlterConfigs':
      return body.resources.map(({ name }) => name)
    case 'DeleteGroups':
      return body.groups
    default:
      return []
  }
}

/** Requests that change nothing, whatever they ask for. Metadata creates the topics that it names. */
const READS: ReadonlySet<ApiName> = new Set([
  'ApiVersions', 'FindCoordinator', 'DescribeConfigs', 'SaslHandshake', 'SaslAuthenticate',
])

function mayChange ({ api, body }: Request): boolean {
  if (api === undefined || body === null) return true
  if (body.api === 'Metadata') return body.topics !== null && body.topics.length > 0
  return !READS.has(api) && !('validateOnly' in body && body.validateOnly)
}

/** The tool, and its arguments, whose change a request carries out; `null` unless it carries out exactly one. */
function callOf (body: Body | null): Mutation['call'] {
  switch (body?.api) {
    case 'CreateTopics': {
      const [topic, ...more] = body.topics
      return topic && more.length + topic.assignments + topic.configs.length === 0
        ? {
            tool: 'create_topic',
            arguments: {
              topic: topic.name,
              partitions: topic.partitions,
              replication_factor: topic.replicationFactor,
            },
          }
        : null
    }
    case 'DeleteTopics':
      return body.topics.length === 1 ? { tool: 'delete_topic', arguments: { topic: body.topics[0] } } : null
    case 'CreatePartitions': {
      const [topic, ...more] = body.topics
      return topic && more.length + topic.assignments === 0
        ? { tool: 'create_partitions', arguments: { topic: topic.name, partitions: topic.count } }
        : null
    }
    case 'AlterConfigs': {
      const [topic, ...more] = body.resources
      return topic?.type === 2 && more.length === 0
        ? {
            tool: 'update_topic_config',
            arguments: {
              topic: topic.name,
              config: Object.fromEntries(topic.configs.map(({ name, value }) => [name, value])),
            },
          }
        : null
    }
    case 'DeleteGroups':
      return body.groups.length === 1 ? { tool: 'delete_group', arguments: { group_id: body.groups[0] } } : null
    default:
      return null
  }
}
