import { quote } from '../../lib/printable.ts'

/**
 * Whether the standard OpenTelemetry variables enable traces, with a warning for each value that isn't supported. The
 * SDK reads all other variables (endpoint, headers, sampler, resource, batches) from the process's environment.
 */
export function tracesAskedFor (
  env: Readonly<Record<string, string | undefined>>
): { tracing: boolean, warnings: string[] } {
  const off = { tracing: false, warnings: [] }
  const { OTEL_SDK_DISABLED: disabled, OTEL_TRACES_EXPORTER: exporters } = env
  if (disabled?.toLowerCase() === 'true') return off
  if (exporters) {
    const named = exporters.split(',').map(name => name.trim())
    if (named.includes('none')) return off
    if (!named.includes('otlp')) {
      return {
        tracing: false,
        warnings: [`OTEL_TRACES_EXPORTER is ${quote(exporters)}: no traces are sent; expected otlp or none`],
      }
    }
  } else if (!env['OTEL_EXPORTER_OTLP_ENDPOINT'] && !env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT']) {
    return off
  }
  const variable = env['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL']
    ? 'OTEL_EXPORTER_OTLP_TRACES_PROTOCOL'
    : 'OTEL_EXPORTER_OTLP_PROTOCOL'
  const protocol = env[variable] || 'http/protobuf'
  if (protocol === 'http/protobuf') return { tracing: true, warnings: [] }
  return {
    tracing: false,
    warnings: [
      `${variable} is ${
        quote(protocol)
      }: no traces are sent; expected http/protobuf, which collectors take on port 4318`,
    ],
  }
}
