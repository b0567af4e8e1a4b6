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
import packageJson from '../../package.json' with { type: 'json' }
import { activeSpan, metaOf, type TraceContext, traceContext } from './trace-context.ts'

/** What can't be sent within so long of the end is lost: a collector that is away must not keep the service. */
const FLUSH_BOUND_MS = 2_000
const TRACED_ROUTE = '/mcp'

/**
 * Runs within a span, the child of the one that goes on.
 * @param failed the class of error that a result stands for
 */
export type Traced = <T>(
  name: string,
  kind: 'internal' | 'client',
  attributes: Attributes,
  run: () => Promise<T>,
  failed: (result: T) => string | undefined,
) => Promise<T>

/**
 * Sends traces as the `OTEL_*` variables say. A provider of its own, not the process's: nothing else in it is traced, and
 * several apps are each traced by themselves. No span holds a token, a principal, arguments or an answer.
 *
 * The request's span has its own hooks since `@fastify/otel` begins it before the body is read, so that the `_meta` of a
 * message can't be its parent, and puts the whole URL into it, with whatever a client has in the query.
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
    // Also when the client goes away without a response.
    if (request.routeOptions.url === TRACED_ROUTE) reply.raw.once('close', () => endRequestSpan(request, reply))
    done()
  })
  // After the body is read, and with the time at which the request came.
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
      // Where a hop in between has begun a trace of its own, the agent's is still to be found.
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

/** The SDK itself says nothing of a collector that takes no spans; the log tells of it once, and when it is over. */
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
