import { CHANGES_SETTINGS } from './changes.ts'
import type { Contradiction } from './contradictions.ts'
import { type Config, type Environment, processEnvironment, readConfig, setVariables, valueOf } from './read.ts'
import { type SettingKey, type Settings, variableOf } from './schema.ts'

/** Settings of HTTP: its listeners, who may call over it, how much, and what they may change. */
export const HTTP_SETTINGS: readonly SettingKey[] = [
  'httpAddr', 'publicUrl', 'allowedHosts', 'allowedOrigins', 'trustedProxies', 'maxStalenessMs',
  'authMode', 'authJwksFile', 'authJwksIssuer', 'authToken',
  'oidcIssuer', 'oidcAudience', 'oidcScope', 'oidcAdvertisedScope', 'oidcIdTokenIssuers', 'oidcMaxTokenLifetimeMs',
  'oidcClientId', 'oidcClientSecret', 'oidcJwksUrl', 'oidcIntrospectionUrl', 'oidcAllowHttp',
  'tlsCertFile', 'tlsKeyFile', 'tlsClientCaFile',
  'rateLimit', 'addressRateLimit', 'maxConnections', 'addressMaxConnections', 'maxConcurrentCalls',
  'addressMaxConcurrentCalls', 'maxAuthFailures',
  'maxEventLoopDelayMs', 'maxBodyBytes', 'requestTimeoutMs', 'keepAliveTimeoutMs', 'responseTimeoutMs',
  'maxUnreadBytes', 'totalMaxUnreadBytes',
  'telemetryAddr', 'sessionTimeoutMs',
  // Changes belong to callers who sign in.
  ...CHANGES_SETTINGS,
]

/**
 * Reads the configuration of a service whose only client is on standard input and output. The settings of HTTP are
 * ignored, so that it can share an environment with a service that listens. Without audit sinks, nothing is recorded.
 * @throws {ConfigError} with one line for each mistake
 */
export function readStdioConfig (env: Environment = processEnvironment()): Config {
  const sinks = variableOf('auditSinks')
  const ignored = setVariables(env, HTTP_SETTINGS)
  const rest = { ...env, ...Object.fromEntries(ignored.map(name => [name, undefined])) }
  const changes = variableOf('changes')
  const asksForChanges = valueOf(env, changes) === 'enabled'
  const config = readConfig(
    { ...rest, [sinks]: valueOf(env, sinks) ?? 'none', ...asksForChanges && { [changes]: undefined } },
    settings => [...occupiedStdout(settings), ...asksForChanges ? [IMPOSSIBLE_CHANGES] : []]
  )
  if (ignored.length === 0) return config
  const warning = `${ignored.join(', ')} ${ignored.length === 1 ? 'has' : 'have'} no effect over standard input and ` +
    'output: the client that started the process is the only caller'
  return Object.freeze({ ...config, warnings: [...config.warnings, warning] })
}

const IMPOSSIBLE_CHANGES: Contradiction = {
  about: [],
  message: `${variableOf('changes')} is enabled: expected disabled over standard input and output, since a change ` +
    'belongs to a caller who has signed in, and here nobody signs in',
}

function occupiedStdout ({ auditSinks }: Partial<Settings>): Contradiction[] {
  if (!auditSinks?.some(({ kind }) => kind === 'stdout')) return []
  const message = `${variableOf('auditSinks')} contains stdout, which carries the protocol: ` +
    'expected file:PATH, a URL, or nothing, which records nothing'
  return [{ about: ['auditSinks'], message }]
}
