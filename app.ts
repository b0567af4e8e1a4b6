import Fastify, { type FastifyInstance, type FastifyReply, LogController } from 'fastify'
import audit from './plugins/audit/index.ts'
import auth from './plugins/auth/index.ts'
import brokerMetrics from './plugins/broker-metrics.ts'
import config from './plugins/config/index.ts'
import { type Environment, readConfig } from './plugins/config/read.ts'
import etcd from './plugins/etcd/index.ts'
import limits from './plugins/limits.ts'
import metadata from './plugins/metadata.ts'
import rbac from './plugins/rbac/index.ts'
import telemetry from './plugins/telemetry/index.ts'
import { traceIds } from './plugins/telemetry/trace-context.ts'
import tls, { tlsOptions } from './plugins/tls.ts'
import toolRegistry from './plugins/tool-registry/index.ts'
import authenticated from './routes/authenticated.ts'
import health from './routes/health.ts'
import metrics from './routes/metrics.ts'
import wellKnown from './routes/well-known.ts'
import clusterMetrics from './tools/cluster-metrics.ts'
import clusterStatus from './tools/cluster-status.ts'
import consumerLag from './tools/consumer-lag.ts'
import describeConfigs from './tools/describe-configs.ts'
import describeGroup from './tools/describe-group.ts'
import describeTopics from './tools/describe-topics.ts'
import explainAccess from './tools/explain-access.ts'
import fetchOffsets from './tools/fetch-offsets.ts'
import listGroups from './tools/list-groups.ts'
import listTopics from './tools/list-topics.ts'

/**
 * The service, ready to listen: the table of contents of everything it does.
 * @throws {ConfigError} naming every variable that is wrong
 */
export async function buildApp ({ env }: { env?: Environment } = {}): Promise<FastifyInstance> {
  const settings = readConfig(env)
  const { requestTimeoutMs: requestTimeout } = settings
  // Node.js derives the timeout of headers from the request timeout at creation, and checks only every 30 s by default.
  const server = { requestTimeout, connectionsCheckingInterval: Math.min(requestTimeout || 30_000, 1_000) }
  const tlsServer = tlsOptions(settings.tls)
  const app = Fastify({
    logger: {
      level: settings.logLevel,
      stream: process.stderr,
      serializers: { err: describeFailure },
      mixin: traceIds,
    },
    // A URL may contain a token, so no answer repeats it.
    frameworkErrors: (_, __, reply) => {
      ;(reply as FastifyReply).code(400).send({ statusCode: 400, error: 'Bad Request' })
    },
    logController: new LogController({ disableRequestLogging: true }),
    routerOptions: { ignoreTrailingSlash: true },
    ...tlsServer ? { https: { ...tlsServer, ...server } } : { http: server },
    trustProxy: settings.trustedProxies ?? false,
    bodyLimit: settings.maxBodyBytes,
    requestTimeout,
  })

  app.setNotFoundHandler(async (_, reply) => reply.code(404).send({ statusCode: 404, error: 'Not Found' }))

  // Configuration, metrics and traces.
  await app.register(config, { config: settings })
  await app.register(telemetry)

  // What the service knows of the cluster. Each plugin builds on the previous one.
  await app.register(etcd)
  await app.register(metadata)
  await app.register(brokerMetrics)

  // The tools, all dispatched by the registry.
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
  await app.register(explainAccess)

  // Who may call, what they may see, how much, and the audit record of it.
  await app.register(tls)
  await app.register(audit)
  await app.register(rbac)
  await app.register(auth)
  await app.register(limits)

  // The routes. Authentication belongs to the scope of the first and covers nothing else.
  await app.register(authenticated)
  await app.register(wellKnown)
  await app.register(health)
  await app.register(metrics)

  return app
}

/** An error for the log, without the bytes of a request that could not be parsed. */
function describeFailure ({ name, message, stack, code }: Error & { code?: string }) {
  return { type: name, message, stack: stack ?? '', ...(code !== undefined && { code }) }
}
