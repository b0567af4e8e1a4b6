/** Whether changes could be made, if they are enabled: the ledger, the brokers, and their control plane. */
import type { FastifyInstance } from 'fastify'
import { channelCredentials } from '../../lib/grpc-channel.ts'
import { quote } from '../../lib/printable.ts'
import brokerControl from '../../plugins/broker-control/index.ts'
import type { ChangesConfig, LedgerConfig } from '../../plugins/config/changes.ts'
import { reveal } from '../../plugins/config/secret.ts'
import { EtcdConnection } from '../../plugins/etcd/connection.ts'
import { kafkaAdminOf } from '../../plugins/kafka-admin/index.ts'
import { explain, loadedMirror } from './cluster.ts'
import { checkAccess } from './etcd-access.ts'
import { attempt, type Finding } from './finding.ts'

const ANSWER_MS = 5_000
const LEDGER = '/kafscale-mcp/changes/'

/** Registers what `checkChanges` uses. None of it connects by itself. */
export async function registerChanges (app: FastifyInstance): Promise<void> {
  await app.register(brokerControl)
}

export async function * checkChanges (app: FastifyInstance, changes: ChangesConfig): AsyncGenerator<Finding> {
  yield * checkLedger(changes.ledger)
  for (const address of changes.kafka.brokers) yield await checkBroker(address, changes)
  yield * checkControl(app)
}

export async function * checkLedger (ledger: LedgerConfig): AsyncGenerator<Finding> {
  let access: Finding | undefined
  for (const endpoint of ledger.endpoints) {
    const item = `ledger ${endpoint}`
    const channel = channelCredentials(endpoint.startsWith('https:') ? ledger : undefined)
    const connection = new EtcdConnection(endpoint, channel, credentialsOf(ledger))
    try {
      // Any call shows whether etcd answers and takes the credentials.
      await connection.readsEverything()
      yield { level: 'ok', item, detail: 'answers' }
      access ??= await checkAccess('ledger permissions', connection, { prefix: LEDGER, writes: true }, explain)
    } catch (error) {
      yield { level: 'failed', item, detail: explain(error as Error) }
    } finally {
      connection.close()
    }
  }
  yield access ?? { level: 'skipped', item: 'ledger permissions', detail: 'no endpoint of the ledger answers' }
}

function credentialsOf ({ username, password }: LedgerConfig) {
  return username !== undefined && password ? { username, password: reveal(password) } : undefined
}

/** Whether a broker answers, and belongs to the cluster that may be changed. No request names a topic. */
export async function checkBroker (
  address: string,
  { kafka, expectedClusterId }: Pick<ChangesConfig, 'kafka' | 'expectedClusterId'>
): Promise<Finding> {
  const admin = kafkaAdminOf({ ...kafka, brokers: [address] })
  return await attempt(`Kafka broker ${address}`, async () => {
    try {
      const session = await admin.connect(AbortSignal.timeout(ANSWER_MS))
      const { clusterId } = await session.view(AbortSignal.timeout(ANSWER_MS))
      if (clusterId === expectedClusterId) return 'answers, and its cluster is the expected one'
      const found = clusterId === null ? 'names no cluster' : `has the cluster id ${quote(clusterId)}`
      throw new Error(`${found}, and KAFSCALE_MCP_EXPECTED_CLUSTER_ID is ${quote(expectedClusterId)}`)
    } finally {
      await admin.close()
    }
  })
}

async function * checkControl (app: FastifyInstance): AsyncGenerator<Finding> {
  const item = 'control plane'
  if (!app.brokerControl.configured) {
    const detail = 'KAFSCALE_MCP_BROKER_CONTROL_ADDR is not set, so brokers can be neither drained nor flushed'
    yield { level: 'skipped', item, detail }
    return
  }
  const brokers = (await loadedMirror(app))?.snapshot?.brokers ?? []
  if (brokers.length === 0) yield { level: 'skipped', item, detail: 'the snapshot lists no brokers' }
  for (const { nodeId, host } of brokers) {
    yield await attempt(`${item} of broker ${nodeId}`, async () => {
      const { version } = await app.brokerControl.status({ nodeId, host })
      return `answers, with version ${quote(version)}`
    })
  }
}
