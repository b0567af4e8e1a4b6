import Fastify, { LogController, type FastifyInstance } from 'fastify'
import brokerMetrics from './plugins/broker-metrics.ts'
import config, { readConfig, type Environment } from './plugins/config.ts'
import etcd from './plugins/etcd/index.ts'
import metadata from './plugins/metadata.ts'
import toolRegistry from './plugins/tool-registry.ts'
import health from './routes/health.ts'
import mcp from './routes/mcp.ts'
import clusterMetrics from './tools/cluster-metrics.ts'
import clusterStatus from './tools/cluster-status.ts'
import consumerLag from './tools/consumer-lag.ts'
import describeConfigs from './tools/describe-configs.ts'
import describeGroup from './tools/describe-group.ts'
import describeTopics from './tools/describe-topics.ts'
import fetchOffsets from './tools/fetch-offsets.ts'
import listGroups from './tools/list-groups.ts'
import listTopics from './tools/list-topics.ts'

/**
 * The service, ready to listen: the table of contents of everything it does.
 * @throws {ConfigError} naming every variable that is wrong
 */
export async function buildApp ({ env }: { env?: Environment } = {}): Promise<FastifyInstance> {
  const settings = readConfig(env)
  const app = Fastify({
    logger: { level: settings.logLevel, stream: process.stderr },
    logController: new LogController({ disableRequestLogging: true }),
    routerOptions: { ignoreTrailingSlash: true },
  })

  // What the service knows, each from the one before.
  await app.register(config, { config: settings })
  await app.register(etcd)
  await app.register(metadata)
  await app.register(brokerMetrics)

  // What can be asked, through one dispatcher.
  await app.register(toolRegistry)
  await app.register(clusterStatus)
  await app.register(clusterMetrics)
  await app.register(listTopics)
  await app.register(describeTopics)
  await app.register(describeConfigs)
  await app.register(listGroups)
  await app.register(describeGroup)
  await app.register(fetchOffsets)
  await app.register(consumerLag)

  // Who may ask it: a scope of its own, so that what guards it guards nothing else.
  await app.register(mcp)
  await app.register(health)

  return app
}
