import { readFileSync } from 'node:fs'
import { ConfigError } from '../../errors.ts'
import { isConfidential } from '../../lib/address.ts'
import { tracesAskedFor } from '../telemetry/otel.ts'
import { type AuthConfig, authConfigOf, authModeOf, authWarnings, type Scopes, scopesOf } from './auth.ts'
import {
  CHANGES_SETTINGS, type ChangesConfig, changesConfigOf, changesContradictions, type ChangesKey, changesWarnings,
  withoutChanges
} from './changes.ts'
import { type Contradiction, contradictions } from './contradictions.ts'
import { type Proxies, proxiesOf } from './proxies.ts'
import { ConfigSchema, PREFIX, type Setting, type SettingKey, type Settings, variableOf } from './schema.ts'
import { quoteValue } from './secret.ts'

export type Environment = Record<string, string | undefined>

/** Paths of PEM files. */
export interface TlsFiles {
  readonly certFile: string
  readonly keyFile: string
  /** The CA of client certificates, which are required when it is set. */
  readonly clientCaFile: string | undefined
}

/** Settings that are part of `auth`, `scopes`, `tls` or `changes`. */
type GroupedKey =
  | ChangesKey
  | 'authMode' | 'authJwksFile' | 'authJwksIssuer' | 'authToken'
  | 'oidcIssuer' | 'oidcAudience' | 'oidcMaxTokenLifetimeMs' | 'oidcClientId' | 'oidcClientSecret'
  | 'oidcScope' | 'oidcAdvertisedScope' | 'oidcIdTokenIssuers'
  | 'oidcJwksUrl' | 'oidcIntrospectionUrl'
  | 'tlsCertFile' | 'tlsKeyFile' | 'tlsClientCaFile'

/** The validated configuration. Durations are in milliseconds. Secrets are opaque: see `Secret`. */
export interface Config extends Omit<Settings, GroupedKey> {
  readonly auth: AuthConfig
  readonly scopes: Scopes
  /** Undefined: plain HTTP. */
  readonly tls: TlsFiles | undefined
  /** Undefined unless changes are enabled. */
  readonly changes: ChangesConfig | undefined
  /** Undefined without a proxy, and where nothing would use it. */
  readonly proxies: Proxies | undefined
  /** Whether the standard `OTEL_*` variables ask for traces. */
  readonly tracing: boolean
  /** What to log as a warning at startup: unknown variables, and settings that are valid but probably not intended. */
  readonly warnings: readonly string[]
}

const NO_PROXIES = { proxies: undefined, mistakes: [] }

/**
 * Reads the configuration from an environment. Whitespace around a value is ignored: files, Secrets and copied tokens
 * often end with a line break. An empty variable counts as unset.
 * @param more finds further contradictions
 * @throws {ConfigError} with one line for each mistake
 */
export function readConfig (
  env: Environment = processEnvironment(),
  more: (settings: Partial<Settings>) => Contradiction[] = () => []
): Config {
  const { parsed, mistakes, unparsed } = parseSettings(env)
  const mode = authModeOf(parsed)
  const found = [...contradictions(parsed, mode), ...changesContradictions(parsed, mode), ...more(parsed)]
  for (const { about, message } of found) {
    if (!about.some(key => unparsed.has(key))) mistakes.push(message)
  }
  const sendsRequests = parsed.oidcIssuer !== undefined || parsed.auditSinks?.some(({ kind }) => kind === 'http') ||
    (parsed.changes === 'enabled' && parsed.webhookUrl !== undefined)
  const { proxies, mistakes: proxyMistakes } = sendsRequests ? proxiesOf(env) : NO_PROXIES
  mistakes.push(...proxyMistakes)
  // Complete if there is no mistake.
  const settings = parsed as Settings
  const auth = authConfigOf(mode, settings)
  if (mistakes.length > 0 || !auth) throw new ConfigError(mistakes.join('\n'))

  const {
    authMode,
    authJwksFile,
    authJwksIssuer,
    authToken,
    oidcIssuer,
    oidcAudience,
    oidcScope,
    oidcAdvertisedScope,
    oidcIdTokenIssuers,
    oidcJwksUrl,
    oidcIntrospectionUrl,
    oidcMaxTokenLifetimeMs,
    oidcClientId,
    oidcClientSecret,
    tlsCertFile: certFile,
    tlsKeyFile: keyFile,
    tlsClientCaFile: clientCaFile,
    ...others
  } = withoutChanges(settings)
  // Without authentication, every caller is on this machine, so only a limit that is set applies.
  const rateLimit = mode === 'none' && valueOf(env, variableOf('rateLimit')) === undefined ? 0 : settings.rateLimit
  const tls = certFile !== undefined && keyFile !== undefined ? { certFile, keyFile, clientCaFile } : undefined
  const { tracing, warnings: tracingWarnings } = tracesAskedFor(env)
  const warnings = [
    ...variableWarnings(env),
    ...authWarnings(mode, settings),
    ...auditWarnings(settings),
    ...changesWarnings(settings, setVariables(env, CHANGES_SETTINGS)),
    ...tracingWarnings,
  ]
  const scopes = scopesOf(settings)
  const changes = changesConfigOf(settings)
  return Object.freeze({ ...others, rateLimit, auth, scopes, tls, changes, proxies, tracing, warnings })
}

export function processEnvironment (): Environment {
  return process.env
}

/** Parses each setting by itself. `unparsed` has those with a mistake, which are absent from `parsed`. */
function parseSettings (env: Environment) {
  const parsed: Partial<Record<SettingKey, unknown>> = {}
  const mistakes: string[] = []
  const unparsed = new Set<SettingKey>()
  for (const key of Object.keys(ConfigSchema) as SettingKey[]) {
    try {
      parsed[key] = parseSetting(env, variableOf(key), ConfigSchema[key])
    } catch (error) {
      mistakes.push((error as Error).message)
      unparsed.add(key)
    }
  }
  return { parsed: parsed as Partial<Settings>, mistakes, unparsed }
}

function parseSetting (env: Environment, variable: string, setting: Setting): unknown {
  const given = setting.secret ? readSecret(env, variable) : valueOf(env, variable)
  const text = given ?? setting.default
  if (text === undefined) {
    if (setting.required) throw new Error(`${variable} is not set: expected ${setting.meaning}`)
    return undefined
  }
  try {
    return setting.parse(text)
  } catch (error) {
    const value = setting.secret ? 'not valid' : quoteValue(env[variable] || text)
    throw new Error(`${variable} is ${value}: expected ${(error as Error).message}`)
  }
}

/** The variables of settings: one for each, and for a secret another one that names a file. */
export function variablesOf (keys: readonly SettingKey[]): string[] {
  return keys.flatMap(key => {
    const { secret }: Setting = ConfigSchema[key]
    return secret ? [variableOf(key), `${variableOf(key)}_FILE`] : [variableOf(key)]
  })
}

/** Those variables of settings that an environment sets. */
export function setVariables (env: Environment, keys: readonly SettingKey[]): string[] {
  return variablesOf(keys).filter(name => valueOf(env, name) !== undefined)
}

/** Without the whitespace around it; undefined if nothing is left. */
export function valueOf (env: Environment, variable: string): string | undefined {
  return env[variable]?.trim() || undefined
}

function readSecret (env: Environment, variable: string): string | undefined {
  const fileVariable = `${variable}_FILE`
  const value = valueOf(env, variable)
  const file = valueOf(env, fileVariable)
  if (file === undefined) return value
  if (value !== undefined) throw new Error(`${variable} and ${fileVariable} are both set: expected only one of them`)
  try {
    return readFileSync(file, 'utf8').trim() || undefined
  } catch {
    throw new Error(`${fileVariable} is ${quoteValue(file)}: expected a file that can be read`)
  }
}

/**
 * Whether Kubernetes sets a variable, in the pods of a namespace, for a Service such as `kafscale-mcp` or
 * `kafscale-mcp-telemetry`.
 */
function isServiceLink (name: string, value = ''): boolean {
  return /_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(name) ||
    (name.endsWith('_PORT') && /^(?:tcp|udp|sctp):\/\//.test(value))
}

function variableWarnings (env: Environment): string[] {
  const known = new Set(variablesOf(Object.keys(ConfigSchema) as SettingKey[]))
  const found = Object.keys(env)
    .filter(name => name.startsWith(PREFIX) && !known.has(name) && !isServiceLink(name, env[name])).sort()
    .map(name => `${name} is not a variable of this service: it has no effect`)
  const sessionTimeout = variableOf('sessionTimeoutMs')
  if (valueOf(env, sessionTimeout)) found.push(`${sessionTimeout} has no effect: sessions no longer exist`)
  return found
}

/** What is valid about the audit log but probably not intended. */
function auditWarnings ({ auditSinks, auditCollectorHeadersFile }: Settings): string[] {
  const isExposed = auditSinks.some(sink => sink.kind === 'http' && !isConfidential(sink.url))
  if (!isExposed || auditCollectorHeadersFile === undefined) return []
  return [
    `${variableOf('auditSinks')} has a collector without https: the headers in ` +
    `${variableOf('auditCollectorHeadersFile')} can be intercepted on the way`,
  ]
}
