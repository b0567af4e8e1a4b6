import type { FastifyInstance } from 'fastify'
import packageJson from '../package.json' with { type: 'json' }

/**
 * `GET /healthz`: 200 while the process can serve, with the state of its dependencies. `GET /readyz`: 200 once the
 * mirror is loaded; 503 with the reason before that, and while the mirror is older than `MAX_STALENESS`. Neither
 * contacts etcd, a broker or an issuer.
 */
export default async function health (app: FastifyInstance) {
  const { maxStalenessMs } = app.config

  // Answers under overload too, because restarting a busy process would not help.
  app.get('/healthz', { config: { answersUnderOverload: true } }, async () => {
    const { metadata: { mirror, state, ageMs, reason, counters }, brokerMetrics } = app
    return {
      status: 'ok',
      version: packageJson.version,
      uptime_seconds: Math.round(process.uptime()),
      dependencies: {
        etcd: {
          state: state === 'synced' ? 'connected' : state,
          ...(reason !== undefined && { reason }),
          ...(mirror &&
            {
              revision: mirror.revision,
              age_ms: ageMs,
              keys: mirror.modRevisions.size,
              undecodable: mirror.undecodable.size,
              ignored_keys: mirror.ignored.size,
            }),
          ...counters,
        },
        brokers: { state: brokerMetrics.state },
        audit: app.audit.state,
        ...app.config.changes && { changes: app.changes.state },
        ...app.tokenIssuers.length > 0 && { issuers: app.tokenIssuers.map(({ state }) => state) },
      },
    }
  })

  app.get('/readyz', async (_, reply) => {
    const { mirror, ageMs, reason } = app.metadata
    if (!mirror) return reply.code(503).send({ status: 'not ready', reason })
    if (maxStalenessMs > 0 && ageMs > maxStalenessMs) {
      return reply.code(503).send({
        status: 'not ready',
        reason: `the metadata is ${ageMs} ms old, more than KAFSCALE_MCP_MAX_STALENESS: ${
          reason ?? 'the next probe of etcd is due'
        }`,
      })
    }
    return { status: 'ready' }
  })
}
