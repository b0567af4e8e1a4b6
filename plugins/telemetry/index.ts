import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Caller, ToolResult } from '../../tools/tool.ts'
import type { BrokerResult } from '../broker-metrics/index.ts'
import type { Decision } from '../rbac/decide.ts'
import { codeOf } from '../tool-registry/record.ts'
import { authenticationFailure } from './authentication-failure.ts'
import { Metrics, type Outcome } from './metrics.ts'
import type { Traced } from './tracing.ts'

/** The label of every tool that doesn't exist. */
const UNKNOWN_TOOL = 'unknown'

declare module 'fastify' {
  interface FastifyInstance { telemetry: Telemetry }
}

/** Metrics, traces, and a log line per call. */
export interface Telemetry {
  /** The current metrics in the Prometheus text format, and its content type. */
  page: () => Promise<{ contentType: string, text: string }>
  /** Runs a call: counts, times, traces and logs it. */
  call: (tool: string, caller: Caller, decision: Decision, run: () => Promise<ToolResult>) => Promise<ToolResult>
  /**
   * Counts and logs a call that is refused before it runs. `tool` is `null` if the tool doesn't exist, and `rule` if
   * the policy didn't deny the call.
   */
  refused: (call: { tool: string | null, outcome: Outcome, rule: string | null, code: string }, caller: Caller) => void
  /** Counts a failed authentication by its reason. */
  authenticationFailed: (error: unknown) => void
  /** Runs the scrape of one broker: traces, counts and logs it. */
  scrape: (
    target: { nodeId: number | null, address: string },
    run: () => Promise<BrokerResult>,
  ) => Promise<BrokerResult>
}

export default fp(async function telemetry (app) {
  const metrics = new Metrics(app)
  const traced = app.config.tracing ? await tracing(app) : untraced

  app.addHook('onResponse', (request, reply, done) => {
    metrics.response(request.routeOptions.url ?? 'none', reply.statusCode)
    done()
  })

  app.decorate<Telemetry>('telemetry', {
    page: async () => ({ contentType: metrics.registry.contentType, text: await metrics.registry.metrics() }),

    async call (tool, caller, decision, run) {
      const startedMs = performance.now()
      metrics.inFlight++
      const result = await traced(
        `tools/call ${tool}`,
        'internal',
        { 'mcp.method.name': 'tools/call', 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': tool },
        run,
        codeOf
      )
        .finally(() => metrics.inFlight--)
      const durationMs = performance.now() - startedMs
      const code = codeOf(result)
      const outcome = decision.kind === 'denied' ? 'denied' : code === undefined ? 'ok' : 'error'
      metrics.call(tool, outcome, durationMs)
      if (code !== undefined) metrics.error(tool, code)
      if (decision.kind === 'denied') metrics.denial(decision.rule)
      log(caller, { tool, outcome, code, duration_ms: Math.round(durationMs * 1_000) / 1_000 })
      return result
    },

    refused ({ tool, outcome, rule, code }, caller) {
      const known = tool ?? UNKNOWN_TOOL
      metrics.callRefused(known, outcome)
      metrics.error(known, code)
      if (rule !== null) metrics.denial(rule)
      log(caller, { tool: known, outcome, code })
    },

    authenticationFailed (error) {
      metrics.authenticationFailure(authenticationFailure(error))
    },

    async scrape ({ nodeId, address }, run) {
      const result = await traced(
        'scrape',
        'client',
        { 'server.address': address },
        run,
        ({ state }) => state === 'ok' ? undefined : state
      )
      metrics.scrape(nodeId === null ? address : String(nodeId), result.state)
      app.log.debug({
        broker: nodeId,
        address,
        state: result.state,
        reason: result.state === 'ok' ? undefined : result.error,
      }, 'broker scraped')
      return result
    },
  })

  /** At `debug` only: each call has an audit record already, and a log line costs as much as a small tool. */
  function log (
    { requestId, traceId }: Caller,
    call: { tool: string, outcome: string, code: string | undefined, duration_ms?: number }
  ): void {
    app.log.debug({ reqId: requestId, trace_id: traceId ?? undefined, ...call }, 'tool called')
  }
}, { name: 'telemetry', dependencies: ['config'] })

const untraced: Traced = (_, __, ___, run) => run()

/** Loads the OpenTelemetry SDK only if traces are enabled. */
async function tracing (app: FastifyInstance): Promise<Traced> {
  // Must stay outside of `export default …`, in which TypeScript doesn't rewrite the path of a dynamic import.
  const { startTracing } = await import('./tracing.ts')
  return startTracing(app)
}
