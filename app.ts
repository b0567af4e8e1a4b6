import Fastify, { type FastifyInstance, type FastifyReply, LogController } from 'fastify'
import { logStream } from './lib/log-stream.ts'
import audit from './plugins/audit/index.ts'
import auth from './plugins/auth/index.ts'
import brokerMetrics from './plugins/broker-metrics/index.ts'
import config from './plugins/config/index.ts'
import { type Config, type Environment, readConfig } from './plugins/config/read.ts'
import { readStdioConfig } from './plugins/config/stdio.ts'
import etcd from './plugins/etcd/index.ts'
import limits from './plugins/limits/index.ts'
import metadata from './plugins/metadata.ts'
import rbac from './plugins/rbac/index.ts'
import telemetry from './plugins/telemetry/index.ts'
import { traceIds } from './plugins/telemetry/trace-context.ts'
import tls, { tlsOptions } from './plugins/tls.ts'
import toolRegistry from './plugins/tool-registry/index.ts'
import authenticated from './routes/authenticated.ts'
import browsers from './routes/browsers.ts'
import health from './routes/health.ts'
import metrics from './routes/metrics.ts'
import noSignIn from './routes/no-sign-in.ts'
import notFound from './routes/not-found.ts'
import wellKnown from './routes/well-known.ts'
import applyChange from './tools/apply-change.ts'
import brokerStatus from './tools/broker-status.ts'
import cancelChange from './tools/cancel-change.ts'
import clusterMetrics from './tools/cluster-metrics.ts'
import clusterStatus from './tools/cluster-status.ts'
import consumerLag from './tools/consumer-lag.ts'
import createPartitions from './tools/create-partitions.ts'
import createTopic from './tools/create-topic.ts'
import deleteGroup from './tools/delete-group.ts'
import deleteTopic from './tools/delete-topic.ts'
import describeConfigs from './tools/describe-configs.ts'
import describeGroup from './tools/describe-group.ts'
import describeTopics from './tools/describe-topics.ts'
import drainBroker from './tools/drain-broker.ts'
import explainAccess from './tools/explain-access.ts'
import fetchOffsets from './tools/fetch-offsets.ts'
import flushBroker from './tools/flush-broker.ts'
import getChange from './tools/get-change.ts'
import listChanges from './tools/list-changes.ts'
import listGroups from './tools/list-groups.ts'
import listTopics from './tools/list-topics.ts'
import updateTopicConfig from './tools/update-topic-config.ts'

/** No limit: as long as timers go, less what Node.js adds. */
const MAX_KEEP_ALIVE_MS = 2 ** 31 - 10_000

/** A start waits up to 30 s for the lock of an audit file whose holder is gone. */
const PLUGIN_TIMEOUT_MS = 60_000

/**
 * Builds the service, ready to listen, out of its parts and in their order.
 * @throws {ConfigError} listing every invalid variable
 */
export async function buildApp ({ env }: { env?: Environment } = {}): Promise<FastifyInstance> {
  const settings = readConfig(env)
  const { requestTimeoutMs: requestTimeout } = settings
  // Node.js derives the header timeout from these options, and by default checks timeouts only every 30 s.
  const server = { requestTimeout, connectionsCheckingInterval: Math.min(requestTimeout || 30_000, 1_000) }
  const prefix = new URL(settings.publicUrl ?? 'http://localhost').pathname.replace(/\/$/, '')
  const tlsServer = tlsOptions(settings.tls)
  const app = Fastify({
    logger: loggerOptions(settings),
    // Fastify's own response repeats the URL, which may contain a token.
    frameworkErrors: (_, __, reply) => {
      ;(reply as FastifyReply).code(400).send({ statusCode: 400, error: 'Bad Request' })
    },
    logController: new LogController({ disableRequestLogging: true }),
    routerOptions: { ignoreTrailingSlash: true },
    ...tlsServer ? { https: { ...tlsServer, ...server } } : { http: server },
    trustProxy: settings.trustedProxies ?? false,
    bodyLimit: settings.maxBodyBytes,
    pluginTimeout: PLUGIN_TIMEOUT_MS,
    requestTimeout,
    // A proxy may strip the path of PUBLIC_URL, or not.
    rewriteUrl: ({ url = '/' }) => url.startsWith(`${prefix}/`) ? url.slice(prefix.length) : url,
    // Fastify takes 0 for its own default.
    keepAliveTimeout: settings.keepAliveTimeoutMs || MAX_KEEP_ALIVE_MS,
  })

  await registerTools(app, settings)

  // The security of HTTP: which pages may call, TLS, who calls, and how often.
  await app.register(browsers)
  await app.register(tls)
  await app.register(auth)
  await app.register(limits)

  // The routes. Only those of the first plugin require authentication.
  await app.register(authenticated)
  if (settings.changes) {
    await app.register(import('./plugins/sign-in.ts'))
    await app.register(import('./routes/pages/index.ts'))
  }
  await app.register(wellKnown)
  await app.register(noSignIn)
  await app.register(health)
  await app.register(metrics)
  await app.register(notFound)

  return app
}

/**
 * Builds the same tools for a client on standard input and output, without anything that listens.
 * @throws {ConfigError} listing every invalid variable
 */
export async function buildStdioApp ({ env }: { env?: Environment } = {}): Promise<FastifyInstance> {
  const settings = readStdioConfig(env)
  const app = Fastify({ logger: loggerOptions(settings), pluginTimeout: PLUGIN_TIMEOUT_MS })
  await registerTools(app, settings)
  return app
}

/**
 * Builds what knows the cluster, for `kafscale-mcp check`: without the audit log and without callers.
 * @throws {ConfigError} when it is ready, if the settings name tools that do not exist
 */
export async function buildClusterApp (settings: Config): Promise<FastifyInstance> {
  const app = Fastify({ logger: false })
  await registerCluster(app, settings)
  return app
}

/** Registers the tools and what every call goes through, however it arrives. */
async function registerTools (app: FastifyInstance, settings: Config): Promise<void> {
  await registerCluster(app, settings)

  // The audit log, and who may call what.
  await app.register(audit)
  await app.register(rbac)

  // What changes the cluster. It is not even loaded unless that is enabled.
  if (settings.changes) {
    await app.register(import('./plugins/kafka-admin/index.ts'))
    await app.register(import('./plugins/broker-control/index.ts'))
    await app.register(import('./plugins/webhook.ts'))
    await app.register(import('./plugins/changes/index.ts'))
  }
}

/** Registers what knows the cluster, and the tools. */
async function registerCluster (app: FastifyInstance, settings: Config): Promise<void> {
  // Configuration, metrics and traces.
  await app.register(config, { config: settings })
  await app.register(telemetry)

  // What the service knows about the cluster. Each plugin builds on the previous one.
  await app.register(etcd)
  await app.register(metadata)
  await app.register(brokerMetrics)

  // The registry, through which every call goes, and the tools.
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

  // The tools of changes: all but one only propose them.
  if (!settings.changes) return
  await app.register(createTopic)
  await app.register(deleteTopic)
  await app.register(createPartitions)
  await app.register(updateTopicConfig)
  await app.register(deleteGroup)
  await app.register(drainBroker)
  await app.register(flushBroker)
  await app.register(listChanges)
  await app.register(getChange)
  await app.register(cancelChange)
  await app.register(applyChange)
  if (settings.changes.control) await app.register(brokerStatus)
}

/** Logs go to standard error: standard output is for audit records, or for the protocol. */
function loggerOptions ({ logLevel: level }: Config) {
  return { level, stream: logStream, serializers: { err: serializeError }, mixin: traceIds }
}

/** Serializes an error for the log. Omits other properties, which can contain the bytes of a malformed request. */
function serializeError ({ name, message, stack, code }: Error & { code?: string }) {
  return { type: name, message, stack: stack ?? '', ...(code !== undefined && { code }) }
}
