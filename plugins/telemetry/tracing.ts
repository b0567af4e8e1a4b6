import { setTimeout as delay } from 'node:timers/promises'
import {
  type Attributes,
  type Context,
  createTraceState,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
} from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources'
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from '@opentelemetry/sdk-trace-node'
import type { FastifyBaseLogger, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { onceClosed } from '../../lib/once-closed.ts'
import packageJson from '../../package.json' with { type: 'json' }
import { activeSpan, metaOf, type TraceContext, traceContext } from './trace-context.ts'

/** How long to flush spans at shutdown. The rest is lost: a collector that is down must not delay the exit. */
const FLUSH_BOUND_MS = 2_000
const TRACED_ROUTE = '/mcp'

/**
 * Runs a function in a child span of the active one.
 * @param failed the value of `error.type` for a result that is a failure
 */
export type Traced = <T>(
  name: string,
  kind: 'internal' | 'client',
  attributes: Attributes,
  run: () => Promise<T>,
  failed: (result: T) => string | undefined,
) => Promise<T>

/**
 * Sends traces as configured by the `OTEL_*` variables. The provider isn't the process's global one: nothing else in
 * the process is traced, and each app is traced separately. No span contains a token, a principal, arguments or a
 * response.
 *
 * The request's span has its own hooks because `@fastify/otel` starts it before the body is read, so the message's
 * `_meta` could not be its parent, and records the whole URL with everything that a client puts into the query.
 */
export function startTracing (app: FastifyInstance): Traced {
  const provider = new BasicTracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ 'service.name': packageJson.name, 'service.version': packageJson.version }))
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new BatchSpanProcessor(reporting(new OTLPTraceExporter(), app.log))],
  })
  const tracer = provider.getTracer(packageJson.name, packageJson.version)
  const requestSpans = new WeakMap<FastifyRequest, Span>()

  app.addHook('onRequest', (request, reply, done) => {
    // Also covers clients that disconnect before the response.
    if (request.routeOptions.url === TRACED_ROUTE) {
      onceClosed(request.raw, reply.raw, () => endRequestSpan(request, reply))
    }
    done()
  })
  // Starts the span after the body is read, with the time at which the request arrived.
  app.addHook('preHandler', (request, reply, done) => {
    if (request.routeOptions.url !== TRACED_ROUTE) return done()
    const span = startRequestSpan(request, reply)
    requestSpans.set(request, span)
    activeSpan.run(span, done)
  })
  app.addHook('onClose', async () => {
    await Promise.race([provider.shutdown().catch(() => {}), delay(FLUSH_BOUND_MS, undefined, { ref: false })])
  })

  function startRequestSpan (request: FastifyRequest, reply: FastifyReply): Span {
    const { method, protocol, headers, body } = request
    const ofHeaders = traceContext(headers)
    const ofMessage = traceContext(metaOf((body as { json?: unknown } | undefined)?.json))
    const parent = ofHeaders ?? ofMessage
    return tracer.startSpan(`${method} ${TRACED_ROUTE}`, {
      kind: SpanKind.SERVER,
      startTime: Date.now() - reply.elapsedTime,
      attributes: {
        'http.request.method': method,
        'http.route': TRACED_ROUTE,
        'url.path': TRACED_ROUTE,
        'url.scheme': protocol,
        'kafscale_mcp.request_id': request.id,
      },
      // If a hop in between started a trace of its own, the agent's trace stays reachable.
      links: ofHeaders && ofMessage && ofHeaders.traceId !== ofMessage.traceId
        ? [{ context: spanContext(ofMessage) }]
        : [],
    }, parent ? trace.setSpanContext(ROOT_CONTEXT, spanContext(parent)) : ROOT_CONTEXT)
  }

  function endRequestSpan (request: FastifyRequest, reply: FastifyReply): void {
    const { statusCode, raw } = reply
    const span = requestSpans.get(request) ?? startRequestSpan(request, reply)
    if (raw.headersSent) span.setAttribute('http.response.status_code', statusCode)
    if (statusCode >= 500) span.setAttribute('error.type', String(statusCode)).setStatus({ code: SpanStatusCode.ERROR })
    span.end()
  }

  return async (name, kind, attributes, run, failed) => {
    const span = tracer.startSpan(
      name,
      { kind: kind === 'client' ? SpanKind.CLIENT : SpanKind.INTERNAL, attributes },
      contextOf(activeSpan.getStore())
    )
    try {
      const result = await activeSpan.run(span, run)
      const error = failed(result)
      if (error !== undefined) span.setAttribute('error.type', error).setStatus({ code: SpanStatusCode.ERROR })
      return result
    } finally {
      span.end()
    }
  }
}

function contextOf (span: Span | undefined): Context {
  return span ? trace.setSpan(ROOT_CONTEXT, span) : ROOT_CONTEXT
}

function spanContext ({ traceId, spanId, sampled, state }: TraceContext): SpanContext {
  return {
    traceId,
    spanId,
    traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
    isRemote: true,
    ...(state !== undefined && { traceState: createTraceState(state) }),
  }
}

/** Logs when a collector stops accepting spans, and when it accepts them again. The SDK itself reports neither. */
function reporting (exporter: OTLPTraceExporter, log: FastifyBaseLogger): SpanExporter {
  let failing = false
  return {
    export (spans, done) {
      exporter.export(spans, result => {
        const failed = result.code !== 0
        const { message, code } = (result.error ?? {}) as Partial<NodeJS.ErrnoException>
        if (failed && !failing) log.warn({ reason: code ?? message }, 'traces could not be sent')
        if (!failed && failing) log.info('traces are sent again')
        failing = failed
        done(result)
      })
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush(),
  }
}
